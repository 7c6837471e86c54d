"""Finds what determines a model: facts, gin texts and a weights file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from zoo import config, facts
from zoo.weights import registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Definition:
    """What determines a model. The files are read, but nothing is built.

    Attributes:
      arch: name of the architecture.
      facts: its facts; see `zoo.facts`.
      gin_texts: texts of its gin file, of extra gin files and of extra bindings.
      weights: the weights file; None for random weights.
    """

    arch: str
    facts: facts.Facts
    gin_texts: Sequence[str]
    weights: registry.Source | None


def resolve(
    arch: str,
    *,
    weights: str = registry.RANDOM,
    gin_files: Sequence[str] = (),
    gin_bindings: Sequence[str] = (),
    trust_gin_imports: bool = False,
) -> Definition:
    """Reads the definition of a model; downloads its weights if they are on the web.

    The arguments are those of `zoo.model.build`.

    Raises:
      ValueError: the arch, its facts, a gin file or the weights don't exist or are not
        usable.
    """
    for name, values in (("gin_files", gin_files), ("gin_bindings", gin_bindings)):
        if isinstance(values, str):
            raise ValueError(f"{name} must be a list of strings, not {values!r}.")
    texts = config.gin_texts(
        arch,
        gin_files=gin_files,
        gin_bindings=gin_bindings,
        trust_gin_imports=trust_gin_imports,
    )
    return Definition(
        arch=arch,
        facts=facts.load(arch),
        gin_texts=texts,
        weights=registry.find(arch, weights),
    )
