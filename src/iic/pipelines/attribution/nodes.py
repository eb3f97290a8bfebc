"""Nodes that explain test images, with one method each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iic.data.images import ImageSet, evenly_spread
from iic.errors import UserError
from iic.explainers.attributions import CHECKED, Attributions, select_images
from iic.explainers.names import RANDOM_WEIGHTS, source_of
from iic.explainers.segmentation import Segmenter, load_label_map
from iic.params import AttributionParams
from iic.progress import bar, counter
from iic.provenance import EXPLAINING, code_hash, made_like

SAMPLE = 1000  # training images that a faster forward is fitted to and compared on
AT_ONCE = 250  # images whose classes are asked for


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
    twin: str | None = None,
) -> tuple:
    """Maps of the selected test images, and what they cost; the same of a `twin` from the same forwards, if named."""
    from iic.explainers.work import explain_outputs

    segmenter = Segmenter(params, own_labels(params, test, project))
    indices = select_images(test.labels, params.n_images, params.seed)
    context, targets, origin = explaining(method, model, train, card, segmenter, test.images, indices, dataset)
    checked = {name: getattr(context.forward, name) for name in CHECKED}
    made = {"data": card["test"]["sha256"], **origin, **checked}
    names = [name for name in (method, twin) if name]
    outputs = [(_folder(project, dataset, name), {"method": name, **made}) for name in names]
    with counter(f"{dataset}: {' and '.join(names)}", "image", len(indices)) as tick:
        found, seconds = explain_outputs(method, context, test.images, indices, targets, outputs, tick=tick)
    return tuple(entry for maps in found for entry in (maps, _cost(maps, seconds)))


def explaining(
    method: str,
    model: Any,
    train: ImageSet,
    card: dict,
    segmenter: Segmenter,
    images: np.ndarray,
    indices: np.ndarray,
    dataset: str,
) -> tuple[Any, np.ndarray, dict]:
    """How a method explains, the classes that the network names for the images at these indices, and what determines
    the maps."""
    from iic.classifiers.inference import fingerprint, freeze
    from iic.explainers.context import precision_of

    context = context_of(model, train, card, segmenter, precision_of(method, segmenter.params))
    targets = _classes(context, images, indices, dataset)
    if method.endswith(RANDOM_WEIGHTS):  # the class is still the one that the trained network names
        from iic.evaluation.randomisation import random_weights

        other = random_weights(model, sample_of(train), segmenter.params.seed)
        # in the trained network's precision: a random one's classes, nearly alike, would not tell whether it suffices
        context = context_of(other, train, card, segmenter, context.forward.precision)
    origin = {
        "parameters": segmenter.params.determining(),
        "segments": segmenter.fingerprint(),
        "train": card["train"].get("sha256"),  # the mean colour and the 8 bits' scales come from there
        "model": fingerprint(freeze(model)),
        "precision": context.forward.precision,
        "device": context.forward.device,
        "code": code_hash(EXPLAINING),
    }
    return context, targets, origin


def _classes(context: Any, images: np.ndarray, indices: np.ndarray, dataset: str) -> np.ndarray:
    """The classes that the network names in float32, int64 (n,); images are copied a few at a time."""
    import torch

    from iic.classifiers.inference import predicted_class

    named = []
    for at in bar(f"{dataset}: classes", "batch")(range(0, len(indices), AT_ONCE)):
        pixels = torch.from_numpy(images[indices[at : at + AT_ONCE]]).to(context.forward.device)
        named.append(predicted_class(context.plain, pixels, batch_size=AT_ONCE).cpu().numpy())
    return np.concatenate(named)


def context_of(model: Any, train: ImageSet, card: dict, segmenter: Segmenter, precision: str) -> Any:
    """The network made ready to be explained."""
    from iic.explainers.context import make_context

    return make_context(model, sample_of(train), np.array(card["train"]["mean"]), segmenter, precision)


def sample_of(train: ImageSet) -> Any:
    """Training images that a faster forward is fitted to, the first ones before all: uint8 (S, C, H, W)."""
    import torch

    return torch.from_numpy(evenly_spread(train, SAMPLE))


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

    segmenter = Segmenter(params, own_labels(params, test, project))
    _check_derivable(source, segmenter, f"{dataset}.{source_of(method)}")
    made = {**source.made, "parameters": params.determining(), "method": method, "derived_from": source_of(method)}
    folder = _folder(project, dataset, method)
    with counter(f"{dataset}: {method}", "image", len(source.indices)) as tick:
        maps, seconds = derive_images(method, source, test.images, segmenter, params, folder, made=made, tick=tick)
    return maps, _cost(maps, cost["seconds"] + seconds)


def _check_derivable(source: Attributions, segmenter: Segmenter, name: str) -> None:
    """Raise UserError unless the stored maps were made with today's parameters, but for the blur, and superpixels."""
    before, now = source.made["parameters"], segmenter.params.determining()
    changed = [key for key in now if key != "blur" and before.get(key) != now[key]]
    if changed or source.made.get("segments") != segmenter.fingerprint():
        what = changed[0] if changed else "segments"
        raise UserError(
            f"The maps of {name} were made with {what} = {before.get(what)}, and now it is {now[what]} (or its file is "
            "another): run the attribution pipeline for them, too."
        )


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
        **made_like(maps.made),
        **{name: maps.made.get(name) for name in CHECKED},
        **{f"mean_{name}": float(column.mean()) for name, column in maps.extras.items()},
    }
