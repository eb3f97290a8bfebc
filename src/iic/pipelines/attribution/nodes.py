"""Nodes that explain test images, with one method each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iic.data.images import ImageSet
from iic.explainers.attributions import Attributions, select_images
from iic.explainers.names import RANDOM_WEIGHTS, SAMPLED, base_of, source_of
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
    *,
    dataset: str,
    method: str,
    project: Path,
) -> tuple[Attributions, dict]:
    """Maps of the selected test images, and what they cost."""
    from iic.explainers.work import explain_images as explain

    labels = own_labels(params, test, project)
    # Relevance and gradients are always float32; 8 bits and bfloat16 are for methods that ask for outputs only.
    precision = params.precision if base_of(method) in SAMPLED else "float32"
    context, identity = context_of(params, train, card, model, Segmenter(params, labels), precision)
    indices = select_images(test.labels, params.n_images, params.seed)
    targets = explained_classes(context, test.images[indices], dataset)
    if method.endswith(RANDOM_WEIGHTS):  # the class is still the one that the trained network names
        from iic.evaluation.randomisation import random_weights

        other = random_weights(model, sample_of(train), params.seed)
        context, _ = context_of(params, train, card, other, Segmenter(params, labels), precision)
    made = {
        "method": method,
        "parameters": params.determining(),
        "model": identity,
        "data": card["test"]["sha256"],
        "precision": context.forward.precision,
        "same_class": context.forward.same_class,
        "device": context.forward.device,
    }
    folder = _folder(project, dataset, method)
    with counter(f"{dataset}: {method}", "image", len(indices)) as tick:
        maps, seconds = explain(method, context, test.images, indices, targets, folder, made=made, tick=tick)
    return maps, _cost(maps, seconds)


def context_of(
    params: AttributionParams,
    train: ImageSet,
    card: dict,
    model: Any,
    segmenter: Segmenter,
    precision: str,
) -> tuple[Any, str]:
    """How images are explained, and the fingerprint of the network."""
    from iic.classifiers.inference import fingerprint, freeze
    from iic.classifiers.precision import fast_forward
    from iic.explainers.context import Context

    forward = fast_forward(model, sample_of(train), precision, params.device)
    frozen = freeze(model)
    identity = fingerprint(frozen)
    mean = np.array(card["train"]["mean"])
    return Context(frozen.to(forward.device), forward, mean, params, segmenter), identity


def sample_of(train: ImageSet) -> Any:
    import torch

    return torch.from_numpy(train.images[np.linspace(0, len(train) - 1, min(SAMPLE, len(train)), dtype=int)])


def explained_classes(context: Any, images: np.ndarray, dataset: str) -> np.ndarray:
    """The predicted classes, in float32."""
    import torch

    from iic.classifiers.inference import predicted_class

    show = bar(f"{dataset}: classes", "batch")
    return (
        predicted_class(context.plain, torch.from_numpy(images).to(context.forward.device), progress=show).cpu().numpy()
    )


def derive_maps(
    params: AttributionParams,
    test: ImageSet,
    source: Attributions,
    cost: dict,
    dataset: str,
    method: str,
    project: Path,
) -> tuple[Attributions, dict]:
    """Maps made from stored ones: averaged over superpixels, blurred, their mean. Cost: the source's and their own."""
    from iic.explainers.work import derive_images

    made = {**source.made, "method": method, "derived_from": source_of(method)}
    segmenter = Segmenter(params, own_labels(params, test, project))
    folder = _folder(project, dataset, method)
    with counter(f"{dataset}: {method}", "image", len(source.indices)) as tick:
        maps, seconds = derive_images(method, source, test.images, segmenter, params, folder, made=made, tick=tick)
    return maps, _cost(maps, cost["seconds"] + seconds)


def own_labels(params: AttributionParams, test: ImageSet, project: Path) -> np.ndarray | None:
    if params.segments is None:
        return None
    return load_label_map(project / params.segments, len(test), test.images.shape[2:])


def _folder(project: Path, dataset: str, method: str) -> Path:
    return project / "data" / "07_attributions" / dataset / method


def _cost(maps: Attributions, seconds: float) -> dict:
    return {
        "images": len(maps.indices),
        "seconds": seconds,
        "seconds_per_image": seconds / len(maps.indices),
        **{key: maps.made[key] for key in ("parameters", "model", "data", "precision", "same_class", "device")},
        **{f"mean_{name}": float(column.mean()) for name, column in maps.extras.items()},
    }
