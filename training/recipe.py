"""Training recipes: loads them from gin files, whose root is `training.run`."""

from __future__ import annotations

import dataclasses
import pathlib
import typing

import gin

from foundation import messages
from training import optimizers, parameter_groups, schedules
from training.data import augmentation, tfrecords
from zoo import spec as specs

FOLDER = pathlib.Path(__file__).resolve().parent / "recipes"
PRECISIONS = ("float32", "bfloat16", "float16")
ROOT = "training.run"
_AUGMENTATION, _FEATURES = augmentation.Augmentation, tfrecords.Features


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Progression:
    """Progressive learning: image size and regularization grow during training.

    Training is divided into stages of equal length. From stage to stage, each value
    grows in equal steps from the first to the second value of its pair.

    Source: arXiv:2104.00298, section 4.2.

    Args:
      stages: number of stages.
      image_size: side of the training images in pixels.
      rand_augment_magnitude: see `Augmentation`.
      mixup_alpha: see `Augmentation`.
      dropout_rate: dropout rate of the head.
    """

    stages: int = 4
    image_size: tuple[int, int]
    rand_augment_magnitude: tuple[float, float]
    mixup_alpha: tuple[float, float] = (0.0, 0.0)
    dropout_rate: tuple[float, float]

    def __post_init__(self) -> None:
        specs.check_types(self, package="training")
        specs.check_range("training.Progression.stages", self.stages, 1, 1000)
        for side in self.image_size:
            specs.check_range("training.Progression.image_size", side, 8, 4096)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training with one image size.

    Attributes:
      first: first epoch, counted from 0.
      last: end of the stage: the epoch after its last one.
      image_size: side of the images in pixels; None for the spec's size.
      augmentation: augmentation in this stage.
      dropout_rate: dropout rate of the head; None for the model's rate.
    """

    first: int
    last: int
    image_size: int | None
    augmentation: augmentation.Augmentation
    dropout_rate: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training recipe; see `run` for the attributes."""

    batch_size: int
    epochs: int
    optimizer: optimizers.Optimizer
    schedule: schedules.Schedule
    augmentation: augmentation.Augmentation
    progression: Progression | None
    trainable: str
    layer_decay: float
    layer_decay_blocks: int
    label_smoothing: float
    ema_decay: float
    clip_norm: float
    accumulate: int
    precision: str
    synchronize_batch_norm: bool
    records: tfrecords.Features

    def stages(self) -> list[Stage]:
        """Returns the stages of the training, in order."""
        plan = self.progression
        if plan is None:
            return [
                Stage(
                    first=0,
                    last=self.epochs,
                    image_size=None,
                    augmentation=self.augmentation,
                    dropout_rate=None,
                )
            ]
        ends = [round(self.epochs * i / plan.stages) for i in range(plan.stages + 1)]

        def interpolate(pair: tuple[float, float], stage: int) -> float:
            return pair[0] + (pair[1] - pair[0]) * stage / max(plan.stages - 1, 1)

        return [
            Stage(
                first=ends[i],
                last=ends[i + 1],
                image_size=round(interpolate(plan.image_size, i)),
                augmentation=dataclasses.replace(
                    self.augmentation,
                    rand_augment_magnitude=interpolate(plan.rand_augment_magnitude, i),
                    mixup_alpha=interpolate(plan.mixup_alpha, i),
                ),
                dropout_rate=interpolate(plan.dropout_rate, i),
            )
            for i in range(plan.stages)
        ]


@gin.configurable("run", module="training")
def run(
    *,
    batch_size: int = gin.REQUIRED,
    epochs: int = gin.REQUIRED,
    optimizer: optimizers.Optimizer = gin.REQUIRED,
    schedule: schedules.Schedule = gin.REQUIRED,
    augmentation: augmentation.Augmentation = gin.REQUIRED,
    progression: Progression | None = None,
    trainable: str = parameter_groups.ALL,
    layer_decay: float = 1.0,
    layer_decay_blocks: int = 1,
    label_smoothing: float = 0.0,
    ema_decay: float = 0.0,
    clip_norm: float = 0.0,
    accumulate: int = 1,
    precision: str = "float32",
    synchronize_batch_norm: bool = False,
    records: tfrecords.Features | None = None,
) -> Recipe:
    """Creates the recipe; the gin root of the training package.

    Args:
      batch_size: images in a step, over all devices.
      epochs: passes over the data.
      optimizer: the optimizer, such as `@SGD()`.
      schedule: the learning-rate schedule, such as `@Cosine()`.
      augmentation: the augmentation, `@Augmentation()`.
      progression: `@Progression()` for progressive learning, or None.
      trainable: variables to train: `all`; `norms`, which are those of normalization
        layers and of the head; or `head`. The others keep their values. With `head`,
        moving statistics stay, too, and the backbone drops nothing.
      layer_decay: factor of the learning rate from one group of layers to the group
        below it (arXiv:2106.08254, section 3.2); 1 for the same rate in all layers.
      layer_decay_blocks: number of consecutive blocks of a stage in a group.
      label_smoothing: fraction of the label that is spread over all classes
        (arXiv:1512.00567, section 7).
      ema_decay: decay of the moving average of the weights. The averages are what is
        evaluated and saved as the final weights. 0 disables averaging.
      clip_norm: maximum global norm of the gradients; 0 disables clipping.
      accumulate: number of parts into which a device splits its images of a step. They
        are processed one after the other to save memory.
      precision: compute precision of the backbone: `float32`, `bfloat16` or `float16`.
        Variables, head and loss are always float32.
      synchronize_batch_norm: whether batch statistics are computed over all devices.
      records: the names of the fields in TFRecord examples; `@tfrecord()` by default.

    Raises:
      ValueError: a value has the wrong type or is out of range.
    """
    records = records or gin.get_configurable(_FEATURES)()
    recipe = Recipe(**locals())
    for field in dataclasses.fields(recipe):
        specs.check_type(
            f"{ROOT}.{field.name}", getattr(recipe, field.name), str(field.type)
        )
    for name, low, high in (
        ("batch_size", 1, 1 << 20),
        ("epochs", 1, 100_000),
        ("layer_decay", 0.01, 1.0),
        ("layer_decay_blocks", 1, 1000),
        ("label_smoothing", 0.0, 1.0),
        ("ema_decay", 0.0, 1.0),
        ("clip_norm", 0.0, 1e6),
        ("accumulate", 1, 1024),
    ):
        specs.check_range(f"{ROOT}.{name}", getattr(recipe, name), low, high)
    for name, kind, example in (
        ("optimizer", optimizers.Optimizer, "@SGD()"),
        ("schedule", schedules.Schedule, "@Cosine()"),
        ("augmentation", _AUGMENTATION, "@Augmentation()"),
        ("progression", Progression | None, "@Progression()"),
        ("records", _FEATURES, "@tfrecord()"),
    ):
        if not isinstance(getattr(recipe, name), kind):
            value = str(getattr(recipe, name))[:80]
            raise ValueError(
                f"{ROOT}.{name} must be a call, such as {example}, not {value}."
            )
    for name, choices in (
        ("precision", PRECISIONS),
        ("trainable", parameter_groups.TRAINABLE),
    ):
        if getattr(recipe, name) not in choices:
            raise ValueError(
                f"{ROOT}.{name} must be one of {', '.join(choices)}, not "
                f"{getattr(recipe, name)!r}."
            )
    return recipe


def names() -> list[str]:
    """Returns the recipe names that `--recipe` accepts."""
    return sorted(
        path.stem for path in FOLDER.iterdir() if path.is_dir() or path.suffix == ".gin"
    )


def find(name: str, arch: str) -> pathlib.Path:
    """Returns the path of the gin file of a recipe for an arch.

    Of the files `recipes/NAME/*.gin` whose stem is a prefix of `arch`, the one with the
    longest stem is chosen; if there is none, `recipes/NAME.gin`. A name that ends in
    `.gin` is the path of a file.

    Raises:
      ValueError: the recipe is unknown, or has no file for this arch.
    """
    if name.endswith(".gin"):
        return pathlib.Path(name)
    matches = [
        path for path in (FOLDER / name).glob("*.gin") if arch.startswith(path.stem)
    ]
    if matches:
        return max(matches, key=lambda path: len(path.stem))
    if (FOLDER / f"{name}.gin").is_file():
        return FOLDER / f"{name}.gin"
    if name in names():
        raise ValueError(f"The recipe {name!r} has no file for {arch!r}.")
    raise ValueError(
        f"Unknown recipe {name!r}.{messages.did_you_mean(name, names())} Known "
        f"recipes: {', '.join(names())}. The path of a gin file is also accepted."
    )


def bound() -> Recipe:
    """Returns the recipe that gin is bound to; see `zoo.config.bind`.

    Raises:
      ValueError: the recipe is invalid; the message is one line.
    """
    try:
        return typing.cast(Recipe, run())
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
