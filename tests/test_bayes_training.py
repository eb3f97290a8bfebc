"""Priors, divergences, the objective and its schedule: what every posterior is trained by."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from small_posteriors import normals, pyros_losses, small_fit, small_images, vector
from torch import distributions as td

from iic.bayes import inference, low_rank, network, posteriors, priors, training
from iic.bayes.settings import Settings
from iic.bayes.training import learn

STILL = {"learning_rate": 1e-12}  # training leaves the start where it is: the curve is the loss of the start


# Priors and divergences


def test_the_mixtures_density_is_scipys():
    prior = priors.ScaleMixture(0.3, 2.0, 0.05)
    x = np.array([0.0, 0.01, -0.1, 0.13, 0.5, -3.0, 20.0])
    parts = math.log(0.3) + stats.norm.logpdf(x, 0, 2.0), math.log(0.7) + stats.norm.logpdf(x, 0, 0.05)
    np.testing.assert_allclose(prior.log_density(torch.from_numpy(x)), np.logaddexp(*parts), rtol=1e-12)


def test_the_mixtures_divergence_is_quadratures_on_average():
    prior, loc, scale = priors.ScaleMixture(0.5, 1.0, 0.1), 0.15, 0.12

    def integrand(w):
        q = stats.norm.logpdf(w, loc, scale)
        p = np.logaddexp(stats.norm.logpdf(w, 0, 1.0), stats.norm.logpdf(w, 0, 0.1)) + math.log(0.5)
        return math.exp(q) * (q - p)

    exact, _ = integrate.quad(integrand, loc - 10 * scale, loc + 10 * scale, limit=200)
    many = {"w": torch.full((200_000,), loc)}
    variance = {"w": torch.full((200_000,), scale**2)}
    sample = {"w": td.Normal(loc, scale).sample((200_000,))}
    estimate = inference.kl_divergence(prior, many, variance, sample) / 200_000
    assert estimate.item() == pytest.approx(exact, abs=0.01)


def test_the_divergence_of_normals_is_torchs():
    loc, scale = normals()
    variance = {name: value.square() for name, value in scale.items()}
    expected = sum(td.kl_divergence(td.Normal(loc[n], scale[n]), td.Normal(0.0, 0.7)).sum() for n in loc)
    torch.testing.assert_close(inference.kl_divergence(priors.Normal(0.7), loc, variance), expected)
    certain = -td.Normal(0.0, 0.7).log_prob(loc["layer0.weight"]).sum()
    torch.testing.assert_close(priors.Normal(0.7).cross_entropy(loc["layer0.weight"], 0.0), certain)


def test_own_scales_are_those_of_the_least_divergence():
    """Against torch's divergence, its scale minimised by a line search, weight by weight."""
    loc, scale = normals()
    variance = {name: value.square() for name, value in scale.items()}
    least = 0.0
    for mean, spread in zip(vector(loc), vector(scale), strict=True):
        q = td.Normal(mean.double(), spread.double())
        found = optimize.minimize_scalar(
            lambda log_scale, q=q: td.kl_divergence(q, td.Normal(0.0, math.exp(log_scale))).item(), bounds=(-8, 4)
        )
        least += found.fun
    prior = priors.OwnScales()
    assert inference.kl_divergence(prior, loc, variance).item() == pytest.approx(least, rel=1e-4)
    assert inference.kl_divergence(priors.Normal(0.7), loc, variance) > least


def test_weights_that_tell_nothing_are_pulled_nowhere_by_own_scales_and_to_the_scale_of_one_normal():
    """All images are the mean image, so weights are not seen; a bias has to say how common the classes are."""
    images, labels = np.zeros((40, 1, 2, 2), dtype=np.uint8), np.repeat([0, 1], [30, 10])
    quick = {"hidden": (), "prior_scale": 0.5, "epochs": 400, "batch_size": 10, "learning_rate": 0.03}
    own, normal = (inference.fit(images, labels, Settings(own_scales=own, **quick), seed=0) for own in (True, False))
    assert own.record.prior == (0.0,) and normal.record.prior == (0.5,)
    ratio = (own.loc["layer0.weight"] / own.scale["layer0.weight"]).abs().max()
    assert ratio < 0.05 and own.scale["layer0.weight"].max() < 0.1
    torch.testing.assert_close(normal.scale["layer0.weight"], torch.full((2, 4), 0.5), atol=0.02, rtol=0)
    assert own.curve[-1] < normal.curve[-1]


# Local reparameterisation


def test_local_draws_have_the_closed_forms_moments_and_are_not_shared():
    loc, scale = normals()
    variance = {name: value.square() for name, value in scale.items()}
    x = torch.tensor([[1.0, -0.5, 0.0, 2.0], [0.3, 0.2, -1.0, 1.0]])
    mean = x @ loc["layer0.weight"].T + loc["layer0.bias"]
    spread = x.square() @ variance["layer0.weight"].T + variance["layer0.bias"]
    torch.manual_seed(1)
    drawn = network.local_logits(loc, variance, x.repeat(20_000, 1)).view(20_000, 2, 3)
    torch.testing.assert_close(drawn.mean(0), mean, atol=5 * (spread.max() / 20_000).sqrt().item(), rtol=0)
    torch.testing.assert_close(drawn.var(0), spread, rtol=5 * math.sqrt(2 / 20_000), atol=0)
    assert abs(np.corrcoef(drawn[:, 0, 0], drawn[:, 1, 0])[0, 1]) < 0.03  # shared weights correlate them, by .5


def test_local_draws_go_through_relu():
    loc, _ = normals(sizes=(4, 5, 3))
    nothing = {name: torch.zeros_like(value) for name, value in loc.items()}
    x = torch.randn(6, 4)
    torch.testing.assert_close(network.local_logits(loc, nothing, x), network.logits(loc, x))


# The loop: objective, schedule, rates, views


@pytest.mark.parametrize("local", [True, False])
def test_the_loss_is_that_of_pyros_own_mean_field_elbo(local):
    images, labels = small_images(12)
    settings = Settings(hidden=(5,), epochs=400, batch_size=12, init_scale=0.3, local=local, **STILL)
    found = inference.fit(images, labels, settings, seed=0)
    losses = pyros_losses(found, images, labels)
    error = losses.std().item() / 20 + found.curve.std().item() / 20
    assert 0 < error < 0.2
    assert found.curve.mean().item() == pytest.approx(losses.mean().item(), abs=4 * error)


def test_the_penalty_is_the_divergence_scaled_by_the_schedule():
    # one class: every label is certain, so that the loss is the penalty alone
    images, labels = small_images()[0], np.zeros(30, np.int64)
    settings = Settings(hidden=(3,), epochs=5, batch_size=30, kl_start=0.2, kl_share=0.5, init_scale=0.1, **STILL)
    found = inference.fit(images, labels, settings, seed=0)
    prior = td.Normal(0.0, 0.5)
    divergence = sum(td.kl_divergence(td.Normal(found.loc[n], found.scale[n]), prior).sum() for n in found.loc)
    weights = torch.tensor([0.2, 0.6, 1, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(torch.tensor(found.record.kl_weights, dtype=torch.float64), weights)
    torch.testing.assert_close(found.curve, divergence.double() * weights, rtol=1e-5, atol=0)
    assert found.record.kl_weights[2:] == (1.0, 1.0, 1.0) and not found.record.tempered


def test_the_low_rank_penalty_is_torchs_divergence_of_dense_normals():
    images, labels = small_images()[0], np.zeros(30, np.int64)
    settings = Settings(hidden=(3,), epochs=1, batch_size=30, rank=3, init_scale=0.2, **STILL)
    found = low_rank.fit(images, labels, settings, seed=0)
    factor = torch.cat([value.flatten(0, -2) for value in found.factor.values()]).double()
    covariance = factor @ factor.T + vector(found.scale).double().square().diag()
    assert covariance.diagonal().mean().sqrt().item() == pytest.approx(0.2, rel=0.1)
    posterior = td.MultivariateNormal(vector(found.loc).double(), covariance)
    prior = td.MultivariateNormal(torch.zeros(len(covariance)).double(), 0.25 * torch.eye(len(covariance)).double())
    torch.testing.assert_close(found.curve[0], td.kl_divergence(posterior, prior), rtol=1e-5, atol=0)


def test_the_schedule_ends_at_exactly_one():
    settings = Settings(kl_start=0.1, kl_share=0.3)
    weights = [settings.kl_weight(step, 1001) for step in range(1001)]
    np.testing.assert_allclose(weights[:301], np.linspace(0.1, 1, 301))
    assert set(weights[300:]) == {1.0}
    assert Settings(kl_start=0.0, kl_share=0.9).kl_weight(630, 700) == 1.0
    assert {Settings().kl_weight(step, 3) for step in range(3)} == {1.0}


def test_a_tempered_posterior_says_so_after_saving():
    found = small_fit("mean_field", temperature=0.1, kl_share=0.5, kl_start=0.0)
    again = posteriors.from_state_dict(found.state_dict())
    assert again.record == found.record and again.record.kl_weights[-1] == 0.1 and again.record.tempered
    assert not small_fit("mean_field", kl_share=0.5, kl_start=0.0).record.tempered


def test_the_rate_decays_geometrically():
    # under a constant gradient each of Adam's steps is the rate
    import pyro

    def family(sizes, settings):
        def forward(inputs):
            moved = pyro.param("moved", torch.zeros(()))
            return torch.zeros(len(inputs), 1), -100 * moved

        return forward

    data = training.prepare(small_images()[0], np.zeros(30, np.int64), Settings(hidden=()))
    settings = Settings(epochs=11, batch_size=30, learning_rate=0.3, final_rate=0.01)
    parameters, _ = learn(data, settings, family, seed=0)
    assert parameters["moved"].item() == pytest.approx((0.3 * 0.01 ** (np.arange(11) / 10)).sum(), rel=1e-4)


def test_every_epoch_shows_the_images_moved_anew():
    images, labels = small_images()
    seen = []

    def family(sizes, settings):
        inner = inference.mean_field(sizes, settings)
        return lambda inputs: (seen.append(inputs), inner(inputs))[1]

    settings = Settings(hidden=(), epochs=2, batch_size=30, shift=1, subtract_mean=False)
    learn(training.prepare(images, labels, settings), settings, family, seed=0)
    padded = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)), "reflect") / 255
    moved = {(i, dy, dx): padded[i, dy : dy + 4, dx : dx + 4] for i in range(30) for dy in range(3) for dx in range(3)}
    found = [
        {key for image in epoch for key, one in moved.items() if np.allclose(image.view(4, 4), one)} for epoch in seen
    ]
    for epoch in found:
        assert {key[0] for key in epoch} == set(range(30)) and len({key[1:] for key in epoch}) > 4
    assert found[0] != found[1]
