"""Nodes for what a mask's shape gives away of the class."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from iic.data.images import ImageSet
from iic.errors import UserError
from iic.explainers.attributions import Attributions, select_images
from iic.explainers.names import explained_together
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams, EvaluationParams, TrainingParams
from iic.pipelines.attribution.nodes import explaining, own_labels
from iic.progress import bar, counter
from iic.provenance import JUDGING, code_hash


def leak_methods(
    params: EvaluationParams,
    attribution: AttributionParams,
    training: TrainingParams,
    model: Any,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    *,
    dataset: str,
    methods: tuple[str, ...],
    project: Path,
    **maps: Attributions,
) -> tuple[dict, ...]:
    """What the masks of one group's methods give away of the explained class; the group explains an image once.

    A network that is trained on a method's masks of training images reads those of the test images. `n` is the number
    of training images; 0, with a `reason`, where it is not measured. `maps` are those of the test images.
    """
    from iic.evaluation.leaks import why_not_measured

    segmenter = Segmenter(attribution, own_labels(attribution, test, project))
    silent = why_not_measured(methods, attribution, segmenter.labels)
    found = {method: {"method": method, "n": 0, "reason": reason} for method, reason in silent.items()}
    measured = {method: maps[method] for method in methods if method not in silent}
    if measured:
        (sources,) = explained_together(tuple(measured))
        names = dict.fromkeys((*sources, *measured))
        folders = {name: project / "data" / "07_attributions" / dataset / name / "training" for name in names}
        ours = _training_maps(params, segmenter, model, train, test, card, measured, sources, folders, dataset)
        for method, theirs in measured.items():
            found[method] = _read_masks(params, training, ours[method], theirs, card, f"{dataset}: {method}, leakage")
        for folder in folders.values():  # not sooner: what is interrupted is taken up
            shutil.rmtree(folder)
    return tuple(found[method] for method in methods)


def _training_maps(
    params: EvaluationParams,
    segmenter: Segmenter,
    model: Any,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    measured: dict[str, Attributions],
    sources: tuple[str, ...],
    folders: dict[str, Path],
    dataset: str,
) -> dict[str, Attributions]:
    """Maps of training images by the `measured` methods, whose maps of test images have to be made alike."""
    from iic.evaluation.leaks import Behind, training_maps

    chosen = select_images(train.labels, min(params.leakage_images, len(train)), params.seed)
    context, targets, origin = explaining(sources[0], model, train, card, segmenter, train.images, chosen, dataset)
    for method, maps in measured.items():
        _check_made_alike(maps, origin, dataset, method)
    made = {"images": "training", "data": card["train"]["sha256"], **origin}
    behind, indices = Behind(train.images, len(test)), len(test) + chosen
    total = (1 + len(folders) - len(sources)) * len(chosen)
    with counter(f"{dataset}: {' and '.join(sources)}, training images", "image", total) as tick:
        return training_maps(tuple(measured), sources, context, behind, indices, targets, folders, made=made, tick=tick)


def _read_masks(
    params: EvaluationParams,
    training: TrainingParams,
    ours: Attributions,
    theirs: Attributions,
    card: dict,
    name: str,
) -> dict:
    """The entry of a method: what its masks of training images teach of those of test images."""
    from iic.evaluation.leaks import mask_leakage

    found = mask_leakage(
        ours,
        theirs,
        share=params.keep,
        classes=len(card["train"]["images_per_class"]),
        seed=params.seed,
        flip=training.flip,
        progress=bar(name, "step"),
    )
    return {
        "method": ours.made["method"],
        "n": len(ours.indices),
        **found,
        "kept_share": params.keep,
        "made": ours.made,
        "judged": {"seed": params.seed, "code": code_hash(JUDGING)},
    }


def _check_made_alike(maps: Attributions, origin: dict, dataset: str, method: str) -> None:
    """Masks of training and test images are only comparable if the same network, parameters and code made them."""
    if any(maps.made.get(key) != origin[key] for key in ("model", "parameters", "code")):
        raise UserError(
            f"The maps of {dataset}.{method} were made with another network, other parameters or other code: "
            "run `kedro run --pipelines attribution` again, without --only-missing-outputs."
        )


def draw_leakage(dataset: str, **leaks: dict) -> Any:
    """What each method's masks give away."""
    from iic.report.leakage import leakage_bars

    return leakage_bars(dataset, leaks)
