"""The front page, pages and assets of a hub, and hubs that earlier programs wrote."""

import json
import shutil

import pytest

from exporters import manifest
from publishing import archives, hub, hub_index, hub_site, releasing, verifying
from tests.publishing import publisher
from tests.publishing.conftest import make_export
from tests.publishing.hub_test import (
    HANDLES,
    assert_rejected,
    assert_whole,
    contents,
    flip,
    unchanging,
)

PAGE = "image-model-zoo/models/toy/classification/{}/index.html"


def release(export, folder, pages=None):
    releasing.release(
        export,
        destination=hub.Hub(folder, "image-model-zoo", pages),
        documents=publisher.documents,
        check=publisher.check,
        suite="of the tests",
        dry_run=False,
    )


def facts(folder, version):
    text = (folder / PAGE.format(version)).read_text()
    return json.loads(text[text.index("{") : text.rindex("{'pages'")])


@pytest.fixture
def old_hub(export, tmp_path):
    """Returns a hub as an earlier program wrote it: without pages, format 1."""
    release(export, tmp_path / "old")
    record = json.loads((tmp_path / "old" / "index.json").read_text())
    assert record["format"] == 1
    assert "site" not in record
    assert all("summary" not in entry for entry in record["models"].values())
    return tmp_path / "old"


def test_the_index_has_summaries_and_the_site(hub):
    record = json.loads((hub / "index.json").read_text())
    assert record["format"] == 2
    for handle in HANDLES:
        kind = handle.split("/")[-2]
        assert record["models"][handle]["summary"] == {"title": "toy", "task": kind}
        assert (
            PAGE.format(1).replace("classification", kind)
            in (record["models"][handle]["files"])
        )
    (style,) = hub.glob("assets/*/look.css")
    assert style.read_bytes() == publisher.STYLE.read_bytes()
    assert record["site"].keys() == {"index.html", str(style.relative_to(hub))}
    assert str(sorted(HANDLES)) in (hub / "index.html").read_text()


def test_a_folder_of_assets_is_named_by_its_content(tmp_path):
    pages = publisher.Pages()
    (first,) = hub_site.asset_folders(pages).values()
    changed = tmp_path / "look.css"
    changed.write_text("p { color: red }")
    pages.assets = {"pages": {"look.css": changed}}
    (second,) = hub_site.asset_folders(pages).values()
    assert first != second
    changed.write_bytes(publisher.STYLE.read_bytes())
    assert hub_site.asset_folders(pages) == {"pages": first}


def test_a_page_keeps_the_assets_of_its_publish(hub, tmp_path):
    before = contents(hub)
    pages = publisher.Pages()
    new_style = tmp_path / "look.css"
    new_style.write_text("p { color: red }")
    pages.assets = {"pages": {"look.css": new_style}, "more": {"a/b.js": new_style}}
    release(make_export(tmp_path / "exports", arch="other"), hub, pages)
    assert unchanging(contents(hub), before) == unchanging(before, before)
    assert len(list(hub.glob("assets/*/look.css"))) == 2
    assert len(list(hub.glob("assets/*/a/b.js"))) == 1
    assert_whole(hub)


def test_a_page_knows_the_version_before(hub, tmp_path, publish):
    assert facts(hub, 1)["previous"] is None
    export = make_export(tmp_path / "exports", version=3, content=b"better")
    release(export, hub, publisher.Pages())
    previous = facts(hub, 3)["previous"]
    assert previous["version"] == 1
    assert previous["manifest"]["version"] == 1
    assert previous["report"]["kind"] == "classification"
    assert facts(hub, 3)["other"] == "image-model-zoo/toy/feature_vector/3"


@pytest.mark.parametrize("damage", [flip, lambda path: path.unlink()])
def test_a_damaged_version_before_stops_nothing(hub, tmp_path, damage):
    damage(hub / HANDLES[1])
    (hub / PAGE.format(1)).with_name("conformance.json").write_text("[")
    export = make_export(tmp_path / "exports", version=2, content=b"better")
    release(export, hub, publisher.Pages())
    previous = facts(hub, 2)["previous"]
    assert (previous["version"], previous["report"]) == (1, None)
    findings = verifying.verify(hub).findings
    assert {line.split(":")[0] for line in findings} == {
        HANDLES[1],
        PAGE.format(1).replace("index.html", "conformance.json"),
    }


def test_versions_are_numbers_in_order(tmp_path):
    names = ("2", "9", "10", "x", "011")
    index = hub_index.Index(models=dict.fromkeys(f"me/a/b/{n}" for n in names))
    for version, before in (("2", None), ("10", 9), ("11", 10)):
        found = hub_site.previous_version(tmp_path, index, f"me/a/b/{version}")
        assert (found and found["version"]) == before


def test_a_file_of_an_archive_is_read(hub, export):
    name = str(manifest.MANIFEST)
    content = archives.read_file(hub / HANDLES[1], name)
    assert content == (export / "classification/1" / name).read_bytes()
    assert archives.read_file(hub / HANDLES[1], "none") is None
    assert archives.read_file(hub / "index.json", name) is None


def test_an_old_hub_is_read_and_extended(old_hub, tmp_path):
    assert hub_index.read(old_hub).keys() == set(HANDLES)
    assert_whole(old_hub)
    before = contents(old_hub)
    release(make_export(tmp_path / "more", arch="other"), old_hub, publisher.Pages())
    assert unchanging(contents(old_hub), before) == unchanging(before, before)
    assert "image-model-zoo/toy" in (old_hub / "index.html").read_text()
    assert assert_whole(old_hub).models == 4


def test_publishing_again_gives_an_old_hub_its_front_page(old_hub, export):
    before = contents(old_hub)
    release(export, old_hub, publisher.Pages())
    after = contents(old_hub)
    assert unchanging(after, before) == unchanging(before, before)
    assert str(sorted(HANDLES)) in after["index.html"].decode()
    assert_whole(old_hub)
    release(export, old_hub, publisher.Pages())
    assert contents(old_hub) == after


def test_a_page_of_the_user_is_not_overwritten(old_hub, tmp_path, publish):
    (old_hub / "index.html").write_text("mine")
    before = contents(old_hub)
    done = publish(make_export(tmp_path / "more", arch="other"), f"--hub={old_hub}")
    assert_rejected(done, "index.html exists but is not in the index. Move it away.")
    assert contents(old_hub) == before


@pytest.mark.parametrize("damage", ["stale", "missing", "changed"])
def test_the_next_publish_repairs_the_front_page(hub, export, tmp_path, damage):
    """A killed publish leaves the front page of before, which verify tells apart."""
    stale = (hub / "index.html").read_bytes()
    other = make_export(tmp_path / "more", arch="other")
    release(other, hub, publisher.Pages())
    after = contents(hub)
    if damage == "missing":
        (hub / "index.html").unlink()
    else:
        (hub / "index.html").write_bytes(stale if damage == "stale" else b"<p>")
    verification = verifying.verify(hub)
    assert verification.leftovers == (("index.html",) if damage == "stale" else ())
    assert len(verification.findings) == (0 if damage == "stale" else 1)
    release(other, hub, publisher.Pages())  # already published
    assert contents(hub) == after
    assert_whole(hub)


def test_a_missing_asset_is_written_again(hub, export):
    before = contents(hub)
    next(hub.glob("assets/*/look.css")).unlink()
    assert len(verifying.verify(hub).findings) == 1
    release(export, hub, publisher.Pages())
    assert contents(hub) == before


def test_a_failing_front_page_publishes_nothing(hub, tmp_path):
    class Broken(publisher.Pages):
        def front_page(self, models, *, assets):
            raise ValueError("no page")

    before = contents(hub)
    with pytest.raises(ValueError, match="no page"):
        release(make_export(tmp_path / "more", arch="other"), hub, Broken())
    assert contents(hub) == before
    assert_whole(hub)


def test_an_index_of_a_later_format_is_named(hub, publish):
    path = hub / "index.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(ValueError, match="has the format 3, which a later version"):
        hub_index.read(hub)
    done = publish("--verify", hub)
    assert done.returncode == 1
    assert "index.json has the format 3" in done.stdout


def test_no_publisher_takes_the_folder_of_assets(export, publish, tmp_path):
    done = publish(export, f"--hub={tmp_path / 'hub'}", "--publisher=assets")
    assert_rejected(done, "--publisher can't be 'assets'")
    assert not (tmp_path / "hub").exists()


def test_a_copy_needs_no_other_folder(hub, tmp_path):
    copy = shutil.copytree(hub, tmp_path / "copy" / "below")
    assert_whole(copy)
