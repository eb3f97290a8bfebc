"""Networks that a method would quietly explain as something else are refused, by the layer's name."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from iic.classifiers.inference import freeze
from iic.errors import UserError
from iic.explainers.gradients import last_spatial
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


class Standardised(nn.Conv2d):
    """Its weights are made as it runs (Qiao et al. 2019, arXiv 1903.10520): not those that a rule would read."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight / self.weight.std((1, 2, 3), keepdim=True), self.bias)


class Tripled(nn.Linear):
    def forward(self, x):
        return 3 * super().forward(x)


class Rectified(nn.ReLU):
    pass


class Normed(nn.BatchNorm2d):
    pass


def deeper(**changed):
    layers = {
        "convolution": nn.Conv2d(1, 3, 3),
        "norm": nn.BatchNorm2d(3),
        "activation": nn.ReLU(),
        "flat": nn.Flatten(),
        "dense": nn.Linear(3 * 36, 4),
    }
    return freeze(nn.Sequential(*(layers | changed).values()))


@pytest.mark.parametrize(
    ("changed", "method", "said"),
    [
        ({"convolution": Standardised(1, 3, 3)}, "lrp", r"layer 0 \(Standardised, derived from Conv2d\)"),
        ({"convolution": Standardised(1, 3, 3)}, "deeplift", r"layer 0 \(Standardised, derived from Conv2d\)"),
        ({"dense": Tripled(108, 4)}, "lrp_epsilon", r"\(Tripled, derived from Linear\)"),
        ({"norm": Normed(3)}, "lrp", r"is no plain BatchNorm \(Normed, derived from BatchNorm2d\)"),
        ({"activation": Rectified()}, "lrp", r"\(Rectified, derived from ReLU\)"),
        ({"activation": Rectified()}, "deeplift", r"\(Rectified, derived from ReLU\)"),
        ({"convolution": weight_norm(nn.Conv2d(1, 3, 3))}, "lrp", r"layer 0 \(ParametrizedConv2d, derived from Conv2d"),
        ({"dense": spectral_norm(nn.Linear(108, 4))}, "lrp", r"\(ParametrizedLinear, derived from Linear\)"),
    ],
)
def test_a_layer_of_a_derived_class_is_refused_by_name(changed, method, said):
    with pytest.raises(UserError, match=said):
        check_network(deeper(**changed), [method])


def test_derived_classes_that_do_a_method_no_harm_are_explained():
    """Grad-CAM looks at a layer's outputs only, and Captum changes the gradient of every kind of ReLU."""
    check_network(deeper(convolution=Standardised(1, 3, 3)), ["grad_cam"])
    assert isinstance(last_spatial(deeper(convolution=Standardised(1, 3, 3))), nn.ReLU)
    check_network(deeper(activation=Rectified()), ["guided_backprop"])


class ByKeyword(nn.Module):
    def __init__(self, convolution, flatten):
        super().__init__()
        self.convolution, self.flatten, self.dense = nn.Conv2d(1, 3, 3), flatten, nn.Linear(3 * 36, 4)
        self.call = convolution

    def forward(self, x):
        return self.dense(self.flatten(self.call(self.convolution, x)))


@pytest.mark.parametrize(
    ("convolution", "flatten", "name"),
    [
        (lambda layer, x: layer(input=x), nn.Flatten(), "convolution"),
        (lambda layer, x: layer(x), lambda x: torch.flatten(input=x, start_dim=1), "flatten"),
        (lambda layer, x: torch.relu(input=layer(x)), nn.Flatten(), "relu"),
    ],
)
def test_an_input_by_keyword_is_refused(convolution, flatten, name):
    with pytest.raises(UserError, match=f"Layer {name} gets its input by keyword"):
        check_network(ByKeyword(convolution, flatten).eval(), ["lrp"])


def test_sizes_of_a_pool_may_be_lists():
    torch.manual_seed(0)
    images, targets = 255 * torch.rand(2, 1, 8, 8), torch.tensor([1, 3])
    layers = nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(27, 4)
    found = [
        Propagator(nn.Sequential(layers[0], nn.MaxPool2d(size), *layers[1:]).eval())(images, targets).values
        for size in (2, (2, 2), [2, 2])
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


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
