"""A hub's folder stays consistent even when publishers fail or run concurrently."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from exporters import manifest
from publishing import archives, hub_index, pairs, verifying
from tests.publishing.conftest import contents, make_export

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HANDLES = [f"image-model-zoo/toy/{kind}/1" for kind in manifest.KINDS]


def unchanging(files, names):
    """Returns the files with these names, but those that each publish rewrites."""
    return {
        name: files[name] for name in names if name not in ("index.json", "index.html")
    }


def assert_rejected(done, message):
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("publish: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def assert_whole(folder):
    """Asserts that every published model has all its files; returns the result."""
    verification = verifying.verify(folder)
    assert verification.findings == ()
    for handle, model in hub_index.read(folder).items():
        with tarfile.open(folder / handle) as archive:
            names = archive.getnames()
        assert "saved_model.pb" in names, handle
        assert handle in model["files"]
    return verification


def test_a_pair_is_published_by_its_handles(export, publish, tmp_path):
    done = publish(export, f"--hub={tmp_path / 'hub'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    models = "image-model-zoo/models/toy"
    documents = [
        f"{models}/{kind}/1{name}"
        for kind in manifest.KINDS
        for name in (
            ".md",
            "/conformance.json",
            "/huggingface/README.md",
            "/index.html",
            "/kaggle/model-instance-metadata.json",
        )
    ]
    (style,) = (tmp_path / "hub").glob("assets/*/look.css")
    site = ["index.html", str(style.relative_to(tmp_path / "hub"))]
    assert sorted(contents(tmp_path / "hub")) == sorted(
        [*HANDLES, *documents, *site, "index.json"]
    )
    assert assert_whole(tmp_path / "hub").files == 14


def test_the_report_names_no_folder_of_this_machine(hub):
    path = hub / "image-model-zoo/models/toy/classification/1/conformance.json"
    report = json.loads(path.read_text())
    assert report["path"] == "toy/classification/1"
    assert report["clauses"][0]["message"] == "R01 toy/classification/1"


def test_the_archive_is_the_model(hub, export, tmp_path):
    with tarfile.open(hub / HANDLES[1]) as archive:
        for member in archive:
            assert not member.name.startswith((".", "/"))
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert (member.uname, member.gname) == ("", "")
            assert member.isfile() or member.isdir()
        names = archive.getnames()
        archive.extractall(tmp_path / "out")
    assert names == sorted(names)
    assert contents(tmp_path / "out") == contents(export / "classification/1")


def test_equal_models_give_equal_archives(export, tmp_path):
    model = pairs.read(export, 1).models[0]
    archives.write(model.files(), tmp_path / "first")
    copy = shutil.copytree(model.folder, tmp_path / "elsewhere" / "copy")
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    files = {str(path.relative_to(copy)): path for path in copy.rglob("*.*")}
    files = dict(sorted(files.items(), reverse=True))
    plain = {name: path for name, path in files.items() if path.is_file()}
    archives.write(plain, tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("make", ["hidden", "link", "pipe"])
def test_a_file_that_no_archive_may_hold_is_rejected(export, make):
    model = pairs.read(export, 1).models[0]
    if make == "hidden":
        (model.folder / "variables" / ".hidden").touch()
    elif make == "link":
        (model.folder / "variables" / "link").symlink_to("/etc/passwd")
    else:
        os.mkfifo(model.folder / "variables" / "pipe")
    message = "can't begin with a dot" if make == "hidden" else "neither a file nor"
    with pytest.raises(ValueError, match=message):
        model.files()


def test_the_same_bytes_are_not_published_again(hub, export, publish):
    before = contents(hub)
    done = publish(export, f"--hub={hub}")
    assert done.returncode == 0
    assert done.stdout.splitlines() == HANDLES
    assert "is already published, nothing to do" in done.stderr
    assert contents(hub) == before


def test_different_bytes_of_a_version_are_rejected(hub, tmp_path, publish):
    before = contents(hub)
    other = make_export(tmp_path / "others", content=b"other weights")
    done = publish(other, f"--hub={hub}")
    assert_rejected(
        done, "is already published with different bytes, and a published version"
    )
    assert contents(hub) == before


def test_another_version_is_added_to_the_first(hub, export, tmp_path, publish):
    before = contents(hub)
    make_export(tmp_path / "exports", version=2, content=b"better")
    done = publish(export, f"--hub={hub}")
    assert done.stdout.splitlines() == [*HANDLES, *(h[:-1] + "2" for h in HANDLES)]
    assert assert_whole(hub).models == 4
    after = contents(hub)
    assert unchanging(after, before) == unchanging(before, before)


def test_a_pair_that_fails_a_clause_is_not_published(export, publish, tmp_path):
    done = publish(export, f"--hub={tmp_path / 'hub'}", FAILS="F03")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "toy/1 feature_vector: F03 toy/feature_vector/1" in done.stderr
    assert not (tmp_path / "hub").exists()


def test_a_failing_pair_does_not_stop_the_others(export, publish, tmp_path):
    """The stored report of the failing pair is used again."""
    assert publish(export, f"--hub={tmp_path / 'hub'}", FAILS="F03").returncode == 1
    good = make_export(tmp_path / "exports", arch="good")
    done = publish(export, good, f"--hub={tmp_path / 'hub'}")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [h.replace("toy", "good") for h in HANDLES]
    assert "read conformance-1.json" in done.stderr


def test_a_report_of_different_bytes_is_ignored(export, publish, tmp_path):
    assert publish(export, f"--hub={tmp_path / 'hub'}").returncode == 0
    shutil.copy(export / "conformance-1.json", tmp_path)
    other = make_export(tmp_path / "others", content=b"other weights")
    shutil.copy(tmp_path / "conformance-1.json", other)
    done = publish(other, f"--hub={tmp_path / 'hub2'}", FAILS="F03")
    assert done.returncode == 1
    assert "check toy/1, all clauses" in done.stderr


def test_random_weights_are_published_with_a_warning(tmp_path, publish):
    export = make_export(tmp_path, weights="random")
    done = publish(export, f"--hub={tmp_path / 'hub'}")
    assert done.returncode == 0
    assert done.stderr.count("RANDOM WEIGHTS") == 2
    models = hub_index.read(tmp_path / "hub")
    assert {model["weights"] for model in models.values()} == {"random"}


def test_a_dry_run_lists_files_and_sends_nothing(export, publish, tmp_path):
    hub = tmp_path / "hub"
    dry = publish(export, f"--hub={hub}", "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert not hub.exists()
    assert publish(export, f"--hub={hub}").returncode == 0
    sent = {
        f"{sums['sha256']}  {sums['size']:>12}  {path}"
        for path, sums in hub_index.read_index(hub).files.items()
        if path != "index.html"
    }
    assert set(dry.stdout.splitlines()) == sent
    assert publish(export, f"--hub={hub}", "--dry_run").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "EXPORT is missing"),
        (["{export}"], "--hub is missing"),
        (["{export}/..", "--hub={tmp}/hub"], "Did you mean '{export}'?"),
        (["{export}/classification/1", "--hub={tmp}/hub"], "Did you mean '{export}'?"),
        (["{tmp}/none", "--hub={tmp}/hub"], "EXPORT must be a folder OUT/ARCH"),
        (["{export}", "--hub={tmp}/hub", "--publisher=Me"], "got 'Me'"),
        (["{export}", "--hub={tmp}/hub", "--publisher=.."], "got '..'"),
        (["{export}", "--hub=hf:../x"], "got '../x'"),
        (["{export}", "--hub=kaggle:"], "requires an account name"),
        (["--verify={tmp}"], "is not a hub: it has no index.json"),
        (
            ["--verify={tmp}", "--hub={tmp}/hub"],
            "--verify can't be combined with --hub",
        ),
    ],
)
def test_wrong_usage_is_a_one_line_error(export, publish, tmp_path, arguments, message):
    names = {"export": export, "tmp": tmp_path}
    done = publish(*(argument.format(**names) for argument in arguments))
    assert_rejected(done, message.format(**names))
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("hub", "package"), [("kaggle:me", "kagglehub"), ("hf:me", "huggingface_hub")]
)
def test_a_missing_extra_is_named(export, publish, tmp_path, hub, package):
    (tmp_path / f"{package}.py").write_text("raise ImportError('no such package')")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = publish(export, f"--hub={hub}", PYTHONPATH=path)
    assert_rejected(done, f"needs {package}: run tools/setup publish")


@pytest.mark.parametrize("text", ["{}", "[]", '{"models": []}', "no JSON"])
def test_an_invalid_index_is_reported(publish, tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    done = publish(f"--verify={tmp_path}")
    assert done.returncode == 1, done.stderr
    assert "index.json is damaged" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("damage", ["weights", "manifest", "pair"])
def test_a_changed_export_is_rejected(export, publish, tmp_path, damage):
    path = {
        "weights": export / "classification/1/variables/variables.data",
        "manifest": export / "classification/1/assets.extra/manifest.json",
        "pair": export / "pair-1.json",
    }[damage]
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    done = publish(export, f"--hub={tmp_path / 'hub'}")
    message = "is damaged: export" if damage == "pair" else "changed since"
    assert_rejected(done, message)


def test_other_formats_do_not_take_the_handles_of_a_pair(publish, tmp_path):
    export = make_export(tmp_path, model_format="serving")
    done = publish(export, f"--hub={tmp_path / 'hub'}")
    assert_rejected(done, "has the format serving: a handle is that of a pair of the")
    assert not (tmp_path / "hub").exists()


def test_an_unknown_file_is_not_overwritten(export, publish, tmp_path):
    precious = tmp_path / "hub" / HANDLES[1]
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    done = publish(export, f"--hub={tmp_path / 'hub'}")
    assert_rejected(done, "is not a hub: it has no models, but image-model-zoo")
    assert contents(tmp_path / "hub") == {HANDLES[1]: b"mine"}


def test_an_unknown_file_in_a_hub_is_not_overwritten(hub, tmp_path, publish):
    other = make_export(tmp_path / "others", arch="other")
    precious = hub / "image-model-zoo/other/classification/1"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    before = contents(hub)
    assert_rejected(publish(other, f"--hub={hub}"), "exists but is not in the index")
    assert contents(hub) == before


def test_an_export_is_no_hub(export, publish):
    before = contents(export)
    for hub in (export, export.parent):
        assert_rejected(publish(export, f"--hub={hub}"), "is not a hub: it has no")
    assert contents(export) == before


def test_published_files_that_are_missing_or_changed_are_told(hub, export, publish):
    path = hub / HANDLES[0]
    data = path.read_bytes()
    for change, problem in (
        (path.unlink, "is missing"),
        (lambda: path.write_bytes(data[:-1]), f"has {len(data) - 1} bytes"),
        (lambda: path.write_bytes(data[:-1] + b"x"), "was changed: SHA-256"),
    ):
        change()
        done = publish(export, f"--hub={hub}")
        assert_rejected(done, f"was published, but {HANDLES[0]} {problem}")
    path.write_bytes(data)
    assert "nothing to do" in publish(export, f"--hub={hub}").stderr


def test_an_index_of_any_size_or_number_is_damaged(hub, tmp_path, publish):
    index = hub / "index.json"
    other = make_export(tmp_path / "others", arch="other")
    index.write_text("9" * 100_000)
    assert_rejected(publish(other, f"--hub={hub}"), "index.json is damaged: it is not")
    with index.open("ab") as file:
        file.truncate(3 << 30)  # takes no room on the disk
    assert_rejected(publish(other, f"--hub={hub}"), "is damaged: it has more than")


def test_a_damaged_index_is_not_overwritten(hub, tmp_path, publish):
    data = (hub / "index.json").read_bytes().replace(b'"toy"', b'"tox"', 1)
    (hub / "index.json").write_bytes(data)
    other = make_export(tmp_path / "others", arch="other")
    assert_rejected(publish(other, f"--hub={hub}"), "index.json is damaged")
    assert (hub / "index.json").read_bytes() == data


KILLED_WHILE_PLACING = """
import os, pathlib, runpy, signal, sys
from foundation import atomic
move, remaining = atomic.move_into_place, [int(sys.argv.pop(1))]
def move_or_die(source, target):
    inside = "hub" in pathlib.Path(target).parts
    if inside and not remaining[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    remaining[0] -= inside
    move(source, target)
atomic.move_into_place = move_or_die
sys.argv[0] = "publisher.py"
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
PUBLISHER = ROOT / "tests" / "publishing" / "publisher.py"
PLACED = 15  # the clean-up list, twelve files, the index, then the front page


@pytest.mark.slow_except("1", "13", "14")
@pytest.mark.parametrize("placed", [0, 1, 2, 7, 12, 13, 14, 15])
def test_killed_between_any_two_files(export, publish, tmp_path, placed):
    """Published models stay unchanged; the new pair is published whole or not."""
    hub = tmp_path / "hub"
    first = make_export(tmp_path / "exports", arch="first")
    assert publish(first, f"--hub={hub}").returncode == 0
    before = contents(hub)
    arguments = [placed, PUBLISHER, export, f"--hub={hub}"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_PLACING, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    is_whole, is_published = placed == PLACED, placed >= PLACED - 1
    assert killed.returncode == (0 if is_whole else -signal.SIGKILL), killed.stderr
    verification = assert_whole(hub)
    assert verification.models == (4 if is_published else 2)
    after = contents(hub)
    published = hub_index.read_index(hub).files
    assert unchanging(after, before) == unchanging(before, before)
    is_stale = is_published and not is_whole
    assert ("index.html" in verification.leftovers) == is_stale
    assert after.keys() - published.keys() - {"index.json"} == {
        *verification.leftovers
    } - {"index.html"}
    assert bool(verification.leftovers) != is_whole
    done = publish(export, f"--hub={hub}")
    assert done.stdout.splitlines() == HANDLES
    assert assert_whole(hub).leftovers == ()
    assert (
        hub_index.read_index(hub).files.keys() | {"index.json"} == contents(hub).keys()
    )


def test_the_next_publish_removes_leftovers(export, publish, tmp_path):
    """The next publish may be for another pair."""
    hub = tmp_path / "hub"
    arguments = [5, PUBLISHER, export, f"--hub={hub}"]
    command = [sys.executable, "-c", KILLED_WHILE_PLACING, *map(str, arguments)]
    subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60)
    assert (hub / HANDLES[0]).exists()
    other = make_export(tmp_path / "exports", arch="other")
    assert publish(other, f"--hub={hub}").returncode == 0
    assert not (hub / "image-model-zoo/toy").exists()
    assert assert_whole(hub).models == 2
    assert not list(hub.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random_moments(start, publish, tmp_path, seed):
    hub, draw = tmp_path / "hub", random.Random(seed)
    exports = [make_export(tmp_path / "exports", arch=f"arch{n}") for n in range(6)]
    start_time = time.monotonic()
    assert publish(exports[0], f"--hub={hub}").returncode == 0
    duration = time.monotonic() - start_time
    for export in exports:
        process = start(export, f"--hub={hub}")
        time.sleep(draw.uniform(0.3, 1) * duration)
        process.kill()
        process.wait()
        assert_whole(hub)
    done = publish(*exports, f"--hub={hub}")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12
    assert assert_whole(hub).leftovers == ()
    assert assert_whole(hub).models == 12


def test_ctrl_c_leaves_no_files(start, tmp_path):
    export = make_export(tmp_path / "exports", content=os.urandom(4000))
    process = start(export, f"--hub={tmp_path / 'hub'}")
    for line in process.stderr:
        if "publish toy/1" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    if process.returncode == 0 or (tmp_path / "hub").exists():
        # The signal came after the index was replaced.
        verification = assert_whole(tmp_path / "hub")
        assert (verification.models, verification.leftovers) == (2, ())


def test_concurrent_publishers_lose_nothing(start, tmp_path):
    exports = [make_export(tmp_path / "exports", arch=f"arch{n}") for n in range(4)]
    hub = f"--hub={tmp_path / 'hub'}"
    processes = [start(export, hub) for export in (*exports, exports[0])]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, outputs
    assert all(len(out.splitlines()) == 2 for out, _ in outputs)
    assert assert_whole(tmp_path / "hub").models == 8


def test_verify_prints_a_summary(hub, publish):
    done = publish("--verify", hub)
    assert done.returncode == 0
    summary, note = done.stdout.splitlines()
    assert re.fullmatch(r"2 models, 14 files, \d+ bytes: as published", summary)
    assert note == "not signed: whoever can write to the hub can change all of it"


ARCHIVE = HANDLES[1]
PAGE = "image-model-zoo/models/toy/feature_vector/1/index.html"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


TAMPERINGS = {
    "bit": (lambda hub: flip(hub / ARCHIVE), f"{ARCHIVE}: was changed"),
    "missing": (lambda hub: (hub / ARCHIVE).unlink(), f"{ARCHIVE}: is missing"),
    "page": (
        lambda hub: (hub / PAGE).write_text("<script>"),
        f"{PAGE}: has 8 bytes, was published with",
    ),
    "extra": (
        lambda hub: (hub / "image-model-zoo/toy/extra").touch(),
        "image-model-zoo/toy/extra: is not in the index",
    ),
    "hidden": (lambda hub: (hub / ".x").touch(), ".x: is not in the index"),
    "linked": (
        lambda hub: (
            (hub / PAGE).rename(hub.parent / "p"),
            (hub / PAGE).symlink_to("p"),
        ),
        f"{PAGE}: is not a regular file",
    ),
    "front page": (
        lambda hub: (hub / "index.html").write_text("<script>"),
        "index.html: has 8 bytes, was published with",
    ),
    "no front page": (
        lambda hub: (hub / "index.html").unlink(),
        "index.html: is missing",
    ),
    "style": (
        lambda hub: flip(next(hub.glob("assets/*/look.css"))),
        "/look.css: was changed",
    ),
    "folder": (
        lambda hub: (hub / "elsewhere").symlink_to("/etc"),
        "elsewhere: is not in the index",
    ),
    "index": (lambda hub: flip(hub / "index.json"), "index.json is damaged"),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_verify_names_the_tampered_file(hub, publish, how):
    tamper, message = TAMPERINGS[how]
    tamper(hub)
    done = publish("--verify", hub)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert message in line


def test_verify_notices_any_bit_of_any_file(hub):
    draw = random.Random(0)
    for path in sorted(p for p in hub.rglob("*") if p.is_file()):
        data = path.read_bytes()
        for _ in range(3):
            index = draw.randrange(len(data))
            bit = 1 << draw.randrange(8)
            flipped = bytes([data[index] ^ bit])
            path.write_bytes(data[:index] + flipped + data[index + 1 :])
            (finding,) = verifying.verify(hub).findings
            assert path.name in finding
        path.write_bytes(data)
    assert verifying.verify(hub).findings == ()
