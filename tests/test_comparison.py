import itertools
import math
from dataclasses import astuple

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from iic.evaluation.claims import Claim, claims
from iic.evaluation.comparison import (
    Difference,
    against_best_control,
    difference,
    groups,
    holm,
    mcnemar,
    ranks_by_fill,
    resampled_means,
    same_sign,
    tellable_pairs,
)


def study(rng, images, advantages, noise_seeds=5):
    """Per-image accuracies of methods that share the images' difficulty: (M, N); true means differ by `advantages`."""
    ease = rng.uniform(0.2, 0.7, images)
    return rng.binomial(noise_seeds, ease + np.asarray(advantages)[:, None]) / noise_seeds


def all_resamples(scores):
    """Means (N^N, M) over every way to draw N images with replacement: the bootstrap's exact distribution."""
    count = scores.shape[1]
    draws = np.array(list(itertools.product(range(count), repeat=count)))
    return scores[:, draws].mean(2).T


def assert_quantiles(found, exact):
    """`found` holds the 2.5 and 97.5 % quantiles of the exact outcomes, up to 1.5 % of their mass."""
    for value, level in zip((found.low, found.high), (0.025, 0.975), strict=True):
        assert (exact < value - 1e-9).mean() - 0.015 <= level <= (exact <= value + 1e-9).mean() + 0.015


def test_replicates_follow_the_exact_distribution():
    scores = np.random.default_rng(0).random((2, 3))
    means, exact = resampled_means(scores, 27_000, seed=0), all_resamples(scores)
    values, expected = np.unique(exact.round(9), axis=0, return_counts=True)
    found, observed = np.unique(means.round(9), axis=0, return_counts=True)
    np.testing.assert_allclose(found, values)
    assert scipy.stats.chisquare(observed, expected * 1000).pvalue > 1e-4


def test_a_paired_difference_is_scipys():
    scores = study(np.random.default_rng(0), 300, [0.0, 0.15])
    expected = scipy.stats.bootstrap(
        tuple(scores),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=9999,
        rng=1,
    )
    ours = difference(0, 1, scores, resampled_means(scores, 9999, seed=0))
    np.testing.assert_allclose((ours.low, ours.high), tuple(expected.confidence_interval), atol=0.003)
    assert ours.point == pytest.approx(scores[0].mean() - scores[1].mean()) and (ours.low > 0 or ours.high < 0)


def test_all_methods_meet_the_same_images_in_every_part(monkeypatch):
    monkeypatch.setattr("iic.evaluation.comparison.PART", 7 * 50)
    first = np.random.default_rng(0).random(50)
    means = resampled_means(np.stack([first, first + 0.25, 1 - first]), 100, seed=2)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 0.25)
    np.testing.assert_allclose(means[:, 2], 1 - means[:, 0])
    assert len(np.unique(means[:, 0])) == 100


def test_intervals_cover_the_truth():
    """1,500 simulated studies of three methods: each pair's interval holds the true difference, and is not merely wide.

    The true coverage is .947, so that .93 lies three standard errors below (1.7 with 500 studies).
    """
    advantages, pairs = np.array([0.2, 0.1, 0.0]), [(0, 1), (0, 2), (1, 2)]
    rng, covered = np.random.default_rng(0), []
    for repeat in range(1500):
        scores = study(rng, 300, advantages)
        means = resampled_means(scores, 500, seed=repeat)
        found = [difference(a, b, scores, means) for a, b in pairs]
        covered.append(
            [d.low <= advantages[a] - advantages[b] <= d.high for d, (a, b) in zip(found, pairs, strict=True)]
        )
    coverage = np.mean(covered, axis=0)
    assert (coverage >= 0.93).all() and (coverage < 0.98).all()


def test_the_best_control_is_chosen_anew_in_every_replicate():
    """Two controls that are good on different images: their better one varies less, and is better, than either."""
    scores = np.array([[0.9, 0.8, 0.7, 1.0, 0.65], [1.0, 0.9, 0.1, 0.0, 0.53], [0.0, 0.1, 0.95, 0.85, 0.5]])
    found = against_best_control(
        ["m", "c", "d"], scores, resampled_means(scores, 20_000, seed=0), np.array([False, True, True])
    )["m"]
    exact = all_resamples(scores)
    assert found.control == "c" and found.difference.point == pytest.approx(0.81 - 0.506)
    assert_quantiles(found.difference, exact[:, 0] - exact[:, 1:].max(1))
    fixed = difference(0, 1, scores, resampled_means(scores, 20_000, seed=0))
    assert found.difference.high < fixed.high - 0.1


def test_choosing_among_equal_controls_errs_against_the_method_only():
    """Point: the true difference minus the expected largest of 4 normal means, 1.02938 standard errors (order
    statistics); the lower end passes the truth in at most 2.5 %, within the simulation's error."""
    rng, points, passed = np.random.default_rng(0), [], []
    is_control = np.array([False, True, True, True, True])
    for repeat in range(500):
        scores = rng.normal(0, 1, (5, 100))
        scores[0] += 0.5
        found = against_best_control("mabcd", scores, resampled_means(scores, 300, seed=repeat), is_control)[
            "m"
        ].difference
        points.append(found.point)
        passed.append(found.low > 0.5)
    error = np.std(points) / np.sqrt(500)
    assert np.mean(points) == pytest.approx(0.5 - 1.02938 / 10, abs=4 * error) and 4 * error < 0.05
    assert np.mean(passed) < 0.025


def test_with_one_clear_control_it_is_the_plain_difference():
    scores = study(np.random.default_rng(0), 400, [0.3, 0.2, -0.2])
    found = against_best_control(
        ["m", "good", "bad"], scores, resampled_means(scores, 500, seed=3), np.array([False, True, True])
    )
    means = resampled_means(scores, 500, seed=3)
    assert [found[m].control for m in ("m", "good", "bad")] == ["good", "bad", "good"]
    for method, other in [(0, 1), (1, 2), (2, 1)]:
        ours = list(found.values())[method].difference
        assert astuple(ours) == pytest.approx(astuple(difference(method, other, scores, means)))


def test_methods_may_have_controls_of_their_own():
    scores = study(np.random.default_rng(0), 50, [0.3, 0.2, 0.1, 0.0])
    own = np.array([[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0]], bool)
    found = against_best_control("abcd", scores, resampled_means(scores, 50, seed=0), own)
    assert [found[m].control for m in "abcd"] == ["c", "d", "d", "c"]
    alone = against_best_control(
        "abcd", scores, resampled_means(scores, 50, seed=0), np.array([False, False, False, True])
    )
    assert set(alone) == set("abc")  # d has no other control


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5), st.integers(0, 5))
def test_mcnemar_is_the_binomial_tail(only_first, only_second, both, neither):
    counts = (only_first, only_second, both, neither)
    first, second = np.repeat([True, False, True, False], counts), np.repeat([False, True, True, False], counts)
    discordant = only_first + only_second
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1)) / 2**discordant
    assert mcnemar(first, second) == pytest.approx(min(1, 2 * tail))


def test_holm_by_hand():
    """Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04, which must not fall: .02 .03 .06 .06."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])


def test_known_groups():
    """Best first 2 0 3 1: 2 equals 0, 0 equals 3, 2 is better than 3; 1 is worse than all."""
    tellable = np.zeros((4, 4), bool)
    for a, b in [(2, 3), (1, 0), (1, 2), (1, 3)]:
        tellable[a, b] = tellable[b, a] = True
    assert groups(np.array([0.5, 0.1, 0.6, 0.4]), tellable) == [[2, 0], [0, 3], [1]]


@given(st.integers(1, 7), st.integers(0, 2**21 - 1))
def test_groups_hold_every_pair_that_cannot_be_told_apart_and_no_other(count, bits):
    tellable = np.zeros((count, count), bool)
    for bit, (a, b) in enumerate(itertools.combinations(range(count), 2)):
        tellable[a, b] = tellable[b, a] = bits >> bit & 1
    found = [set(group) for group in groups(-np.arange(count), tellable)]
    alike = {pair for pair in itertools.combinations(range(count), 2) if not tellable[pair]}
    assert {pair for group in found for pair in itertools.combinations(sorted(group), 2)} == alike
    assert set.union(*found) == set(range(count)) and not any(a < b for a in found for b in found)
    for group in found:  # none could be larger
        assert all(any(tellable[other, one] for one in group) for other in set(range(count)) - group)


def test_a_variant_that_can_be_told_from_its_source_does_not_part_the_source_from_others():
    """b is a with 12 hits less, so that no image speaks for b; c differs from both on many images, by chance."""
    rng = np.random.default_rng(1)
    a = (rng.random(1000) < 0.6).astype(float)
    b, c = a.copy(), (rng.random(1000) < 0.575).astype(float)
    b[np.flatnonzero(a)[:12]] = 0
    scores = np.stack([a, b, c])
    found = groups(scores.mean(1), tellable_pairs(scores, resampled_means(scores, 500, seed=0)))
    assert sorted(map(sorted, found)) == [[0, 2], [1, 2]]


@pytest.mark.parametrize("differing", [5, 6])
def test_a_handful_of_images_tells_nothing_apart(differing):
    scores = np.ones((2, 400))
    scores[1, :differing] = 0
    tellable = tellable_pairs(scores, resampled_means(scores, 500, seed=0))
    assert tellable.tolist() == [[False, differing == 6], [differing == 6, False]]


def test_what_differs_is_told_and_what_does_not_is_grouped():
    scores = study(np.random.default_rng(0), 500, [0.0, 0.25, 0.005, 0.25])
    scores[3] = scores[1]
    means = resampled_means(scores, 500, seed=0)
    tellable = tellable_pairs(scores, means)
    gaps = [[difference(a, b, scores, means) for b in range(4)] for a in range(4)]
    expected = [[gap.low > 0 or gap.high < 0 for gap in row] for row in gaps]
    np.testing.assert_array_equal(tellable, expected)
    found = groups(scores.mean(1), tellable)
    assert [sorted(g) for g in found] == [[1, 3], [0, 2]]


def test_signs_and_ranks():
    assert same_sign([0.1, 0.2, 0.01]) and same_sign([-0.1, -0.2])
    assert not same_sign([0.1, -0.2, 0.3]) and not same_sign([0.1, 0.0]) and not same_sign([0.0, 0.0])
    np.testing.assert_allclose(ranks_by_fill(np.array([[0.5, 0.9, 0.1], [0.2, 0.2, 0.1]])), [1.75, 1.25, 3])


def test_a_claim_needs_interval_and_test():
    clear, unclear = Difference(0.1, 0.05, 0.15, 40), Difference(0.1, -0.01, 0.2, 40)
    assert Claim("a", "b", clear, 0.01).is_supported
    assert not Claim("a", "b", clear, 0.06).is_supported and not Claim("a", "b", unclear, 0.01).is_supported


def test_a_first_seed_that_says_the_opposite_is_no_evidence():
    first = np.zeros((2, 100), bool)
    first[1, :30] = True  # on the first noise seed b is right where a is not, and McNemar's p is tiny
    scores = np.array([np.full(100, 0.8), np.full(100, 0.3)])
    (claim,) = claims("ab", [(0, 1)], scores, resampled_means(scores, 100, seed=0), first)
    assert mcnemar(*first) < 1e-6 and claim.p == 1 and not claim.is_supported


def test_claims_are_corrected_together():
    """Discordant pairs 12:0, 9:1, 6:6 of 100 images; both-sided tails by hand, times 3, 2, 1."""
    hits = np.zeros((4, 100), bool)
    hits[0, :12] = True
    hits[2, :9] = hits[3, 9] = True
    hits = np.concatenate([hits, np.zeros((2, 100), bool)])
    hits[4, :6] = hits[5, 6:12] = True
    scores = hits.astype(np.float64)
    made = claims("abcdef", [(0, 1), (2, 3), (4, 5)], scores, resampled_means(scores, 300, seed=0), hits)
    assert [c.p for c in made] == pytest.approx([3 * 2 / 2**12, 2 * 2 * 11 / 2**10, 1])
    assert [(c.better, c.worse) for c in made] == [("a", "b"), ("c", "d"), ("e", "f")]
    assert [c.is_supported for c in made] == [True, True, False]
    assert claims("abcdef", [(2, 3)], scores, resampled_means(scores, 300, seed=0), hits)[0].is_supported
