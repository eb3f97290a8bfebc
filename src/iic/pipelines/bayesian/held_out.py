"""Which training images choose the thresholds of refusal, and which networks have learnt from them all the same.

A part is (count, seed) of `hold_out`: those of one seed contain each other, the larger the smaller. The empty part is
that of a network of which nothing is known, or that was trained on these images in another order: parts are places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from iic.checks import is_own
from iic.data.card import checksum
from iic.data.images import ImageSet, hold_out
from iic.params import TrainingParams
from iic.shipped import NETWORKS, check_shipped, network_path

HELD = 500  # images on which thresholds are chosen, if the network's training held none out

Part = tuple[float, ...]  # (count, seed), or ()


def wanted_part(train: ImageSet, training: TrainingParams) -> Part:
    """What posteriors do not learn from, and thresholds are chosen on: as many as the plain network held out."""
    return training.n_validation or min(HELD, len(train) // 5), training.seed


def parted(train: ImageSet, training: TrainingParams) -> tuple[ImageSet, ImageSet]:
    """What posteriors learn from, and the images on which thresholds are chosen."""
    return hold_out(train, *wanted_part(train, training))


def plain_part(training: TrainingParams, train: ImageSet, dataset: str, project: Path) -> Part:
    """What the plain network's training held out: trained here, shipped with a card that says so, or the user's own."""
    if training.weights in NETWORKS:
        card = check_shipped(network_path(project, dataset, training.weights, training.seed))
        return part_of(card["recipe"]) if card["train_sha256"] == checksum(train) else ()
    return () if is_own(training) else (training.n_validation, training.seed)


def part_of(recipe: Mapping[str, Any]) -> Part:
    """What a model card says of it: `n_validation` and `seed`."""
    return (recipe["n_validation"], recipe["seed"]) if "n_validation" in recipe else ()


def with_part(posterior: Any, part: Part) -> Any:
    """The posterior, whose record says what was held out."""
    return replace(posterior, record=replace(posterior.record, held_out=part))


def who_learnt(plain: Part, posteriors: Mapping[str, Any], wanted: Part, last_layer: bool) -> dict[str, bool]:
    """For the plain network and every posterior: whether it may have learnt from some of the wanted images.

    A last layer knows what the layers before it have learnt, which are the plain network's.
    """
    from iic.bayes.asked import PLAIN

    before = has_learnt(plain, wanted)
    own = {name: has_learnt(posterior.record.held_out, wanted) for name, posterior in posteriors.items()}
    return {PLAIN: before, **{name: learnt or (last_layer and before) for name, learnt in own.items()}}


def has_learnt(own: Part, wanted: Part) -> bool:
    """Whether a network may have learnt from some of the wanted images: unless its own part contains theirs."""
    return not own or own[1] != wanted[1] or own[0] < wanted[0]
