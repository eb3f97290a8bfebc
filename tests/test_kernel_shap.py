from itertools import permutations
from math import comb

import numpy as np
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st

from iic.errors import UserError
from iic.explainers.kernel_shap import draw_coalitions, shapley_values


def game(m: int, seed: int):
    """A set function with interactions of every order: a table of 2^m random values."""
    table = np.random.default_rng(seed).normal(size=2**m)
    return lambda masks: table[(np.asarray(masks, dtype=np.int64) @ (1 << np.arange(m)))]


def by_permutations(value, m: int) -> np.ndarray:
    """The definition: mean marginal contribution over all orders of the players."""
    phi, orders = np.zeros(m), list(permutations(range(m)))
    for order in orders:
        mask = np.zeros(m, bool)
        for player in order:
            before = value(mask)
            mask[player] = True
            phi[player] += value(mask) - before
    return phi / len(orders)


def solve(value, m: int, budget: int, seed: int = 0) -> np.ndarray:
    masks, weights = draw_coalitions(m, budget, np.random.default_rng(seed))
    return shapley_values(masks, value(masks), weights, value(np.zeros(m, bool)), value(np.ones(m, bool)))


@pytest.mark.parametrize("m", [2, 3, 4, 5, 6, 7])
def test_with_every_mask_it_is_exact(m):
    value = game(m, m)
    np.testing.assert_allclose(solve(value, m, 2**m - 2), by_permutations(value, m), atol=1e-8)


@pytest.mark.parametrize("m", [8, 9, 10])
def test_with_every_mask_it_is_the_enumerated_sum(m):
    value = game(m, m)
    masks = (np.arange(2**m)[:, None] >> np.arange(m)) & 1 == 1
    expected = np.zeros(m)
    for i in range(m):
        without = masks[~masks[:, i]]
        joined = without.copy()
        joined[:, i] = True
        share = np.array([1 / (m * comb(m - 1, size)) for size in without.sum(1)])
        expected[i] = (share * (value(joined) - value(without))).sum()
    np.testing.assert_allclose(solve(value, m, 2**m), expected, atol=1e-8)


def test_the_shap_package_agrees_on_the_same_masks():
    m, value = 9, game(9, 1)
    explainer = shap.KernelExplainer(lambda z: value(np.round(z)), np.zeros((1, m)))
    theirs = explainer.shap_values(np.ones((1, m)), nsamples=200, l1_reg=False, silent=True)[0]
    masks = explainer.synth_data[: explainer.nsamples].astype(bool)
    weights = explainer.kernelWeights[: explainer.nsamples]
    ours = shapley_values(masks, value(masks), weights, value(np.zeros(m)), value(np.ones(m)))
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


@given(m=st.integers(2, 30), extra=st.integers(0, 400), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_masks_are_paired_proper_and_weigh_the_whole_kernel(m, extra, seed):
    budget = min(2 * m, 2**m - 2) + extra
    masks, weights = draw_coalitions(m, budget, np.random.default_rng(seed))
    assert len(masks) <= budget
    assert masks.any(1).all() and not masks.all(1).any()
    left, right = sorted(map(bytes, masks)), sorted(map(bytes, ~masks))
    assert left == right
    sizes = np.arange(1, m)
    assert weights.sum() == pytest.approx(((m - 1) / (sizes * (m - sizes))).sum())


def test_sampling_is_unbiased_and_converges():
    m, value = 12, game(12, 5)
    exact = solve(value, m, 2**m)
    few = np.array([solve(value, m, 300, seed) for seed in range(40)])
    many = np.array([solve(value, m, 2000, seed) for seed in range(10)])
    spread = few.std(0, ddof=1) / np.sqrt(40)
    assert (np.abs(few.mean(0) - exact) < 5 * spread).all()
    assert np.square(many - exact).mean() < 0.3 * np.square(few - exact).mean()


def test_linear_game_gives_its_weights_from_few_masks():
    w = np.random.default_rng(0).normal(size=30)
    np.testing.assert_allclose(solve(lambda z: np.asarray(z, float) @ w, 30, 200), w, atol=1e-8)


def test_too_small_a_budget_is_refused():
    with pytest.raises(UserError, match="at least 60"):
        draw_coalitions(30, 40, np.random.default_rng(0))
