"""Augmentations, tested by their effects on an image."""

import numpy as np
import pytest
import tensorflow as tf

from images import model_input
from training.data import augmentation


def central_square(size):
    """Returns a conversion of an image's central square to `size` × `size` pixels."""
    return model_input.Preprocessing(height=size, width=size, interpolation="bilinear")


SEEDS = [
    tf.constant([[7 + k, n] for k in range(augmentation.SEEDS)]) for n in range(24)
]


def photo(height=40, width=60):
    """Returns an image [H, W, 3] uint8: red grows downwards, green to the right."""
    rows, columns = np.mgrid[0:height, 0:width]
    blue = np.full_like(rows, 100)
    red, green = rows * 255 // (height - 1), columns * 255 // (width - 1)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def augmented(augment, seeds, image=None, *, size=16, kind=model_input.Kind.PIXELS):
    image = photo() if image is None else image
    output = augment.image(
        image, seeds, kind=kind, preprocessing=central_square(size)
    ).numpy()
    assert output.shape == (size, size, 3)
    assert output.dtype == np.float32
    assert output.min() >= 0
    assert output.max() <= 1
    return output


def test_a_part_of_an_image_has_the_area_and_shape_that_were_asked_for():
    augment = augmentation.Augmentation(
        crop="inception", area=(0.2, 0.5), aspect=(0.5, 2.0)
    )
    areas, aspects = [], []
    for seed in SEEDS:
        image = augmented(augment, seed)
        height = np.ptp(image[..., 0]) * 17 / 16 * 40
        width = np.ptp(image[..., 1]) * 17 / 16 * 60
        areas.append(height * width / (40 * 60))
        aspects.append(width / height)
    assert 0.17 < min(areas) < max(areas) < 0.58
    assert min(aspects) < 0.8
    assert max(aspects) > 1.2


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
def test_a_part_of_a_file_is_that_of_its_pixels(encode):
    augment = augmentation.Augmentation(crop="inception")
    for seed in SEEDS[:4]:
        from_file = augmented(
            augment, seed, encode(photo()), kind=model_input.Kind.FILE
        )
        difference = np.abs(from_file - augmented(augment, seed))
        assert difference.mean() < 0.02


def test_pad_moves_by_some_pixels():
    augment = augmentation.Augmentation(crop="pad", pad=0.25)
    square = photo(16, 16)
    plain = augmented(augmentation.Augmentation(), SEEDS[0], square)
    moves = set()
    for seed in SEEDS:
        image = augmented(augment, seed, square)
        black = image.sum(axis=-1) == 0
        moves.add((int(black.all(axis=1).sum()), int(black.all(axis=0).sum())))
        visible_pixels = image[~black]
        assert np.isin(visible_pixels[:, 0].round(4), plain[..., 0].round(4)).all()
    assert len(moves) > 4
    assert max(max(move) for move in moves) <= 4


def test_about_half_are_mirrored():
    augment = augmentation.Augmentation(flip=True)
    plain = augmented(augmentation.Augmentation(), SEEDS[0])
    mirrored = 0
    for seed in SEEDS:
        image = augmented(augment, seed)
        is_mirrored = np.array_equal(image, plain[:, ::-1])
        assert is_mirrored or np.array_equal(image, plain)
        mirrored += is_mirrored
    assert 5 < mirrored < 19


@pytest.mark.ci
def test_rand_augment_changes_most_images_and_more_with_magnitude():
    pytest.importorskip("keras_cv")
    plain = augmented(augmentation.Augmentation(), SEEDS[0])

    @tf.function
    def changed(seed, magnitude):
        augment = augmentation.Augmentation(
            rand_augment_layers=2, rand_augment_magnitude=magnitude
        )
        image = augment.image(
            photo(),
            seed,
            kind=model_input.Kind.PIXELS,
            preprocessing=central_square(16),
        )
        return tf.reduce_mean(tf.abs(image - plain))

    weak, strong = (
        [float(changed(seed, magnitude)) for seed in SEEDS] for magnitude in (1.0, 9.0)
    )
    assert np.mean(weak) < np.mean(strong)
    assert sum(change > 0.01 for change in strong) > len(SEEDS) / 2


def test_mixup_and_cutmix_mix_labels_as_images():
    pytest.importorskip("keras_cv")
    images = tf.constant(np.eye(6, dtype=np.float32).repeat(8 * 8, axis=1))
    images = tf.reshape(images[:, : 8 * 8 * 3], (6, 8, 8, 3)) * 0
    marks = np.linspace(0, 1, 6, dtype=np.float32)
    images = images + marks[:, None, None, None]
    labels = tf.eye(6)
    for alphas, is_blend in (
        ({"mixup_alpha": 1.0}, True),
        ({"cutmix_alpha": 1.0}, False),
    ):
        augment = augmentation.Augmentation(**alphas)
        mixed_images, mixed_labels = (
            part.numpy() for part in augment.batch(images, labels, SEEDS[1][0])
        )
        np.testing.assert_allclose(mixed_labels.sum(axis=-1), 1, rtol=1e-5)
        means = mixed_images.mean(axis=(1, 2, 3))
        np.testing.assert_allclose(means, mixed_labels @ marks, atol=1e-5)
        values = {len(np.unique(image.round(5))) for image in mixed_images}
        assert (values == {1}) == is_blend
        assert (mixed_labels.max(axis=-1) < 0.999).any()
    never = augmentation.Augmentation(mixup_alpha=1.0, cutmix_alpha=1.0, mix_share=0.0)
    unmixed_images, _ = never.batch(images, labels, SEEDS[1][0])
    np.testing.assert_array_equal(unmixed_images, images)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"crop": "middle"},
            "crop must be one of inception, pad, central, not 'middle'",
        ),
        ({"pad": -0.1}, "pad must be a number in"),
        ({"mixup_alpha": "much"}, "mixup_alpha must be a number"),
    ],
)
def test_strange_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        augmentation.Augmentation(**values)
