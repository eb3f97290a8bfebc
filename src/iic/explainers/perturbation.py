"""The one perturbation engine: images x masks of many images, through the frozen network in full batches.

v(z) = f(image where z = 1, fill where z = 0). Rows of different images share a batch, so that a forward is never
smaller than it could be; images are composed where the network computes, in the layout that it wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from iic.classifiers.precision import Forward
from iic.errors import UserError

BATCH = {"cpu": 250, "cuda": 4096}  # images a forward: fits the caches of a CPU core, fills a GPU
OUTPUTS = ("probability", "logit")


class Masks(Protocol):
    """What is kept of one image, mask by mask."""

    def __len__(self) -> int: ...

    def keep(self, rows: slice, device: str) -> Tensor:
        """(b, H, W): bool, or float in 0..1, the share of the image that shows."""


@dataclass(frozen=True)
class SuperpixelMasks:
    """Masks over superpixels: `z` bool (B, M), `segments` int64 (H, W) with labels 0..M-1."""

    segments: np.ndarray
    z: np.ndarray

    def __len__(self) -> int:
        return len(self.z)

    def keep(self, rows: slice, device: str) -> Tensor:
        z = torch.from_numpy(self.z[rows]).to(device)
        labels = torch.from_numpy(self.segments).to(device)
        return z.index_select(1, labels.flatten()).view(-1, *labels.shape)


@dataclass(frozen=True)
class Perturbed:
    """One image and what is to be shown of it.

    Attributes:
        image: uint8 (C, H, W).
        fill: float32 (C, H, W), what shows where the mask is 0, pixel units.
        masks: B of them.
        target: the explained class.
        name: how an error calls the image.
    """

    image: np.ndarray
    fill: np.ndarray
    masks: Masks
    target: int
    name: str


def compose(image: Tensor, fill: Tensor, keep: Tensor, out: Tensor) -> None:
    """Write perturbed images into `out`, (b, H, W, C) float32; image and fill (H, W, C); keep (b, H, W)."""
    mask = keep.unsqueeze(-1)
    if keep.dtype == torch.bool:
        torch.where(mask, image, fill, out=out)
    else:
        torch.lerp(fill.expand_as(out), image.expand_as(out), mask.to(out.dtype), out=out)


@torch.no_grad()
def masked_values(
    forward: Forward,
    jobs: Sequence[Perturbed],
    *,
    output: str = "probability",
    batch_size: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[np.ndarray]:
    """The explained class's probability or logit for every mask of every image.

    Args:
        forward: from `fast_forward`.
        jobs: the images; all of one size.
        output: "probability" or "logit".
        batch_size: images a forward; 0 takes what suits the device.
        progress: wraps the loop over batches, such as tqdm.

    Returns:
        float64 (B,) for each job, in order.

    Raises:
        UserError: the network answered with NaN or infinity, with the image's name.
    """
    size = batch_size or BATCH[forward.device]
    lengths = [len(job.masks) for job in jobs]
    height, width = jobs[0].image.shape[1:]
    buffer = torch.empty(size, height, width, len(jobs[0].image), device=forward.device)
    found = [np.empty(length) for length in lengths]
    prepared: tuple[int, Tensor, Tensor] | None = None  # the image that is being composed
    for batch in progress(_batches(lengths, size)):
        at = 0
        for job, rows in batch:
            if prepared is None or prepared[0] != job:
                prepared = job, _channels_last(jobs[job].image, forward), _channels_last(jobs[job].fill, forward)
            keep = jobs[job].masks.keep(rows, forward.device)
            compose(prepared[1], prepared[2], keep, buffer[at : at + len(keep)])
            at += len(keep)
        logits = forward.model(buffer[:at].permute(0, 3, 1, 2)).float()
        targets = torch.cat([torch.full((r.stop - r.start,), jobs[j].target) for j, r in batch]).to(logits.device)
        scores = logits.softmax(1) if output == "probability" else logits
        values = scores.gather(1, targets[:, None])[:, 0].double().cpu().numpy()
        at = 0
        for job, rows in batch:
            part = values[at : at + rows.stop - rows.start]
            if not np.isfinite(part).all():
                raise UserError(f"The network's output for a perturbed {jobs[job].name} is not finite: train it again.")
            found[job][rows] = part
            at += len(part)
    return found


def _channels_last(pixels: np.ndarray, forward: Forward) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(1, 2, 0), np.float32)).to(forward.device)


def _batches(lengths: list[int], size: int) -> list[list[tuple[int, slice]]]:
    """Rows of all jobs cut into full batches (the last may be smaller): (job, rows) pieces of each batch."""
    batches: list[list[tuple[int, slice]]] = [[]]
    room = size
    for job, length in enumerate(lengths):
        start = 0
        while start < length:
            if not room:
                batches.append([])
                room = size
            stop = min(length, start + room)
            batches[-1].append((job, slice(start, stop)))
            room -= stop - start
            start = stop
    return [batch for batch in batches if batch]
