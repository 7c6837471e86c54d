"""Archives from anywhere write inside their folder alone."""

import io
import os
import stat
import tarfile

import pytest

from common import untar


def archive(name, data=b"", **changes):
    """Returns an open archive with one member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(info, io.BytesIO(data))
    stream.seek(0)
    return tarfile.open(fileobj=stream)


def extract(tar, folder):
    with tar:
        for member in tar:
            untar.extract(tar, member, folder)


def test_a_file_has_its_contents_and_no_rights_of_its_own(tmp_path):
    extract(archive("a/b", b"abc", mode=0o4777, mtime=1), tmp_path / "new")
    path = tmp_path / "new" / "a" / "b"
    assert path.read_bytes() == b"abc"
    assert not stat.S_IMODE(os.stat(path).st_mode) & 0o7111
    assert os.stat(path).st_mtime > 1


def test_a_folder_is_made(tmp_path):
    extract(archive("a/b/", type=tarfile.DIRTYPE, mode=0), tmp_path)
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/tmp/out"])
def test_a_path_that_leads_outside_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"its member '{name}' leads outside"):
        extract(archive(name, b"abc"), tmp_path / "in")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    with pytest.raises(ValueError, match="neither file nor folder"):
        extract(archive("a", type=kind, linkname="/etc"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_is_there_is_not_followed_outside(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads outside"):
        extract(archive("link/out", b"abc"), tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
