"""Networks as a study of uncertainty asks them: inputs in, samples of class probabilities out, whatever they are.

Inputs are images uint8 (N, C, H, W); where a posterior of the last layer is studied, what the frozen layers before it
make of them, float32 (N, F), is computed once for all networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from iic.bayes.inference import fast_dtype, sample_logits, sample_probabilities
from iic.bayes.point import Point
from iic.bayes.record import Learnt
from iic.bayes.selection import selection_measures
from iic.bayes.uncertainty_table import read, uncertainty_table
from iic.classifiers.inference import freeze, predict_logits

PLAIN = "plain"  # the convolutional network at its temperature, in every table
PLAIN_SAME = "plain_same_network"  # plain, of the posteriors' architecture: they differ in being Bayesian, and in prior


@dataclass(frozen=True)
class Ask:
    """How a network is asked: inputs (N, ...) in, probabilities float (S, N, K) out.

    Attributes:
        answer: what answers.
        precision: what its hidden layers compute in.
    """

    answer: Callable[[np.ndarray], np.ndarray]
    precision: str = "float32"

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        return self.answer(inputs)


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

    return Ask(ask)


def ask_point(point: Point) -> Ask:
    """Probabilities of a plain network of the posteriors' architecture, at its temperature, as one sample."""

    def ask(inputs: np.ndarray) -> np.ndarray:
        logits = sample_logits(point, inputs, 1, seed=0).double()
        return (logits / point.temperature).softmax(-1).numpy()

    return Ask(ask)


def ask_posterior(posterior: Learnt, samples: int, *, seed: int, progress: Callable = iter) -> Ask:
    """Probabilities under weights drawn from a posterior, the same draws for all images, as fast as this machine can.

    See `inference.fast_dtype`.
    """
    dtype, samples = fast_dtype(posterior, samples), posterior.distinct(samples)  # members weigh alike

    def ask(inputs: np.ndarray) -> np.ndarray:
        options = {"seed": seed, "dtype": dtype, "progress": progress}
        return sample_probabilities(posterior, inputs, samples, **options).numpy()

    return Ask(ask, str(dtype).removeprefix("torch."))


def uncertainty_report(
    networks: Mapping[str, Ask],
    test: Labelled,
    validation: Labelled,
    outside: Mapping[str, np.ndarray],
    typical: Mapping[str, np.ndarray],
    *,
    seed: int,
    replicates: int,
) -> dict:
    """`uncertainty_table` of every network, and how well their confidence sorts the same test images.

    Args:
        networks: name -> how it is asked.
        test: the test set.
        validation: training images on which thresholds are chosen: no network's weights should have learnt from them.
            The plain network's temperature is fitted on them, if it was trained with a validation set.
        outside: name -> inputs of out-of-distribution images.
        typical: "test" and the names of `outside` -> bool (N,), which images look like training images.
        seed: of all bootstraps.
        replicates: number of bootstrap samples.

    Returns:
        JSON-ready: `networks` by name, each with the `precision` that it was asked in; `confidence_compared`, areas and
        paired differences from the first network and, if it is there, from PLAIN_SAME.
    """
    tables, confidence = {}, {}
    inputs = [test.inputs, validation.inputs, *outside.values()]
    ends = np.cumsum([len(some) for some in inputs])[:-1]
    for name, ask in networks.items():
        # all at once: weights are drawn, and laid out for the products, once
        answers, held, *foreign = np.split(ask(np.concatenate(inputs)), ends, axis=1)
        tables[name] = uncertainty_table(
            answers,
            test.labels,
            held,
            validation.labels,
            dict(zip(outside, foreign, strict=True)),
            seed=seed,
            replicates=replicates,
            typical=typical,
        ) | {"precision": ask.precision}
        found = read(answers)
        confidence[name] = found.selectors["confidence"], found.predicted != test.labels
    also = tuple(name for name in (PLAIN_SAME,) if name in networks)
    compared = selection_measures(confidence, replicates=replicates, seed=seed, also=also)
    return {"networks": tables, "confidence_compared": compared}
