"""Every family against a posterior that is known: a linear model with Gaussian noise and prior."""

import math

import numpy as np
import pytest
import torch
from small_posteriors import vector

from iic.bayes import inference, laplace, low_rank, point
from iic.bayes.settings import Settings
from iic.bayes.training import Data, learn

NOISE, PRIOR = 0.5, 0.8


def linear_gaussian():
    """Data with correlated features, and the exact posterior: mean (3,) and precision (3, 3), the bias last."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2)) @ np.array([[1.0, 0.6], [0.0, 0.5]]) + 0.4
    y = x @ [0.7, -0.4] + 0.2 + rng.normal(scale=NOISE, size=30)
    features = np.c_[x, np.ones(30)]
    precision = features.T @ features / NOISE**2 + np.eye(3) / PRIOR**2
    mean = np.linalg.solve(precision, features.T @ y / NOISE**2)
    data = Data(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32), 0.0, 1.0, (2, 1))
    return data, mean, precision


def gaussian(outputs):
    import pyro.distributions as dist

    return dist.Normal(outputs[:, 0], NOISE)


def conjugate_settings(**changes):
    base = {"hidden": (), "prior_scale": PRIOR, "epochs": 1200, "batch_size": 30, "learning_rate": 0.05}
    return Settings(**{**base, "init_scale": 0.1, "final_rate": 0.01, **changes})


@pytest.mark.parametrize("local", [True, False])
def test_mean_field_finds_the_conjugate_mean_and_the_precisions_diagonal(local):
    data, mean, precision = linear_gaussian()
    found, _ = learn(data, conjugate_settings(local=local), inference.mean_field, seed=0, likelihood=gaussian)
    loc, scale = ([found[f"layer0.weight.{part}"], found[f"layer0.bias.{part}"]] for part in ("loc", "scale"))
    # the family's optimum: Bishop 2006, eq. 10.12 to 10.15
    np.testing.assert_allclose(np.concatenate([loc[0][0], loc[1]]), mean, atol=0.02)
    np.testing.assert_allclose(np.concatenate([scale[0][0], scale[1]]), np.diag(precision) ** -0.5, rtol=0.06)


def test_low_rank_finds_the_whole_conjugate_posterior():
    data, mean, precision = linear_gaussian()
    found, _ = learn(data, conjugate_settings(rank=3), low_rank.low_rank, seed=0, likelihood=gaussian)
    covariance = found["factor"] @ found["factor"].T + found["scale"].square().diag()
    exact = np.linalg.inv(precision)
    correlation = exact[0, 1] / math.sqrt(exact[0, 0] * exact[1, 1])
    assert abs(correlation) > 0.5  # or the diagonal would do
    np.testing.assert_allclose(found["loc"], mean, atol=0.03)
    np.testing.assert_allclose(covariance, exact, atol=0.1 * np.diag(exact).max())


def test_laplace_is_exact_for_the_conjugate_model():
    data, mean, precision = linear_gaussian()
    weights, _ = point.fit_point(data, conjugate_settings(epochs=600), seed=0, likelihood=gaussian)
    np.testing.assert_allclose(vector(weights), mean, atol=1e-3)
    found = laplace.last_layer_precision(
        weights, data, PRIOR, lambda outputs: torch.full((len(outputs), 1, 1), NOISE**-2, dtype=torch.float64)
    )
    np.testing.assert_allclose(found, precision, rtol=1e-6)
