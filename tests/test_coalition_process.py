from dataclasses import replace

import numpy as np
import pytest
import torch
from test_kernel_shap import answers, by_enumeration, game, solve

from iic.explainers.coalition_process import (
    LINEAR,
    UNEXPLAINED,
    interaction_strengths,
    odd_kernel,
    process_shapley_values,
    shapley_of_kernel,
    shapley_variance,
)
from iic.explainers.coalitions import draw_coalitions
from iic.explainers.kernel_shap import all_masks, paired_values, shapley_values

M = 7
SIGNS = 2.0 * ((np.arange(2**M)[:, None] >> np.arange(M)) & 1) - 1
STRENGTHS = torch.linspace(0.05, 0.6, M, dtype=torch.float64)


def everywhere(m: int) -> np.ndarray:
    return (np.arange(2**m)[:, None] >> np.arange(m)) & 1 == 1


def position(masks) -> np.ndarray:
    masks = np.asarray(masks, dtype=np.int64)
    return masks @ (1 << np.arange(masks.shape[-1]))


def test_the_kernel_is_the_odd_part_of_the_product():
    product = (1 + STRENGTHS.numpy() * SIGNS[:, None] * SIGNS[None]).prod(2)
    expected = (product - product[:, ::-1]) / 2 + 0.1 * SIGNS @ SIGNS.T  # reversed: every sign the other way
    found = odd_kernel(torch.from_numpy(SIGNS), STRENGTHS, torch.tensor(0.1, dtype=torch.float64))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_shapley_values_of_the_kernel_are_those_of_the_enumerated_game():
    linear = torch.tensor(0.1, dtype=torch.float64)
    kernel = odd_kernel(torch.from_numpy(SIGNS), STRENGTHS, linear).numpy()
    found = shapley_of_kernel(torch.from_numpy(SIGNS), STRENGTHS, linear).numpy()
    for column in (0, 5, 77, 127):
        expected = by_enumeration(lambda z, c=column: kernel[position(z), c], M)
        np.testing.assert_allclose(found[column], expected, atol=1e-10)
    twice = [by_enumeration(lambda z, i=i: found[position(z), i], M)[i] for i in range(M)]
    np.testing.assert_allclose(shapley_variance(STRENGTHS, linear), twice, atol=1e-10)


def drawn_game(m: int, seed: int):
    """A game from the process itself, with main effects of different size; and its exact Shapley values."""
    rng = np.random.default_rng(seed)
    strengths = interaction_strengths(torch.from_numpy(rng.gamma(0.7, size=m)))
    signs = torch.from_numpy(2.0 * everywhere(m) - 1)
    kernel = odd_kernel(signs, strengths, LINEAR * strengths.mean()).numpy()
    noise = UNEXPLAINED * kernel[0, 0]
    table = np.linalg.cholesky(kernel + 1e-9 * np.eye(2**m)) @ rng.normal(size=2**m)
    rough = rng.normal(size=2**m) * np.sqrt(noise / 2)
    table = table + rough - rough[::-1]
    even = rng.normal(size=2**m)
    table = table + even + even[::-1]  # what pairs cancel
    return lambda z: table[position(z)]


def test_errors_are_smaller_than_kernel_shaps_and_intervals_hold_the_exact_value():
    m, inside, gain, off, said = 10, [], [], [], []
    for seed in range(60):
        value = drawn_game(m, seed)
        exact = by_enumeration(value, m)
        found = answers(value, m, 120, seed)
        pilot, _ = solve(value, m, 120, seed)
        values, errors = process_shapley_values(found, pilot)
        assert values.sum() == pytest.approx(exact.sum())
        gain.append(np.square(values - exact).sum() / np.square(pilot - exact).sum())
        inside.append(np.abs(values - exact) < 1.96 * errors)
        off.append(values - exact)
        said.append(errors)
    assert np.median(gain) < 0.75
    assert np.mean(inside) > 0.93
    assert 1 < np.sqrt(np.square(said).mean() / np.square(off).mean()) < 1.5  # CAUTION is 1.2


def test_with_every_mask_it_is_exact_and_knows_it():
    value = game(6, 0)
    found = answers(value, 6, 2**6 - 2)
    pilot, _ = solve(value, 6, 2**6 - 2)
    values, errors = process_shapley_values(found, pilot)
    np.testing.assert_allclose(values, by_enumeration(value, 6), atol=1e-10)
    assert (errors == 0).all()


def test_a_linear_game_is_found_ever_better_and_scale_does_not_matter():
    weights = np.linspace(-1, 2, 12)
    missed = []
    for budget in (60, 240, 960):
        found = answers(lambda z: np.asarray(z, float) @ weights, 12, budget)
        values, _ = process_shapley_values(found, weights)
        missed.append(np.linalg.norm(values - weights) / np.linalg.norm(weights))
    assert missed[0] < 0.25 and missed[1] < 0.06 and missed[2] < 0.02
    larger = replace(found, kept=found.kept * 50, others=found.others * 50, everything=found.everything * 50)
    np.testing.assert_allclose(process_shapley_values(larger, weights * 50)[0], values * 50, rtol=1e-9)


def test_a_game_without_any_effect_gives_zeros():
    found = answers(lambda z: np.ones(np.shape(z)[:-1]), 10, 60)
    values, errors = process_shapley_values(found, np.zeros(10))
    assert np.isfinite(values).all() and np.isfinite(errors).all()
    np.testing.assert_allclose(values, 0, atol=1e-12)


def test_a_game_of_main_effects_is_kernel_shaps_exactly():
    effects = np.linspace(-1, 2, 12)
    drawn = draw_coalitions(12, 100, np.random.default_rng(0))
    found = paired_values(drawn, all_masks(drawn) @ effects + 0.3)
    ((pilot,), _) = shapley_values([found])
    values, errors = process_shapley_values(found, pilot)
    np.testing.assert_allclose(values, effects, atol=1e-9)
    assert (errors == 0).all()
