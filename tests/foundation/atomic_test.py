"""Files and folders are written completely or not at all."""

import os
import resource
import signal
import stat
import subprocess
import sys

import pytest

from foundation import atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")
    atomic.write_file(path, "new")
    assert path.read_text() == "new\n"
    atomic.write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["report.txt"]


def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        atomic.write_file(tmp_path / "a", b"")
        assert os.umask(0o027) == 0o027  # unchanged
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"Can't write .*report\.txt: File too large"):
            atomic.write_file(path, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.txt"]


def test_a_failure_while_it_is_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")

    def interrupted():
        with atomic.replacement(path) as partial:
            partial.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.txt"]


@pytest.mark.parametrize("target", ["no/report.txt", "/proc/report.txt"])
def test_what_can_not_be_written_is_named(tmp_path, target):
    with pytest.raises(OSError, match=f"Can't write .*{target}: No such file"):
        atomic.write_file(tmp_path / target, b"")


def test_a_device_is_written_to_directly():
    atomic.write_file(atomic.pathlib.Path("/dev/null"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_targets_are_checked_before_the_work(tmp_path):
    atomic.check_target(tmp_path / "new.txt")
    with pytest.raises(ValueError, match="is a folder"):
        atomic.check_target(tmp_path)
    with pytest.raises(ValueError, match="no is not a folder"):
        atomic.check_target(tmp_path / "no" / "new.txt")


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with atomic.locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert names(tmp_path) == []
    with atomic.locked(tmp_path / "a"):
        (tmp_path / "a" / "file").write_text("")
    assert names(tmp_path / "a") == ["file"]


def test_an_interruption_before_the_lock_leaves_no_folder(tmp_path, monkeypatch):
    def interrupted(*arguments):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic.locked(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


HOLDER = """
import pathlib, sys
from foundation import atomic
with atomic.locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_an_interruption_while_waiting_leaves_the_holder_its_folder(
    tmp_path, monkeypatch
):
    """Another process creates the folder after this one has looked for it."""
    folder = tmp_path / "a"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:

        def interrupted(path):
            assert holder.stdout.readline() == "locked\n"
            raise KeyboardInterrupt

        monkeypatch.setattr(atomic, "_lock", interrupted)
        with pytest.raises(KeyboardInterrupt), atomic.locked(folder):
            pass
        assert folder.is_dir()
        holder.communicate("")
    assert not folder.exists()


def test_leftovers_of_the_dead_are_removed(tmp_path):
    (tmp_path / f"{atomic.STAGING_PREFIX}dead").mkdir()
    with atomic.staging_folder(tmp_path) as staging:
        assert names(tmp_path) == [staging.name]
        (staging / "model").mkdir()
        (staging / "model" / "new").write_text("")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "old").write_text("")
        atomic.move_into_place(staging / "model", tmp_path / "model")
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new"]
