"""Noisy linear imputation: removed pixels become what their neighbours suggest, so that a mask's shape leaks little.

Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ROAD, arXiv 2202.00449).
Each removed pixel equals the weighted mean of its eight neighbours, 1/6 for the four direct and 1/12 for the four
diagonal ones; neighbours outside the image are left out and the other weights scaled up, as in the authors' code.
Removed neighbours are unknown too, so this is one linear system per image and channel. Gaussian noise comes on top.

Written for each removed pixel i as (sum of the weights inside the image) x_i = Σ w_ij x_j + Σ w_ij kept_j, the system
is the graph Laplacian of the image's grid with the kept pixels held fixed: symmetric, and positive definite as soon as
one pixel is kept, since the grid is connected. Conjugate gradients need nothing more; dividing each equation by its sum
of weights would undo the symmetry.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iic.draws import generator
from iic.errors import UserError

NOISE = 2.55  # standard deviation: the authors' 0.01 on images of range 0..1
ACCURACY = 1e-3  # of an imputed pixel, of 255
ROW_SUM = 20  # of the system's inverse, per pixel of the image, at most: see `_tolerance`
NOTHING_KEPT = 127.5
CHECK_EVERY = 8  # iterations
MAX_ITERATIONS = 10_000
PART = 100_000  # pixel values solved at once: small enough for the cache


def _neighbours(x: Tensor) -> Tensor:
    """Weighted sum of the eight neighbours inside the image: (..., H, W) -> the same.

    The weights are the outer product of (1, 2, 1) with itself, over 12, without its centre: two short passes.
    """
    rows = 2 * x
    rows[..., 1:, :] += x[..., :-1, :]
    rows[..., :-1, :] += x[..., 1:, :]
    both = 2 * rows
    both[..., 1:] += rows[..., :-1]
    both[..., :-1] += rows[..., 1:]
    return both.sub_(x, alpha=4).div_(12)


def _tolerance(height: int, width: int) -> float:
    """Length of the residual (2-norm) below which every pixel is right to ACCURACY.

    The system's inverse has no negative entry, so that no error is above its largest row sum times the largest
    residual. Inverted, the worst mask, one corner kept, has 7.9 H W at 32x32 and gains 1.4 H W whenever the side
    doubles: 20 H W should be enough up to 1,000x1,000.
    """
    return ACCURACY / (ROW_SUM * height * width)


def _solve(known: Tensor, removed: Tensor) -> Tensor:
    """Conjugate gradients for all images and channels at once (Hestenes & Stiefel 1952).

    An image leaves the batch when all its channels have converged, at an iteration that depends on nothing but
    itself: so its result does not depend on the others.

    Args:
        known: float64 (N, C, H, W), 0 at removed pixels.
        removed: float64 (N, 1, H, W), 1 at removed pixels.

    Returns:
        float64 (N, C, H, W), 0 at kept pixels.
    """
    solution = torch.zeros_like(known)
    weights = _neighbours(torch.ones_like(known[:1, :1]))  # (1, 1, H, W), 1 but at the border
    limit = _tolerance(*known.shape[2:]) ** 2
    tiny = torch.finfo(known.dtype).tiny  # a channel that is solved exactly has nothing to divide
    left = torch.arange(len(known))
    x, r = torch.zeros_like(known), _neighbours(known) * removed
    p, rr = r.clone(), r.square().sum((2, 3), keepdim=True)  # rr: (N, C, 1, 1)
    for iteration in range(MAX_ITERATIONS + 1):
        if iteration % CHECK_EVERY == 0:
            unsolved = (rr > limit).any(1).flatten()  # (N,)
            solution[left[~unsolved]] = x[~unsolved]
            if not unsolved.any():
                return solution
            if not unsolved.all():
                left, x, r, p, rr, removed = (t[unsolved] for t in (left, x, r, p, rr, removed))
        applied = (weights * p).sub_(_neighbours(p)).mul_(removed)
        step = rr / (p * applied).sum((2, 3), keepdim=True).clamp_min(tiny)
        x.addcmul_(step, p)
        r.addcmul_(step, applied, value=-1)
        previous, rr = rr, r.square().sum((2, 3), keepdim=True)
        p.mul_(rr / previous.clamp_min(tiny)).add_(r)
    raise UserError(
        f"The ROAD fill of {len(left)} images did not converge in {MAX_ITERATIONS} iterations: keep more pixels."
    )


def linear_imputation(images: np.ndarray, keep: np.ndarray, *, progress=iter) -> np.ndarray:
    """Removed pixels as the weighted mean of their neighbours, without noise, right to 1e-3 of 255.

    Where no pixel is kept the system has no unique solution (the authors' code does not treat this case):
    all pixels become 127.5, which tells nothing of the image; its mean colour would.

    Args:
        images: uint8 (N, C, H, W).
        keep: bool (N, H, W), True on the pixels that are kept.
        progress: wraps the loop over parts of the images, such as tqdm.

    Returns:
        float32 (N, C, H, W), pixel units; the kept pixels are unchanged.

    Raises:
        UserError: conjugate gradients did not converge, which takes large images with next to nothing kept.
    """
    filled = images.astype(np.float32)
    step = max(1, PART // images[0].size)
    for start in progress(range(0, len(images), step)):
        part = slice(start, start + step)
        removed = torch.from_numpy(~keep[part, None])  # (n, 1, H, W)
        known = torch.tensor(images[part], dtype=torch.float64).masked_fill_(removed, 0)
        imputed = _solve(known, removed.double()).float().numpy()
        filled[part] = np.where(keep[part, None], filled[part], imputed)
    filled[~keep.any((1, 2))] = NOTHING_KEPT
    return filled


def imputation_noise(indices: np.ndarray, shape: tuple[int, int, int], noise_seed: int) -> np.ndarray:
    """Gaussian noise of every pixel and channel, standard deviation 2.55, keyed by (image, noise seed).

    Drawn for the whole image, so that every method meets the same.

    Args:
        indices: int64 (N,), positions in the test set.
        shape: (C, H, W).
        noise_seed: which of several draws.

    Returns:
        float32 (N, C, H, W).
    """
    draws = [generator("road", noise_seed, i).standard_normal(shape, np.float32) for i in indices]
    return np.stack(draws) * np.float32(NOISE)


def road_fill(
    images: np.ndarray, keep: np.ndarray, indices: np.ndarray, noise_seed: int, *, progress=iter
) -> np.ndarray:
    """Images with everything but the kept pixels imputed: `linear_imputation` plus `imputation_noise`, not clipped.

    For several noise seeds, solve once and add each noise: the systems do not depend on it.

    Args:
        images: uint8 (N, C, H, W).
        keep: bool (N, H, W), True on the pixels that are kept.
        indices: int64 (N,), positions in the test set, which with `noise_seed` key the noise.
        noise_seed: which of several draws.
        progress: wraps the loop over parts of the images, such as tqdm.

    Returns:
        float32 (N, C, H, W), pixel units; a little outside 0..255 where the noise says so, as in the authors' code.
    """
    noise = imputation_noise(indices, images.shape[1:], noise_seed)
    return linear_imputation(images, keep, progress=progress) + noise * ~keep[:, None]
