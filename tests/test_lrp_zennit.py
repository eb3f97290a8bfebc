"""LRP is zennit's: the same composites, rule by rule, on our networks and torchvision's."""

import pytest
import torch
from small_lrp import assert_account_closes, error, frozen_network, stir
from torch import nn
from torchvision.models import resnet18, vgg11_bn
from zennit.composites import (
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlusFlat,
    NameMapComposite,
    SpecialFirstLayerMapComposite,
)
from zennit.rules import Epsilon, Flat, Norm, Pass
from zennit.torchvision import ResNetCanonizer, VGGCanonizer
from zennit.types import Activation, AvgPool

from iic.classifiers.inference import logits
from iic.classifiers.networks import Normalize
from iic.explainers.composites import COMPOSITES, composite
from iic.explainers.lrp import EPSILON, Propagator


@pytest.fixture(scope="module")
def frozen():
    return frozen_network()


def plain_epsilon(**options):
    """zennit's EpsilonPlusFlat without its special rules."""
    from zennit.layer import Sum
    from zennit.types import Convolution, Linear

    layers = [(Activation, Pass()), (Sum, Norm()), (AvgPool, Norm()), ((Convolution, Linear), Epsilon(1e-6))]
    return SpecialFirstLayerMapComposite(layers, [], **options)


def zennits(name: str, normalize: Normalize, canonizers=None):
    options = {} if canonizers is None else {"canonizers": canonizers}
    if name == "epsilon":
        return plain_epsilon(**options)
    if name == "epsilon_plus_flat":
        return EpsilonPlusFlat(epsilon=EPSILON, stabilizer=EPSILON, **options)
    if name == "epsilon_alpha2_beta1_flat":
        return EpsilonAlpha2Beta1Flat(epsilon=EPSILON, stabilizer=EPSILON, **options)
    low, high = (normalize(torch.full((1, 3, 1, 1), bound)) for bound in (0.0, 255.0))
    low, high = low.to(normalize.mean.dtype), high.to(normalize.mean.dtype)
    return EpsilonGammaBox(low=low, high=high, epsilon=EPSILON, gamma=0.25, stabilizer=EPSILON, **options)


def by_zennit(name, normalize, network, images, targets, canonizers=None):
    inputs = normalize(images).requires_grad_()  # zennit explains from the normalised pixels on
    with zennits(name, normalize, canonizers).context(network) as modified:
        output = modified(inputs)
        flow = torch.eye(output.shape[1], dtype=output.dtype)[targets] * output.detach()
        (theirs,) = torch.autograd.grad(output, inputs, flow)
    return theirs


@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_are_zennits(frozen, name):
    model, images = frozen
    targets = logits(model, images).argmax(1)
    theirs = by_zennit(name, model[0], nn.Sequential(*list(model)[1:]), images.float(), targets)
    ours = Propagator(model, COMPOSITES[name])(images, targets).values
    assert error(ours, theirs) < 1e-4


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize(("build", "canonizer"), [(vgg11_bn, VGGCanonizer), (resnet18, ResNetCanonizer)])
def test_torchvisions_networks_are_zennits(build, canonizer, name):
    """In float64: shares of sums near zero are large, and float32 would compare rounding errors.

    BatchNorm's eps is 0: zennit folds it into the convolution, but leaves a division by sqrt(1 + eps) behind.
    """
    torch.manual_seed(0)
    network = stir(build(num_classes=7)).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    normalize = Normalize([120.0, 110.0, 100.0], [60.0, 60.0, 60.0]).double()
    images = torch.randint(0, 256, (2, 3, 64, 64)).double()
    targets = torch.tensor([3, 5])
    theirs = by_zennit(name, normalize, network, images, targets, [canonizer()])
    propagate = Propagator(nn.Sequential(normalize, network), COMPOSITES[name])
    ours = propagate(images, targets)
    assert error(ours.values, theirs) < 1e-4
    assert_account_closes(ours)


def test_relevance_may_arrive_where_a_relu_is_shut(frozen):
    """A flat rule above hands some to zeros: the sums below zero must be there for the layer beneath."""
    model, images = frozen
    targets = logits(model, images).argmax(1)
    names = [str(i) for i, m in enumerate(model) if isinstance(m, nn.Conv2d)]
    network = nn.Sequential(*list(model)[1:])
    inputs = model[0](images.float()).requires_grad_()
    rules = [([str(int(name) - 1)], Flat() if name == names[2] else Epsilon(EPSILON)) for name in names]
    rules.append(([str(len(network) - 1)], Epsilon(EPSILON)))
    rules.append(([str(i) for i, m in enumerate(network) if isinstance(m, nn.ReLU)], Pass()))
    with NameMapComposite(rules).context(network) as modified:
        output = modified(inputs)
        (theirs,) = torch.autograd.grad(output, inputs, torch.eye(output.shape[1])[targets] * output.detach())
    propagate = Propagator(model, composite("epsilon", {names[2]: "flat"}))
    ours = propagate(images, targets)
    assert not propagate.rectified
    assert Propagator(model, COMPOSITES["epsilon"]).rectified
    assert error(ours.values, theirs) < 1e-4
    assert_account_closes(ours)
