"""One epoch's view of all training images, made at once: flips, shifts, windows, blank squares; uint8 stays uint8."""

from __future__ import annotations

import torch
from torch import Tensor

from iic.classifiers.recipe import Recipe


def augment(images: Tensor, epoch: int, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """One epoch's view: random shifts with reflected borders, a blank square; each image flipped in every other epoch.

    Args:
        images: uint8 (N, C, H, W), already flipped at random once when `recipe.flip`; on any device.
        generator: on the CPU, so that the draws are the same wherever the images lie.

    Returns:
        uint8 (N, C, H, W), or (N, C, crop, crop) in the first `crop_epochs` epochs.
    """
    count, channels, height, width = images.shape
    if recipe.flip and epoch % 2:
        images = images.flip(-1)
    cut = max(0, min(height, width) - recipe.crop) if epoch < recipe.crop_epochs else 0
    pad = max(0, recipe.shift - cut // 2)  # a window smaller than the image shifts within it
    if not cut and not pad:
        return _cut_out(images, recipe.cutout, generator)
    places = cut + 2 * pad + 1
    shifts = torch.randint(0, places, (count, 2), generator=generator).to(images.device)
    rows, columns = (
        _reflected(size, pad).to(images.device)[shift[:, None] + torch.arange(size - cut, device=images.device)]
        for size, shift in zip((height, width), shifts.T, strict=True)
    )  # (N, height - cut), (N, width - cut)
    shifted = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    shifted = shifted.gather(3, columns[:, None, None, :].expand(-1, channels, height - cut, -1))
    return _cut_out(shifted, recipe.cutout, generator)


def _cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A square of `side` pixels, centred anywhere in each image, in the mean colour of them all."""
    if not side:
        return images
    count, _, height, width = images.shape
    corners = [torch.randint(0, size, (count, 1), generator=generator) - side // 2 for size in (height, width)]
    top, left = (corner.to(images.device) for corner in corners)
    y, x = (torch.arange(size, device=images.device) for size in (height, width))
    blank = ((y >= top) & (y < top + side))[:, :, None] & ((x >= left) & (x < left + side))[:, None]  # (N, H, W)
    mean = images.sum((0, 2, 3), dtype=torch.int64) // (count * height * width)
    return torch.where(blank[:, None], mean.to(images.dtype).view(1, -1, 1, 1), images)


def _reflected(size: int, pad: int) -> Tensor:
    """Indices of a row of `size` pixels with `pad` reflected ones at each end: (size + 2 pad,)."""
    index = torch.arange(-pad, size + pad).abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
