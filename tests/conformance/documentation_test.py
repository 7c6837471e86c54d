"""Group D: a correct page passes, and one wrong word or number fails its clause."""

from __future__ import annotations

import json
import re

import pytest

from conformance import documents, report, statements, suite
from tests.conformance import in_process, models

CLAUSES = ["D01", "D02", "D03", "D04", "D05"]
SIDE = 64


class Tunable(models.Classification):
    """Has endpoints, and a manifest that documents its ranges."""

    def flags(self):
        return {"training": (False, True), "return_endpoints": (False, True)}

    def endpoints(self, output):
        return {"default": output, "Toy/logits": output}

    def save(self, folder):
        path = super().save(folder)
        record = {
            "input": {"height_range": [32, 128], "width_range": [32, 128]},
            "hyperparameters": {},
            "weights": {"name": "random"},
            "license": "MIT",
        }
        (path / "assets.extra").mkdir()
        (path / "assets.extra" / "manifest.json").write_text(json.dumps(record))
        return path


# 5·5·3·8 kernel values at 16 × 16, 3·3·8·12 at 8 × 8, 12·10 in the head.
MULTIPLY_ADDS = 16 * 16 * 600 + 8 * 8 * 864 + 120
# Two kernels, scale, offset, mean and variance of 8 channels, the head.
PARAMS = 600 + 864 + 4 * 8 + 130

BLOCK = {
    "kind": "classification",
    "input": {
        "batch": [1, None],
        "height_range": [32, 128],
        "width_range": [32, 128],
        "image_size": SIDE,
    },
    "output": {"num_classes": 10},
    "class_index": {"file": "assets/class_index.tsv", "scores": "softmax"},
    "fine_tunable": True,
    "hyperparameters": {},
    "endpoints": {"Toy/logits": [10]},
    "params": {"all": PARAMS, "trainable": PARAMS - 16},
    "multiply_adds": MULTIPLY_ADDS,
    "paper": "arXiv:0000.00000",
    "data": "none",
    "license": "MIT",
    "weights": "random",
}
ROWS = f"""\
| | Classifier |
|---|---|
| Batch | any, from 1 |
| Height | 32 to 128 px |
| Width | 32 to 128 px |
| Image size | {SIDE} px |
| num_classes | 10 |
| Scores | logits, for a softmax |
| Class index | `assets/class_index.tsv` |
| Parameters | {PARAMS:,} |
| Trainable parameters | {PARAMS - 16:,} |
| Multiply-adds | {MULTIPLY_ADDS:,} |
| Size of the values | {4 * PARAMS:,} bytes |
| Fine-tunable | yes |
| Paper | [arXiv:0000.00000](https://arxiv.org/abs/0000.00000) |
| Data | none |
| Licence | MIT |
| Weights | random |

> Others say 3,000,000 multiply-adds.

| Endpoint | Shape |
|---|---|
| `Toy/logits` | [batch, 10] |
"""
PAGE = f"# Toy\n\nRANDOM weights.\n\n{ROWS}"
PAGE_FOR_BOTH = f"{PAGE}\n<!-- saved-model {json.dumps(BLOCK)} -->\n"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Tunable().save(tmp_path_factory.mktemp("toy"))


def check_page(model, page: str, folder, *, suffix: str = ".md") -> report.Report:
    path = folder / f"page{suffix}"
    path.write_text(page, encoding="utf-8")
    return in_process.check(
        model,
        kind="classification",
        clauses=CLAUSES,
        page=statements.read(path),
    )


def failures(suite_report: report.Report) -> list[str]:
    return [result.id for result in suite_report.failed]


def as_html(page: str) -> str:
    """Converts a Markdown page to HTML, as a page generator would write it."""
    lines, block = [], ""
    for line in page.splitlines():
        if line.startswith("<!--"):
            block = line.removeprefix("<!-- saved-model ").removesuffix(" -->")
        elif line.startswith("|---"):
            continue
        elif line.startswith("|"):
            cells = re.split(r"\|", line.strip("|"))
            lines.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
        elif line.startswith(">"):
            lines.append(f"</table><blockquote>{line}</blockquote><table>")
        else:
            lines.append(f"<p>{line}</p>")
    body = "\n".join(lines).replace("`", "").replace("<p></p>", "</table><table>")
    script = f'<script type="application/json" id="saved-model">{block}</script>'
    return f"<title>9,999</title><table>{body}</table>{script if block else ''}"


@pytest.mark.parametrize("page", [PAGE, PAGE_FOR_BOTH], ids=["text", "block"])
def test_a_correct_page_passes(toy, page, tmp_path):
    suite_report = check_page(toy, page, tmp_path)
    assert [r.status for r in suite_report.clauses] == ["pass"] * 5, (
        suite_report.to_text()
    )
    assert suite_report.clauses[-1].message == "6 numbers recomputed"


@pytest.mark.parametrize("page", [PAGE, PAGE_FOR_BOTH], ids=["text", "block"])
def test_a_correct_page_in_html_passes(toy, page, tmp_path):
    suite_report = check_page(toy, as_html(page), tmp_path, suffix=".html")
    assert [r.status for r in suite_report.clauses] == ["pass"] * 5, (
        suite_report.to_text()
    )


# Text to replace, replacement, clauses that fail, and message of the first failure.
WRONG = [
    ("| Height | 32 to 128", "| Height | 16 to 128", ["D01"], "height range, 32"),
    ("| Width | 32 to 128", "| Width | 32 to 256", ["D01"], "width range, 32"),
    ("| Batch | any, from 1 |", "| Batch | – |", ["D01"], "a table row 'batch'"),
    ("| num_classes | 10 |", "| num_classes | 11 |", ["D05"], "num_classes 10"),
    ("| num_classes | 10 |\n", "", ["D02"], "a table row 'num_classes'"),
    ("class_index.tsv", "labels.txt", ["D02"], "class_index.tsv"),
    (
        "| Fine-tunable | yes |",
        "| Fine-tunable | no |",
        ["D03"],
        "'fine-tunable' to",
    ),
    ("| Data | none |\n", "", ["D04"], "a table row 'data'"),
    ("| Licence | MIT |", "| Licence | GPL |", ["D04"], "the licence MIT"),
    ("| Weights | random |", "| Weights | imagenet |", ["D04"], "the weights random"),
    ("RANDOM weights.", "Good weights.", ["D04"], "weights are random"),
    (f"rs | {PARAMS:,}", f"rs | {PARAMS + 1:,}", ["D05"], f"parameters {PARAMS}"),
    (f"{PARAMS - 16:,}", f"{PARAMS - 17:,}", ["D05"], "trainable parameters"),
    (f"{MULTIPLY_ADDS:,}", "208,001", ["D05"], f"multiply-adds {MULTIPLY_ADDS}"),
    (f"{4 * PARAMS:,} b", "6,503 b", ["D05"], "size of the values 6504"),
    ("[batch, 10]", "[batch, 12]", ["D05"], "Toy/logits .10."),
    ("RANDOM weights.", "RANDOM weights, 7,777 of them.", ["D05"], "7,777"),
    ("> Others say", "Others say", ["D05"], "3,000,000"),
]


@pytest.mark.parametrize(("right", "wrong", "clauses", "message"), WRONG)
def test_one_wrong_statement_fails_its_clause(
    toy, right, wrong, clauses, message, tmp_path
):
    assert PAGE.count(right) == 1
    suite_report = check_page(toy, PAGE.replace(right, wrong), tmp_path)
    assert failures(suite_report) == clauses, suite_report.to_text()
    assert re.search(message, suite_report.failed[0].message), suite_report.to_text()


@pytest.mark.parametrize(
    ("right", "wrong", "clauses"),
    [
        ('"height_range": [32, 128]', '"height_range": [32, 64]', ["D01"]),
        ('"num_classes": 10', '"num_classes": 9', ["D02", "D05"]),
        ('"softmax"', '"sigmoid"', ["D02"]),
        ('"fine_tunable": true', '"fine_tunable": false', ["D03"]),
        (f'"multiply_adds": {MULTIPLY_ADDS}', '"multiply_adds": 1', ["D04", "D05"]),
        ('"license": "MIT"', '"license": "GPL"', ["D04"]),
        ('"Toy/logits": [10]', '"Toy/logits": [9]', ["D05"]),
        ('"hyperparameters": {}', '"hyperparameters": {"rate": {}}', ["D03", "D05"]),
    ],
)
def test_block_and_text_have_to_agree(toy, right, wrong, clauses, tmp_path):
    assert PAGE_FOR_BOTH.count(right) == 1
    suite_report = check_page(toy, PAGE_FOR_BOTH.replace(right, wrong), tmp_path)
    assert failures(suite_report) == clauses, suite_report.to_text()
    for result in suite_report.failed:
        assert "in the block" in result.message


ARGUMENT = """
| Argument | dtype | Default | Effect |
|---|---|---|---|
| `scale` | float32 | 1.0 | what comes out is as many times as large |
"""


class Scaled(Tunable):
    """Takes a numeric argument, which the page must document."""

    def call(self, images, training=False, return_endpoints=False, scale=1.0):
        output = scale * self.output(images, training)
        return self.endpoints(output) if return_endpoints else output

    def callable(self):
        import tensorflow as tf

        function = tf.function(self.call, autograph=False)
        scale = tf.TensorSpec([], tf.float32, "scale")
        for spec in self.input_specs():
            for flags in self.traced_flags():
                function.get_concrete_function(spec, **flags, scale=scale)
        return function


@pytest.mark.parametrize(
    ("table", "clauses"),
    [
        (ARGUMENT, []),
        ("", ["D03"]),
        (ARGUMENT.replace("1.0", "2.0"), ["D05"]),
        (ARGUMENT.replace("1.0", ""), ["D03", "D05"]),
        (ARGUMENT.replace("float32", ""), ["D03"]),
        (ARGUMENT + "| `shift` | float32 | 0.0 | none |\n", ["D03", "D05"]),
    ],
)
def test_arguments_are_told(table, clauses, tmp_path):
    model = Scaled().save(tmp_path)
    suite_report = check_page(model, PAGE + table, tmp_path)
    assert failures(suite_report) == clauses, suite_report.to_text()


def test_without_a_page_nothing_is_judged(toy):
    suite_report = in_process.check(toy, clauses=CLAUSES)
    assert {r.message for r in suite_report.clauses} == {
        "no documentation page was given"
    }
    assert {r.status for r in suite_report.clauses} == {report.NOT_APPLICABLE}


def test_a_page_of_a_pair_describes_each_model(toy, tmp_path):
    block = {
        "models": [
            {"kind": kind, "params": {"all": count}, "input": {"height_range": [1, 9]}}
            for kind, count in (("feature_vector", 1496), ("classification", 1626))
        ]
    }
    path = tmp_path / "page.md"
    path.write_text(
        "| | Feature vector | Classifier |\n|---|---|---|\n"
        f"| Parameters | 1,496 | 1,626 |\n\n<!-- saved-model {json.dumps(block)} -->\n"
    )
    page = statements.read(path)
    for kind, count in (("feature_vector", 1496), ("classification", 1626)):
        assert statements.Page(page, kind).fact("params") == count
    documentation = documents.read(toy, path, kind="classification")
    assert documentation.ranges == {"height_range": [1, 9]}
    assert documentation.page == page


@pytest.mark.usefixtures("in_this_process")
def test_the_suite_takes_a_page(toy, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE_FOR_BOTH)
    suite_report = suite.check(toy, doc=path, clauses=["D", "I03"], level="quick")
    assert not suite_report.failed, suite_report.to_text()
    assert suite_report.documented == {
        "height_range": [32, 128],
        "width_range": [32, 128],
    }
    assert [r.id for r in suite_report.clauses] == ["I03", *CLAUSES]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("<!-- saved-model {1} -->", "Expecting property name"),
        ('<!-- saved-model {"models": 3} -->', "not an object that describes models"),
        (
            '<!-- saved-model {"input": {"height_range": [9, 2]}} -->',
            "9 to 2 is not a valid range of pixels",
        ),
    ],
)
def test_a_page_that_cannot_be_read_is_named(toy, text, message, tmp_path):
    path = tmp_path / "page.md"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=f"doc .* is not a valid page: .*{message}"):
        suite.check(toy, doc=path)
