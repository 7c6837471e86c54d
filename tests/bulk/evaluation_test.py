"""tools/evaluate --cluster reports what a single process does."""

import json

import numpy as np
import pytest

from tests.images import kinds


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns a test split of two of CIFAR-10's classes, with unreadable images."""
    root = tmp_path_factory.mktemp("evaluation")
    rng = np.random.default_rng(0)
    for part, count in (("train", 1), ("test", 150)):
        for name in ("cat", "ship"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
                (folder / f"{number:03}.png").write_bytes(kinds.encoded(pixels, "PNG"))
    for number in (3, 50):
        (root / "test" / "ship" / f"{number:03}.png").write_bytes(b"no image")
    return root


@pytest.mark.ci
def test_figures_equal_those_of_a_single_process(tool, pair, data, tmp_path):
    model = pair / "classification" / "1"
    records, tables = [], []
    for more in ([], ["--cluster=local"]):
        table = tmp_path / f"{len(more)}.csv"
        done = tool(
            *("evaluate", model, f"--data={data}", "--batch_size=16"),
            *("--format=json", f"--predictions={table}", *more),
            fresh=True,
        )
        assert done.returncode == 0, done.stderr
        records.append(json.loads(done.stdout))
        tables.append(table.read_text())
    assert records[0]["examples"] == 298
    assert len(records[0]["unreadable"]) == 2
    assert records[1] == records[0]
    assert tables[1] == tables[0]


def test_an_arch_is_refused(tool, data):
    done = tool(
        *("evaluate", "resnet_cifar_20", f"--data={data}", "--cluster=local"),
        *("--weights=fashion_mnist", "--unreadable=1"),
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == "evaluate: --cluster needs a SavedModel: export the arch."
