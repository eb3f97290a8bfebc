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


def pyros_losses(found, images, labels, repeats=400):
    """Pyro's own estimates of the mean-field ELBO of a posterior under a prior of .5, negative, float32 (repeats,)."""
    import pyro
    import pyro.distributions as dist
    from pyro.infer import TraceMeanField_ELBO

    inputs = network.normalise(torch.from_numpy(images), found.pixel_mean)

    def model():
        weights = {n: pyro.sample(n, dist.Normal(0.0, 0.5).expand(v.shape).to_event()) for n, v in found.loc.items()}
        with pyro.plate("images", len(images)):
            pyro.sample("labels", dist.Categorical(logits=network.logits(weights, inputs)), obs=torch.tensor(labels))

    def guide():
        for n, loc in found.loc.items():
            pyro.sample(n, dist.Normal(loc, found.scale[n]).to_event())

    torch.manual_seed(0)
    return torch.tensor([TraceMeanField_ELBO().loss(model, guide) for _ in range(repeats)])


def normals(seed=0, sizes=(4, 3)):
    torch.manual_seed(seed)
    loc = network.initial_means(sizes)
    return loc, {name: torch.rand_like(value) + 0.1 for name, value in loc.items()}
