"""Computes feature vectors, and other outputs of a SavedModel by name."""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Sequence

import numpy as np

from reuse import graphs, image_model, precision_names
from reuse.output_names import FEATURES, LOGITS

_SIGNATURE = "image_feature_vector"


class FeatureExtractor(image_model.ImageModel):
    """A SavedModel that returns feature vectors of images, from this project or not.

    Feature vectors come from the model's `__call__` if that is what it returns, else
    from its signature `image_feature_vector`. Several outputs, and endpoints, come from
    one call with `return_endpoints`.

    Args:
      path: the model's folder.
      outputs: names of outputs: `FEATURES`, `LOGITS` or endpoints.
      settings: further arguments of `image_model.ImageModel`.

    Raises:
      ValueError: see `image_model.ImageModel`; or the model lacks an output.
    """

    random_means = "features mean little"

    def __init__(
        self,
        path: pathlib.Path,
        *,
        outputs: Sequence[str] = (FEATURES,),
        input_range: str | None = None,
        precision: str = precision_names.FLOAT32,
    ) -> None:
        self.outputs = tuple(outputs)
        super().__init__(path, input_range=input_range, precision=precision)

    def extract(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each output of images, [B, ...] floating-point numbers, by name.

        Args:
          images: [B, H, W, 3] float32 in [0, 1].

        Raises:
          ValueError: the model does not take the images, or an output is not one row of
            finite numbers for each image.
        """
        outputs = self._scaled_call(images, self.computation)
        for name, output in outputs.items():
            if output.ndim < 2 or len(output) != len(images):
                raise ValueError(
                    f"{self.path} must return {name} [batch, ...], not an array of "
                    f"shape {output.shape}."
                )
            if name == FEATURES and output.ndim != 2:
                raise ValueError(
                    f"{self.path} must return feature vectors [batch, length], not an "
                    f"array of shape {output.shape}."
                )
            # bfloat16 and other types of ml_dtypes are of kind V
            if output.dtype.kind not in "fV" or not np.isfinite(output).all():
                raise ValueError(f"{self.path} returns {name} that are not finite.")
        return dict(outputs)

    def _choose_function(self, model: typing.Any) -> image_model.ImageFunction:
        if self.outputs != (FEATURES,):
            endpoints = {name: self._endpoint(name) for name in self.outputs}
            return image_model.ImageFunction.of_endpoints(model, endpoints)
        if _SIGNATURE in model.signatures and not self._returns_features:
            return image_model.ImageFunction.of_signature(model, _SIGNATURE)
        function = image_model.ImageFunction.of_call(model, "serving_default")
        if not self._returns_features:
            self._check_output(function)
        return function

    @property
    def _returns_features(self) -> bool:
        """Whether the manifest says that the model returns feature vectors."""
        return self.manifest.get("kind") == image_model.FEATURE_VECTOR

    def _endpoint(self, name: str) -> str:
        """Returns the endpoint of an output."""
        if name == LOGITS:
            if self.manifest.get("kind") != image_model.CLASSIFICATION:
                raise ValueError("it has no logits: give the classifier of the pair")
            return "default"
        if name == FEATURES:
            return "default" if self._returns_features else "feature_vector"
        return name

    def _check_output(self, function: image_model.ImageFunction) -> None:
        """Checks that a model without manifest returns no class probabilities."""
        is_classifier = self.manifest.get("kind") == image_model.CLASSIFICATION
        final = function.read_graph(graphs.final_op)
        if is_classifier or final in (graphs.SOFTMAX, graphs.SIGMOID):
            raise ValueError(
                "it has no feature vector: it returns scores of classes, and has no "
                f"signature {_SIGNATURE}"
            )
        self.remarks.append(
            "the model does not declare what it returns: that is taken for feature "
            "vectors"
        )

    def _call(self, images: np.ndarray) -> typing.Any:
        outputs = self._function(images)
        return outputs if isinstance(outputs, dict) else {FEATURES: outputs}
