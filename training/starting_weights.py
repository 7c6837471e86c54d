"""Starts a training from weights: their backbone, and their head if the classes fit."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence

from foundation import progress
from zoo import config, definition
from zoo import model as zoo_model
from zoo import taxonomy as taxonomies
from zoo.weights import loading

_LOG = progress.logger(__name__)

_CLASSES = re.compile(r"(zoo\.)?model\.(taxonomy_name|background_class)\b")
_NORMALIZATION = re.compile(r"model\.(mean|std)\b")


@dataclasses.dataclass(frozen=True)
class Builder:
    """Builds the model of a training from the gin bindings in effect.

    Attributes:
      builder: builds the model with random weights.
      weights: the opened weights to start from; None to keep the random ones.
    """

    builder: zoo_model.Builder
    weights: loading.Weights | None

    def build(
        self, *, seed: int, taxonomy: taxonomies.Taxonomy | None
    ) -> zoo_model.ImageModel:
        """Builds the model and assigns the weights to start from.

        Raises:
          ValueError: a gin binding is not usable, or the weights don't fit the model.
        """
        model = self.builder.build(seed=seed, taxonomy=taxonomy)
        opened = self.weights
        if opened is None:
            return model
        keeps_head = _has_same_classes(opened, model.taxonomy)
        matching = opened.assign(model.classifier, with_head=keeps_head)
        classes = model.taxonomy.num_classes
        has_head = keeps_head and not matching.missing
        head = (
            "with their head" if has_head else f"with a new head for {classes} classes"
        )
        _LOG.info(f"start from weights {opened.name!r}, {head}: {matching.summary()}")
        provenance = {"name": opened.name, "sha256": opened.source.sha256}
        return dataclasses.replace(model, weights={**_license(opened), **provenance})


@contextlib.contextmanager
def bind(resolved: definition.Definition, *, roots: Sequence[str]) -> Iterator[Builder]:
    """Binds gin to a model and to the recipe of its training, inside a `with` block.

    The weights to start from override the normalisation that is bound. Their other
    settings are defaults; their classes do not count, since the data have their own.

    Args:
      resolved: the definition, with the weights to start from.
      roots: see `zoo.config.bind`.

    Raises:
      ValueError: a gin binding or the weights file is not usable.
    """
    if resolved.weights is None:
        with zoo_model.bind(resolved, roots=roots) as builder:
            yield Builder(builder, None)
        return
    opened = loading.open_weights(resolved.arch, resolved.weights)
    defaults = [*opened.default_bindings(), *opened.override_bindings()]
    overrides = [line for line in defaults if _NORMALIZATION.match(line)]
    with config.bind(
        resolved.gin_texts,
        weights_defaults=[line for line in defaults if not _CLASSES.match(line)],
        weights_overrides=overrides,
        weights=f"the record of {opened.source.path}",
        roots=roots,
    ) as bindings:
        yield Builder(zoo_model.Builder(resolved.arch, None, bindings), opened)


def _has_same_classes(opened: loading.Weights, taxonomy: taxonomies.Taxonomy) -> bool:
    """Whether the logits of the weights stand for the classes of a taxonomy."""
    has_background = any(
        _CLASSES.match(line) and line.endswith("background_class = True")
        for line in (*opened.default_bindings(), *opened.override_bindings())
    )
    name = opened.record.get("taxonomy", loading.IMAGENET)
    return name == taxonomy.name and not has_background


def _license(opened: loading.Weights) -> dict[str, typing.Any]:
    """Returns the licence of the weights, which that of their training goes back to."""
    provenance = opened.provenance()
    return {k: v for k, v in provenance.items() if k.startswith("license")}
