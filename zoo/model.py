"""Builds image models: a backbone with a feature-vector model and a classifier."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import typing
from collections.abc import Iterator, Sequence

import gin
import keras

from zoo import config, definition, inputs, multiply_adds
from zoo import spec as specs
from zoo import taxonomy as taxonomies
from zoo.weights import loading, native_format, registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A backbone, a feature-vector model and a classifier that share their layers.

    Attributes:
      spec: the description that the backbone was built from.
      backbone: model from normalised images [B, H, W, 3] to a dict of endpoints.
      head: model from the endpoint `head_input` to logits [B, K].
      feature_vector: model from images in [0, 1], [B, H, W, 3] float32, of the spec's
        `input_shape`, to the feature vector [B, D] float32.
      classifier: model from the same images to logits [B, K] float32.
      taxonomy: the class that each logit stands for.
      normalization: normalisation that both models apply to their input.
      preprocessing: image preprocessing to apply before calling either model.
      weight_decay: scale of the L2 loss, sum(w²) / 2, over the variables of `decayed`.
      weight_decay_excludes: substrings of variable paths that exclude a variable
        from weight decay.
      arch: name of the architecture.
      weights: provenance of the variables' values.
      gin_config: gin bindings that the model was built with.
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
        """Returns the backbone's endpoints for images in [0, 1], [B, H, W, 3]."""
        return self.backbone(self.normalization.layer()(images), training=training)

    def record(self) -> native_format.JsonObject:
        """Returns the record for a weights file; see `zoo.weights.native_format`."""
        provenance = {
            key: value
            for key, value in self.weights.items()
            if key in native_format.PROVENANCE
        }
        return {
            "arch": self.arch,
            "configuration": self.gin_config.splitlines(),
            "num_classes": self.taxonomy.num_classes,
            **native_format.taxonomy_record(self.taxonomy),
            "normalization": dataclasses.asdict(self.normalization),
            "preprocessing": {
                "image_size": self.spec.image_size,
                **dataclasses.asdict(self.preprocessing),
            },
            "source": self.weights["name"],
            **provenance,
        }

    def save_weights(self, path: str | pathlib.Path, **about: typing.Any) -> None:
        """Writes a weights file atomically; `weights=` accepts its path.

        Args:
          path: path of the file; it usually ends in `.safetensors`.
          about: further entries of the record, such as `metrics`, `license` and
            `source`. After training, pass `source`: otherwise the record names the
            source of the initial values.

        Raises:
          OSError: the file can't be written.
        """
        record = {**self.record(), **about}
        if "source" in about:  # The values are not the initial ones any more.
            record.pop("head", None)
        native_format.save(pathlib.Path(path), self.classifier.weights, record)

    @property
    def parts(self) -> dict[str, keras.Model]:
        """The feature-vector model and the classifier, by kind."""
        return {
            "feature_vector": self.feature_vector,
            "classification": self.classifier,
        }

    @property
    def num_features(self) -> int:
        return self.feature_vector.output_shape[-1]

    @property
    def head_input(self) -> str:
        """Name of the endpoint that the head reads; for most, `feature_vector`."""
        return self.head.input.name

    def multiply_adds(self) -> dict[str, int]:
        """Returns each model's multiply-adds for one image of the spec's size."""
        size = (self.spec.image_size, self.spec.image_size, 3)
        backbone = multiply_adds.multiply_adds(self.backbone, input_shape=size)
        endpoint = self.backbone.compute_output_shape((None, *size))[self.head_input]
        head = multiply_adds.multiply_adds(self.head, input_shape=endpoint[1:])
        return {"feature_vector": backbone, "classification": backbone + head}

    def decayed(self, model: keras.Model) -> list[keras.Variable]:
        """Returns the variables of `model` that the L2 loss covers."""
        if not self.weight_decay:
            return []
        return [v for v in model.trainable_weights if self.is_decayed(v)]

    def is_decayed(self, variable: keras.Variable) -> bool:
        """Whether weight decay, of any kind, applies to a trainable variable."""
        return not any(part in variable.path for part in self.weight_decay_excludes)


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
    """Builds an image model from a spec; the only gin root of this package.

    Args:
      backbone: spec of the backbone.
      mean: see `inputs.Normalization`.
      std: see `inputs.Normalization`.
      crop_fraction: see `inputs.Preprocessing`.
      interpolation: see `inputs.Preprocessing`.
      dropout_rate: dropout rate of the head, in [0, 1), and of a backbone whose spec
        has a `dropout_rate` of None.
      weight_decay: see `ImageModel`.
      weight_decay_excludes: see `ImageModel`.
      taxonomy_name: name of the taxonomy that defines the logits, such as
        `ilsvrc_2012`.
      background_class: whether to add a background class as logit 0.
      own_taxonomy: a taxonomy outside the zoo that `taxonomy_name` may name.

    Raises:
      ValueError: an argument has the wrong type or is out of range.
    """
    if not isinstance(backbone, specs.BackboneSpec):
        raise ValueError(
            "model.backbone must be a call of a spec, such as @MobileNetV2(), not "
            f"{str(backbone)[:80]!r}."
        )
    _check_regularization(dropout_rate, weight_decay, weight_decay_excludes)
    specs.check_type("model.taxonomy_name", taxonomy_name, "str")
    specs.check_type("model.background_class", background_class, "bool")
    taxonomy = taxonomies.load(
        taxonomy_name, custom=own_taxonomy, background_class=background_class
    )
    normalization = inputs.Normalization(mean=mean, std=std)
    if getattr(backbone, "dropout_rate", dropout_rate) is None:
        rate: dict[str, typing.Any] = {"dropout_rate": dropout_rate}
        backbone = dataclasses.replace(backbone, **rate)
    network = backbone.build()
    head = backbone.build_head(
        network.output, num_classes=taxonomy.num_classes, dropout_rate=dropout_rate
    )
    images = keras.Input(backbone.input_shape, name="images")
    endpoints = network(normalization.layer()(images))
    logits = head(endpoints[head.input.name])
    return ImageModel(
        spec=backbone,
        backbone=network,
        head=head,
        feature_vector=keras.Model(
            images, endpoints["feature_vector"], name="feature_vector"
        ),
        classifier=keras.Model(images, logits, name="classification"),
        taxonomy=taxonomy,
        normalization=normalization,
        preprocessing=inputs.Preprocessing(
            crop_fraction=crop_fraction, interpolation=interpolation
        ),
        weight_decay=weight_decay,
        weight_decay_excludes=tuple(weight_decay_excludes),
    )


def _check_regularization(
    dropout_rate: float, weight_decay: float, weight_decay_excludes: Sequence[str]
) -> None:
    specs.check_range("model.dropout_rate", dropout_rate, 0.0, 0.999)
    specs.check_range("model.weight_decay", weight_decay, 0.0, 1.0)
    if not isinstance(weight_decay_excludes, (tuple, list)) or not all(
        isinstance(part, str) and part for part in weight_decay_excludes
    ):
        raise ValueError(
            "model.weight_decay_excludes must be a tuple of non-empty substrings of "
            f"variable paths, not {weight_decay_excludes!r}."
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
) -> ImageModel:
    """Builds an architecture, and initialises its variables or loads their values.

    Args:
      arch: name of the architecture, as tools/list prints it.
      weights: `random`, a name that tools/list prints for `arch`, or a path. The path
        is that of a weights file of this project, Keras or PyTorch, of the index of a
        sharded safetensors file or of a SavedModel, or the prefix of a TensorFlow
        checkpoint. If the weights have no head, the model's head stays random.
      seed: seed for reproducible random weights. It sets the global seeds of Python,
        NumPy and Keras; None does not change them.
      taxonomy: classes of the logits, if neither the weights nor `gin_bindings` name
        others.
      gin_files: paths of extra gin files.
      gin_bindings: extra bindings, such as `MobileNetV2.width_multiplier=0.5`.
      trust_gin_imports: allow gin files to import any module, which runs its code.

    Returns:
      The model. Classes, normalisation and preprocessing in the record of the weights
      override gin bindings.

    Raises:
      ValueError: an argument, gin binding or weights file is not usable.
    """
    resolved = definition.resolve(
        arch,
        weights=weights,
        gin_files=gin_files,
        gin_bindings=gin_bindings,
        trust_gin_imports=trust_gin_imports,
    )
    with bind(resolved) as builder:
        return builder.build(seed=seed, taxonomy=taxonomy)


@contextlib.contextmanager
def bind(
    resolved: definition.Definition, *, roots: Sequence[str] = (config.ROOT,)
) -> Iterator[Builder]:
    """Binds gin to the definition of a model, inside a `with` block.

    Args:
      resolved: the definition.
      roots: the configurables that gin texts may bind; see `config.bind`.

    Raises:
      ValueError: a gin binding or the weights file is not usable.
    """
    opened = None
    if resolved.weights:
        opened = loading.open_weights(resolved.arch, resolved.weights)
    with config.bind(
        resolved.gin_texts,
        weights_defaults=opened.default_bindings() if opened else (),
        weights_overrides=opened.override_bindings() if opened else (),
        weights=f"the record of {opened.source.path}" if opened else "",
        roots=roots,
    ) as bindings:
        yield Builder(resolved.arch, opened, bindings)


@dataclasses.dataclass(frozen=True)
class Builder:
    """Builds a model from the gin bindings in effect.

    Attributes:
      arch: name of the architecture.
      weights: the opened weights file; None for random weights.
      bindings: the bindings.
    """

    arch: str
    weights: loading.Weights | None
    bindings: config.Bindings

    def build(
        self,
        *,
        seed: int | None = None,
        taxonomy: taxonomies.Taxonomy | None = None,
    ) -> ImageModel:
        """Builds the model, and initialises its variables or loads their values.

        Args:
          seed: see the function `build`.
          taxonomy: see the function `build`.

        Raises:
          ValueError: a gin binding is not usable, or the weights don't fit the model.
        """
        _check_keras_settings()
        if seed is not None:
            keras.utils.set_random_seed(seed)
        if taxonomy:
            self.bindings.set_default(native_format.TAXONOMY, taxonomy.name)
        weights_taxonomy = self.weights.taxonomy if self.weights else None
        model = _call_gin_root(weights_taxonomy or taxonomy)
        left_out = ["training"]
        if model.taxonomy.name not in taxonomies.names():  # Gin can't load it by name.
            left_out.append(native_format.TAXONOMY)
        return dataclasses.replace(
            model,
            arch=self.arch,
            gin_config=self.bindings.text(without=left_out),
            weights=self._assign_weights(model, seed),
        )

    def _assign_weights(
        self, model: ImageModel, seed: int | None
    ) -> dict[str, typing.Any]:
        """Assigns the values of the weights file, and returns their provenance."""
        random = {"name": registry.RANDOM, "seed": seed}
        opened = self.weights
        if opened is None:
            return random
        matching = opened.assign(model.classifier)
        return {
            **opened.provenance(),
            **({"head": random} if matching.missing else {}),
            "name": opened.name,
            "sha256": opened.source.sha256,
            "matched": matching.summary(),
            "overruled": self.bindings.overruled,
            "assumed": opened.assumed,
        }


def _check_keras_settings() -> None:
    """Raises ValueError if Keras' global settings do not suit these models."""
    allowed = {
        "floatx": ("float32", "float64"),
        "image_data_format": ("channels_last",),
        # Features and logits are documented to have full precision.
        "dtype_policy": ("float32", "float64"),
    }
    for name, values in allowed.items():
        setting = getattr(keras.config, name)()
        setting = getattr(setting, "name", setting)
        if setting not in values:
            raise ValueError(
                f"Keras is set to {name} {setting!r}; set it to {values[0]!r}."
            )


def _call_gin_root(taxonomy: taxonomies.Taxonomy | None) -> ImageModel:
    """Calls the gin root and turns the errors of bad bindings into ValueErrors."""
    try:
        return image_model(own_taxonomy=taxonomy)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        # Gin appends further lines, which name its configurables.
        raise ValueError(str(error).splitlines()[0]) from error
