import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from iic.data.images import ImageSet
from iic.evaluation.degradation import keep_only, tied_share, top_pixels
from iic.evaluation.fills import mean_colour, salt_and_pepper
from iic.evaluation.scores import score
from iic.evaluation.statistics import bootstrap_interval, wilson_interval
from iic.explainers.attributions import Attributions
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
    k = round(share * height * width)
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


def test_what_is_not_kept_is_the_fill():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)
    keep = np.random.default_rng(1).random((4, 5, 6)) < 0.5
    fill = mean_colour(images)
    np.testing.assert_allclose(fill, [images[:, c].mean() for c in range(3)])
    left = keep_only(images, keep, fill.reshape(-1, 1, 1))
    for channel in range(3):
        np.testing.assert_array_equal(left[:, channel][keep], images[:, channel][keep])
        np.testing.assert_allclose(left[:, channel][~keep], fill[channel], rtol=1e-6)


class Bright(nn.Module):
    """Knows class 1 by one bright pixel in the upper left corner, and nothing else."""

    def forward(self, x):
        seen = x[:, 0, 0, 0] > 250
        return torch.stack([~seen, seen], 1).float()


@pytest.mark.parametrize(("right", "accuracy"), [(True, 1.0), (False, 0.0)])
def test_a_map_scores_by_what_the_network_needs(right, accuracy):
    """Every second image has the pixel; maps are of those in between the others, in an order of their own."""
    images = np.random.default_rng(1).integers(0, 200, (80, 1, 10, 10), dtype=np.uint8)
    images[::2, 0, 0, 0] = 255
    indices = np.random.default_rng(2).permutation(np.arange(0, 80, 2))
    values = np.random.default_rng(0).random((40, 10, 10)).astype(np.float32)
    values[:, 0, 0] = 2 if right else -2
    maps = Attributions(values, indices, np.ones(40, np.int64), {})
    test = ImageSet(images, (images[:, 0, 0, 0] == 255).astype(np.int64))
    result = score(maps, Bright(), test, np.array([100.0]), EvaluationParams())
    assert result["keep"]["mean_colour"]["accuracy"] == accuracy
    salted = result["keep"]["salt_and_pepper"]
    assert salted["accuracy"] == (1.0 if right else pytest.approx(0.5, abs=0.15))
    assert salted["accuracy"] == pytest.approx(np.mean(list(salted["per_seed"].values())))
    assert salted["interval"][0] <= salted["accuracy"] <= salted["interval"][1]
