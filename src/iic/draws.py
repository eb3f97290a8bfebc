"""One random generator per purpose: draws for different purposes are independent even where their seeds are equal."""

from __future__ import annotations

import numpy as np

_PURPOSES = (
    "selection",
    "method",
    "ties",
    "salt_and_pepper",
    "bootstrap",
    "subset",
    "holdout",
    "road",
    "judge",
    "leakage",
    "watermark",
    "infidelity",
    "sensitivity_n",
    "max_sensitivity",
    "randomisation",
    "additive",
    "donor",
    "redrawn",
    "dequantise",
)


def generator(purpose: str, *key: int) -> np.random.Generator:
    """A generator keyed by what it is for and by numbers such as a seed and an image's position.

    Args:
        purpose: a name of `_PURPOSES`; new ones go to the end.
        key: non-negative integers.
    """
    return np.random.default_rng([_PURPOSES.index(purpose) + 1, len(key), *map(int, key)])
