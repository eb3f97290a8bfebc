"""Superpixels: which pixels are switched on and off together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iic.errors import UserError
from iic.params import AttributionParams

SEGMENTATIONS = ("slic", "grid", "pixels")


@dataclass(frozen=True)
class Segmenter:
    """The superpixels of any test image: found as the parameters say, or a user's own `labels`."""

    params: AttributionParams
    labels: np.ndarray | None = None

    def __call__(self, image: np.ndarray, index: int) -> np.ndarray:
        """int64 (H, W), labels 0..M-1, of the image uint8 (C, H, W) at this position of the test set."""
        if self.labels is not None:
            found = without_gaps(np.asarray(self.labels if self.labels.ndim == 2 else self.labels[index]))
            if found.max() < 1:
                raise UserError(f"Your superpixels of test image {index} are one only: there is nothing to compare.")
            return found
        return superpixels(self.params.segmentation, image, self.params.superpixels, self.params.compactness)

    def fingerprint(self) -> str | None:
        """sha256 of a user's own labels; None without any."""
        if self.labels is None:
            return None
        digest = hashlib.sha256(f"{self.labels.dtype} {self.labels.shape}".encode())
        for row in self.labels:  # of an image, or an image: the file is never in memory
            digest.update(np.ascontiguousarray(row))
        return digest.hexdigest()


def superpixels(kind: str, image: np.ndarray, count: int, compactness: float) -> np.ndarray:
    """Superpixels of one image.

    Args:
        kind: a name of SEGMENTATIONS: SLIC; a regular grid; every pixel by itself.
        image: uint8 (C, H, W), C = 1 or 3.
        count: the number aimed at, for SLIC and grid.
        compactness: of SLIC.

    Returns:
        int64 (H, W), labels 0..M-1 without gaps.

    Raises:
        UserError: fewer than two superpixels were found, with which nothing can be compared.
    """
    if kind == "grid":
        return grid_superpixels(image.shape[1:], count)
    if kind == "pixels":
        return np.arange(image[0].size).reshape(image.shape[1:])
    return slic_superpixels(image, count, compactness)


def slic_superpixels(image: np.ndarray, count: int, compactness: float) -> np.ndarray:
    """SLIC superpixels (Achanta et al. 2012) of one image.

    Args:
        image: uint8 (C, H, W), C = 1 or 3; RGB is clustered in CIELAB.
        count: the number aimed at; SLIC finds about as many.
        compactness: weight of nearness in space against likeness of colour.

    Returns:
        int64 (H, W), labels 0..M-1 without gaps.

    Raises:
        UserError: fewer than two superpixels were found, with which nothing can be compared.
    """
    from skimage.segmentation import slic

    grey = image.shape[0] == 1
    pixels = image[0] if grey else image.transpose(1, 2, 0)
    found = slic(
        pixels / 255.0,
        n_segments=count,
        compactness=compactness,
        channel_axis=None if grey else -1,
        start_label=0,
    )
    segments = without_gaps(found)
    if segments.max() < 1:
        raise UserError(
            f"SLIC found one superpixel only (asked for {count}, compactness {compactness}): raise the compactness."
        )
    return segments


def quickshift_superpixels(image: np.ndarray) -> np.ndarray:
    """Quickshift (Vedaldi and Soatto 2008) as `lime_image` calls it unless told otherwise; grey is taken as RGB.

    It is made for photographs. In an image of 28 or 32 pixels a side it finds a few superpixels, sometimes a single
    one, with which nothing can be compared. Hence it is no name of SEGMENTATIONS.

    Args:
        image: uint8 (C, H, W), C = 1 or 3.

    Returns:
        int64 (H, W), labels 0..M-1 without gaps, M >= 1.
    """
    from skimage.segmentation import quickshift

    pixels = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    return without_gaps(quickshift(pixels / 255.0, kernel_size=4, max_dist=200, ratio=0.2))


def grid_superpixels(shape: tuple[int, int], count: int) -> np.ndarray:
    """About `count` rectangles of nearly equal size: int64 (H, W)."""
    height, width = shape
    rows = min(height, max(1, round((count * height / width) ** 0.5)))
    columns = min(width, max(2, round(count / rows)))
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    return row[:, None] * columns + column


def without_gaps(labels: np.ndarray) -> np.ndarray:
    """The same partition with labels 0..M-1: int64, any shape."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def common_borders(segments: np.ndarray) -> np.ndarray:
    """How many pixels of each two superpixels touch: int64 (M, M), symmetric, from labels 0..M-1 (H, W)."""
    m = int(segments.max()) + 1
    borders = np.zeros((m, m), np.int64)
    for one, other in ((segments[1:], segments[:-1]), (segments[:, 1:], segments[:, :-1])):
        np.add.at(borders, (one, other), 1)
    borders += borders.T
    np.fill_diagonal(borders, 0)
    return borders


def load_label_map(path: Path, count: int, shape: tuple[int, int]) -> np.ndarray:
    """A user's own superpixels from a .npy file: integers (H, W) for all test images, or (count, H, W).

    Returns:
        read memory-mapped, as it is in the file.

    Raises:
        UserError: no such file, another shape, or numbers that are no labels.
    """
    try:
        labels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"The superpixels in {path} cannot be read ({error}): give a .npy file of integers.") from error
    if labels.shape not in (shape, (count, *shape)) or labels.dtype.kind not in "iu":
        raise UserError(
            f"The superpixels in {path} are {labels.dtype} {labels.shape}: integers of shape {shape} or "
            f"{(count, *shape)} are needed."
        )
    return labels
