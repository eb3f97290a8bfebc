from itertools import permutations
from math import comb

import numpy as np
import pytest
import shap
from captum.attr import KernelShap
from hypothesis import given, settings
from hypothesis import strategies as st

from iic.errors import UserError
from iic.explainers.coalitions import (
    _random_subsets,
    _repeats,
    allocate,
    draw_coalitions,
    kernel_mass,
    smallest_budget,
)
from iic.explainers.kernel_shap import PairedValues, all_masks, paired_values, shapley_values, weighted_shapley_values
from iic.explainers.pair_sampling import _pairs


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


def by_enumeration(value, m: int) -> np.ndarray:
    masks = (np.arange(2**m)[:, None] >> np.arange(m)) & 1 == 1
    phi = np.zeros(m)
    for i in range(m):
        without = masks[~masks[:, i]]
        joined = without.copy()
        joined[:, i] = True
        share = np.array([1 / (m * comb(m - 1, size)) for size in without.sum(1)])
        phi[i] = (share * (value(joined) - value(without))).sum()
    return phi


def answers(value, m: int, budget: int, seed: int = 0, power: float = 0.0) -> PairedValues:
    drawn = draw_coalitions(m, budget, np.random.default_rng(seed), power)
    z = drawn.masks
    return PairedValues(drawn, value(z), value(~z), float(value(np.zeros(m, bool))), float(value(np.ones(m, bool))))


def solve(value, m: int, budget: int, seed: int = 0, power: float = 0.0):
    values, errors = shapley_values([answers(value, m, budget, seed, power)])
    return values[0], errors[0]


@pytest.mark.parametrize("m", [2, 3, 4, 5, 6, 7])
def test_with_every_mask_it_is_exact_and_knows_it(m):
    value = game(m, m)
    values, errors = solve(value, m, 2**m - 2)
    np.testing.assert_allclose(values, by_permutations(value, m), atol=1e-8)
    assert (errors == 0).all()


@pytest.mark.parametrize("m", [8, 9, 10])
def test_with_every_mask_it_is_the_enumerated_sum(m):
    value = game(m, m)
    values, errors = solve(value, m, 2**m)
    np.testing.assert_allclose(values, by_enumeration(value, m), atol=1e-8)
    assert (errors == 0).all()


def test_the_shap_package_agrees_on_the_same_masks():
    m, value = 9, game(9, 1)
    explainer = shap.KernelExplainer(lambda z: value(np.round(z)), np.zeros((1, m)))
    theirs = explainer.shap_values(np.ones((1, m)), nsamples=200, l1_reg=False, silent=True)[0]
    masks = explainer.synth_data[: explainer.nsamples].astype(bool)
    weights = explainer.kernelWeights[: explainer.nsamples]
    ours = weighted_shapley_values(masks, value(masks), weights, value(np.zeros(m)), value(np.ones(m)))
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_captum_agrees_on_the_same_masks():
    """Captum weighs none and all a million times more instead of eliminating; its masks are recorded as it asks."""
    import torch

    m, value = 8, game(8, 2)
    asked = []

    def forward(z):
        asked.append(z.numpy().astype(bool))
        return torch.from_numpy(value(asked[-1]))

    torch.manual_seed(0)
    inputs = torch.ones(1, m, dtype=torch.float64)
    theirs = KernelShap(forward).attribute(inputs, n_samples=60, perturbations_per_eval=1).numpy()[0]
    masks = np.concatenate(asked[1:])
    inner = masks[masks.any(1) & ~masks.all(1)]
    ours = weighted_shapley_values(
        inner, value(inner), np.ones(len(inner)), value(np.zeros(m)), value(np.ones(m))
    )  # Captum draws by the kernel and weighs every mask alike
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_paired_and_unpaired_regressions_are_the_same():
    m, value = 12, game(12, 3)
    found = answers(value, m, 200)
    z, w = found.coalitions.masks, found.coalitions.weights
    both, weights = np.concatenate([z, ~z]), np.concatenate([w, w])
    expected = weighted_shapley_values(both, value(both), weights, found.nothing, found.everything)
    np.testing.assert_allclose(shapley_values([found])[0][0], expected, atol=1e-10)


def test_images_of_different_sizes_are_solved_together_as_alone():
    found = [answers(game(m, m), m, 150, seed=m) for m in (5, 12, 9)]
    together = shapley_values(found)
    for i, one in enumerate(found):
        alone = shapley_values([one])
        np.testing.assert_allclose(together[0][i], alone[0][0], atol=1e-10)
        np.testing.assert_allclose(together[1][i], alone[1][0], atol=1e-10)


@given(m=st.integers(2, 30), extra=st.integers(0, 400), seed=st.integers(0, 9), power=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_pairs_are_proper_different_and_weigh_the_whole_kernel(m, extra, seed, power):
    budget = smallest_budget(m) - 2 + extra
    drawn = draw_coalitions(m, budget, np.random.default_rng(seed), power)
    masks = drawn.masks
    assert len(masks) == min(budget // 2, 2 ** (m - 1) - 1)
    assert masks.any(1).all() and not masks.all(1).any()
    both = np.concatenate([masks, ~masks])
    assert len(np.unique(both, axis=0)) == len(both)
    assert drawn.weights.sum() == pytest.approx(kernel_mass(m).sum())
    assert ((drawn.sampled > 0) & (drawn.sampled <= 1)).all()


def test_allocation_is_proportional_and_never_more_than_there_is():
    assert allocate(10, np.array([1.0, 1.0]), [100, 100]) == [5, 5]
    assert allocate(10, np.array([3.0, 1.0, 1.0]), [2, 100, 100]) == [2, 4, 4]
    assert allocate(7, np.array([1.0, 1.0, 1.0]), [1, 2, 4]) == [1, 2, 4]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_sampling_is_unbiased_and_converges(power):
    m, value = 12, game(12, 5)
    exact = by_enumeration(value, m)
    few = np.array([solve(value, m, 300, seed, power)[0] for seed in range(40)])
    many = np.array([solve(value, m, 2000, seed, power)[0] for seed in range(10)])
    spread = few.std(0, ddof=1) / np.sqrt(40)
    assert (np.abs(few.mean(0) - exact) < 5 * spread).all()
    assert np.square(many - exact).mean() < 0.3 * np.square(few - exact).mean()


@pytest.mark.parametrize(("budget", "largest"), [(46, 2), (50, 2), (300, 1.1), (1000, 1.1)])  # 48 is the least
def test_intervals_hold_the_exact_value(budget, largest):
    """And errors are no larger than they have to be: where masks are few, leverages and what is added for them are."""
    m, found = 12, []
    for seed in range(60):
        value = game(m, seed)
        values, errors = solve(value, m, budget, seed)
        found.append((values - by_enumeration(value, m), errors))
    off, errors = np.swapaxes(found, 0, 1)
    assert 0.93 <= np.mean(np.abs(off) < 1.96 * errors) <= 0.98
    assert 0.9 < np.sqrt(np.square(errors).mean() / np.square(off).mean()) < largest


def test_the_first_pairs_are_a_draw_of_their_own():
    m = 20
    drawn = draw_coalitions(m, 1000, np.random.default_rng(0))
    part = drawn.first(250)
    assert part.weights.sum() == pytest.approx(kernel_mass(m).sum(), rel=0.02)
    sizes = np.minimum(drawn.masks.sum(1), (~drawn.masks).sum(1))
    for size in range(1, m // 2 + 1):
        assert np.count_nonzero(sizes[:250] == size) == pytest.approx(np.count_nonzero(sizes == size) / 2, abs=1)


@pytest.mark.parametrize("m", [6, 20, 70, 200])
def test_random_subsets_are_of_their_size_and_evenly_drawn(m):
    sizes = np.repeat([1, m // 3, m // 2], 3000)
    masks = _random_subsets(m, sizes, np.random.default_rng(0))
    assert np.count_nonzero(masks.sum(1) != sizes) <= 3  # two equal draws; they are drawn anew
    assert masks[sizes == m // 2, 0].all()  # of each pair the one with the first superpixel
    shares = masks[3000:6000].mean(0)
    assert np.abs(shares - (m // 3) / m).max() < 6 * 0.5 / np.sqrt(3000)
    assert (_repeats(masks[[0, 4000, 0, 1, 4000]]) == [False, False, True, (masks[0] == masks[1]).all(), True]).all()


def test_a_first_round_always_determines_the_values():
    """The first 16 of 31 pairs do not in one draw of some 1,500: then the round takes more."""
    m, w, more = 8, np.arange(8.0), 0
    for seed in range(1500):
        drawn = draw_coalitions(m, 62, np.random.default_rng(seed))
        first = drawn.first(_pairs(drawn, 0.25))
        more += len(first.masks) > 2 * m
        ((found,), _) = shapley_values([paired_values(first, all_masks(first) @ w)])
        np.testing.assert_allclose(found, w, atol=1e-8)
    assert 1 <= more <= 6


def test_linear_game_gives_its_weights_from_few_masks():
    w = np.random.default_rng(0).normal(size=30)
    values, errors = solve(lambda z: np.asarray(z, float) @ w, 30, 200)
    np.testing.assert_allclose(values, w, atol=1e-8)
    assert errors.max() < 1e-8


def test_too_small_a_budget_is_refused():
    """Of the 120 forwards two show none and all of the superpixels; three superpixels have 8 masks."""
    with pytest.raises(
        UserError, match=r"budget of 119 forwards is too small for the 30 superpixels of test image 7: .*needs 120"
    ):
        draw_coalitions(30, 117, np.random.default_rng(0), name="test image 7")
    assert len(draw_coalitions(30, 118, np.random.default_rng(0)).masks) == 59
    with pytest.raises(UserError, match="needs 8,"):
        draw_coalitions(3, 5, np.random.default_rng(0))


def test_masks_that_determine_nothing_are_refused():
    masks = np.array([[True, False, False], [True, False, False], [True, False, False]])
    with pytest.raises(UserError, match="do not determine Kernel SHAP's values"):
        weighted_shapley_values(masks, np.ones(3), np.ones(3), 0.0, 1.0)


def test_one_superpixel_is_refused():
    with pytest.raises(UserError, match="one superpixel only"):
        draw_coalitions(1, 100, np.random.default_rng(0))
