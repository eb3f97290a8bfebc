"""The layers of an 8-bit forward: int8 weights and uint8 activations, through oneDNN's operators (see `quantized`)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iic.classifiers.networks import Normalize

FULL = 255  # the largest number


class QuantizedConvolution(nn.Module):
    """Convolution and ReLU from uint8 to uint8, x = scale * number; between them something of scale `added_scale` may
    be added.

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
        """Shift the bias: each filter's mean output, before ReLU, becomes that of `wanted`; x uint8, its own inputs.

        `wanted` is without what is added.
        """
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

    def forward(self, x: Tensor, added: Tensor | None = None, added_scale: float = 1.0) -> Tensor:
        given = (x, self.scale, 0, self.packed, self.weight_scale, self.zeros)
        output = (self.bias, *self.options, self.output_scale, 0, torch.uint8)
        if added is None:
            return torch.ops.onednn.qconv2d_pointwise(*given, *output, "relu", [], "")
        added = added.clone(memory_format=torch.channels_last)  # the operator writes into it
        return torch.ops.onednn.qconv2d_pointwise.binary(
            *given, added, *output, added_scale, 0, "sum", 1.0, "relu", [], ""
        )


class QuantizedResidual(nn.Module):
    """Convolutions and ReLUs from uint8 to uint8, the last of which adds the first one's input before its ReLU."""

    def __init__(self, convolutions: Sequence[QuantizedConvolution]) -> None:
        super().__init__()
        self.path = nn.Sequential(*convolutions[:-1])
        self.last = convolutions[-1]
        self.scale = convolutions[0].scale

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.path(x), x, self.scale)


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
        biases = [bias - FULL * below for below in range(numbers_each)]
        # every number's filters are computed anew: cutting one result up takes longer
        self.layer.out_channels *= numbers_each
        # of one channel, the weights' layout decides the outputs': the next layer would copy them into channels_last
        filters = weight.float().repeat(numbers_each, 1, 1, 1).to(memory_format=torch.channels_last)
        self.layer.weight = nn.Parameter(filters, requires_grad=False)
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


def _pads_nothing(layer: nn.Conv2d) -> bool:
    return layer.padding == "valid" or all(side == 0 for side in layer.padding)


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
