"""Superpixels: which pixels are switched on and off together."""

from __future__ import annotations

import numpy as np

from iic.errors import UserError


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
    segments = np.unique(found, return_inverse=True)[1].reshape(found.shape)
    if segments.max() < 1:
        raise UserError(
            f"SLIC found one superpixel only (asked for {count}, compactness {compactness}): raise the compactness."
        )
    return segments
