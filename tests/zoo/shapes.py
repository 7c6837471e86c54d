"""Models for tests of what they consist of, not of what they compute."""

import keras

import zoo


def build(arch, **kwargs):
    """Builds a model whose variables have shapes but no values, which take longer."""
    with keras.StatelessScope(initialize_variables=False):
        return zoo.build(arch, **kwargs)
