import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_posteriors import small_fit, small_images, vector
from torch import distributions as td

from iic.bayes import ensemble, inference, laplace, last_layer, low_rank, network, point, posteriors, training
from iic.bayes.record import Record, draw_generator
from iic.bayes.settings import Settings
from iic.classifiers.networks import build_network
from iic.data.sources import load_digits
from iic.errors import UserError
from iic.shipped import FOLDER, card_path, load_shipped

ROOT = Path(__file__).parents[1]
STILL = {"learning_rate": 1e-12}  # training leaves the start where it is: the curve is the loss of the start


# Laplace, ensemble, dropout


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_laplaces_precision_is_the_hessian_of_the_loss(hidden):
    images, labels = small_images()
    settings = Settings(hidden=hidden, prior_scale=0.3)
    data = training.prepare(images, labels, settings)
    torch.manual_seed(0)
    weights = network.initial_means(data.sizes)
    inputs = data.inputs(slice(None)).double()
    hidden_inputs = network.last_hidden({name: value.double() for name, value in weights.items()}, inputs)
    weight, bias = list(weights)[-2:]
    theta = torch.cat([weights[weight], weights[bias][:, None]], 1).double().flatten()

    def loss(theta):
        rows = theta.view(3, -1)
        log_likelihood = F.cross_entropy(hidden_inputs @ rows[:, :-1].T + rows[:, -1], data.labels, reduction="sum")
        return log_likelihood + theta.square().sum() / (2 * 0.3**2)

    expected = torch.autograd.functional.hessian(loss, theta)
    found = laplace.last_layer_precision(weights, data, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    root = laplace.covariance_root(found)
    torch.testing.assert_close(root @ root.T, torch.linalg.inv(expected))


def test_laplace_draws_have_its_covariance_in_the_last_layer_only():
    found = small_fit("laplace", hidden=(2,))
    drawn = list(found.draw(6000, seed=0))
    assert all(torch.equal(weights["layer0.weight"], found.loc["layer0.weight"]) for weights in drawn[:9])
    rows = torch.stack([torch.cat([w["layer1.weight"], w["layer1.bias"][:, None]], 1).flatten() for w in drawn])
    covariance = (found.root @ found.root.T).numpy()
    largest = covariance.max()
    np.testing.assert_allclose(np.cov(rows.T.numpy()), covariance, atol=6 * largest / math.sqrt(6000))
    mean = torch.cat([found.loc["layer1.weight"], found.loc["layer1.bias"][:, None]], 1).flatten()
    np.testing.assert_allclose(rows.mean(0), mean, atol=5 * math.sqrt(largest / 6000))


def test_an_ensembles_members_are_separate_fits_in_turn():
    settings = Settings(hidden=(6,), epochs=2, batch_size=8, members=3)
    images, labels = small_images()
    found = ensemble.fit(images, labels, settings, seed=4)
    data = training.prepare(images, labels, settings)
    alone = [point.fit_point(data, settings, seed=ensemble.member_seed(4, m)) for m in range(3)]
    for sample, weights in enumerate(found.draw(7, seed=0)):
        for name, value in weights.items():
            assert torch.equal(value, alone[sample % 3][0][name])
    torch.testing.assert_close(found.curve, sum(fields["curve"] for _, fields in alone) / 3)
    assert len({ensemble.member_seed(seed, member) for seed in range(20) for member in range(20)}) == 400


def test_dropout_draws_one_mask_as_torchs_dropout_would():
    found = small_fit("dropout", hidden=(3,), dropout=0.25)
    inputs = network.normalise(torch.from_numpy(small_images(2)[0]), found.pixel_mean)
    active = F.linear(inputs, found.loc["layer0.weight"], found.loc["layer0.bias"]).relu()  # (2, 3)
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))  # every one of the 8
    outputs = (active * masks[:, None] / 0.75) @ found.loc["layer1.weight"].T + found.loc["layer1.bias"]  # (8, 2, 3)
    chances = (0.75**masks * 0.25 ** (1 - masks)).prod(1)
    drawn = torch.stack([network.logits(weights, inputs) for weights in found.draw(3000, seed=0)])  # (S, 2, 3)
    distance = (
        (drawn[:, None] - outputs).abs().amax((2, 3))
    )  # to the nearest mask's outputs, both images under one mask
    assert distance.min(1).values.max() < 1e-5
    torch.manual_seed(0)
    trained = network.logits(found.loc, inputs.repeat(3000, 1), 0.25).view(3000, 2, 3)
    expected = (chances[:, None, None] * outputs).sum(0)
    error = (chances[:, None, None] * (outputs - expected).square()).sum(0).max().sqrt().item() / math.sqrt(3000)
    for sampled in (drawn, trained):
        torch.testing.assert_close(sampled.mean(0), expected, atol=5 * error, rtol=0)


def test_dropouts_penalty_is_the_masks_mean_of_the_negative_log_prior():
    images, labels = small_images()[0], np.zeros(30, np.int64)
    settings = Settings(hidden=(3,), epochs=1, batch_size=30, dropout=0.25, prior_scale=0.7, **STILL)
    found = posteriors.fit("dropout", images, labels, settings, seed=0)
    expected, prior = 0.0, td.Normal(0.0, 0.7)
    for mask in itertools.product([0.0, 1.0], repeat=3):
        masked = {**found.loc, "layer1.weight": found.loc["layer1.weight"] * torch.tensor(mask) / 0.75}
        expected -= 0.75 ** sum(mask) * 0.25 ** (3 - sum(mask)) * prior.log_prob(vector(masked)).sum().item()
    assert found.curve[0].item() == pytest.approx(expected, rel=1e-5)


def test_low_rank_draws_have_its_covariance():
    torch.manual_seed(0)
    shapes = network.weight_shapes((2, 1))
    loc, scale = ({name: torch.rand(shape) for name, shape in shapes.items()} for _ in range(2))
    factor = {name: torch.randn(*shape, 2) for name, shape in shapes.items()}
    found = low_rank.LowRank(loc, scale, factor, 0.0, torch.zeros(1))
    rows = torch.stack([vector(weights) for weights in found.draw(8000, seed=0)])
    stacked = torch.cat([value.flatten(0, -2) for value in factor.values()])
    covariance = (stacked @ stacked.T + vector(scale).square().diag()).numpy()
    np.testing.assert_allclose(np.cov(rows.T.numpy()), covariance, atol=6 * covariance.max() / math.sqrt(8000))
    np.testing.assert_allclose(rows.mean(0), vector(loc), atol=5 * math.sqrt(covariance.max() / 8000))


# All kinds alike


@pytest.mark.parametrize("kind", posteriors.KINDS)
def test_every_posterior_is_drawn_saved_and_fixed_by_its_seed(kind, tmp_path):
    images, _ = small_images()
    found = small_fit(kind)
    assert found.kind == kind and found.shapes == network.weight_shapes((16, 6, 3))
    for weights in posteriors.sample_weights(found, 3, seed=0):
        assert {name: tuple(value.shape) for name, value in weights.items()} == found.shapes
    whole = inference.sample_probabilities(found, images, 5, seed=2)
    assert torch.equal(inference.sample_probabilities(found, images, 3, seed=2), whole[:3])
    torch.testing.assert_close(inference.sample_probabilities(found, images, 5, seed=2, batch_size=7), whole)
    assert not torch.equal(whole[0], whole[1])

    torch.save(found.state_dict(), tmp_path / "posterior.pt")
    again = posteriors.from_state_dict(torch.load(tmp_path / "posterior.pt", weights_only=True))
    assert type(again) is type(found) and again.record == found.record == Record(255.0, (0.5,), (1.0, 1.0))
    assert torch.equal(inference.sample_probabilities(again, images, 5, seed=2), whole)

    same, other = small_fit(kind).state_dict(), small_fit(kind, seed=1).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in found.state_dict().items())
    assert any(not torch.equal(value, other[key]) for key, value in found.state_dict().items())


PRODUCTS = {  # of 4 samples with two hidden layers: what all draws have alike is computed once
    "mean_field": 4 * 3,
    "low_rank": 4 * 3,
    "laplace": 2 + 4,
    "ensemble": 2 * 3,  # members
    "dropout": 1 + 4 * 2,
}


@pytest.mark.parametrize("kind", posteriors.KINDS)
def test_every_draw_answers_as_its_weights_do_and_nothing_is_computed_twice(kind, monkeypatch):
    found, images = small_fit(kind, hidden=(6, 5)), small_images()[0]
    inputs = network.normalise(torch.from_numpy(images), found.pixel_mean)
    expected = torch.stack([network.logits(weights, inputs) for weights in found.draw(4, seed=2)])
    linear, products = F.linear, []
    monkeypatch.setattr(F, "linear", lambda *args: products.append(args) or linear(*args))
    torch.testing.assert_close(inference.sample_logits(found, images, 4, seed=2), expected)
    assert len(products) == PRODUCTS[kind]
    products.clear()
    low = inference.sample_logits(found, images, 4, seed=2, dtype=torch.bfloat16)
    torch.testing.assert_close(low, expected, atol=0.05, rtol=0.05)
    lowered = sum(weight.dtype == torch.bfloat16 for _, weight, _ in products)
    assert lowered == {"laplace": 0, "ensemble": 2 * 2, "dropout": 4}.get(kind, 4 * 2)


def test_hidden_layers_that_are_not_drawn_anew_need_no_speed(monkeypatch):
    monkeypatch.setattr(inference, "best_dtype", lambda: torch.bfloat16)
    fast = {
        kind for kind in posteriors.KINDS if inference.fast_dtype(small_fit(kind, hidden=(6, 5)), 4) != torch.float32
    }
    assert fast == {"mean_field", "low_rank", "dropout"}
    assert inference.fast_dtype(small_fit("mean_field", hidden=()), 4) == torch.float32
    assert inference.fast_dtype(small_fit("dropout"), 4) == torch.float32  # its only hidden layer sees the inputs
    monkeypatch.setattr(inference, "best_dtype", lambda: torch.float32)
    assert inference.fast_dtype(small_fit("mean_field"), 4) == torch.float32


def test_a_plain_network_is_laplaces_mode_at_its_temperature():
    images, labels = small_images()
    settings = Settings(hidden=(6,), epochs=2, batch_size=8)
    plain, laplaces = point.fit(images, labels, settings, seed=0), small_fit("laplace")
    assert all(torch.equal(value, laplaces.loc[name]) for name, value in plain.loc.items())
    logits = inference.sample_logits(plain, images, 3, seed=0)
    inputs = network.normalise(torch.from_numpy(images), plain.pixel_mean)
    torch.testing.assert_close(logits[0], network.logits(plain.loc, inputs))
    assert torch.equal(logits[0], logits[2])
    answers = (logits[0].argmax(1).numpy() + (np.arange(30) % 4 == 0)) % 3  # three of four are right
    louder = {name: 4 * value if name.startswith("layer1") else value for name, value in plain.loc.items()}
    soft, sharp = (one.calibrated(images, answers) for one in (plain, replace(plain, loc=louder)))
    assert sharp.temperature == pytest.approx(4 * soft.temperature, rel=0.02)
    again = posteriors.from_state_dict(sharp.state_dict())
    assert type(again) is point.Point and again.temperature == sharp.temperature and again.record == plain.record


def test_samples_are_drawn_apart_from_the_training_under_the_same_seed():
    found, name = small_fit("mean_field", seed=3), "layer0.weight"
    noise = (next(found.draw(1, seed=3))[name] - found.loc[name]) / found.scale[name]  # (6, 16)
    start = torch.randn(6, 16, generator=torch.Generator().manual_seed(3))  # of the stream that training began with
    assert abs(np.corrcoef(noise.flatten(), start.flatten())[0, 1]) < 0.4
    drawn = {draw_generator(seed).initial_seed() for seed in range(200)}
    trained = {ensemble.member_seed(seed, member) for seed in range(200) for member in range(5)} | set(range(200))
    assert len(drawn) == 200 and not drawn & trained


@pytest.mark.parametrize("kind", posteriors.KINDS)
def test_every_training_refuses_what_is_not_finite(kind):
    with pytest.raises(UserError, match=r"no longer finite in epoch \d of 2: lower its learning_rate"):
        small_fit(kind, learning_rate=1e30)


def test_parameters_that_break_in_the_last_step_are_refused_too():
    with pytest.raises(UserError, match="no longer finite in epoch 1 of 1"):
        small_fit("low_rank", epochs=1, batch_size=30, learning_rate=math.inf)


@pytest.mark.parametrize("kind", ["mean_field", "low_rank", "ensemble"])
def test_a_mixture_prior_is_recorded(kind):
    found = small_fit(kind, prior_scale=1.0, narrow_scale=0.01, wide_share=0.25)
    assert found.record.prior == (0.25, 1.0, 0.01)


def test_the_digits_posterior_of_before_still_loads_and_answers_as_its_card_says():
    path = ROOT / FOLDER / "digits_bayesian.pt"
    found = posteriors.from_state_dict(load_shipped(path))
    test = load_digits()[1]
    mean = inference.sample_probabilities(found, test.images, 50, seed=0).mean(0)
    accuracy = (mean.argmax(1).numpy() == test.labels).mean()
    assert accuracy == pytest.approx(json.loads(card_path(path).read_text())["forced_accuracy"], abs=0.004)
    lowered = inference.sample_logits(found, test.images, 50, seed=0, dtype=torch.bfloat16)
    assert lowered.dtype == torch.float32
    fast = lowered.softmax(-1).mean(0)
    assert 0 < (fast - mean).abs().max() < 5e-3
    assert (fast.argmax(1) == mean.argmax(1)).float().mean() >= 0.995


# A Bayesian last layer


def test_features_are_what_the_last_layer_sees_and_take_a_posterior():
    torch.manual_seed(0)
    model = build_network((33.0,), (78.0,), (4, 4, 8)).eval()
    images = torch.from_numpy(load_digits()[1].images[:40])
    seen = last_layer.features(model, images, batch_size=16)
    assert seen.shape == (40, 8) and seen.dtype == torch.float32
    torch.testing.assert_close(seen @ model[-1].weight.T, model(images), rtol=1e-4, atol=1e-5)
    settings = Settings(hidden=(99,), epochs=2, batch_size=20, members=2)
    for kind in ("mean_field", "laplace"):
        found = last_layer.fit(kind, seen, np.arange(40) % 10, settings, seed=0)
        assert found.shapes == {"layer0.weight": (10, 8), "layer0.bias": (10,)}
        inputs = network.normalise(seen, found.pixel_mean, found.record.unit)
        assert inputs.mean().item() == pytest.approx(0, abs=1e-5)
        assert inputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)
        expected = torch.stack([network.logits(weights, inputs) for weights in found.draw(3, seed=0)])
        torch.testing.assert_close(inference.sample_logits(found, seen, 3, seed=0), expected)
        low = inference.sample_logits(found, seen, 3, seed=0, dtype=torch.bfloat16)  # the only layer is the last
        assert torch.equal(low, inference.sample_logits(found, seen, 3, seed=0))
    before = seen.clone()
    inference.sample_logits(found, seen, 1, seed=0)
    assert torch.equal(seen, before)
    with pytest.raises(UserError, match=r"float features \(N, F\) of 8 values each"):
        inference.sample_logits(found, images, 1, seed=0)
    with pytest.raises(UserError, match=r"ends with nn\.Linear"):
        last_layer.features(model[:-1], images)


def test_an_ensembles_draws_are_the_same_whatever_the_seed():
    for kind in posteriors.KINDS:
        found = small_fit(kind)
        first, second = (list(found.draw(2, seed=seed)) for seed in (0, 1))
        alike = all(torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)
        assert found.is_finite == alike == (kind == "ensemble")


# Wrong inputs


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("laplace", {"narrow_scale": 0.01}, "Laplace's approximation needs a prior of one Normal"),
        ("laplace", {"hidden": (6000,)}, "let its inputs be at most 5332"),
        ("dropout", {"narrow_scale": 0.01}, "MC dropout needs a prior of one Normal"),
        ("dropout", {"hidden": ()}, "a single layer has none"),
        ("ensemble", {"temperature": 0.5}, "temperature: set it to 1, not 0.5"),
        ("laplace", {"temperature": 0.5}, "temperature: set it to 1, not 0.5"),
        ("mean_field", {"narrow_scale": 0.6}, "between 0 and its prior_scale"),
        ("ensemble", {"own_scales": True}, "infinitely narrow own_scales"),
        ("laplace", {"own_scales": True}, "infinitely narrow own_scales"),
        ("mean_field", {"own_scales": True, "narrow_scale": 0.1}, "one of own_scales or has a narrow_scale"),
        ("mean_field", {"kl_share": 0.95}, "kl_share, wide_share and dropout"),
        ("mean_field", {"kl_start": -1}, "kl_start is -1"),
        ("mean_field", {"rank": 0}, "rank is 0"),
        ("flow", {}, "no posterior 'flow': choose one of mean_field, low_rank, laplace, ensemble, dropout"),
    ],
)
def test_what_cannot_be_is_said(kind, changes, message):
    with pytest.raises(UserError, match=message):
        small_fit(kind, **changes)


def test_wrong_features_and_files_are_named():
    features = torch.ones(6, 3)
    with pytest.raises(UserError, match="not finite"):
        inference.fit(features * math.nan, np.arange(6) % 2, Settings(), seed=0)
    with pytest.raises(UserError, match="cannot be shifted by 2"):
        inference.fit(features, np.arange(6) % 2, Settings(shift=2), seed=0)
    with pytest.raises(UserError, match="of the kind dropout, not mean_field"):
        inference.Posterior.from_state_dict(small_fit("dropout").state_dict())
    state = small_fit("laplace").state_dict()
    del state["root"]
    with pytest.raises(UserError, match="lacks root"):
        posteriors.from_state_dict(state)
