"""From a file of weights into a model: all of it by name, or nothing."""

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
from zoo.weights import names, native_format, registry, weights_file

IMAGENET = "ilsvrc_2012"
_CLASSES = " Other classes? Name them: --gin_binding=\"model.taxonomy_name='…'\""
_ALONE = " Save the layer alone: tf.saved_model.save(layer.resolved_object, FOLDER)"
_ENOUGH_NAMES = 1000  # to guess the arch of a file that may have many more
_FLOATS = ("float64", "float32", "float16", "bfloat16")
# What a fine-tuned model's checkpoint holds besides its variables.
_TRAINING = (
    *("Adam/*", "SGD/*", "RMSprop/*", "AdamW/*", "optimizer/*", "*/optimizer/*"),
    *("iteration", "learning_rate", "learning_rate_*", "momentum", "global_step"),
    *("total", "count", "total_*", "count_*", "save_counter", "seed_generator*"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights that has been recognised, and not assigned yet.

    Attributes:
      arch: what it is to be loaded into.
      source: where it is.
      file: its contents, by names without `prefix`.
      prefix: the wrapper's prefix that all names in the file have; often empty.
      table: whose names they are; None where they are ours.
      record: our own format's, under the registry's.
    """

    arch: str
    source: registry.Source
    file: weights_file.File
    prefix: str
    table: names.Table | None
    record: Mapping[str, typing.Any]

    @property
    def name(self) -> str:
        """The source's name; that of random weights where the file is of such."""
        is_random = self.record.get("source") == registry.RANDOM
        return registry.RANDOM if is_random else self.source.name

    @property
    def assumed(self) -> str | None:
        """What neither file nor registry says; None where they do."""
        if self.record:
            return None
        if self.table is None:
            return (
                "the file does not say what it was made with: normalisation, padding "
                "and epsilons are taken from the gin file"
            )
        habit = self.table.get("habit")
        return (
            f"taken to be made {habit}"
            if habit
            else f"made as {self.table['source']} mostly makes them; bind what is "
            "otherwise"
        )

    def provenance(self) -> native_format.JsonObject:
        """What the registry says of the source, or of an own record what it may say."""
        known = self.source.record or {
            key: value
            for key, value in self.record.items()
            if key in native_format.PROVENANCE
        }
        return {
            key: value
            for key, value in known.items()
            if key not in native_format.DECIDED
        }

    @property
    def taxonomy(self) -> taxonomies.Taxonomy | None:
        """The classes, where the record gives more of them than a name."""
        return native_format.taxonomy_of(self.record)

    def made_with(self) -> list[str]:
        """Bindings that the file was made with, which a user's own come after."""
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

    def decided(self) -> list[str]:
        """Bindings that hold whatever a user's own say: classes and normalisation.

        A copy of a feature vector says what its classifier's classes are called
        together, and has neither them nor a head: they are left to the user.
        """
        record = dict(self.record)
        has_head = f"{names.HEAD}/bias" in self.file.tensors
        if not has_head and record.get("taxonomy") not in taxonomies.names():
            record.pop("taxonomy", None)
        return native_format.gin_bindings(record)

    def assign(self, model: keras.Model) -> names.Matching:
        """Gives every variable of `model` its value.

        Returns:
          What was matched, folded and ignored. The head may be missing: it keeps the
          values that it has.

        Raises:
          ValueError: a variable would be left without a value or a tensor without a
            variable, or a value is not finite. Nothing is assigned then.
        """
        variables = {variable.path: variable for variable in model.weights}
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        try:
            matching = self._match(shapes)
            values = _values(self.file.tensors, matching, shapes)
        except ValueError as error:
            removed = f" without the prefix {self.prefix!r}" if self.prefix else ""
            raise ValueError(
                f"{self.source.path}{removed} does not fit {self.arch}: {error}"
            ) from None
        for name, value in values.items():
            variables[name].assign(value)
        return matching

    def _match(self, shapes: Mapping[str, tuple[int, ...]]) -> names.Matching:
        if self.table is not None:
            return names.match(self.table, shapes, self.file.tensors)
        return names.match_ours(shapes, self.file.tensors, ignored=_TRAINING)


def recognised(arch: str, source: registry.Source) -> Weights:
    """Reads a file's names and shapes, and finds out whose names they are.

    Raises:
      ValueError: the file is not readable, its names are nobody's that are known for
        the arch, or it says that it is of another arch.
    """
    file = weights_file.read(source.path)
    own_record = _own_record(file, arch, source.path)
    tables = [] if own_record else names.load(_names_folder(arch), arch)
    found = names.recognise(tables, file.tensors)
    if found is None and not own_record:
        raise ValueError(
            f"{source.path} does not fit {arch}: {_unknown(tables, file.tensors)}"
        )
    prefix, table = found or ("", None)
    tensors = {name.removeprefix(prefix): t for name, t in file.tensors.items()}
    return Weights(
        arch=arch,
        source=source,
        file=dataclasses.replace(file, tensors=tensors),
        prefix=prefix,
        table=table,
        record={**own_record, **source.record},
    )


def _names_folder(arch: str) -> pathlib.Path:
    return config.config_file(arch).parent.parent / "names"


def _unknown(tables: Sequence[names.Table], tensors: names.Tensors) -> str:
    """Returns an error message for names that match none of the tables."""
    sources = ", ".join(sorted({table["source"] for table in tables})) or "nobody"
    shown = ", ".join(sorted(tensors)[:3]) or "none at all"
    prefix = names.prefixes(tensors)[-1]
    even = f", even without their common prefix {prefix!r}" if prefix else ""
    return (
        f"its names ({shown}, …) are not those of {sources} for this arch{even}."
        f"{_fitting(list(tensors)[:_ENOUGH_NAMES])}"
    )


def _fitting(tensors: Collection[str]) -> str:
    """The archs that the names are known for."""
    found = [
        arch
        for arch in config.config_files()
        if names.recognise(names.load(_names_folder(arch), arch), tensors)
    ]
    shown = ", ".join(found[:6]) + (", …" if len(found) > 6 else "")
    return f" They are of {shown}." if found else ""


def _own_record(
    file: weights_file.File, arch: str, path: pathlib.Path
) -> native_format.JsonObject:
    """Our own format's record; what it says of the arch must hold."""
    try:
        if file.manifest is not None:
            record = native_format.from_manifest(json.loads(file.manifest))
        elif file.record is not None:
            record = json.loads(file.record)
        else:
            return {}
        of = record["arch"]
        record = native_format.with_classes(record, file.class_index)
        native_format.gin_bindings(record)
        native_format.taxonomy_of(record)
        "".join(record.get("configuration", []))
        native_format.check_provenance(record)
    except (
        *(ValueError, TypeError, KeyError, AttributeError, RecursionError),
        *(SyntaxError, MemoryError),
    ) as error:
        raise ValueError(f"{path} has a damaged record.") from error
    if of != arch:
        raise ValueError(f"{path} does not fit {arch}: it says that it is of {of!r}.")
    return record


def _values(
    tensors: names.Tensors,
    matching: names.Matching,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """The values as float32, if all variables have one that can be meant."""
    if not matching.complete:
        raise ValueError(f"{matching.summary()}.{_hint(matching)}")
    values = {}
    for name, origin in matching.origins.items():
        if np.dtype(tensors[origin.tensor].dtype).name not in _FLOATS:
            kind = tensors[origin.tensor].dtype
            raise ValueError(f"{name} would come from {kind} values.")
        with np.errstate(over="ignore"):
            value = names.value(tensors, origin).astype(np.float32)
        values[name] = value.reshape(shapes[name])
        if not np.isfinite(value).all():
            raise ValueError(f"{name} would hold NaN or infinite values.")
        if name.endswith("/moving_variance") and value.min() < 0:
            raise ValueError(f"{name} would hold negative variances.")
    return values


def _hint(matching: names.Matching) -> str:
    """What to do where only the head is another."""
    if matching.missing:
        alone = matching.source == names.OURS and matching.lacks_head
        return _ALONE if alone and matching.unused else ""
    layers = {text.partition("/")[0] for text in matching.mismatched}
    return _CLASSES if layers == {names.HEAD} and not matching.unused else ""
