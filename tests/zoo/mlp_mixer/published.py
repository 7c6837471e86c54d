"""Published values of MLP-Mixer; see `tests.zoo.published`."""

from tests.zoo import published

# `configs/mlp_mixer_i1k.py` of google-research/big_vision, for B/16 on ImageNet.
RECIPES = {
    "mlp_mixer_*": (
        *(published.INCEPTION, 0.0, 0.0, ("/bias", "/gamma", "/beta")),
        *(None, None, 0.1),
    )
}
# timm's evaluation.
CROPS = {"mlp_mixer_*": (lambda size: 0.875, "bicubic")}
PATHS = {"mlp_mixer_small_32": "ec7c9e15ed61d8d7aa0eac97f27e06ef"}
