"""Each tool gives the same results for the same images from every data source."""

import csv
import io
import json
import pickle
import tarfile

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
import tensorflow as tf

from bulk import worker
from tests.bulk import tasks

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SOURCES = ("folder", "csv", "parquet", "hf", "wds", "tfrecord")
WITHOUT_NAMES = ("parquet", "wds", "tfrecord")  # their classes are numbers
COUNTS = {"train": 4, "test": 2}  # images of each of ten classes

pytestmark = pytest.mark.slow


def examples(split_name):
    """Yields names, PNG bytes and labels, class by class, in the order of a folder."""
    random = np.random.default_rng(len(split_name))
    for label in range(10):
        for number in range(COUNTS[split_name]):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            pixels[: 3 * label + 3] //= 4
            stream = io.BytesIO()
            PIL.Image.fromarray(pixels).save(stream, "png")
            yield f"{split_name}/{label}/{number}", stream.getvalue(), label


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    rows = []
    for split_name in COUNTS:
        with (
            tarfile.open(root / f"{split_name}-0.tar", "w") as archive,
            tf.io.TFRecordWriter(str(root / f"{split_name}-0.tfrecord")) as writer,
        ):
            for name, data, label in examples(split_name):
                path = root / "data" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                rows.append((f"data/{name}.png", label, split_name))
                for kind, content in (("png", data), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{name}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
                example = tf.train.Example()
                feature = example.features.feature
                feature["image/encoded"].bytes_list.value.append(data)
                feature["image/class/label"].int64_list.value.append(label + 1)
                writer.write(example.SerializeToString())
        split_examples = list(examples(split_name))
        table = {
            "image": [
                {"bytes": data, "path": name} for name, data, _ in split_examples
            ],
            "label": [label for _, _, label in split_examples],
        }
        parquet.write_table(pyarrow.table(table), root / f"{split_name}-0.parquet")
    with (root / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return {
        "folder": [f"--data={root}/data"],
        "csv": [f"--data=csv:{root}/data.csv"],
        "parquet": [f"--data=parquet:{root}/*.parquet"],
        "hf": [f"--data=hf:{root}/data"],
        "wds": [f"--data=wds:{root}/*.tar"],
        "tfrecord": [f"--data=tfrecord:{root}/*.tfrecord"],
    }


@pytest.fixture(scope="module")
def module(exported):
    return exported("resnet_cifar_20", "fashion_mnist")


def test_evaluate(tool, sources, module):
    model, reports = module / "classification" / "1", {}
    for name in SOURCES:
        done = tool("evaluate", model, *sources[name], "--format=json")
        assert done.returncode == 0, done.stderr
        reports[name] = json.loads(done.stdout)
    expected = reports["folder"]
    assert expected["examples"] == 20
    for name in SOURCES[1:]:
        assert reports[name]["top1"] == expected["top1"]
        assert reports[name]["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_train(tool, sources, tmp_path):
    weights = {}
    for name in SOURCES:
        folder = tmp_path / name
        done = tool(
            "train",
            *("--arch=resnet_cifar_20", "--recipe=digits", *sources[name]),
            "--gin_binding=training.run.batch_size=8",
            "--gin_binding=training.run.epochs=2",
            *(["--gin_binding=model.taxonomy_name='digits'"] * (name in WITHOUT_NAMES)),
            f"--model_dir={folder}",
        )
        assert done.returncode == 0, done.stderr
        weights[name] = safetensors.numpy.load_file(folder / "final.safetensors")
    for name in SOURCES[1:]:
        for variable, value in weights["folder"].items():
            np.testing.assert_array_equal(weights[name][variable], value, f"{variable}")


def test_retrain(tool, sources, module, tmp_path):
    metrics = {}
    for name in SOURCES:
        done = tool(
            "retrain",
            f"--module={module / 'feature_vector' / '1'}",
            *sources[name],
            f"--output={tmp_path / name}",
            *("--epochs=0", "--check=none"),
        )
        assert done.returncode == 0, done.stderr
        (report,) = (tmp_path / name).glob("**/retraining-1.json")
        metrics[name] = json.loads(report.read_text())["kept"]
    for name in SOURCES[1:]:
        assert metrics[name]["top1"] == metrics["folder"]["top1"]
        assert metrics[name]["loss"] == pytest.approx(
            metrics["folder"]["loss"], rel=1e-3
        )


def test_predict(tool, sources, module):
    """Predicts every image of both splits; labels are not needed."""
    model = module / "classification" / "1"
    done = tool(
        "predict", model, sources["folder"][0].partition("=")[2], "--format=json"
    )
    assert done.returncode == 0, done.stderr
    expected = top_scores(done.stdout)
    assert len(expected) == sum(10 * count for count in COUNTS.values())
    for name in SOURCES[1:]:
        done = tool(
            "predict", model, sources[name][0].partition("=")[2], "--format=json"
        )
        assert done.returncode == 0, done.stderr
        assert top_scores(done.stdout) == pytest.approx(expected, abs=1e-4), name


def top_scores(text):
    """Returns the highest score of each image, in ascending order."""
    return sorted(image["predictions"][0]["score"] for image in json.loads(text))


def test_embed(sources, module):
    """The images and labels of each source reach a worker in another process."""
    tables = {}
    for name in SOURCES:
        source = sources[name][0].removeprefix("--data=")
        task = tasks.task_of(module / "feature_vector" / "1", source, ["features"])
        computing = worker.Worker(pickle.loads(pickle.dumps(task)))
        results = [computing.compute(n) for n in range(task.job.shards)]
        assert not any(result.failure for result in results), results
        tables[name] = pyarrow.concat_tables(
            [parquet.read_table(io.BytesIO(result.data)) for result in results]
        )
    expected = tables["folder"]
    assert len(expected) == 60
    for name, table in tables.items():
        assert table["number"].to_pylist() == [*range(60)], name
        assert len(set(table["key"].to_pylist())) == 60, name
        assert table["error"].null_count == 60, name
        rows = zip(
            table["label"].to_pylist(), table["features"].to_pylist(), strict=True
        )
        assert sorted(rows) == sorted(
            zip(
                expected["label"].to_pylist(),
                expected["features"].to_pylist(),
                strict=True,
            )
        ), name
