import numpy as np
import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from torch import nn
from zennit.composites import EpsilonPlusFlat

from iic.classifiers.inference import freeze, logits
from iic.classifiers.networks import build_network
from iic.errors import UserError
from iic.explainers.lrp import EPSILON, epsilon_rule, plus_rule, relevance


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    model = build_network([120.0, 110.0, 100.0], [60.0, 60.0, 60.0], widths=(8, 12, 16))
    for module in model:  # BatchNorm as after training: statistics and biases that matter
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, std=0.3)
    nn.init.normal_(model[-1].weight)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    return freeze(model), images


def test_it_is_zennits_composite(frozen):
    model, images = frozen
    inputs = model[0](images.float()).requires_grad_()  # zennit explains from the normalised pixels on
    network = nn.Sequential(*list(model)[1:])
    targets = logits(model, images).argmax(1)
    with EpsilonPlusFlat(epsilon=EPSILON, stabilizer=EPSILON).context(network) as modified:
        output = modified(inputs)
        (theirs,) = torch.autograd.grad(output, inputs, torch.eye(10)[targets] * output.detach())
    ours, _ = relevance(model, images, targets)
    error = (ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
    assert error.max() < 1e-4


def test_rules_are_captums():
    torch.manual_seed(1)
    inputs = torch.rand(4, 3, 8, 8)
    lower, upper = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.Conv2d(5, 4, 8, bias=False)
    network = nn.Sequential(
        lower, nn.ReLU(), upper
    )  # captum knows no Flatten: a convolution stands for the dense layer
    lower.rule = Alpha1_Beta0_Rule(set_bias_to_zero=True)
    upper.rule = EpsilonRule(epsilon=EPSILON)
    theirs = LRP(network).attribute(inputs.clone().requires_grad_(), target=(2, 0, 0))
    with torch.no_grad():
        hidden = network[:2](inputs)
        flow = torch.zeros(4, 4, 1, 1)
        flow[:, 2] = upper(hidden)[:, 2]
    ours = plus_rule(lower, inputs, epsilon_rule(upper, hidden, flow))
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-4, rtol=1e-3)


def test_without_biases_all_relevance_arrives(frozen):
    model, images = frozen
    bare = freeze(model)
    for module in bare:
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    flow, leak = relevance(bare, images, torch.zeros(6, dtype=torch.int64))
    assert leak.abs().max() < 1e-3
    torch.testing.assert_close(flow.sum((1, 2, 3)), logits(bare, images)[:, 0], rtol=1e-3, atol=1e-4)


def test_a_layer_without_a_rule_is_named(frozen):
    with pytest.raises(UserError, match=r"layer 1 \(GELU\)"):
        relevance(nn.Sequential(nn.Flatten(), nn.GELU()), torch.zeros(1, 1, 2, 2), torch.tensor([0]))


def test_maps_do_not_depend_on_the_other_images(frozen):
    model, images = frozen
    targets = logits(model, images).argmax(1)
    together, _ = relevance(model, images, targets)
    alone = torch.cat([relevance(model, images[i : i + 1], targets[i : i + 1])[0] for i in range(6)])
    assert np.allclose(together, alone, atol=1e-4 * float(together.abs().max()))
