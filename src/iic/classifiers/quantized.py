"""An 8-bit forward for CPUs with VNNI: the frozen network's convolutions in int8 weights and uint8 activations.

Post-training quantisation (Jacob et al. 2018, arXiv 1712.05877): one scale for each filter, one for each activation,
taken from sample images, on which every filter's mean output is then put right: rounding shifts it, and what is shifted
alike for all images is what explanations would see (Nagel et al. 2019, arXiv 1906.04721, section 4.2). The whitening
convolution and the last layer stay float32: the first has filters whose outputs are small differences of large numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iic.classifiers.networks import Normalize, Residual
from iic.classifiers.quantized_layers import (
    FULL,
    Dequantize,
    FirstConvolution,
    QuantizedConvolution,
    QuantizedPool,
    QuantizedResidual,
)

LARGEST = 0.99999  # quantile of an activation that still gets a number of its own; what is larger is cut off
TYPICAL = 64  # images of a batch that weights are packed for
FINER = 2  # numbers that hold each output of the whitening convolution where one is too coarse
COARSE = 0.02  # error of the sample's probabilities, in their spread between images, from which on one is


def can_quantize(model: nn.Module) -> bool:
    """Whether this CPU has VNNI, this torch the operators, and the frozen network the form of `build_network`'s."""
    operators = hasattr(torch.ops.onednn, "qconv2d_pointwise") and hasattr(torch.ops.onednn, "qconv_prepack")
    if not (operators and torch.cpu._is_vnni_supported() and type(model) is nn.Sequential):
        return False
    head, body, tail = model[:3], model[3:-2], model[-2:]
    return (
        [type(module) for module in head] == [Normalize, nn.Conv2d, nn.ReLU]
        and [type(module) for module in tail] == [nn.Flatten, nn.Linear]
        and all(type(module) is Residual or _has_operator(module) for module in body)
        and all(_is_path(module.path) for module in body if type(module) is Residual)
        and _ends_in_relu([*body, tail[0]])
    )


def _is_path(layers: Sequence[nn.Module]) -> bool:
    """Whether a sum's layers are convolutions, with a ReLU behind each but the last: the sum's own comes after it."""
    kinds = [type(module) for module in layers]
    return kinds == [nn.Conv2d, nn.ReLU] * (len(kinds) // 2) + [nn.Conv2d] and all(map(_has_operator, layers))


def _ends_in_relu(layers: Sequence[nn.Module]) -> bool:
    """Whether a ReLU follows every convolution and every sum."""
    return all(type(after) is nn.ReLU for layer, after in pairwise(layers) if type(layer) in (nn.Conv2d, Residual))


def _has_operator(module: nn.Module) -> bool:
    """Whether 8-bit operators know the layer and its options: borders of zeros, windows that fit in."""
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) is nn.ReLU or (type(module) is nn.MaxPool2d and not module.ceil_mode)


@torch.no_grad()
def quantize(model: nn.Sequential, sample: Tensor) -> nn.Sequential:
    """The frozen network in 8 bits.

    Each output of the first convolution is one number, or two where the sample's probabilities would else be off by
    more than COARSE. (Drawing 1,000 masks leaves 7 to 25 % of an explanation open.)

    Args:
        model: from `freeze` in float32; `can_quantize(model)` holds.
        sample: pixels 0..255 (N, C, H, W) like those that it will see, perturbed ones among them.

    Returns:
        logits float32 (N, classes) from the same pixels.
    """
    pixels = sample.float().contiguous(memory_format=torch.channels_last)
    reader = _reader(model)
    found = _quantized(model, pixels, 1)
    if not (isinstance(reader, nn.Conv2d) and reader.groups == 1) or _error(found, model, pixels) <= COARSE:
        return found
    return _quantized(model, pixels, FINER)


def _error(found: nn.Module, model: nn.Module, pixels: Tensor) -> float:
    """Root mean square of what the probabilities are off by, in units of their spread between the images."""
    exact = model(pixels).softmax(1)
    return float((found(pixels).softmax(1) - exact).norm() / (exact - exact.mean(0)).norm().clamp(min=1e-12))


def _reader(model: nn.Sequential) -> nn.Module | None:
    """What reads the first convolution's outputs, if it has weights."""
    return next((module for module in model[3:-2] if isinstance(module, nn.Conv2d | Residual)), None)


def _quantized(model: nn.Sequential, pixels: Tensor, numbers_each: int) -> nn.Sequential:
    """`quantize` with so many numbers for each output of the first convolution."""
    x = model[:3](pixels)  # as float32 has it
    body = model[3:-2]
    reader = _reader(model)
    scale = _scale(x) / numbers_each
    layers: list[nn.Module] = [FirstConvolution(model[0], model[1], scale, numbers_each)]
    numbers = layers[0](pixels)  # as 8 bits have it
    for module in body:
        before, x = x, module(x)
        if isinstance(module, nn.Conv2d):
            read = _reading(module, numbers_each) if module is reader else module
            layers.append(_convolution(read, numbers, scale, x))
            scale = layers[-1].output_scale
        elif isinstance(module, Residual):
            layers.append(_residual(module, numbers, scale, before))
            scale = layers[-1].last.output_scale
        elif isinstance(module, nn.MaxPool2d):
            layers.append(QuantizedPool(module))
        else:  # ReLU is in the convolution before
            continue
        numbers = layers[-1](numbers)
    last = Dequantize(scale)
    return nn.Sequential(*layers, last, model[-2], _corrected(model[-1], (x - last(numbers)).flatten(1).mean(0))).eval()


def _convolution(
    layer: nn.Conv2d, numbers: Tensor, scale: float, wanted: Tensor, total: Tensor | None = None
) -> QuantizedConvolution:
    """The layer for inputs like `numbers`, uint8 of this scale.

    `wanted` is its outputs in float32, before ReLU; `total` the same with what is added to them, if something is.
    """
    output_scale = _scale(F.relu(wanted if total is None else total))
    quantized = QuantizedConvolution(layer, scale, output_scale, (TYPICAL, *numbers.shape[1:]))
    quantized.correct(numbers, wanted)
    return quantized


def _residual(module: Residual, numbers: Tensor, scale: float, x: Tensor) -> QuantizedResidual:
    """The sum for inputs like `numbers`, uint8 of this scale; x: the same in float32."""
    path: list[QuantizedConvolution] = []
    inner, inner_scale, exact, last = numbers, scale, x, module.path[-1]
    for layer in module.path[:-1]:
        exact = layer(exact)
        if isinstance(layer, nn.Conv2d):
            path.append(_convolution(layer, inner, inner_scale, exact))
            inner, inner_scale = path[-1](inner), path[-1].output_scale
    total = x + last(exact)
    # what is added is rounded too: the last convolution is to give all that the numbers lack
    path.append(_convolution(last, inner, inner_scale, total - numbers.float() * scale, total))
    return QuantizedResidual(path)


def _reading(layer: nn.Conv2d, numbers_each: int) -> nn.Conv2d:
    """The layer with the same weights for each of the numbers that an input channel is the sum of."""
    layer = copy.deepcopy(layer)
    layer.in_channels *= numbers_each
    layer.weight = nn.Parameter(layer.weight.repeat(1, numbers_each, 1, 1), requires_grad=False)
    return layer


def _corrected(layer: nn.Linear, missing: Tensor) -> nn.Linear:
    """The layer with what its inputs lack on average, (inputs,), in its bias."""
    layer = copy.deepcopy(layer)
    shift = layer.weight @ missing
    layer.bias = nn.Parameter(shift if layer.bias is None else layer.bias + shift, requires_grad=False)
    return layer


def _scale(activation: Tensor) -> float:
    """The step between two numbers, for an activation >= 0."""
    rank = max(1, round((1 - LARGEST) * activation.numel()))
    return max(activation.flatten().topk(rank).values[-1].item(), 1e-6) / FULL
