"""Archives that are damaged or would write elsewhere, servers that stall; the cache."""

from __future__ import annotations

import io
import tarfile
import time

import pytest

from reuse import sources

URL = "http://hub.invalid/toy/1"


def use(handle):
    with sources.opened(handle, name="handle"):
        pass


def entry(name, **changes):
    info = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (entry("../outside", size=3), "outside"),
        (entry("/tmp/absolute", size=3), "absolute"),
        (entry("link", type=tarfile.SYMTYPE, linkname="/etc"), "neither file nor fold"),
        (entry("hard", type=tarfile.LNKTYPE, linkname="/etc"), "neither file nor fold"),
        (entry("device", type=tarfile.CHRTYPE), "neither file nor folder"),
        (entry("huge", size=1 << 50), "more than 10000 files or 16 GiB"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_archives_that_would_write_elsewhere_are_refused(tmp_path, info, message):
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        tar.fileobj.write(info.tobuf())
        tar.fileobj.write(b"abc".ljust(512, b"\0"))
    outside = tmp_path.parent / "outside"
    with pytest.raises(ValueError, match=f"can't be used: .*{message}"):
        use(archive)
    assert not outside.exists()


def test_an_archive_s_names_are_of_sensible_length(tmp_path):
    archive = tmp_path / "archive.tar"
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    archive.write_bytes(name.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match="it has a name of 1099511627776 bytes"):
        use(archive)


def test_a_server_that_lets_one_wait_is_left(tmp_path, monkeypatch):
    class Drips:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read1(self, _):
            time.sleep(0.01)
            return b"."

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Drips())
    monkeypatch.setattr("reuse.sources._GRACE", 0.2)
    with pytest.raises(ValueError, match="after 0 s, only .* bytes came"):
        use("http://127.0.0.1/toy/1")


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08" + b"\0" * 50])
def test_damaged_archives_are_refused(tmp_path, data):
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="can't be used"):
        use(archive)


def test_of_a_pair_s_folder_the_newest_classifier_is_meant(tmp_path):
    for name in ("feature_vector/11", "classification/2", "classification/10"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").touch()
    with sources.opened(tmp_path, name="handle") as folder:
        assert folder == tmp_path / "classification" / "10"


def test_a_url_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="handle 'http://127.0.0.1:9/m' can't be used"):
        use("http://127.0.0.1:9/m")


# What is kept.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "reuse"


def serve(monkeypatch, name):
    """Every URL gives an archive of one file; returns those that are asked for."""
    data, asked = io.BytesIO(), []
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        tar.addfile(entry(name, size=3), io.BytesIO(b"abc"))

    def urlopen(request, timeout):
        asked.append(request.full_url)
        return io.BytesIO(data.getvalue())

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


def test_a_url_is_kept_and_its_like_is_another(cache, monkeypatch):
    asked = serve(monkeypatch, "toy/saved_model.pb")
    for _ in range(2):
        place = sources.kept(URL, name="handle")
        assert (place / "saved_model.pb").read_bytes() == b"abc"
    assert asked == [f"{URL}?tf-hub-format=compressed"]
    assert list(cache.iterdir()) == [place]
    assert sources.kept(f"{URL}0", name="handle") != place
    assert len(asked) == 2


def test_a_download_that_another_process_finished_first(cache, monkeypatch):
    serve(monkeypatch, "saved_model.pb")
    place = sources.place_of(URL)
    unpack = sources._unpacked

    def meanwhile(*arguments):
        place.mkdir()
        (place / "saved_model.pb").write_bytes(b"first")
        return unpack(*arguments)

    monkeypatch.setattr(sources, "_unpacked", meanwhile)
    assert sources.kept(URL, name="handle") == place
    assert (place / "saved_model.pb").read_bytes() == b"first"
    assert list(cache.iterdir()) == [place]


def test_what_is_no_model_is_not_kept(cache, monkeypatch):
    serve(monkeypatch, "readme.txt")
    message = f"handle must be the directory of a SavedModel, got '{URL}'"
    with pytest.raises(ValueError, match=message):
        sources.kept(URL, name="handle")
    assert not list(cache.iterdir())


def test_a_cache_that_can_t_be_written(cache, monkeypatch):
    serve(monkeypatch, "saved_model.pb")
    cache.parent.write_text("no folder")
    with pytest.raises(ValueError, match="can't be kept in .*Not a directory.*KERAS_H"):
        sources.kept(URL, name="handle")
