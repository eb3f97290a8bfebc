import numpy as np
import pytest

from iic.explainers.lime import draw_masks, lime_coefficients
from iic.explainers.mask_process import (
    LINEAR,
    NOISE,
    SCALE,
    Process,
    kernel_features,
    log_odds,
    probability,
    process_coefficients,
)
from iic.explainers.segmentation import grid_superpixels

SEGMENTS = grid_superpixels((12, 12), 12)  # 3 x 4 rectangles
M = int(SEGMENTS.max()) + 1
EVERY = draw_masks(SEGMENTS, 2**M, np.random.default_rng(0))[0]
RIDGE = 1e-9


def neighbours():
    grid = np.arange(M).reshape(3, 4)
    return np.concatenate(
        [np.stack([grid[:, 1:], grid[:, :-1]]).reshape(2, -1), np.stack([grid[1:], grid[:-1]]).reshape(2, -1)], 1
    )


def network_like(seed):
    """A probability of effects and of neighbours' effects together, in log-odds."""
    rng = np.random.default_rng(seed)
    effects, (one, other) = rng.gamma(0.7, size=M) * rng.choice([-0.5, 1, 1], M), neighbours()
    together = rng.normal(size=len(one))
    return lambda z: 1 / (1 + np.exp(-(z @ effects + (z[:, one] & z[:, other]) @ together - 3)))


def conjunction(seed):
    """An AND of three superpixels wherever they lie, which is like no such process."""
    chosen = np.random.default_rng(seed).permutation(M)[:3]
    return lambda z: z[:, chosen].all(1) * 0.9 + 0.05


def compared(game, budget, seed):
    """What LIME finds with every mask; its coefficients; the process's, with their errors."""
    (exact,), _ = lime_coefficients([EVERY], [game(EVERY)])
    masks, _ = draw_masks(SEGMENTS, budget, np.random.default_rng([seed, 1]))
    (plain,), _ = lime_coefficients([masks], [game(masks)])
    found = process_coefficients(masks, game(masks), SEGMENTS, np.random.default_rng([seed, 2]))
    return exact, plain, found


def dense(process, masks):
    """The process's kernel between these masks and its own with their complements, without halves: (B, 2 P)."""
    own = np.concatenate([process.masks, ~process.masks])
    (turning, staying), (own_turning, own_staying) = (process.features(z) for z in (masks, own))
    effects = (turning @ own_turning.T).numpy()
    return np.exp(SCALE * (effects + (staying @ own_staying.T).numpy() - 2)) + LINEAR * effects


@pytest.fixture
def process():
    rng = np.random.default_rng(0)
    masks, values = rng.random((40, M)) < 0.5, rng.normal(size=(2, 40))
    return Process(masks, *values, kernel_features(rng.random(M), SEGMENTS))


def test_expectations_are_the_posterior_means_of_one_gaussian_process(process):
    asked = np.random.default_rng(1).random((7, M)) < 0.5
    given = np.concatenate([process.masks, ~process.masks])
    solved = np.linalg.solve(dense(process, given) + NOISE * np.eye(80), np.concatenate(process.values) - process.mean)
    for masks, found in zip((asked, ~asked), process.expect(asked), strict=True):
        np.testing.assert_allclose(found, process.mean + dense(process, masks) @ solved, atol=1e-4)  # in float32


def test_what_is_left_out_is_what_a_process_without_that_pair_expects(process):
    found = process.left_out()
    kernel = dense(process, np.concatenate([process.masks, ~process.masks])) + NOISE * np.eye(80)
    values = np.concatenate(process.values) - process.mean
    for pair in (0, 11, 39):
        pair_of, others = np.array([pair, pair + 40]), np.delete(np.arange(80), [pair, pair + 40])
        expected = kernel[np.ix_(pair_of, others)] @ np.linalg.solve(kernel[np.ix_(others, others)], values[others])
        np.testing.assert_allclose([found[0][pair], found[1][pair]], process.mean + expected, atol=1e-9)


def test_neighbours_count_by_their_borders_and_superpixels_by_their_importance():
    segments = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    features = kernel_features(np.array([4.0, 1.0, 1.0]), segments)
    np.testing.assert_allclose(features.single, [0.5, 0.25, 0.25])
    assert features.pairs.T.tolist() == [[0, 1], [0, 2], [1, 2]]
    weights = np.array([2 * np.sqrt(0.5 * 0.25), 2 * np.sqrt(0.5 * 0.25), 1 * 0.25])
    np.testing.assert_allclose(features.both, weights / weights.sum())
    turning, staying = features(np.array([[True, True, False], [False, False, True]]))
    np.testing.assert_allclose(turning[0], -turning[1])
    np.testing.assert_allclose(staying[0], staying[1])
    assert staying[0].sign().tolist() == [1, -1, -1]


def test_log_odds_have_an_inverse_and_are_finite_at_the_ends():
    p = np.linspace(0, 1, 101)
    assert np.isfinite(log_odds(p)).all()
    np.testing.assert_allclose(probability(log_odds(p)), p, atol=1e-12)


@pytest.mark.parametrize(("game", "ratio"), [(network_like, 0.5), (conjunction, 1.0)])
def test_errors_are_smaller_than_limes_and_intervals_hold_the_exact_value(game, ratio):
    ratios, inside, said = [], [], []
    for seed in range(30):
        exact, plain, (found, errors) = compared(game(seed), 301, seed)
        ratios.append(np.linalg.norm(found - exact) / np.linalg.norm(plain - exact))
        inside.append(np.abs(found - exact) < 1.96 * errors)
        said.append(np.linalg.norm(errors) / np.linalg.norm(found - exact))
    assert np.median(ratios) < ratio
    assert np.mean(inside) > 0.93 and 0.8 < np.median(said) < 3


def test_logits_that_are_linear_are_found_and_scale_does_not_matter():
    weights = np.linspace(-2, 3, M)
    masks, _ = draw_masks(SEGMENTS, 201, np.random.default_rng(0))
    values = masks @ weights - 4
    options = {"odds": False, "ridge": RIDGE}
    found, _ = process_coefficients(masks, values, SEGMENTS, np.random.default_rng(1), **options)
    np.testing.assert_allclose(found, weights, atol=5e-3)
    larger, _ = process_coefficients(masks, values * 50, SEGMENTS, np.random.default_rng(1), **options)
    np.testing.assert_allclose(larger, found * 50, rtol=1e-4, atol=1e-3)


def test_every_mask_gives_limes_coefficients_and_no_error():
    segments = grid_superpixels((4, 4), 4)
    masks, _ = draw_masks(segments, 100, np.random.default_rng(0))
    values = np.random.default_rng(1).random(len(masks))
    found, errors = process_coefficients(masks, values, segments, np.random.default_rng(2))
    np.testing.assert_array_equal(found, lime_coefficients([masks], [values])[0][0])
    assert (errors == 0).all()


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_game_without_any_effect_gives_zeros(value):
    masks, _ = draw_masks(SEGMENTS, 101, np.random.default_rng(0))
    found, errors = process_coefficients(masks, np.full(len(masks), value), SEGMENTS, np.random.default_rng(1))
    np.testing.assert_allclose(found, 0, atol=1e-9)
    assert np.isfinite(errors).all()
