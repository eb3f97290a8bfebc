import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import LimeBase as CaptumLimeBase
from lime.lime_base import LimeBase
from sklearn.linear_model import LinearRegression
from sklearn.metrics import pairwise_distances

from iic.explainers.lime import draw_masks, lime_coefficients, proximity


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    masks = draw_masks(20, 300, rng)
    values = 1 / (1 + np.exp(-(masks @ rng.normal(size=20)) - masks[:, 0] * masks[:, 1]))
    return masks, values


def test_masks_are_coin_flips_and_the_first_keeps_all(sample):
    masks, _ = sample
    assert masks.shape == (300, 20) and masks[0].all()
    assert abs(masks[1:].mean() - 0.5) < 4 * 0.5 / np.sqrt(masks[1:].size)


def test_coefficients_are_those_of_the_lime_package_on_the_same_masks(sample):
    masks, values = sample
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    distances = pairwise_distances(masks.astype(float), masks[:1].astype(float), metric="cosine").ravel()
    _, pairs, _, _ = base.explain_instance_with_data(
        masks.astype(float), values[:, None], distances, 0, 20, feature_selection="none"
    )
    expected = np.zeros(20)
    for feature, coefficient in pairs:
        expected[feature] = coefficient
    np.testing.assert_allclose(lime_coefficients(masks, values), expected, atol=1e-9)
    np.testing.assert_allclose(proximity(masks, 0.25), base.kernel_fn(distances), atol=1e-9)


def test_without_penalty_it_is_weighted_least_squares(sample):
    masks, values = sample
    expected = LinearRegression().fit(masks, values, sample_weight=proximity(masks, 0.25)).coef_
    np.testing.assert_allclose(lime_coefficients(masks, values, ridge=1e-12), expected, atol=1e-6)


def test_coefficients_are_those_of_captum_on_the_same_masks(sample):
    masks, values = sample
    rows = torch.tensor(masks, dtype=torch.float64)
    table = {bytes(mask): value for mask, value in zip(masks, values, strict=True)}
    weights = iter(proximity(masks, 0.25).tolist())

    def one_after_the_other(*args, **options):
        yield from (row[None] for row in rows)

    explainer = CaptumLimeBase(
        forward_func=lambda z: torch.tensor([table[bytes(row)] for row in z.numpy().astype(bool)]),
        interpretable_model=SkLearnRidge(alpha=1.0),
        similarity_func=lambda *args, **options: next(weights),
        perturb_func=one_after_the_other,
        perturb_interpretable_space=True,
        from_interp_rep_transform=lambda z, *args, **options: z,
        to_interp_rep_transform=None,
    )
    theirs = explainer.attribute(rows[:1], n_samples=len(masks))[0]
    np.testing.assert_allclose(lime_coefficients(masks, values), theirs.numpy(), atol=1e-5)
