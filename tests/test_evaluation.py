import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.degradation import pixel_ranks, tied_share, top_pixels
from iic.evaluation.fills import FILLS, SEEDED, Fills, mean_colour, salt_and_pepper
from iic.evaluation.outcomes import (
    Cell,
    cells,
    cells_by_draw,
    headline_cells,
    judge_draws,
    judge_maps,
    matrix_cells,
)
from iic.evaluation.statistics import bootstrap_interval, wilson_interval
from iic.explainers.attributions import Attributions
from iic.explainers.fills import fill_image
from iic.params import EvaluationParams


@given(st.integers(0, 40), st.integers(1, 40))
def test_wilson_is_scipys(successes, trials):
    successes = min(successes, trials)
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, trials), (expected.low, expected.high), atol=1e-6)


def test_bootstrap_is_scipys():
    per_image = np.random.default_rng(0).integers(0, 6, 200) / 5
    expected = scipy.stats.bootstrap((per_image,), np.mean, method="percentile", n_resamples=9999, rng=1)
    ours = bootstrap_interval(per_image, replicates=9999, seed=0)
    np.testing.assert_allclose(ours, tuple(expected.confidence_interval), atol=0.005)


@given(st.integers(2, 9), st.integers(2, 9), st.floats(0.05, 0.95), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_exactly_the_largest_pixels_are_kept(height, width, share, levels):
    values = np.random.default_rng(0).integers(0, levels, (3, height, width)).astype(np.float32)
    keep = top_pixels(values, share, np.arange(3), seed=0)
    k = round(share * (height * width))
    assert (keep.sum((1, 2)) == k).all()
    for one, kept in zip(values, keep, strict=True):
        if 0 < k < one.size:
            assert one[kept].min() >= one[~kept].max()


def test_ties_break_at_random_by_image_not_by_place():
    values = np.zeros((400, 5, 5), np.float32)
    keep = top_pixels(values, 0.2, np.arange(400), seed=0)
    assert scipy.stats.chisquare(keep.sum(0).ravel()).pvalue > 1e-4
    np.testing.assert_array_equal(keep[7], top_pixels(values[:1], 0.2, np.array([7]), seed=0)[0])
    assert tied_share(values) == 1 and tied_share(np.arange(25.0).reshape(1, 5, 5)) == 0
    assert tied_share(np.array([[[1.0, 1.0], [2.0, 3.0]]])) == 0.5


def test_ties_know_nothing_of_the_noise():
    """Same seed, same images: which tied pixel is kept and which is white are independent."""
    indices = np.arange(2000)
    kept = top_pixels(np.zeros((2000, 6, 6), np.float32), 0.5, indices, seed=0).reshape(2000, -1)
    white = (salt_and_pepper(indices, (6, 6), 0) == 255).reshape(2000, -1)
    agreement = (kept[:, :, None] == white[:, None, :]).mean(0)  # of every pair of pixels
    assert np.abs(agreement - 0.5).max() < 5 * 0.5 / np.sqrt(2000)


def test_an_interval_has_width_even_where_all_images_agree():
    low, high = bootstrap_interval(np.ones(50), replicates=100, seed=0)
    assert high == pytest.approx(1) and low == pytest.approx(wilson_interval(50, 50)[0]) and low < 0.95


def test_salt_and_pepper_is_a_fair_coin_keyed_by_image_and_seed():
    noise = salt_and_pepper(np.arange(50), (16, 16), 3)
    assert noise.shape == (50, 1, 16, 16) and set(np.unique(noise)) == {0, 255}
    assert abs((noise == 255).mean() - 0.5) < 4 * 0.5 / np.sqrt(noise.size)
    np.testing.assert_array_equal(noise[[9]], salt_and_pepper(np.array([9]), (16, 16), 3))
    assert (noise != salt_and_pepper(np.arange(50), (16, 16), 4)).mean() > 0.4


@pytest.fixture(scope="module")
def filled():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 3, 6, 7), dtype=np.uint8)
    donors = rng.integers(0, 256, (30, 3, 6, 7), dtype=np.uint8)
    return images, Fills(mean_colour(images), donors), rng.random((4, 6, 7)) < 0.5


@pytest.mark.parametrize("name", FILLS)
def test_what_is_kept_stays_and_the_rest_depends_on_image_and_seed_only(filled, name):
    images, fills, keep = filled
    places = np.array([5, 2, 9, 3])
    left = fills(name, images, keep, places, 0)
    for channel in range(3):
        np.testing.assert_array_equal(left[:, channel][keep], images[:, channel][keep])
    np.testing.assert_allclose(left[[2]], fills(name, images[[2]], keep[[2]], places[[2]], 0), atol=2e-3)
    other = fills(name, images, keep, places, 1)
    assert (np.abs(left - other).max() > 1) == (name in SEEDED)


def test_fills_are_what_they_are_called(filled):
    images, fills, keep = filled
    places, nothing = np.arange(4), np.zeros_like(keep)
    mean = fills("mean_colour", images, nothing, places, 0)
    np.testing.assert_allclose(mean, np.broadcast_to(images.mean((0, 2, 3)).reshape(-1, 1, 1), images.shape), rtol=1e-6)
    blurred = fills("blur", images, nothing, places, 0)
    np.testing.assert_allclose(blurred[1], fill_image("blur", images[1], None, None), rtol=1e-5)
    donated = fills("donor", images, nothing, places, 0)
    assert all((one == fills.donors).all((1, 2, 3)).any() for one in donated)
    assert set(np.unique(fills("salt_and_pepper", images, nothing, places, 0))) == {0, 255}


class Bright(nn.Module):
    """Knows class 1 by one bright pixel in the upper left corner, and nothing else."""

    def forward(self, x):
        seen = x[:, 0, 0, 0] > 250
        return torch.stack([~seen, seen], 1).float()


@pytest.mark.parametrize("right", [True, False])
def test_a_map_scores_by_what_the_network_needs(right):
    """Every second image has the pixel; maps are of those in between the others, in an order of their own."""
    images = np.random.default_rng(1).integers(0, 200, (80, 1, 10, 10), dtype=np.uint8)
    images[::2, 0, 0, 0] = 255
    indices = np.random.default_rng(2).permutation(np.arange(0, 80, 2))
    values = np.random.default_rng(0).random((40, 10, 10)).astype(np.float32)
    values[:, 0, 0] = 2 if right else -2
    maps = Attributions(values, indices, np.ones(40, np.int64), {})
    test = ImageSet(images, (images[:, 0, 0, 0] == 255).astype(np.int64))
    fills = Fills(np.array([100.0]), images[1::2])
    wanted = cells(["mean_colour", "donor", "salt_and_pepper"], [0.2, 0.99], range(3), ["explained"])
    assert len(wanted) == 2 * 2 * (1 + 3 + 3)
    judges = {("explained", name): Bright() for name in FILLS}
    found = judge_maps(maps, judges, test, fills, wanted, seed=0)
    kept = {"direction": "keep", "share": 0.2}
    removed = {"direction": "remove", "share": 0.2}
    for fill in ("mean_colour", "donor"):
        assert (found.right(found.rows(fill=fill, **kept)) == right).all()
        assert (found.right(found.rows(fill=fill, **removed)) != right).all()
    salted = found.right(found.rows(fill="salt_and_pepper", **kept)).mean()
    assert salted == (1.0 if right else pytest.approx(0.5, abs=0.15))
    logits = torch.tensor([0.0, 1.0]).softmax(0)[1 if right else 0]
    np.testing.assert_allclose(found.probability[found.rows(fill="mean_colour", **kept)], logits, rtol=1e-6)
    np.testing.assert_array_equal(found.same(np.arange(3)), found.predicted[:3] == 1)


def test_cells_are_what_one_would_make_by_hand(filled):
    """Every cell against images made one by one, for a judge whose logits are any function of all pixels."""
    images, fills, _ = filled
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 7, 5))
    test = ImageSet(np.concatenate([images, images[::-1]]), np.arange(8) % 5)
    values = np.random.default_rng(3).integers(0, 4, (6, 6, 7)).astype(np.float32)  # with ties
    maps = Attributions(values, np.array([7, 0, 3, 5, 1, 2]), np.array([0, 1, 2, 3, 4, 0]), {})
    wanted = cells(FILLS, [0.1, 0.5], [0, 4], ["explained", "adapted"])
    judges = {(judge, fill): net for judge in ("explained", "adapted") for fill in FILLS}
    found = judge_maps(maps, judges, test, fills, wanted, seed=2, count=5)
    assert found.predicted.shape == (len(wanted), 5)
    for k, cell in enumerate(found.cells):
        for row, index in enumerate(maps.indices[:5]):
            place, image = np.array([index]), test.images[[index]]
            keep = top_pixels(values[[row]], cell.share, place, seed=2)
            keep = keep if cell.direction == "keep" else ~keep
            logits = net(torch.from_numpy(fills(cell.fill, image, keep, place, cell.seed)))[0].detach()
            assert found.predicted[k, row] == logits.argmax()
            expected = logits.softmax(0)[maps.targets[row]].item()
            assert found.probability[k, row] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("draws", "seeds"), [(5, 5), (3, 2), (2, 3), (1, 4)])
def test_draws_and_noise_seeds_meet_in_pairs(filled, draws, seeds):
    """Every draw and every seed takes part; a pair's answers are those of that draw's maps with that seed."""
    images, fills, _ = filled
    torch.manual_seed(0)
    judges = {("explained", fill): nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 7, 5)) for fill in FILLS}
    test, rng = ImageSet(images, np.arange(4) % 5), np.random.default_rng(0)
    maps = [Attributions(rng.random((4, 6, 7)), np.arange(4), np.arange(4) % 5, {}) for _ in range(draws)]
    wanted = cells(["salt_and_pepper", "blur"], [0.3], range(10, 10 + seeds), ["explained"])
    found = judge_draws(maps, judges, test, fills, wanted, seed=0)
    pairs = {(k % draws, 10 + k % seeds) for k in range(max(draws, seeds))}
    for direction in ("keep", "remove"):
        assert len(found.rows(fill="blur", direction=direction)) == draws
        assert len(found.rows(fill="salt_and_pepper", direction=direction)) == len(pairs)
        for seed in range(10, 10 + seeds):
            cell = Cell("explained", direction, "salt_and_pepper", 0.3, seed)
            with_it = [judge_maps(maps[d], judges, test, fills, [cell], seed=0) for d, s in sorted(pairs) if s == seed]
            got = found.probability[found.rows(**cell._asdict())]
            np.testing.assert_allclose(got, [one.probability[0] for one in with_it], rtol=1e-6)


def test_five_draws_cost_as_much_as_five_noise_seeds_but_for_fills_without_noise_and_fewer_seeds():
    counts = [
        [sum(map(len, cells_by_draw(draws, wanted))) for draws in (1, 5)]
        for wanted in (headline_cells(EvaluationParams()), matrix_cells(EvaluationParams()))
    ]
    assert counts == [
        [24, 40],
        [224, 700],
    ]  # salt and pepper 20 each, the mean colour 4 a draw; 3 noisy and 2 other fills of 28 cells


def test_ranks_are_a_permutation_that_agrees_with_the_top():
    values = np.random.default_rng(0).integers(0, 3, (5, 4, 4)).astype(np.float32)
    ranks = pixel_ranks(values, np.arange(5), seed=1)
    np.testing.assert_array_equal(np.sort(ranks.reshape(5, -1)), np.broadcast_to(np.arange(16), (5, 16)))
    for share in (0.1, 0.5, 0.9):
        np.testing.assert_array_equal(ranks < round(share * 16), top_pixels(values, share, np.arange(5), seed=1))


def test_maps_of_images_beyond_the_test_set_are_refused(filled):
    images, fills, _ = filled
    maps = Attributions(np.zeros((1, 6, 7), np.float32), np.array([9]), np.array([0]), {})
    with pytest.raises(UserError, match="beyond the test set"):
        judge_maps(
            maps, {}, ImageSet(images, np.zeros(4, np.int64)), fills, [Cell("a", "keep", "blur", 0.2, 0)], seed=0
        )
