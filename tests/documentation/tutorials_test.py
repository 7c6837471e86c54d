"""The notebooks of docs/tutorials have portable outputs, and they run."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from documentation import page_data, tutorials

NAMES = [
    "classify_photographs",
    "retrain_a_classifier",
    "fine_tune",
    "look_inside_a_transformer",
    "search_photographs",
    "serve_with_signatures",
    "publish_your_own",
]
# Text that depends on the machine or the time.
FOREIGN = re.compile(
    r"/(?:root|home|tmp|work|var|Users|usr)/|127\.0\.0\.1:\d|\d{4}-\d\d-\d\d"
    r"| at 0x[0-9a-f]+|Warning:|WARNING"
)


def notebook(name):
    return json.loads(tutorials.paths()[name].read_text(encoding="utf-8"))


def outputs(name):
    return [output for cell in notebook(name)["cells"] for output in cell_outputs(cell)]


def cell_outputs(cell):
    return cell.get("outputs", [])


def printed(output):
    """Returns the text of an output; empty for a picture."""
    lines = output.get("text", []) + output.get("data", {}).get("text/plain", [])
    return "".join(lines)


def test_each_is_on_the_site_and_in_the_readme():
    assert sorted(tutorials.paths()) == sorted(NAMES)
    index = (page_data.ROOT / "docs" / "index.md").read_text()
    listed = re.findall(r"^tutorials/(\w+)$", index, re.MULTILINE)
    assert listed == re.findall(r"\]\(tutorials/(\w+)\.ipynb\)", index) == NAMES
    readme = (page_data.ROOT / "README.md").read_text()
    linked = re.findall(r"\(docs/tutorials/(\w+)\.ipynb\)", readme)
    assert list(dict.fromkeys(linked)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_instructions(name):
    first, *cells = notebook(name)["cells"]
    text = "".join(first["source"])
    assert first["cell_type"] == "markdown"
    assert text.startswith("# ")
    assert "`tools/setup tutorials`" in text
    assert f"`tools/tutorials {name}`" in text
    cell_types = [cell["cell_type"] for cell in (first, *cells)]
    assert cell_types.count("markdown") > 5


@pytest.mark.parametrize("name", NAMES)
def test_outputs_do_not_depend_on_the_machine(name):
    content = notebook(name)
    assert set(content["metadata"]) == {
        "kernelspec",
        "language_info",
        tutorials.RUN_HASH_KEY,
    }
    for cell in content["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("execution_count") is None
        for output in cell_outputs(cell):
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
            assert not FOREIGN.search(printed(output)), printed(output)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_printed_outputs_and_a_picture(name):
    all_outputs = outputs(name)
    assert sum(bool(output.get("text")) for output in all_outputs) >= 3
    assert any("image/png" in output.get("data", {}) for output in all_outputs)


def test_a_changed_cell_makes_a_notebook_stale(tmp_path, monkeypatch):
    assert tutorials.stale() == []
    folder = tmp_path / "tutorials"
    shutil.copytree(tutorials.FOLDER, folder)
    monkeypatch.setattr(tutorials, "FOLDER", folder)
    assert tutorials.stale() == []
    path = folder / "fine_tune.ipynb"
    path.write_text(path.read_text().replace("momentum", "momentun", 1))
    after_text_change = tutorials.stale()
    path.write_text(path.read_text().replace("import keras", "import  keras"))
    assert (after_text_change, tutorials.stale()) == ([], [path])
    for text in (path.read_text().replace("98.0%", "99.9%"), "{}", "no JSON"):
        path.write_text(text)
        assert tutorials.stale() == [path]


@pytest.mark.parametrize("text", ["{}", "no JSON"])
def test_an_invalid_notebook_is_a_one_line_error(tmp_path, text):
    pytest.importorskip("nbformat", reason="tools/setup tutorials")
    path = tmp_path / "toy.ipynb"
    path.write_text(text)
    with pytest.raises(
        tutorials.TutorialError, match=r"^toy\.ipynb is not a notebook\.$"
    ):
        tutorials.run(path)


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes code cells to a notebook and returns its path."""
    nbformat = pytest.importorskip("nbformat", reason="tools/setup tutorials")

    def written(*code):
        cells = [nbformat.v4.new_code_cell(source) for source in code]
        path = tmp_path / "toy.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return written


def test_two_runs_give_the_same_bytes(write):
    path = write("import sys\nprint(6 * 7)", "print('a', file=sys.stderr)", "6 * 9")
    first = tutorials.run(path)
    path.write_text(first)
    assert tutorials.run(path) == first
    one, two, three = json.loads(first)["cells"]
    assert one["outputs"][0]["text"] == ["42\n"]
    assert two["outputs"] == []
    assert three["outputs"][0]["data"]["text/plain"] == ["54"]


@pytest.mark.parametrize("code", ["1 / 0", "%%bash\nexit 3"])
def test_a_failing_cell_is_an_error(write, code):
    path = write("1", code)
    before = path.read_text()
    with pytest.raises(tutorials.TutorialError, match="toy.ipynb: ") as error:
        tutorials.run(path)
    assert code.splitlines()[-1].removeprefix("exit ") in str(error.value)
    assert path.read_text() == before


def test_an_unknown_tutorial_is_a_one_line_error(tool):
    done = tool("tutorials", "fine_tuning")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Unknown tutorial 'fine_tuning'. It must be one of cl" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(tool, tmp_path, name):
    done = tool("tutorials", name, f"--output={tmp_path}", timeout=590)
    assert done.returncode == 0, done.stderr
    rerun = json.loads((tmp_path / f"{name}.ipynb").read_text())
    pictures = [
        [sum("image/png" in o.get("data", {}) for o in cell_outputs(c)) for c in cells]
        for cells in (rerun["cells"], notebook(name)["cells"])
    ]
    assert pictures[0] == pictures[1]
