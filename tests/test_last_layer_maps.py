"""Maps over the samples of a last layer, and of its doubt, against Captum, autograd in float64 and the network."""

import copy

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients

from iic.bayes import last_layer, posteriors
from iic.bayes.explained import maps_of_last_layer, posterior_explanations, refusal_explanations
from iic.bayes.last_layer_maps import LastLayer, LastLayerDoubt, integrated_gradients_maps, lrp_maps
from iic.bayes.refusal import DOUBTS, Doubt, gradient_x_input, integrated_gradients
from iic.bayes.settings import Settings
from iic.bayes.sources import with_last_layer
from iic.classifiers.inference import freeze
from iic.classifiers.networks import build_network
from iic.classifiers.precision import Forward
from iic.data.images import ImageSet
from iic.evaluation.fills import Fills
from iic.explainers.context import Context
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams

MEAN, SIDE, CLASSES, SAMPLES = np.array([120.0, 100.0, 140.0]), 28, 3, 4
PARAMS = AttributionParams(segmentation="grid", superpixels=4, budget=40, precision="float32", device="cpu")


@pytest.fixture(scope="module")
def images():
    labels = np.arange(24) % CLASSES
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, SIDE, SIDE), dtype=np.uint8)
    pixels[labels == 1, :, : SIDE // 2] //= 3  # something to be learnt
    pixels[labels == 2, :, :, : SIDE // 2] //= 3
    return ImageSet(pixels, labels)


@pytest.fixture(scope="module")
def layer(images):
    torch.manual_seed(0)
    model = build_network(MEAN.tolist(), [60.0, 70.0, 50.0], (4, 8, 8), CLASSES).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    seen = last_layer.features(model, torch.from_numpy(images.images))
    settings = Settings(hidden=(), epochs=60, batch_size=8, learning_rate=0.05, init_scale=0.2)
    return LastLayer(model, posteriors.fit("mean_field", seen, images.labels, settings, seed=0), MEAN)


@pytest.fixture(scope="module")
def samples(layer):
    return list(posteriors.sample_weights(layer.posterior, SAMPLES, seed=1))


def networks(layer, samples):
    record = layer.posterior.record
    return [with_last_layer(layer.frozen, one, layer.posterior.pixel_mean, record.unit) for one in samples]


def test_a_samples_relevance_is_that_of_the_network_with_its_last_layer(layer, samples, images):
    """With the network's own last layer in a sample's place the map is the network's own."""
    unit, mean = layer.posterior.record.unit, layer.posterior.pixel_mean
    assert layer.frozen[-1].bias is None
    weight = layer.frozen[-1].weight * unit
    own = {"layer0.weight": weight, "layer0.bias": mean * weight.sum(1)}
    forward = Forward(layer.frozen, "float32", "cpu", 1.0)
    context = Context(layer.frozen, forward, MEAN, PARAMS, Segmenter(PARAMS))
    some, indices, targets = images.images[:5], np.arange(5), np.arange(5) % CLASSES
    maps = np.concatenate(list(lrp_maps(layer, context, [*samples, own], some, indices, targets)))
    assert maps.shape == (SAMPLES + 1, 5, SIDE, SIDE)
    expected = explain("lrp", context, some, indices, targets).values
    np.testing.assert_allclose(maps[-1], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert np.abs(maps[0] - maps[1]).max() > 0.01 * np.abs(maps).max()  # samples explain in different ways


def test_integrated_gradients_are_captums_and_add_up(layer, samples, images):
    some, targets = images.images[:5], np.arange(5) % CLASSES
    (maps,) = integrated_gradients_maps(layer, samples, some, targets, steps=300)
    pixels = torch.from_numpy(some).float()
    start = torch.as_tensor(MEAN, dtype=torch.float32)[:, None, None].expand_as(pixels)
    for found, network in zip(maps, networks(layer, samples), strict=True):
        way = IntegratedGradients(network).attribute(
            pixels, start, torch.as_tensor(targets), n_steps=300, method="riemann_middle", internal_batch_size=50
        )
        np.testing.assert_allclose(found, way.sum(1).detach(), atol=2e-3 * np.abs(found).max())
        gain = (network(pixels) - network(start))[np.arange(5), targets]
        np.testing.assert_allclose(found.sum((1, 2)), gain.detach(), atol=0.02 * gain.abs().max().item())


def doubt_by_hand(networks, pixels, kind):
    p = torch.stack([network(pixels).softmax(1) for network in networks])
    total = torch.special.entr(p.mean(0)).sum(1)
    return total if kind == "entropy" else total - torch.special.entr(p).sum(2).mean(0)


@pytest.mark.parametrize("kind", DOUBTS)
def test_the_doubt_and_its_gradient_are_those_of_the_samples_networks(layer, samples, images, kind):
    doubt = LastLayerDoubt(layer, Doubt(samples, layer.posterior.pixel_mean, kind), (3, SIDE, SIDE))
    exact = [copy.deepcopy(network).double() for network in networks(layer, samples)]
    some = images.images[:6]
    pixels = torch.from_numpy(some).double().requires_grad_()
    expected = doubt_by_hand(exact, pixels, kind)
    np.testing.assert_allclose(doubt(some), expected.detach(), atol=1e-5)
    (gradient,) = torch.autograd.grad(expected.sum(), pixels)
    found = doubt.gradient(doubt.inputs(some)).view_as(pixels)
    assert torch.linalg.norm(found - gradient) < 1e-3 * torch.linalg.norm(gradient)
    centred = torch.from_numpy(some) - torch.as_tensor(MEAN)[:, None, None]
    expected = (centred * gradient).sum(1)
    np.testing.assert_allclose(gradient_x_input(doubt, some), expected, atol=2e-3 * expected.abs().max().item())
    way = integrated_gradients(doubt, some, steps=200)
    at_mean = doubt(np.broadcast_to(MEAN[:, None, None], some[:1].shape).astype(np.float32))
    np.testing.assert_allclose(way.sum((1, 2)), doubt(some) - at_mean, atol=0.02)


def test_the_reports_of_a_last_layer(layer, images):
    posterior, draws = layer.posterior, {"samples": SAMPLES, "seed": 0, "replicates": 50}
    forward = Forward(layer.frozen, "float32", "cpu", 1.0)
    context = Context(layer.frozen, forward, MEAN, PARAMS, Segmenter(PARAMS))

    report, maps = posterior_explanations(
        posterior,
        images,
        12,
        2,
        **draws,
        maps=maps_of_last_layer(layer, context),
        of_shown=("integrated_gradients",),
        see=lambda some: last_layer.features(layer.model, torch.from_numpy(some)).numpy(),
    )
    assert set(report["selectors"]) == {"mutual_information", "disagreement_lrp"} and report["n_images"] == 12
    assert maps["lrp.sd"].shape == maps["integrated_gradients.mean"].shape == (2, SIDE, SIDE)
    assert maps["lrp.sd"].max() > 0

    def doubt_of(drawn, kind):
        return LastLayerDoubt(layer, Doubt(drawn, posterior.pixel_mean, kind), (3, SIDE, SIDE))

    fills = Fills(MEAN, images.images)
    found = refusal_explanations(posterior, images, 3, Segmenter(PARAMS), fills, **draws, budget=14, doubt_of=doubt_of)
    assert found["judged_by"] == "other samples" and set(found) == {"judged_by", *DOUBTS}
    rows = found["mutual_information"]["fills"]["mean_colour"]
    assert {"gradient_x_input", "integrated_gradients", "kernel_shap", "random", "sobel", "centre"} == set(rows)
    judges = list(posteriors.sample_weights(posterior, SAMPLES, seed=1))
    makers = list(posteriors.sample_weights(posterior, SAMPLES, seed=0))
    chosen = np.argsort(-doubt_of(makers, "mutual_information")(images.images), kind="stable")[:3]
    start = doubt_of(judges, "mutual_information")(images.images[chosen]).mean()
    assert rows["random"]["curve"][0]["mean"] == pytest.approx(start, abs=1e-6)  # nothing removed yet
    ends = [row["curve"][0]["mean"] for row in rows.values()]
    assert np.ptp(ends) < 1e-6


def test_frozen_and_trained_networks_give_the_same_features(layer, images):
    pixels = torch.from_numpy(images.images)
    seen = last_layer.features(layer.model, pixels)
    posterior = layer.posterior
    expected = seen / posterior.record.unit - posterior.pixel_mean
    torch.testing.assert_close(layer.features(layer.centred(images.images)), expected, rtol=1e-4, atol=1e-4)
    assert freeze(layer.model)[-1].in_features == seen.shape[1]
