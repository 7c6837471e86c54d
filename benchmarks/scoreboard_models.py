"""Makes the models of the scoreboard with this project and with other tools.

Each function writes one model, or a pair, with random weights. Its body is the code
that users of the tool would write; the scoreboard shows the body unchanged.

Run as a program with the name of a model and a folder, this module writes the model
into the folder.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Callable

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_MAX_ERROR = 300  # characters of an error message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maker:
    """Makes a model, or the two models of a pair, with one tool.

    Args:
      title: name of the tool.
      note: function of the tool and the kind of model, in a few words.
      kinds: kinds of the models, which are the names of their folders.
      make: function that writes these folders into the folder it is called with.
    """

    title: str
    note: str
    kinds: tuple[str, ...]
    make: Callable[[pathlib.Path], None]

    @property
    def code(self) -> str:
        """Source code of the body of `make`."""
        _, _, body = inspect.getsource(self.make).partition(":\n")
        return textwrap.dedent(body.partition('"""\n')[2] or body).strip()


class NotMadeError(Exception):
    """Raised if a model could not be made; the message gives the reason."""


def this_project(folder: pathlib.Path) -> None:
    export = _ROOT / "tools" / "export"
    command = [str(export), "--arch=mobilenet_v2_035_224", "--check=none"]
    subprocess.run([*command, f"--output={folder}"], check=True)
    for kind in ("feature_vector", "classification"):
        (folder / "mobilenet_v2_035_224" / kind / "1").rename(folder / kind)


def keras_export(folder: pathlib.Path) -> None:
    import keras

    images = keras.Input((None, None, 3))
    classifier = keras.applications.MobileNetV2(
        input_tensor=images, alpha=0.35, weights=None, classifier_activation=None
    )
    features = keras.Model(images, classifier.get_layer(index=-2).output)
    features.export(folder / "feature_vector")
    classifier.export(folder / "classification")


def keras_default(folder: pathlib.Path) -> None:
    import keras

    model = keras.applications.MobileNetV2(alpha=0.35, weights=None)
    model.export(folder / "classification")


def keras_cv(folder: pathlib.Path) -> None:
    import keras
    import keras_cv

    backbone = keras_cv.models.ResNetV2Backbone(
        stackwise_filters=[32, 64],
        stackwise_blocks=[2, 2],
        stackwise_strides=[1, 2],
        include_rescaling=False,
    )
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    features = keras.Model(backbone.input, pooled)
    classifier = keras_cv.models.ImageClassifier(
        backbone=backbone, num_classes=10, activation=None
    )
    features.export(folder / "feature_vector")
    classifier.export(folder / "classification")


def tf_keras(folder: pathlib.Path) -> None:
    import tf_keras

    model = tf_keras.applications.MobileNetV2(
        (None, None, 3), alpha=0.35, include_top=False, pooling="avg", weights=None
    )
    model.save(folder / "feature_vector", save_format="tf")


def tf_module(folder: pathlib.Path) -> None:
    import tensorflow as tf

    class Features(tf.Module):
        def __init__(self):
            self.kernel = tf.Variable(tf.random.normal([3, 3, 3, 16]), name="kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
        def __call__(self, images):
            hidden = tf.nn.relu(tf.nn.conv2d(images, self.kernel, 2, "SAME"))
            return tf.reduce_mean(hidden, axis=[1, 2])

    tf.saved_model.save(Features(), str(folder / "feature_vector"))


def tf1_hub(folder: pathlib.Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    builder = v1.saved_model.Builder(str(folder / "feature_vector"))
    for tags in ([], ["train"]):
        with tf.Graph().as_default(), v1.Session() as session:
            images = v1.placeholder(tf.float32, [None, 224, 224, 3])
            kernel = v1.get_variable("kernel", [3, 3, 3, 16])
            hidden = tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME"))
            features = tf.reduce_mean(hidden, axis=[1, 2])
            signature = v1.saved_model.predict_signature_def(
                {"images": images}, {"default": features}
            )
            signatures = {"default": signature, "image_feature_vector": signature}
            if tags:
                builder.add_meta_graph(tags, signatures)
            else:
                session.run(v1.global_variables_initializer())
                builder.add_meta_graph_and_variables(session, tags, signatures)
    builder.save()
    # What hub.Module wrote beside it: a ModuleDef with format = FORMAT_V3.
    (folder / "feature_vector" / "tfhub_module.pb").write_bytes(b"\x08\x03")


FEATURES, CLASSES = ("feature_vector",), ("classification",)
BOTH = FEATURES + CLASSES

# fmt: off
MAKERS = {
    "this_project": Maker(
        title="This project", note="tools/export, MobileNetV2",
        kinds=BOTH, make=this_project),
    "keras_export": Maker(
        title="Keras 3", note="model.export, MobileNetV2 of free size, logits",
        kinds=BOTH, make=keras_export),
    "keras_default": Maker(
        title="Keras 3 by default", note="model.export, MobileNetV2 as it comes",
        kinds=CLASSES, make=keras_default),
    "keras_cv": Maker(
        title="KerasCV", note="model.export, ResNetV2 backbone, logits",
        kinds=BOTH, make=keras_cv),
    "tf_keras": Maker(
        title="tf_keras", note="model.save, MobileNetV2 of free size",
        kinds=FEATURES, make=tf_keras),
    "tf_module": Maker(
        title="tf.Module", note="tf.saved_model.save, one convolution",
        kinds=FEATURES, make=tf_module),
    "tf1_hub": Maker(
        title="TF1 Hub", note="Graph variants of TensorFlow 1, one convolution",
        kinds=FEATURES, make=tf1_hub),
}
# fmt: on


def make(name: str, folder: pathlib.Path, *, packages: str = "") -> None:
    """Makes a model in a separate process.

    Args:
      name: a key of `MAKERS`.
      folder: an empty folder for the models.
      packages: a folder with additional packages, or "".

    Raises:
      NotMadeError: the process failed, and the message is the last line of its output;
        or it did not write a model.
    """
    command = [sys.executable, __file__, name, str(folder), packages]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
    )
    missing = [k for k in MAKERS[name].kinds if not (folder / k).is_dir()]
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise NotMadeError(lines[-1][:_MAX_ERROR])
    if missing:
        raise NotMadeError(f"it wrote no {' and no '.join(missing)}")


def main() -> None:
    """Makes the model named on the command line; reports an error in one line."""
    name, folder, packages = sys.argv[1:]
    # At the end, so that installed packages take precedence.
    sys.path += [packages] if packages else []
    try:
        if name != "this_project":  # tools/export sets its own seed
            import keras
            import tensorflow as tf

            keras.utils.set_random_seed(0)
            tf.random.set_seed(0)
        MAKERS[name].make(pathlib.Path(folder))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        sys.exit(f"{package} was not installed")
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
