"""How to train: what a recipe's gin file binds. `training.run` is the room's root."""

from __future__ import annotations

import dataclasses
import pathlib
import typing
from collections.abc import Sequence

import gin

from common import messages
from training import optimizers, schedules
from training.data import augmentation, tfrecords
from zoo import config
from zoo import spec as specs

FOLDER = pathlib.Path(__file__).resolve().parent / "recipes"
PRECISIONS = ("float32", "bfloat16", "float16")
ROOT = "training.run"
_AUGMENTATION, _FEATURES = augmentation.Augmentation, tfrecords.Features


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Progression:
    """Images that grow, with augmentation and dropout (arXiv:2104.00298, section 4.2).

    Training is cut into `stages` of equal length; each value goes from its first to
    its second in equal steps.

    Args:
      stages: number of them.
      image_size: of training, pixels.
      rand_augment_magnitude: see `Augmentation`.
      mixup_alpha: see `Augmentation`.
      dropout_rate: of the head.
    """

    stages: int = 4
    image_size: tuple[int, int]
    rand_augment_magnitude: tuple[float, float]
    mixup_alpha: tuple[float, float] = (0.0, 0.0)
    dropout_rate: tuple[float, float]

    def __post_init__(self) -> None:
        specs.check_kinds(self, room="training")
        specs.check_range("training.Progression.stages", self.stages, 1, 1000)
        for side in self.image_size:
            specs.check_range("training.Progression.image_size", side, 8, 4096)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training in which images have one size.

    Attributes:
      first: epoch.
      last: epoch, not in it.
      image_size: pixels; None is the spec's.
      augmentation: of it.
      dropout_rate: of the head; None is the model's.
    """

    first: int
    last: int
    image_size: int | None
    augmentation: augmentation.Augmentation
    dropout_rate: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; see `run`."""

    batch_size: int
    epochs: int
    optimizer: optimizers.Optimizer
    schedule: schedules.Schedule
    augmentation: augmentation.Augmentation
    progression: Progression | None
    label_smoothing: float
    ema_decay: float
    clip_norm: float
    accumulate: int
    precision: str
    synchronize_batch_norm: bool
    records: tfrecords.Features

    def stages(self) -> list[Stage]:
        """The parts of the training, in order."""
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

        def between(pair: tuple[float, float], stage: int) -> float:
            return pair[0] + (pair[1] - pair[0]) * stage / max(plan.stages - 1, 1)

        return [
            Stage(
                first=ends[i],
                last=ends[i + 1],
                image_size=round(between(plan.image_size, i)),
                augmentation=dataclasses.replace(
                    self.augmentation,
                    rand_augment_magnitude=between(plan.rand_augment_magnitude, i),
                    mixup_alpha=between(plan.mixup_alpha, i),
                ),
                dropout_rate=between(plan.dropout_rate, i),
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
    label_smoothing: float = 0.0,
    ema_decay: float = 0.0,
    clip_norm: float = 0.0,
    accumulate: int = 1,
    precision: str = "float32",
    synchronize_batch_norm: bool = False,
    records: tfrecords.Features | None = None,
) -> Recipe:
    """The one gin root of this room.

    Args:
      batch_size: images in a step, of all devices together.
      epochs: passes over the data.
      optimizer: such as `@SGD()`.
      schedule: of the learning rate, such as `@Cosine()`.
      augmentation: `@Augmentation()`.
      progression: `@Progression()`, for images that grow; or None.
      label_smoothing: share of a label that all classes share (arXiv:1512.00567,
        section 7).
      ema_decay: of the moving average of the weights, which is what is kept and
        evaluated; 0 is none.
      clip_norm: largest common norm of the gradients; 0 is any.
      accumulate: parts in which a device takes its images of a step, one after the
        other, to need less memory.
      precision: of the backbone's arithmetic: `float32`, `bfloat16` or `float16`.
        Variables, head and loss are float32 always.
      synchronize_batch_norm: whether batch statistics are those of all devices.
      records: what the fields of TFRecord examples are called; the default is
        `@tfrecord()`.
    """
    records = records or gin.get_configurable(_FEATURES)()
    found = Recipe(**locals())
    for field in dataclasses.fields(found):
        specs.check_kind(
            f"{ROOT}.{field.name}", getattr(found, field.name), str(field.type)
        )
    for name, low, high in (
        ("batch_size", 1, 1 << 20),
        ("epochs", 1, 100_000),
        ("label_smoothing", 0.0, 1.0),
        ("ema_decay", 0.0, 1.0),
        ("clip_norm", 0.0, 1e6),
        ("accumulate", 1, 1024),
    ):
        specs.check_range(f"{ROOT}.{name}", getattr(found, name), low, high)
    for name, kind, call in (
        ("optimizer", optimizers.Optimizer, "@SGD()"),
        ("schedule", schedules.Schedule, "@Cosine()"),
        ("augmentation", _AUGMENTATION, "@Augmentation()"),
        ("progression", Progression | None, "@Progression()"),
        ("records", _FEATURES, "@tfrecord()"),
    ):
        if not isinstance(getattr(found, name), kind):
            value = str(getattr(found, name))[:80]
            raise ValueError(
                f"{ROOT}.{name} must be a call, such as {call}, not {value}."
            )
    if precision not in PRECISIONS:
        raise ValueError(
            f"{ROOT}.precision must be one of {', '.join(PRECISIONS)}, not "
            f"{precision!r}."
        )
    return found


def names() -> list[str]:
    """What `--recipe` takes."""
    return sorted(
        path.stem for path in FOLDER.iterdir() if path.is_dir() or path.suffix == ".gin"
    )


def find(name: str, arch: str) -> pathlib.Path:
    """The gin file of a recipe: the arch's own, its family's, or one for all.

    Of `recipes/NAME/*.gin`, the one with the longest stem that `arch` begins with;
    else `recipes/NAME.gin`. A path of a gin file is one, too.

    Raises:
      ValueError: there is none.
    """
    if name.endswith(".gin"):
        return pathlib.Path(name)
    fitting = [
        path for path in (FOLDER / name).glob("*.gin") if arch.startswith(path.stem)
    ]
    if fitting:
        return max(fitting, key=lambda path: len(path.stem))
    if (FOLDER / f"{name}.gin").is_file():
        return FOLDER / f"{name}.gin"
    if name in names():
        raise ValueError(f"The recipe {name!r} has no part for {arch!r}.")
    raise ValueError(
        f"Unknown recipe {name!r}.{messages.did_you_mean(name, names())} There are: "
        f"{', '.join(names())}; and any gin file by its path."
    )


@dataclasses.dataclass(frozen=True)
class Bound:
    """A recipe, and what was bound for it."""

    recipe: Recipe
    text: str


def load(
    arch: str,
    path: pathlib.Path,
    *,
    gin_bindings: Sequence[str] = (),
    trust_gin_imports: bool = False,
) -> Bound:
    """Reads a recipe for an arch.

    Raises:
      ValueError: it is not usable; the message is one line.
    """
    with config.bound(
        arch,
        gin_files=[str(path)],
        gin_bindings=gin_bindings,
        trust_gin_imports=trust_gin_imports,
        roots=("model", ROOT),
    ) as bound:
        try:
            found = typing.cast(Recipe, run())
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(str(error).splitlines()[0]) from error
    return Bound(found, bound.text)
