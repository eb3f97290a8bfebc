"""Nodes that explain test images, with one method each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iic.data.images import ImageSet
from iic.explainers.attributions import Attributions, select_images
from iic.explainers.names import source_of
from iic.explainers.segmentation import Segmenter, load_label_map
from iic.params import AttributionParams
from iic.progress import bar, counter

SAMPLE = 1000  # training images that a faster forward is fitted to and compared on


def explain_images(
    params: AttributionParams,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    model: Any,
    dataset: str,
    method: str,
    project: Path,
) -> tuple[Attributions, dict]:
    """Maps of the selected test images, and what they cost."""
    import torch

    from iic.classifiers.inference import fingerprint, freeze, predicted_class
    from iic.classifiers.precision import fast_forward
    from iic.explainers.context import Context
    from iic.explainers.work import explain_images as explain

    sample = train.images[np.linspace(0, len(train) - 1, min(SAMPLE, len(train)), dtype=int)]
    forward = fast_forward(model, torch.from_numpy(sample), params.precision, params.device)
    frozen = freeze(model)
    indices = select_images(test.labels, params.n_images, params.seed)
    show = bar(f"{dataset}: classes", "batch")
    targets = predicted_class(frozen, torch.from_numpy(test.images[indices]), progress=show).numpy()
    segmenter = _segmenter(params, test, project)
    context = Context(frozen.to(forward.device), forward, np.array(card["train"]["mean"]), params, segmenter)
    made = {
        "method": method,
        "parameters": params.model_dump(mode="json"),
        "model": fingerprint(frozen),
        "data": card["test"]["sha256"],
        "precision": forward.precision,
        "same_class": forward.same_class,
        "device": forward.device,
    }
    folder = _folder(project, dataset, method)
    with counter(f"{dataset}: {method}", "image", len(indices)) as tick:
        maps, seconds = explain(method, context, test.images, indices, targets, folder, made=made, tick=tick)
    return maps, _cost(maps, seconds)


def derive_maps(
    params: AttributionParams,
    test: ImageSet,
    source: Attributions,
    cost: dict,
    dataset: str,
    method: str,
    project: Path,
) -> tuple[Attributions, dict]:
    """A fair twin of stored maps: averaged over superpixels, or blurred. Its cost is the source's and its own."""
    from iic.explainers.work import derive_images

    made = {**source.made, "method": method, "derived_from": source_of(method)}
    segmenter, folder = _segmenter(params, test, project), _folder(project, dataset, method)
    with counter(f"{dataset}: {method}", "image", len(source.indices)) as tick:
        maps, seconds = derive_images(method, source, test.images, segmenter, params, folder, made=made, tick=tick)
    return maps, _cost(maps, cost["seconds"] + seconds)


def _segmenter(params: AttributionParams, test: ImageSet, project: Path) -> Segmenter:
    if params.segments is None:
        return Segmenter(params)
    return Segmenter(params, load_label_map(project / params.segments, len(test), test.images.shape[2:]))


def _folder(project: Path, dataset: str, method: str) -> Path:
    return project / "data" / "07_attributions" / dataset / method


def _cost(maps: Attributions, seconds: float) -> dict:
    return {
        "images": len(maps.indices),
        "seconds": seconds,
        "seconds_per_image": seconds / len(maps.indices),
        **{key: maps.made[key] for key in ("parameters", "model", "precision", "same_class", "device")},
        **{f"mean_{name}": float(column.mean()) for name, column in maps.extras.items()},
    }
