"""Builds models for tests of their structure, not of their outputs."""

import zoo
from zoo import built_facts


def build(arch, **kwargs):
    """Builds a model whose variables have shapes but no values."""
    with built_facts.without_values():
        return zoo.build(arch, **kwargs)
