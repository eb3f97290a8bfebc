import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iic.errors import UserError
from iic.evaluation.localisation import auroc, mass_accuracy, pointing_game, rank_accuracy


def ranked(maps, masks, seed=0):
    return rank_accuracy(maps, masks, indices=np.arange(len(maps)), seed=seed)


MEASURES = [mass_accuracy, ranked, pointing_game, auroc]


def random_masks(count, shape, seed):
    """Bool (N, H, W), each with pixels inside and outside."""
    rng = np.random.default_rng(seed)
    masks = rng.random((count, *shape)) < rng.uniform(0.1, 0.9, (count, 1, 1))
    masks[:, 0, 0], masks[:, -1, -1] = True, False
    return masks


@pytest.mark.parametrize("measure", MEASURES)
def test_the_mask_itself_is_perfect_and_its_complement_is_worthless(measure):
    masks = random_masks(6, (5, 7), 0)
    assert (measure(masks.astype(np.float32), masks) == 1).all()
    assert (measure(1 - masks.astype(np.float32), masks)[masks.mean((1, 2)) <= 0.5] == 0).all()
    assert measure(masks.astype(np.float32), masks).dtype == np.float64


def test_by_hand():
    maps = np.array([[[3.0, 1.0, -5.0], [2.0, -1.0, 0.0]]])
    masks = np.array([[[False, True, True], [True, False, False]]])
    assert mass_accuracy(maps, masks) == pytest.approx((1 + 2) / 6)
    assert ranked(maps, masks) == pytest.approx(2 / 3)  # of 3, 2, 1
    assert pointing_game(maps, masks) == 0
    assert auroc(maps, masks) == pytest.approx((2 + 2 + 0) / 9)  # 1 and 2 lie above -1 and 0; -5 above none


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_auroc_is_the_share_of_pairs_in_order(seed, levels):
    masks = random_masks(3, (4, 5), seed)
    maps = np.random.default_rng(seed).integers(0, levels, (3, 4, 5)) - levels / 2
    for value, one, mask in zip(auroc(maps, masks), maps, masks, strict=True):
        gap = one[mask][:, None] - one[~mask][None]
        assert value == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean())


def test_a_map_that_says_nothing_gets_what_guessing_gets():
    masks = random_masks(4, (6, 6), 1)
    share = masks.mean((1, 2))
    for constant in (np.zeros((4, 6, 6)), np.ones((4, 6, 6))):
        np.testing.assert_allclose(mass_accuracy(constant, masks), share)
        np.testing.assert_allclose(pointing_game(constant, masks), share)
        np.testing.assert_allclose(auroc(constant, masks), 0.5)
    np.testing.assert_allclose(mass_accuracy(-masks.astype(float), masks), share)
    many = np.repeat(masks[:1], 2000, axis=0)
    found = ranked(np.zeros(many.shape), many)
    k, size = masks[0].sum(), masks[0].size
    deviation = np.sqrt(share[0] * (1 - share[0]) * (size - k) / (size - 1) / k)  # hypergeometric
    assert found.mean() == pytest.approx(share[0], abs=5 * deviation / np.sqrt(2000))
    assert found.std() == pytest.approx(deviation, rel=0.1)


def test_a_shared_maximum_counts_by_its_part_inside():
    maps, masks = np.zeros((1, 3, 3)), np.zeros((1, 3, 3), bool)
    maps[0, 0], masks[0, 0, :2] = 4, True
    assert pointing_game(maps, masks) == pytest.approx(2 / 3)


@pytest.mark.parametrize("measure", MEASURES)
def test_rank_measures_ignore_the_scale_and_mass_the_factor(measure):
    masks = random_masks(5, (6, 5), 2)
    maps = np.random.default_rng(3).normal(size=masks.shape)
    np.testing.assert_allclose(measure(7 * maps, masks), measure(maps, masks))
    if measure is not mass_accuracy:
        np.testing.assert_allclose(measure(np.exp(maps), masks), measure(maps, masks))


@pytest.mark.parametrize("measure", MEASURES)
def test_masks_without_an_inside_or_an_outside_are_named(measure):
    masks = random_masks(3, (4, 4), 4)
    maps = np.ones(masks.shape)
    masks[1] = False
    with pytest.raises(UserError, match="image 1 is empty"):
        measure(maps, masks)
    masks[1] = True
    with pytest.raises(UserError, match="image 1 covers everything"):
        measure(maps, masks)
    with pytest.raises(UserError, match="not float64"):
        measure(maps, maps)
