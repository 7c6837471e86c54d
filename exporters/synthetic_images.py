"""Generates synthetic images with statistics similar to those of photographs.

They serve where no photographs are available, such as calibration and comparison. An
image consists of shapes of all sizes that occlude each other ("dead leaves"), and
classifiers assign different classes to different images.

Source: Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 41 (2001).
"""

from __future__ import annotations

import numpy as np

_MIN_SHAPES, _MAX_SHAPES = 3, 120  # shapes in an image
_MIN_SIZE = 0.05  # square root of a shape's radius relative to half the image's side
_MAX_NOISE = 0.06  # largest standard deviation of the noise


def draw(count: int, side: int, seed: int) -> np.ndarray:
    """Draws images [count, side, side, 3] float32 in [0, 1], determined by `seed`."""
    random = np.random.default_rng(seed)
    return np.stack([_draw(side, random) for _ in range(count)])


def _draw(side: int, random: np.random.Generator) -> np.ndarray:
    """Draws one image [side, side, 3]."""
    rows, columns = np.mgrid[:side, :side]
    image = np.tile(random.random(3), (side, side, 1))
    colour, spread = random.random(3), random.uniform(0.1, 0.6)
    for _ in range(random.integers(_MIN_SHAPES, _MAX_SHAPES)):
        radius = side / 2 * random.uniform(_MIN_SIZE, 1) ** 2
        flatness, angle = random.uniform(0.3, 1), random.uniform(0, np.pi)
        x, y = (axis - random.uniform(0, side) for axis in (columns, rows))
        along = (x * np.cos(angle) + y * np.sin(angle)) / radius
        across = (y * np.cos(angle) - x * np.sin(angle)) / (radius * flatness)
        if random.random() < 0.6:
            shape = along**2 + across**2 < 1
        else:
            shape = np.maximum(np.abs(along), np.abs(across)) < 1
        light = 1 + random.uniform(-0.5, 0.5) * along[shape]
        shape_colour = np.clip(colour + spread * random.normal(size=3), 0, 1)
        image[shape] = shape_colour * light[:, None]
    image += random.uniform(0, _MAX_NOISE) * random.normal(size=image.shape)
    return np.clip(image, 0, 1).astype(np.float32)
