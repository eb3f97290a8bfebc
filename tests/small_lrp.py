"""A small network and how its relevance is looked at, for the tests of LRP."""

import torch
from torch import nn

from iic.classifiers.inference import freeze
from iic.classifiers.networks import build_network


def stir(model: nn.Module) -> nn.Module:
    """BatchNorm as after training: statistics and biases that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, std=0.3)
    return model.eval()


def frozen_network():
    """The network, frozen, and six images."""
    torch.manual_seed(0)
    model = stir(build_network([120.0, 110.0, 100.0], [60.0, 60.0, 60.0], widths=(8, 12, 16)))
    nn.init.normal_(model[-1].weight)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    return freeze(model), images


def error(ours, theirs) -> float:
    return float(((ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).max())


def assert_account_closes(found):
    account = found.account()
    total = account["input"] + account["bias"] + account["epsilon"]
    torch.testing.assert_close(total, found.explained.double(), rtol=1e-4, atol=1e-4)
