"""Images that are drawn, for where photographs would be needed but none are at hand.

Shapes of all sizes that cover each other, as leaves on the ground: their statistics are
near to those of photographs, and classifiers see different things in them.

Source: Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 41 (2001).
"""

from __future__ import annotations

import numpy as np

_FEWEST, _MOST = 3, 120  # shapes in an image
_SMALLEST = 0.05  # of a shape: the square root of its radius to half the image's side
_NOISE = 0.06  # the most, as a standard deviation


def draw(count: int, side: int, seed: int) -> np.ndarray:
    """`count` images [count, side, side, 3], float32 in [0, 1]; the same every time."""
    random = np.random.default_rng(seed)
    return np.stack([_draw(side, random) for _ in range(count)])


def _draw(side: int, random: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    image = np.tile(random.random(3), (side, side, 1))
    colour, spread = random.random(3), random.uniform(0.1, 0.6)
    for _ in range(random.integers(_FEWEST, _MOST)):
        radius = side / 2 * random.uniform(_SMALLEST, 1) ** 2
        flatness, angle = random.uniform(0.3, 1), random.uniform(0, np.pi)
        x, y = (axis - random.uniform(0, side) for axis in (columns, rows))
        along = (x * np.cos(angle) + y * np.sin(angle)) / radius
        across = (y * np.cos(angle) - x * np.sin(angle)) / (radius * flatness)
        if random.random() < 0.6:
            shape = along**2 + across**2 < 1
        else:
            shape = np.maximum(np.abs(along), np.abs(across)) < 1
        light = 1 + random.uniform(-0.5, 0.5) * along[shape]
        own = np.clip(colour + spread * random.normal(size=3), 0, 1)
        image[shape] = own * light[:, None]
    image += random.uniform(0, _NOISE) * random.normal(size=image.shape)
    return np.clip(image, 0, 1).astype(np.float32)
