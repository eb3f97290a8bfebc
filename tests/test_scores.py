import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from iic.bayes.entropies import entropies
from iic.bayes.scores import (
    BINS,
    adaptive_calibration_error,
    brier_score,
    calibration_error,
    calibration_gaps,
    calibration_interval,
    equal_mass,
    equal_width,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)
from iic.classifiers import calibration
from iic.errors import UserError
from iic.evaluation.statistics import wilson_interval


def random_answers(images=500, classes=10, samples=1):
    """Probabilities float64 (S, N, K) and labels (N,) that have nothing to do with them."""
    rng = np.random.default_rng(0)
    return softmax(2 * rng.normal(size=(samples, images, classes)), axis=-1), rng.integers(0, classes, images)


def two_class(confidence):
    """Class 0 at these confidences (N,), class 1 at the rest: (N, 2)."""
    confidence = np.asarray(confidence, np.float64)
    return np.stack([confidence, 1 - confidence], axis=1)


def test_likelihood_and_brier_score_are_scikit_learns():
    (probabilities,), labels = random_answers()
    nll, brier = negative_log_likelihood(probabilities, labels), brier_score(probabilities, labels)
    assert nll.shape == brier.shape == (500,)
    assert nll.mean() == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert brier.mean() == pytest.approx(brier_score_loss(labels, probabilities), rel=1e-12)


def test_single_images_in_the_head():
    probabilities, labels = np.array([[0.5, 0.25, 0.25], [0, 1, 0], [0, 1, 0]]), np.array([1, 1, 0])
    np.testing.assert_allclose(brier_score(probabilities, labels), [0.25 + 0.5625 + 0.0625, 0, 2])
    # the last image's true class has underflowed: it costs -log of the smallest normal float32, not infinity
    np.testing.assert_allclose(negative_log_likelihood(probabilities, labels), [np.log(4), 0, 126 * np.log(2)])


def test_calibration_in_the_head():
    # two images at .9, one right: |.5 - .9| * 2/4; two at .6, both right: |1 - .6| * 2/4
    probabilities, labels = two_class([0.9, 0.9, 0.6, 0.6]), np.array([0, 1, 0, 0])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.4)
    rows = reliability_bins(probabilities, labels)
    assert len(rows) == BINS and rows[0] == dict.fromkeys(rows[0]) | {"count": 0}
    both, one = list(wilson_interval(2, 2)), list(wilson_interval(1, 2))
    assert rows[8] == {"count": 2, "confidence": pytest.approx(0.6), "accuracy": 1, "interval": both}
    assert rows[13] == {"count": 2, "confidence": pytest.approx(0.9), "accuracy": 0.5, "interval": one}


def test_bins_of_equal_mass_in_the_head():
    confidence = np.linspace(0.51, 0.99, 15)  # a bin each, so the error is the mean distance
    labels = np.arange(15) % 2
    right = labels == 0
    assert adaptive_calibration_error(two_class(confidence), labels) == pytest.approx(np.abs(right - confidence).mean())
    assert np.bincount(equal_mass(np.random.default_rng(0).random(3000))).tolist() == [200] * BINS
    assert np.bincount(equal_mass(np.random.default_rng(0).random(100))).tolist() == [7, 7, 6] * 5
    # 90 images tie, and stay together: all bins but the first two are theirs, or empty
    tied = np.append(np.linspace(0.5, 0.7, 10), np.full(90, 0.8))
    assert len(np.unique(equal_mass(tied)[10:])) == 1


def test_calibration_errors_are_torchmetrics_and_the_plain_networks():
    (probabilities,), labels = random_answers()
    tensors = torch.from_numpy(probabilities), torch.from_numpy(labels)
    found = expected_calibration_error(probabilities, labels)
    oracle = MulticlassCalibrationError(num_classes=10, n_bins=15, norm="l1")
    assert found == pytest.approx(oracle(*tensors).item(), abs=1e-6)
    assert found == pytest.approx(calibration.expected_calibration_error(tensors[0].log(), tensors[1]), abs=1e-9)


@pytest.mark.parametrize("binning", [equal_width, equal_mass])
def test_a_reliability_plot_adds_up_to_its_error(binning):
    (probabilities,), labels = random_answers()
    rows = [row for row in reliability_bins(probabilities, labels, binning) if row["count"]]
    total = sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / 500
    assert sum(row["count"] for row in rows) == 500
    assert total == pytest.approx(calibration_error(calibration_gaps(probabilities, labels, binning)), abs=1e-12)
    means = [row["confidence"] for row in rows]
    assert means == sorted(means)


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.75, 0.9, 1.0]), st.integers(0, 1)), min_size=1, max_size=40),
    st.randoms(),
)
def test_calibration_does_not_depend_on_the_order_of_the_images(answers, random):
    shuffled = random.sample(answers, len(answers))
    for error in (expected_calibration_error, adaptive_calibration_error):
        first, second = (error(two_class([a[0] for a in x]), np.array([a[1] for a in x])) for x in (answers, shuffled))
        assert first == pytest.approx(second, abs=1e-12)


@pytest.mark.parametrize("gap", [0, 0.01, 0.05])
def test_the_interval_of_a_calibration_error_holds_the_truth_although_noise_adds_to_the_error(gap):
    """Of 1,000 images, each right with a probability that is its confidence - gap: the true error is the gap."""
    rng, held, excluded = np.random.default_rng(3), 0, 0
    for _ in range(60):
        confidence = rng.uniform(0.5, 1, 1000)
        answers = two_class(confidence), (rng.random(1000) >= confidence - gap).astype(np.int64)
        low, high = calibration_interval(*answers, replicates=100, seed=0)
        assert low <= expected_calibration_error(*answers) <= high
        held += low <= gap <= high
        excluded += low > 0
    assert held >= 0.9 * 60
    assert gap < 0.05 or excluded > 40  # and it tells a network that is far off


def test_bad_probabilities_are_refused_by_the_first_bad_image():
    good, labels = two_class([0.5, 0.75, 0.75, 1]), np.zeros(4, np.int64)
    for value in (np.nan, -0.25, 0.9, np.inf, -np.inf):
        bad = good.copy()
        bad[2, 0] = bad[3, 0] = value
        for score in (negative_log_likelihood, brier_score, expected_calibration_error, adaptive_calibration_error):
            with pytest.raises(UserError, match="probabilities of image 2 are NaN, negative or do not sum to 1"):
                score(bad, labels)
        with pytest.raises(UserError, match="test image 2 are NaN"):
            entropies(np.stack([good, bad]), "test image")
    bad[2] = np.inf, -np.inf
    with pytest.raises(UserError, match="image 2"):
        brier_score(bad, labels)
    assert len(brier_score(good.astype(np.float32) * (1 + 1e-6), labels)) == 4  # a float32 softmax is off by as much


def test_other_shapes_and_labels_are_refused():
    good = two_class([0.5, 0.75])
    with pytest.raises(UserError, match=r"one integer label per image \(2\)"):
        brier_score(good, np.zeros(3, np.int64))
    with pytest.raises(UserError, match=r"one integer label per image \(2\), not float64"):
        brier_score(good, np.zeros(2))
    with pytest.raises(UserError, match="Image 1 has label 2, but the probabilities have 2 classes"):
        brier_score(good, np.array([0, 2]))
    with pytest.raises(UserError, match="average the samples"):
        brier_score(good[None], np.zeros(2, np.int64))
    with pytest.raises(UserError, match="none of them 0"):
        brier_score(good[:0], np.zeros(0, np.int64))
    with pytest.raises(UserError, match=r"\(samples, images, classes\)"):
        entropies(good)


def test_entropies_of_certain_and_of_contradicting_samples():
    certain, even = [1.0, 0, 0, 0], [0.25] * 4
    samples = np.array([[certain, even, certain, even], [[0, 1.0, 0, 0], even, certain, certain]])  # (2, 4, 4)
    found = entropies(samples)
    mixed = -5 / 8 * np.log(5 / 8) - 3 / 8 * np.log(1 / 8)  # of the mean (5, 1, 1, 1) / 8
    np.testing.assert_allclose(found.total, [np.log(2), np.log(4), 0, mixed], atol=1e-15)
    np.testing.assert_allclose(found.aleatoric, [0, np.log(4), 0, np.log(4) / 2], atol=1e-15)
    np.testing.assert_allclose(found.epistemic, [np.log(2), 0, 0, mixed - np.log(2)], atol=1e-15)


def test_mutual_information_is_the_mean_divergence_of_the_samples_from_their_mean():
    samples, _ = random_answers(samples=7)
    found = entropies(samples)
    np.testing.assert_allclose(found.epistemic, rel_entr(samples, samples.mean(0)).sum(-1).mean(0), atol=1e-12)
    assert (found.epistemic > 0).all() and (found.total <= np.log(10)).all()


def test_one_sample_and_equal_samples_know_nothing_of_the_posterior():
    samples, _ = random_answers()
    assert (entropies(samples).epistemic == 0).all()
    rounded = samples.astype(np.float32)
    scaled = np.concatenate([rounded, rounded * np.float32(1 + 1e-6)])  # rows off by what float32 may be off
    assert entropies(scaled).epistemic.max() < 1e-12
