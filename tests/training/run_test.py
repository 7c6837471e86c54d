"""Runs of tools/train: training, resuming, refused requests and export."""

import json
import os
import pathlib
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import safetensors
import safetensors.numpy
import tensorflow as tf

from tests.training import recipe_test, starting_weights_test
from training import recipe, strategies
from zoo import taxonomy

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EPOCHS = 5
DIGITS = (
    "--arch=resnet_cifar_20",
    "--recipe=digits",
    "--data=digits",
    "--gin_binding=ResNetCifar.image_size=8",  # the size of scikit-learn's digits
    f"--gin_binding=training.run.epochs={EPOCHS}",
)


PROGRESSION = (
    "training.run.progression = @Progression()",
    "Progression.image_size = (128, 2048)",
    "Progression.rand_augment_magnitude = (0.0, 0.0)",
    "Progression.dropout_rate = (0.0, 0.0)",
)


@pytest.fixture(scope="module")
def trained(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "digits"
    done = tool("train", *DIGITS, f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder}/final.safetensors\n"
    return folder


def history_of(folder):
    return json.loads((folder / "history.json").read_text())


@pytest.mark.ci
def test_digits_are_learnt_and_exported(tool, trained, tmp_path):
    history = history_of(trained)
    accuracy = history["epochs"][-1]["test_top1"]
    assert accuracy > 0.9  # 0.94 to 0.99 with seeds 0 to 3
    weights = f"--weights={trained}/final.safetensors"
    output = f"--output={tmp_path}"
    done = tool("export", "--arch=resnet_cifar_20", weights, output, "--check=none")
    assert done.returncode == 0, done.stderr
    assert "RANDOM" not in done.stderr
    model = tmp_path / "resnet_cifar_20" / "classification" / "1"
    plot = tmp_path / "confusion.png"
    evaluated = tool(
        *("evaluate", model, "--data=digits", "--format=json", f"--plot={plot}")
    )
    report = json.loads(evaluated.stdout)
    assert report["top1"] == pytest.approx(accuracy, abs=1e-9)
    assert report["examples"] == 360
    assert report["top5"] >= report["top1"]
    assert [c["name"] for c in report["per_class"]][:2] == ["zero", "one"]
    with PIL.Image.open(plot) as image:
        assert image.size > (400, 400)


@pytest.mark.ci
def test_predictions_never_replace_the_data(tool, trained, tmp_path):
    table = tmp_path / "data.csv"
    table.write_text("path,label\n")
    weights = f"--weights={trained / 'final.safetensors'}"
    done = tool(
        *("evaluate", "resnet_cifar_20", weights),
        *(f"--data=csv:{table}", f"--predictions={table}"),
    )
    assert done.returncode == 2
    assert done.stderr == f"evaluate: --predictions={table} would replace the data.\n"
    assert table.read_text() == "path,label\n"


@pytest.mark.ci
def test_evaluate_takes_an_arch_with_weights(tool, trained):
    weights = f"--weights={trained}/final.safetensors"
    done = tool("evaluate", "resnet_cifar_20", weights, "--data=digits")
    assert done.returncode == 0, done.stderr
    top1 = history_of(trained)["epochs"][-1]["test_top1"]
    assert f"{'top1':22s} {top1:8.4f}" in done.stdout


@pytest.mark.ci
def test_history_says_what_it_was(trained):
    history = history_of(trained)
    assert history["examples"] == {"train": 1437, "test": 360}
    assert [e["epoch"] for e in history["epochs"]] == list(range(1, EPOCHS + 1))
    assert history["epochs"][-1]["step"] == history["steps"] == EPOCHS * 22
    assert history["resumed"] == []
    assert "run.batch_size = 64" in history["recipe"]
    assert set(history["packages"]) >= {"tensorflow", "keras"}
    assert history["hardware"]["cores"] >= 1
    with safetensors.safe_open(trained / "final.safetensors", "numpy") as file:
        (text,) = file.metadata().values()
    record = json.loads(text)
    assert record["taxonomy"] == "digits"
    assert record["metrics"]["test_top1"] == history["epochs"][-1]["test_top1"]
    with PIL.Image.open(trained / "curves.png") as image:
        assert image.size > (800, 300)
    names = {
        value.tag
        for path in (trained / "logs").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert names >= {"epoch/test_top1", "step/loss", "step/images_per_second"}
    assert "augmented" in names
    checkpoints = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert len(checkpoints) == 4
    assert checkpoints[0] == "best.safetensors"


@pytest.mark.ci
def test_the_averages_are_evaluated_and_kept(tool, tmp_path):
    done = tool(
        *("train", *DIGITS, f"--model_dir={tmp_path}"),
        *("--gin_binding=training.run.epochs=1", "--gin_binding=run.ema_decay=0.8"),
    )
    assert done.returncode == 0, done.stderr
    (checkpoint,) = tmp_path.glob("checkpoints/step-*.safetensors")
    state = safetensors.numpy.load_file(checkpoint)
    final = safetensors.numpy.load_file(tmp_path / "final.safetensors")
    averages = [state[f"averages/{number}"] for number in range(len(final))]
    kept = {value.tobytes() for value in final.values()}
    assert kept == {value.tobytes() for value in averages}
    assert not np.array_equal(
        final["stem/conv/kernel"], state["weights/stem/conv/kernel"]
    )
    evaluated = tool(
        *("evaluate", "resnet_cifar_20", f"--weights={tmp_path}/final.safetensors"),
        *("--data=digits", "--format=json"),
    )
    test_top1 = history_of(tmp_path)["epochs"][-1]["test_top1"]
    assert json.loads(evaluated.stdout)["top1"] == pytest.approx(test_top1, abs=1e-9)


@pytest.mark.ci
def test_a_head_is_trained_on_public_weights(tool, tmp_path):
    """The weights file keeps all else to the bit, and says where it is from."""
    arguments = [
        *("train", *DIGITS[:3], "--weights=fashion_mnist", f"--model_dir={tmp_path}"),
        *("--gin_binding=training.run.epochs=1", "--gin_binding=run.layer_decay=0.8"),
        "--gin_binding=training.run.trainable='head'",
    ]
    done = tool(*arguments)
    assert done.returncode == 0, done.stderr
    assert "start from weights 'fashion_mnist', with a new head for 10" in done.stderr
    with safetensors.safe_open(tmp_path / "final.safetensors", "numpy") as file:
        (text,) = file.metadata().values()
        final = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    start = safetensors.numpy.load_file(starting_weights_test.WEIGHTS)
    assert starting_weights_test.different(final, start) == starting_weights_test.HEAD
    assert "from weights 'fashion_mnist'" in json.loads(text)["source"]
    other = [a for a in arguments if not a.startswith("--weights")]
    done = tool(*other)
    assert done.returncode == 2
    assert "holds a training job that differs in" in done.stderr
    assert "weights" in done.stderr


@pytest.mark.slow
def test_without_images_to_test_on_it_says_so(tool, tmp_path):
    rows = ["path,label,split"]
    for number in range(8):
        PIL.Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]},train")
    table = tmp_path / "some.csv"
    table.write_text("\n".join(rows))
    done = tool(
        *("train", "--arch=resnet_cifar_20", "--recipe=digits", f"--data=csv:{table}"),
        *(f"--model_dir={tmp_path / 'made'}", "--gin_binding=ResNetCifar.image_size=8"),
        "--gin_binding=training.run.epochs=1",
        "--gin_binding=training.run.batch_size=4",
    )
    assert done.returncode == 0, done.stderr
    assert "the data has no test split: accuracy is not measured" in done.stderr


@pytest.mark.ci
def test_a_finished_training_is_recognised(tool, trained):
    done = tool("train", *DIGITS, f"--model_dir={trained}")
    assert done.returncode == 0
    assert "training is already complete" in done.stderr


def start(folder, *arguments):
    command = [sys.executable, ROOT / "tools" / "train", *DIGITS, *arguments]
    return subprocess.Popen(
        [*command, f"--model_dir={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_stopped_by_a_signal_it_goes_on_from_there(tool, trained, tmp_path, number):
    """Stops in mid-epoch; the weights equal those of an uninterrupted training."""
    folder = tmp_path / "run"
    process = start(folder)
    for line in process.stderr:
        if "epoch 1/" in line:
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = errors.splitlines()[-1]
    assert last.startswith("train: stopped at step ")
    step = int(last.split()[4].rstrip(":"))
    assert 22 <= step < EPOCHS * 22
    done = tool("train", *DIGITS, f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {step} of {EPOCHS * 22}" in done.stderr
    assert history_of(folder)["resumed"] == [step]
    assert same_weights(folder, trained)


def same_weights(folder, other):
    first, second = (f / "final.safetensors" for f in (folder, other))
    return first.read_bytes() == second.read_bytes()


JAX = ("--backend=jax", "--gin_binding=training.run.epochs=2")


@pytest.fixture(scope="module")
def trained_on_jax(tool, tmp_path_factory):
    pytest.importorskip("jax", reason="tools/setup jax", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("trained") / "jax"
    done = tool("train", *DIGITS, *JAX, f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_what_jax_trained_is_exported(tool, trained_on_jax, tmp_path):
    history = history_of(trained_on_jax)
    assert history["backend"] == "jax"
    # The ratio is 0.51 with seed 0; without learning, it would be about 1.
    assert history["epochs"][-1]["loss"] < 0.7 * history["epochs"][0]["loss"]
    weights = f"--weights={trained_on_jax}/final.safetensors"
    arguments = ("--arch=resnet_cifar_20", weights, f"--output={tmp_path}")
    done = tool("export", *arguments, "--check=none")
    assert done.returncode == 0, done.stderr
    model = tmp_path / "resnet_cifar_20" / "classification" / "1"
    done = tool("evaluate", model, "--data=digits", "--format=json")
    report, last = json.loads(done.stdout), history["epochs"][-1]
    assert report["top1"] == pytest.approx(last["test_top1"], abs=1e-9)
    assert report["loss"] == pytest.approx(last["test_loss"], rel=1e-4)


def test_jax_has_one_device(tool, trained_on_jax, tmp_path):
    folder = f"--model_dir={tmp_path / 'run'}"
    done = tool("train", *DIGITS, *JAX, folder, "--strategy=mirrored")
    assert_refused(done, "Several devices need Keras' TensorFlow backend, not jax")


@pytest.mark.slow
def test_jax_goes_on_where_it_was_stopped(tool, trained_on_jax, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, *JAX)
    for line in process.stderr:
        if "epoch 1/" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    done = tool("train", *DIGITS, *JAX, f"--model_dir={folder}")
    assert "resuming at step" in done.stderr
    assert same_weights(folder, trained_on_jax)
    done = tool("train", *DIGITS, JAX[1], f"--model_dir={folder}")
    assert_refused(done, "differs in backend: choose another")


@pytest.mark.slow
def test_killed_at_five_moments_it_ends_with_the_same_weights(tool, trained, tmp_path):
    folder = tmp_path / "run"
    checkpoint_steps = "--checkpoint_steps=3"
    kills = 0
    while kills < 5:
        process = start(folder, checkpoint_steps)
        for line in process.stderr:
            if "resuming" in line or "epoch" in line:
                break
        try:
            process.wait(timeout=random.uniform(0.2, 3))
            break  # it finished before it was killed
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    done = tool("train", *DIGITS, checkpoint_steps, f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    resumed = history_of(folder)["resumed"]
    assert resumed == sorted(resumed)
    assert len(resumed) >= min(kills, 1)
    assert same_weights(folder, trained)


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tool, trained, tmp_path):
    folder = pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
    (folder / "final.safetensors").unlink()
    last = max((folder / "checkpoints").glob("step-*"))
    last.write_bytes(last.read_bytes()[:1000])
    done = tool("train", *DIGITS, f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert f"skipped the checkpoint {last}, which can't be read" in done.stderr
    assert f"resuming at step {(EPOCHS - 1) * 22} of" in done.stderr
    assert same_weights(folder, trained)


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_it(tool, tmp_path):
    done = tool(
        "train",
        *DIGITS,
        "--gin_binding=Cosine.peak=1000.0",
        "--gin_binding=Cosine.warmup_epochs=0.0",
        "--gin_binding=model.weight_decay=1.0",
        f"--model_dir={tmp_path / 'run'}",
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "the loss is " in last
    assert "where the learning rate is 99" in last
    assert "last good checkpoint" in last


def assert_refused(done, message):
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("train: ")
    assert message in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data="], "--data is missing"),
        (["--recipe=digit"], "Did you mean 'digits'?"),
        (["--arch=resnet"], "Unknown arch 'resnet'"),
        (["--data={tmp}/nothing"], "is not a folder"),
        (["--gin_binding=training.run.accumulate=3"], "batch_size must be a multiple"),
        (["--gin_binding=training.run.batch_size=2000"], "only 1437 examples to"),
        (["--model_dir={tmp}/file"], "File exists"),
        (
            ["--gin_binding=ResNetCifar.image_size=2"],
            "must be in the height_range of resnet_cifar_20, 4 to 1024, not 2.",
        ),
        (
            [f"--gin_binding={binding}" for binding in PROGRESSION],
            "training.Progression.image_size must be in the height_range of "
            "resnet_cifar_20, 4 to 1024, not 2048.",
        ),
    ],
)
def test_bad_requests_are_a_line(tool, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    command_line = [argument.format(tmp=tmp_path) for argument in arguments]
    if not any(argument.startswith("--model_dir") for argument in command_line):
        command_line.append(f"--model_dir={tmp_path / 'run'}")
    assert_refused(tool("train", *DIGITS, *command_line), message)
    assert not (tmp_path / "run").exists()


def test_images_do_not_grow_if_the_network_takes_one_size(tool, tmp_path):
    bindings = ["MLPMixer.depth = 1", "training.run.epochs = 1", *PROGRESSION]
    done = tool(
        *("train", "--arch=mlp_mixer_small_32", "--recipe=digits", "--data=digits"),
        *(f"--gin_binding={binding}" for binding in bindings),
        f"--model_dir={tmp_path / 'run'}",
    )
    message = (
        "training.Progression.image_size must be 224, not 128: mlp_mixer_small_32 "
        "takes images of one size."
    )
    assert_refused(done, message)
    assert not (tmp_path / "run").exists()


@pytest.mark.ci
def test_another_training_does_not_go_on_from_this_one(tool, trained):
    done = tool("train", *DIGITS, "--seed=1", f"--model_dir={trained}")
    assert_refused(done, "differs in seed: choose another")


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["run.augmentation=None"], "training.run.augmentation must be a call, such"),
        (["run.progression=3"], "training.run.progression must be a call, such a"),
        (["run.synchronize_batch_norm='no'"], "must be True or False, not 'no'"),
        (["SGD.nesterov='x'"], "training.SGD.nesterov must be True or False, not 'x'"),
        (["Augmentation.flip='no'"], "training.Augmentation.flip must be True or"),
        (["Augmentation.area=0.5"], "Augmentation.area must be a tuple of two values"),
        (["Augmentation.area=(0.0, 0.0)"], "Augmentation.area must be (smallest, l"),
        (["Augmentation.aspect=(2.0, 1.0)"], "Augmentation.aspect must be (smallest,"),
        (["Augmentation.rand_augment_layers=-1"], "must be an integer in [0, 100]"),
        (
            [
                "run.schedule=@Steps()",
                "Steps.factor=0.1",
                "Steps.peak=0.1",
                "Steps.after_epochs=30",
            ],
            "training.Steps.after_epochs must be a tuple of any number of values",
        ),
    ],
)
def test_values_of_another_kind_are_a_line(bindings, message):
    """Loads recipes directly, because starting the tool takes seconds."""
    gin_bindings = [f"training.{b}" if b.startswith("run.") else b for b in bindings]
    path = recipe.find("digits", "resnet_cifar_20")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        recipe_test.load_file("resnet_cifar_20", path, gin_bindings=gin_bindings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"TF_CONFIG": '{"cluster":{"worker":["a","b"]},"task":3}'},
            "TF_CONFIG must have a cluster",
        ),
        (
            {
                "TF_CONFIG": '{"cluster":{"ps":["a"],"worker":["b"]},'
                '"task":{"type":"worker","index":0}}'
            },
            "tasks of type 'ps' are not supported",
        ),
        ({"SLURM_STEP_NUM_TASKS": "abc"}, "SLURM_STEP_NUM_TASKS must be a number"),
        (
            {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},
            "SLURM_STEP_NODELIST is not set",
        ),
    ],
)
def test_variables_that_make_no_cluster_are_a_line(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=re.escape(message)):
        strategies.make("auto")


def test_other_backends_of_keras_are_passed_over(tool):
    """KERAS_BACKEND may be set for other programs."""
    for name in ("torch", ""):
        done = tool("train", "--help", env={**os.environ, "KERAS_BACKEND": name})
        assert done.returncode == 0, done.stderr


@pytest.fixture
def copied(trained, tmp_path):
    """Returns a copy of the finished training's folder."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    return folder


@pytest.mark.ci
def test_where_no_checkpoint_can_be_read_nothing_is_overwritten(tool, trained, copied):
    for path in (copied / "checkpoints").iterdir():
        path.write_bytes(b"x")
    done = tool("train", *DIGITS, f"--model_dir={copied}")
    assert_refused(done, "None of the checkpoints in")
    assert same_weights(copied, trained)


@pytest.mark.slow
def test_damaged_weights_of_a_finished_training_are_made_again(tool, trained, copied):
    (copied / "final.safetensors").write_bytes(b"x")
    done = tool("train", *DIGITS, f"--model_dir={copied}")
    assert done.returncode == 0
    assert "training is already complete" in done.stderr
    assert same_weights(copied, trained)


@pytest.mark.slow
def test_steps_that_float16_skips_are_steps(tool, tmp_path):
    """The first steps overflow, because the loss scale starts high."""
    arguments = (
        *("train", *DIGITS, f"--model_dir={tmp_path / 'run'}"),
        "--gin_binding=training.run.epochs=1",
        "--gin_binding=training.run.precision='float16'",
        "--gin_binding=training.run.batch_size=4",
        "--gin_binding=Cosine.peak=0.01",
    )
    assert tool(*arguments).returncode == 0
    first = (tmp_path / "run" / "final.safetensors").read_bytes()
    done = tool(*arguments)
    assert "training is already complete" in done.stderr
    assert (tmp_path / "run" / "final.safetensors").read_bytes() == first
    assert len(history_of(tmp_path / "run")["epochs"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["2> >(head -n 1 >/dev/null)", "2>&-"])
def test_it_goes_on_where_nobody_reads_what_it_says(tmp_path, ending):
    arguments = [
        *DIGITS,
        "--gin_binding=training.run.epochs=1",
        f"--model_dir={tmp_path}",
    ]
    command = shlex.join([sys.executable, str(ROOT / "tools" / "train"), *arguments])
    done = subprocess.run(
        ["bash", "-c", f"{command} {ending}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/final.safetensors\n"
    assert (tmp_path / "final.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2_000, 1_000_000])
def test_a_full_disk_is_a_line_and_it_goes_on(tool, trained, tmp_path, limit):
    """Limits the size of files, so that writing the logs or a checkpoint fails."""
    folder = tmp_path / "run"
    done = tool(
        *("train", *DIGITS, f"--model_dir={folder}"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert_refused(done, str(folder))
    assert "File too large" in done.stderr.splitlines()[-1]
    assert not list(folder.glob("checkpoints/*"))
    assert not (folder / "final.safetensors").exists()
    if limit > 2_000:
        done = tool("train", *DIGITS, f"--model_dir={folder}")
        assert done.returncode == 0, done.stderr
        assert same_weights(folder, trained)


@pytest.mark.ci
def test_one_folder_is_for_one_training(tool, trained):
    handle = os.open(trained, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
        done = tool("train", *DIGITS, f"--model_dir={trained}")
    finally:
        os.close(handle)
    assert_refused(done, "Another training job is using")


@pytest.mark.slow
def test_a_thousand_classes_of_one_s_own_travel_with_the_weights(tool, tmp_path):
    """Trains on a folder, exports, exports the export again, and predicts."""
    unusual_names = [
        '"quoted"',
        "it's",
        "[a, b]",
        "line\nend",
        "tab\there",
        "back\\nslash",
    ]
    unusual_names += ["=#%{}", "$x^2$", "\u2028", "\x1b[31mred", "日本語", "n" * 250]
    names = sorted([*unusual_names, *(f"class number {i}" for i in range(1000 - 12))])
    for label, name in enumerate(names):
        folder = tmp_path / "flowers" / name
        folder.mkdir(parents=True)
        color = (label // 4, label % 4 * 80, 128)
        PIL.Image.new("RGB", (12, 16), color).save(folder / "1.jpg")
    (tmp_path / "flowers" / names[4] / "1.jpg").write_bytes(b"no picture")
    common = ["--arch=resnet_cifar_20", f"--data={tmp_path}/flowers"]
    done = tool(
        "train",
        *common,
        "--recipe=digits",
        "--gin_binding=training.run.epochs=1",
        "--gin_binding=training.run.batch_size=100",
        "--gin_binding=ResNetCifar.image_size=16",
        f"--model_dir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    unreadable = history_of(tmp_path / "run")["unreadable"]
    assert unreadable == [str(tmp_path / "flowers" / names[4] / "1.jpg")]
    weights = f"{tmp_path}/run/final.safetensors"
    for number in (1, 2):
        output = tmp_path / str(number)
        arguments = [f"--weights={weights}", f"--output={output}", "--check=none"]
        exported = tool("export", common[0], *arguments)
        assert exported.returncode == 0, exported.stderr
        weights = output / "resnet_cifar_20" / "classification" / "1"
        class_index = taxonomy.read_tsv(weights / "assets" / "class_index.tsv")
        assert [definition.name for definition in class_index] == names
        assert [definition.id for definition in class_index] == names
    assert not list((tmp_path / "2").glob("*/feature_vector/1/assets/class_index.tsv"))
    photograph = tmp_path / "flowers" / names[7] / "1.jpg"
    done = tool("predict", weights, photograph, "--format=json")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)
    assert [names[p["index"]] for p in entry["predictions"]] == [
        p["name"] for p in entry["predictions"]
    ]
