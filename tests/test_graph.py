"""Networks that a method would quietly explain as something else are refused, by the layer's name."""

import pytest
import torch
from torch import nn

from iic.errors import UserError
from iic.explainers.graph import check_hooks, traced
from iic.explainers.lrp import Propagator
from iic.explainers.methods import check_network


class Shared(nn.Module):
    """One convolution, called twice: before a norm each, or before one and bare."""

    def __init__(self, norms):
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3) if norms == 2 else nn.Identity()
        self.relu, self.flat, self.last = nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 4)

    def forward(self, x):
        return self.last(self.flat(self.relu(self.first(self.convolution(x)) + self.second(self.convolution(x)))))


@pytest.mark.parametrize("norms", [1, 2])
def test_a_convolution_that_is_called_twice_is_not_folded_into(norms):
    with pytest.raises(UserError, match="Layer first is a BatchNorm without a convolution of its own before it"):
        check_network(Shared(norms).eval(), ["lrp"])


def chain(activation, *norm):
    return nn.Sequential(nn.Conv2d(1, 3, 3), *norm, activation, nn.Flatten(), nn.Linear(3 * 36, 4)).eval()


def test_folding_changes_no_logit():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            values.uniform_(0.5, 2)
    model, x = chain(nn.ReLU(), norm), torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(traced(model)(x), model(x))


def test_a_norm_without_statistics_is_refused():
    with pytest.raises(UserError, match="Layer 1 is a BatchNorm without running statistics"):
        traced(chain(nn.ReLU(), nn.BatchNorm2d(3, track_running_stats=False)))


@pytest.mark.parametrize(
    ("method", "activation", "refused"),
    [
        ("guided_backprop", nn.ReLU(), False),
        ("guided_backprop", nn.GELU(), True),
        ("guided_backprop", nn.LeakyReLU(), True),
        ("deeplift", nn.GELU(), True),
        ("deeplift", nn.LeakyReLU(), False),
        ("grad_cam", nn.GELU(), False),
    ],
)
def test_activations_that_a_method_has_no_rule_for_are_refused(method, activation, refused):
    model = chain(activation)
    if not refused:
        check_hooks(model, method)
        return
    with pytest.raises(UserError, match=rf"{method} has no rule for layer 1 \({type(activation).__name__}\)"):
        check_hooks(model, method)


def test_grad_cam_needs_a_convolution_before_work_starts():
    with pytest.raises(UserError, match="Grad-CAM needs a convolution"):
        check_network(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), ["lime", "grad_cam"])


class Spelled(nn.Module):
    """A chain whose activations and flattening are methods of a tensor, or functions by another name."""

    def __init__(self, layers, relu, flatten):
        super().__init__()
        self.first, self.second, self.last = layers
        self.relu, self.flatten = relu, flatten

    def forward(self, x):
        x = self.relu(self.first(x))
        return self.last(self.flatten(self.relu(self.second(x).add(x))))


@pytest.mark.parametrize("relu", [lambda x: x.relu(), torch.relu, nn.functional.relu])
@pytest.mark.parametrize("flatten", [lambda x: x.flatten(1), lambda x: torch.flatten(x, 1)])
def test_lrp_knows_a_layer_however_it_is_spelled(relu, flatten):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3 * 36, 4)
    images, targets = 255 * torch.rand(5, 1, 8, 8), torch.arange(5) % 4
    usual = Propagator(Spelled(layers, nn.ReLU(), nn.Flatten()).eval())
    found = Propagator(Spelled(layers, relu, flatten).eval())
    torch.testing.assert_close(found(images, targets).values, usual(images, targets).values)
