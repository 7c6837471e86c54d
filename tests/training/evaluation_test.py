"""Evaluation of classifiers: metrics, intervals, matching of classes, and plots."""

import dataclasses
import io
import json
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from images import model_input
from training import evaluation, evaluation_report, metrics_log, plots
from training.data import data_sources, split
from zoo import taxonomy as taxonomies


def classes(*names):
    return tuple(taxonomies.ClassDefinition(id=n.lower(), name=n) for n in names)


TEN_CLASSES = classes(*"ABCDEFGHIJ")


def report_of(logits, truth):
    labels = np.eye(10)[truth]
    return evaluation.evaluate(lambda x, y: (x, y), [(logits, labels)], TEN_CLASSES)


def test_the_loss_and_the_shares_are_those_of_the_definitions():
    logits = np.random.default_rng(0).normal(size=(50, 10))
    truth = np.arange(50) % 10
    report = report_of(logits, truth)
    order = np.argsort(-logits, axis=-1)
    assert report.top1 == pytest.approx(np.mean(order[:, 0] == truth))
    in_five = np.any(order[:, :5] == truth[:, None], axis=-1)
    assert report.top5 == pytest.approx(np.mean(in_five))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert report.loss == pytest.approx(
        -np.log(probabilities[np.arange(50), truth]).mean()
    )
    assert report.confusion.sum(axis=1).tolist() == [5] * 10


def test_the_calibration_error_is_that_of_its_definition():
    """Six of ten images at 90 % confidence are right, and nine of ten at 60 %."""
    probabilities = np.full((20, 10), 0.1 / 9)
    probabilities[:10, 0] = 0.9
    probabilities[10:] = 0.4 / 9
    probabilities[10:, 0] = 0.6
    truth = np.array([0] * 6 + [1] * 4 + [0] * 9 + [1])
    report = report_of(np.log(probabilities), truth)
    assert report.calibration_error == pytest.approx((0.3 + 0.3) / 2)
    certain = report_of(100 * np.eye(10), np.arange(10))
    assert certain.calibration_error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (430, 1000)])
def test_intervals_of_shares_are_those_of_scipy(count, total):
    from scipy import stats

    expected = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert evaluation_report.share_interval(count, total) == pytest.approx(
        tuple(expected), abs=1e-6
    )


def draw_examples(random, size):
    """Returns logits of 10 classes, and labels drawn from other probabilities."""
    logits = random.normal(size=(size, 10), scale=2)
    truth = np.argmax(0.7 * logits + random.gumbel(size=logits.shape), axis=-1)
    return logits, truth


def test_intervals_hold_the_truth_in_about_95_of_100_samples():
    """Checks every measure; a very large sample stands in for its true value."""
    random = np.random.default_rng(0)
    true_values = report_of(*draw_examples(random, 400_000)).measures
    inside = dict.fromkeys(true_values, 0)
    for _ in range(200):
        report = report_of(*draw_examples(random, 400))
        for name, (low, high) in report.intervals.items():
            inside[name] += low <= true_values[name] <= high
    assert inside.keys() == true_values.keys()
    for name, count in inside.items():
        assert 180 <= count <= 198, name


def test_of_a_class_of_few_images_the_interval_is_wide():
    truth = np.array([0] * 40 + [1] * 2)
    (often, rare, none), *_ = [report_of(np.eye(10)[truth], truth).per_class[:3]]
    assert often["top1"] == rare["top1"] == 1
    assert often["interval"][0] > 0.9 > 0.4 > rare["interval"][0]
    assert none["interval"] == [0, 1]


def test_pairs_that_are_often_confused_come_first():
    truth = np.array([0] * 9 + [1] * 5 + [2] * 2)
    predicted = np.array([0] * 6 + [3] * 3 + [4] * 5 + [2, 0])
    report = report_of(np.eye(10)[predicted], truth)
    assert report.most_confused(2) == [(1, 4, 5), (0, 3, 3)]
    assert report.confusion.sum() == 16
    assert report.confusion[2].tolist() == [1, 0, 1, *[0] * 7]
    assert report.to_json()["most_confused"][0] == {
        **{"class": "b", "taken_for": "e", "examples": 5}
    }


def test_the_worst_classes_are_those_that_have_examples():
    truth = np.array([0] * 4 + [1] * 4 + [2] * 4)
    predicted = np.array([0] * 3 + [3] + [1] * 4 + [2, 4, 4, 4])
    worst = report_of(np.eye(10)[predicted], truth).worst_classes(2)
    assert [(entry["id"], entry["top1"]) for entry in worst] == [
        ("c", 0.25),
        ("a", 0.75),
    ]


def test_a_picture_of_a_part_says_so(monkeypatch):
    titles = []
    monkeypatch.setattr(
        plots, "_bars", lambda bars, *, title, label: titles.append(title)
    )
    monkeypatch.setattr(plots.pictures, "encode", lambda *_, **__: b"")
    number = plots._MAX_NAMES + 5
    names = classes(*(f"name {i}" for i in range(number)))
    labels = np.eye(number)
    for wrong in (number, 3):
        logits = np.vstack([np.roll(labels, 1, axis=1)[:wrong], labels[wrong:]])
        report = evaluation.evaluate(lambda x, y: (x, y), [(logits, labels)], names)
        plots.mistakes(report, title="some")
    multi_label_report = evaluation.evaluate(
        lambda x, y: (x, y), [(labels, labels)], names, scores=taxonomies.SIGMOID
    )
    plots.mistakes(multi_label_report, title="some")
    assert titles == [
        f"some: the {number - 5} most frequent of {number} confusions",
        "some",
        f"some: the {number - 5} worst of {number} classes",
    ]


@pytest.mark.ci
def test_many_classes_take_little_memory():
    """Has 21,843 classes, whose full confusion matrix would take 3.8 GB."""
    number = 21_843
    names = [taxonomies.ClassDefinition(id=str(i), name=str(i)) for i in range(number)]

    def batches():
        for start in range(0, 320, 32):
            labels = np.zeros((32, number), np.float32)
            labels[np.arange(32), np.arange(start, start + 32)] = 1
            yield np.roll(labels, 1, axis=1), labels

    tracemalloc.start()
    report = evaluation.evaluate(lambda x, y: (x, y), batches(), names)
    picture = plots.mistakes(report, title="many")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.top1 == 0
    assert len(report.confusions) == 320
    assert peak < 150e6
    with PIL.Image.open(io.BytesIO(picture)) as image:
        assert image.height < 3000


def multi_label_report_of(logits, labels):
    return evaluation.evaluate(
        lambda x, y: (x, y),
        [(logits[:7], labels[:7]), (logits[7:], labels[7:])],
        TEN_CLASSES,
        scores="sigmoid",
    )


def test_of_several_labels_the_figures_are_those_of_scikit_learn():
    from sklearn import metrics

    random = np.random.default_rng(0)
    labels = (random.random((60, 10)) < 0.3).astype(float)
    labels[:, 9] = 0  # a class without images
    logits = random.normal(size=(60, 10)) + labels
    labels[3] = np.nan  # an unreadable image
    report = multi_label_report_of(logits, labels)
    is_readable = np.arange(60) != 3
    logits, labels = logits[is_readable], labels[is_readable]
    precisions = [
        metrics.average_precision_score(labels[:, i], logits[:, i]) for i in range(9)
    ]
    assert report.mean_average_precision == pytest.approx(np.mean(precisions))
    assert np.isnan(report.average_precisions[9])
    probabilities = 1 / (1 + np.exp(-logits))
    loss = [
        10 * metrics.log_loss(row, predicted, labels=[0, 1])
        for row, predicted in zip(labels, probabilities, strict=True)
    ]
    assert report.loss == pytest.approx(np.mean(loss))
    assert report.examples == 59
    assert report.counts.tolist() == labels.sum(axis=0).tolist()
    has_label = labels.any(axis=1)
    likeliest = labels[np.arange(59), logits.argmax(axis=1)]
    assert report.top1 == pytest.approx(likeliest[has_label].mean())
    recall = metrics.recall_score(labels, logits >= 0, average=None, zero_division=0)
    assert [e["recall"] for e in report.per_class] == pytest.approx(recall.tolist())
    json.dumps(report.to_json(), allow_nan=False)
    with PIL.Image.open(io.BytesIO(plots.mistakes(report, title="sets"))) as image:
        assert image.size > (300, 100)


def split_with_scores(scores):
    return dataclasses.replace(split_of("A", "B"), scores=scores)


def test_several_labels_are_not_for_classes_that_exclude_each_other():
    def check(data, model):
        return evaluation._check_scores(split_with_scores(data), model)

    with pytest.raises(
        ValueError, match="has several labels per image, but the model's"
    ):
        check("sigmoid", "softmax")
    assert "loss and calibration error" in check("softmax", "sigmoid")
    assert "treated as logits of sigmoids" in check("sigmoid", None)
    assert not check("softmax", None)
    assert not check("softmax", "softmax")


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
    with pytest.raises(evaluation.NonFiniteLogitsError):
        report_of(logits, np.arange(10))


def split_of(*names):
    return split.PixelSplit(
        source="flowers",
        name="test",
        size=1,
        classes=classes(*names),
        fingerprint="",
        images=np.zeros((1, 8, 8), np.uint8),
        labels=np.zeros(1, int),
    )


def evaluate_last_class(labels, *, names, model, batch_size, size=8):
    """Evaluates a model that predicts its last class for every image."""
    examples = split.PixelSplit(
        source="flowers",
        name="test",
        size=len(labels),
        classes=classes(*names),
        fingerprint="",
        images=np.zeros((len(labels), size, size), np.uint8),
        labels=np.array(labels, int),
    )

    def call(images):
        return np.tile(np.arange(len(model), dtype=float), (len(images), 1))

    return evaluation.evaluate_split(
        call,
        examples,
        classes=classes(*model),
        preprocessing=model_input.Preprocessing(height=size, width=size),
        batch_size=batch_size,
        unreadable=1.0,
    )


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("model", ["ABC", "XABC", "ABCX"])
def test_padding_is_not_counted_whatever_classes_the_data_lack(model, batch_size):
    """The last batch is padded; a model may have classes that the data lack."""
    report = evaluate_last_class(
        [0, 1, 2, 2, 2], names="ABC", model=model, batch_size=batch_size
    )
    assert report.examples == 5
    assert report.top1 == (0.6 if model.endswith("C") else 0.0)
    assert dict(zip(model, report.counts.tolist(), strict=True)) == {
        name: {"A": 1, "B": 1, "C": 3}.get(name, 0) for name in model
    }


@pytest.mark.ci
def test_unreadable_images_are_not_counted(tmp_path):
    """The data lack the model's first class."""
    for number in range(10):
        folder = tmp_path / "BC"[number % 2]
        folder.mkdir(exist_ok=True)
        PIL.Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    (tmp_path / "B" / "0.png").write_bytes(b"no image")
    report = evaluation.evaluate_split(
        lambda images: np.tile([0.0, 1.0, 2.0], (len(images), 1)),
        data_sources.open_split(str(tmp_path), "test"),
        classes=classes("A", "B", "C"),
        preprocessing=model_input.Preprocessing(height=8, width=8),
        batch_size=2,
        unreadable=1.0,
    )
    assert (report.examples, len(report.unreadable), report.top1) == (1, 1, 1.0)


def test_a_split_without_images_is_an_error():
    with pytest.raises(ValueError, match="flowers has no test images to evaluate"):
        evaluate_last_class([], names="AB", model="AB", batch_size=2)


def test_the_unknown_class_is_named():
    with pytest.raises(ValueError, match="class 'Lily', which the model does not know"):
        evaluate_last_class(
            [0], names=("Rose", "Lily"), model=("Rose", "Tulip"), batch_size=1
        )


@pytest.mark.parametrize(
    ("names", "model", "expected"),
    [
        (("Rose", "Daisy"), classes("Daisy", "Rose", "Tulip"), [1, 0]),
        (("rose", "daisy"), classes("Daisy", "Rose"), [1, 0]),  # matched by id
        ((), (taxonomies.BACKGROUND, *classes("Rose", "Daisy")), [1, 2]),
        (("A", "B"), classes("class 0", "class 1"), [0, 1]),  # no class names
    ],
)
def test_classes_find_each_other(names, model, expected):
    indices, note = evaluation.match_classes(split_of(*names), model)
    assert indices == expected
    assert bool(note) == (not names or model[0].name == "class 0")


def test_classes_of_other_names_are_refused():
    """Matching by position alone would count blue as red."""
    with pytest.raises(
        ValueError, match="flowers has the class .a_red., which the model"
    ):
        evaluation.match_classes(split_of("a_red", "b_blue"), classes("Blue", "Red"))


CRANES = (
    taxonomies.ClassDefinition(id="n02012849", name="crane"),
    taxonomies.ClassDefinition(id="n01440764", name="tench"),
    taxonomies.ClassDefinition(id="n03126707", name="crane"),
)


def test_a_name_of_two_classes_asks_for_ids():
    with pytest.raises(ValueError, match="n02012849 .index 0. and n03126707 .index 2."):
        evaluation.match_classes(split_of("crane", "tench"), CRANES)
    assert evaluation.match_classes(split_of("tench"), CRANES)[0] == [1]


@pytest.mark.parametrize("names", [("n03126707", "n01440764"), ("2", "1")])
def test_ids_and_indices_tell_classes_of_one_name_apart(names):
    indices, note = evaluation.match_classes(split_of(*names), CRANES)
    assert indices == [2, 1]
    assert ("indices" in note) == (names[0] == "2")


def test_accents_may_be_written_in_two_ways():
    model = classes("Ro\u0301se", "Daisy")
    assert evaluation.match_classes(split_of("Daisy", "R\u00f3se"), model)[0] == [1, 0]


def test_names_are_no_mathematics():
    names = ["$10_\\q$", "日本", "x^2_"]
    report = evaluation.evaluate(
        lambda x, y: (x, y), [(np.eye(3), np.eye(3))], classes(*names)
    )
    picture = plots.mistakes(report, title="a$b")
    with PIL.Image.open(io.BytesIO(picture)) as image:
        assert image.size > (300, 300)


@pytest.mark.parametrize("several", [True, False])
def test_weights_are_told_with_the_figure_that_counts(several):
    log = metrics_log.MetricsLog(
        None,
        facts={},
        rate=lambda step: 0.1,
        batch_size=1,
        steps_per_epoch=1,
        epochs=1,
    )
    metrics = {"test_loss": 1.0, "test_top1": 0.5}
    main_metric = "test_mean_average_precision" if several else "test_top1"
    log._epochs.append({"loss": 2.0, **metrics, main_metric: 0.75})
    assert log.metrics() == {main_metric: 0.75, "test_loss": 1.0}
