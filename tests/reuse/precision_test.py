"""Models compute in bfloat16 where the CPU can and results stay close to float32."""

import contextlib
import re

import numpy as np
import pytest
import tensorflow as tf

from reuse import precision, precision_names

EXACT = np.eye(4, 10, dtype=np.float32)
IMAGES = np.arange(4.0).reshape(4, 1, 1, 1)
ONE_ROW = np.float32([[0.5], [0], [0], [0]])


class Model:
    """Returns `EXACT`, or other outputs within `precision.bfloat16()`."""

    def __init__(self, monkeypatch, outputs, *, has_bfloat16=True):
        self.is_bfloat16 = False
        self.outputs = outputs
        monkeypatch.setattr(precision, "has_bfloat16", lambda: has_bfloat16)
        monkeypatch.setattr(precision, "bfloat16", self.context)

    @contextlib.contextmanager
    def context(self):
        self.is_bfloat16 = True
        try:
            yield
        finally:
            self.is_bfloat16 = False

    def __call__(self, images):
        return (self.outputs if self.is_bfloat16 else EXACT)[: len(images)]


def test_close_results_are_used_and_reported(monkeypatch):
    close = EXACT + np.float32(0.01)
    function = precision.Function(Model(monkeypatch, close), precision_names.AUTO)
    assert np.array_equal(function(IMAGES[:0]), close[:0])
    assert function.comparison is None
    assert np.array_equal(function(IMAGES), close)
    assert np.array_equal(function(IMAGES[:2]), close[:2])
    assert function.precision == "bfloat16"
    assert function.comparison.images == 4
    assert function.comparison.same_top1 == 1
    assert 0.998 < function.comparison.cosine < 1
    (remark,) = function.remarks
    assert remark.startswith("computed in bfloat16: of 4 images, 100.0% have the same")


def test_images_that_fill_up_a_batch_count_once(monkeypatch):
    outputs = np.roll(EXACT, 1, axis=1)  # for images 0 to 2
    outputs[3] = EXACT[3]
    function = precision.Function(Model(monkeypatch, outputs), "bfloat16")
    function(tf.constant(IMAGES[[0, 3, 3, 3]]))
    assert function.comparison.images == 2
    assert function.comparison.same_top1 == 0.5


@pytest.mark.parametrize("name", ["auto", "bfloat16"])
@pytest.mark.parametrize(
    "outputs",
    [np.roll(EXACT, 1, axis=0), np.add(EXACT, ONE_ROW), EXACT * np.nan],
)
def test_only_auto_falls_back_where_results_differ(monkeypatch, outputs, name):
    function = precision.Function(Model(monkeypatch, outputs), name)
    kept = EXACT if name == "auto" else outputs
    for _ in range(2):
        assert np.array_equal(function(IMAGES), kept, equal_nan=True)
    assert function.precision == {"auto": "float32"}.get(name, name)
    start = "computed in " + ("float32: in bfloat16" if name == "auto" else name)
    assert function.remarks[0].startswith(start)


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        (EXACT, "bfloat16 changes nothing: oneDNN is switched off, or"),
        (
            tf.errors.InternalError(None, None, "no primitive\nmore"),
            "bfloat16 fails: no primitive$",
        ),
    ],
)
def test_only_auto_goes_on_where_bfloat16_is_not_computed(monkeypatch, outputs, reason):
    class Failing(Model):
        def __call__(self, images):
            if self.is_bfloat16 and isinstance(outputs, Exception):
                raise outputs
            return super().__call__(images)

    model = Failing(monkeypatch, outputs)
    with pytest.raises(precision.UnavailableError, match=f"^{reason}"):
        precision.Function(model, precision_names.BFLOAT16)(IMAGES)
    function = precision.Function(model, precision_names.AUTO)
    assert np.array_equal(function(IMAGES), EXACT)
    assert function.precision == "float32"
    assert re.match(f"computed in float32: {reason}", function.remarks[0])


def test_a_cpu_without_bfloat16_computes_in_float32(monkeypatch, tmp_path):
    model = Model(monkeypatch, EXACT, has_bfloat16=False)
    with pytest.raises(ValueError, match="float32 only: bfloat16 needs a CPU with amx"):
        precision.Function(model, precision_names.BFLOAT16)
    function = precision.Function(model, precision_names.AUTO)
    function(IMAGES)
    assert (function.precision, function.remarks) == ("float32", [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 avx512_bf16\n", True),
        ("flags\t\t: fpu avx512f\n", False),
        ("", False),
        (None, False),
    ],
)
def test_the_cpu_is_known_by_its_flags(monkeypatch, tmp_path, text, expected):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(precision, "_CPU_INFO", file)
    assert precision.has_bfloat16() is expected


def test_tensorflow_converts_a_loaded_model_and_back():
    if not precision.has_bfloat16():
        pytest.skip("this CPU has no bfloat16")
    kernel = tf.Variable(tf.random.stateless_normal([256, 64], [0, 1]))
    call = tf.function(lambda x: tf.matmul(tf.reshape(x, [-1, 256]), kernel))
    images = np.random.default_rng(0).random([8, 8, 8, 4], np.float32)
    exact = call(images).numpy()
    function = precision.Function(call, precision_names.AUTO)
    outputs = function(images)
    assert function.precision == "bfloat16"
    assert not np.array_equal(outputs, exact)
    assert np.abs(outputs - exact).max() < 0.05 * np.abs(exact).max()
    assert np.array_equal(call(images).numpy(), exact)
