"""The judges made ready: the explained network and its fine-tuned copies, each as its fastest forward.

Which precision is right for a judge is found out once, on masked training images; every method then gets the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from iic.classifiers.precision import CALIBRATED, choose_device, fast_forward, forward_in
from iic.data.images import ImageSet
from iic.draws import generator
from iic.evaluation.fills import Fills
from iic.evaluation.judges import random_masks
from iic.evaluation.outcomes import ADAPTED, EXPLAINED, Judges

SAMPLE = 1000  # masked training images on which a faster forward has to name float32's class

States = dict[str, dict[str, Tensor]]  # fill -> the fine-tuned copy's weights


def choose_precisions(
    model: nn.Module, states: States, train: ImageSet, fills: Fills, precision: str
) -> dict[str, dict]:
    """For each judge the fastest precision that names float32's class on 99.5 % of masked training images.

    Args:
        model: the explained network, not frozen.
        states: the second judges.
        train: the training images.
        fills: what masked images are filled with.
        precision: what is wanted; see `fast_forward`.

    Returns:
        JSON-ready: "explained", "adapted/<fill>" -> precision, same_class.
    """
    found = {}
    for name, network, sample in _networks(model, states, train, fills, SAMPLE):
        forward = fast_forward(network, sample, precision)
        found[name] = {"precision": forward.precision, "same_class": forward.same_class}
    return found


def ready_judges(
    model: nn.Module, states: States, precisions: dict[str, dict], train: ImageSet, fills: Fills
) -> Judges:
    """Every judge in the precision that was chosen for it: (judge, fill) -> frozen network; arguments as above."""
    device = choose_device("auto")
    ready = {
        name: forward_in(precisions[name]["precision"], network, sample, device)
        for name, network, sample in _networks(model, states, train, fills, CALIBRATED)
    }
    return {(EXPLAINED, fill): ready[EXPLAINED] for fill in states} | {
        (ADAPTED, fill): ready[f"{ADAPTED}/{fill}"] for fill in states
    }


def _networks(
    model: nn.Module, states: States, train: ImageSet, fills: Fills, count: int
) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Each judge's name, network, and masked training images as it will see them, float32 (about count, C, H, W).

    The first images are the same whatever the count. The explained network sees every fill in turn.
    """
    masked = {fill: _masked(train, fills, fill, count) for fill in states}
    each = -(-count // len(masked))
    yield EXPLAINED, model, torch.stack([some[:each] for some in masked.values()], 1).flatten(0, 1)
    for fill, state in states.items():
        judge = copy.deepcopy(model)
        judge.load_state_dict(state)
        yield f"{ADAPTED}/{fill}", judge, masked[fill]


def _masked(train: ImageSet, fills: Fills, fill: str, count: int) -> Tensor:
    rng = generator("judge", 0)
    chosen = rng.permutation(len(train))[:SAMPLE]
    keep = random_masks(len(chosen), train.images.shape[2:], rng)[:count]
    chosen = chosen[:count]
    return torch.from_numpy(fills(fill, train.images[chosen], keep, chosen, 0))
