import numpy as np
import pytest

from iic.explainers.prior import FEATURES, Prior, features, learn_prior, shrink, touching
from iic.explainers.segmentation import grid_superpixels

SHARES = (0.1, 0.2, 0.3, 0.4)
SEGMENTS = grid_superpixels((12, 12), 16)


def world(rng, n):
    """Images whose Shapley values follow a known prior: features, values."""
    known, values = [], []
    for _ in range(n):
        f = rng.dirichlet(np.ones(16), len(FEATURES)).T
        left = rng.normal(size=16) * 0.5 / 16
        values.append(rng.uniform(0.5, 1) * (f @ SHARES + left - left.mean()))
        known.append(f)
    return known, values


def test_the_prior_is_learnt_from_a_world_that_has_one():
    rng = np.random.default_rng(0)
    known, values = world(rng, 400)
    noise = 0.01
    seen = [v + noise * (e - e.mean()) for v, e in ((v, rng.normal(size=16)) for v in values)]
    errors = [np.full(16, noise * np.sqrt(15 / 16))] * 400
    prior = learn_prior(seen, errors, known, [SEGMENTS] * 400)
    np.testing.assert_allclose(prior.shares, SHARES, atol=0.03)
    assert prior.spread == pytest.approx(0.5, rel=0.1)
    assert abs(prior.neighbours) < 0.1
    assert Prior.from_json(prior.to_json()) == prior


def test_shrinking_lowers_the_error_and_knows_what_is_left():
    rng = np.random.default_rng(1)
    known, values = world(rng, 300)
    prior = Prior(SHARES, 0.5, 0.0)
    spread = np.diag(rng.uniform(0.01, 0.06, 16) ** 2)
    centre = np.eye(16) - 1 / 16
    covariance = centre @ spread @ centre
    before, after, inside = [], [], []
    for f, v in zip(known, values, strict=True):
        estimate = v + rng.multivariate_normal(np.zeros(16), covariance)
        found, unknown = shrink(prior, estimate, covariance, f, SEGMENTS)
        assert found.sum() == pytest.approx(v.sum())
        before.append(np.square(estimate - v).sum())
        after.append(np.square(found - v).sum())
        inside.append(np.abs(found - v) < 1.96 * unknown)
    assert np.mean(after) < 0.8 * np.mean(before)
    assert 0.92 < np.mean(inside) < 0.98


def test_with_every_mask_nothing_is_drawn_anywhere():
    known, values = world(np.random.default_rng(2), 1)
    found, unknown = shrink(Prior(SHARES, 0.5, 0.1), values[0], np.zeros((16, 16)), known[0], SEGMENTS)
    np.testing.assert_allclose(found, values[0], atol=1e-9)
    assert unknown.max() < 1e-6


def test_features_are_shares():
    image = np.zeros((1, 12, 12), np.uint8)
    image[0, :3, :3] = 90
    relevance = np.zeros((12, 12))
    relevance[5, 5] = 2.0
    found = features(image, np.full((1, 12, 12), 10.0), relevance, SEGMENTS)
    np.testing.assert_allclose(found.sum(0), 1)
    np.testing.assert_allclose(found[0], [1 / 16, 1 / 16, 720 / (720 + 1350), 0])
    assert found[SEGMENTS[5, 5], 3] == 1
    np.testing.assert_allclose(features(image, image, 0 * relevance, SEGMENTS)[:, 2:], 1 / 16)


def test_superpixels_touch_across_edges_only():
    found = touching(SEGMENTS)
    assert (found == found.T).all() and found.sum() == 2 * 24  # a 4 x 4 grid has 24 inner borders
    assert np.flatnonzero(found[0]).tolist() == [1, 4]
