"""Makes a hub of many models, and measures its pages.

  python -m tests.documentation.large_hub --models=1000

The hub has whole pages, archives of some bytes, and manifests that differ. Each model
is a pair, so it has two handles.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from documentation import hub_pages
from exporters import manifest
from foundation import hub_paths
from publishing import hub, hub_index, hub_site, pairs, serving, upload_files, verifying
from tests import browser
from tests.documentation import hub_models

_ARCHITECTURES = (
    *("MobileNetV2", "MobileNetV3", "EfficientNet", "EfficientNetLite", "ResNetV1"),
    *("ResNetRS", "ConvNeXt", "VisionTransformer", "SwinTransformer", "RegNetY"),
    *("DenseNet", "Inception", "ShuffleNetV2", "MnasNet", "MaxViT", "DINOv2"),
)
_LICENSES = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-NC-4.0")
_FORMATS = ("litert", "onnx", "onnx_int8", "serving")
_SEARCHES = (
    "vit",
    "mobilenet 224",
    "image-model-zoo/efficientnet",
    "apache",
    "no such",
)


def fields(number: int) -> dict[str, Any]:
    """Returns the fields of a manifest that tell model `number` from others."""
    draw = random.Random(number)
    architecture = _ARCHITECTURES[number % len(_ARCHITECTURES)]
    side = draw.choice((96, 128, 160, 192, 224, 256, 384))
    params = round(10 ** draw.uniform(5.5, 8.5))
    top1 = round(draw.uniform(0.5, 0.88), 4)
    weights = {
        "metrics": {"test_top1": top1},
        "published_top1": {"value": top1, "source": "a paper"},
    }
    origin = draw.choice(("metrics", "published_top1"))
    return {
        "title": f"{architecture} {number}, {side} px",
        "license": draw.choice(_LICENSES),
        "weights": hub_models.RANDOM
        if number % 10 == 9
        else {
            "name": "toys",
            "source": "nowhere",
            "taxonomy": "ilsvrc_2012",
            origin: weights[origin],
        },
        "configuration": {
            "gin": [],
            "spec": {"class": architecture},
            "normalization": {"mean": 127.5, "std": 127.5},
            "weight_decay": 4e-5,
        },
        "params": {"all": params, "trainable": params},
        "multiply_adds": params * 50,
        "preprocessing": {
            "image_size": side,
            "crop_fraction": 0.875,
            "interpolation": "bilinear",
        },
    }


def export(folder: pathlib.Path, number: int) -> pairs.Pair:
    """Writes the pair with this number and reads it."""
    name = f"{_ARCHITECTURES[number % len(_ARCHITECTURES)].lower()}_{number}"
    formats = _FORMATS[: number % (len(_FORMATS) + 1)]
    made = hub_models.export(folder, arch=name, formats=formats, **fields(number))
    return pairs.read(made, 1)


def entries(number: int) -> hub_index.Models:
    """Returns index entries of `number` pairs, whose files exist nowhere."""
    models = {}
    with tempfile.TemporaryDirectory() as scratch:
        writer = hub_pages.Pages()
        for index in range(number):
            pair = export(pathlib.Path(scratch), index)
            for model in pair.models:
                handle = f"{hub_models.PUBLISHER}/{model.name}"
                folder = hub_paths.documents_folder(handle)
                names = [f"formats/{o.format}.tar.gz" for o in pair.others]
                paths = [handle, *(f"{folder}/{n}" for n in (*names, "index.html"))]
                report = hub_models.suite_report(model.kind)
                models[handle] = {
                    **model.hashes,
                    "weights": model.manifest.weights["name"],
                    "summary": writer.summary(model.folder, report),
                    "files": {
                        p: {"size": 5_000_000, "sha256": "0" * 64} for p in paths
                    },
                }
    return models


def write(folder: pathlib.Path, models: int, work: pathlib.Path) -> None:
    """Writes a whole hub of `models` pairs: all files, then the index once."""
    destination = hub.Hub(folder, hub_models.PUBLISHER, hub_pages.Pages())
    uploads: dict[str, upload_files.UploadFile] = {}
    published = {}
    for number in range(models):
        pair = export(work / "exports", number)
        reports = {kind: hub_models.suite_report(kind) for kind in manifest.KINDS}
        documents = {
            model.kind: {
                **hub_models.documents(
                    model.folder,
                    reports[model.kind],
                    [other.format for other in pair.others],
                ),
                upload_files.REPORT: json.dumps(reports[model.kind]).encode(),
            }
            for model in pair.models
        }
        scratch = work / "scratch" / str(number)
        scratch.mkdir(parents=True)
        packed = destination.pack(pair, documents, scratch)
        uploads.update({upload.target: upload for upload in packed})
        for model in pair.models:
            handle = f"{hub_models.PUBLISHER}/{model.name}"
            published[handle] = destination._entry(model, documents, packed)
    destination._place([*uploads.values()], published, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    number = parser.parse_args().models
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        folder = work / "hub"
        folder.mkdir()
        print(f"{number} pairs, {2 * number} handles")
        with _timed("write the whole hub"):
            write(folder, number, work)
        index = hub_index.read_index(folder)
        for name in (hub_index.NAME, hub_site.FRONT_PAGE):
            print(f"{name}: {(folder / name).stat().st_size / 1e6:.2f} MB")
        page = folder / "image-model-zoo/models"
        sizes = [path.stat().st_size for path in page.glob("*/*/1/index.html")]
        print(f"{len(sizes)} pages of {statistics.mean(sizes) / 1e3:.1f} kB on average")
        with _timed("read the index"):
            hub_index.read_index(folder)
        with _timed("write the front page alone"):
            hub_pages.Pages().front_page(index.models, assets={"pages": "assets/0"})
        more = hub_models.export(work / "more", arch="one_more", **fields(number))
        with _timed("publish one more pair, whose report is there"):
            hub_models.publish(more, folder)
        with _timed("verify"):
            verification = verifying.verify(folder)
        print(f"{verification.files} files, {len(verification.findings)} findings")
        measure(folder)


class _timed:
    """Prints how long a block took."""

    def __init__(self, what: str):
        self._what = what

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        print(f"{self._what}: {time.perf_counter() - self._start:.2f} s")


def measure(folder: pathlib.Path) -> None:
    """Prints the times that a browser takes for the front page."""
    with serving.Server(("127.0.0.1", 0), folder, None) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            path = browser.find()
            assert path, "no browser"
            with browser.launched(path) as chromium:
                for name, values in milliseconds(chromium, serving.address(server)):
                    print(
                        f"{name}: median {statistics.median(values):.0f} ms, "
                        f"slowest {max(values):.0f} ms"
                    )
        finally:
            server.shutdown()
            thread.join()


def milliseconds(
    chromium: Any, address: str, repeats: int = 5
) -> Iterator[tuple[str, list[float]]]:
    """Yields the milliseconds of loads, searches, filters and orders, by name.

    A search is timed from the input event to the frame that shows its results.
    """
    loads, ready = [], []
    for _ in range(repeats):
        with chromium.new_context() as context:
            page = context.new_page()
            page.goto(address)
            page.wait_for_function("!document.getElementById('search').hidden")
            timing = page.evaluate(
                "performance.getEntriesByType('navigation')[0].toJSON()"
            )
            loads.append(timing["loadEventEnd"])
            ready.append(page.evaluate(_FIRST_PAINT))
    yield "load, until the load event", loads
    yield "load, until the first contentful paint", ready
    with chromium.new_page() as page:
        page.goto(address)
        for name, field, values in (
            ("search", "q", _SEARCHES),
            ("filter", "task", ("classification", "")),
            ("order", "order", ("params", "accuracy", "")),
        ):
            runs = itertools.product(range(repeats), values)
            yield name, [page.evaluate(_CHANGE, [field, value]) for _, value in runs]


_FIRST_PAINT = 'performance.getEntriesByName("first-contentful-paint")[0].startTime'
_CHANGE = """([name, value]) => new Promise((done) => {
  const field = document.querySelector(`[name=${name}]`);
  const start = performance.now();
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  document.body.offsetHeight;
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""

if __name__ == "__main__":
    main()
