"""Whether an image looks like the training images at all, which no network's doubt says: a density is asked.

The density is the Normal of probabilistic principal components (Tipping & Bishop 1999) over dequantised pixels (Theis
et al. 2016). What it finds strange is refused beside what a network doubts; the limit is a conformal one (Vovk et al.
2005): of new images like the held-out ones at most `RATE` are refused, whatever their distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from iic.bayes.scores import check_labels
from iic.bayes.selection import answer_row, answered, share
from iic.bayes.shifts import detection
from iic.bayes.uncertainty_table import Answers, Thresholds
from iic.data.images import ImageSet, evenly_spread
from iic.draws import generator
from iic.errors import UserError

RATE = 0.01  # of images like the held-out ones, refused at most
EXPLAINED = 0.95  # share of the pixels' variance in the components, the rest is one variance for all directions
FITTED = 10_000  # training images at most: memory, and a covariance of 3,072 values that no longer moves
TOGETHER = 1000  # images that are scored at once


@dataclass(frozen=True)
class Typicality:
    """A density of images, and from where on one is too strange to be answered.

    Attributes:
        density: of dequantised pixels (N, C * H * W).
        limit: nats; None: too few held-out images for the rate, and nothing is refused.
        held: images that the limit was chosen on.
    """

    density: PCA
    limit: float | None
    held: int

    def strangeness(self, images: np.ndarray) -> np.ndarray:
        """Minus the log-density, nats: uint8 (N, C, H, W) -> float64 (N,).

        Raises:
            UserError: images of another size than the training images'.
        """
        return strangeness(self.density, images)

    def looks_typical(self, found: np.ndarray) -> np.ndarray:
        """Which images are not too strange: strangeness (N,) -> bool (N,)."""
        return np.ones(len(found), bool) if self.limit is None else found <= self.limit


def strangeness(density: PCA, images: np.ndarray) -> np.ndarray:
    """As `Typicality.strangeness`."""
    pixels = images.reshape(len(images), -1)
    if pixels.shape[1] != density.n_features_in_:
        raise UserError(f"The density is of images of {density.n_features_in_} values, not of {pixels.shape[1]}.")
    parts = (pixels[start : start + TOGETHER] + 0.5 for start in range(0, len(pixels), TOGETHER))  # middle of a level
    return np.concatenate([-density.score_samples(part) for part in parts])


def fit(train: ImageSet, held: np.ndarray, *, seed: int, rate: float = RATE) -> Typicality:
    """The density of at most FITTED evenly spread training images, and the limit from held-out ones.

    Args:
        train: without the held-out images.
        held: uint8 (V, C, H, W).
        seed: of the noise that makes a level of 0..255 an interval, so that no direction is without variance.
        rate: 0..1, of images like `held` that may be refused.
    """
    images = evenly_spread(train, FITTED)
    pixels = images.reshape(len(images), -1) + generator("dequantise", seed).random((len(images), images[0].size))
    density = PCA(EXPLAINED, svd_solver="full" if len(pixels) < pixels.shape[1] else "covariance_eigh").fit(pixels)
    return Typicality(density, conformal_limit(strangeness(density, held), rate), len(held))


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
        "rate": RATE,
        "components": int(found.density.n_components_),
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


def both_rules(
    test: Answers, labels: np.ndarray, outside: Mapping[str, Answers], thresholds: Thresholds, typical: Mapping
) -> dict[str, dict]:
    """What a network answers of what looks typical: by selector and target, JSON-ready.

    Args:
        test: answers about the test images.
        labels: int (N,).
        outside: name -> answers about foreign images.
        thresholds: of the network.
        typical: "test" and the names of `outside` -> bool (N,) or (M,).

    Returns:
        selector -> target -> `coverage` and `accuracy` on the test images, `refused` by foreign set.
    """
    wrong = test.predicted != check_labels(labels, *test.mean.shape)
    rows: dict[str, dict] = {}
    for name, scores in test.selectors.items():
        rows[name] = {}
        for target, threshold in (thresholds[name] or {}).items():
            refused = {
                key: share(~(answered(found.selectors[name], threshold) & typical[key]))
                for key, found in outside.items()
            }
            kept = answered(scores, threshold) & typical["test"]
            rows[name][target] = {**answer_row(kept, wrong), "refused": refused}
    return rows
