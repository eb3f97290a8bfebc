from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iic.explainers.balanced_masks import Balance, balanced_pairs, confused, connected_threes, parity, spread_numbers
from iic.explainers.segmentation import common_borders, grid_superpixels

PHOTO = grid_superpixels((32, 32), 30)


def signs(masks):
    return 2.0 * masks - 1


def connected(neighbours):
    """Threes of superpixels of which one borders on both others."""
    m = len(neighbours)
    return [t for t in combinations(range(m), 3) if neighbours[np.ix_(t, t)].sum() >= 4]


def interactions(masks, sets, strengths):
    """What each set does only together, summed: (B,)."""
    return sum(s * signs(masks)[:, list(each)].prod(1) for each, s in zip(sets, strengths, strict=True))


def main_effects(half, game):
    """Mean of sign times value over pairs: what each superpixel does by itself, if nothing is mistaken for it."""
    return signs(half).T @ (game(half) - game(~half)) / (2 * len(half))


@given(st.integers(0, 2**32 - 1))
def test_parity_is_that_of_the_number_of_ones(number):
    assert parity(np.array([number]))[0] == bool(number.bit_count() % 2)


@pytest.mark.parametrize("bits", [8, 9])
def test_what_three_neighbours_or_any_two_do_is_not_mistaken_for_what_one_does(bits):
    m, rng = int(PHOTO.max()) + 1, np.random.default_rng(0)
    sets = [*connected(common_borders(PHOTO) > 0), *combinations(range(m), 2)]
    own, strengths = rng.normal(size=m), rng.normal(size=len(sets))

    def game(masks):
        return signs(masks) @ own + interactions(masks, sets, strengths)

    half, _ = balanced_pairs(PHOTO, 2**bits, np.random.default_rng(1))
    off = main_effects(half, game) - own
    coins = main_effects(np.random.default_rng(2).random(half.shape) < 0.5, game) - own
    # 256 masks of 30 superpixels leave a few threes that are mistaken, each for one superpixel only
    assert np.count_nonzero(np.abs(off) > 1e-9) <= (0 if bits == 9 else 6)
    assert np.linalg.norm(off) < 0.6 * np.linalg.norm(coins)


def test_each_mask_by_itself_is_coin_flips():
    drawn = np.stack([balanced_pairs(PHOTO, 128, np.random.default_rng(seed))[0] for seed in range(200)])
    assert np.abs(drawn[:, 0].mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(len(drawn))
    together = np.corrcoef(drawn[:, 0].T)[~np.eye(drawn.shape[2], dtype=bool)]
    assert np.abs(together).max() < 5 / np.sqrt(len(drawn))


def test_few_superpixels_get_different_pairs_and_many_get_coin_flips():
    few = grid_superpixels((9, 9), 9)
    half, balance = balanced_pairs(few, 199, np.random.default_rng(0))
    assert len(np.unique(np.concatenate([half, ~half]), axis=0)) == 398
    np.testing.assert_allclose(balance.left_to_chance(), 1 - 199 / 256)
    pixels = np.arange(28 * 28).reshape(28, 28)
    half, balance = balanced_pairs(pixels, 500, np.random.default_rng(0))
    assert half.shape == (500, 784) and balance is None


@pytest.mark.parametrize("seed", range(5))
def test_mistaken_threes_are_counted_as_by_hand(seed):
    rng = np.random.default_rng(seed)
    neighbours = rng.random((9, 9)) < 0.4
    neighbours = np.triu(neighbours, 1) | np.triu(neighbours, 1).T
    numbers = np.stack([rng.permutation(32)[:9] for _ in range(3)])
    expected = [
        sum(
            int(row[one] ^ row[centre] ^ row[other] in row)
            for centre in range(9)
            for one, other in combinations(np.flatnonzero(neighbours[centre]), 2)
        )
        for row in numbers
    ]
    np.testing.assert_array_equal(confused(numbers, connected_threes(neighbours)), expected)


@pytest.mark.parametrize("bits", [6, 7, 8])
def test_the_search_finds_numbers_that_are_mistaken_less_than_chance_would_have_it(bits):
    neighbours = common_borders(PHOTO) > 0
    found = np.stack([spread_numbers(neighbours, bits, np.random.default_rng(seed)) for seed in range(3)])
    assert all(len(np.unique(row)) == len(row) and row.max() < 2**bits for row in found)
    chance = np.stack([np.random.default_rng(seed).permutation(2**bits)[: len(neighbours)] for seed in range(50)])
    threes = connected_threes(neighbours)
    assert confused(found, threes).max() < 0.7 * confused(chance, threes).mean()
    few = grid_superpixels((12, 12), 12)
    numbers = spread_numbers(common_borders(few) > 0, 10, np.random.default_rng(0))
    assert all(np.bitwise_xor.reduce(s) for size in (2, 4, 6) for s in combinations(numbers, size))


@pytest.mark.parametrize("pairs", [64, 128, 256, 500])
def test_what_is_said_to_be_left_to_chance_is_of_the_right_size(pairs):
    """Games of sets of three and five, over which the error is averaged, beside as many coin flips."""
    m, rng = int(PHOTO.max()) + 1, np.random.default_rng(0)
    near, left, coins, said = connected(common_borders(PHOTO) > 0), [], [], []
    for seed in range(30):
        sets = [rng.permutation(m)[:size] for size in (3, 5) for _ in range(60)]
        sets += [near[at] for at in rng.permutation(len(near))[:60]]
        strengths = rng.normal(size=len(sets))
        half, balance = balanced_pairs(PHOTO, pairs, np.random.default_rng(seed))
        flips = np.random.default_rng(seed).random(half.shape) < 0.5
        game = partial(interactions, sets=sets, strengths=strengths)
        left.append(np.square(main_effects(half, game)).mean())
        coins.append(np.square(main_effects(flips, game)).mean())
        said.append(balance.left_to_chance().mean())
    share = np.mean(left) / np.mean(coins)
    assert 0.9 * share < np.mean(said) < 2 * share and share < 0.9


def test_sets_that_are_mistaken_for_a_superpixel_are_counted_as_by_hand():
    """All threes, here no three hangs together: what is left is .35, and of the rest what is mistaken by half."""
    numbers, bits = np.random.default_rng(0).permutation(64)[:12], 6
    balance = Balance(numbers, np.arange(64), bits, np.zeros((3, 0), np.int64))
    counts = np.bincount([a ^ b ^ c for a, b, c in combinations(numbers, 3)], minlength=64)
    expected = 0.35 + 0.65 * np.minimum(counts[numbers] / counts.mean() / 2, 1)
    np.testing.assert_allclose(balance.left_to_chance(), expected)
    half = Balance(numbers, np.arange(32), bits, balance.threes)
    np.testing.assert_allclose(half.left_to_chance(), (1 + expected) / 2)
