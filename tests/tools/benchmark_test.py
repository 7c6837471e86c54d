"""The benchmark measures what it says, of both sides."""

import json
import re

import pytest

SMALL = (
    *("--format=json", "--repeat=2", "--exports=1", "--batches=2", "--size=64"),
    *("--train_size=64", "--train_batch=2"),
)


def test_every_measure_has_a_row_with_both_sides(tool, tmp_path):
    output = tmp_path / "rows.json"
    done = tool("benchmark", "mobilenet_v3_small", *SMALL, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    record = json.loads(output.read_text())
    rows = {row["measure"]: row for row in record["rows"]}
    assert list(rows) == [
        *("export of the pair", "peak memory of it", "pair on disk", "load"),
        *("inference, batch 2", "fine-tune step"),
    ]
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"])
        assert row["ours"] > 0
        assert set(row["spread"]) == {"ours", "theirs"}
    # What the models weigh is no matter of the machine.
    assert 18 < rows["pair on disk"]["ours"] < 24
    assert rows["peak memory of it"]["ours"] > 200
    assert rows["export of the pair"]["theirs"] > rows["load"]["theirs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mobilenet_v9"], "'mobilenet_v9' has no counterpart .* mean 'mobilenet_v"),
        (["--measure=speed"], "--measure must be of export, .*, not 'speed'"),
        (["--batches=1,x"], "--batches must be numbers"),
        (["--output=no/where"], "no is no folder"),
    ],
)
def test_wrong_usage_is_told_in_a_line(tool, arguments, message):
    done = tool("benchmark", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr), done.stderr
