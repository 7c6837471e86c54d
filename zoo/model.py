"""An image model: one backbone, and the feature vector and classifier made of it."""

from __future__ import annotations

import dataclasses
import pathlib
import typing
from collections.abc import Sequence

import gin
import keras

from zoo import config, inputs, multiply_adds
from zoo import head as heads
from zoo import spec as specs
from zoo import taxonomy as taxonomies
from zoo.weights import loading, native_format, registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A backbone and the two models over it; all three share the very same layers.

    Attributes:
      spec: what the backbone was built from.
      backbone: normalised images [B, H, W, 3] -> dict of endpoints.
      head: feature vector [B, D] -> logits [B, K].
      feature_vector: images in [0, 1], [B, H, W, 3] float32 -> [B, D] float32.
      classifier: the same images -> logits [B, K] float32.
      taxonomy: what each logit stands for.
      normalization: applied inside both models.
      preprocessing: what to do before them.
      weight_decay: scale of the L2 loss, sum(w²) / 2, over `decayed`.
      weight_decay_excludes: parts of variable paths that are not decayed.
      arch: the name that it was built by.
      weights: where the values of the variables came from.
      gin_config: the gin bindings that it was built with.
    """

    spec: specs.BackboneSpec
    backbone: keras.Model
    head: keras.Model
    feature_vector: keras.Model
    classifier: keras.Model
    taxonomy: taxonomies.Taxonomy
    normalization: inputs.Normalization
    preprocessing: inputs.Preprocessing
    weight_decay: float
    weight_decay_excludes: tuple[str, ...]
    arch: str = ""
    weights: dict[str, typing.Any] = dataclasses.field(default_factory=dict)
    gin_config: str = ""

    def endpoints(
        self, images: typing.Any, *, training: bool = False
    ) -> dict[str, typing.Any]:
        """The backbone's endpoints by name, for images in [0, 1], [B, H, W, 3]."""
        return self.backbone(self.normalization.layer()(images), training=training)

    def record(self) -> native_format.JsonObject:
        """What a file of these weights says of them; see `zoo.weights.own`."""
        about = {
            key: value
            for key, value in self.weights.items()
            if key in native_format.PROVENANCE
        }
        return {
            "arch": self.arch,
            "configuration": self.gin_config.splitlines(),
            "num_classes": self.taxonomy.num_classes,
            **native_format.about_taxonomy(self.taxonomy),
            "normalization": dataclasses.asdict(self.normalization),
            "preprocessing": {
                "image_size": self.spec.image_size,
                **dataclasses.asdict(self.preprocessing),
            },
            "source": self.weights["name"],
            **about,
        }

    def save_weights(self, path: str | pathlib.Path, **about: typing.Any) -> None:
        """Writes a file that `weights=` takes; whole, or not at all.

        Args:
          path: of the file, by custom `.safetensors`.
          about: more for the record, such as `metrics`, `license` and `source`. Where
            a model was trained, give its `source`: else the record says what the
            values were before.

        Raises:
          OSError: it can't be written.
        """
        record = {**self.record(), **about}
        if "source" in about:  # other values than those that the model began with
            record.pop("head", None)
        native_format.save(pathlib.Path(path), self.classifier.weights, record)

    @property
    def parts(self) -> dict[str, keras.Model]:
        """Both models over images, by the names of what they give."""
        return {
            "feature_vector": self.feature_vector,
            "classification": self.classifier,
        }

    @property
    def num_features(self) -> int:
        return self.feature_vector.output_shape[-1]

    def multiply_adds(self) -> dict[str, int]:
        """Of each model for one image of the spec's size, by the model's name."""
        size = (self.spec.image_size, self.spec.image_size, 3)
        backbone = multiply_adds.multiply_adds(self.backbone, input_shape=size)
        head = multiply_adds.multiply_adds(self.head, input_shape=(self.num_features,))
        return {"feature_vector": backbone, "classification": backbone + head}

    def decayed(self, model: keras.Model) -> list[keras.Variable]:
        """The variables of `model` that weight decay shrinks; none at a scale of 0."""
        if not self.weight_decay:
            return []
        return [
            variable
            for variable in model.trainable_weights
            if not any(part in variable.path for part in self.weight_decay_excludes)
        ]


@gin.configurable("model", module="zoo", denylist=["own_taxonomy"])
def image_model(
    backbone: specs.BackboneSpec = gin.REQUIRED,
    *,
    mean: float | Sequence[float] = gin.REQUIRED,
    std: float | Sequence[float] = gin.REQUIRED,
    crop_fraction: float = gin.REQUIRED,
    interpolation: str = gin.REQUIRED,
    dropout_rate: float = gin.REQUIRED,
    weight_decay: float = gin.REQUIRED,
    weight_decay_excludes: Sequence[str] = gin.REQUIRED,
    taxonomy_name: str = "ilsvrc_2012",
    background_class: bool = False,
    own_taxonomy: taxonomies.Taxonomy | None = None,
) -> ImageModel:
    """Joins a backbone, a normalisation and a head; the one gin root of this room.

    Args:
      backbone: the spec to build.
      mean: see `inputs.Normalization`.
      std: see `inputs.Normalization`.
      crop_fraction: see `inputs.Preprocessing`.
      interpolation: see `inputs.Preprocessing`.
      dropout_rate: of the head, in [0, 1).
      weight_decay: see `ImageModel`.
      weight_decay_excludes: see `ImageModel`.
      taxonomy_name: such as `ilsvrc_2012`; its classes are the logits.
      background_class: whether logit 0 stands for none of them.
      own_taxonomy: one that is not the zoo's, which `taxonomy_name` may name.
    """
    if not isinstance(backbone, specs.BackboneSpec):
        raise ValueError(
            "model.backbone must be a call of a spec, such as @MobileNetV2(), not "
            f"{str(backbone)[:80]!r}."
        )
    _check_recipe(dropout_rate, weight_decay, weight_decay_excludes)
    specs.check_kind("model.taxonomy_name", taxonomy_name, "str")
    specs.check_kind("model.background_class", background_class, "bool")
    taxonomy = taxonomies.load(
        taxonomy_name, own=own_taxonomy, background_class=background_class
    )
    normalization = inputs.Normalization(mean=mean, std=std)
    network = backbone.build()
    num_features = network.output["feature_vector"].shape[-1]
    network_head = heads.build(
        num_features, num_classes=taxonomy.num_classes, dropout_rate=dropout_rate
    )
    images = keras.Input((None, None, 3), name="images")
    features = network(normalization.layer()(images))["feature_vector"]
    return ImageModel(
        spec=backbone,
        backbone=network,
        head=network_head,
        feature_vector=keras.Model(images, features, name="feature_vector"),
        classifier=keras.Model(images, network_head(features), name="classification"),
        taxonomy=taxonomy,
        normalization=normalization,
        preprocessing=inputs.Preprocessing(
            crop_fraction=crop_fraction, interpolation=interpolation
        ),
        weight_decay=weight_decay,
        weight_decay_excludes=tuple(weight_decay_excludes),
    )


def _check_recipe(
    dropout_rate: float, weight_decay: float, weight_decay_excludes: Sequence[str]
) -> None:
    specs.check_range("model.dropout_rate", dropout_rate, 0.0, 0.999)
    specs.check_range("model.weight_decay", weight_decay, 0.0, 1.0)
    if not isinstance(weight_decay_excludes, (tuple, list)) or not all(
        isinstance(part, str) and part for part in weight_decay_excludes
    ):
        raise ValueError(
            "model.weight_decay_excludes must be a tuple of parts of variable paths, "
            f"not {weight_decay_excludes!r}."
        )


def build(
    arch: str,
    *,
    weights: str = registry.RANDOM,
    seed: int | None = None,
    taxonomy: taxonomies.Taxonomy | None = None,
    gin_files: Sequence[str] = (),
    gin_bindings: Sequence[str] = (),
    trust_gin_imports: bool = False,
    roots: Sequence[str] = (config.ROOT,),
) -> ImageModel:
    """Builds an arch and gives its variables their values.

    Args:
      arch: a name that tools/list prints.
      weights: `random`, a name that tools/list prints for the arch, or a path: of a
        weights file of this project, Keras or PyTorch, of the index of a sharded
        safetensors file, of a SavedModel, or the prefix of a TensorFlow checkpoint.
        Weights without a head leave that one random.
      seed: for random weights that are the same every time: the global seeds of
        Python, NumPy and Keras are set to it. None leaves them alone.
      taxonomy: what the logits stand for, where neither the weights nor gin say other.
      gin_files: paths of further gin files.
      gin_bindings: further bindings, such as `MobileNetV2.width_multiplier=0.5`.
      trust_gin_imports: allow gin files to import any module, which runs its code.
      roots: what gin files may bind; see `config.bound`.

    Returns:
      The model. What the weights' record says of classes, normalisation and
      preprocessing holds, whatever gin says.

    Raises:
      ValueError: an argument, gin binding or weights file is not usable.
    """
    _check_keras()
    for name, texts in (("gin_files", gin_files), ("gin_bindings", gin_bindings)):
        if isinstance(texts, str):
            raise ValueError(f"{name} must be a list of texts, not {texts!r}.")
    source = registry.find(arch, weights)
    opened = loading.recognised(arch, source) if source else None
    if seed is not None:
        keras.utils.set_random_seed(seed)
    known = opened.taxonomy if opened else None
    named = [f"{native_format.TAXONOMY} = {taxonomy.name!r}"] if taxonomy else []
    with config.bound(
        arch,
        gin_files=gin_files,
        gin_bindings=[*named, *gin_bindings],
        trust_gin_imports=trust_gin_imports,
        made_with=opened.made_with() if opened else (),
        decided=opened.decided() if opened else (),
        weights=f"the record of {opened.source.path}" if opened else "",
        roots=roots,
    ) as bound:
        model = _built(known or taxonomy)
        text = bound.without("training")
    if model.taxonomy.name not in taxonomies.names():  # its classes are no text of gin
        text = "".join(
            line
            for line in text.splitlines(keepends=True)
            if not line.startswith(f"{native_format.TAXONOMY} =")
        )
    origin: dict[str, typing.Any] = {"name": registry.RANDOM, "seed": seed}
    if opened:
        matching = opened.assign(model.classifier)
        head = {"head": origin} if matching.missing else {}
        origin = {
            **opened.provenance(),
            **head,
            "name": opened.name,
            "sha256": opened.source.sha256,
            "matched": matching.summary(),
            "overruled": bound.overruled,
            "assumed": opened.assumed,
        }
    return dataclasses.replace(model, arch=arch, weights=origin, gin_config=text)


def _check_keras() -> None:
    """Keras' own configuration file may say otherwise than these models need."""
    wanted = {
        "floatx": ("float32", "float64"),
        "image_data_format": ("channels_last",),
        # Features and logits are promised in full precision.
        "dtype_policy": ("float32", "float64"),
    }
    for name, values in wanted.items():
        found = getattr(keras.config, name)()
        found = getattr(found, "name", found)
        if found not in values:
            raise ValueError(
                f"Keras is set to {name} {found!r}; set it to {values[0]!r}."
            )


def _built(taxonomy: taxonomies.Taxonomy | None) -> ImageModel:
    """Calls the gin root; a value of a wrong type is the caller's mistake too."""
    try:
        return image_model(own_taxonomy=taxonomy)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        # Gin appends lines with the names of its configurables.
        raise ValueError(str(error).splitlines()[0]) from error
