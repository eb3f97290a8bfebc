"""Whether a map's relevance lies on the object, where the object's mask is known.

Every measure takes maps float (N, H, W) and masks bool (N, H, W), and gives float64 (N,), 0..1, higher = better. A map
that says nothing, all pixels alike, gets what guessing gets: the mask's share of the image, and one half for AUROC.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from iic.errors import UserError
from iic.evaluation.degradation import top_pixels


def mass_accuracy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Positive relevance inside the mask over all positive relevance (Arras et al. 2022, arXiv 2003.07258).

    A map without positive relevance points nowhere, and gets the mask's share of the image.

    Raises:
        UserError: an image whose mask is empty or covers everything.
    """
    flat, inside = _flat(maps, masks)
    positive = flat.clip(min=0)
    total = positive.sum(1)
    share = inside.mean(1)
    return np.divide((positive * inside).sum(1), total, out=share, where=total > 0)


def rank_accuracy(maps: np.ndarray, masks: np.ndarray, *, indices: np.ndarray, seed: int) -> np.ndarray:
    """The share of the K largest pixels that lie in the mask, K = the mask's size (Arras et al. 2022).

    Args:
        maps: float (N, H, W).
        masks: bool (N, H, W).
        indices: int64 (N,), positions in the test set, which with `seed` key how ties break.
        seed: see `indices`.

    Raises:
        UserError: an image whose mask is empty or covers everything.
    """
    _, inside = _flat(maps, masks)
    sizes = inside.sum(1)
    hits = [
        (top_pixels(maps[row : row + 1], size / inside.shape[1], indices[row : row + 1], seed)[0] & masks[row]).sum()
        for row, size in enumerate(sizes)
    ]
    return np.array(hits) / sizes


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """1 where the map's maximum lies in the mask, else 0 (Zhang et al. 2018, arXiv 1608.00507, without its tolerance).

    Where several pixels share the maximum: the chance that one of them, drawn at random, lies in the mask.

    Raises:
        UserError: an image whose mask is empty or covers everything.
    """
    flat, inside = _flat(maps, masks)
    largest = flat == flat.max(1, keepdims=True)
    return (largest & inside).sum(1) / largest.sum(1)


def auroc(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Chance that a pixel of the mask lies above one outside it; a tie counts one half (Mann and Whitney 1947).

    Raises:
        UserError: an image whose mask is empty or covers everything.
    """
    flat, inside = _flat(maps, masks)
    size = inside.sum(1)
    ranks = (rankdata(flat, axis=1) * inside).sum(1)
    return (ranks - size * (size + 1) / 2) / (size * (inside.shape[1] - size))


def _flat(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks as float64 and bool (N, H * W), checked."""
    if maps.shape != masks.shape or masks.dtype != bool:
        raise UserError(f"Maps {maps.shape} need masks bool of the same shape, not {masks.dtype} {masks.shape}.")
    inside = masks.reshape(len(masks), -1)
    share = inside.mean(1)
    for row in np.flatnonzero((share == 0) | (share == 1)):
        raise UserError(
            f"The mask of image {row} {'covers everything' if share[row] else 'is empty'}: "
            "localisation needs pixels inside and outside the object, so leave the image out."
        )
    return maps.reshape(len(maps), -1).astype(np.float64), inside
