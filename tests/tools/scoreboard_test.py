"""The models of the scoreboard, and the tool that runs the suite on them."""

import html
import importlib.util
import json
import pathlib

import pytest

from benchmarks import scoreboard_models
from conformance import clauses

ROOT = pathlib.Path(__file__).resolve().parents[2]


FAST = ("tf_module", "tf1_hub")
# Exactly the clauses that each model fails. Those of group C apply to classifiers only.
FAILED = {
    "this_project": set(),
    "keras_export": {"R02", "C03", "S01", "S02"},
    "keras_default": {"R02", "C02", "C03", "S01", "S02"},
    "keras_cv": {"R02", "C03", "S01", "S02"},
    "tf_keras": {"S01", "S02"},
    "tf_module": {"R04", "S02"},
    "tf1_hub": set(),
}


def run(tool, output, *arguments) -> list[dict]:
    done = tool("scoreboard", f"--output={output}", "--level=quick", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{output}.json", f"{output}.html"]
    record = json.loads(pathlib.Path(f"{output}.json").read_text("utf-8"))
    page = pathlib.Path(f"{output}.html").read_text("utf-8")
    for column in record["columns"]:
        assert column["title"] in page
        assert column["code"] in html.unescape(page)
    return record["columns"]


def failed(column) -> set[str]:
    return {c["id"] for c in column["report"]["clauses"] if c["status"] == "fail"}


def expected(name, column) -> set[str]:
    is_classifier = column["kind"] == "classification"
    return {clause for clause in FAILED[name] if clause[0] != "C" or is_classifier}


@pytest.mark.slow
def test_cheap_models_are_made_and_judged(tool, tmp_path):
    columns = run(tool, tmp_path / "of" / "some", *FAST)
    assert [column["name"] for column in columns] == [
        "tf_module_feature_vector",
        "tf1_hub_feature_vector",
    ]
    for name, column in zip(FAST, columns, strict=True):
        assert failed(column) == FAILED[name]
        report = column["report"]
        assert report["path"] == f"{name}/feature_vector"
        assert report["seconds"] == 0
        assert report["measured"] is None
        assert all(clause["seconds"] == 0 for clause in report["clauses"])
    text = json.dumps(columns)
    assert not [folder for folder in ("/tmp/", str(ROOT)) if folder in text]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in scoreboard_models.MAKERS if n not in FAST])
def test_a_model_is_made_and_judged(tool, tmp_path, name):
    columns = run(tool, tmp_path / name, name)
    maker = scoreboard_models.MAKERS[name]
    assert [column["kind"] for column in columns] == list(maker.kinds)
    for column in columns:
        if importlib.util.find_spec(name) or name != "keras_cv":
            assert failed(column) == expected(name, column)
        else:
            assert column["problem"] == "keras_cv was not installed"
            assert column["report"] is None


def test_what_makes_a_model_is_shown_as_it_stands():
    assert scoreboard_models.MAKERS["tf_keras"].code == (
        "import tf_keras\n\n"
        "model = tf_keras.applications.MobileNetV2(\n"
        '    (None, None, 3), alpha=0.35, include_top=False, pooling="avg", '
        "weights=None\n)\n"
        'model.save(folder / "feature_vector", save_format="tf")'
    )
    for maker in scoreboard_models.MAKERS.values():
        assert "folder" in maker.code
        assert maker.kinds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import not_there.at_all", "not_there was not installed"),
        pytest.param(
            *("raise ValueError('no\\nsuch thing')", "ValueError: no such thing"),
            marks=pytest.mark.slow,
        ),
        pytest.param("pass", "it wrote no feature_vector", marks=pytest.mark.slow),
    ],
)
def test_what_can_not_be_made_says_why(tmp_path, monkeypatch, source, problem):
    text = pathlib.Path(scoreboard_models.__file__).read_text("utf-8")
    start = text.index("    import tensorflow", text.index("def tf_module"))
    end = text.index("def tf1_hub")
    changed = tmp_path / "changed.py"
    changed.write_text(f"{text[:start]}    {source}\n\n\n{text[end:]}")
    monkeypatch.setattr(scoreboard_models, "__file__", str(changed))
    with pytest.raises(scoreboard_models.NotMadeError, match=f"^{problem}$"):
        scoreboard_models.make("tf_module", tmp_path)


def test_the_published_scoreboard_is_of_these_models():
    record = json.loads((ROOT / "docs" / "scoreboard.json").read_text("utf-8"))
    names = [
        f"{name}_{k}" for name, m in scoreboard_models.MAKERS.items() for k in m.kinds
    ]
    assert [column["name"] for column in record["columns"]] == names
    for column in record["columns"]:
        name = column["name"].removesuffix(f"_{column['kind']}")
        assert column["code"] == scoreboard_models.MAKERS[name].code
        if column["report"]:
            assert failed(column) == expected(name, column)
            model_format = clauses.TF1_HUB if name == "tf1_hub" else clauses.SAVED_MODEL
            assert [c["id"] for c in column["report"]["clauses"]] == [
                c.id
                for c in clauses.CLAUSES
                if model_format in c.formats and c.id[0] != "D"
            ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tfmodule"], "Unknown model 'tfmodule'. Did you mean 'tf_module'?"),
        (["--packages=nowhere"], "--packages must be a folder, got 'nowhere'"),
    ],
)
def test_wrong_usage_is_one_line(tool, arguments, message):
    done = tool("scoreboard", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
