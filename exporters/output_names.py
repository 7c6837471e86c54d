"""Names of model outputs: `default`, and endpoints such as `InceptionV3/Mixed_5c`.

Source: TensorFlow Hub's common signatures for images, "Additional outputs".
"""

from __future__ import annotations

import typing
from collections.abc import Mapping

Outputs = dict[str, typing.Any]


def feature_vector_outputs(
    architecture: str, endpoints: Mapping[str, typing.Any]
) -> Outputs:
    """Returns the outputs of a feature-vector model from its backbone's endpoints."""
    others = dict(endpoints)
    feature_vector = others.pop("feature_vector")
    return {"default": feature_vector, **_prefixed(architecture, others)}


def classifier_outputs(
    architecture: str, endpoints: Mapping[str, typing.Any], logits: typing.Any
) -> Outputs:
    """Returns the outputs of a classifier; its feature vector is an endpoint, too."""
    return {"default": logits, **_prefixed(architecture, endpoints)}


def _prefixed(architecture: str, endpoints: Mapping[str, typing.Any]) -> Outputs:
    return {f"{architecture}/{name}": value for name, value in endpoints.items()}
