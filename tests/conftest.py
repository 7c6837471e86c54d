"""Fixtures and pytest hooks that all tests share."""

from __future__ import annotations

import fcntl
import functools
import gc
import hashlib
import importlib.util
import json
import pathlib
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import pytest
from playwright import sync_api

from conformance import forks
from tests import browser, warm

ROOT = pathlib.Path(__file__).resolve().parent.parent

_WITH_TENSORFLOW = ("check", "evaluate", "export", "predict", "retrain", "train")
Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow_sample",
        type=int,
        metavar="N",
        help="With -m slow: run a sample of N slow tests, another one at each commit.",
    )


def pytest_configure() -> None:
    """Restores SIGINT, and turns the garbage collector off until tests are collected.

    A script that runs pytest in the background makes it ignore SIGINT. Processes that
    tests start would inherit that, and tests could not interrupt them.

    Imports leave no garbage, and visiting their objects takes a quarter of the time of
    the collection of tests.
    """
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # "pytest &" in a script
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Applies `slow_except` and `ci_except`, then samples the slow tests."""
    _mark_cases(config, items, "slow")
    _mark_cases(config, items, "ci")
    _keep_sample(config, items)


def _mark_cases(config: pytest.Config, items: list[pytest.Item], name: str) -> None:
    """Adds the marker `name` to all cases of a test that `NAME_except` doesn't list."""
    missing: dict[str, set[str]] = {}
    for item in items:
        if mark := item.get_closest_marker(f"{name}_except"):
            case = item.callspec.id  # type: ignore[attr-defined]
            missing.setdefault(item.nodeid.split("[")[0], {*mark.args}).discard(case)
            if case not in mark.args:
                item.add_marker(name)
        if name == "ci" and item.get_closest_marker("slow"):  # each test is in one set
            item.own_markers = [m for m in item.own_markers if m.name != name]
    if not any("::" in argument for argument in config.args):  # else some are missing
        for test, cases in missing.items():
            if cases:
                raise pytest.UsageError(f"{name}_except: {test} has no case {cases}")


def _keep_sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --slow_sample=N, keeps N slow items, another sample at each commit."""
    number = config.getoption("--slow_sample")
    if number is None:
        return
    head = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout

    def rank(item: pytest.Item) -> str:
        return hashlib.sha256((commit + item.nodeid).encode()).hexdigest()

    slow = [item for item in items if item.get_closest_marker("slow")]
    chosen = set(sorted(slow, key=rank)[:number])
    config.hook.pytest_deselected(items=[i for i in items if i not in chosen])
    items[:] = [item for item in items if item in chosen]


def pytest_collection_finish() -> None:
    """Exempts tests and imports from garbage collection, and collects less often.

    Tests and imports stay until the end. Tracing makes many objects that live as long
    as their model. By default the collector takes a tenth of the tests' time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    gc.enable()


@pytest.fixture(autouse=True)
def free_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Frees the models of a slow test, which are reference cycles of gigabytes."""
    yield
    if request.node.get_closest_marker("slow"):
        gc.collect()


@pytest.fixture(scope="session")
def warm_server() -> Iterator[warm.Server]:
    """Returns a server that runs programs in forks with TensorFlow already imported."""
    server = warm.Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[forks.Server]:
    """Returns the server that starts the suite's programs in all tests of a process."""
    server = forks.Server()
    yield server
    server.stop()


@pytest.fixture
def forked_clients(fork_server: forks.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the suite use one server for all checks, which saves imports."""
    shared = types.SimpleNamespace(popen=fork_server.popen, stop=lambda: None)
    monkeypatch.setattr(forks, "Server", lambda: shared)


@pytest.fixture(scope="session")
def tool(warm_server: warm.Server) -> Run:
    """Returns a function that runs a command of tools/ with its output captured.

    Commands that use TensorFlow run in a fork of the warm server. `fresh=True` and any
    argument of `subprocess.run` start a new process instead. `file_limit` is the most
    bytes that a file may have, which stands in for a full disk.
    """

    def run(
        name: str,
        *arguments: object,
        timeout: float = 300,
        fresh: bool = False,
        file_limit: int | None = None,
        **kwargs: object,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "tools" / name), *map(str, arguments)]
        needs_new_process = fresh or kwargs or "--backend=jax" in command
        if needs_new_process or name not in _WITH_TENSORFLOW or "--help" in command:
            full_command = [sys.executable, *command]
            return subprocess.run(
                full_command, capture_output=True, text=True, timeout=timeout, **kwargs
            )
        return warm_server.run(command, timeout=timeout, file_limit=file_limit)

    return run


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder that all test processes share."""
    folder = tmp_path_factory.getbasetemp()
    is_one_of_several = folder.name.startswith("popen-")
    return folder.parent if is_one_of_several else folder


@pytest.fixture(scope="session")
def once(shared: pathlib.Path) -> Callable:
    """Returns a function that fills a folder once for all test processes."""

    def once(name: str, fill: Callable[[pathlib.Path], None]) -> pathlib.Path:
        folder, lock = shared / name, shared / f"{name}.lock"
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not lock.stat().st_size:
                folder.mkdir()
                fill(folder)
                file.write("filled")
        return folder

    return once


@pytest.fixture(scope="session")
def exported(tool: Run, shared: pathlib.Path) -> Callable:
    """Returns a function that exports an arch and returns the folder of its pair.

    Each pair is exported once for all test processes: the process that exported it
    remembers the folder, and in other processes the tool finds the finished export.
    """

    @functools.cache
    def export(arch: str, weights: str = "random", *options: str) -> pathlib.Path:
        output = shared / "exports" / "".join([weights, *options])
        done = tool(
            "export",
            f"--arch={arch}",
            f"--weights={weights}",
            f"--output={output}",
            "--check=none",  # tests of the check request it themselves
            *options,
        )
        assert done.returncode == 0, done.stderr
        return output / arch

    return export


@pytest.fixture(scope="session")
def pair(exported: Callable) -> pathlib.Path:
    """Returns a pair for images of 16 × 16 pixels; `tf1_hub` has TF1 Hub modules."""
    return exported(
        "resnet_cifar_20",
        "random",
        "--gin_binding=ResNetCifar.image_size=16",
        "--format=saved_model,tf1_hub",
        "--check=none",
    )


@pytest.fixture(scope="session")
def photographs() -> list[tuple[pathlib.Path, list]]:
    """Returns the paths of nine photographs, each with its top-5 classes and logits.

    The photographs are part of installed packages. The classes and logits are those of
    EfficientNet-Lite0's PyTorch code.
    """
    folders = {
        "matplotlib": "mpl-data/sample_data",
        "skimage": "data",
        "sklearn": "datasets/images",
    }
    photos = []
    data_file = ROOT / "tests" / "data" / "efficientnet_lite0.json"
    for image in json.loads(data_file.read_text())["images"]:
        package = importlib.util.find_spec(image["package"])
        folder = pathlib.Path(package.origin).parent / folders[image["package"]]
        photos.append((folder / image["file"], image["top5"]))
    return photos


@pytest.fixture(scope="session")
def onnxruntime_web(once: Callable) -> dict[str, pathlib.Path]:
    """Returns the files of ONNX Runtime Web that a hub needs, by name."""
    from documentation import web_runtime

    venv = pathlib.Path(sys.prefix)
    scratch = once(
        "onnxruntime_web",
        lambda folder: (folder / "names").write_text(
            json.dumps(
                {n: str(path) for n, path in web_runtime.files(venv, folder).items()}
            )
        ),
    )
    files = json.loads((scratch / "names").read_text())
    if not files:
        pytest.skip(f"no ONNX Runtime Web: run {web_runtime.HOW_TO_GET}")
    return {name: pathlib.Path(path) for name, path in files.items()}


@pytest.fixture(scope="module")  # Playwright's event loop would disturb other modules
def chromium() -> Iterator[sync_api.Browser]:
    """Launches a headless browser."""
    path = browser.find()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the PATH")
    with browser.launched(path) as chromium:
        yield chromium


@pytest.fixture
def page(chromium: sync_api.Browser) -> Iterator[sync_api.Page]:
    """Opens a blank page that shares neither settings nor messages with other tests."""
    with chromium.new_page() as page:
        yield page
