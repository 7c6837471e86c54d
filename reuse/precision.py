"""Computes a model's outputs on the CPU in bfloat16, and compares them with float32.

Processors with instructions for bfloat16 multiply matrices in it faster. TensorFlow's
graph optimizer converts the ops of a float32 model for oneDNN; variables, inputs and
outputs stay float32. TensorFlow is imported on first use, so that tools can check their
flags before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import typing
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from reuse import output_names, precision_names

LEAST_SAME_TOP1 = 0.95
"""Least share of images with the same largest output, for `auto` to use bfloat16."""
LEAST_COSINE = 0.99
"""Least cosine similarity of an image's outputs, for `auto` to use bfloat16."""

Outputs = np.ndarray | Mapping[str, np.ndarray]

_CPU_FLAGS = {"amx_bf16", "avx512_bf16"}
_CPU_INFO = pathlib.Path("/proc/cpuinfo")  # of Linux
_OPTION = "auto_mixed_precision_onednn_bfloat16"


class UnavailableError(ValueError):
    """A model can't be computed in bfloat16 on this computer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Outputs in bfloat16 compared with those in float32, for a sample of images.

    Attributes:
      images: number of images.
      same_top1: share of images whose largest score is the same, in [0, 1]; None if
        no output is scores.
      cosine: smallest cosine similarity of an image's outputs, in [-1, 1].
    """

    images: int
    same_top1: float | None
    cosine: float

    @property
    def is_close(self) -> bool:
        """Whether `auto` uses bfloat16."""
        same_top1 = 1.0 if self.same_top1 is None else self.same_top1
        return same_top1 >= LEAST_SAME_TOP1 and self.cosine >= LEAST_COSINE

    def __str__(self) -> str:
        cosine = f"the cosine similarity is at least {self.cosine:.5f}"
        if self.same_top1 is None:
            return f"compared with float32 for {self.images} images, {cosine}"
        return (
            f"of {self.images} images, {self.same_top1:.1%} have the same top class as "
            f"in float32; {cosine}"
        )


def has_bfloat16() -> bool:
    """Returns whether the processor has instructions for bfloat16 that oneDNN uses."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _CPU_FLAGS.isdisjoint(flags.split()) and not _has_gpu()


class Function:
    """Calls a model in a precision.

    The first batch is computed in float32 too. `auto` uses bfloat16 if TensorFlow can
    and the outputs of that batch are within `LEAST_SAME_TOP1` and `LEAST_COSINE`.

    Args:
      call: function from images [B, H, W, 3] to scores [B, K], or to a dict of
        outputs [B, ...] in which scores are called `logits`; it calls a `tf.function`.
      precision: one of `precision_names.ALL`.

    Attributes:
      precision: `float32` or `bfloat16`; `auto` before the first batch.
      comparison: of the first batch; None before it, and in float32.
      remarks: one-line notes for the user.

    Raises:
      UnavailableError: `bfloat16` is demanded, and the processor does not have it.
    """

    def __init__(
        self, call: Callable[[np.ndarray], typing.Any], precision: str
    ) -> None:
        self._call = call
        self.precision = precision
        self.comparison: Comparison | None = None
        self.remarks: list[str] = []
        if precision != precision_names.FLOAT32 and not has_bfloat16():
            if precision == precision_names.BFLOAT16:
                raise UnavailableError(
                    "this computer computes in float32 only: bfloat16 needs a CPU with "
                    f"{' or '.join(sorted(_CPU_FLAGS))}, and no GPU."
                )
            self.precision = precision_names.FLOAT32

    def __call__(self, images: np.ndarray) -> typing.Any:
        """Returns the outputs of images [B, H, W, 3], as arrays of NumPy.

        Raises:
          UnavailableError: `bfloat16` is demanded, and TensorFlow does not use it.
        """
        if self.precision == precision_names.FLOAT32:
            return _arrays(self._call(images))
        if self.comparison is None and len(images):
            return self._choose(images)
        with bfloat16():
            return _arrays(self._call(images))

    def _choose(self, images: np.ndarray) -> Outputs:
        """Returns the outputs in the precision that the comparison leads to."""
        import tensorflow as tf

        from images import reader

        exact = _arrays(self._call(images))
        try:
            with bfloat16():
                outputs = _arrays(self._call(images))
        except tf.errors.OpError as error:  # of oneDNN, if it has no bfloat16
            return self._keep_float32(exact, f"bfloat16 fails: {reader.reason(error)}")
        same = _by_name(exact)
        if all(np.array_equal(o, same[name]) for name, o in _by_name(outputs).items()):
            return self._keep_float32(
                exact,
                "bfloat16 changes nothing: oneDNN is switched off, or the model has "
                "no ops that TensorFlow converts",
            )
        comparison = _compare(outputs, exact, _different(images))
        if self.precision == precision_names.AUTO and not comparison.is_close:
            return self._keep_float32(exact, f"in bfloat16, {comparison}")
        self.precision, self.comparison = precision_names.BFLOAT16, comparison
        self.remarks.append(f"computed in bfloat16: {comparison}")
        return outputs

    def _keep_float32(self, exact: Outputs, reason: str) -> Outputs:
        """Returns the outputs in float32, with a remark; `bfloat16` is an error."""
        if self.precision == precision_names.BFLOAT16:
            raise UnavailableError(reason)
        self.precision = precision_names.FLOAT32
        self.remarks.append(f"computed in float32: {reason}")
        return exact


def _different(images: np.ndarray) -> list[int]:
    """Returns an index of each different image; fillers of a batch are equal."""
    pixels = np.asarray(images)
    return list({image.tobytes(): n for n, image in enumerate(pixels)}.values())


def _compare(outputs: Outputs, exact: Outputs, rows: list[int]) -> Comparison:
    """Compares some rows of outputs in bfloat16 with those of exact ones."""
    first, second = _by_name(outputs), _by_name(exact)
    scores = first[output_names.LOGITS][rows] if output_names.LOGITS in first else None
    return Comparison(
        images=len(rows),
        same_top1=None
        if scores is None
        else float(
            (scores.argmax(-1) == second[output_names.LOGITS][rows].argmax(-1)).mean()
        ),
        cosine=min(_least_cosine(first[n][rows], second[n][rows]) for n in first),
    )


def _least_cosine(outputs: np.ndarray, exact: np.ndarray) -> float:
    """Returns the smallest cosine similarity of rows of two arrays [B, ...]."""
    first = outputs.reshape(len(outputs), -1).astype(np.float64)
    second = exact.reshape(len(exact), -1).astype(np.float64)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    products = (first * second).sum(axis=-1)
    cosines = np.divide(products, lengths, out=np.ones_like(lengths), where=lengths > 0)
    return float(cosines.min())


def _arrays(outputs: typing.Any) -> Outputs:
    """Returns outputs as arrays of NumPy."""
    if isinstance(outputs, Mapping):
        return {name: np.asarray(output) for name, output in outputs.items()}
    return np.asarray(outputs)


def _by_name(outputs: Outputs) -> Mapping[str, np.ndarray]:
    return outputs if isinstance(outputs, Mapping) else {output_names.LOGITS: outputs}


@contextlib.contextmanager
def bfloat16() -> Iterator[None]:
    """Within the context, functions that are called compute in bfloat16."""
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options().get(_OPTION, False)
    tf.config.optimizer.set_experimental_options({_OPTION: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({_OPTION: before})


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
