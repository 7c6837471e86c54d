"""Splits as parts of others: numbers, labels, names and errors find their example."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from images import model_input, reader
from tests.images import kinds
from training.data import split
from zoo import taxonomy

SIDE = 4
CLASSES = tuple(taxonomy.ClassDefinition(id=n, name=n) for n in ("cat", "dog"))
READER = reader.Reader(model_input.Preprocessing(height=SIDE, width=SIDE))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(split.Split):
    """Images with labels and, by number, reasons why they can't be read."""

    images: list
    labels: list
    kind: str = split.ENCODED
    names: dict = dataclasses.field(default_factory=dict)
    failures: dict = dataclasses.field(default_factory=dict)
    fetched: list = dataclasses.field(default_factory=list)

    @property
    def image_format(self):
        return self.kind

    def fetch(self, numbers):
        self.fetched.append(numbers.tolist())
        images = np.empty(len(numbers), object)
        images[:] = [self.images[number] for number in numbers]
        return images, np.array(self.labels)[numbers]

    def failure(self, number):
        return self.failures.get(number, "")

    def all_labels(self):
        return np.array(self.labels)

    def class_names(self):
        return self.names

    def describe(self, number):
        return f"{self.name} image {number}"

    def key(self, number):
        return f"{self.name}/{number}"


def part(name, images, labels, **attributes):
    return Images(
        name=name,
        source="toy",
        size=len(images),
        fingerprint=name,
        images=images,
        labels=labels,
        **attributes,
    )


@pytest.fixture
def parts():
    return [
        part("a", ["a0", "a1", "a2"], [0, 1, 2], names={0: "ant", 1: "bee"}),
        part("b", ["b0"], [3], failures={0: "no b0"}, names={3: "dog"}),
        part("c", ["c0", "c1"], [4, 5], failures={1: "no c1"}),
    ]


@pytest.fixture
def joined(parts):
    return split.join(parts)


@pytest.mark.parametrize(
    "numbers", [[0], [5], [3], [0, 1, 2, 3, 4, 5], [5, 0, 3, 3, 2, 5], [4, 1]]
)
def test_joined_examples_are_in_the_order_asked_for(joined, numbers):
    names = ["a0", "a1", "a2", "b0", "c0", "c1"]
    images, labels = joined.fetch(np.array(numbers))
    assert images.tolist() == [names[number] for number in numbers]
    assert labels.tolist() == numbers
    assert joined.labels_of(np.array(numbers)).tolist() == numbers


def test_parts_without_examples_are_not_read(parts, joined):
    joined.fetch(np.array([3, 5]))
    assert [one.fetched for one in parts] == [[], [[0]], [[1]]]


def test_each_example_has_the_name_of_its_part(joined):
    assert [joined.key(n) for n in range(6)] == [
        "a/0",
        "a/1",
        "a/2",
        "b/0",
        "c/0",
        "c/1",
    ]
    assert joined.describe(2) == "a image 2"
    assert joined.describe(3) == "b image 0"
    assert [joined.failure(n) for n in range(6)] == ["", "", "", "no b0", "", "no c1"]


def test_a_join_has_what_its_parts_have(parts):
    parts[0] = dataclasses.replace(
        parts[0],
        classes=CLASSES,
        taxonomy="animals",
        scores=taxonomy.SIGMOID,
        notes=("one", "two"),
    )
    parts[1] = dataclasses.replace(parts[1], notes=("two", "three"))
    joined = split.join(parts)
    assert (joined.name, joined.source, joined.size) == (split.ALL, "toy", 6)
    assert (joined.classes, joined.taxonomy) == (CLASSES, "animals")
    assert joined.scores == taxonomy.SIGMOID
    assert joined.notes == ("one", "two", "three")
    assert joined.all_labels().tolist() == [0, 1, 2, 3, 4, 5]
    assert joined.class_names() == {0: "ant", 1: "bee", 3: "dog"}
    assert joined.image_format == split.ENCODED
    assert joined.has_labels
    parts[2] = dataclasses.replace(parts[2], has_labels=False)
    assert not split.join(parts).has_labels


def test_the_fingerprint_of_a_join_is_of_all_parts_in_order(parts):
    a, b, c = parts
    other = dataclasses.replace(c, fingerprint="other")
    prints = {
        split.join(some).fingerprint
        for some in ([a, b, c], [a, c, b], [a, b], [a, b, other])
    }
    assert len(prints) == 4
    assert split.join([a, b, c]).fingerprint in prints


def test_a_divided_split_is_whole_again(parts):
    whole = part("whole", [f"{n}" for n in range(12)], [0, 1] * 6)
    divided = split.train_and_test(whole)
    assert divided["train"].size + divided["test"].size == 12
    assert split.join([*divided.values()]) is whole
    assert split.join([divided["test"]]) is whole
    assert split.join([whole]) is whole
    both = split.join([*divided.values(), parts[0]])
    assert both.size == 15
    assert both.key(12) == "a/0"


def test_a_subset_has_the_examples_of_the_whole(parts):
    whole = dataclasses.replace(parts[0], failures={2: "no a2"}, has_labels=False)
    some = split.subset(whole, np.array([0, 2]), "some")
    images, labels = some.fetch(np.array([1, 0]))
    assert images.tolist() == ["a2", "a0"]
    assert labels.tolist() == some.labels_of(np.array([1, 0])).tolist() == [2, 0]
    assert some.labels.tolist() == [0, 2]
    assert (some.key(1), some.describe(1), some.failure(1)) == (
        *("a/2", "a image 2", "no a2"),
    )
    assert (some.name, some.size, some.has_labels) == ("some", 2, False)


def test_labels_are_those_of_fetch(parts):
    assert parts[0].labels_of(np.array([2, 0])).tolist() == [2, 0]


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("kind", [split.PIXELS, split.ENCODED, split.PATH])
def test_an_image_is_read_in_each_format(tmp_path, pixels, kind):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    data = kinds.encoded(pixels, "PNG")
    pathlib.Path(os.fsdecode(path)).write_bytes(data)
    image = {split.PIXELS: pixels, split.ENCODED: data, split.PATH: path}[kind]
    images = part("x", [None, image], [0, 0], kind=kind)
    read = images.read_image(1, READER)
    np.testing.assert_allclose(read, pixels / 255, atol=1e-6)
    joined = split.join([part("y", [None], [0], kind=kind), images])
    np.testing.assert_array_equal(joined.read_image(2, READER), read)
    some = split.subset(images, np.array([1]), "some")
    np.testing.assert_array_equal(some.read_image(0, READER), read)


@pytest.mark.parametrize(
    ("kind", "image", "message"),
    [
        (split.ENCODED, b"", "x image 0 is not a usable image: the file is empty"),
        (split.ENCODED, b"text", "x image 0 is not a usable image"),
        (split.PATH, b"/no/where.png", "/no/where.png is not a file"),
    ],
)
def test_why_an_image_is_not_readable(kind, image, message):
    images = part("x", [image], [0], kind=kind)
    with pytest.raises(ValueError, match=message):
        images.read_image(0, READER)
    known = dataclasses.replace(images, failures={0: "it is burnt"})
    with pytest.raises(ValueError, match="^it is burnt$"):
        known.read_image(0, READER)


def test_paths_are_those_of_files():
    files = part("x", [b"/a/caf\xe9.png", b"/b.png"], [0, 0], kind=split.PATH)
    assert files.paths == [os.fsdecode(b"/a/caf\xe9.png"), "/b.png"]
    assert files.first_path == files.paths[0]
    encoded = dataclasses.replace(files, kind=split.ENCODED)
    assert (encoded.paths, encoded.first_path) == ([], "")
