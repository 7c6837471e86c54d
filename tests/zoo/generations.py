"""Finds the smallest arch of each generation, such as MobileNetV3.

Default test runs build only these.
"""

from __future__ import annotations

import functools
import re

from zoo import config, facts


def generation(arch: str) -> str:
    """Returns the name of the arch's spec class, without a size such as Large."""
    text, *_ = config.gin_texts(arch)
    match = re.search(r"^model\.backbone = @(\w+)\(\)$", text, re.MULTILINE)
    assert match, arch
    return re.sub("(Large|Medium|Small)$", "", match[1])


def cost(arch: str) -> list[int]:
    """Returns the number of parameters and multiply-adds of an arch."""
    arch_facts = facts.load(arch)
    return [facts.value(arch_facts, name) for name in ("params", "multiply_adds")]


@functools.cache
def smallest() -> tuple[str, ...]:
    """Returns the arch with the fewest parameters of each generation, sorted."""
    by_cost = sorted(config.config_files(), key=cost, reverse=True)
    return tuple(sorted({generation(arch): arch for arch in by_cost}.values()))
