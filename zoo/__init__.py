"""Reference implementations of image models, built from gin files.

    import zoo
    model = zoo.build("mobilenet_v2")           # random weights
    features = model.feature_vector(images)     # [B, 1280] float32
    logits = model.classifier(images)           # [B, 1000] float32

Importing `zoo` is cheap: Keras is imported when the first model is built.
"""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from zoo import model as _model


def build(arch: str, **kwargs: typing.Any) -> _model.ImageModel:
    """Builds the model named `arch`; see `zoo.model.build` for the arguments."""
    from zoo import model

    return model.build(arch, **kwargs)
