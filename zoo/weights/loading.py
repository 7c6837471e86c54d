"""Recognises a weights file's tensor names and assigns the tensors to a model."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing
from collections.abc import Collection, Mapping, Sequence

import keras
import numpy as np

from zoo import config
from zoo import taxonomy as taxonomies
from zoo.weights import (
    names,
    native_format,
    registry,
    tensor_matching,
    weights_file,
)

IMAGENET = "ilsvrc_2012"
_CLASSES_HINT = (
    " If the classes are others, name them: --gin_binding=\"model.taxonomy_name='…'\""
)
_LAYER_HINT = (
    " Save the layer alone: tf.saved_model.save(layer.resolved_object, FOLDER)"
)
_ENOUGH_NAMES = 1000  # names to guess the arch from; a file may have many more
_FLOATS = ("float64", "float32", "float16", "bfloat16")
# Tensors in checkpoints of fine-tuned models that are not variables of the model.
_TRAINING = (
    *("Adam/*", "SGD/*", "RMSprop/*", "AdamW/*", "optimizer/*", "*/optimizer/*"),
    *("iteration", "learning_rate", "learning_rate_*", "momentum", "global_step"),
    *("total", "count", "total_*", "count_*", "save_counter", "seed_generator*"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """A weights file with recognised names, ready to be assigned to a model.

    Attributes:
      arch: architecture to load the weights into.
      source: the file's path and its entry in the registry.
      file: the file's contents; `prefix` is removed from the names.
      prefix: prefix of all names in the file, from a wrapper; often empty.
      table: the table of names that match; None if they are this project's names.
      record: the file's record, updated with the registry's record.
    """

    arch: str
    source: registry.Source
    file: weights_file.File
    prefix: str
    table: names.Table | None
    record: Mapping[str, typing.Any]

    @property
    def name(self) -> str:
        """Name of the source, or `random` if the file holds random weights."""
        is_random = self.record.get("source") == registry.RANDOM
        return registry.RANDOM if is_random else self.source.name

    @property
    def assumed(self) -> str | None:
        """Assumptions about the weights; None if a record documents them."""
        if self.record:
            return None
        if self.table is None:
            return (
                "the file has no record of its normalisation, padding and epsilons: "
                "the values of the gin file are assumed"
            )
        habit = self.table.get("habit")
        return (
            f"assumed to be made {habit}"
            if habit
            else f"assumed to have the usual settings of {self.table['source']}; bind "
            "settings that differ"
        )

    def provenance(self) -> native_format.JsonObject:
        """Returns the provenance in the registry's record, else in the file's."""
        record = self.source.record or {
            key: value
            for key, value in self.record.items()
            if key in native_format.PROVENANCE
        }
        return {
            key: value
            for key, value in record.items()
            if key not in native_format.MODEL_FIELDS
        }

    @property
    def taxonomy(self) -> taxonomies.Taxonomy | None:
        """The taxonomy that the record defines; None if it only names one."""
        return native_format.read_taxonomy(self.record)

    def default_bindings(self) -> list[str]:
        """Returns the bindings that the weights were made with; users may override."""
        lines = [
            line
            for line in self.record.get("configuration", ())
            if not line.startswith("import ")
        ]
        size = self.record.get("preprocessing", {}).get("image_size")
        if size is not None:
            lines.append(f"{config.BACKBONE}.image_size = {size!r}")
        if self.table is not None:
            lines += self.table.get("gin", ())
            lines += names.normalization(self.table, self.file.tensors)
            classes = names.num_classes(self.table, self.file.tensors)
        else:
            bias = self.file.tensors.get(f"{names.HEAD}/bias")
            classes = bias.shape[0] if bias is not None and bias.shape else None
        if classes == taxonomies.load(IMAGENET).num_classes + 1:
            lines.append("model.background_class = True")
        return lines

    def override_bindings(self) -> list[str]:
        """Returns the bindings that override a user's: classes and normalisation.

        A copy of a feature-vector model names the taxonomy of its classifier, but has
        neither its classes nor a head. The taxonomy is then left to the user.
        """
        record = dict(self.record)
        has_head = f"{names.HEAD}/bias" in self.file.tensors
        if not has_head and record.get("taxonomy") not in taxonomies.names():
            record.pop("taxonomy", None)
        return native_format.gin_bindings(record)

    def assign(
        self, model: keras.Model, *, with_head: bool = True
    ) -> tensor_matching.Matching:
        """Assigns the tensors to the variables of `model`; all of them, or none.

        Args:
          model: a classifier.
          with_head: whether to assign the head, too. If False, its variables keep their
            values, and tensors for it may have any shape.

        Returns:
          The matched, folded and ignored tensors. If the weights have no head, the
          head's variables keep their values.

        Raises:
          ValueError: a variable has no tensor, a tensor has no variable, or a value is
            not finite. Nothing is assigned then.
        """
        variables = {variable.path: variable for variable in model.weights}
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        try:
            matching = self._match(shapes)
            if not with_head:
                matching = matching.without_head()
            values = _values(self.file.tensors, matching, shapes)
        except ValueError as error:
            removed = f" without the prefix {self.prefix!r}" if self.prefix else ""
            raise ValueError(
                f"{self.source.path}{removed} does not fit {self.arch}: {error}"
            ) from None
        for name, value in values.items():
            variables[name].assign(value)
        return matching

    def _match(self, shapes: Mapping[str, tuple[int, ...]]) -> tensor_matching.Matching:
        if self.table is not None:
            return tensor_matching.match(self.table, shapes, self.file.tensors)
        return tensor_matching.match_ours(shapes, self.file.tensors, ignored=_TRAINING)


def open_weights(arch: str, source: registry.Source) -> Weights:
    """Opens a weights file and recognises the project that named its tensors.

    Raises:
      ValueError: the file is not readable, no table for the arch has its names, or its
        record names another arch.
    """
    file = weights_file.read(source.path)
    file_record = _read_record(file, arch, source.path)
    tables = [] if file_record else names.load(_names_folder(arch), arch)
    recognised = names.recognise(tables, file.tensors)
    if recognised is None and not file_record:
        raise ValueError(
            f"{source.path} does not fit {arch}: {_unknown(tables, file.tensors)}"
        )
    prefix, table = recognised or ("", None)
    tensors = {name.removeprefix(prefix): t for name, t in file.tensors.items()}
    return Weights(
        arch=arch,
        source=source,
        file=dataclasses.replace(file, tensors=tensors),
        prefix=prefix,
        table=table,
        record={**file_record, **source.record},
    )


def _names_folder(arch: str) -> pathlib.Path:
    return config.config_file(arch).parent.parent / "names"


def _unknown(tables: Sequence[names.Table], tensors: names.Tensors) -> str:
    """Returns an error message for names that match none of the tables."""
    sources = ", ".join(sorted({table["source"] for table in tables})) or "any project"
    shown = ", ".join(sorted(tensors)[:3]) or "none"
    prefix = names.prefixes(tensors)[-1]
    without = f", even without their common prefix {prefix!r}" if prefix else ""
    return (
        f"its tensor names ({shown}, …) are not those of {sources} for this arch"
        f"{without}.{_suggest_archs(list(tensors)[:_ENOUGH_NAMES])}"
    )


def _suggest_archs(tensors: Collection[str]) -> str:
    """Returns a hint with the archs whose tables have the names, or nothing."""
    archs = [
        arch
        for arch in config.config_files()
        if names.recognise(names.load(_names_folder(arch), arch), tensors)
    ]
    shown = ", ".join(archs[:6]) + (", …" if len(archs) > 6 else "")
    return f" They fit {shown}." if archs else ""


def _read_record(
    file: weights_file.File, arch: str, path: pathlib.Path
) -> native_format.JsonObject:
    """Returns the record of a file in this project's format, else an empty one.

    Raises:
      ValueError: the record is damaged, or names another arch.
    """
    try:
        if file.manifest is not None:
            record = native_format.from_manifest(json.loads(file.manifest))
        elif file.record is not None:
            record = json.loads(file.record)
        else:
            return {}
        record_arch = record["arch"]
        record = native_format.with_classes(record, file.class_index)
        native_format.gin_bindings(record)
        native_format.read_taxonomy(record)
        "".join(record.get("configuration", []))
        native_format.check_provenance(record)
    except (
        *(ValueError, TypeError, KeyError, AttributeError, RecursionError),
        *(SyntaxError, MemoryError),
    ) as error:
        raise ValueError(f"{path} has a damaged record.") from error
    if record_arch != arch:
        raise ValueError(
            f"{path} does not fit {arch}: its record has the arch {record_arch!r}."
        )
    return record


def _values(
    tensors: names.Tensors,
    matching: tensor_matching.Matching,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """Returns the variables' values as float32.

    Raises:
      ValueError: the matching is not complete, or a value is not valid.
    """
    if not matching.complete:
        raise ValueError(f"{matching.summary()}.{_hint(matching)}")
    values = {name: np.zeros(shapes[name], np.float32) for name in matching.zeros}
    for name, origin in matching.origins.items():
        for tensor in (origin.tensor, *origin.others):
            dtype = tensors[tensor].dtype
            if np.dtype(dtype).name not in _FLOATS:
                raise ValueError(f"{name} would come from {dtype} values.")
        with np.errstate(over="ignore"):
            value = tensor_matching.value(tensors, origin).astype(np.float32)
        values[name] = value.reshape(shapes[name])
        if not np.isfinite(value).all():
            raise ValueError(f"{name} would have NaN or infinite values.")
        if name.endswith("/moving_variance") and value.min() < 0:
            raise ValueError(f"{name} would have negative variances.")
    return values


def _hint(matching: tensor_matching.Matching) -> str:
    """Returns advice for a matching that fails only because of the head."""
    if matching.missing:
        is_layer = matching.source == tensor_matching.OURS and matching.lacks_head
        return _LAYER_HINT if is_layer and matching.unused else ""
    layers = {text.partition("/")[0] for text in matching.mismatched}
    return _CLASSES_HINT if layers == {names.HEAD} and not matching.unused else ""
