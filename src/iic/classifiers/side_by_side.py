"""Convolutions of small maps, for training on a CPU with AMX: many images side by side in one wide map.

AMX takes 16 neighbouring pixels of a row at once. A map 7 or 3 pixels wide leaves most of these places idle; images
laid side by side, with a blank column between them that stands for the padding, fill them. Function and gradients are
the same. What it gains: docs/results.md, "Training".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDE_ENOUGH = 9  # pixels a row from which a map is convolved as it is
MANY = 128  # channels from which laying side by side costs less than it gains
ABREAST = 25  # images side by side, at most


class SideBySide(nn.Module):
    """A 3x3 convolution with one pixel of padding that takes small maps in bfloat16 side by side, where that pays."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        if not pays(x):
            return self.convolution(x)
        return _Apart.apply(self.convolution(_Abreast.apply(x)), len(x))  # (N, out, H, W)


def pays(x: Tensor) -> bool:
    """Whether images (N, C, H, W) are convolved faster side by side."""
    small = x.shape[-1] < WIDE_ENOUGH and x.shape[1] >= MANY and len(x) > 1
    here = x.device.type == "cpu" and x.dtype == torch.bfloat16
    return small and here and torch.cpu._is_amx_tile_supported()


def can_lie_side_by_side(module: nn.Module) -> bool:
    """Whether a module is a convolution for which one blank column is what its padding would be."""
    return (
        type(module) is nn.Conv2d  # a derived class may compute something else
        and (module.kernel_size, module.padding, module.stride) == ((3, 3), (1, 1), (1, 1))
        and (module.dilation, module.padding_mode) == ((1, 1), "zeros")
    )


def abreast(x: Tensor) -> Tensor:
    """Images (N, C, H, W) side by side: (R, C, H, K (W + 1)), R rows of K images, blank where there is none."""
    count, channels, height, width = x.shape
    rows = -(-count // ABREAST)
    columns = -(-count // rows)
    wide = x.new_zeros(rows * columns, height, width + 1, channels)
    wide[:count, :, :width] = x.permute(0, 2, 3, 1)
    wide = wide.view(rows, columns, height, width + 1, channels).transpose(1, 2).reshape(rows, height, -1, channels)
    return wide.permute(0, 3, 1, 2)


def apart(wide: Tensor, count: int) -> Tensor:
    """The first `count` images of what `abreast` made, channels last: (N, C, H, W)."""
    columns = -(-count // len(wide))
    images = wide.permute(0, 2, 3, 1).unflatten(2, (columns, -1)).transpose(1, 2).flatten(0, 1)  # (R K, H, W + 1, C)
    return images[:count, :, :-1].permute(0, 3, 1, 2)


class _Abreast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.count = len(x)
        return abreast(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return apart(gradient, ctx.count)


class _Apart(torch.autograd.Function):
    @staticmethod
    def forward(ctx, wide: Tensor, count: int) -> Tensor:
        return apart(wide, count).contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return abreast(gradient), None
