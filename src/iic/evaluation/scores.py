"""One method's score on one dataset: accuracy of the network on what its map keeps."""

from __future__ import annotations

import numpy as np
from torch import nn

from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.degradation import keep_only, tied_share, top_pixels
from iic.evaluation.fills import salt_and_pepper
from iic.evaluation.statistics import bootstrap_interval, wilson_interval
from iic.explainers.attributions import Attributions
from iic.params import EvaluationParams


def correct(model: nn.Module, pixels: np.ndarray, labels: np.ndarray, progress=iter) -> np.ndarray:
    """bool (N,): whether the network names the true class of each image of pixels (N, C, H, W), 0..255."""
    import torch

    from iic.classifiers.inference import predicted_class

    return predicted_class(model, torch.from_numpy(pixels), progress=progress).numpy() == labels


def degraded(
    attributions: Attributions, test: ImageSet, fill: np.ndarray, params: EvaluationParams
) -> dict[str, list[np.ndarray]]:
    """The images as the judge sees them: for each fill a list of float32 (N, C, H, W), one per noise seed."""
    images = test.images[attributions.indices]
    keep = top_pixels(np.asarray(attributions.values), params.keep, attributions.indices, params.seed)
    size = images.shape[2:]
    noise = [keep_only(images, keep, salt_and_pepper(attributions.indices, size, seed)) for seed in params.noise_seeds]
    return {"salt_and_pepper": noise, "mean_colour": [keep_only(images, keep, fill.reshape(-1, 1, 1))]}


def proportion(hits: np.ndarray) -> dict:
    """Share of True with its Wilson interval: bool (N,)."""
    return {"accuracy": float(hits.mean()), "interval": list(wilson_interval(int(hits.sum()), len(hits)))}


def score(
    attributions: Attributions,
    model: nn.Module,
    test: ImageSet,
    fill: np.ndarray,
    params: EvaluationParams,
    *,
    progress=iter,
) -> dict:
    """Accuracy against the true label on keep-only images, for both fills, with 95 % intervals.

    Args:
        attributions: of some test images.
        model: frozen.
        test: the test set the attributions are of.
        fill: float (C,), the dataset's mean colour.
        params: which share is kept, noise seeds.
        progress: wraps the loops over batches, such as tqdm.

    Returns:
        JSON-ready: `keep` -> fill -> accuracy, interval, per_seed; tied_share; n_images; indices; and what
        it was made from: parameters, model.
    """
    if attributions.indices.max() >= len(test):
        raise UserError("The attributions are of images beyond the test set: run the attribution pipeline again.")
    from iic.classifiers.inference import fingerprint

    labels = test.labels[attributions.indices]
    keep = {}
    for name, versions in degraded(attributions, test, fill, params).items():
        hits = np.stack([correct(model, pixels, labels, progress) for pixels in versions])  # (seeds, N)
        if len(hits) == 1:
            keep[name] = proportion(hits[0])
            continue
        interval = bootstrap_interval(hits.mean(0), replicates=params.bootstrap, seed=params.seed)
        keep[name] = {
            "accuracy": float(hits.mean()),
            "interval": list(interval),
            "per_seed": dict(zip(map(str, params.noise_seeds), hits.mean(1).tolist(), strict=True)),
        }
    return {
        "parameters": params.model_dump(mode="json"),
        "model": fingerprint(model),
        "keep": keep,
        "tied_share": tied_share(np.asarray(attributions.values)),
        "n_images": len(labels),
        "indices": attributions.indices.tolist(),
    }
