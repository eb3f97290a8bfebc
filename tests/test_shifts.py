import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import roc_auc_score, roc_curve

from iic.bayes.selection import answered, percentiles, refusal_threshold, resampled_counts
from iic.bayes.shifts import brought_to, detection, inverted, outside_images, rotated
from iic.bayes.uncertainty import median_rule, uniform_noise
from iic.bayes.uncertainty_table import choose_thresholds, degradation_row, read, uncertainty_table
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation.statistics import wilson_interval

DRAWS = {"seed": 0, "replicates": 100}


def images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def posterior(n, *, sharp, seed, samples=8, classes=4):
    """Samples float32 (S, N, K) of images whose logits the posterior knows the better, the larger `sharp`; labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = sharp * rng.random((n, 1)) * np.eye(classes)[labels] + rng.normal(size=(n, classes))
    return softmax(logits + rng.normal(size=(samples, n, classes)), axis=-1).astype(np.float32), labels


@pytest.fixture(scope="module")
def study():
    """Test, validation and outside answers of a posterior of 8 samples."""
    test, validation = posterior(300, sharp=8, seed=0), posterior(200, sharp=8, seed=1)
    return *test, *validation, {"noise": posterior(100, sharp=0, seed=2)[0]}


def by_scikit_learn(inside, outside):
    """AUROC and the false positive rate at the first threshold that catches 95 %."""
    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    scores = np.append(inside, outside)
    false, true, _ = roc_curve(is_outside, scores, drop_intermediate=False)
    return roc_auc_score(is_outside, scores), false[np.argmax(true >= 0.95)]


def test_inverted_and_rotated_images():
    x = np.array([[[[0, 1], [2, 255]]]], np.uint8)
    assert inverted(x).tolist() == [[[[255, 254], [253, 0]]]]
    assert rotated(x, 1).tolist() == [[[[1, 255], [0, 2]]]]  # counter-clockwise
    assert rotated(x, 2).tolist() == [[[[255, 2], [1, 0]]]]
    colour = images((5, 3, 4, 4))
    assert np.array_equal(rotated(rotated(colour, 1), 3), colour)
    assert rotated(images((1, 1, 2, 3)), 2).shape == (1, 1, 2, 3)
    with pytest.raises(UserError, match="2 x 3 pixels cannot be turned by 90 degrees"):
        rotated(images((1, 1, 2, 3)), 1)
    with pytest.raises(UserError, match="uint8"):
        inverted(np.zeros((1, 1, 2, 2)))


def test_another_datasets_images_are_what_pillow_makes_of_them():
    colour, grey = images((3, 3, 32, 32)), images((3, 1, 28, 28))
    found = brought_to(colour, (1, 32, 32))
    for image, ours in zip(colour, found, strict=True):
        oracle = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))
        assert np.abs(oracle - ours[0].astype(int)).max() <= 1
    for size in (20, 36):
        found = brought_to(grey, (3, size, size))
        assert found.shape == (3, 3, size, size) and (found == found[:, :1]).all()
        for image, ours in zip(grey, found, strict=True):
            oracle = np.asarray(Image.fromarray(image[0]).resize((size, size), Image.Resampling.BILINEAR))
            assert np.abs(oracle - ours[0].astype(int)).max() <= 1
    assert np.array_equal(brought_to(colour, (3, 32, 32)), colour)
    repeated = np.repeat(images((2, 1, 32, 32)), 3, axis=1)
    assert np.array_equal(brought_to(repeated, (1, 32, 32)), repeated[:, :1])  # the weights sum to 1


def test_sets_of_outside_images():
    test = images((6, 1, 28, 28))
    found = outside_images(test, {"cifar10": images((4, 3, 32, 32))}, seed=1, turns=(1, 2))
    assert list(found) == ["noise", "inverted", "rotated_90", "rotated_180", "cifar10"]
    assert [x.shape[0] for x in found.values()] == [6, 6, 6, 6, 4]
    assert all(x.shape[1:] == (1, 28, 28) and x.dtype == np.uint8 for x in found.values())
    assert np.array_equal(found["noise"], uniform_noise(6, (1, 28, 28), 1))


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
)
def test_detection_with_ties_is_scikit_learns(inside, outside):
    found = detection(inside, outside, replicates=2, seed=0)
    area, rate = by_scikit_learn(inside, outside)
    assert found["auroc"]["value"] == pytest.approx(area, abs=1e-12)
    assert found["fpr95"]["value"] == pytest.approx(rate, abs=1e-12)


def test_detection_in_the_head():
    # 20 outside images at 1..20: 19 of them, at least 2, are 95 %; of the test images 5 of 10 are at least 2
    found = detection([0, 0, 0, 1, 1, 2, 2, 2, 2, 30], np.arange(1, 21), replicates=10, seed=0)
    assert found["fpr95"]["value"] == 0.5
    apart = detection(np.arange(5), np.arange(5, 25), replicates=10, seed=0)
    assert apart["auroc"] == {"value": 1, "interval": list(wilson_interval(5, 5))}
    assert apart["fpr95"] == {"value": 0, "interval": list(wilson_interval(0, 5))}


def test_intervals_of_detection_draw_both_sets_anew():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=60).round(1), rng.normal(size=40).round(1) + 1
    found = detection(inside, outside, replicates=30, seed=4)
    first, second, written = generator("bootstrap", 4), generator("bootstrap", 4, 1), []
    for _ in range(30):
        counts = resampled_counts(first, 60), resampled_counts(second, 40)
        written.append(by_scikit_learn(np.repeat(np.sort(inside), counts[0]), np.repeat(-np.sort(-outside), counts[1])))
    for values, name in zip(np.transpose(written), ("auroc", "fpr95"), strict=True):
        assert found[name]["interval"] == pytest.approx(percentiles(values))


def test_uncertainties_that_are_nan_are_refused():
    with pytest.raises(UserError, match="outside image 1 is NaN"):
        detection([0.0], [0, np.nan], replicates=2, seed=0)
    with pytest.raises(UserError, match="one uncertainty per test image"):
        detection([], [0], replicates=2, seed=0)


def test_a_table_is_json_and_the_same_again(study):
    table = uncertainty_table(*study, **DRAWS)
    assert json.loads(json.dumps(table, allow_nan=False)) == table == uncertainty_table(*study, **DRAWS)
    samples, labels, outside = study[0], study[1], study[4]["noise"]
    assert (table["n_images"], table["n_validation"], table["samples"]) == (300, 200, 8)
    assert table["scores"]["accuracy"]["value"] == pytest.approx((samples.mean(0).argmax(1) == labels).mean())
    for name in ("accuracy", "nll", "brier"):
        low, high = table["scores"][name]["interval"]
        assert low < table["scores"][name]["value"] < high
    parts = {name: row["value"] for name, row in table["entropies"].items()}
    assert parts["total"] == pytest.approx(parts["aleatoric"] + parts["epistemic"]) and parts["epistemic"] > 0
    predicted, answered = median_rule(samples, 0.2)
    assert table["median_rule"]["coverage"]["value"] == answered.mean()
    assert table["median_rule"]["accuracy"]["value"] == pytest.approx((predicted == labels)[answered].mean())
    refused = table["outside"]["noise"]["median_rule"]["refused"]["value"]
    assert refused == pytest.approx(1 - median_rule(outside, 0.2)[1].mean())
    for row in table["outside"]["noise"]["selectors"].values():
        assert 0.5 < row["auroc"]["interval"][0] < row["auroc"]["value"]


def test_thresholds_come_from_validation_images_alone(study):
    samples, labels, validation, validation_labels, outside = study
    table = uncertainty_table(*study, **DRAWS)
    other = uncertainty_table(samples, (labels + 1) % 4, validation, validation_labels, outside, **DRAWS)
    assert table["thresholds"] == other["thresholds"] == choose_thresholds(validation, validation_labels)
    # by hand, for one of them
    held, test = validation.astype(float).mean(0), samples.astype(float).mean(0)
    threshold = refusal_threshold(1 - held.max(1), held.argmax(1) != validation_labels, 0.01)
    assert table["thresholds"]["confidence"]["1%"] == pytest.approx(threshold, abs=1e-6)
    is_answered = 1 - test.max(1) <= threshold + 1e-6
    row = table["selectors"]["confidence"]["at_threshold"]["1%"]
    assert 0 < row["coverage"]["value"] == is_answered.mean() < 1
    assert row["accuracy"]["value"] == pytest.approx((test.argmax(1) == labels)[is_answered].mean())
    assert row["accuracy"]["value"] > table["scores"]["accuracy"]["value"]


def test_a_plain_network_is_a_posterior_of_one_sample(study):
    samples, labels, validation, validation_labels, outside = study
    table = uncertainty_table(
        samples[:1], labels, validation[:1], validation_labels, {k: v[:1] for k, v in outside.items()}, **DRAWS
    )
    json.dumps(table, allow_nan=False)
    assert table["entropies"]["epistemic"] == {"value": 0, "interval": [0, 0]}
    for rows in (table["selectors"], table["thresholds"], table["outside"]["noise"]["selectors"]):
        assert rows["mutual_information"] is None and rows["entropy"] is not None
    assert degradation_row(read(samples[:1]), labels, table["thresholds"], **DRAWS)["mutual_information"] is None


def test_the_image_that_is_nan_is_named_with_its_set(study):
    samples, labels, validation, validation_labels, outside = study
    bad = outside["noise"].copy()
    bad[3, 7, 0] = np.nan
    with pytest.raises(UserError, match="noise image 7 are NaN"):
        uncertainty_table(samples, labels, validation, validation_labels, {"noise": bad}, **DRAWS)
    with pytest.raises(UserError, match="validation image 7 are NaN"):
        choose_thresholds(bad, validation_labels[:100])


def test_confidence_tells_apart_what_rounds_to_one():
    rest = np.array([1e-9, 1e-12, 0], np.float32)
    samples = np.stack([1 - rest, rest], axis=1)[None]  # (1, 3, 2), float32: every largest probability is 1
    assert (samples[0, :, 0] == 1).all()
    np.testing.assert_allclose(read(samples).selectors["confidence"], rest)


def test_degradation_in_the_head():
    # sure and right, sure and wrong, torn between the samples; two samples
    samples = np.array([[[1, 0.0], [1, 0], [1, 0]], [[1, 0], [1, 0], [0, 1]]])
    labels = np.array([0, 1, 1])
    rules = {"answers": 0.0, "nothing": None}
    row = degradation_row(
        read(samples), labels, {"confidence": rules, "entropy": {}, "mutual_information": None}, **DRAWS
    )
    assert row["n_images"] == 3
    assert row["forced_accuracy"] == {"value": pytest.approx(1 / 3), "interval": list(wilson_interval(1, 3))}
    assert row["confidence"]["value"] == pytest.approx(2.5 / 3)
    assert row["mutual_information"]["value"] == pytest.approx(np.log(2) / 3)
    found = row["selectors"]["confidence"]
    assert (found["answers"]["refused"]["value"], found["answers"]["confidently_wrong"]["value"]) == (1 / 3, 1 / 3)
    assert (found["nothing"]["refused"]["value"], found["nothing"]["confidently_wrong"]["value"]) == (1, 0)
    assert row["selectors"]["entropy"] == row["selectors"]["mutual_information"] == {}
    # medians (1, 0), (1, 0), (1/2, 1/2): all answered, class 0 named thrice, so two of three are confidently wrong
    assert row["median_rule"]["refused"]["value"] == 0
    assert row["median_rule"]["confidently_wrong"]["value"] == pytest.approx(2 / 3)


def test_degraded_images_are_refused_by_thresholds_from_clean_ones(study):
    samples, labels, validation, validation_labels, _ = study
    thresholds = choose_thresholds(validation, validation_labels)
    clean = degradation_row(read(samples), labels, thresholds, **DRAWS)
    degraded, their_labels = posterior(300, sharp=1, seed=5)
    row = degradation_row(read(degraded), their_labels, thresholds, **DRAWS)
    assert row["forced_accuracy"]["value"] < clean["forced_accuracy"]["value"]
    assert row["mutual_information"]["interval"][0] > clean["mutual_information"]["interval"][1]
    refused = [r["selectors"]["confidence"]["1%"]["refused"] for r in (clean, row)]
    assert refused[0]["interval"][1] < refused[1]["interval"][0]
    entropy = read(degraded).selectors["entropy"]
    kept = answered(entropy, thresholds["entropy"]["1%"])
    wrong = degraded.mean(0).argmax(1) != their_labels
    assert row["selectors"]["entropy"]["1%"]["confidently_wrong"]["value"] == (kept & wrong).mean()
