"""Training recipes: loading, sources, schedules, stages and error messages."""

import keras
import numpy as np
import pytest

from training import recipe, schedules
from zoo import config, facts

ARCHS = sorted(config.config_files())
RECIPES = sorted(recipe.FOLDER.glob("**/*.gin"))


def load(name, arch, **kwargs):
    return load_file(arch, recipe.find(name, arch), **kwargs)


def load_file(arch, path, **kwargs):
    texts = config.gin_texts(arch, gin_files=[str(path)], **kwargs)
    with config.bind(texts, roots=("model", recipe.ROOT)):
        return recipe.bound()


@pytest.mark.parametrize("arch", ARCHS)
def test_every_arch_of_imagenet_has_a_recipe(arch):
    if facts.load(arch)["num_classes"]["value"] != 1000:
        with pytest.raises(ValueError, match=f"'imagenet' has no file for '{arch}'"):
            recipe.find("imagenet", arch)
        return
    path = recipe.find("imagenet", arch)
    assert arch.startswith(path.stem)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_usable_and_says_where_it_is_from(path):
    archs = [a for a in ARCHS if a.startswith(path.stem)] or ["resnet_cifar_20"]
    bound_recipe = load_file(archs[0], path)
    stages = bound_recipe.stages()
    assert [s.first for s in stages] == [0, *(s.last for s in stages[:-1])]
    assert stages[-1].last == bound_recipe.epochs
    head = path.read_text(encoding="utf-8").split("import")[0]
    assert all(line.startswith("#") or not line for line in head.splitlines())
    if path.parent.name.startswith("imagenet"):
        assert "published" in head
        assert "%" in head
        assert "epochs" in head


def test_stages_grow_as_the_paper_s_table_says():
    """Source: arXiv:2104.00298, table 6: EfficientNetV2-S in four stages."""
    stages = load("imagenet", "efficientnet_v2_s").stages()
    assert [s.image_size for s in stages] == [128, 185, 243, 300]
    magnitudes = [s.augmentation.rand_augment_magnitude for s in stages]
    np.testing.assert_allclose(magnitudes, [5, 25 / 3, 35 / 3, 15])
    np.testing.assert_allclose(
        [s.dropout_rate for s in stages], [0.1, 1 / 6, 7 / 30, 0.3]
    )


def rates(schedule, steps, *, batch_size=512, steps_per_epoch=10, epochs=20):
    learning_rate = schedule.by_step(
        batch_size=batch_size, steps_per_epoch=steps_per_epoch, epochs=epochs
    )
    return [float(learning_rate(step)) for step in steps]


def test_schedules_by_hand():
    cosine = schedules.Cosine(peak=0.1, per_batch=256, warmup_epochs=2.0)
    learning_rates = rates(cosine, [0, 10, 20, 110, 200])
    np.testing.assert_allclose(learning_rates, [0, 0.1, 0.2, 0.1, 0], atol=1e-6)
    linear = schedules.Linear(peak=0.5, warmup_epochs=2.0)
    learning_rates = rates(linear, [0, 10, 20, 110, 200])
    np.testing.assert_allclose(learning_rates, [0, 0.25, 0.5, 0.25, 0], atol=1e-6)
    stairs = schedules.Exponential(peak=1.0, factor=0.5, every_epochs=2.4)
    np.testing.assert_allclose(rates(stairs, [0, 23, 24, 48]), [1, 1, 0.5, 0.25])
    steps = schedules.Steps(peak=1.0, factor=0.1, after_epochs=(3.0, 6.0))
    np.testing.assert_allclose(rates(steps, [29, 30, 60]), [1, 0.1, 0.01], rtol=1e-6)
    assert rates(schedules.Constant(peak=0.3), [0, 99]) == pytest.approx([0.3, 0.3])


def test_cosine_is_that_of_keras():
    cosine = schedules.Cosine(peak=0.4, warmup_epochs=1.0)
    keras_schedule = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=190, warmup_target=0.4, warmup_steps=10
    )
    steps = range(0, 200, 7)
    expected = [float(keras_schedule(step)) for step in steps]
    np.testing.assert_allclose(rates(cosine, steps), expected, atol=1e-6)


def test_a_recipe_may_be_a_file_of_one_s_own(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text(recipe.find("digits", "resnet_cifar_20").read_text())
    assert load(str(path), "resnet_cifar_20").epochs == 30


@pytest.mark.parametrize(
    ("name", "binding", "message"),
    [
        ("digit", "", "Unknown recipe 'digit'. Did you mean 'digits'?"),
        (
            "digits",
            "training.run.epochs=0",
            "training.run.epochs must be an integer in",
        ),
        ("digits", "training.run.epoch=3", "Did you mean 'epochs'?"),
        ("digits", "AdamW.beta_1=0.5", "would have no effect"),
        ("digits", "training.run.optimizer='SGD'", "must be a call, such as @SGD()"),
        ("digits", "training.run.optimizer=@SGD", "must be a call, such as @SGD()"),
        ("digits", "training.run.precision='int8'", "must be one of float32, bfloat16"),
        ("digits", "training.run.trainable='body'", "must be one of all, norms, head"),
        ("digits", "training.run.layer_decay=1.5", "layer_decay must be a number in"),
        ("digits", "Cosine.peak='high'", "Cosine.peak must be a number"),
        ("digits", "Augmentation.crop='up'", "crop must be one of"),
        ("digits", "MobileNetV2.width_multiplier=1.0", "MobileNetV2"),
    ],
)
def test_what_can_not_be_meant_is_told_in_a_line(name, binding, message):
    with pytest.raises(ValueError, match=".") as caught:
        load(name, "resnet_cifar_20", gin_bindings=[binding] if binding else [])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "decay", "blocks"),
    [
        ("convnext_base", 0.8, 3),
        ("convnext_v2_base", 0.6, 3),
        ("convnext_v2_tiny", 0.9, 1),
        ("convnext_v2_atto", 0.9, 1),
        ("vit_base_16", 1.0, 1),
        ("deit3_base_16", 1.0, 1),
    ],
)
def test_fine_tuning_decays_from_layer_to_layer_as_published(arch, decay, blocks):
    """Source: TRAINING.md of facebookresearch/ConvNeXt and of ConvNeXt-V2."""
    bound_recipe = load("imagenet_fine_tuning", arch)
    assert bound_recipe.layer_decay == decay
    assert bound_recipe.layer_decay_blocks == blocks


def test_another_optimizer_is_a_binding_away():
    bindings = ["training.run.optimizer = @AdamW()", "AdamW.weight_decay = 0.1"]
    bound_recipe = load("digits", "resnet_cifar_20", gin_bindings=bindings)
    assert bound_recipe.optimizer.decoupled_decay == 0.1


def test_an_export_takes_no_bindings_of_training():
    with (
        pytest.raises(ValueError, match="would have no effect"),
        config.bind(
            config.gin_texts(
                "mobilenet_v2",
                gin_bindings=["import training.recipe", "training.run.epochs = 3"],
            )
        ),
    ):
        pass
