import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from iic.bayes.selection import (
    MEASURES,
    answer_row,
    answered,
    augrc,
    aurc,
    certified_threshold,
    coverage_at_risk,
    percentiles,
    refusal_threshold,
    resampled_counts,
    risk_coverage,
    selection_measures,
    share,
)
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation.statistics import wilson_interval

SMALL = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6)  # few values, so ties


def split(pairs):
    """Uncertainties float (N,) and errors bool (N,) of a list of pairs."""
    return np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs], bool)


def by_definition(scores, errors):
    """AURC and AUGRC of one order of answering, image by image, averaged over all orders that the scores allow."""
    found = []
    for order in itertools.permutations(range(len(scores))):
        if any(scores[a] > scores[b] for a, b in itertools.pairwise(order)):
            continue
        wrong = np.array([sum(errors[list(order[:k])]) for k in range(len(order) + 1)])
        count = np.arange(len(order) + 1)
        found.append([(wrong[1:] / count[1:]).mean(), np.trapezoid(wrong, count) / len(order) ** 2])
    return np.mean(found, axis=0)


def by_thresholds(scores, errors, risk):
    """The largest coverage of all thresholds that hold the risk."""
    kept = [scores <= t for t in scores]
    return max([k.mean() for k in kept if errors[k].mean() <= risk], default=0)


def ranked_study(images, seed=0, decimals=2):
    """Uncertainties that tie, and errors that they foretell: (N,), (N,)."""
    rng = np.random.default_rng(seed)
    scores = rng.random(images)
    return np.round(scores, decimals), rng.random(images) < 0.5 * scores**3


def test_four_images_in_the_head():
    scores, errors = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True])
    curve = risk_coverage(scores, errors)
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert aurc(scores, errors) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # errors among all after each quarter: 0, 0, 1/4, 1/4, 1/2; trapezoids between them
    assert augrc(scores, errors) == pytest.approx((0 + 1 / 8 + 2 / 8 + 3 / 8) / 4)
    assert [coverage_at_risk(scores, errors, r) for r in (0.01, 0.34, 0.5)] == [0.25, 0.75, 1]
    assert coverage_at_risk(scores, ~errors) == 0  # the surest answer is wrong
    found = curve.expected(4)
    assert (found["coverage"], found["risk"]) == ([0.25, 0.5, 0.75, 1], [0, 0.5, pytest.approx(1 / 3), 0.5])
    assert found["interval"] == [list(wilson_interval(wrong, n)) for n, wrong in enumerate((0, 1, 1, 2), 1)]


def test_ties_are_met_in_expectation_by_areas_and_as_one_by_thresholds():
    scores, errors = np.array([1.0, 1, 2]), np.array([True, False, False])
    assert aurc(scores, errors) == pytest.approx(((1 + 1 / 2 + 1 / 3) + (0 + 1 / 2 + 1 / 3)) / 2 / 3)
    assert coverage_at_risk(scores, errors, 0.4) == 1 and coverage_at_risk(scores, errors, 0.3) == 0
    assert risk_coverage(scores, errors).answered.tolist() == [2, 3]
    constant = np.zeros(100), np.arange(100) < 30
    assert aurc(*constant) == pytest.approx(0.3) and augrc(*constant) == pytest.approx(0.15)


@given(SMALL)
def test_areas_are_what_enumeration_finds(pairs):
    scores, errors = split(pairs)
    assert (aurc(scores, errors), augrc(scores, errors)) == pytest.approx(tuple(by_definition(scores, errors)))
    for risk in (0, 0.01, 0.3, 0.5):
        assert coverage_at_risk(scores, errors, risk) == pytest.approx(by_thresholds(scores, errors, risk))


def test_areas_of_many_images_are_what_the_loop_over_images_finds():
    rng = np.random.default_rng(1)
    scores, errors = rng.normal(size=300), rng.random(300) < 0.2
    cuts = np.sort(scores)
    risks = [errors[scores <= t].mean() for t in cuts]
    joint = [0] + [(errors & (scores <= t)).mean() for t in cuts]
    assert aurc(scores, errors) == pytest.approx(np.mean(risks), abs=1e-12)
    assert augrc(scores, errors) == pytest.approx(np.trapezoid(joint, dx=1 / 300), abs=1e-12)


def test_augrc_is_the_function_of_auroc_and_accuracy_that_its_authors_give():
    scores, errors = ranked_study(1000)
    a, area = 1 - errors.mean(), roc_auc_score(errors, scores)
    assert augrc(scores, errors) == pytest.approx((1 - area) * a * (1 - a) + (1 - a) ** 2 / 2, abs=1e-12)


@given(SMALL, st.randoms())
def test_nothing_depends_on_the_order_of_the_images(pairs, random):
    first, second = split(pairs), split(random.sample(pairs, len(pairs)))
    for measure in (aurc, augrc, coverage_at_risk):
        assert measure(*first) == measure(*second)
    for choose in (refusal_threshold, certified_threshold):
        assert choose(*first, 0.4) == choose(*second, 0.4)


def test_thresholds_in_the_head():
    scores, errors = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True])
    assert refusal_threshold(scores, errors, 0.34) == 0.3
    assert refusal_threshold(scores, np.ones(4, bool), 0.5) is None
    assert answered(scores, 0.3).tolist() == [True, True, True, False]
    assert not answered(scores, None).any()
    row = answer_row(answered(scores, 0.3), errors)
    assert row["coverage"]["value"] == 0.75 and row["accuracy"]["value"] == pytest.approx(2 / 3)
    assert row["accuracy"]["interval"] == pytest.approx(binomtest(2, 3).proportion_ci(method="wilson"))
    assert answer_row(answered(scores, None), errors)["accuracy"] == {"value": None, "interval": None}
    assert share([True, False])["interval"] == pytest.approx(binomtest(1, 2).proportion_ci(method="wilson"))


def test_a_risk_is_certified_only_where_there_are_images_enough():
    # .99^299 is the first power of at most .05
    assert certified_threshold(np.arange(299.0), np.zeros(299, bool), 0.01) == 298
    assert certified_threshold(np.arange(298.0), np.zeros(298, bool), 0.01) is None
    # an error at rank 351 of 1,000: at 350 none, at 400 the chance of at most one is .09 if the risk is 1 %
    assert certified_threshold(np.arange(1000.0), np.arange(1000) == 350, 0.01) == 349
    assert certified_threshold(np.arange(1000.0), np.arange(1000) == 600, 0.01) == 999
    assert certified_threshold(np.arange(1000.0), np.arange(1000) == 200, 0.01) is None
    assert certified_threshold(np.zeros(1000), np.arange(1000) < 20, 0.01) is None
    assert certified_threshold(np.zeros(1), np.zeros(1, bool), 0.01) is None


def test_thresholds_from_validation_images_hold_the_risk_on_new_ones():
    """An image of uncertainty u in 0..1 is wrong with probability .2 u^3, so a threshold t has the risk .05 t^3."""
    rng, wanted = np.random.default_rng(0), 0.01
    plain, certified = [], []
    for _ in range(150):
        scores = rng.random(3000)
        errors = rng.random(3000) < 0.2 * scores**3
        plain.append(0.05 * refusal_threshold(scores, errors, wanted) ** 3)
        certified.append(0.05 * (certified_threshold(scores, errors, wanted) or 0) ** 3)
    assert np.mean(plain) == pytest.approx(wanted, rel=0.15)  # on average, and no more
    assert np.mean(np.array(plain) > wanted) > 0.3
    assert np.mean(np.array(certified) > wanted) <= 0.05
    assert np.mean(certified) > wanted / 3  # and it is of use


@pytest.mark.parametrize("decimals", [1, 9])
def test_intervals_are_percentiles_over_images_drawn_with_replacement(decimals):
    """Each bootstrap sample is written out, an image as often as it was drawn, and measured like a test set."""
    scores, errors = ranked_study(80, decimals=decimals)
    others = np.random.default_rng(5).random(80)
    found = selection_measures({"a": (scores, errors), "b": (others, errors)}, replicates=50, seed=3, risk=0.05)
    rng, written = generator("bootstrap", 3), []
    for _ in range(50):
        drawn = np.repeat(np.arange(80), resampled_counts(rng, 80))
        pair = [(s[drawn], errors[drawn]) for s in (scores, others)]
        written.append([[aurc(*p), augrc(*p), coverage_at_risk(*p, 0.05)] for p in pair])
    written = np.array(written)  # (R, 2, measures)
    for m, measure in enumerate(MEASURES):
        for row, name in enumerate("ab"):
            assert found[name][measure]["interval"] == pytest.approx(percentiles(written[:, row, m]))
        gap = found["b"]["minus_first"][measure]
        assert gap["value"] == pytest.approx(found["b"][measure]["value"] - found["a"][measure]["value"])
        assert gap["interval"] == pytest.approx(percentiles(written[:, 1, m] - written[:, 0, m]))
    assert found["a"]["augrc"]["value"] == augrc(scores, errors)


def test_a_paired_interval_tells_a_selector_from_chance_and_not_from_itself():
    scores, errors = ranked_study(500)
    chance = np.random.default_rng(9).random(500)
    selectors = {"good": (scores, errors), "same": (scores**2, errors), "chance": (chance, errors)}
    found = selection_measures(selectors, replicates=200, seed=0)
    assert found["same"]["minus_first"]["augrc"] == {"value": 0, "interval": [0, 0]}
    assert found["chance"]["minus_first"]["aurc"]["interval"][0] > 0
    low, high = found["good"]["aurc"]["interval"]
    assert low < found["good"]["aurc"]["value"] < high
    assert "minus_first" not in found["good"]


def test_others_than_the_first_are_compared_as_if_they_were_the_first():
    scores, errors = ranked_study(60)
    rng = np.random.default_rng(3)
    named = {name: (s, errors) for name, s in (("a", scores), ("b", rng.random(60)), ("c", rng.random(60)))}
    found = selection_measures(named, replicates=40, seed=0, also=("b",))
    moved = selection_measures({name: named[name] for name in "bac"}, replicates=40, seed=0)
    assert {name: found[name]["minus_b"] for name in "ac"} == {name: moved[name]["minus_first"] for name in "ac"}
    assert set(found["b"]) == {*MEASURES, "minus_first"}


def test_a_bootstrap_that_sees_no_error_says_so():
    scores = np.arange(10.0)
    found = selection_measures({"a": (scores, scores > 8), "b": (scores, scores > 10)}, replicates=20, seed=0)
    assert found["a"]["aurc"]["interval"] is not None
    assert found["b"]["aurc"] == {"value": 0, "interval": None}
    assert found["b"]["minus_first"]["augrc"]["interval"] is None


def test_bad_selectors_are_refused():
    scores, errors = ranked_study(5)
    with pytest.raises(UserError, match="uncertainty of image 3 is NaN"):
        aurc(np.array([0, 1, 2, np.nan, np.nan]), errors)
    with pytest.raises(UserError, match="one bool"):
        risk_coverage(scores, errors.astype(int))
    with pytest.raises(UserError, match="one bool"):
        refusal_threshold(scores[:4], errors, 0.01)
    with pytest.raises(UserError, match="the same images"):
        selection_measures({"a": (scores, errors), "b": (scores[:4], errors[:4])}, replicates=5, seed=0)


def test_ten_thousand_images_are_quick():
    scores, errors = ranked_study(10_000, decimals=9)
    start = time.perf_counter()
    selection_measures({"a": (scores, errors)}, replicates=100, seed=0)
    assert time.perf_counter() - start < 1  # so 1,000 take less than 10 s
