"""Handles of models: damaged and hostile archives, stalling servers, the cache."""

from __future__ import annotations

import errno
import io
import pathlib
import re
import shutil
import tarfile
import time
import urllib.error

import pytest

from reuse import handles

URL = "http://hub.invalid/toy/1"


def use(handle):
    with handles.open_model(handle, name="handle"):
        pass


def test_a_handle_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert handles.absolute("a/b") == f"{tmp_path}/a/b"
    assert handles.absolute("/a/b") == "/a/b"
    assert handles.absolute(URL) == URL
    secret = "https://me:secret@example.org:8000/m.tar.gz?token=secret#x"
    assert handles.absolute(secret) == "https://example.org:8000/m.tar.gz"
    archive = "https://example.org/m?tf-hub-format=compressed"
    assert handles.absolute(archive) == archive


def entry(name, **changes):
    info = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (entry("../outside", size=3), "outside"),
        (entry("/tmp/absolute", size=3), "outside"),
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
    with pytest.raises(ValueError, match="a name or attributes of 1099511627776 bytes"):
        use(archive)


def test_a_server_that_lets_one_wait_is_left(tmp_path, monkeypatch):
    class SlowResponse:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read1(self, _):
            time.sleep(0.01)
            return b"."

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: SlowResponse())
    monkeypatch.setattr("reuse.handles._GRACE", 0.2)
    with pytest.raises(ValueError, match="only .* bytes arrived in 0 s"):
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
    with handles.open_model(tmp_path, name="handle") as folder:
        assert folder == tmp_path / "classification" / "10"


def pack(archive, *names):
    with tarfile.open(archive, "w") as tar:
        for name in names:
            tar.addfile(entry(name, size=3), io.BytesIO(b"abc"))
    return archive


def test_of_an_archive_with_several_models_the_choice_is_told(tmp_path):
    names = ("t/b/saved_model.pb", "t/a/saved_model.pbtxt", "t/readme.txt")
    archive = pack(tmp_path / "archive.tar", *names)
    message = (
        f"handle must be a SavedModel (a directory, an archive or a URL), got "
        f"'{archive}': it has several: t/a, t/b."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        use(str(archive))


def test_a_path_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(ValueError, match=r"got '.*/nothing': it does not exist\.$"):
        use(tmp_path / "nothing")


def test_of_a_directory_with_several_models_the_first_is_suggested(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    message = f"it has no saved_model.pb, .pbtxt or .cpb. Did you mean '{tmp_path}/a'?"
    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        use(tmp_path)


@pytest.mark.parametrize("form", ["pb", "pbtxt", "cpb"])
def test_the_only_model_of_an_archive_may_have_any_form(form, tmp_path):
    archive = pack(tmp_path / "archive.tar", f"toy/saved_model.{form}")
    with handles.open_model(archive, name="handle") as folder:
        assert (folder / f"saved_model.{form}").read_bytes() == b"abc"


def test_a_url_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="handle 'http://127.0.0.1:9/m' can't be used"):
        use("http://127.0.0.1:9/m")


# The cache of downloads.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "reuse"


def serve(monkeypatch, *names):
    """Makes every URL serve an archive of these files; returns the requested URLs."""
    data, requested_urls = io.BytesIO(), []
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in names:
            tar.addfile(entry(name, size=3), io.BytesIO(b"abc"))

    def urlopen(request, timeout):
        requested_urls.append(request.full_url)
        return io.BytesIO(data.getvalue())

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return requested_urls


def test_a_url_is_kept_and_its_like_is_another(cache, monkeypatch):
    requested_urls = serve(monkeypatch, "toy/saved_model.pb")
    for _ in range(2):
        folder = handles.download_once(URL, name="handle")
        assert (folder / "saved_model.pb").read_bytes() == b"abc"
    assert requested_urls == [f"{URL}?tf-hub-format=compressed"]
    assert list(cache.iterdir()) == [folder]
    assert handles.download_once(f"{URL}0", name="handle") != folder
    assert len(requested_urls) == 2


def test_what_is_no_model_is_not_kept(cache, monkeypatch):
    serve(monkeypatch, "readme.txt")
    message = (
        f"handle must be a SavedModel (a directory, an archive or a URL), got '{URL}'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        handles.download_once(URL, name="handle")
    assert not list(cache.iterdir())


def test_a_cache_that_can_t_be_written(cache, monkeypatch):
    serve(monkeypatch, "saved_model.pb")
    cache.parent.write_text("no folder")
    with pytest.raises(
        ValueError, match="can't be cached in .*Not a directory.*KERAS_"
    ):
        handles.download_once(URL, name="handle")


FILES = ("saved_model.pb", "variables/variables.index", "assets/classes.txt")


def is_whole(folder):
    return all((folder / name).read_bytes() == b"abc" for name in FILES)


def remove_files(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def remove_all_but_the_graph(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "saved_model.pb":
            path.unlink()


def remove_everything(folder):
    shutil.rmtree(folder)
    folder.mkdir()


CLEANERS = {
    "files": remove_files,
    "everything": remove_everything,
    "all but the graph": remove_all_but_the_graph,
    "the graph": lambda folder: (folder / "saved_model.pb").unlink(),
    "the variables": lambda folder: shutil.rmtree(folder / "variables"),
    "an asset": lambda folder: (folder / "assets" / "classes.txt").unlink(),
    "an end": lambda folder: (folder / "saved_model.pb").write_bytes(b"a"),
    "the list": lambda folder: (folder / ".files.json").unlink(),
    "the list's end": lambda folder: (folder / ".files.json").write_text('{"a'),
}


@pytest.fixture(params=CLEANERS)
def cleaned(cache, monkeypatch, request):
    """Returns the folder of a cached model from which a cleaner removed something."""
    serve(monkeypatch, *FILES)
    folder = handles.download_once(URL, name="handle")
    assert handles.is_cached(URL)
    CLEANERS[request.param](folder)
    return folder


def test_what_a_cleaner_removed_is_downloaded_again(cleaned, cache, monkeypatch):
    requested_urls = serve(monkeypatch, *FILES)
    assert not handles.is_cached(URL)
    for _ in range(2):
        assert handles.download_once(URL, name="handle") == cleaned
    assert is_whole(cleaned)
    assert len(requested_urls) == 1
    assert list(cache.iterdir()) == [cleaned]


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_download_that_fails_leaves_what_is_there(cleaned, cache, monkeypatch):
    before = contents(cache)

    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(ValueError, match=f"^handle '{URL}' can't be used: .*no net"):
        handles.download_once(URL, name="handle")
    assert contents(cache) == before


def test_a_cleaned_cache_that_can_t_be_written(cleaned, cache, monkeypatch):
    before = contents(cache)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(ValueError, match="^handle .* can't be cached in .*Read-only"):
        handles.download_once(URL, name="handle")
    assert contents(cache) == before


def test_a_cache_is_only_read_while_it_is_whole(cache, monkeypatch):
    serve(monkeypatch, *FILES)
    folder = handles.download_once(URL, name="handle")
    monkeypatch.setattr("tempfile.TemporaryDirectory", None)
    assert handles.download_once(URL, name="handle") == folder


def test_a_model_stays_whole_while_a_second_process_completes_it(
    cleaned, cache, monkeypatch
):
    serve(monkeypatch, *FILES)
    extract_model, replace = handles._extract_model, pathlib.Path.replace
    is_first_call, was_cached = iter([True]), []

    def meanwhile(*arguments):
        if next(is_first_call, False):
            handles.download_once(URL, name="handle")
            was_cached.clear()
        return extract_model(*arguments)

    def watched(path, target):
        was_cached.append(handles.is_cached(URL))
        replace(path, target)
        was_cached.append(handles.is_cached(URL))

    monkeypatch.setattr(handles, "_extract_model", meanwhile)
    monkeypatch.setattr(pathlib.Path, "replace", watched)
    assert handles.download_once(URL, name="handle") == cleaned
    assert was_cached == [True] * 2 * (len(FILES) + 1)
    assert is_whole(cleaned)
    assert list(cache.iterdir()) == [cleaned]


def test_an_archive_of_a_cache_is_kept_as_another(cache, monkeypatch):
    requested_urls = serve(monkeypatch, *FILES, ".files.json")
    for _ in range(2):
        handles.download_once(URL, name="handle")
    assert len(requested_urls) == 1
