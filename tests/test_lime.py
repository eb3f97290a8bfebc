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
    """Masks that are no pairs, as `lime_image` draws them."""
    rng = np.random.default_rng(0)
    masks = rng.random((300, 20)) < 0.5
    masks[0] = True
    return masks, network(masks, rng.normal(size=20))


def network(masks, weights):
    return 1 / (1 + np.exp(-(masks @ weights) - masks[:, 0] * masks[:, 1]))


def row(m):
    """Superpixels side by side."""
    return np.arange(m)[None]


def near(masks):
    return proximity(torch.tensor(masks.mean(1)), 0.25).numpy()


def coefficients(masks, values, **options):
    found, _ = lime_coefficients([masks], [values], **options)
    return found[0]


def test_masks_are_coin_flips_in_pairs_and_the_first_keeps_all():
    masks = draw_masks(row(20), 300, np.random.default_rng(0))[0]
    assert masks.shape == (299, 20) and masks[0].all()
    assert (masks[1::2] == ~masks[2::2]).all()
    assert abs(masks[1::2].mean() - 0.5) < 4 * 0.5 / np.sqrt(masks[1::2].size)


def test_few_superpixels_get_every_mask_and_no_error():
    masks = draw_masks(row(5), 100, np.random.default_rng(0))[0]
    assert len(np.unique(masks, axis=0)) == len(masks) == 31 and masks[0].all()
    _, errors = lime_coefficients([masks], [network(masks, np.arange(5.0))])
    assert (errors[0] == 0).all()


def test_pairs_estimate_what_coin_flips_do_with_less_error():
    """Both against the same regression on a great many coin flips; intervals hold it."""
    weights = np.random.default_rng(3).normal(size=15) / 2
    many = np.random.default_rng(4).random((200_000, 15)) < 0.5
    truth = coefficients(many, network(many, weights), ridge=1e-9)
    errors, hits, said = {True: [], False: []}, [], []
    for seed in range(40):
        pairs, balance = draw_masks(row(15), 401, np.random.default_rng(seed))
        coins = np.random.default_rng(seed).random((401, 15)) < 0.5
        found, spread = lime_coefficients([pairs], [network(pairs, weights)], [balance], ridge=1e-9)
        errors[True].append(found[0] - truth)
        errors[False].append(coefficients(coins, network(coins, weights), ridge=1e-9) - truth)
        said.append(spread[0])
        hits.append(np.abs(found[0] - truth) < 1.96 * spread[0])
    assert np.square(errors[True]).mean() < 0.5 * np.square(errors[False]).mean()
    assert np.mean(hits) > 0.93
    assert np.square(said).mean() < 2**2 * np.square(errors[True]).mean()


@pytest.mark.parametrize("pairs", [True, False])
def test_errors_are_the_regressions_sandwich_with_the_pair_as_unit(pairs):
    """Written out for one image and all masks at once, where `lime_coefficients` computes with a half of them."""
    rng = np.random.default_rng(5)
    coins = np.concatenate([np.ones((1, 11), bool), rng.random((120, 11)) < 0.5])
    masks = draw_masks(row(11), 121, rng)[0] if pairs else coins
    values = network(masks, rng.normal(size=11))
    weights = near(masks)
    rows = masks - weights @ masks / weights.sum()
    inverse = np.linalg.inv(rows.T @ (weights[:, None] * rows) + 0.7 * np.eye(11))
    solution = inverse @ rows.T @ (weights * values)
    residual = values - weights @ values / weights.sum() - rows @ solution
    leverage = weights * ((rows @ inverse * rows).sum(1) + 1 / weights.sum())
    pulls = (rows * (weights * residual / (1 - leverage))[:, None])[1:]
    pulls = pulls[0::2] + pulls[1::2] if pairs else pulls
    expected = np.sqrt(np.diag(inverse @ pulls.T @ pulls @ inverse))
    (found,), (errors,) = lime_coefficients([masks], [values], ridge=0.7)
    np.testing.assert_allclose(found, solution, atol=1e-12)
    np.testing.assert_allclose(errors, expected, rtol=1e-9)


def test_images_of_different_sizes_are_solved_together_as_alone():
    masks = [draw_masks(row(m), 200, np.random.default_rng(m))[0] for m in (12, 20, 15)]
    values = [network(z, np.linspace(-1, 1, z.shape[1])) for z in masks]
    together = lime_coefficients(masks, values)
    for i in range(3):
        alone = lime_coefficients(masks[i : i + 1], values[i : i + 1])
        np.testing.assert_allclose(together[0][i], alone[0][0], atol=1e-10)
        np.testing.assert_allclose(together[1][i], alone[1][0], atol=1e-10)


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
    np.testing.assert_allclose(coefficients(masks, values), expected, atol=1e-9)
    np.testing.assert_allclose(near(masks), base.kernel_fn(distances), atol=1e-9)


def test_without_penalty_it_is_weighted_least_squares(sample):
    masks, values = sample
    expected = LinearRegression().fit(masks, values, sample_weight=near(masks)).coef_
    np.testing.assert_allclose(coefficients(masks, values, ridge=1e-12), expected, atol=1e-6)


def test_coefficients_are_those_of_captum_on_the_same_masks(sample):
    masks, values = sample
    rows = torch.tensor(masks, dtype=torch.float64)
    table = {bytes(mask): value for mask, value in zip(masks, values, strict=True)}
    weights = iter(near(masks).tolist())

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
    np.testing.assert_allclose(coefficients(masks, values), theirs.numpy(), atol=1e-5)
