"""Linear heads: compared with scikit-learn's, and on few, rare and easy images."""

import numpy as np
import pytest
from sklearn import datasets, linear_model, metrics, pipeline, preprocessing

from retraining import heads


def fitted(features, labels, **options):
    head = heads.fit(
        features.astype(np.float32),
        labels,
        num_classes=int(labels.max()) + 1,
        **{"balanced": False, "seed": 0, **options},
    )
    return head, lambda x: softmax(x @ head.kernel + head.bias)


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def blobs(counts, *, width=30, distance=1.0, seed=0):
    """Returns points around one corner per class, `counts` of each, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = np.eye(len(counts), width) * distance * 3
    return centres[labels] + rng.normal(size=(len(labels), width)), labels


def test_it_is_as_good_as_scikit_learns_own():
    """The features are the digits' pixels."""
    features, labels = datasets.load_digits(return_X_y=True)
    is_test = np.arange(len(labels)) % 5 == 0
    head, predict = fitted(features[~is_test], labels[~is_test])
    sklearn_model = pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=1000)
    ).fit(features[~is_test], labels[~is_test])
    truth = labels[is_test]
    probabilities, sklearn_probabilities = (
        predict(features[is_test]),
        sklearn_model.predict_proba(features[is_test]),
    )
    assert (probabilities.argmax(-1) == truth).mean() >= (
        sklearn_probabilities.argmax(-1) == truth
    ).mean() - 0.003
    loss = metrics.log_loss(truth, probabilities)
    assert loss <= 1.02 * metrics.log_loss(truth, sklearn_probabilities)
    assert head.validation_loss == pytest.approx(loss, rel=0.5)


def test_each_of_several_labels_has_a_regression_of_its_own():
    """The labels of a digit: it is 3, it is odd, it is above 4."""
    features, digits = datasets.load_digits(return_X_y=True)
    labels = np.stack([digits == 3, digits % 2, digits > 4], axis=1).astype(float)
    is_test = np.arange(len(digits)) % 3 == 0
    head = heads.fit_each(
        features[~is_test].astype(np.float32),
        labels[~is_test],
        seed=0,
    )
    logits = features[is_test] @ head.kernel + head.bias
    for number in range(3):
        sklearn_model = pipeline.make_pipeline(
            preprocessing.StandardScaler(), linear_model.LogisticRegression(C=0.1)
        ).fit(features[~is_test], labels[~is_test, number])
        truth = labels[is_test, number]
        sklearn_probabilities = sklearn_model.predict_proba(features[is_test])[:, 1]
        probabilities = 1 / (1 + np.exp(-logits[:, number]))
        loss = metrics.log_loss(truth, probabilities)
        assert loss <= 1.1 * metrics.log_loss(truth, sklearn_probabilities)
        precision = metrics.average_precision_score(truth, probabilities)
        assert (
            precision
            >= metrics.average_precision_score(truth, sklearn_probabilities) - 0.01
        )


def test_the_strength_is_the_median_of_some_classes(monkeypatch):
    """Three classes choose 0.1, 10 and 1."""
    strengths_of_fits = []

    def fit(features, labels, *, inverse_strengths, **options):
        strengths_of_fits.append(list(inverse_strengths))
        strength = inverse_strengths[0]
        if len(inverse_strengths) > 1:
            strength = [0.1, 10.0, 1.0][len(strengths_of_fits) - 1]
        zeros = np.zeros((features.shape[1], 2), np.float32)
        return heads.Head(
            kernel=zeros, bias=zeros[0], inverse_strength=strength, validation_loss=0.5
        )

    monkeypatch.setattr(heads, "fit", fit)
    labels = np.eye(3)[np.arange(12) % 3]
    head = heads.fit_each(np.zeros((12, 2)), labels, seed=0)
    assert head.inverse_strength == 1.0
    assert strengths_of_fits[3:] == [[1.0]] * 3


def test_a_class_that_every_image_has_is_always_said():
    features = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    labels = np.stack([np.ones(40), features[:, 0] > 0], axis=1)
    head = heads.fit_each(features, labels, seed=0)
    logits = features @ head.kernel + head.bias
    assert (logits[:, 0] > 3).all()
    assert ((logits[:, 1] > 0) == labels[:, 1]).mean() > 0.9
    with pytest.raises(ValueError, match="Class 1 has no image"):
        heads.fit_each(features, labels * [1, 0], seed=0)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_layer_is_the_regression_of_the_strength_that_was_chosen(classes):
    """The layer includes standardization, and two classes have two rows."""
    features, labels = blobs([300] * classes, distance=0.4)
    features = features * np.linspace(0.5, 2, features.shape[1]) + 7
    head, predict = fitted(features, labels)
    deviation = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.maximum(
        deviation, deviation.mean()
    )
    sklearn_model = linear_model.LogisticRegression(
        C=head.inverse_strength, max_iter=1000
    )
    sklearn_model.fit(scaled, labels)
    log_probabilities, sklearn_log_probabilities = (
        np.log(probabilities) - np.log(probabilities).mean(axis=-1, keepdims=True)
        for probabilities in (predict(features), sklearn_model.predict_proba(scaled))
    )
    temperature = (sklearn_log_probabilities * log_probabilities).sum() / (
        log_probabilities * log_probabilities
    ).sum()
    assert 1 <= temperature < 1.5
    np.testing.assert_allclose(
        temperature * log_probabilities, sklearn_log_probabilities, atol=0.05
    )


def test_a_feature_that_hardly_moves_is_not_blown_up():
    """The feature does move in one image of 1000, as features behind a ReLU do."""
    features, labels = blobs([300] * 2, distance=1.0)
    quiet = 1e-4 * np.random.default_rng(1).random((600, 1))
    head, predict = fitted(np.concatenate([features, quiet], axis=1), labels)
    usual = predict(np.concatenate([features, quiet], axis=1))
    moved = predict(np.concatenate([features, quiet + 0.1], axis=1))
    np.testing.assert_allclose(np.log(moved), np.log(usual), atol=0.1)
    assert head.validation_loss < 0.5


def test_from_a_few_easy_images_no_certainty_follows():
    """16 images can't tell how often one of 1000 would be wrong."""
    rng = np.random.default_rng(0)
    truth = np.arange(216) % 2
    features = 2 * truth[:, np.newaxis] + rng.normal(size=(216, 1280))
    _, predict = fitted(features[:16], truth[:16])
    truth, probabilities = truth[16:], predict(features[16:])
    assert (probabilities.argmax(-1) == truth).mean() > 0.98
    assert 0.8 < probabilities.max(-1).mean() < 0.98


def test_from_many_images_certainty_follows():
    features, labels = blobs([2000, 2000], distance=4.0)
    _, predict = fitted(features, labels)
    assert predict(features).max(-1).mean() > 0.995


def test_a_rare_class_counts_as_much_where_that_is_asked_for():
    features, labels = blobs([400, 8], distance=0.5)
    test_features, truth = blobs([300, 300], distance=0.5, seed=1)
    recalls = []
    for balanced in (False, True):
        _, predict = fitted(features, labels, balanced=balanced)
        predicted = predict(test_features).argmax(-1)
        recalls.append((predicted == truth)[truth == 1].mean())
    assert recalls[1] > recalls[0] + 0.2


@pytest.mark.parametrize("counts", [[1, 1], [1, 5], [2, 1, 1], [1, 1, 40], [3, 3]])
def test_classes_of_one_image_are_learnt(counts):
    features, labels = blobs(counts, distance=5.0)
    head, predict = fitted(features, labels)
    assert np.isfinite(head.kernel).all()
    assert (predict(features).argmax(-1) == labels).all()


def test_features_that_are_all_alike_do_no_harm():
    features, labels = blobs([20, 20], distance=3.0)
    features[:, 5] = 3.0
    _, predict = fitted(features, labels)
    assert np.isfinite(predict(features)).all()


def test_a_class_without_an_image_is_told():
    features, labels = blobs([5, 5])
    with pytest.raises(ValueError, match="Class 0 has no image that can be read"):
        fitted(features[labels == 1], labels[labels == 1])


def test_the_same_seed_gives_the_same_head():
    features, labels = blobs([40, 40, 40], distance=0.3)
    first, second = (fitted(features, labels)[0] for _ in range(2))
    assert np.array_equal(first.kernel, second.kernel)
