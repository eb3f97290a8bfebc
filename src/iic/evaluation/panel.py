"""The judges made ready: the explained network and its fine-tuned copies, each as its fastest forward."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from iic.classifiers.precision import Forward, fast_forward
from iic.data.images import ImageSet
from iic.draws import generator
from iic.evaluation.fills import Fills
from iic.evaluation.judges import random_masks
from iic.evaluation.outcomes import ADAPTED, EXPLAINED, wanted_fills
from iic.params import EvaluationParams

SAMPLE = 1000  # masked training images on which a faster forward has to name float32's class


def fast_judges(
    model: nn.Module, states: dict[str, dict], train: ImageSet, fills: Fills, params: EvaluationParams
) -> dict[tuple[str, str], Forward]:
    """(judge, fill) -> its fastest forward that names float32's class on 99.5 % of masked training images.

    Args:
        model: the explained network, not frozen.
        states: fill -> the fine-tuned copy's weights.
        train: the training images.
        fills: what masked images are filled with.
        params: which fills, which precision.
    """
    names = wanted_fills(params)
    masked = {name: _masked(train, fills, name) for name in names}
    mixture = torch.cat([some[: SAMPLE // len(names)] for some in masked.values()])
    mixture = mixture[torch.randperm(len(mixture), generator=torch.Generator().manual_seed(0))]
    explained = fast_forward(model, mixture, params.precision)
    found = {(EXPLAINED, name): explained for name in names}
    for name in names:
        judge = copy.deepcopy(model)
        judge.load_state_dict(states[name])
        found[ADAPTED, name] = fast_forward(judge, masked[name], params.precision)
    return found


def _masked(train: ImageSet, fills: Fills, name: str) -> Tensor:
    """Training images as the matrix shows them: float32 (SAMPLE, C, H, W)."""
    rng = generator("judge", 0)
    chosen = rng.permutation(len(train))[:SAMPLE]
    images = train.images[chosen]
    return torch.from_numpy(fills(name, images, random_masks(len(images), images.shape[2:], rng), chosen, 0))
