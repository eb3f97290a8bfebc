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

from iic.classifiers.networks import Normalize

LARGEST = 0.99999  # quantile of an activation that still gets a number of its own; what is larger is cut off
TYPICAL = 64  # images of a batch that weights are packed for
FULL = 255  # the largest number
FINER = 2  # numbers that hold each output of the whitening convolution


class QuantizedConvolution(nn.Module):
    """Convolution and ReLU from uint8 to uint8, x = scale * number.

    `shape` is that of a typical input, (N, C, H, W): weights are packed for it once. Without it oneDNN guesses, and
    where it guesses wrong it packs the weights anew in every forward, which costs more than the convolution.
    """

    def __init__(self, layer: nn.Conv2d, scale: float, output_scale: float, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = list(shape)
        self.options = [list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups]
        weight = layer.weight.detach().float()
        self.weight_scale = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
        self.numbers = (weight / self.weight_scale.view(-1, 1, 1, 1)).round().to(torch.int8)
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = None if layer.bias is None else layer.bias.detach().float()
        self.scale, self.output_scale = scale, output_scale
        self._pack()

    def _pack(self) -> None:
        self.packed = torch.ops.onednn.qconv_prepack(
            self.numbers, self.weight_scale, self.scale, 0, *self.options, self.shape
        )

    def correct(self, x: Tensor, wanted: Tensor) -> None:
        """Shift the bias: each filter's mean output, before ReLU, becomes that of `wanted`; x uint8, its own inputs."""
        weight = self.numbers.float() * self.weight_scale.view(-1, 1, 1, 1)
        found = F.conv2d(x.float() * self.scale, weight, self.bias, *self.options)
        shift = (wanted - found).mean((0, 2, 3))
        self.bias = shift if self.bias is None else self.bias + shift

    def __getstate__(self) -> dict:
        """Without the packed weights, whose layout belongs to this machine."""
        return {**self.__dict__, "packed": None}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._pack()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.onednn.qconv2d_pointwise(
            x,
            self.scale,
            0,
            self.packed,
            self.weight_scale,
            self.zeros,
            self.bias,
            *self.options,
            self.output_scale,
            0,
            torch.uint8,
            "relu",
            [],
            "",
        )


class QuantizedPool(nn.Module):
    """MaxPool2d of uint8. 2 x 2 by maxima of rows, then of columns: torch's takes ten times as long for 16 channels."""

    def __init__(self, layer: nn.MaxPool2d) -> None:
        super().__init__()
        self.options = [_pair(v) for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)]
        self.halves = self.options == [[2, 2], [2, 2], [0, 0], [1, 1]] and not layer.ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        if not self.halves:
            return torch.ops.quantized.max_pool2d(x, *self.options, False)
        height, width = (side // 2 * 2 for side in x.shape[2:])
        rows = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
        return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


class FirstConvolution(nn.Module):
    """A float32 convolution and ReLU to uint8: the scale is in its weights, and half a step, to round, in its bias.

    So is the normalisation before it, if it pads nothing: at a padded border, normalised zeros are not black pixels.

    Each output may be the sum of several numbers, in channels that are as many apart as there are filters: what exceeds
    the first is in the second. Then steps are so much smaller. Whitened pixels reach far beyond their typical size, and
    rounding them is nine tenths of what 8 bits cost (docs/decisions.md).
    """

    def __init__(self, normalize: Normalize, layer: nn.Conv2d, output_scale: float, numbers_each: int = 1) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        weight, bias = layer.weight.double() / output_scale, torch.full([len(layer.weight)], 0.5, dtype=torch.float64)
        if layer.bias is not None:
            bias += layer.bias.double() / output_scale
        self.normalize: nn.Module = normalize
        if _pads_nothing(layer):
            self.normalize = nn.Identity()
            weight = weight / normalize.std.double()
            bias -= (weight * normalize.mean.double()).sum((1, 2, 3))
        biases = [
            bias - FULL * below for below in range(numbers_each)
        ]  # computed anew: cutting one result up takes longer
        self.layer.out_channels *= numbers_each
        self.layer.weight = nn.Parameter(weight.float().repeat(numbers_each, 1, 1, 1), requires_grad=False)
        self.layer.bias = nn.Parameter(torch.cat(biases).float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        numbers = self.layer(self.normalize(x)).clamp_(0, FULL)
        return numbers.to(torch.int16).to(torch.uint8)  # cuts the fraction off; straight to uint8 takes twice as long


class Dequantize(nn.Module):
    """uint8 to float32."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x.float() * self.scale


def can_quantize(model: nn.Module) -> bool:
    """Whether this CPU has VNNI, this torch the operators, and the frozen network the form of `build_network`'s."""
    operators = hasattr(torch.ops.onednn, "qconv2d_pointwise") and hasattr(torch.ops.onednn, "qconv_prepack")
    if not (operators and torch.cpu._is_vnni_supported() and type(model) is nn.Sequential):
        return False
    head = [type(module) for module in model[:3]]
    body = [type(module) for module in model[3:-2]]
    return (
        head == [Normalize, nn.Conv2d, nn.ReLU]
        and [type(module) for module in model[-2:]] == [nn.Flatten, nn.Linear]
        and all(kind in (nn.Conv2d, nn.ReLU, nn.MaxPool2d) for kind in body)
        and all(_has_operator(module) for module in model[3:-2])
        and all(following is nn.ReLU for kind, following in pairwise([*body, nn.Flatten]) if kind is nn.Conv2d)
    )


def _has_operator(module: nn.Module) -> bool:
    """Whether the layer's options are among those of the 8-bit operators: borders of zeros, windows that fit in."""
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return not (isinstance(module, nn.MaxPool2d) and module.ceil_mode)


@torch.no_grad()
def quantize(model: nn.Sequential, sample: Tensor) -> nn.Sequential:
    """The frozen network in 8 bits.

    Args:
        model: from `freeze` in float32; `can_quantize(model)` holds.
        sample: pixels 0..255 (N, C, H, W) like those that it will see, perturbed ones among them.

    Returns:
        logits float32 (N, classes) from the same pixels.
    """
    pixels = sample.float().contiguous(memory_format=torch.channels_last)
    x = model[:3](pixels)  # as float32 has it
    reader = next((module for module in model[3:-2] if isinstance(module, nn.Conv2d)), None)
    numbers_each = FINER if reader is not None and reader.groups == 1 else 1
    scale = _scale(x) / numbers_each
    layers: list[nn.Module] = [FirstConvolution(model[0], model[1], scale, numbers_each)]
    numbers = layers[0](pixels)  # as 8 bits have it
    for module in model[3:-2]:
        shape, x = (TYPICAL, *numbers.shape[1:]), module(x)
        if isinstance(module, nn.Conv2d):
            output_scale = _scale(F.relu(x))
            read = _reading(module, numbers_each) if module is reader else module
            layers.append(QuantizedConvolution(read, scale, output_scale, shape))
            layers[-1].correct(numbers, x)
            scale = output_scale
        elif isinstance(module, nn.MaxPool2d):
            layers.append(QuantizedPool(module))
        else:  # ReLU is in the convolution before
            continue
        numbers = layers[-1](numbers)
    last = Dequantize(scale)
    return nn.Sequential(*layers, last, model[-2], _corrected(model[-1], (x - last(numbers)).flatten(1).mean(0))).eval()


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
    return max(activation.flatten().topk(rank).values[-1].item(), 1e-6) / 255


def _pads_nothing(layer: nn.Conv2d) -> bool:
    return layer.padding == "valid" or all(side == 0 for side in layer.padding)


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
