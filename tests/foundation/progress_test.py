"""Progress is printed only on request, as lines or as a bar."""

import logging
import subprocess
import sys
import time

import pytest

from foundation import progress

LOG = progress.logger("tests")


def test_lines_have_subject_and_message(capsys):
    with progress.show("toy"):
        LOG.info("build")
        LOG.warning("never \x1b trained")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("toy ")
    assert first.endswith(" s  build")
    assert second.endswith("never \N{REPLACEMENT CHARACTER} trained")


def test_handlers_of_other_loggers_do_not_print_the_lines_again(caplog):
    with progress.show("toy"):
        LOG.warning("never trained")
    assert caplog.messages == []


def test_after_the_context_nothing_is_printed_and_all_is_as_before(capsys):
    root = logging.getLogger(progress.ROOT)
    before = root.level, root.propagate, list(root.handlers)
    with pytest.raises(KeyError), progress.show("toy"):
        raise KeyError
    LOG.info("build")
    assert capsys.readouterr().err == ""
    assert (root.level, root.propagate, root.handlers) == before


def test_a_library_prints_nothing_by_itself():
    program = (
        "from foundation import progress\n"
        "progress.logger('x').warning('never trained')\n"
        "progress.step(progress.logger('x'), 1, 2, '')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_callers_may_configure_logging_themselves(caplog):
    with caplog.at_level("INFO", progress.ROOT):
        LOG.info("build")
    assert caplog.messages == ["build"]


def test_without_a_terminal_a_step_is_a_line_after_a_silent_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.show("toy"):
        for number, now[0] in enumerate([10.0, 61.0, 62.0, 130.0], start=1):
            progress.step(LOG, number, 4, "loss 1")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("step ")[2] for line in lines] == [
        "2/4  loss 1",
        "4/4  loss 1",
    ]


def test_on_a_terminal_steps_are_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    pytest.importorskip("tqdm")
    with progress.show("toy"):
        progress.step(LOG, 3, 4, "loss 1")
        time.sleep(0.2)  # tqdm draws every tenth of a second
        progress.step(LOG, 4, 4, "loss 0.5")
    output = capsys.readouterr().err
    assert "3/4" in output
    assert "loss 0.5" in output
    assert "step 4/4" not in output


def test_without_tqdm_a_terminal_shows_lines_alone(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress.show("toy"):
        progress.step(LOG, 3, 4, "loss 1")
        LOG.info("done")
    assert capsys.readouterr().err.rstrip().endswith("done")
