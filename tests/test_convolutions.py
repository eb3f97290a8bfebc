"""Bayesian networks that begin with convolutions: beside dense layers of the same numbers, and torch's own."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_posteriors import pyros_losses, vector

from iic.bayes import inference, network, posteriors, refusal
from iic.bayes.explanations import RULES, integrated_gradients_maps, lrp_maps, predicted_classes
from iic.bayes.settings import Settings
from iic.bayes.sizes import layer_sizes
from iic.bayes.sources import as_network
from iic.errors import UserError

MEAN, TARGETS = 0.3, np.array([0, 2, 1, 1])
IMAGE = (2, 18, 18)  # no filter of the first layer sees the last row
SIZES = ((2, 18, 18), (3, 7, 7), (4, 2, 2), 6, 3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, *IMAGE), dtype=np.uint8)


def drawn(count=3, sizes=SIZES):
    generator, shapes = torch.Generator().manual_seed(0), network.weight_shapes(sizes)
    return [
        {n: torch.randn(s, generator=generator) / math.prod(s[1:]) ** 0.5 for n, s in shapes.items()}
        for _ in range(count)
    ]


def dense(weights):
    """Each convolution as a matrix, column by column: what it makes of one value that is 1."""
    found = dict(weights)
    for layer, (inputs, outputs) in enumerate(pairwise(SIZES)):
        if isinstance(outputs, tuple):
            convolution = torch.nn.functional.conv2d
            ones = torch.eye(math.prod(inputs)).view(-1, *inputs)
            found[f"layer{layer}.weight"] = convolution(ones, weights[f"layer{layer}.weight"], stride=2).flatten(1).T
            found[f"layer{layer}.bias"] = weights[f"layer{layer}.bias"].repeat_interleave(outputs[1] * outputs[2])
    return found


def test_sizes_are_those_of_torchs_convolutions(images):
    assert layer_sizes(IMAGE, (3, 4), (6,), 3) == SIZES
    assert layer_sizes((1, 28, 28), (), (512,), 10) == (784, 512, 10)
    (weights,) = drawn(1)
    model = as_network(weights, MEAN, 2)
    x = network.normalise(torch.from_numpy(images), MEAN)
    torch.testing.assert_close(network.logits(weights, x), model(torch.from_numpy(images)))
    torch.testing.assert_close(network.logits(weights, x), network.logits(dense(weights), x))


def test_the_transposed_layer_is_autograds(images):
    (weights,) = drawn(1)
    x = network.normalise(torch.from_numpy(images), MEAN).requires_grad_()
    out = network.affine(x, weights["layer0.weight"], weights["layer0.bias"])
    flow = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(out, x, flow)
    torch.testing.assert_close(network.transposed(flow, weights["layer0.weight"], x.shape[1]), expected)


@pytest.mark.parametrize("rules", RULES)
def test_lrp_is_that_of_the_same_dense_layers(images, rules):
    samples = drawn()
    ours = np.concatenate(list(lrp_maps(samples, MEAN, images, TARGETS, rules=rules)))
    theirs = np.concatenate(list(lrp_maps([dense(w) for w in samples], MEAN, images, TARGETS, rules=rules)))
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


def test_other_explanations_are_those_of_the_same_dense_layers(images):
    samples, inputs = drawn(), network.normalise(torch.from_numpy(images), MEAN)
    matrices = [dense(weights) for weights in samples]
    ours, theirs = (
        np.concatenate(list(integrated_gradients_maps(w, MEAN, images, TARGETS, steps=5))) for w in (samples, matrices)
    )
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
    assert predicted_classes(samples, MEAN, images).tolist() == predicted_classes(matrices, MEAN, images).tolist()
    gradient, same = (refusal.Doubt(w, MEAN).gradient(inputs) for w in (samples, matrices))
    torch.testing.assert_close(gradient, same, atol=1e-6, rtol=1e-4)


def test_flipouts_deviations_have_the_closed_forms_covariance_and_are_not_shared(images):
    """Of one filter's outputs, which share its weights: the sum over them of variance times the two pixels."""
    generator = torch.Generator().manual_seed(0)
    variance, of_bias = torch.rand(2, 2, 5, 5, generator=generator), torch.tensor([0.5, 2.0])
    x = network.normalise(torch.from_numpy(images[:2, :, :7, :7]), MEAN)  # (2, 2 * 7 * 7), outputs 2 x 2
    torch.manual_seed(1)
    draws = torch.stack([network.flipout(x, variance, of_bias) for _ in range(8000)]).unflatten(2, (2, 4))
    patches = torch.nn.functional.unfold(x.view(2, 2, 7, 7), 5, stride=2)  # (N, C * k * k, places)
    for image in range(2):
        for number in range(2):
            spread = variance[number].flatten()[:, None]
            exact = patches[image].T @ (spread * patches[image]) + of_bias[number]
            found = np.cov(draws[:, image, number].T.numpy())
            np.testing.assert_allclose(found, exact, atol=6 * exact.max().item() / math.sqrt(8000))
    assert abs(draws.mean(0)).max() < 6 * draws.std() / math.sqrt(8000)
    other = np.corrcoef(draws.flatten(2)[:, 0].T, draws.flatten(2)[:, 1].T)[:8, 8:]
    assert abs(other).max() < 0.06  # shared deviations would correlate them nearly wholly
    one = np.corrcoef(draws[:, 0, 0, 0], draws[:, 0, 1, 0])[0, 1]
    assert abs(one) < 0.06  # two filters of one image


def small(kind, seed=0, **changes):
    images = np.random.default_rng(5).integers(0, 256, size=(24, 1, 13, 13), dtype=np.uint8)
    settings = {"filters": (3, 4), "hidden": (), "epochs": 2, "batch_size": 8, "rank": 2, "members": 2, **changes}
    return images, posteriors.fit(kind, images, np.arange(24) % 3, Settings(**settings), seed=seed)


@pytest.mark.parametrize("kind", posteriors.KINDS)
def test_every_posterior_takes_filters_and_answers_as_its_draws_do(kind, tmp_path):
    images, found = small(kind)
    assert found.shapes == network.weight_shapes(((1, 13, 13), (3, 5, 5), (4, 1, 1), 3))
    inputs = network.normalise(torch.from_numpy(images), found.pixel_mean)
    expected = torch.stack([network.logits(weights, inputs) for weights in found.draw(4, seed=2)])
    torch.testing.assert_close(inference.sample_logits(found, images, 4, seed=2), expected)
    low = inference.sample_logits(found, images, 4, seed=2, dtype=torch.bfloat16)
    torch.testing.assert_close(low, expected, atol=0.05, rtol=0.05)
    assert not torch.equal(expected[0], expected[1])
    assert inference.sample_logits(found, images[:0], 4, seed=2).shape == (4, 0, 3)
    torch.save(found.state_dict(), tmp_path / "posterior.pt")
    again = posteriors.from_state_dict(torch.load(tmp_path / "posterior.pt", weights_only=True))
    assert torch.equal(vector(again.state_dict()), vector(found.state_dict()))
    with pytest.raises(UserError, match="of 1 channels, as large as the training images, each"):
        inference.sample_logits(found, images[:, :, :9, :9], 2, seed=0)


@pytest.mark.parametrize("local", [True, False])
def test_the_loss_is_that_of_pyros_own_mean_field_elbo(local):
    changes = {"filters": (3,), "epochs": 400, "batch_size": 24, "init_scale": 0.2, "learning_rate": 1e-12}
    images, found = small("mean_field", local=local, **changes)
    losses = pyros_losses(found, images, np.arange(24) % 3)
    error = losses.std().item() / 20 + found.curve.std().item() / 20
    assert abs(losses.mean().item() - found.curve.mean().item()) < 4 * error


def test_images_that_filters_do_not_fit_are_named():
    with pytest.raises(UserError, match="square images, not inputs of \\(8,\\)"):
        layer_sizes((8,), (3,), (), 3)
    with pytest.raises(UserError, match="12 x 12 pixels are too small for a Bayesian network of 3 convolutions"):
        layer_sizes((1, 12, 12), (3, 4, 5), (), 3)
    with pytest.raises(UserError, match=r"filters is \(0,\)"):
        Settings(filters=(0,))
