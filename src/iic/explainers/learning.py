"""Learning the prior of `kernel_shap_fast` from training images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from iic.explainers.context import Context
from iic.explainers.prior import Prior, learn_prior
from iic.explainers.sampled import Group, kernel_shap, known_of
from iic.explainers.work import TOGETHER, Tick


def learn_from_images(
    context: Context, images: np.ndarray, indices: np.ndarray, targets: np.ndarray, tick: Tick = lambda images: None
) -> Prior:
    """Kernel SHAP on these training images, at `prior_budget` forwards each, and the prior that fits it.

    Args:
        context: as the test images will be explained.
        images: uint8 (n, C, H, W). indices: int64 (n,), which key the draws. targets: int64 (n,), classes.
        tick: called with each number of images that are done.
    """
    budget = context.params.prior_budget
    taught = replace(context, params=context.params.model_copy(update={"budget": budget, "stop_early": False}))
    values, errors, known, segments = [], [], [], []
    for at in range(0, len(images), TOGETHER):
        some = slice(at, at + TOGETHER)
        group = Group(taught, images[some], indices[some], targets[some], "probability")
        labels = group.segments()
        maps = kernel_shap(group)
        firsts = [np.unique(s, return_index=True)[1] for s in labels]  # one pixel of each superpixel
        values += [m.ravel()[f].astype(np.float64) for m, f in zip(maps.values, firsts, strict=True)]
        errors += [m.ravel()[f].astype(np.float64) for m, f in zip(maps.errors, firsts, strict=True)]
        known += known_of(group, labels)
        segments += labels
        tick(len(labels))
    return learn_prior(values, errors, known, segments)
