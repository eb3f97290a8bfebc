"""CutMix: a rectangle of each picture is another picture's, and so is that share of its label.

Yun et al. 2019 (arXiv 1905.04899), with one difference: the rectangle takes at most half of the picture, so that a
picture keeps the label of its larger part. Pairs of pictures are as likely either way round, so nothing is lost.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Mixed(NamedTuple):
    """Whose rectangle each picture has, int64 (N,), and what share of its pixels that is, float32 (N,), 0 to 0.5."""

    partners: Tensor
    shares: Tensor

    def soften(self, labels: Tensor, chosen: Tensor, classes: int) -> Tensor:
        """The chosen pictures' labels as shares of classes: float32 (n, classes) from all labels, int64 (N,)."""
        own, other = (F.one_hot(labels[at], classes).float() for at in (chosen, self.partners[chosen]))
        return own.lerp(other, self.shares[chosen, None])


def cut_mix(images: Tensor, probability: float, generator: torch.Generator) -> tuple[Tensor, Mixed]:
    """Pictures, each with this probability with a rectangle from another one, from the same place.

    Args:
        images: (N, C, H, W), any type, on any device.
        probability: 0..1.
        generator: on the CPU, so that the draws are the same wherever the images lie.
    """
    count, _, height, width = images.shape
    partners = torch.randperm(count, generator=generator)
    share = torch.rand(count, generator=generator) / 2  # of the area; the rectangle has the picture's proportions
    share *= torch.rand(count, generator=generator) < probability
    rows, columns = (_inside(size, share.sqrt()[:, None], generator) for size in (height, width))
    inside = rows[:, :, None] & columns[:, None]  # (N, H, W)
    shares = inside.flatten(1).float().mean(1)
    partners, shares, inside = (tensor.to(images.device) for tensor in (partners, shares, inside))
    return torch.where(inside[:, None], images[partners], images), Mixed(partners, shares)


def _inside(size: int, part: Tensor, generator: torch.Generator) -> Tensor:
    """Which of `size` places a stretch of this part of them, (N, 1), covers, anywhere: bool (N, size)."""
    length = (size * part).floor()
    start = (torch.rand(part.shape, generator=generator) * (size - length + 1)).floor()
    places = torch.arange(size)
    return (places >= start) & (places < start + length)
