"""Layer-wise Relevance Propagation (Bach et al. 2015; rules as in Montavon et al. 2019) on a frozen sequential network.

Composite `epsilon_plus_flat` (Kohlbrenner et al. 2020): epsilon rule in linear layers, z-plus in convolutions, flat in
the first convolution. The normalisation passes relevance through unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iic.classifiers.networks import Cast, Normalize
from iic.errors import UserError

EPSILON = 1e-6
PASS = (Normalize, Cast, nn.ReLU)


def _stabilise(z: Tensor) -> Tensor:
    return z + torch.where(z >= 0, EPSILON, -EPSILON)


def _redistribute(contribution: Callable[[Tensor], Tensor], inputs: Tensor, relevance: Tensor) -> Tensor:
    """inputs * d contribution / d inputs, applied to relevance over contribution: the common form of the rules."""
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        z = contribution(leaf)
        (gradient,) = torch.autograd.grad(z, leaf, relevance / _stabilise(z.detach()))
    return leaf.detach() * gradient


def _convolve(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def epsilon_rule(layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    """Shares in proportion to x w, the stabiliser and the bias keeping theirs; for dense layers."""
    return _redistribute(layer, inputs, relevance)


def plus_rule(layer: nn.Conv2d, inputs: Tensor, relevance: Tensor) -> Tensor:
    """Shares in proportion to the positive x w, for convolutions after a ReLU (x >= 0)."""
    weight = layer.weight.clamp(min=0)
    bias = None if layer.bias is None else layer.bias.clamp(min=0)
    return _redistribute(lambda x: _convolve(layer, x, weight, bias), inputs, relevance)


def flat_rule(layer: nn.Conv2d, inputs: Tensor, relevance: Tensor) -> Tensor:
    """Equal shares over the receptive field, for the layer on the pixels."""
    weight = torch.ones_like(layer.weight)
    return _redistribute(lambda x: _convolve(layer, x, weight, None), torch.ones_like(inputs), relevance)


def winner_rule(layer: nn.MaxPool2d, inputs: Tensor, relevance: Tensor) -> Tensor:
    """All of a maximum's relevance to the input that was the maximum."""
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        (routed,) = torch.autograd.grad(layer(leaf), leaf, relevance)
    return routed


def check_layers(model: nn.Module) -> None:
    """Raise UserError, naming the layer, if there is one that no rule covers."""
    if not isinstance(model, nn.Sequential):
        raise UserError(
            f"LRP goes through the layers of an nn.Sequential, and this network is a {type(model).__name__}: "
            "explain it with the other methods (IIC_METHODS=lime,kernel_shap,random,sobel)."
        )
    for number, layer in enumerate(model):
        if not isinstance(layer, (*PASS, nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.Flatten)):
            raise UserError(
                f"LRP has no rule for layer {number} ({type(layer).__name__}): fold BatchNorm with freeze(), "
                "or explain this network with the other methods (IIC_METHODS=lime,kernel_shap,random,sobel)."
            )


@torch.no_grad()
def relevance(model: nn.Sequential, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of each pixel for the logit of each image's target class.

    Args:
        model: from `freeze`.
        images: uint8 or float (N, C, H, W), pixels 0..255.
        targets: int64 (N,).

    Returns:
        relevance (N, C, H, W), and the share of the logit that did not arrive at the pixels, (N,): what biases and the
        stabiliser kept.
    """
    check_layers(model)
    inputs, activation = [], images.float()
    for layer in model:
        inputs.append(activation)
        activation = layer(activation)
    explained = activation.gather(1, targets[:, None])
    flow = torch.zeros_like(activation).scatter(1, targets[:, None], explained)
    first = next(number for number, layer in enumerate(model) if isinstance(layer, nn.Conv2d | nn.Linear))
    for number in reversed(range(len(model))):
        flow = _rule(model[number], first=number == first)(model[number], inputs[number], flow)
    return flow, 1 - flow.sum((1, 2, 3)) / explained[:, 0]


def _rule(layer: nn.Module, *, first: bool) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    if isinstance(layer, nn.Conv2d):
        return flat_rule if first else plus_rule
    if isinstance(layer, nn.Linear):
        return epsilon_rule
    if isinstance(layer, nn.MaxPool2d):
        return winner_rule
    return lambda _layer, inputs, flow: flow.reshape(inputs.shape)  # Normalize, ReLU, Flatten
