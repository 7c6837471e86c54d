"""The wheel works in an environment that has no checkout."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGE = "image_model_zoo"
ARCH = "mobilenet_v2_035_96"
DATA = {".css", ".gin", ".jinja", ".js", ".json", ".safetensors", ".tsv", ".txt"}

pytestmark = pytest.mark.slow


def run(command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def tracked_files():
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others"]
    listed = run([*command, "--exclude-standard"]).stdout.split("\0")
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Builds the wheel from a copy of the checkout, without leaving files there."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked_files():
        if not name.startswith(("docs/", "tests/", "requirements/")):
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", *options]
    done = run([*pip, folder / "source"])
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Creates an environment with the wheel and links to the packages that it needs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    for path in pathlib.Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "image_model_zoo" not in path.name:
            (packages / path.name).symlink_to(path)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    done = run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def program(environment, tmp_path):
    """Returns a function that runs a command in the environment, in an empty folder."""
    paths = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": paths}
    variables.pop("PYTHONPATH", None)

    def run_program(*arguments):
        return run(arguments, cwd=tmp_path, env=variables)

    return run_program


def test_it_has_all_files_of_data_and_one_package(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    folders = {name.split("/")[0] for name in packed}
    assert {name for name in folders if not name.endswith(".dist-info")} == {PACKAGE}
    packages = {name.split("/")[1] for name in packed if name.count("/") > 1}
    data = [
        name
        for name in tracked_files()
        if pathlib.Path(name).suffix in DATA and name.split("/")[0] in packages
    ]
    assert len(data) > 200
    assert {f"{PACKAGE}/{name}" for name in data} <= packed


def test_the_packages_have_no_other_name(program):
    code = "import image_model_zoo.zoo.config, sys; print('zoo.config' in sys.modules)"
    assert program("python", "-c", code).stdout == "False\n"
    for name in ("zoo", "reuse", "images", "foundation", "conformance"):
        assert f"No module named {name}" in program("python", "-m", name).stderr


def test_the_command_lists_its_commands(program):
    done = program("image-model-zoo", "--help")
    assert done.returncode == 0
    assert "\n  export     Exports each arch as a pair of SavedModels\n" in done.stdout
    unknown = program("image-model-zoo", "exprot")
    assert unknown.returncode == 2
    assert unknown.stderr == (
        "image-model-zoo: Unknown command 'exprot'. "
        "Did you mean 'export'? See --help.\n"
    )


def test_help_names_the_installed_command(program):
    help_text = program("image-model-zoo", "evaluate", "--help").stdout
    assert "image-model-zoo evaluate MODEL --data=SOURCE" in help_text
    assert "tools/" not in help_text


def test_a_missing_extra_is_named_for_pip(program, environment):
    (packages,) = environment.glob("lib/python3.*/site-packages")
    link = packages / "tensorboard"
    target = link.readlink()
    link.unlink()
    try:
        done = program(
            *("image-model-zoo", "train", f"--arch={ARCH}"),
            *("--recipe=digits", "--data=digits"),
        )
    finally:
        link.symlink_to(target)
    assert done.returncode == 2
    assert done.stderr == (
        "train: tensorboard is missing: run pip install image-model-zoo[train]\n"
    )


def test_the_extra_of_npm_is_named_for_npm(program):
    done = program("image-model-zoo", "publish", "nothing", "--hub=hub")
    assert done.returncode == 2
    assert "run npm install --prefix $VIRTUAL_ENV/web onnxruntime-web" in done.stderr


def test_export_check_and_use(program, tmp_path):
    gin = tmp_path / "mine.gin"
    gin.write_text("import zoo.model\nmodel.dropout_rate = 0.1\n")
    done = program(
        *("image-model-zoo", "export", f"--arch={ARCH}", f"--gin_file={gin}"),
        "--format=saved_model,onnx",
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "exports" / ARCH / "classification" / "1"
    command = [ROOT / "tools" / "export", f"--arch={ARCH}", f"--gin_file={gin}"]
    done = run([*command, "--check=none", f"--output={tmp_path / 'checkout'}"])
    assert done.returncode == 0, done.stderr
    checkout_folder = tmp_path / "checkout" / ARCH / "classification" / "1"
    assert contents(folder) == contents(checkout_folder)
    done = program("image-model-zoo", "check", folder, "--clauses=R,K")
    assert done.returncode == 0, done.stdout + done.stderr
    code = f"""
        import keras
        from image_model_zoo.reuse import KerasLayer
        layer = KerasLayer({str(folder)!r})
        print(layer(keras.ops.ones((1, 96, 96, 3))).shape)
    """
    done = program("python", "-c", textwrap.dedent(code))
    assert done.stdout == "(1, 1000)\n", done.stderr


def test_training_finds_its_recipe(program, tmp_path):
    done = program(
        *("image-model-zoo", "train", "--arch=resnet_cifar_20", "--recipe=digits"),
        *("--data=digits", "--gin_binding=training.run.epochs=1"),
    )
    assert done.returncode == 0, done.stderr
    weights = pathlib.Path(done.stdout.strip())
    assert (tmp_path / weights).name == "final.safetensors"


def test_pytest_checks_a_model_by_itself(program):
    done = program(
        *("python", "-m", "pytest", "-q", "--pyargs", "image_model_zoo.conformance"),
        "--saved-model=nowhere",
    )
    assert "--saved-model: " in done.stdout + done.stderr
    assert done.returncode == pytest.ExitCode.USAGE_ERROR


def test_another_project_s_tests_call_the_suite(program, tmp_path):
    (tmp_path / "model_test.py").write_text(
        textwrap.dedent("""
            import tensorflow as tf
            from image_model_zoo.conformance import suite

            def test_my_model(tmp_path):
                module = tf.Module()
                tf.saved_model.save(module, str(tmp_path))
                report = suite.check(tmp_path, kind="feature_vector", clauses=["F01"])
                assert [r.id for r in report.failed] == ["R02"]
        """)
    )
    done = program("python", "-m", "pytest", "-q", "model_test.py")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
