"""Counting how often a classifier is right; the pictures of it."""

import io

import numpy as np
import PIL.Image
import pytest

from training import evaluation, plots
from training.data import split
from zoo import taxonomy as taxonomies


def classes(*names):
    return tuple(taxonomies.ClassDefinition(id=n.lower(), name=n) for n in names)


TEN = classes(*"ABCDEFGHIJ")


def report_of(logits, truth):
    labels = np.eye(10)[truth]
    return evaluation.evaluate(lambda x, y: (x, y), [(logits, labels)], TEN)


def test_the_loss_and_the_shares_are_those_of_the_definitions():
    logits = np.random.default_rng(0).normal(size=(50, 10))
    truth = np.arange(50) % 10
    report = report_of(logits, truth)
    order = np.argsort(-logits, axis=-1)
    assert report.top1 == pytest.approx(np.mean(order[:, 0] == truth))
    in_five = np.any(order[:, :5] == truth[:, None], axis=-1)
    assert report.top5 == pytest.approx(np.mean(in_five))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert report.loss == pytest.approx(-np.log(shares[np.arange(50), truth]).mean())
    assert report.confusion.sum(axis=1).tolist() == [5] * 10


def test_the_calibration_error_is_that_of_its_definition():
    """Of ten images at 90 % six are right, and of ten at 60 % nine."""
    probabilities = np.full((20, 10), 0.1 / 9)
    probabilities[:10, 0] = 0.9
    probabilities[10:] = 0.4 / 9
    probabilities[10:, 0] = 0.6
    truth = np.array([0] * 6 + [1] * 4 + [0] * 9 + [1])
    report = report_of(np.log(probabilities), truth)
    assert report.calibration_error == pytest.approx((0.3 + 0.3) / 2)
    certain = report_of(100 * np.eye(10), np.arange(10))
    assert certain.calibration_error == pytest.approx(0, abs=1e-9)


def test_rare_classes_count_as_much_in_the_mean_per_class():
    truth = np.array([0] * 18 + [1, 2])
    logits = np.eye(10)[[0] * 18 + [0, 2]]  # the only B is taken for an A
    report = report_of(logits, truth)
    assert report.top1 == pytest.approx(0.95)
    assert report.mean_per_class == pytest.approx(2 / 3)
    assert report.never_recognised == ["B"]


def test_among_equals_the_first_come_first():
    report = report_of(np.zeros((10, 10)), np.arange(10))
    assert report.top1 == pytest.approx(0.1)
    assert report.top5 == pytest.approx(0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_no_answer(value):
    logits = np.zeros((10, 10))
    logits[3, 3] = value
    with pytest.raises(evaluation.NoNumbersError):
        report_of(logits, np.arange(10))


def half_of(*names):
    return split.Pixels(
        source="flowers",
        name="test",
        size=1,
        classes=classes(*names),
        fingerprint="",
        images=np.zeros((1, 8, 8), np.uint8),
        labels=np.zeros(1, int),
    )


@pytest.mark.parametrize(
    ("names", "model", "expected"),
    [
        (("Rose", "Daisy"), classes("Daisy", "Rose", "Tulip"), [1, 0]),
        (("rose", "daisy"), classes("Daisy", "Rose"), [1, 0]),  # by the ids
        ((), (taxonomies.BACKGROUND, *classes("Rose", "Daisy")), [1, 2]),
        (("A", "B"), classes("class 0", "class 1"), [0, 1]),  # it has no names
    ],
)
def test_classes_find_each_other(names, model, expected):
    places, note = evaluation.match_classes(half_of(*names), model)
    assert places == expected
    assert bool(note) == (model[0].name == "class 0")


def test_classes_of_other_names_are_refused():
    """By their places alone, blue would be counted as red."""
    with pytest.raises(ValueError, match="flowers has the classes a_red, b_blue, and"):
        evaluation.match_classes(half_of("a_red", "b_blue"), classes("Blue", "Red"))


CRANES = (
    taxonomies.ClassDefinition(id="n02012849", name="crane"),
    taxonomies.ClassDefinition(id="n01440764", name="tench"),
    taxonomies.ClassDefinition(id="n03126707", name="crane"),
)


def test_a_name_of_two_classes_asks_for_ids():
    with pytest.raises(ValueError, match="n02012849 .index 0. and n03126707 .index 2."):
        evaluation.match_classes(half_of("crane", "tench"), CRANES)
    assert evaluation.match_classes(half_of("tench"), CRANES)[0] == [1]


@pytest.mark.parametrize("names", [("n03126707", "n01440764"), ("2", "1")])
def test_ids_and_indices_tell_classes_of_one_name_apart(names):
    places, note = evaluation.match_classes(half_of(*names), CRANES)
    assert places == [2, 1]
    assert ("indices" in note) == (names[0] == "2")


def test_accents_may_be_written_in_two_ways():
    model = classes("Ro\u0301se", "Daisy")
    assert evaluation.match_classes(half_of("Daisy", "R\u00f3se"), model)[0] == [1, 0]


def test_names_are_no_mathematics():
    names = ["$10_\\q$", "日本", "x^2_"]
    report = evaluation.evaluate(
        lambda x, y: (x, y), [(np.eye(3), np.eye(3))], classes(*names)
    )
    picture = plots.mistakes(report, title="a$b")
    with PIL.Image.open(io.BytesIO(picture)) as image:
        assert image.size > (300, 300)
