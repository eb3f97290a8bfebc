"""Images that a network was not trained for, and how well an uncertainty tells them from the test images.

Out-of-distribution images are the positive class throughout: a detector flags an image whose uncertainty is high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from iic.bayes.bootstrap import drawn_counts
from iic.bayes.selection import percentiles
from iic.bayes.uncertainty import uniform_noise
from iic.errors import UserError
from iic.evaluation.statistics import wilson_interval

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B (ITU-R BT.601)
TOGETHER = 50  # bootstrap samples that are looked at at once: some MB for 10,000 images
FLAGGED = 0.95  # of the out-of-distribution images, where the false positive rate is read off


def _check_images(images) -> np.ndarray:
    """Raise UserError unless images are uint8 (N, 1 or 3, H, W)."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"Images must be uint8 of shape (N, 1 or 3, H, W), not {images.dtype} {images.shape}.")
    return images


def inverted(images) -> np.ndarray:
    """255 - value: uint8 (N, C, H, W) -> the same shape."""
    return 255 - _check_images(images)


def rotated(images, quarter_turns: int) -> np.ndarray:
    """Images turned counter-clockwise by 90 degrees times `quarter_turns`: uint8 (N, C, H, W) -> the same shape.

    Some digits survive: a 0, 1 or 8 turned by 180 degrees is itself, and a 6 a 9, so no detector can reach AUROC 1.

    Raises:
        UserError: an odd number of quarter turns of images that are not square.
    """
    images = _check_images(images)
    if quarter_turns % 2 and images.shape[2] != images.shape[3]:
        raise UserError(
            f"Images of {images.shape[2]} x {images.shape[3]} pixels cannot be turned by 90 degrees: turn them by 180."
        )
    return np.ascontiguousarray(np.rot90(images, quarter_turns, axes=(2, 3)))


def brought_to(images, shape: tuple[int, int, int]) -> np.ndarray:
    """Another dataset's images uint8 (N, C', H', W') in the shape (C, H, W) that a network takes: uint8 (N, C, H, W).

    Colours become grey by luminance, grey is repeated for colours; sizes change bilinearly, with antialiasing.
    """
    import torch
    from torch.nn.functional import interpolate

    pixels = _check_images(images).astype(np.float32)
    if shape[0] == 1 and pixels.shape[1] == 3:
        pixels = np.einsum("nchw,c->nhw", pixels, LUMINANCE)[:, None]
    elif shape[0] == 3 and pixels.shape[1] == 1:
        pixels = pixels.repeat(3, axis=1)
    if pixels.shape[2:] != tuple(shape[1:]):
        resized = interpolate(torch.from_numpy(pixels), size=tuple(shape[1:]), mode="bilinear", antialias=True)
        pixels = resized.numpy()
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def outside_images(
    images, others: Mapping[str, np.ndarray], *, seed: int, turns: Sequence[int] = ()
) -> dict[str, np.ndarray]:
    """All sets of out-of-distribution images for one test set, each uint8 (M, C, H, W).

    Args:
        images: uint8 (N, C, H, W), the test images.
        others: name -> images uint8 (M, C', H', W') of other datasets.
        seed: of the noise.
        turns: quarter turns that make the images foreign, such as (1, 2) for digits.

    Returns:
        "noise" (as many as test images), "inverted", "rotated_90" and so on, then the others.
    """
    images = _check_images(images)
    return {
        "noise": uniform_noise(len(images), images.shape[1:], seed),
        "inverted": inverted(images),
        **{f"rotated_{90 * turn}": rotated(images, turn) for turn in turns},
        **{name: brought_to(other, images.shape[1:]) for name, other in others.items()},
    }


def _check_scores(scores, what: str) -> np.ndarray:
    """Raise UserError unless `scores` are the uncertainties (N,) of one or more images, without NaN."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not len(scores):
        raise UserError(f"Detection needs one uncertainty per {what} image, not {scores.shape}.")
    if np.isnan(scores).any():
        first = int(np.isnan(scores).argmax())
        raise UserError(f"The uncertainty of {what} image {first} is NaN: look at its probabilities.")
    return scores


def _rates(inside: np.ndarray, outside: np.ndarray, less: np.ndarray, at_most: np.ndarray) -> np.ndarray:
    """AUROC and false positive rate, float64 (R, 2), from how often each image counts in each of R samples.

    Args:
        inside: int (R, N), counts of the in-distribution images, by rising uncertainty.
        outside: int (R, M), counts of the others, by falling uncertainty.
        less, at_most: int (M,), in-distribution images whose uncertainty is less than, or at most, each of the others'.
    """
    below, caught = np.pad(inside.cumsum(1), ((0, 0), (1, 0))), outside.cumsum(1)  # (R, N + 1), (R, M)
    pairs = (outside * (below[:, less] + below[:, at_most])).sum(1)
    area = pairs / (2 * below[:, -1] * caught[:, -1])  # Mann & Whitney 1947: ties count half
    last = np.argmax(caught / caught[:, -1:] >= FLAGGED, axis=1)  # the threshold is its uncertainty, and flags it
    return np.stack([area, 1 - below[np.arange(len(below)), less[last]] / below[:, -1]], 1)


def detection(inside, outside, *, replicates: int, seed: int) -> dict[str, dict]:
    """How well an uncertainty tells out-of-distribution images (positive) from test images (negative), JSON-ready.

    Args:
        inside: float (N,), uncertainty of the test images, higher = flagged earlier.
        outside: float (M,), of the out-of-distribution images.
        replicates: number of bootstrap samples; both sets are drawn anew, independently.
        seed: of the draws.

    Returns:
        auroc: chance that an outside image is the more uncertain of a pair, ties count half.
        fpr95: share of the test images that are flagged with them when at least 95 % of the outside images are (Liang
            et al. 2018, with the classes as in OpenOOD: Yang et al. 2022); a threshold flags all tied images.
        Each {"value", "interval"}: 95 % percentiles; if all replicates agree, and a bootstrap is blind, Wilson's, for
            the AUROC of min(N, M) pairs, since so many pairs share no image.

    Raises:
        UserError: no images, or an uncertainty that is NaN.
    """
    inside, outside = np.sort(_check_scores(inside, "test")), -np.sort(-_check_scores(outside, "outside"))
    less, at_most = np.searchsorted(inside, outside, "left"), np.searchsorted(inside, outside, "right")
    n, m = len(inside), len(outside)
    (values,) = _rates(np.ones((1, n), np.int64), np.ones((1, m), np.int64), less, at_most)
    counts = drawn_counts(n, replicates, seed), drawn_counts(m, replicates, seed, 1)
    parts = (slice(start, start + TOGETHER) for start in range(0, replicates, TOGETHER))
    drawn = np.concatenate([_rates(counts[0][part], counts[1][part], less, at_most) for part in parts])  # (R, 2)
    found = {}
    for name, value, replicate, trials in zip(("auroc", "fpr95"), values, drawn.T, (min(n, m), n), strict=True):
        is_blind = replicate.min() == replicate.max()
        interval = list(wilson_interval(value * trials, trials)) if is_blind else percentiles(replicate)
        found[name] = {"value": float(value), "interval": interval}
    return found
