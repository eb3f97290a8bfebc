"""Small posteriors and Normals that several test files look at."""

import numpy as np
import torch

from iic.bayes import network, posteriors
from iic.bayes.settings import Settings


def small_images(count=30):
    return np.random.default_rng(5).integers(0, 256, size=(count, 1, 4, 4), dtype=np.uint8), np.arange(count) % 3


def small_fit(kind, seed=0, **changes):
    settings = {"hidden": (6,), "epochs": 2, "batch_size": 8, "rank": 2, "members": 2, **changes}
    return posteriors.fit(kind, *small_images(), Settings(**settings), seed=seed)


def vector(named):
    return torch.cat([value.flatten() for value in named.values()])


def normals(seed=0, sizes=(4, 3)):
    torch.manual_seed(seed)
    loc = network.initial_means(sizes)
    return loc, {name: torch.rand_like(value) + 0.1 for name, value in loc.items()}
