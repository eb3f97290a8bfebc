"""Whether a network refuses where another is confidently wrong, counted by hand; and what is asked of which images."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from iic.bayes.asked import Ask, Labelled, uncertainty_report
from iic.bayes.bootstrap import drawn_counts, mean_interval
from iic.bayes.doubt import comparison, doubt_report, take
from iic.bayes.uncertainty_table import SELECTORS, TARGETS, choose_thresholds
from iic.data.images import ImageSet
from iic.evaluation.fills import Fills
from iic.evaluation.statistics import bootstrap_interval
from iic.explainers.attributions import Attributions

DRAWS = {"seed": 0, "replicates": 4000}
ZERO = np.zeros(6, np.int64)  # every image is of class 0


def two_classes(first):
    """Probabilities (..., 2) of class 0 and 1."""
    first = np.asarray(first, float)
    return np.stack([first, 1 - first], -1)


def at(**values):
    """Thresholds for a risk of 1 % by selector; those for the other targets are such that nothing is answered."""
    given = {name: dict.fromkeys(TARGETS) | {"1%": value} for name, value in values.items()}
    return dict.fromkeys(SELECTORS) | given


@pytest.fixture
def plain():
    """Answers all but image 4, and errs on 1, 2, 3 and 5 of these."""
    return take(two_classes([[0.9, 0.1, 0.1, 0.05, 0.4, 0.15]]), ZERO, at(confidence=0.2))


@pytest.fixture
def posterior():
    """By the confidence of the mean it answers 0, 2 and 5, and errs on the latter two."""
    samples = two_classes([[0.95, 0.3, 0.1, 0.9, 0.4, 0.1], [0.95, 0.5, 0.1, 0.5, 0.5, 0.2]])
    return take(samples, ZERO, at(confidence=0.2, mutual_information=1.0))


def test_who_refuses_where_the_plain_network_is_confidently_wrong(plain, posterior):
    found = comparison(plain, posterior, **DRAWS)
    row = found["confidence"]["1%"]
    assert row["confidently_wrong"] == 4
    wilson = binomtest(2, 4).proportion_ci(method="wilson")  # of 1, 2, 3 and 5, it refuses 1 and 3
    assert row["refused"] == {"value": 0.5, "interval": pytest.approx([wilson.low, wilson.high])}
    # on 2 of 6 images one errs where the other does not: a bootstrap draws Bin(6, 1/3) of them
    exact = -binom.ppf([0.975, 0.025], 6, 1 / 3) / 6
    assert row["minus_plain"] == {"value": pytest.approx(-1 / 3), "interval": pytest.approx(exact)}

    everything = found["mutual_information"][
        "1%"
    ]  # is answered under a threshold of 1 nat, and images 1, 2, 4, 5 wrong
    assert everything["refused"]["value"] == 0 and everything["minus_plain"]["value"] == pytest.approx(0)
    assert everything["minus_plain"]["interval"][0] < 0 < everything["minus_plain"]["interval"][1]


def test_where_nothing_is_answered_there_is_no_share_and_no_interval(plain, posterior):
    row = comparison(plain, posterior, **DRAWS)["confidence"]["0.1%"]
    nothing = {"value": None, "interval": None}
    none = pytest.approx([0, binomtest(0, 6).proportion_ci(method="wilson").high])
    assert (row["confidently_wrong"], row["confidently_wrong_share"]) == (0, {"value": 0, "interval": none})
    assert row["refused"] == nothing
    high = none.expected[1]  # none of six: a bootstrap would be blind
    assert row["minus_plain"] == {"value": 0.0, "interval": pytest.approx([-high, high])}


def test_a_single_sample_is_compared_by_its_confidence_alone(plain):
    found = comparison(plain, plain, **DRAWS)
    assert found["mutual_information"] is None
    assert found["confidence"]["1%"]["refused"]["value"] == 0
    low, high = found["confidence"]["1%"]["minus_plain"]["interval"]
    assert found["confidence"]["1%"]["minus_plain"]["value"] == 0 and -low == high > 0


def test_intervals_of_means_are_the_evaluations():
    values = np.random.default_rng(0).gamma(2.0, size=50)
    for numbers in (values, np.full(50, 0.3)):
        expected = bootstrap_interval(numbers, replicates=300, seed=4, proportion=False)
        assert mean_interval(numbers, replicates=300, seed=4) == pytest.approx(list(expected))
    counts = drawn_counts(50, 300, 4)
    assert (counts.sum(1) == 50).all() and not np.array_equal(counts, drawn_counts(50, 300, 4, 1))
    with pytest.raises(ValueError, match="read-only"):
        counts[0] = 0


# What is asked


def bright(calls, precision="float32"):
    """A network that takes an image's brightness for the probability of class 1, and remembers what it was asked."""

    def answer(images):
        calls.append(images)
        return two_classes(0.95 - 0.9 * images.mean((1, 2, 3)) / 255)[None]

    return Ask(answer, precision)


@pytest.mark.parametrize(("keep", "shown"), [(0.1, 0.1), (0.3, 0.4)])
def test_all_cells_of_a_method_are_asked_together_and_none_is_mixed_up(keep, shown):
    white = ImageSet(np.full((8, 1, 10, 10), 255, np.uint8), np.zeros(8, np.int64))
    values = np.random.default_rng(0).normal(size=(8, 10, 10)).astype(np.float32)
    maps = {name: Attributions(values, np.arange(8), np.zeros(8, np.int64), {}) for name in ("lrp", "random")}
    calls, thresholds = [], at(confidence=0.2)
    report = doubt_report(
        {"plain": bright(calls), "plain_same_network": bright([], "bfloat16")},
        {"plain": thresholds, "plain_same_network": thresholds},
        maps,
        white,
        Fills(np.zeros(1), white.images),
        shares=(0.7, 0.1, 0.4),
        shown=keep,
        images=5,
        fill_names=("mean_colour", "donor"),  # black; another white image
        noise_seed=0,
        seed=0,
        replicates=100,
    )
    assert [len(images) for images in calls] == [5 * 2 * 2 * 3] * 2  # images, directions, fills, shares; by method
    assert report["shares"] == [0.1, 0.4, 0.7] and report["shown"] == shown
    assert report["precisions"] == {"plain": "float32", "plain_same_network": "bfloat16"}
    for direction, left in (("keep", [0.1, 0.4, 0.7]), ("remove", [0.9, 0.6, 0.3])):
        rows = report["networks"]["plain"]["lrp"][direction]
        for fill, brightness in (("mean_colour", np.array(left)), ("donor", np.ones(3))):
            assert [row["share"] for row in rows[fill]] == [0.1, 0.4, 0.7]
            assert {row["n_images"] for row in rows[fill]} == {5}
            confidence = [row["confidence"]["value"] for row in rows[fill]]
            assert confidence == pytest.approx(np.maximum(0.95 - 0.9 * brightness, 0.05 + 0.9 * brightness), abs=0.003)
    rows = report["networks"]["plain_same_network"]["lrp"]["keep"]["donor"]
    assert rows[0]["against"]["plain"]["confidence"]["1%"]["confidently_wrong"] == 5
    assert report["networks"]["plain"]["lrp"]["keep"]["donor"][0]["against"] == {}


def test_every_set_of_images_is_asked_at_once_and_read_apart():
    rng = np.random.default_rng(0)
    sets = [rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8) for count in (30, 20, 10, 10)]
    test, validation = (Labelled(images, np.arange(len(images)) % 2) for images in sets[:2])
    outside, calls = {"black": sets[2] // 4, "white": 255 - sets[3] // 4}, []
    typical = {"test": np.arange(30) > 2, "black": np.zeros(10, bool), "white": np.ones(10, bool)}
    report = uncertainty_report(
        {"plain": bright(calls, "bfloat16")}, test, validation, outside, typical, seed=0, replicates=100
    )
    assert len(calls) == 1 and len(calls[0]) == 70
    table, ask = report["networks"]["plain"], bright([])
    assert table["precision"] == "bfloat16"
    assert table["thresholds"] == choose_thresholds(ask(validation.inputs), validation.labels)
    accuracy = (ask(test.inputs)[0].argmax(1) == test.labels).mean()
    assert table["scores"]["accuracy"]["value"] == pytest.approx(accuracy)
    for name, images in outside.items():
        refused = table["outside"][name]["selectors"]["confidence"]["refused"]["1%"]["value"]
        threshold = table["thresholds"]["confidence"]["1%"]
        uncertainty = ask(images)[0].min(1)
        assert refused == (1 if threshold is None else (uncertainty > threshold).mean())
        both = table["if_typical"]["confidence"]["1%"]["refused"][name]["value"]
        assert both == (1 if name == "black" else refused)
