"""Reads the specs of archs without building their models, which takes seconds."""

from __future__ import annotations

from typing import Any

import gin

from zoo import config


def of(arch: str) -> Any:
    """Returns the spec that the arch's gin file describes."""
    with config.bind(config.gin_texts(arch)):
        return gin.query_parameter("model.backbone").scoped_configurable_fn()
