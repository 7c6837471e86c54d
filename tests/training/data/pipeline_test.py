"""Batches of images: reproducible from a seed, on any worker and from any step."""

import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from images import model_input
from tests.training.data import folders_test
from training.data import (
    augmentation,
    data_sources,
    pipeline,
    randomness,
    reading,
    split,
)

PLAIN = augmentation.Augmentation()


def stream_of(examples, *, batch_size=4, size=8, num_classes=None, limit=0.0):
    number = num_classes or len(examples.classes)
    return pipeline.Stream(
        split=examples,
        num_classes=number,
        preprocessing=model_input.Preprocessing(
            height=size, width=size, interpolation="bilinear"
        ),
        batch_size=batch_size,
        unreadable_images=pipeline.UnreadableImages(
            examples, num_classes=number, limit=limit
        ),
    )


def numbered(size=22):
    """Returns a split in which each image's pixels are the number of the example."""
    images = np.repeat(np.arange(size, dtype=np.uint8), 64).reshape(size, 8, 8)
    labels = np.arange(size) % 10
    return split.pixel_split(
        images, labels, source="numbered", name="train", taxonomy="digits"
    )


def batches(stream, first, last, augment=PLAIN, seed=3, **shard):
    dataset = stream.training(
        first=first,
        last=last,
        seed=seed,
        augment=augment,
        shard=pipeline.Shard(**shard),
    )
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def numbers(pairs):
    return [
        np.rint(images[:, 0, 0, 0] * 255).astype(int).tolist() for images, _ in pairs
    ]


def test_streams_share_traced_readers_of_equal_augmentations():
    """Tracing takes a second, which a training should not spend in each epoch."""
    padded = augmentation.Augmentation(crop="pad", pad=0.5)
    plain, moved = (
        np.concatenate([x for x, _ in batches(stream_of(numbered()), 0, 5, augment)])
        for augment in (PLAIN, padded)
    )
    assert (plain != moved).any()
    traced = reading._functions.cache_info().misses
    batches(stream_of(numbered()), 5, 10, augmentation.Augmentation())
    assert reading._functions.cache_info().misses == traced


def test_each_epoch_has_each_example_at_most_once_in_another_order():
    stream = stream_of(numbered())
    assert stream.steps_per_epoch == 5
    example_numbers = numbers(batches(stream, 0, 10))
    first, second = (
        np.concatenate(example_numbers[:5]),
        np.concatenate(example_numbers[5:]),
    )
    assert len(set(first)) == len(set(second)) == 20
    assert first.tolist() != second.tolist()
    assert numbers(batches(stream, 0, 5, seed=4)) != example_numbers[:5]
    for images, labels in batches(stream, 0, 2):
        numbers_in_images = np.rint(images[:, 0, 0, 0] * 255).astype(int)
        assert labels.argmax(axis=-1).tolist() == (numbers_in_images % 10).tolist()


ALL = augmentation.Augmentation(
    crop="inception",
    flip=True,
    rand_augment_layers=2,
    rand_augment_magnitude=9.0,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
)


@pytest.mark.ci
def test_it_goes_on_from_any_step():
    """Starts in mid-epoch, with all random augmentations."""
    pytest.importorskip("keras_cv")
    stream = stream_of(numbered(), size=16)
    all_batches, later_batches = batches(stream, 0, 8, ALL), batches(stream, 3, 8, ALL)
    for (images, labels), (later_images, later_labels) in zip(
        all_batches[3:], later_batches, strict=True
    ):
        np.testing.assert_array_equal(images, later_images)
        np.testing.assert_array_equal(labels, later_labels)
    assert (
        np.abs(all_batches[0][0] - batches(stream, 0, 1, ALL, seed=4)[0][0]).max() > 0.1
    )


def test_workers_and_devices_share_a_batch():
    stream = stream_of(numbered(), batch_size=8)
    whole = batches(stream, 0, 4)
    parts = [batches(stream, 0, 4, index=i, count=2, parts=2) for i in range(2)]
    for step, (images, labels) in enumerate(whole):
        device_batches = [part[2 * step + i] for part in parts for i in range(2)]
        np.testing.assert_array_equal(
            np.concatenate([batch[0] for batch in device_batches]), images
        )
        np.testing.assert_array_equal(
            np.concatenate([batch[1] for batch in device_batches]), labels
        )


def test_evaluation_has_each_example_once():
    stream = stream_of(numbered(), batch_size=4)
    evaluation_batches = list(stream.evaluation())
    assert len(evaluation_batches) == 6
    assert sum(np.nansum(labels) for _, labels in evaluation_batches) == 22
    assert evaluation_batches[-1][0].shape[0] == 4
    assert pipeline.is_labelled(evaluation_batches[-1][1].numpy()).tolist() == [
        True,
        True,
        False,
        False,
    ]
    parts = [stream.evaluation(shard=pipeline.Shard(index=i, count=2)) for i in (0, 1)]
    assert sum(np.nansum(y) for part in parts for _, y in part) == 22


@pytest.mark.ci
def test_a_file_that_goes_after_the_listing_is_one_that_can_not_be_read(tmp_path):
    folders_test.fill(tmp_path, "rose", "tulip")
    examples = data_sources.open_split(str(tmp_path), "train")
    pathlib.Path(examples.paths[0]).unlink()
    stream = stream_of(examples, num_classes=2, batch_size=8, limit=0.5)
    is_labelled = [pipeline.is_labelled(y.numpy()) for _, y in stream.evaluation()]
    assert np.concatenate(is_labelled).sum() == examples.size - 1
    assert stream.unreadable_images.descriptions == [examples.paths[0]]


@pytest.mark.slow
def test_an_image_is_the_same_in_any_company(tmp_path):
    """Reading branches on each image's kind only in groups of several kinds."""
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (30, 40, 3), np.uint8)
        suffix = "png" if number % 3 == 0 else "jpg"
        path = tmp_path / "train" / "ab"[number % 2] / f"{number:02}.{suffix}"
        PIL.Image.fromarray(pixels).save(path)
    examples = data_sources.open_split(str(tmp_path), "train")
    augment = augmentation.Augmentation(crop="inception", flip=True)
    for size in (9, 20):
        together = batches(stream_of(examples, batch_size=12, size=size), 0, 1, augment)
        alone = batches(stream_of(examples, batch_size=1, size=size), 0, 12, augment)
        single_images = np.concatenate([images for images, _ in alone])
        np.testing.assert_array_equal(single_images, together[0][0])


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(40):
            path = tmp_path / name / f"{number:02}.png"
            PIL.Image.new("RGB", (9, 7), (number, 0, 0)).save(path)
    (tmp_path / "a" / "07.png").write_bytes(b"no picture")
    data = (tmp_path / "b" / "11.png").read_bytes()
    (tmp_path / "b" / "11.png").write_bytes(data[:40])
    return tmp_path


@pytest.mark.ci
def test_what_can_not_be_read_is_named_and_left_out(folder):
    examples = data_sources.open_split(str(folder), "train")
    stream = stream_of(examples, limit=0.1)
    training_batches = list(stream.training(first=0, last=16, seed=0, augment=PLAIN))
    is_labelled = [
        pipeline.is_labelled(labels.numpy()).all() for _, labels in training_batches
    ]
    assert not all(is_labelled)
    assert stream.unreadable_images.descriptions == [
        str(folder / "a" / "07.png"),
        str(folder / "b" / "11.png"),
    ]
    stream.unreadable_images.check()
    resumed_batches = list(stream.training(first=5, last=16, seed=0, augment=PLAIN))
    for (images, _), (later, _) in zip(
        training_batches[5:], resumed_batches, strict=True
    ):
        np.testing.assert_array_equal(images, later)


@pytest.mark.ci
def test_too_many_that_can_not_be_read_are_told(folder):
    stream = stream_of(data_sources.open_split(str(folder), "train"), limit=0.0)
    list(stream.training(first=0, last=16, seed=0, augment=PLAIN))
    with pytest.raises(
        ValueError, match=r"^2 of 64 train images of .* only 0: .*07.png"
    ):
        stream.unreadable_images.check()


@pytest.mark.slow
def test_a_label_that_is_no_class_is_told(folder):
    stream = stream_of(data_sources.open_split(str(folder), "train"), num_classes=1)
    list(stream.training(first=0, last=16, seed=0, augment=PLAIN))
    with pytest.raises(ValueError, match=r"label 1, but the model has 1 classes"):
        stream.unreadable_images.check()


def test_other_draws_than_known_ones_are_refused():
    @tf.function
    def draws(seed):
        with randomness.drawn_from(seed):
            return tf.raw_ops.RandomUniform(shape=[2], dtype=tf.float32)

    with pytest.raises(ValueError, match="RandomUniform would draw different numbers"):
        draws(tf.constant([1, 2]))


def test_paths_are_no_constants_of_a_graph(tmp_path):
    folders_test.fill(tmp_path, "some_class", "another_class", count=3)
    examples = data_sources.open_split(str(tmp_path), "train")
    stream = stream_of(examples, num_classes=2)
    for dataset in (
        stream.evaluation(),
        stream.training(first=0, last=1, seed=0, augment=PLAIN),
    ):
        graph = dataset._as_serialized_graph(allow_stateful=True).numpy()
        assert b"Dataset" in graph
        assert b"some_class" not in graph


@pytest.mark.parametrize("batch_size", [1, 7, 16, 17, 257, 300])
def test_batches_of_any_size_are_made_of_what_threads_read(batch_size):
    """A batch is one group, several, or cut out of groups, as for the prime 257."""
    stream = stream_of(numbered(600), batch_size=batch_size)
    evaluation_batches = list(stream.evaluation())
    assert {images.shape for images, _ in evaluation_batches} == {(batch_size, 8, 8, 3)}
    assert stream.evaluation().element_spec[0].shape == (batch_size, 8, 8, 3)
    example_numbers = np.concatenate(
        numbers([(i.numpy(), y.numpy()) for i, y in evaluation_batches])
    )
    assert example_numbers[:600].tolist() == [n % 256 for n in range(600)]
    labels = np.concatenate([y.numpy() for _, y in evaluation_batches])
    assert labels[:600].argmax(axis=1).tolist() == [n % 10 for n in range(600)]
    assert np.isnan(labels[600:]).all()
