import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from iic.classifiers.inference import freeze
from iic.classifiers.networks import build_network
from iic.errors import UserError
from iic.explainers.gradients import GRADIENTS, AfterNormalize, grad_cam
from iic.params import AttributionParams

PARAMS = AttributionParams(gradient_steps=64)


@pytest.fixture(scope="module")
def explained():
    torch.manual_seed(0)
    model = build_network([120.0, 110.0, 100.0], [60.0, 60.0, 60.0], widths=(4, 8, 8))
    nn.init.normal_(model[-1].weight)
    network = AfterNormalize(freeze(model), torch.tensor([120.0, 110.0, 100.0]))
    x = network.normalize(torch.randint(0, 256, (5, 3, 32, 32)).float())
    return network, x, network(x).argmax(1)


def maps(name, explained, rows=slice(None)):
    network, x, targets = explained
    return GRADIENTS[name](network, x[rows], targets[rows], PARAMS).detach()


def by_hand(explained):
    network, x, targets = explained
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).gather(1, targets[:, None]).sum(), x)
    return gradient


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_map_depends_on_its_image_only(explained, name):
    together, alone = maps(name, explained), maps(name, explained, slice(2, 3))
    assert together.shape == (5, 32, 32)
    torch.testing.assert_close(alone[0], together[2], rtol=1e-3, atol=1e-4 * float(together.abs().max()))


def test_gradient_and_input_x_gradient_are_autograds(explained):
    gradient = by_hand(explained)
    torch.testing.assert_close(maps("gradient", explained), gradient.abs().sum(1))
    torch.testing.assert_close(maps("input_x_gradient", explained), (gradient * explained[1]).sum(1))


@pytest.mark.parametrize("name", ["integrated_gradients", "deeplift"])
def test_what_differs_from_the_mean_colour_is_shared_out_whole(explained, name):
    network, x, targets = explained
    gap = (network(x) - network(torch.zeros_like(x))).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(maps(name, explained).sum((1, 2)), gap, rtol=0.05, atol=0.02 * float(gap.abs().max()))


def test_smoothgrad_is_captums_but_for_the_draws(explained):
    network, x, targets = explained
    params = AttributionParams(gradient_steps=400)
    ours = GRADIENTS["smoothgrad"](network, x[:1], targets[:1], params)[0]
    torch.manual_seed(1)
    deviation = 0.15 * float(x[0].max() - x[0].min())
    tunnel = NoiseTunnel(Saliency(network))
    theirs = tunnel.attribute(
        x[:1].clone().requires_grad_(),
        nt_type="smoothgrad",
        nt_samples=400,
        stdevs=deviation,
        target=targets[:1],
        abs=False,
    )
    theirs = theirs[0].abs().sum(0)
    assert np.corrcoef(ours.detach().flatten(), theirs.flatten())[0, 1] > 0.95


def test_on_a_linear_network_every_method_knows_the_answer():
    torch.manual_seed(0)
    model = AfterNormalize(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.zeros(3))
    x, targets = torch.rand(2, 3, 4, 4), torch.tensor([2, 0])
    weights = model.network[-1].weight[targets].view(2, 3, 4, 4)
    for name in ("gradient", "smoothgrad", "guided_backprop"):
        torch.testing.assert_close(GRADIENTS[name](model, x, targets, PARAMS).detach(), weights.abs().sum(1))
    for name in ("input_x_gradient", "integrated_gradients", "deeplift"):
        torch.testing.assert_close(
            GRADIENTS[name](model, x, targets, PARAMS).detach(), (weights * x).sum(1), rtol=1e-3, atol=1e-4
        )
    with pytest.raises(UserError, match="needs a convolution"):
        grad_cam(model, x, targets, PARAMS)


def test_grad_cam_is_the_papers_equation(explained):
    network, x, targets = explained
    layers = list(network.network)
    last = max(i for i, m in enumerate(layers) if isinstance(m, nn.Conv2d)) + 1  # its ReLU
    features = network.network[: last + 1](x).detach().requires_grad_()
    rest = nn.Sequential(*layers[last + 1 :])
    (gradient,) = torch.autograd.grad(rest(features).gather(1, targets[:, None]).sum(), features)
    cam = (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(cam, size=(32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps("grad_cam", explained), expected.detach(), rtol=1e-4, atol=1e-5)
