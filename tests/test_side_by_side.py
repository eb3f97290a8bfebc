"""Images side by side: the convolution is torch's own, and so are its gradients, whatever the number of images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from iic.classifiers import side_by_side
from iic.classifiers.networks import build_network
from iic.classifiers.side_by_side import ABREAST, SideBySide, abreast, apart, can_lie_side_by_side, pays
from iic.classifiers.training import pool_early


@pytest.fixture
def everywhere(monkeypatch):
    """Side by side on any machine and in any precision: AMX only makes it worth while."""
    monkeypatch.setattr(side_by_side, "pays", lambda x: True)


@pytest.mark.parametrize("count", [1, ABREAST, ABREAST + 1, 117])
@pytest.mark.parametrize("sides", [(3, 3), (7, 7), (4, 6)])
def test_convolution_and_gradients_are_those_of_the_convolution(everywhere, count, sides):
    torch.manual_seed(0)
    convolution = nn.Conv2d(5, 4, 3, padding=1, dtype=torch.float64)
    start, gradient = (torch.randn(count, channels, *sides, dtype=torch.float64) for channels in (5, 4))
    found = []
    for module in (convolution, SideBySide(convolution)):
        x = start.clone().requires_grad_()
        convolution.zero_grad()
        output = module(x)
        output.backward(gradient)
        found.append((output.detach(), x.grad, convolution.weight.grad.clone(), convolution.bias.grad.clone()))
    for wanted, other in zip(*found, strict=True):
        assert torch.allclose(wanted, other, rtol=0, atol=1e-10)


@given(st.integers(1, 3 * ABREAST), st.integers(1, 9), st.integers(1, 9))
def test_what_is_laid_side_by_side_comes_back(count, height, width):
    images = torch.arange(count * 2 * height * width).view(count, 2, height, width)
    wide = abreast(images)
    assert torch.equal(apart(wide, count), images)
    assert wide.sum() == images.sum()  # and what is between them is blank


def test_only_convolutions_with_one_pixel_of_padding_lie_side_by_side():
    assert can_lie_side_by_side(nn.Conv2d(2, 2, 3, padding=1))
    wider = {"kernel_size": 5, "padding": 2}
    others = (wider, {"padding": 0}, {"padding_mode": "reflect"}, {"stride": 2}, {"dilation": 2})
    usual = {"kernel_size": 3, "padding": 1}
    assert not any(can_lie_side_by_side(nn.Conv2d(2, 2, **{**usual, **other})) for other in others)
    assert not can_lie_side_by_side(nn.ReLU())


def test_it_pays_for_many_channels_on_small_maps_in_bfloat16_with_amx_only(monkeypatch):
    small = torch.zeros(4, 128, 7, 7, dtype=torch.bfloat16)
    for amx in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert pays(small) is amx
        assert not any(map(pays, (small.float(), small[:, :64], small[:1], small.repeat(1, 1, 1, 2))))


def test_the_training_copy_of_a_network_computes_the_same_side_by_side(everywhere):
    torch.manual_seed(0)
    model = build_network([100.0], [50.0], (4, 8, 8)).eval()
    x = torch.rand(30, 1, 28, 28) * 255
    assert any(isinstance(module, SideBySide) for module in pool_early(model))
    assert torch.allclose(pool_early(model)(x), model(x), rtol=1e-5, atol=1e-6)
