"""What outputs are called: the result `default`, others as in `InceptionV3/Mixed_5c`.

Source: TensorFlow Hub's common signatures for images, "Additional outputs".
"""

from __future__ import annotations

import typing
from collections.abc import Mapping

Outputs = dict[str, typing.Any]


def of_features(architecture: str, endpoints: Mapping[str, typing.Any]) -> Outputs:
    """Those of a feature-vector model; `endpoints` are its backbone's, by name."""
    further = dict(endpoints)
    return {"default": further.pop("feature_vector"), **_named(architecture, further)}


def of_scores(
    architecture: str, endpoints: Mapping[str, typing.Any], logits: typing.Any
) -> Outputs:
    """Those of a classifier, whose feature vector is one endpoint more."""
    return {"default": logits, **_named(architecture, endpoints)}


def _named(architecture: str, endpoints: Mapping[str, typing.Any]) -> Outputs:
    return {f"{architecture}/{name}": value for name, value in endpoints.items()}
