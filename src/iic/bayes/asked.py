"""Networks as a study of uncertainty asks them: inputs in, samples of class probabilities out, whatever they are.

Inputs are images uint8 (N, C, H, W); where a posterior of the last layer is studied, what the frozen layers before it
make of them, float32 (N, F), is computed once for all networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from iic.bayes.inference import sample_probabilities
from iic.bayes.record import Learnt
from iic.bayes.selection import selection_measures
from iic.bayes.uncertainty_table import Thresholds, degradation_row, read, uncertainty_table
from iic.classifiers.inference import freeze, predict_logits
from iic.data.images import ImageSet
from iic.evaluation.degradation import pixel_ranks
from iic.evaluation.fills import Fills
from iic.evaluation.outcomes import DIRECTIONS
from iic.explainers.attributions import Attributions

PLAIN = "plain"  # the convolutional network at its temperature, in every table
Ask = Callable[[np.ndarray], np.ndarray]  # inputs (N, ...) -> float (S, N, K)


class Labelled(NamedTuple):
    """Inputs (N, ...) and labels int64 (N,)."""

    inputs: np.ndarray
    labels: np.ndarray


def ask_plain(model: nn.Module, *, of_features: bool = False) -> Ask:
    """A network's probabilities at its temperature, as one sample; `of_features`: its last layer's."""
    layer, temperature = model[-1] if of_features else freeze(model), float(model.temperature)

    @torch.no_grad()
    def ask(inputs: np.ndarray) -> np.ndarray:
        raw = torch.from_numpy(inputs)
        logits = (layer(raw) if of_features else predict_logits(layer, raw)).double()
        return (logits / temperature).softmax(1).numpy()[None]

    return ask


def ask_posterior(posterior: Learnt, samples: int, *, seed: int, progress: Callable = iter) -> Ask:
    """Probabilities under weights drawn from a posterior, the same draws for all images."""

    def ask(inputs: np.ndarray) -> np.ndarray:
        return sample_probabilities(posterior, inputs, samples, seed=seed, progress=progress).numpy()

    return ask


def uncertainty_report(
    networks: Mapping[str, Ask],
    test: Labelled,
    validation: Labelled,
    outside: Mapping[str, np.ndarray],
    *,
    seed: int,
    replicates: int,
) -> dict:
    """`uncertainty_table` of every network, and how well their confidence sorts the same test images.

    Args:
        networks: name -> how it is asked.
        test: the test set.
        validation: those of training images that none of the networks has learnt from; thresholds are chosen on them.
        outside: name -> inputs of out-of-distribution images.
        seed: of all bootstraps.
        replicates: number of bootstrap samples.

    Returns:
        JSON-ready: `networks` by name; `confidence_compared`, areas and differences from the first network, paired.
    """
    tables, confidence = {}, {}
    for name, ask in networks.items():
        answers = ask(test.inputs)
        tables[name] = uncertainty_table(
            answers,
            test.labels,
            ask(validation.inputs),
            validation.labels,
            {foreign: ask(inputs) for foreign, inputs in outside.items()},
            seed=seed,
            replicates=replicates,
        )
        found = read(answers)
        confidence[name] = found.selectors["confidence"], found.predicted != test.labels
    return {
        "networks": tables,
        "confidence_compared": selection_measures(confidence, replicates=replicates, seed=seed),
    }


def doubt_report(
    networks: Mapping[str, Ask],
    thresholds: Mapping[str, Thresholds],
    maps: Mapping[str, Attributions],
    test: ImageSet,
    fills: Fills,
    *,
    share: float,
    fill_names: tuple[str, ...],
    noise_seed: int,
    seed: int,
    replicates: int,
    see: Callable[[np.ndarray], np.ndarray] = lambda images: images,
) -> dict:
    """What the networks say as the most important pixels are kept or removed: `degradation_row` for each.

    Args:
        networks: name -> how it is asked.
        thresholds: name -> from `choose_thresholds`, on clean validation images.
        maps: method -> attributions of the explained network, controls among them.
        test: the test set.
        fills: what takes the place of pixels.
        share: of the pixels that are kept, or removed.
        fill_names: of `fills`.
        noise_seed: of the fills.
        seed: keys ties in the maps, and the bootstrap.
        replicates: number of bootstrap samples.
        see: what makes the networks' inputs of images.

    Returns:
        JSON-ready: `share`, and `networks`: name -> method -> "keep" or "remove" -> fill -> row.
    """
    rows: dict[str, dict] = {name: {method: {} for method in maps} for name in networks}
    for method, found in maps.items():
        images, labels = test.images[found.indices], test.labels[found.indices]
        top = pixel_ranks(np.asarray(found.values), found.indices, seed) < round(share * images[0, 0].size)
        for direction in DIRECTIONS:
            keep = top if direction == "keep" else ~top
            for fill in fill_names:
                pixels = np.rint(fills(fill, images, keep, found.indices, noise_seed)).astype(np.uint8)
                inputs = see(pixels)
                for name, ask in networks.items():
                    row = degradation_row(ask(inputs), labels, thresholds[name], seed=seed, replicates=replicates)
                    rows[name][method].setdefault(direction, {})[fill] = row
    return {"share": share, "networks": rows}
