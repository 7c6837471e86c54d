"""The clauses of the suite: their text, source, level and dependencies.

Sources, the first four of TensorFlow Hub:

- *Reusable SavedModels*, https://www.tensorflow.org/hub/reusable_saved_models
- *Common SavedModel APIs for Image Tasks*,
  https://www.tensorflow.org/hub/common_saved_model_apis/images
- *Common Signatures for Images*, https://www.tensorflow.org/hub/common_signatures/images
- *TF1 Hub format*, https://www.tensorflow.org/hub/tf1_hub_module
- *SavedModel Warmup*, https://www.tensorflow.org/tfx/serving/saved_model_warmup
- this project, for what the other documents leave open
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from foundation import messages

TOLERANCE = 1e-5  # for outputs that must be equal; relative to the largest value

FEATURE_VECTOR = "feature_vector"
CLASSIFICATION = "classification"
KINDS = (FEATURE_VECTOR, CLASSIFICATION)
CALL, INPUT = "R03", "I01"
"""Clauses without which the model can't be called with images."""
SAVED_MODEL, TF1_HUB = "TF2 SavedModel", "TF1 Hub module"
SERVING = "serving SavedModel"
FORMATS = (SAVED_MODEL, TF1_HUB, SERVING)
IN_MANIFEST = {
    SAVED_MODEL: ("saved_model",),
    TF1_HUB: ("tf1_hub",),
    SERVING: ("serving", "serving_xla"),
}
"""The formats as manifests name them; other exporters' manifests may name none."""
HUB_MODULE = "tfhub_module.pb"
"""The file that marks a TF1 Hub module."""
GROUPS = {
    "R": "Reusable SavedModel",
    "I": "Image input",
    "F": "Image feature vector",
    "C": "Image classification",
    "P": "Pair",
    "S": "Signatures",
    "T": "TF1 Hub format",
    "V": "SavedModel for serving",
    "D": "Documentation",
    "K": "Clients",
}
"""The names of the groups, by the letter with which the ids of their clauses begin."""

_REUSABLE = "Reusable SavedModels, TensorFlow Hub"
_IMAGES = "Common SavedModel APIs for Image Tasks, TensorFlow Hub"
_SIGNATURES = "Common Signatures for Images (TF1 Hub format), TensorFlow Hub"
_HUB_FORMAT = "TF1 Hub format, TensorFlow Hub"
_TENSORFLOW_SERVING = "SavedModel Warmup, TensorFlow Serving"
_OURS = "this project"
_TF2 = (SAVED_MODEL, SERVING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clause:
    """One requirement that a model must or should meet.

    Args:
      id: a group's letter from `GROUPS`, and a number.
      text: the requirement.
      source: the document that states the requirement.
      level: MUST or SHOULD.
      kinds: the kinds of model that the clause applies to.
      formats: the formats from `FORMATS` that the clause applies to.
      needs: ids of clauses that are checked before this one. If one of them fails, this
        clause is not_applicable; their other results (warn, not_applicable) do not
        block it.
      by_signature: whether a model without `__call__` is checked by calls of its
        signature serving_default. If False, the clause needs `__call__`.
      by_client: whether an independent client program checks the clause.
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


# In the order in which they are checked: a clause comes after the clauses it needs.
CLAUSES = (
    Clause(
        id="R01",
        text="Loads with tf.saved_model.load alone: no custom objects, no custom ops, "
        "no Python code of the project that wrote it, no py_function, no op that "
        "reads or writes files.",
        source=_REUSABLE,
        formats=_TF2,
    ),
    Clause(
        id="R02",
        text="The root has a __call__ that is a restored tf.function.",
        source=_REUSABLE,
        needs=("R01",),
    ),
    Clause(
        id="R03",
        text="__call__ has one required positional argument, a single Tensor whose "
        "batch dimension is free (None).",
        source=_REUSABLE,
        needs=("R02",),
    ),
    Clause(
        id="R04",
        text="obj.variables lists every variable that any trace of __call__ captures.",
        source=_REUSABLE,
        needs=("R02",),
    ),
    Clause(
        id="R05",
        text="obj.trainable_variables is a subset of obj.variables by identity, and "
        "v.trainable is true for each variable v in it.",
        source=_REUSABLE,
        needs=("R01",),
    ),
    Clause(
        id="R06",
        text="obj.regularization_losses is a list of callables without arguments. Each "
        "returns one finite float scalar with a gradient to at least one trainable "
        "variable; calling it changes no variable.",
        source=_REUSABLE,
        needs=("R01",),
    ),
    Clause(
        id="R07",
        text="The argument training takes a Python bool and defaults to False: obj(x) "
        "equals obj(x, training=False).",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="R08",
        text="Every permissible combination of Python-valued arguments is traced; the "
        "same combinations are permissible for training=True and training=False.",
        source=_REUSABLE,
        needs=("R02",),
    ),
    Clause(
        id="R09",
        text="Each additional keyword argument has a default, the documented dtype "
        "and shape, and its documented effect: batch_norm_momentum=1 freezes the "
        "moving statistics and 0 replaces them; dropout_rate=0 makes the training-mode "
        "head deterministic. Without documentation, only dtype, shape and default are "
        "checked.",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="R10",
        text="A call with training=False changes no variable. A call with "
        "training=True changes only non-trainable variables, and changes them if the "
        "model has moving statistics.",
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
        text="Named callables (obj.part), if any, each have their own __call__, "
        "variables and trainable_variables; they are nested only one level deep.",
        source=_REUSABLE,
        needs=("R01",),
    ),
    Clause(
        id="R13",
        text="A loaded object can be saved again. The copy gives equal outputs, and "
        "passes those of R02 to R06, R08, R12, F02, C03 and S01 that the model passes.",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="R14",
        text="Inference is deterministic, and the output for an image does not depend "
        "on the rest of the batch, beyond rounding.",
        source=_OURS,
        formats=_TF2,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="R15",
        text="Works when called eagerly, from a tf.function, under "
        "tf.config.run_functions_eagerly, and under tf.distribute.MirroredStrategy on "
        "two devices. There, after a training step, a cross-replica read of each "
        "moving statistic returns the mean over the replicas.",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="I01",
        text="The input is float32 [batch, height, width, 3]: RGB, channels last.",
        source=_IMAGES,
        formats=_TF2,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="I02",
        text="Any batch size works; 1, 2, 3, 7 and 32 are checked. Batch size 0 with "
        "training=False gives an empty output or a Python exception, never a crash.",
        source=_IMAGES,
        formats=_TF2,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="I03",
        text="The smallest and the largest documented height and width, sizes between "
        "them, and non-square sizes work.",
        source=_IMAGES,
        formats=_TF2,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="I04",
        text="Input values are in [0, 1]; the model does its own normalisation. "
        "Outputs are finite for all zeros, all ones and uniform noise.",
        source=_IMAGES,
        formats=_TF2,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="I05",
        # Not by_signature: TensorFlow does not check the rank of a signature's input,
        # and an input of the wrong rank crashes the process, whatever the model is.
        text="An input whose number of channels, rank or dtype is wrong (bfloat16 and "
        "float16 included) raises a Python exception; it never crashes the process.",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="F01",
        text="The output is one float32 Tensor [batch, num_features].",
        source=_IMAGES,
        kinds=(FEATURE_VECTOR,),
        formats=_TF2,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="F02",
        text="num_features is a constant that is statically known in every trace and "
        "is the same for every input size.",
        source=_IMAGES,
        kinds=(FEATURE_VECTOR,),
        formats=_TF2,
        needs=("F01",),
        by_signature=True,
    ),
    Clause(
        id="F03",
        text="There is no dropout on the output, in inference or in training mode.",
        source=_IMAGES,
        kinds=(FEATURE_VECTOR,),
        needs=("F01",),
        by_signature=True,
    ),
    Clause(
        id="C01",
        text="The output is one float32 Tensor [batch, num_classes]; num_classes is a "
        "static constant.",
        source=_IMAGES,
        kinds=(CLASSIFICATION,),
        formats=_TF2,
        needs=("R03",),
        by_signature=True,
    ),
    Clause(
        id="C02",
        text="The output is logits: not probabilities, not top-k.",
        source=_IMAGES,
        kinds=(CLASSIFICATION,),
        formats=_TF2,
        needs=("C01",),
        by_signature=True,
    ),
    Clause(
        id="C03",
        text="The model contains its class index: a text asset with one line for each "
        "of the num_classes classes, with or without a header line. If "
        "the asset is class_index.tsv, its header is 'index', 'id', 'name', and a "
        "background class has the id 'background'.",
        source=_OURS,
        kinds=(CLASSIFICATION,),
        needs=("C01",),
        by_signature=True,
    ),
    Clause(
        id="T01",
        text="Loads as a TF1 Hub module: it has tfhub_module.pb, graph variants with "
        "the tags {} and {train}, and no op that calls Python or reads or writes "
        "files.",
        source=_HUB_FORMAT,
        formats=(TF1_HUB,),
    ),
    Clause(
        id="T02",
        text="The default signature takes images and returns the main task's output "
        "under the key default. Both graph variants also have the named signatures of "
        "S02.",
        source=_SIGNATURES,
        formats=(TF1_HUB,),
        needs=("T01",),
    ),
    Clause(
        id="T03",
        text="Height and width are fixed to the expected size, which "
        "hub.get_expected_image_size (tensorflow-hub before 0.16) returns; the batch "
        "dimension is free (None).",
        source=_SIGNATURES,
        formats=(TF1_HUB,),
        needs=("T02",),
    ),
    Clause(
        id="T04",
        text="In the train variant, regularisation losses and update ops are in their "
        "collections, and there is no dropout on the output features.",
        source=_SIGNATURES,
        formats=(TF1_HUB,),
        needs=("T02",),
    ),
    Clause(
        id="T05",
        text="hub.load and hub.KerasLayer of the current tensorflow-hub can run the "
        "module for inference.",
        source=_OURS,
        formats=(TF1_HUB,),
        needs=("T03",),
        by_client=True,
    ),
    Clause(
        id="P01",
        text="The feature-vector model and the classifier have bit-equal backbone "
        "variables.",
        source=_OURS,
        needs=("R01",),
    ),
    Clause(
        id="P02",
        text="The classifier has its head as a named callable, obj.head, and "
        "classifier.head(feature_vector(x)) equals classifier(x). If the argument "
        "of the head has an endpoint's name, such as feature_map, it reads that one.",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="P03",
        text="Each model contains a self-contained assets.extra/manifest.json: arch, "
        "version, configuration, ranges, hyperparameters, class index, source of the "
        "weights, the hash of every file, and the other model's hash.",
        source=_OURS,
        formats=FORMATS,
        # The clause of the model's own format; the other is not_applicable.
        needs=("R01", "T01"),
    ),
    Clause(
        id="D01",
        text="The documentation states the ranges of batch size, height and width, "
        "and the model works in these ranges.",
        source=_IMAGES,
        needs=("R03",),
    ),
    Clause(
        id="D02",
        text="The documentation states num_features, or num_classes and the class "
        "index.",
        source=_IMAGES,
        needs=("R03",),
    ),
    Clause(
        id="D03",
        text="The documentation states whether the model can be fine-tuned, and the "
        "dtype, default and effect of each call-time hyperparameter.",
        source=_REUSABLE,
        needs=("R03",),
    ),
    Clause(
        id="D04",
        text="The documentation states the architecture's paper, the data set, the "
        "licence, the parameter count, the multiply-adds at the default size, and the "
        "source of the weights. If the weights are random, the title or the line after "
        "it says so.",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="D05",
        text="Numbers in the documentation match the values computed from the model: "
        "those in labelled table rows, the defaults of arguments, the shapes of "
        "endpoints, and any other number with digit groups (1,234).",
        source=_OURS,
        needs=("R03",),
    ),
    Clause(
        id="S01",
        text="The signature serving_default exists, with the input key images and a "
        "free batch dimension (None).",
        source=_OURS,
        formats=_TF2,
        needs=("R01",),
    ),
    Clause(
        id="S02",
        text="The named signatures image_feature_vector (in both models) and "
        "image_classification (in the classifier) exist, with the input key images "
        "and the result under the output key default.",
        source=_SIGNATURES,
        needs=("R01",),
    ),
    Clause(
        id="S03",
        text="All other outputs of signatures are endpoint activations whose keys "
        "begin with the architecture's name, for example InceptionV3/Mixed_5c.",
        source=_SIGNATURES,
        level="SHOULD",
        needs=("R01",),
    ),
    Clause(
        id="S04",
        text="The signature image_bytes exists. Its input image_bytes is a string "
        "Tensor [batch] of encoded images (JPEG, PNG, WebP, GIF, BMP); its output "
        "default is serving_default's output for obj.preprocess(image_bytes). "
        "obj.preprocess is a named callable without variables that turns encoded "
        "images into float32 [batch, S, S, 3] in [0, 1], rotated upright according to "
        "EXIF, and cropped and resized as the model's manifest records, if it does. A "
        "damaged image raises an error; it never becomes a black image.",
        source=_OURS,
        formats=_TF2,
        level="SHOULD",
        needs=("S01",),
    ),
    Clause(
        id="V01",
        text="Holds constants only: no variables, no op that reads or writes one, and "
        "no __call__.",
        source=_OURS,
        formats=(SERVING,),
        needs=("R01",),
    ),
    Clause(
        id="V02",
        text="The signature image_feature_vector takes images and returns the features "
        "under the key default, float32 [batch, num_features]. In a feature-vector "
        "model they equal the output of serving_default; in a pair, those of the "
        "classifier equal those of the feature-vector model.",
        source=_SIGNATURES,
        formats=(SERVING,),
        needs=("I01", "S01"),
    ),
    Clause(
        id="V03",
        text="The signature classify takes image_bytes and a scalar k, whose default "
        "is in the signature. It returns the k likeliest classes of each image, the "
        "likeliest first: classes, their names from the class index, and scores, the "
        "probabilities that belong to the output of image_bytes.",
        source=_OURS,
        kinds=(CLASSIFICATION,),
        formats=(SERVING,),
        needs=("S01",),
    ),
    Clause(
        id="V04",
        text="A request that can't be answered raises InvalidArgumentError, which "
        "servers pass on as the client's mistake: a damaged file, also among good "
        "ones, a file of another type, a batch without images, and a k below 0 or "
        "above the number of classes. Requests after it are answered as before.",
        source=_OURS,
        formats=(SERVING,),
        needs=("S01",),
    ),
    Clause(
        id="V05",
        text="assets.extra/tf_serving_warmup_requests has a request for each "
        "signature, which the signature answers.",
        source=_TENSORFLOW_SERVING,
        level="SHOULD",
        formats=(SERVING,),
        needs=("S01",),
    ),
    Clause(
        id="K01",
        text="hub.load returns a model with the same outputs as tf.saved_model.load, "
        "from a path and from an http:// URL of a static file server.",
        source=_OURS,
        needs=("R01",),
        by_client=True,
    ),
    Clause(
        id="K02",
        text="hub.KerasLayer (tf_keras) can use the model, trainable or not, with "
        "arguments=, in Sequential, under MirroredStrategy, and in fit, where the "
        "loss falls.",
        source=_OURS,
        needs=("R03", "K01"),
        by_client=True,
    ),
    Clause(
        id="K03",
        text="In Keras 3, reuse.KerasLayer can use the model, trainable or not: in "
        "fit, where the loss falls, and saved to a .keras file and loaded again. "
        "keras.layers.TFSMLayer runs serving_default.",
        source=_OURS,
        # Both K02 and K03 train the model: one defect should fail one clause only.
        needs=("R03", "R04", "K02"),
        by_client=True,
    ),
    Clause(
        id="K04",
        text="saved_model_cli shows the model and runs serving_default.",
        source=_OURS,
        formats=_TF2,
        needs=("S01",),
        by_client=True,
    ),
)

BY_ID = {clause.id: clause for clause in CLAUSES}


def select(names: Iterable[str] | None, *, include_clients: bool) -> tuple[Clause, ...]:
    """Returns the selected clauses, in the order in which they are checked.

    Args:
      names: clause ids and group letters, for example ("R", "F03"); None selects all
        clauses.
      include_clients: if `names` is None, whether the clauses that client programs
        check are selected too.

    Raises:
      ValueError: a name is neither a clause id nor a group letter.
    """
    if names is None:
        return tuple(c for c in CLAUSES if include_clients or not c.by_client)
    valid_names = {*BY_ID, *GROUPS}
    selected = tuple(name.strip().upper() for name in names)
    for name in selected:
        if name not in valid_names:
            hint = messages.did_you_mean(name, sorted(valid_names))
            raise ValueError(
                f"Unknown clause {name!r}.{hint} Valid are {', '.join(BY_ID)}, and a "
                f"letter ({', '.join(GROUPS)}) for all clauses of a group."
            )
    return tuple(c for c in CLAUSES if c.id in selected or c.id[0] in selected)


def with_needs(selected: Iterable[Clause]) -> tuple[Clause, ...]:
    """Returns the clauses and all clauses that they need, in checking order."""
    ids: set[str] = set()
    open_ids = [clause.id for clause in selected]
    while open_ids:
        clause = BY_ID[open_ids.pop()]
        ids.add(clause.id)
        open_ids.extend(clause.needs)
    return tuple(clause for clause in CLAUSES if clause.id in ids)


def all_needs(clause: Clause) -> tuple[Clause, ...]:
    """Returns the clauses that a clause needs, and those that they need in turn."""
    return tuple(need for need in with_needs([clause]) if need.id != clause.id)
