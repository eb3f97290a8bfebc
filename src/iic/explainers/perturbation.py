"""The one perturbation engine: images x masks of many images, through the frozen network in full batches.

v(z) = f(image where z = 1, fill where z = 0). Rows of different images share a batch, so that a forward is never
smaller than it could be; images are composed where the network computes, in the layout that it wants.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from iic.classifiers.precision import Forward, keep_freed_memory
from iic.errors import UserError

GPU_BATCH = 4096  # images a forward that fill a GPU
ROOM = 96 * 2**20  # bytes of the largest activation of a batch on a CPU: freed memory is kept, so that it may be large
SMALLEST, LARGEST = 16, 256  # images a forward on a CPU
AHEAD = 4  # batches that are composed at once: what an image needs for that is made once or twice, not for each batch
FEW = 128  # superpixels up to which images are composed by a matrix product


@dataclass(frozen=True)
class Shown:
    """Which superpixels show: `z` float32 (b, M) of zeros and ones, `labels` int64 (H * W,).

    From row `pairs` on every second mask is the complement of the one before it. With `opposite` the first row is one
    whose partner is not among these, and stands for its complement.
    """

    z: Tensor
    labels: Tensor
    pairs: int
    opposite: bool = False

    def __len__(self) -> int:
        return len(self.z)

    def parts(self, picture: Tensor) -> Tensor:
        """A picture (H, W, C) cut into its superpixels, zeros around each: (M, H * W * C)."""
        parts = picture.new_zeros(self.z.shape[1], *picture.flatten(0, 1).shape)
        parts[self.labels, torch.arange(len(self.labels), device=picture.device)] = picture.flatten(0, 1)
        return parts.flatten(1)

    def compose(self, image: Tensor, fill: Tensor, parts: Tensor, out: Tensor) -> None:
        """As `compose`, all flat: out (b, H * W * C). Superpixels are added to the fill by a matrix product, which
        takes a fifth of the time of choosing pixel by pixel; what a pair's first mask leaves is the other's image."""
        both, first, second = image + fill, out[self.pairs :: 2], out[self.pairs + 1 :: 2]
        torch.addmm(fill, self.z[: self.pairs], parts, out=out[: self.pairs])
        torch.addmm(fill, self.z[self.pairs :: 2], parts, out=first)
        torch.sub(both, first[: len(second)], out=second)
        if self.opposite:
            torch.sub(both, out[0], out=out[0])


class Masks(Protocol):
    """What is kept of one image, mask by mask."""

    def __len__(self) -> int: ...

    def keep(self, rows: slice, device: str) -> Tensor | Shown:
        """(b, H, W): bool, or float in 0..1, the share of the image that shows; or the superpixels that do."""


@dataclass(frozen=True)
class SuperpixelMasks:
    """Masks over superpixels: `z` bool (B, M), `segments` int64 (H, W) with labels 0..M-1.

    From row `pairs` on every second mask is the complement of the one before it, which spares half of the composing;
    -1 if there are no pairs.
    """

    segments: np.ndarray
    z: np.ndarray
    pairs: int = -1

    def __len__(self) -> int:
        return len(self.z)

    def keep(self, rows: slice, device: str) -> Tensor | Shown:
        z, labels = self.z[rows], self.segments.ravel()
        if z.shape[1] > FEW:
            return torch.from_numpy(z.take(labels, 1)).to(device).view(-1, *self.segments.shape)
        start, stop, _ = rows.indices(len(self))
        pairs = len(z) if self.pairs < 0 else min(max(self.pairs, start + (start - self.pairs) % 2), stop) - start
        opposite = 0 <= self.pairs < start and pairs == 1
        shown = torch.from_numpy(z).to(device, torch.float32)
        if opposite:
            shown[0] = 1 - shown[0]
        return Shown(shown, torch.from_numpy(labels).to(device), pairs, opposite)


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


def compose(image: Tensor, fill: Tensor, keep: Tensor | Shown, out: Tensor, parts: Tensor | None = None) -> None:
    """Write perturbed images into `out`, (b, H, W, C) float32; image and fill (H, W, C); keep as `Masks` gives it.

    `parts` are those of image - fill, for superpixels, if they are at hand. A pixel that shows is the image's to the
    rounding of a sum and a difference, and the same whatever else is in the batch.
    """
    if isinstance(keep, Shown):
        parts = keep.parts(image - fill) if parts is None else parts
        keep.compose(image.flatten(), fill.flatten(), parts, out.flatten(1))
    elif keep.dtype == torch.bool:
        torch.where(keep.unsqueeze(-1), image, fill, out=out)
    else:
        torch.lerp(fill.expand_as(out), image.expand_as(out), keep.unsqueeze(-1).to(out.dtype), out=out)


@functools.lru_cache(maxsize=1)
def suitable_batch(model: nn.Module, device: str, shape: tuple[int, ...]) -> int:
    """Images a forward for images of this shape, (C, H, W): what fits ROOM on a CPU, enough to fill a GPU."""
    if device != "cpu":
        return GPU_BATCH
    largest = 4 * math.prod(shape)  # bytes of an image as float32

    def look(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes // 2)

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        model(torch.zeros(2, *shape).contiguous(memory_format=torch.channels_last))
    finally:
        for hook in hooks:
            hook.remove()
    return min(max(ROOM // largest // SMALLEST * SMALLEST, SMALLEST), LARGEST)


@torch.no_grad()
def masked_values(
    forward: Forward,
    jobs: Sequence[Perturbed],
    *,
    output: str = "probability",
    batch_size: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[np.ndarray]:
    """The explained class's probability or logit, or both, for every mask of every image.

    Args:
        forward: from `fast_forward`.
        jobs: the images; all of one size.
        output: "probability", "logit" or "both".
        batch_size: images a forward; 0 takes what suits the device.
        progress: wraps the loop over batches, such as tqdm.

    Returns:
        float64 (B,) for each job, in order; (B, 2) of both, the probability first.

    Raises:
        UserError: the network answered with NaN or infinity, with the image's name.
    """
    if forward.device == "cpu":
        keep_freed_memory()
    channels, height, width = jobs[0].image.shape
    size = batch_size or suitable_batch(forward.model, forward.device, jobs[0].image.shape)
    lengths = [len(job.masks) for job in jobs]
    targets = torch.from_numpy(np.repeat([job.target for job in jobs], lengths)).to(forward.device)[:, None]
    buffer = torch.empty(AHEAD * size, height, width, channels, device=forward.device)
    images = _Prepared(jobs, forward.device)
    answers: list[Tensor] = []
    for pieces in progress(_batches(lengths, len(buffer))):
        count = 0
        for job, rows in pieces:
            keep = jobs[job].masks.keep(rows, forward.device)
            images.compose(job, keep, buffer[count : count + len(keep)])
            count += len(keep)
        answers += [forward.model(batch).float() for batch in buffer[:count].permute(0, 3, 1, 2).split(size)]
    logits = torch.cat(answers)  # (rows, classes)
    probability = [] if output == "logit" else [logits.softmax(1).gather(1, targets)]
    logit = [] if output == "probability" else [logits.gather(1, targets)]
    whole = logits.isfinite().all(1, keepdim=True)  # of all classes, also where one is explained that is finite
    found = torch.where(whole, torch.cat(probability + logit, 1), torch.nan).double().cpu().numpy()  # (rows, 1 or 2)
    return _by_job(found if output == "both" else found[:, 0], jobs, lengths)


def _by_job(values: np.ndarray, jobs: Sequence[Perturbed], lengths: list[int]) -> list[np.ndarray]:
    found = np.split(values, np.cumsum(lengths)[:-1])
    for job, part in zip(jobs, found, strict=True):
        if not np.isfinite(part).all():
            raise UserError(f"The network's output for a perturbed {job.name} is not finite: train it again.")
    return found


class _Prepared:
    """Image, fill and superpixels of the job that is being composed, where the network computes, (H, W, C) float32."""

    def __init__(self, jobs: Sequence[Perturbed], device: str) -> None:
        self.jobs, self.device, self.job = jobs, device, -1

    def compose(self, job: int, keep: Tensor | Shown, out: Tensor) -> None:
        if job != self.job:
            self.job, self.parts = job, None
            self.image, self.fill = self._moved(self.jobs[job].image), self._moved(self.jobs[job].fill)
        if self.parts is None and isinstance(keep, Shown):
            self.parts = keep.parts(self.image - self.fill)
        compose(self.image, self.fill, keep, out, self.parts)

    def _moved(self, pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(1, 2, 0), np.float32)).to(self.device)


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
