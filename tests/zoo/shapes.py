"""Models for tests of what they consist of, not of what they compute."""

import zoo
from zoo import built_facts


def build(arch, **kwargs):
    """Builds a model whose variables have shapes but no values."""
    with built_facts.without_values():
        return zoo.build(arch, **kwargs)
