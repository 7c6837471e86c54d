"""Output of libraries on stderr is shown only after a bug."""

import os

import pytest

from foundation import stderr


@pytest.mark.parametrize(
    ("error", "is_shown"),
    [(None, False), (KeyError, True), (OSError, False), (ValueError, False)],
)
def test_what_is_printed_is_shown_after_a_bug_alone(
    capfd, monkeypatch, error, is_shown
):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    try:
        with stderr.silenced():
            os.write(2, b"noise of a library\n")
            assert os.environ["KERAS_BACKEND"] == "tensorflow"
            if error:
                raise error
    except (KeyError, OSError, ValueError):
        pass
    os.write(2, b"after\n")
    output = capfd.readouterr().err
    assert ("noise" in output) == is_shown
    assert output.endswith("after\n")
