"""What every architecture's description has in common."""

from __future__ import annotations

import abc
import dataclasses

import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec(abc.ABC):
    """A frozen description of a backbone; gin sets its fields.

    Args:
      image_size: default height and width of the input, pixels. Weights depend on
        it only through training: the layers accept other sizes too.
    """

    image_size: int

    @abc.abstractmethod
    def build(self) -> keras.Model:
        """Makes the backbone with freshly initialised variables.

        Returns:
          A functional model from normalised images [B, H, W, 3] float32 to a dict
          of endpoints in data-flow order: `stem`, `stage_1` …, `feature_map`
          [B, h, w, C] and `feature_vector` [B, D], float32.
        """
