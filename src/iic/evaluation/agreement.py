"""How far two methods say the same of the same images; every measure takes maps float (N, H, W) twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations_with_replacement

import numpy as np
from scipy.stats import rankdata

from iic.errors import UserError

WINDOW = 7  # side of SSIM's square window, pixels


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation of each image's pixels, ties by midranks: float64 (N,), -1..1.

    0 where one of the two maps has one value only: it orders nothing.
    """
    return (_standard_ranks(a) * _standard_ranks(b)).sum(1).clip(-1, 1)


def top_overlap(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The share of one map's round(share H W) largest pixels that are among the other's: float64 (N,), 0..1.

    Where ties leave open which pixels are the largest, the expected overlap of two independent random choices. So a
    map that is tied there does not wholly overlap with itself, and one without any order overlaps by chance alone.

    Raises:
        UserError: so small a share that it is no pixel, or more than all.
    """
    k = round(share * a[0].size)
    if not 1 <= k <= a[0].size:
        raise UserError(f"A share of {share} is {k} of {a[0].size} pixels: take one that is at least one pixel.")
    return (_chance_of_top(a, k) * _chance_of_top(b, k)).sum(1) / k


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of maps divided by their largest absolute value: float64 (N,), -1..1, 1 = the same picture.

    So zero stays zero and the data range is 2. The window is uniform, 7 pixels square, and wholly inside the image
    (Wang et al. 2004, as scikit-image computes it), so maps need 7 pixels a side.
    """
    from skimage.metrics import structural_similarity

    pairs = zip(_by_largest(a), _by_largest(b), strict=True)
    return np.array([structural_similarity(x, y, win_size=WINDOW, data_range=2.0) for x, y in pairs])


def agreement_matrix(
    maps: Sequence[np.ndarray],
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    progress: Callable[[Iterable], Iterable] = iter,
) -> np.ndarray:
    """The mean over the images of a symmetric measure, for every two methods.

    Args:
        maps: of M methods, float (N, H, W) each, of the same images.
        measure: such as `spearman`: two sets of maps -> (N,).
        progress: wraps the loop over pairs of methods, such as tqdm.

    Returns:
        float64 (M, M); the diagonal is each method with itself.
    """
    found = np.empty((len(maps), len(maps)))
    for i, j in progress(list(combinations_with_replacement(range(len(maps)), 2))):
        found[i, j] = found[j, i] = measure(maps[i], maps[j]).mean()
    return found


def _standard_ranks(maps: np.ndarray) -> np.ndarray:
    """Midranks of each map's pixels, centred, of length 1, or 0 where all are equal: float64 (N, H * W)."""
    ranks = rankdata(maps.reshape(len(maps), -1), axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def _chance_of_top(maps: np.ndarray, k: int) -> np.ndarray:
    """Each pixel's chance to be among its map's k largest when ties break at random: float64 (N, H * W)."""
    flat = maps.reshape(len(maps), -1)
    last = np.partition(flat, -k, axis=1)[:, [-k]]
    above, tied = flat > last, flat == last
    room = k - above.sum(1, keepdims=True)
    return above + tied * (room / tied.sum(1, keepdims=True))


def _by_largest(maps: np.ndarray) -> np.ndarray:
    """Maps within -1..1, float64; a map of zeros as it is."""
    maps = maps.astype(np.float64)
    largest = np.abs(maps).max((1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)
