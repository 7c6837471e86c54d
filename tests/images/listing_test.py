"""Listing of the image files below a folder, and counts of skipped files."""

import collections
import os
import pathlib
import subprocess

from images import listing as files


def paths(listing):
    return [pathlib.Path(entry.path) for entry in listing.images]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_images_of_any_depth_are_found_in_order(tmp_path):
    names = ("b/2.JPG", "a.png", "b/c/d/1.webp", "b/3.jfif", "e.tiff", "f.avif")
    listing = files.find(tmp_path)
    assert not listing.images
    expected = sorted(touch(tmp_path / name) for name in names)
    listing = files.find(tmp_path)
    assert paths(listing) == expected
    assert not listing.skipped


def test_folders_may_be_as_deep_as_the_system_lets_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):  # one at a time: a path has at most 4,096 bytes
        os.mkdir("d")
        monkeypatch.chdir("d")
    touch(pathlib.Path("a.png"))
    monkeypatch.chdir(tmp_path)
    (path,) = paths(files.find("."))
    subprocess.run(["rm", "-r", "d"], check=True)  # too deep for pytest
    assert path.name == "a.png"


def test_what_is_left_out_is_counted_by_suffix(tmp_path):
    for name in (
        *("a.txt", "b/c.TXT", "b/d.heic", "LICENSE", ".hidden.jpg", "b/._e.jpg"),
        *(".git/f.jpg", "__MACOSX/b/g.jpg", ".ipynb_checkpoints/h-checkpoint.png"),
        *("b/.thumbnails/i.jpg", "@eaDir/j.jpg", "Thumbs.db"),
    ):
        touch(tmp_path / name)
    listing = files.find(tmp_path)
    assert not listing.images
    assert listing.skipped == {
        **{".txt": 2, ".heic": 1, ".db": 1, files.NO_SUFFIX: 1},
        files.HIDDEN: 7,
    }
    assert files.describe_skipped(listing.skipped) == (
        "files left out: 7 hidden, 2 .txt, 1 .db, 1 .heic, 1 without suffix; "
        "convert HEIC files first, for example to JPEG"
    )
    assert files.describe_skipped(collections.Counter()) == ""


def test_links_to_folders_are_not_followed(tmp_path):
    inner = touch(tmp_path / "a" / "b.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "nowhere.jpg").symlink_to(tmp_path / "nothing")
    link = tmp_path / "a" / "c.jpg"
    link.symlink_to(inner)
    listing = files.find(tmp_path)
    assert paths(listing) == [inner, link]
    assert listing.skipped == {files.FOLDER_LINKS: 1, files.NO_FILES: 1}


def test_some_folders_can_be_passed_over(tmp_path):
    touch(tmp_path / "a" / "b.jpg")
    image = touch(tmp_path / "c" / "a" / "d.jpg")
    assert paths(files.find(tmp_path, exclude=["a"])) == [image]


def test_small_files_are_read_and_others_are_not(tmp_path):
    path = tmp_path / "some"
    path.write_bytes(b"12345")
    assert files.read_small(str(path), 5) == b"12345"
    assert files.read_small(os.fsencode(path), 4) is None
    assert files.read_small(tmp_path / "none", 5) is None
    assert files.read_small(tmp_path, 5) is None
