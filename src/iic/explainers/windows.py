"""Masks that are not superpixels: sliding windows (occlusion) and smooth random fields (RISE)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """All of the image first, then the image without each window of `size` pixels a side, every `stride` pixels.

    The last window of a row or column ends at the border or is cut off there, as Captum's are.
    """

    shape: tuple[int, int]
    size: int
    stride: int

    def corners(self) -> np.ndarray:
        """Top left corners, int64 (windows, 2)."""
        starts = [self.stride * np.arange(-(-(side - self.size) // self.stride) + 1) for side in self.shape]
        return np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 2)

    def covered(self) -> np.ndarray:
        """bool (windows, H, W): the pixels in each window."""
        rows, columns = (np.arange(side) for side in self.shape)
        top, left = self.corners().T[:, :, None]
        vertical = (rows >= top) & (rows < top + self.size)
        horizontal = (columns >= left) & (columns < left + self.size)
        return vertical[:, :, None] & horizontal[:, None, :]

    def __len__(self) -> int:
        return 1 + len(self.corners())

    def keep(self, rows: slice, device: str) -> Tensor:
        everything = np.zeros((1, *self.shape), bool)
        return ~torch.from_numpy(np.concatenate([everything, self.covered()])[rows]).to(device)


def occlusion_map(values: np.ndarray, windows: Windows) -> np.ndarray:
    """v(image) - v(image without the window), averaged over the windows of each pixel: (H, W) (Zeiler & Fergus 2014).

    Args:
        values: float64 (1 + windows,), as `Windows` orders them.
    """
    covered = windows.covered()
    return np.tensordot(values[0] - values[1:], covered, 1) / covered.sum(0)


@dataclass(frozen=True)
class SmoothMasks:
    """Random grids of zeros and ones, enlarged bilinearly and shifted: RISE (Petsiuk et al. 2018, arXiv 1806.07421).

    Attributes:
        shape: (H, W).
        grids: bool (B, g, g), each cell kept with probability 1/2.
        shifts: float64 (B, 2), in 0..1 of a cell.
    """

    shape: tuple[int, int]
    grids: np.ndarray
    shifts: np.ndarray

    @classmethod
    def draw(cls, shape: tuple[int, int], count: int, cells: int, rng: np.random.Generator) -> SmoothMasks:
        """`count` masks whose cells are 1/cells of the image's sides."""
        return cls(shape, rng.random((count, cells, cells)) < 0.5, rng.random((count, 2)))

    def __len__(self) -> int:
        return len(self.grids)

    def keep(self, rows: slice, device: str) -> Tensor:
        grids = torch.from_numpy(self.grids[rows]).to(device, torch.float32).unsqueeze(1)
        cells = grids.shape[-1]
        cell = [-(-side // cells) for side in self.shape]  # pixels, rounded up
        size = [(cells + 1) * pixels for pixels in cell]
        large = F.interpolate(grids, size=size, mode="bilinear", align_corners=False)[:, 0]  # (b, h, w)
        shifts = (self.shifts[rows] * cell).astype(np.int64)
        crops = [
            mask[top : top + self.shape[0], left : left + self.shape[1]]
            for mask, (top, left) in zip(large, shifts, strict=True)
        ]
        return torch.stack(crops)


def rise_map(values: np.ndarray, masks: SmoothMasks) -> np.ndarray:
    """Mean of v(mask) times the mask, over the mask's expectation 1/2: (H, W), the authors' estimate.

    Args:
        values: float64 (B,).
    """
    total = np.zeros(masks.shape)
    for start in range(0, len(masks), 500):  # memory stays small for any number of masks
        rows = slice(start, start + 500)
        total += np.tensordot(values[rows], masks.keep(rows, "cpu").double().numpy(), 1)
    return total / (0.5 * len(masks))
