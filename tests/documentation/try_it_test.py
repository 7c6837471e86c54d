"""The box “Try it” in a browser: what it computes, shows and refuses."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import importlib.util
import json
import pathlib
import re
import shutil
import struct
import sys
import threading

import numpy as np
import pytest
from playwright import sync_api

from documentation import hub_pages, rendering, try_it, web_runtime
from exporters import manifest
from images import model_input
from publishing import serving, verifying
from tests import browser, page_checks
from tests.documentation import hub_models, try_it_pages
from tests.images import kinds
from tests.publishing import publisher

NAMES = ["red", "green", "blue", "<img src=x onerror=alert(1)>", "</script>'\"&", "ö"]
SIZE, CROP = 20, 0.875
WEIGHTS = np.array(
    [[9, 0, 0, 3, 1, 2], [0, 9, 0, 3, 2, 1], [0, 0, 9, 3, 3, 0]], np.float32
)
PREPROCESSING = model_input.Preprocessing(height=SIZE, width=SIZE, crop_fraction=CROP)
COLOURS = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
PHOTOGRAPH = kinds.encoded(COLOURS, "PNG")
MOST_MEGABYTES = 64


def write_model(folder: pathlib.Path, names=NAMES, scores="softmax", **fields):
    """Writes an ONNX model whose logits are those of the mean colour."""
    import onnx
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node(
                "ReduceMean", ["images"], ["mean"], axes=[1, 2], keepdims=0
            ),
            helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        ],
        "colours",
        [
            helper.make_tensor_value_info(
                "images", onnx.TensorProto.FLOAT, ["batch", "height", "width", 3]
            )
        ],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 6])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    (folder / "assets").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    rows = ["index\tid\tname", *(f"{i}\tc{i}\t{n}" for i, n in enumerate(names))]
    (folder / manifest_file()).write_text("\n".join(rows) + "\n", encoding="utf-8")
    record = {
        **{field.name: None for field in dataclasses.fields(manifest.Manifest)},
        "arch": "arch",
        "weights": {"name": "imagenet"},
        "input": {"range": [0.0, 1.0]},
        "preprocessing": {
            "image_size": SIZE,
            "crop_fraction": CROP,
            "interpolation": "bicubic",
        },
        "class_index": {"file": manifest_file(), "scores": scores},
        "files": manifest.file_hashes(folder),
        **fields,
    }
    (folder / manifest.MANIFEST).parent.mkdir()
    (folder / manifest.MANIFEST).write_text(json.dumps(record))
    return folder


def manifest_file() -> str:
    return f"assets/{manifest.CLASS_INDEX}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "onnx")


@pytest.fixture(scope="module")
def hub(onnxruntime_web, model, tmp_path_factory):
    """Returns the folder of a hub with the box; tests don't change it."""
    folder = tmp_path_factory.mktemp("hub")
    try_it_pages.write(folder, model, onnxruntime_web)
    return folder


@pytest.fixture(scope="module")
def address(hub):
    with try_it_pages.served(hub) as url:
        yield url


@dataclasses.dataclass
class Box:
    """The box on an open page."""

    page: sync_api.Page

    def open(self, url: str, folder: str = f"{try_it_pages.FOLDER}/") -> Box:
        self.page.goto(f"{url}{folder}")
        self.page.evaluate(
            """() => {
              window.results = [];
              document.getElementById("try-it").addEventListener(
                "try-it-result",
                ({ detail: { logits, ...detail } }) =>
                  results.push({ ...detail, logits: [...logits] }));
            }"""
        )
        return self

    def choose(self, data: bytes, name: str = "photograph.png") -> Box:
        file = {"name": name, "mimeType": "", "buffer": data}
        self.find("file").set_input_files(file)
        return self

    def find(self, name: str) -> sync_api.Locator:
        return self.page.locator(f".try-it-{name}")

    def wait(self, seconds: float = 60) -> Box:
        done = self.page.locator('#try-it[aria-busy="false"]')
        done.wait_for(timeout=1000 * seconds)
        return self

    @property
    def result(self) -> dict:
        """What the last photograph gave."""
        sync_api.expect(self.find("error")).to_be_hidden()
        return self.page.evaluate("results.at(-1)")

    @property
    def logits(self) -> np.ndarray:
        return np.array(self.result["logits"], np.float32)

    @property
    def pixels(self) -> np.ndarray:
        """The pixels that the model got."""
        height, width, values = self.page.evaluate(
            """() => {
              const { height, width } = document.querySelector(".try-it-canvas");
              const context = document.querySelector(".try-it-canvas").getContext("2d");
              const { data } = context.getImageData(0, 0, width, height);
              return [height, width, [...data]];
            }"""
        )
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

    @property
    def error(self) -> str:
        sync_api.expect(self.find("error")).to_be_visible()
        sync_api.expect(self.find("figure")).to_be_hidden()
        assert self.find("class").count() == 0
        return self.find("error").text_content()


@pytest.fixture
def box(page, address):
    return Box(page).open(address)


def expected(data: bytes) -> np.ndarray:
    """Returns the logits of a photograph, computed outside the browser."""
    return PREPROCESSING.read(data).numpy().mean(axis=(0, 1)) @ WEIGHTS


def test_a_photograph_gets_the_five_best_classes(box, address):
    box.choose(PHOTOGRAPH).wait()
    logits = expected(PHOTOGRAPH)
    assert np.abs(box.logits - logits).max() < 1e-5
    names, percents = (box.find(n).all_text_contents() for n in ("name", "percent"))
    best = np.argsort(-logits)[:5]
    assert names == [NAMES[index] for index in best]  # hostile ones as they are
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert percents == [f"{100 * probabilities[index]:.1f} %" for index in best]
    widths = box.page.eval_on_selector_all(
        ".try-it-bar",
        "bars => bars.map((bar) => bar.style.getPropertyValue('--share'))",
    )
    assert np.allclose(np.array(widths, float), probabilities[best], atol=1e-6)
    times = box.find("times").text_content()
    assert re.fullmatch(
        r"Decoded in \d+ ms, cropped and resized in \d+ ms; the model took \d+ ms in "
        r"WebAssembly\.",
        times,
    )
    assert box.find("status").text_content().startswith(f"Most likely: {names[0]}, ")
    assert page_checks.complaints(box.page, address) == []


def test_pixels_are_those_of_the_model_s_own_preprocessing(box):
    for data in (
        PHOTOGRAPH,
        kinds.encoded(COLOURS, "JPEG"),
        kinds.encoded(COLOURS, "WebP"),
    ):
        box.choose(data).wait()
        pixels = PREPROCESSING.read(data).numpy() * 255
        assert np.array_equal(box.pixels, np.rint(pixels).astype(np.uint8))


def test_a_turned_photograph_is_upright(box):
    """Larger than the bands in which the page reads pixels."""
    for orientation in range(1, 9):
        pixels = kinds.stored_as(np.tile(COLOURS, (4, 3, 1)), orientation)
        exif = kinds.segment(0xE1, b"Exif\0\0" + kinds.exif(orientation))
        data = kinds.with_segments(kinds.encoded(pixels, "JPEG"), exif)
        box.choose(data).wait()
        wanted = np.rint(PREPROCESSING.read(data).numpy() * 255)
        assert np.array_equal(box.pixels, wanted.astype(np.uint8)), orientation


RESIZES = [
    *((50, 70, 20, 1.0), (70, 50, 20, 0.875), (7, 5, 20, 0.5), (1, 1, 3, 1.0)),
    *((301, 447, 96, 0.875), (447, 301, 224, 0.9), (224, 224, 224, 1.0)),
    *((1, 300, 8, 1.0), (1023, 767, 64, 0.7), (640, 427, 260, 0.922)),
]


@pytest.mark.parametrize("interpolation", model_input.INTERPOLATIONS)
def test_crop_and_resize_are_bit_equal(box, address, interpolation):
    random = np.random.default_rng(1)
    for height, width, size, fraction in RESIZES:
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        preprocessing = model_input.Preprocessing(
            height=size,
            width=size,
            crop_fraction=fraction,
            interpolation=interpolation,
        )
        values: str = box.page.evaluate(
            """async ([url, text, image, input]) => {
              const { Resizer, centralCrop, toInput } = await import(url);
              const rgb = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
              const crop = centralCrop(image, input);
              const resizer = new Resizer(crop, input);
              for (let row = crop.top; row < crop.top + crop.height; row++) {
                const rgba = new Uint8Array(4 * crop.width);
                for (let column = 0; column < crop.width; column++) {
                  const start = 3 * (row * image.width + crop.left + column);
                  rgba.set(rgb.subarray(start, start + 3), 4 * column);
                }
                resizer.addRows(rgba);
              }
              const values = toInput(resizer.finish(), [0, 1]);
              return Array.from(new Uint8Array(values.buffer),
                (value) => String.fromCharCode(value)).join("");
            }""",
            [
                f"{address}{try_it_pages.ASSETS}/try_it_preprocess.js",
                base64.b64encode(pixels.tobytes()).decode(),
                {"height": height, "width": width},
                dataclasses.asdict(preprocessing),
            ],
        )
        wanted = preprocessing.from_pixels(pixels).numpy()
        got = np.frombuffer(values.encode("latin-1"), "<f4").reshape(wanted.shape)
        assert np.array_equal(got, wanted), (height, width, size, fraction)


SIXTEEN_BITS = ("bmp 16 of 555", "bmp 16 of 565")  # Chromium rounds 5 bits otherwise
NOT_OF_EXPORTS = [name for name, k in kinds.every_kind().items() if not k.in_exports]


def decoded(box: Box, address: str, data: bytes) -> np.ndarray | str:
    """Returns the pixels of an image file in the browser, or why it was refused."""
    answer = box.page.evaluate(
        """async ([url, text]) => {
          const { decode, bands } = await import(url);
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          try {
            const photograph = await decode(new File([bytes], "file"));
            const { height, width } = photograph;
            const crop = { top: 0, left: 0, height, width };
            let letters = "";
            for (const band of bands(photograph, crop)) {
              for (const value of band) letters += String.fromCharCode(value);
            }
            return [height, width, btoa(letters)];
          } catch (error) {
            return error.message;
          }
        }""",
        [
            f"{address}{try_it_pages.ASSETS}/try_it_photograph.js",
            base64.b64encode(data).decode(),
        ],
    )
    if isinstance(answer, str):
        return answer
    height, width, text = answer
    values = np.frombuffer(base64.b64decode(text), np.uint8)
    return values.reshape(height, width, 4)[..., :3]


def test_files_of_every_kind_decode_as_in_images(box, address):
    different = []
    for name, kind in kinds.every_kind().items():
        pixels = decoded(box, address, kind.data)
        if isinstance(pixels, str):
            assert name in NOT_OF_EXPORTS, f"{name}: {pixels}"
            continue
        limit = 1 if name in SIXTEEN_BITS else 0
        if pixels.shape != kind.pixels.shape or (
            np.abs(pixels.astype(int) - kind.pixels).max() > limit
        ):
            different.append(name)
    assert different == []


@pytest.mark.ci_except("JPEG")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP", "GIF", "BMP"])
def test_a_file_cut_short_is_damaged(box, address, form):
    data = kinds.encoded(np.tile(COLOURS, (4, 4, 1)), form)
    assert not isinstance(decoded(box, address, data), str)
    for share in (0.02, 0.5, 0.9):
        message = decoded(box, address, data[: int(share * len(data))])
        assert message == "This file is damaged: the browser can’t decode it."


def png_of(width: int, height: int) -> bytes:
    """Returns a PNG file whose header declares a size."""
    header = kinds.png_chunk(
        b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    )
    return b"\x89PNG\r\n\x1a\n" + header + kinds.png_chunk(b"IEND", b"")


READ = "The model reads photographs in JPEG, PNG, WebP, GIF and BMP."
REFUSED = {
    "broken": (b"\xff\xd8\xff\xe0" + b"\0" * 100, "This file is damaged: the browser"),
    "empty": (b"", "This file is empty."),
    "text": (
        "Ein Text, äöü.\n".encode() * 400,
        f"This is a text file. {READ}",
    ),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "This is a text file."),
    "pdf": (
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\0\0",
        f"This is a file of another kind. {READ}",
    ),
    "huge": (
        png_of(100_000, 40_000),
        "This image has 100,000 × 40,000 pixels, and the limit is 67 million pixels, "
        "which take 268 MB of memory.",
    ),
    "without pixels": (png_of(0, 8), "This file is damaged: the browser"),
}


@pytest.mark.ci_except("broken", "text", "huge")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_photograph_is_refused_in_words(box, address, name):
    data, message = REFUSED[name]
    assert box.choose(data, name).wait().error.startswith(message)
    requests = [request.url for request in box.page.requests()]
    assert not [url for url in requests if url.endswith(".gz")]  # nothing downloaded
    assert page_checks.complaints(box.page, address) == []
    box.choose(PHOTOGRAPH).wait()
    assert len(box.logits) == len(NAMES)


def test_a_file_with_too_many_bytes_is_not_read(box):
    box.page.evaluate(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "large.jpg"));
          const input = document.querySelector(".try-it-file");
          input.files = transfer.files;
          input.dispatchEvent(new Event("change"));
        }""",
        MOST_MEGABYTES * 2**20 + 1,
    )
    assert box.wait().error == "This file has 67 MB, and the limit is 67 MB."


DROP = """(text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  %s
}"""


def test_a_photograph_can_be_dropped(box):
    box.page.evaluate(
        DROP
        % """
        const target = document.querySelector(".try-it-hint");
        for (const name of ["dragover", "drop"]) {
          const event = new DragEvent(name, { ...options, dataTransfer });
          if (target.dispatchEvent(event)) throw new Error("not accepted");
        }
        """,
        base64.b64encode(PHOTOGRAPH).decode(),
    )
    assert np.abs(box.wait().logits - expected(PHOTOGRAPH)).max() < 1e-5


def test_a_photograph_can_be_pasted(box):
    box.page.evaluate(
        DROP
        % """document.body.dispatchEvent(
          new ClipboardEvent("paste", { ...options, clipboardData: dataTransfer }));""",
        base64.b64encode(PHOTOGRAPH).decode(),
    )
    assert np.abs(box.wait().logits - expected(PHOTOGRAPH)).max() < 1e-5


@pytest.mark.ci_except("Space")
@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_opens_the_chooser(box, key):
    box.page.on("filechooser", lambda _: None)  # from now on, no dialog opens
    box.page.keyboard.press("Tab")
    assert box.page.evaluate("document.activeElement.className") == "try-it-file"
    with box.page.expect_file_chooser(timeout=10_000) as chooser:
        box.page.keyboard.press(key)
    photograph = {"name": "p.png", "mimeType": "image/png", "buffer": PHOTOGRAPH}
    chooser.value.set_files(photograph)
    assert np.abs(box.wait().logits - expected(PHOTOGRAPH)).max() < 1e-5


def test_the_first_frame_of_an_animation_is_classified(box):
    kind = kinds.every_kind()["gif animated"]
    box.choose(kind.data).wait()
    sync_api.expect(box.find("note")).to_have_text(", the first frame of the animation")
    sync_api.expect(box.find("note")).to_be_visible()
    assert np.abs(box.logits - expected(kind.data)).max() < 1e-5
    box.choose(PHOTOGRAPH).wait()
    sync_api.expect(box.find("note")).to_be_hidden()


def test_a_new_photograph_cancels_the_one_before(box):
    box.page.evaluate("results.length = 0")
    other = kinds.encoded(np.full((30, 30, 3), 200, np.uint8), "PNG")
    box.choose(PHOTOGRAPH).choose(other).wait()
    assert np.abs(box.logits - expected(other)).max() < 1e-5
    box.page.wait_for_timeout(300)
    assert box.page.evaluate("results.length") == 1


@pytest.fixture
def own_hub(hub, tmp_path):
    """Returns the folder of a hub that a test may change."""
    shutil.copytree(hub, tmp_path / "hub", copy_function=shutil.copyfile)
    return tmp_path / "hub"


def archive_of(hub: pathlib.Path) -> pathlib.Path:
    return hub / try_it_pages.FOLDER / try_it.ARCHIVE


def another_model(archive: pathlib.Path) -> None:
    data = gzip.decompress(archive.read_bytes())
    assert data.count(b"MatMul") == 1
    archive.write_bytes(gzip.compress(data.replace(b"MatMul", b"MatMux")))


def of_another_size(archive: pathlib.Path) -> None:
    archive.write_bytes(gzip.compress(b"\0" * 10240))


def flip_a_byte(archive: pathlib.Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0x55
    archive.write_bytes(data)


def cut_short(archive: pathlib.Path) -> None:
    archive.write_bytes(archive.read_bytes()[:300])


DAMAGES = {
    "missing": (
        pathlib.Path.unlink,
        r"The server does not have http\S+/formats/onnx\.tar\.gz \(404 File not found",
    ),
    "another model": (
        another_model,
        r"The downloaded file is damaged: the SHA-256 of the model in http\S+ is not "
        r"the published one\.",
    ),
    "without a model": (of_another_size, r"The downloaded .* no model\.onnx in it\)\."),
    "damaged": (flip_a_byte, "The downloaded file is damaged, or the connection was "),
    "cut short": (cut_short, "The downloaded file is damaged, or the connection was "),
    "no archive": (
        lambda archive: archive.write_bytes(b"<!doctype html>" * 100),
        r"The downloaded .* \(it is not a tar archive\)\.",
    ),
    "empty": (lambda archive: archive.write_bytes(b""), "The downloaded .* is empty"),
}


@pytest.mark.ci_except("missing", "another model")
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_archive_is_refused_in_words(page, own_hub, name):
    damage, message = DAMAGES[name]
    archive = archive_of(own_hub)
    whole = archive.read_bytes()
    damage(archive)
    with try_it_pages.served(own_hub) as url:
        box = Box(page).open(url)
        assert re.match(message, box.choose(PHOTOGRAPH).wait().error)
        archive.write_bytes(whole)  # it is tried again without loading the page
        box.choose(PHOTOGRAPH).wait()
        assert np.abs(box.logits - expected(PHOTOGRAPH)).max() < 1e-5


@pytest.mark.ci
def test_a_model_that_does_not_run_is_refused_in_words(page, own_hub, model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    file = broken / "model.onnx"
    file.write_bytes(file.read_bytes().replace(b"MatMul", b"MatMux"))
    record = json.loads((broken / manifest.MANIFEST).read_text())
    record["files"] = manifest.file_hashes(broken)
    (broken / manifest.MANIFEST).write_text(json.dumps(record))
    runtime = {path.name: path for path in (own_hub / try_it_pages.RUNTIME).iterdir()}
    hub = tmp_path / "broken_hub"
    try_it_pages.write(hub, broken, runtime)
    with try_it_pages.served(hub) as url:
        error = Box(page).open(url).choose(PHOTOGRAPH).wait().error
    assert error.startswith("ONNX Runtime Web can’t run this model: ")
    assert "MatMux" in error


@pytest.mark.ci
@pytest.mark.parametrize(
    "name", ["ort.wasm.bundle.min.js", "ort-wasm-simd-threaded.wasm.gz"]
)
def test_a_missing_runtime_is_a_message(page, own_hub, name):
    (own_hub / try_it_pages.RUNTIME / name).unlink()
    with try_it_pages.served(own_hub) as url:
        error = Box(page).open(url).choose(PHOTOGRAPH).wait().error
    assert re.match(rf"The server does not have http\S+/{re.escape(name)}", error)


@pytest.mark.ci
def test_a_missing_script_is_a_message(page, own_hub):
    (own_hub / try_it_pages.ASSETS / "try_it_archive.js").unlink()
    with try_it_pages.served(own_hub) as url:
        error = Box(page).open(url).choose(PHOTOGRAPH).wait().error
    assert error.startswith("The browser can’t run the scripts of this box.")


def edit_worker(page: sync_api.Page, before: str, after: str) -> None:
    """Replaces a part of the worker's script, as another browser would behave."""
    source = pathlib.Path(try_it.__file__).with_name("hub_assets") / "try_it_worker.js"
    text = source.read_text(encoding="utf-8")
    assert before in text
    page.route(
        f"**/{source.name}",
        lambda route: route.fulfill(
            body=text.replace(before, after), content_type="text/javascript"
        ),
    )


def test_a_browser_without_webassembly_is_told(page, address):
    edit_worker(page, "let session;", "let session; delete self.WebAssembly;")
    error = Box(page).open(address).choose(PHOTOGRAPH).wait().error
    assert error == "This browser has no WebAssembly, which the model runs in."


@pytest.mark.ci
def test_an_old_browser_is_told(page, address):
    lost = "let session; delete self.DecompressionStream;"
    edit_worker(page, "let session;", lost)
    error = Box(page).open(address).choose(PHOTOGRAPH).wait().error
    assert error.startswith("This browser can’t classify the photograph; a recent ")
    assert "DecompressionStream is not defined" in error


def test_without_a_working_gpu_the_model_runs_in_webassembly(page, address):
    edit_worker(page, "(await hasGpu())", "(await true)")
    box = Box(page).open(address).choose(PHOTOGRAPH).wait()
    assert box.result["device"] == "wasm"
    assert np.abs(box.logits - expected(PHOTOGRAPH)).max() < 1e-5
    requests = [request.url.rpartition("/")[2] for request in page.requests()]
    assert {"ort.jspi.bundle.min.js", "ort.wasm.bundle.min.js"} <= {*requests}


class _Unpacking(try_it_pages.Quiet):
    """A server that declares packed files as encoded, so the browser unpacks them."""

    def end_headers(self) -> None:
        if self.path.endswith(".gz"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()


class _Isolating(try_it_pages.Quiet):
    """A server whose pages may use threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@pytest.mark.ci
@pytest.mark.parametrize("handler", [_Unpacking, _Isolating])
def test_it_works_on_other_servers(page, hub, handler):
    with try_it_pages.served(hub, handler) as url:
        box = Box(page).open(url).choose(PHOTOGRAPH).wait()
        assert page.evaluate("crossOriginIsolated") == (handler is _Isolating)
        assert np.abs(box.logits - expected(PHOTOGRAPH)).max() < 1e-5
        assert page_checks.complaints(page, url) == []


@pytest.fixture(scope="module")
def published(onnxruntime_web, model, tmp_path_factory):
    """Returns a folder with a hub, `hub`, that holds a pair and its ONNX form."""
    folder = tmp_path_factory.mktemp("published")
    rows = (model / manifest_file()).read_text(encoding="utf-8")
    export = hub_models.export(folder / "exports", formats=("onnx",), classes=rows)
    onnx = export / "onnx/classification/1"
    record = json.loads((onnx / manifest.MANIFEST).read_text())
    own = json.loads((model / manifest.MANIFEST).read_text())
    shutil.rmtree(onnx)
    shutil.copytree(model, onnx)
    record |= {name: own[name] for name in ("preprocessing", "class_index", "files")}
    (onnx / manifest.MANIFEST).write_text(manifest.to_json(record))
    pair = json.loads((export / "onnx/pair-1.json").read_text())
    pair["models"]["classification"] = {
        "sha256": manifest.content_hash(record["files"]),
        "manifest_sha256": manifest.manifest_hash(onnx),
    }
    (export / "onnx/pair-1.json").write_text(json.dumps(pair))
    try_model = functools.partial(try_it.for_model, runtime=onnxruntime_web)
    pages = hub_pages.Pages(runtime=onnxruntime_web, try_it=try_model)
    hub_models.publish(export, folder / "hub", pages)
    return folder


PUBLISHED = "image-model-zoo/models/toy/classification/1/"


def test_it_works_on_tools_serve(page, published):
    with serving.Server(("127.0.0.1", 0), published / "hub", None) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            url = serving.address(server)
            box = Box(page).open(url, PUBLISHED).choose(PHOTOGRAPH).wait()
            assert np.abs(box.logits - expected(PHOTOGRAPH)).max() < 1e-5
            assert page.evaluate("crossOriginIsolated")  # so it has threads
            assert page_checks.complaints(page, url) == []
        finally:
            server.shutdown()
            thread.join()
    assert verifying.verify(published / "hub").findings == ()


@pytest.mark.ci
def test_a_published_box_works_below_a_path_of_any_server(page, published):
    with try_it_pages.served(published) as url:
        box = Box(page).open(f"{url}hub/", PUBLISHED).choose(PHOTOGRAPH).wait()
        assert np.abs(box.logits - expected(PHOTOGRAPH)).max() < 1e-5
        assert page_checks.complaints(page, f"{url}hub/") == []


@pytest.mark.ci
def test_it_computes_with_webgpu(chromium, address):
    """A GPU in software shows that the results are right, but not how fast they are."""
    options = {
        "executable_path": browser.find(),
        "args": [
            "--enable-unsafe-webgpu",
            "--use-webgpu-adapter=swiftshader",
            "--enable-features=Vulkan",
        ],
        "chromium_sandbox": False,
    }
    with (
        chromium.browser_type.launch(**options) as with_gpu,
        with_gpu.new_page() as page,
    ):
        edit_worker(page, "!adapter.info?.isFallbackAdapter", "true")
        box = Box(page).open(address).choose(PHOTOGRAPH).wait()
        if box.result["device"] != "webgpu":
            pytest.skip("this browser has no WebGPU in software")
        assert np.abs(box.logits - expected(PHOTOGRAPH)).max() < 1e-5
        assert "ms in WebGPU." in box.find("times").text_content()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "weights"),
    [("efficientnet_lite0", "imagenet"), ("mobilenet_v2_035_96", "fashion_mnist")],
)
def test_logits_agree_with_the_saved_model(
    page, exported, onnxruntime_web, photographs, tmp_path, arch, weights
):
    import tensorflow as tf

    pair = exported(arch, weights, "--format=saved_model,onnx")
    saved_model = pair / "classification/1"
    record = manifest.read(saved_model).preprocessing
    preprocessing = model_input.Preprocessing(
        height=record["image_size"],
        width=record["image_size"],
        crop_fraction=record["crop_fraction"],
        interpolation=record["interpolation"],
    )
    model = tf.saved_model.load(str(saved_model))
    try_it_pages.write(tmp_path, pair / "onnx/classification/1", onnxruntime_web)
    with try_it_pages.served(tmp_path) as url:
        box = Box(page).open(url)
        for path, _ in photographs:
            data = path.read_bytes()
            image = preprocessing.read(data)
            logits = box.choose(data, path.name).wait().logits
            pixels = np.rint(image.numpy() * 255).astype(np.uint8)
            assert np.array_equal(box.pixels, pixels), path.name
            wanted = model(image[tf.newaxis], training=False).numpy()[0]
            assert np.abs(logits - wanted).max() < 1e-3, path.name


@pytest.mark.ci
def test_independent_classes_have_probabilities_of_their_own(
    page, onnxruntime_web, tmp_path
):
    model = write_model(tmp_path / "model", scores="sigmoid")
    try_it_pages.write(tmp_path / "hub", model, onnxruntime_web)
    with try_it_pages.served(tmp_path / "hub") as url:
        box = Box(page).open(url).choose(PHOTOGRAPH).wait()
        best = np.sort(1 / (1 + np.exp(-expected(PHOTOGRAPH))))[::-1][:5]
        shown = [entry["probability"] for entry in box.result["best"]]
        assert np.allclose(shown, best, atol=1e-6)


def test_without_javascript_the_page_says_so(chromium, address):
    with chromium.new_page(java_script_enabled=False) as page:
        page.goto(f"{address}{try_it_pages.FOLDER}/")
        sync_api.expect(page.locator(".try-it-unavailable")).to_be_visible()
        sync_api.expect(page.locator(".try-it-controls")).to_be_hidden()


@pytest.mark.ci_except("dark")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_and_can_be_read(box, scheme):
    box.page.emulate_media(color_scheme=scheme)
    box.page.set_viewport_size({"width": 360, "height": 740})
    box.choose(PHOTOGRAPH).wait()
    assert page_checks.too_wide(box.page) == []
    low = [c for c in page_checks.contrasts(box.page) if c[0] < 4.5]
    assert low == []


@pytest.mark.ci
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(box, scheme):
    axe = pathlib.Path(sys.prefix, "web/node_modules/axe-core/axe.min.js")
    box.page.emulate_media(color_scheme=scheme)
    box.page.evaluate(axe.read_text(encoding="utf-8"))
    for data in (PHOTOGRAPH, b"text"):
        box.choose(data).wait()
        found = box.page.evaluate("axe.run('#try-it')")
        assert found["violations"] == []
        assert len(found["passes"]) > 10


# The configuration, without a browser.


def runtime_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns files as `web_runtime.files` does, of a package that is made here."""
    package = folder / "web/node_modules/onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text('{"version": "1.2.3"}')
    for names in web_runtime.BUILDS.values():
        for name in names:
            (package / "dist" / name).write_bytes(name.encode() * 1000)
    scratch = folder / "scratch"
    scratch.mkdir()
    return web_runtime.files(folder, scratch)


def test_the_configuration_is_that_of_the_manifest(model, tmp_path):
    box = try_it.for_model(
        model, runtime=runtime_files(tmp_path), address="../rt/", download=1
    )
    configuration = box.configuration
    assert configuration["classes"] == NAMES
    assert configuration["input"] == {
        "name": "images",
        "height": SIZE,
        "width": SIZE,
        "crop_fraction": CROP,
        "interpolation": "bicubic",
        "range": [0.0, 1.0],
    }
    assert configuration["output"] == {"name": "logits", "scores": "softmax"}
    file = model / "model.onnx"
    assert configuration["model"] == {
        "archive": "formats/onnx.tar.gz",
        "member": {
            "name": file.name,
            "size": file.stat().st_size,
            "sha256": manifest.file_hashes(model)[file.name],
        },
    }
    assert configuration["runtime"]["wasm"] == {
        "script": "../rt/ort.wasm.bundle.min.js",
        "binary": "../rt/ort-wasm-simd-threaded.wasm.gz",
        "size": 1000 * len("ort-wasm-simd-threaded.wasm"),
    }
    assert box.warning == box.memory == ""


@pytest.mark.parametrize(
    ("weights", "warning"),
    [
        ({"name": "random"}, "These weights are random"),
        ({"name": "imagenet", "head": "random"}, "The head of this"),
    ],
)
def test_untrained_weights_have_a_warning(tmp_path, weights, warning):
    model = write_model(tmp_path / "model", weights=weights)
    box = try_it.for_model(
        model, runtime=runtime_files(tmp_path), address="", download=1
    )
    assert box.warning.startswith(warning)
    assert box.warning in rendering.render("parts/try_it.html.jinja", try_it=box)


def test_there_is_no_box_without_classes_or_runtime(tmp_path, monkeypatch):
    model = write_model(tmp_path / "model", class_index=None)
    runtime = runtime_files(tmp_path)
    assert try_it.for_model(model, runtime=runtime, address="", download=1) is None
    model = write_model(tmp_path / "classifier")
    assert try_it.for_model(model, runtime={}, address="", download=1) is None
    assert try_it.for_model(model, runtime=runtime, address="", download=1) is not None
    files = {"model.onnx": "", manifest_file(): "", "weights.bin": ""}
    other = write_model(tmp_path / "with_data", files=files)
    assert try_it.for_model(other, runtime=runtime, address="", download=1) is None
    monkeypatch.setattr(try_it, "_LARGE_MODEL", 10)
    box = try_it.for_model(model, runtime=runtime, address="", download=1)
    text = rendering.render("parts/try_it.html.jinja", try_it=box)
    assert "This model takes about 0.0 GB of memory." in text
    monkeypatch.setattr(try_it, "LARGEST_MODEL", 10)
    assert try_it.for_model(model, runtime=runtime, address="", download=1) is None


def test_hostile_texts_stay_inside_the_script_element(model, tmp_path):
    box = try_it.for_model(
        model, runtime=runtime_files(tmp_path), address="", download=1
    )
    text = rendering.render("parts/try_it.html.jinja", try_it=box)
    assert text.count("</script>") == 1
    assert "<img" not in text


def test_the_runtime_is_packed_with_licence_and_version(tmp_path):
    files = runtime_files(tmp_path)
    text = files["LICENSE.txt"].read_text()
    assert text.startswith(
        "onnxruntime-web 1.2.3\n\nMIT License\n\nCopyright (c) Microsoft"
    )
    for script, program in web_runtime.BUILDS.values():
        assert (
            files[script.replace(".mjs", ".js")].read_bytes() == script.encode() * 1000
        )
        packed = files[f"{program}.gz"].read_bytes()
        assert gzip.decompress(packed) == program.encode() * 1000
        assert packed == gzip.compress(program.encode() * 1000, 6, mtime=0)


def test_the_licence_is_that_of_onnx_runtime():
    package = pathlib.Path(importlib.util.find_spec("onnxruntime").origin).parent
    text = pathlib.Path(web_runtime.__file__).with_name("onnxruntime_web_license.txt")
    assert text.read_text().split() == (package / "LICENSE").read_text().split()


def test_without_the_package_there_are_no_files(tmp_path):
    assert web_runtime.files(tmp_path, tmp_path) == {}


def test_without_the_package_tools_publish_says_how_to_get_it(
    tmp_path, monkeypatch, capsys
):
    tool = publisher.load("publish")
    runtime_files(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "empty"))
    assert tool.pages("").assets["runtime"] == {}
    assert capsys.readouterr().err == (
        "publish: no box to try classifiers in the browser: "
        "run tools/setup web for it\n"
    )
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    pages = tool.pages("")
    assert "LICENSE.txt" in pages.assets["runtime"]
    assert capsys.readouterr().err == ""
