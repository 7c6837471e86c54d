"""Reports of the files that changed since a training began."""

import os

import numpy as np
import pytest

from tests.training.data import folders_test
from training.data import data_sources, file_changes


@pytest.fixture
def root(tmp_path):
    root = folders_test.fill(tmp_path / "data", "a", "b")
    file_changes.save(tmp_path / "data.npz", data_sources.open_splits(str(root)))
    return root


def difference(root):
    splits = data_sources.open_splits(str(root))
    return file_changes.difference(root.parent / "data.npz", splits)


def test_nothing_has_changed(root):
    before = data_sources.open_splits(str(root))["train"].fingerprint
    assert difference(root) == ""
    assert data_sources.open_splits(str(root))["train"].fingerprint == before


def test_files_are_named_by_what_happened_to_them(root):
    first, second, third, *_ = sorted((root / "a").iterdir())
    before = {
        name: s.fingerprint for name, s in data_sources.open_splits(str(root)).items()
    }
    first.rename(root / "b" / "new.png")
    second.write_bytes(second.read_bytes() + b"\0")
    os.utime(third, ns=(0, third.stat().st_mtime_ns + 1))  # the size is unchanged
    assert difference(root) == (
        f"1 added: b/new.png; 1 removed: a/{first.name}; "
        f"2 changed: a/{second.name}, a/{third.name}"
    )
    after = {
        name: s.fingerprint for name, s in data_sources.open_splits(str(root)).items()
    }
    assert not set(before.values()) & set(after.values())


def test_a_time_alone_makes_another_data_set(root):
    before = {
        name: s.fingerprint for name, s in data_sources.open_splits(str(root)).items()
    }
    path = next((root / "a").iterdir())
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    after = {
        name: s.fingerprint for name, s in data_sources.open_splits(str(root)).items()
    }
    assert not set(before.values()) & set(after.values())


def test_of_many_some_are_named(root):
    for path in (root / "b").iterdir():
        os.utime(path, ns=(0, 0))
    assert difference(root).startswith("5 changed: b/")
    assert difference(root).endswith(", …")


def test_both_halves_of_a_split_folder_are_looked_at(tmp_path):
    folders_test.fill(tmp_path / "data", "train/a", "train/b", "test/a", "test/b")
    root = tmp_path / "data"
    file_changes.save(tmp_path / "data.npz", data_sources.open_splits(str(root)))
    changed = next((root / "test" / "b").iterdir())
    os.utime(changed, ns=(0, 0))
    assert difference(root) == f"1 changed: test/b/{changed.name}"


@pytest.mark.parametrize("damage", [None, b"", b"PK\x03\x04"])
def test_without_a_list_nothing_is_named(root, damage):
    path = root.parent / "data.npz"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert difference(root) == ""


def test_what_can_not_be_written_leaves_nothing(root, monkeypatch):
    splits = data_sources.open_splits(str(root))
    path = root.parent / "data.npz"
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=f"Can't write {path}: No space left"):
        file_changes.save(path, splits)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert sorted(p.name for p in root.parent.iterdir()) == ["data", "data.npz"]


def test_a_list_of_another_kind_is_none(root):
    np.savez(root.parent / "data.npz", x=np.zeros(3))
    assert difference(root) == ""
