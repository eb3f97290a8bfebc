"""Nodes for the planted shortcut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iic.checks import is_own
from iic.data.images import SIDES, ImageSet
from iic.errors import UserError
from iic.explainers.attributions import select_images
from iic.explainers.names import EXPLAINERS
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams, EvaluationParams, TrainingParams
from iic.pipelines.attribution.nodes import context_of, own_labels
from iic.pipelines.training.nodes import like_the_explained, train_model
from iic.progress import bar, counter

COMPARED = ("random", "centre")  # controls that stand beside the explainers: one knows nothing, one looks elsewhere


def plant_shortcut(
    params: EvaluationParams,
    training: TrainingParams,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    dataset: str,
    project: Path,
) -> tuple[Any, dict]:
    """A network that was trained with a watermark on the images of one class, and whether it goes by it."""
    from torch import nn

    from iic.classifiers.inference import fingerprint, freeze
    from iic.evaluation.scores import correct, proportion
    from iic.evaluation.shortcut import plant, shortcut_taken

    reason = _why_no_network(training, train)
    if reason is not None:
        return nn.Identity(), {"dataset": dataset, "reason": reason}
    planted = plant(train, test, params.shortcut_class, share=params.shortcut_share, seed=params.seed)
    epochs = min(training.epochs, params.shortcut_epochs)
    # Small windows would cut the watermark off.
    recipe = like_the_explained(training, dataset, project).model_copy(update={"epochs": epochs, "crop_epochs": 0})
    network, _ = train_model(recipe, planted.train, card, f"{dataset}, with a shortcut")
    frozen = freeze(network)
    show = bar(f"{dataset}: shortcut", "batch")
    return network, {
        "dataset": dataset,
        "reason": None,
        "marked_class": params.shortcut_class,
        "class_name": list(card["train"]["images_per_class"])[params.shortcut_class],
        "share": params.shortcut_share,
        "seed": params.seed,
        "epochs": epochs,
        "test": proportion(correct(frozen, test.images, test.labels, show)),
        **shortcut_taken(frozen, planted, show),
        "model": fingerprint(frozen),
    }


def _why_no_network(training: TrainingParams, train: ImageSet) -> str | None:
    """Why no network with a shortcut can be trained by the project's recipe; None if it can."""
    if is_own(training):
        return "the explained network is the user's own, and how it was trained is not known here"
    if not all(side in SIDES for side in train.images.shape[2:]):
        return "the project's recipe is for images of 25 to 48 pixels a side"
    return None


def find_shortcut(
    params: EvaluationParams,
    attribution: AttributionParams,
    network: Any,
    planted: dict,
    test: ImageSet,
    train: ImageSet,
    card: dict,
    dataset: str,
    methods: tuple[str, ...],
    project: Path,
) -> dict:
    """Whether each explainer points at the watermark, in test images that the watermark alone made the marked class.

    Where nothing can be said, `reason` says why, `methods` is empty and `example` null.
    """
    from iic.classifiers.inference import fingerprint, freeze
    from iic.evaluation.planted import turned_images, why_silent
    from iic.evaluation.shortcut import plant
    from iic.explainers.context import precision_of

    if planted["reason"] is not None:
        return {**planted, "n_images": 0, "methods": {}, "example": None}
    frozen = freeze(network)
    if fingerprint(frozen) != planted["model"]:
        raise UserError(
            f"The planted shortcut of {dataset} was measured on another network: "
            "run `kedro run --pipelines evaluation` again, without --only-missing-outputs."
        )
    data = plant(train, test, planted["marked_class"], share=planted["share"], seed=planted["seed"])
    turned = turned_images(frozen, data, bar(f"{dataset}: shortcut", "batch"))
    result = {
        **{key: planted[key] for key in ("dataset", "marked_class", "class_name", "taken", "model")},
        "turned": len(turned),
        "reason": why_silent(planted, len(turned), planted["class_name"]),
        "parameters": attribution.determining(),
    }
    if result["reason"] is not None:
        return {**result, "n_images": 0, "methods": {}, "example": None}
    order = select_images(test.labels[turned], min(params.shortcut_images, len(turned)), params.seed)
    indices = turned[order]
    segmenter = Segmenter(attribution, own_labels(attribution, test, project))
    wanted = (*(m for m in methods if m in EXPLAINERS), *COMPARED)
    precisions = {m: precision_of(m, attribution) for m in wanted}
    contexts = {p: context_of(network, train, card, segmenter, p) for p in set(precisions.values())}
    explained = {m: _explain(m, contexts[precisions[m]], data, indices, f"{dataset}: shortcut, {m}") for m in wanted}
    return {**result, **_judged(params, explained, data, indices, card)}


def _explain(method: str, context: Any, data: Any, indices: np.ndarray, name: str) -> np.ndarray:
    """Maps of marked images for the marked class: float32 (N, H, W)."""
    from iic.explainers.work import Shard, explain_shard

    shard = Shard(0, data.marked.images[indices], indices, np.full(len(indices), data.marked_class))
    with counter(name, "image", len(indices)) as tick:
        return explain_shard(method, context, shard, tick)[0].values


def _judged(
    params: EvaluationParams, explained: dict[str, np.ndarray], data: Any, indices: np.ndarray, card: dict
) -> dict:
    """The numbers of each method, and the first image with its maps."""
    from iic.evaluation.planted import packed, summarise

    first = indices[0]
    draws = {"replicates": params.bootstrap, "seed": params.seed}
    return {
        "n_images": len(indices),
        "methods": {m: summarise(maps, data.patch[indices], indices, **draws) for m, maps in explained.items()},
        "example": {
            "index": int(first),
            "class_name": list(card["test"]["images_per_class"])[data.clean.labels[first]],
            "image": packed(data.marked.images[first]),
            "patch": packed(data.patch[first]),
            "maps": {m: packed(maps[0]) for m, maps in explained.items()},
        },
    }


def draw_shortcut(found: dict) -> Any:
    """Whether each method points at the watermark."""
    from iic.report.planted import shortcut_figure

    return shortcut_figure(found)
