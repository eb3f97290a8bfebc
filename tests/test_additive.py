from itertools import permutations

import numpy as np
import pytest
import torch
from additive import AdditiveModel

from iic.classifiers.precision import Forward
from iic.explainers.context import Context
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter, grid_superpixels
from iic.params import AttributionParams

FILL = np.array([100.0, 120.0, 140.0])
SEGMENTS = grid_superpixels((9, 12), 6)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 9, 12), dtype=np.uint8)
TARGETS = np.array([1, 3, 0])


def model_of(interaction):
    return AdditiveModel(SEGMENTS, FILL, 4, seed=0, interaction=interaction)


def maps_of(method, network, **params):
    """Maps of the whole way: masks, composed images, network, regression."""
    params = AttributionParams(
        segmentation="grid", superpixels=6, lime_ridge=1e-6, gradient_steps=4, precision="float32", **params
    )
    forward = Forward(network, "float32", "cpu", 1.0)
    context = Context(network, forward, FILL, params, Segmenter(params))
    return explain(method, context, IMAGES, np.arange(3), TARGETS).values


def by_superpixel(maps):
    return np.stack([np.bincount(SEGMENTS.ravel(), one.ravel()) for one in maps])


@pytest.mark.parametrize("interaction", [0.0, 1.0])
def test_closed_form_is_the_mean_over_all_orders(interaction):
    model = model_of(interaction)
    found = model.shapley_values(IMAGES, TARGETS)
    assert found.shape == (3, 6) and found.dtype == np.float64 and np.abs(found).mean() > 0.3
    kept = (np.arange(64)[:, None] >> np.arange(6)) & 1 == 1
    for image, target, values in zip(IMAGES, TARGETS, found, strict=True):
        shown = np.where(kept[:, SEGMENTS][:, None], image, FILL[:, None, None]).astype(np.float32)
        outputs = model(torch.from_numpy(shown))[:, target].double().numpy()
        expected = np.zeros(6)
        for order in permutations(range(6)):
            codes = np.cumsum([0, *(1 << player for player in order)])
            expected[list(order)] += np.diff(outputs[codes]) / 720
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert values.sum() == pytest.approx(outputs[-1], abs=1e-5) and outputs[0] == 0


def test_products_take_part():
    alone, together = (model_of(i).shapley_values(IMAGES, TARGETS) for i in (0.0, 1.0))
    assert np.abs(alone - together).mean() > 0.3
    x = torch.from_numpy(IMAGES).float()
    assert torch.equal(model_of(0.0)(x), model_of(0.0).additive(x))


@pytest.mark.parametrize("interaction", [0.0, 1.0])
@pytest.mark.parametrize("budget", [26, 64])
def test_kernel_shap_is_exact(interaction, budget):
    """With every mask; and with a part of them, since paired masks cancel what products of two add to both."""
    model = model_of(interaction)
    expected = model.shapley_values(IMAGES, TARGETS)
    found = maps_of("kernel_shap_logit", model, budget=budget)
    np.testing.assert_allclose(found, np.stack([v[SEGMENTS] for v in expected]), atol=1e-4)


def test_lime_is_exact_on_a_sum_and_not_on_products():
    for interaction in (0.0, 1.0):
        model = model_of(interaction)
        expected = np.stack([v[SEGMENTS] for v in model.shapley_values(IMAGES, TARGETS)])
        error = np.abs(maps_of("lime_logit", model, budget=60) - expected).max()
        assert error < 1e-4 if interaction == 0 else error > 0.1


@pytest.mark.parametrize("method", ["lrp_epsilon", "input_x_gradient", "integrated_gradients"])
def test_proportional_rules_are_exact_on_a_sum(method):
    model = model_of(0.0)
    found = by_superpixel(maps_of(method, model.additive))
    np.testing.assert_allclose(found, model.shapley_values(IMAGES, TARGETS), atol=1e-4)
