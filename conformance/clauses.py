"""The clauses that the suite judges: their words, their source and what they need.

Sources: *Reusable SavedModels*, https://www.tensorflow.org/hub/reusable_saved_models,
and *Common SavedModel APIs for Image Tasks*,
https://www.tensorflow.org/hub/common_saved_model_apis/images, both of TensorFlow Hub.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from common import messages

TOLERANCE = 1e-5  # where a clause says equal: relative to the largest value

FEATURE_VECTOR = "feature_vector"
CLASSIFICATION = "classification"
KINDS = (FEATURE_VECTOR, CLASSIFICATION)
CALL, INPUT = "R03", "I01"
"""Where these do not hold, there is nothing to feed images to."""
SAVED_MODEL, TF1_HUB = "TF2 SavedModel", "TF1 Hub module"
FORMATS = (SAVED_MODEL, TF1_HUB)
HUB_MODULE = "tfhub_module.pb"
"""The file that TF1 Hub modules are known by."""

_REUSABLE = "Reusable SavedModels, TensorFlow Hub"
_IMAGES = "Common SavedModel APIs for Image Tasks, TensorFlow Hub"
_SIGNATURES = "Common Signatures for Images (TF1 Hub format), TensorFlow Hub"
_HUB_FORMAT = "TF1 Hub format, TensorFlow Hub"
_OURS = "this project"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clause:
    """One clause.

    Args:
      id: group letter and number.
      text: what the model must meet.
      source: the document that asks for it.
      level: MUST or SHOULD.
      kinds: the kinds of model that it speaks of.
      formats: those of `FORMATS` that it speaks of.
      needs: clauses without which this one can't be judged.
      by_signature: whether serving_default may stand in for a missing `__call__`.
      by_client: whether a program judges it that knows nothing of this suite.
    """

    id: str
    text: str
    source: str
    level: str = "MUST"
    kinds: tuple[str, ...] = KINDS
    formats: tuple[str, ...] = (SAVED_MODEL,)
    needs: tuple[str, ...] = ()
    by_signature: bool = False
    by_client: bool = False


# In the order in which they are judged: a clause stands below those that it needs.
CLAUSES = (
    Clause(
        id="R01",
        text="Loads with tf.saved_model.load alone: no custom object, no custom op, no "
        "Python of the project that wrote it, no py_function, no op that reads or "
        "writes files.",
        source=_REUSABLE,
    ),
    Clause(
        id="R02",
        text="The root has a __call__ that is a restored tf.function.",
        source=_REUSABLE,
        needs=("R01",),
    ),
    Clause(
        id="R03",
        text="One required positional argument, a single Tensor; its batch dimension "
        "is undefined.",
        source=_REUSABLE,
        needs=("R02",),
    ),
    Clause(
        id="R04",
        text="variables lists every variable that any trace of __call__ captures.",
        source=_REUSABLE,
        needs=("R02",),
    ),
    Clause(
        id="R05",
        text="trainable_variables is a subset of variables by identity, and "
        "v.trainable is true for each.",
        source=_REUSABLE,
        needs=("R01",),
    ),
    Clause(
        id="R06",
        text="regularization_losses is a list of callables of zero inputs, each giving "
        "one scalar float, finite, with a gradient to at least one trainable variable; "
        "calling one changes no variable.",
        source=_REUSABLE,
        needs=("R01",),
    ),
    Clause(
        id="R07",
        text="training takes a Python bool, its default is False: obj(x) equals "
        "obj(x, training=False).",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="R08",
        text="Every permissible combination of Python-valued arguments is traced; "
        "flipping training changes nothing in what is permissible.",
        source=_REUSABLE,
        needs=("R02",),
    ),
    Clause(
        id="R09",
        text="Each further keyword argument has a default, is of documented dtype and "
        "shape, and has its documented effect: batch_norm_momentum=1 freezes the "
        "statistics, 0 replaces them; dropout_rate=0 makes the training-mode head "
        "deterministic. Without documentation dtype, shape and default are judged.",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="R10",
        text="training=False changes no variable; training=True changes only "
        "non-trainable ones, and changes them if the model has batch statistics.",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="R11",
        text="With training=True a gradient reaches every trainable variable.",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="R12",
        text="Named callables (obj.part), where present, each carry their own "
        "__call__, variables and trainable_variables; one level deep.",
        source=_REUSABLE,
        needs=("R01",),
    ),
    Clause(
        id="R13",
        text="A loaded object can be saved again, and the copy passes the same clauses "
        "with equal outputs.",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="R14",
        text="Inference is deterministic, and image i's output does not depend on the "
        "rest of the batch.",
        source=_OURS,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="R15",
        text="Works when called from a tf.function, eagerly, under "
        "tf.config.run_functions_eagerly, and under tf.distribute.MirroredStrategy on "
        "two devices, where after a training step a cross-replica read of each batch "
        "statistic is the mean over the replicas.",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="I01",
        text="dtype float32, shape [batch, height, width, 3], channels last, RGB.",
        source=_IMAGES,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="I02",
        text="Any batch size, at least 1, 2, 3, 7 and 32. Batch 0 with training=False "
        "gives an empty output or a Python exception, never a crash.",
        source=_IMAGES,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="I03",
        text="Both ends of the documented range of heights and of widths, inner sizes "
        "and non-square sizes work.",
        source=_IMAGES,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="I04",
        text="Values are in [0, 1]; the model normalises for itself. Outputs are "
        "finite for all zeros, all ones and uniform noise.",
        source=_IMAGES,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="I05",
        # No signature looks at ranks: with a wrong one, any ends the process.
        text="Another number of channels, rank or dtype (bfloat16 and float16 too) "
        "raises a Python exception; nothing crashes.",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="F01",
        text="The output is one float32 Tensor [batch, num_features].",
        source=_IMAGES,
        kinds=(FEATURE_VECTOR,),
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="F02",
        text="num_features is a constant, known statically in every trace, the same "
        "for every input size.",
        source=_IMAGES,
        kinds=(FEATURE_VECTOR,),
        needs=("F01",),
        by_signature=True,
    ),
    Clause(
        id="F03",
        text="No dropout on the output, in either mode.",
        source=_IMAGES,
        kinds=(FEATURE_VECTOR,),
        needs=("F01",),
        by_signature=True,
    ),
    Clause(
        id="C01",
        text="The output is one float32 Tensor [batch, num_classes], num_classes a "
        "static constant.",
        source=_IMAGES,
        kinds=(CLASSIFICATION,),
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="C02",
        text="The output is logits: not probabilities, not top-k.",
        source=_IMAGES,
        kinds=(CLASSIFICATION,),
        needs=("C01",),
        by_signature=True,
    ),
    Clause(
        id="C03",
        text="The class-index definition travels with the model: a text asset with one "
        "line per class, num_classes of them, with or without a header line. "
        "class_index.tsv has the header index, id, name; a background class has the "
        "id background.",
        source=_OURS,
        kinds=(CLASSIFICATION,),
        needs=("C01",),
        by_signature=True,
    ),
    Clause(
        id="T01",
        text="Loads as a TF1 Hub module: tfhub_module.pb, graph variants tagged {} and "
        "{train}, no op that calls Python or reads or writes files.",
        source=_HUB_FORMAT,
        formats=(TF1_HUB,),
    ),
    Clause(
        id="T02",
        text="The default signature takes images and gives the primary task's output "
        "under default; the named signatures of S02 are there too, in both variants.",
        source=_SIGNATURES,
        formats=(TF1_HUB,),
        needs=("T01",),
    ),
    Clause(
        id="T03",
        text="Height and width are fixed to the expected size, which "
        "hub.get_expected_image_size (tensorflow-hub before 0.16) reads; batch is "
        "unknown.",
        source=_SIGNATURES,
        formats=(TF1_HUB,),
        needs=("T02",),
    ),
    Clause(
        id="T04",
        text="Regularisation losses and update ops are in their collections in the "
        "train variant; no dropout on the output features.",
        source=_SIGNATURES,
        formats=(TF1_HUB,),
        needs=("T02",),
    ),
    Clause(
        id="T05",
        text="hub.load and hub.KerasLayer of the current tensorflow-hub can run it for "
        "inference.",
        source=_OURS,
        formats=(TF1_HUB,),
        needs=("T03",),
        by_client=True,
    ),
    Clause(
        id="P01",
        text="Feature-vector model and classifier hold bit-equal backbone variables.",
        source=_OURS,
        needs=("R01",),
    ),
    Clause(
        id="P02",
        text="The classifier carries its head as a named callable, obj.head, and "
        "classifier.head(feature_vector(x)) equals classifier(x).",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="P03",
        text="Each carries assets.extra/manifest.json, sufficient by itself: arch, "
        "version, configuration, ranges, hyperparameters, class index, source of the "
        "weights, the hash of every file, and the other half's hash.",
        source=_OURS,
        formats=FORMATS,
        needs=("R01", "T01"),
    ),
    Clause(
        id="D01",
        text="The documentation states batch, height and width ranges, and they are "
        "those that work.",
        source=_IMAGES,
        needs=("R03",),
    ),
    Clause(
        id="D02",
        text="The documentation states num_features or num_classes, and the "
        "class-index definition.",
        source=_IMAGES,
        needs=("R03",),
    ),
    Clause(
        id="D03",
        text="The documentation states whether the model can be fine-tuned, and each "
        "call-time hyperparameter with dtype, default and effect.",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="D04",
        text="The documentation states architecture paper, data set, licence, "
        "parameter count, multiply-adds at the default size, and how the weights were "
        "made; random weights are said to be that in the first line.",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="D05",
        text="Every number in the documentation is recomputed from the model; a "
        "mismatch fails.",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="S01",
        text="serving_default exists, with input key images and undefined batch.",
        source=_OURS,
        needs=("R01",),
    ),
    Clause(
        id="S02",
        text="Named signatures image_feature_vector (both models) and "
        "image_classification (the classifier): input key images, the result under "
        "output key default.",
        source=_SIGNATURES,
        needs=("R01",),
    ),
    Clause(
        id="S03",
        text="Further outputs of signatures are endpoint activations whose keys begin "
        "with the architecture's name, as in InceptionV3/Mixed_5c.",
        source=_SIGNATURES,
        level="SHOULD",
        needs=("R01",),
    ),
    Clause(
        id="S04",
        text="A signature image_bytes, whose input key image_bytes is a string Tensor "
        "[batch] of encoded images (JPEG, PNG, WebP, GIF, BMP) and whose default is "
        "what serving_default gives for obj.preprocess(image_bytes); obj.preprocess is "
        "a named callable without variables, from encoded images to [batch, S, S, 3] "
        "float32 in [0, 1], upright as EXIF says, exactly as the model was evaluated. "
        "A damaged image raises; it never becomes a black one.",
        source=_OURS,
        level="SHOULD",
        needs=("S01",),
    ),
    Clause(
        id="K01",
        text="hub.load(path) gives a model that does what it does without hub, and so "
        "does hub.load of an http:// URL from a static server.",
        source=_OURS,
        needs=("R01",),
        by_client=True,
    ),
    Clause(
        id="K02",
        text="hub.KerasLayer (tf_keras) takes it, trainable or not, with arguments= "
        "given, in Sequential, under MirroredStrategy, and through fit with a falling "
        "loss.",
        source=_OURS,
        needs=("R03", "K01"),
        by_client=True,
    ),
    Clause(
        id="K03",
        text="In Keras 3, reuse.KerasLayer takes it, trainable or not, through fit "
        "with a falling loss, and saved in a .keras file and loaded again; "
        "keras.layers.TFSMLayer runs serving_default.",
        source=_OURS,
        needs=("R03", "R04", "K02"),
        by_client=True,
    ),
    Clause(
        id="K04",
        text="saved_model_cli shows it, and runs serving_default.",
        source=_OURS,
        needs=("S01",),
        by_client=True,
    ),
)

BY_ID = {clause.id: clause for clause in CLAUSES}


def select(names: Iterable[str] | None, *, level: str) -> tuple[Clause, ...]:
    """The clauses that `names` asks for, in the order in which they are judged.

    Args:
      names: ids and group letters, as in ("R", "F03"); None means all of the level.
      level: quick leaves out those that clients judge, if not asked for by name.

    Raises:
      ValueError: for a name that is neither.
    """
    if names is None:
        return tuple(c for c in CLAUSES if level == "full" or not c.by_client)
    known = {*BY_ID, *(clause.id[0] for clause in CLAUSES)}
    wanted = tuple(name.strip().upper() for name in names)
    for name in wanted:
        if name not in known:
            hint = messages.did_you_mean(name, sorted(known))
            raise ValueError(
                f"Unknown clause {name!r}.{hint} The suite judges "
                f"{', '.join(BY_ID)}, and whole groups by their letter."
            )
    return tuple(c for c in CLAUSES if c.id in wanted or c.id[0] in wanted)


def with_needs(wanted: Iterable[Clause]) -> tuple[Clause, ...]:
    """`wanted` and all that they need, in the order in which they are judged."""
    ids: set[str] = set()
    open_ids = [clause.id for clause in wanted]
    while open_ids:
        clause = BY_ID[open_ids.pop()]
        ids.add(clause.id)
        open_ids.extend(clause.needs)
    return tuple(clause for clause in CLAUSES if clause.id in ids)
