"""Whether an image looks like the training images at all, which no network's doubt says: a density is asked.

The density is the Normal of probabilistic principal components (Tipping & Bishop 1999, eq. 7 and 8) over dequantised
pixels (Theis et al. 2016). What it finds strange is refused beside what a network doubts. The limit is a conformal one
(Vovk et al. 2005): of new images like the held-out ones it refuses, on average over held-out sets, at most `RATE`,
whatever their distribution; that of one held-out set refuses more about every second time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from iic.bayes.selection import share
from iic.bayes.shifts import detection
from iic.data.images import ImageSet, evenly_spread
from iic.draws import generator
from iic.errors import UserError

RATE = 0.01  # of images like the held-out ones, refused at most
EXPLAINED = 0.95  # share of the pixels' variance in the components, the rest is one variance for all directions
FITTED = 10_000  # training images at most: memory, and a covariance of 3,072 values that no longer moves
SIDE = 32  # pixels: larger images are averaged down to it, so that the covariance stays small
LEAST = 1 / 12  # variance of a dequantised level, which no direction is below
TOGETHER = 1000  # images that are scored at once


@dataclass(frozen=True)
class Density:
    """A Normal of variance `variances` along `components` and `rest` along all other directions.

    Attributes:
        mean: float64 (D,), of dequantised pixels, averaged down to SIDE a side.
        components: float64 (k, D), orthonormal.
        variances: float64 (k,).
        rest: of each of the D - k other directions.
        shape: (C, H, W) of the images.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    rest: float
    shape: tuple[int, ...]

    def strangeness(self, images: np.ndarray) -> np.ndarray:
        """Minus the log-density, nats: uint8 (N, C, H, W) -> float64 (N,).

        Raises:
            UserError: images of another size than the training images'.
        """
        if images.shape[1:] != self.shape:
            raise UserError(
                f"The density is of images of {self.shape} (channels, rows, columns), not of {images.shape[1:]}."
            )
        parts = (images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER))
        return np.concatenate([self._of_part(flat(part) + 0.5) for part in parts])  # the middle of a level

    def _of_part(self, pixels: np.ndarray) -> np.ndarray:
        centred, kept = pixels - self.mean, len(self.variances)
        along = centred @ self.components.T  # (N, k)
        across = (np.square(centred).sum(1) - np.square(along).sum(1)).clip(min=0)
        directions = len(self.mean)
        volume = np.log(self.variances).sum() + (directions - kept) * math.log(self.rest)
        distance = (np.square(along) / self.variances).sum(1) + across / self.rest
        return (distance + volume + directions * math.log(2 * math.pi)) / 2


def flat(images: np.ndarray) -> np.ndarray:
    """Pixels of images (N, C, H, W), averaged down to SIDE a side where there are more: float64 (N, D)."""
    size = [min(side, SIDE) for side in images.shape[2:]]
    pixels = images.astype(np.float64)
    if tuple(size) != images.shape[2:]:
        pixels = F.adaptive_avg_pool2d(torch.from_numpy(pixels), size).numpy()
    return pixels.reshape(len(images), -1)


def fit_density(train: ImageSet, *, seed: int) -> Density:
    """The likeliest one of at most FITTED evenly spread training images.

    Args:
        train: the images.
        seed: of the noise that makes a level of 0..255 an interval, so that no direction is without variance.

    Raises:
        UserError: fewer than two images.
    """
    if len(train) < 2:
        raise UserError(f"A density of the images needs two training images at least, not {len(train)}.")
    pixels = flat(evenly_spread(train, FITTED))
    pixels += generator("dequantise", seed).random(pixels.shape)
    count, directions = pixels.shape
    found = PCA(EXPLAINED, svd_solver="full" if count < directions else "covariance_eigh").fit(pixels)
    kept = len(found.components_)
    left = pixels.var(0, ddof=1).sum() - found.explained_variance_.sum()
    rest = max(LEAST, left / max(1, directions - kept))
    return Density(
        found.mean_, found.components_, found.explained_variance_.clip(min=rest), rest, train.images.shape[1:]
    )


@dataclass(frozen=True)
class Typicality:
    """A density of images, and from where on one is too strange to be answered.

    Attributes:
        density: of the training images.
        limit: nats; None: too few held-out images for the rate, and nothing is refused.
        held: images that the limit was chosen on.
        rate: of images like these, refused at most on average.
    """

    density: Density
    limit: float | None
    held: int
    rate: float

    def looks_typical(self, found: np.ndarray) -> np.ndarray:
        """Which images are not too strange: strangeness (N,) -> bool (N,)."""
        return np.ones(len(found), bool) if self.limit is None else found <= self.limit


def fit(train: ImageSet, held: np.ndarray, *, seed: int, rate: float = RATE) -> Typicality:
    """The density of the training images, and the limit from held-out ones.

    Args:
        train: without the held-out images.
        held: uint8 (V, C, H, W).
        seed: as in `fit_density`.
        rate: 0..1, of images like `held` that may be refused.
    """
    density = fit_density(train, seed=seed)
    return Typicality(density, conformal_limit(density.strangeness(held), rate), len(held), rate)


def conformal_limit(held: np.ndarray, rate: float) -> float | None:
    """What a new value exceeds with a chance of at most `rate`, if it and the held-out (V,) come in any order alike.

    The k-th largest of them, k = floor(rate (V + 1)): a new one above it is among the k largest of all V + 1. None
    where that takes more values: 1 % takes 99.
    """
    k = math.floor(rate * (len(held) + 1) + 1e-9)
    return float(np.sort(held)[-k]) if k else None


def typicality_report(
    found: Typicality, test: np.ndarray, outside: Mapping[str, np.ndarray], *, seed: int, replicates: int
) -> dict:
    """What the density refuses without any network, JSON-ready.

    Args:
        found: density and limit.
        test: strangeness (N,) of the test images.
        outside: name -> strangeness (M,) of foreign images.
        seed: of the bootstraps.
        replicates: number of bootstrap samples.

    Returns:
        `limit` in nats, `rate`, `components`, `n_validation`; `refused` of the test images; `outside` by set: AUROC,
        FPR95 and the share `refused`.
    """
    return {
        "limit": found.limit,
        "rate": found.rate,
        "components": len(found.density.components),
        "n_validation": found.held,
        "refused": share(~found.looks_typical(test)),
        "outside": {
            name: {
                "n_images": len(values),
                **detection(test, values, seed=seed, replicates=replicates),
                "refused": share(~found.looks_typical(values)),
            }
            for name, values in outside.items()
        },
    }
