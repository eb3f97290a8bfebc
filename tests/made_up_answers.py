"""Answers of judges, made up at known rates, and the report on them."""

import numpy as np

from iic.evaluation.outcomes import Outcomes, cells
from iic.evaluation.summary import headline
from iic.provenance import REPORT_SCHEMA

N = 400
JUDGES = ("explained", "adapted")


def answers(rate, *, shares=(0.2,), seeds=(0, 1), seed=0, fills=("salt_and_pepper", "mean_colour"), constant=False):
    """A method on whose kept pixels both judges are right at this rate, image by image; ten classes."""
    rng = np.random.default_rng(seed)
    wanted = cells(fills, shares, seeds, JUDGES)
    labels = np.arange(N) % 10
    predicted = np.empty((len(wanted), N), np.int16)
    for k, cell in enumerate(wanted):
        right = rng.random(N) < (rate if cell.direction == "keep" else 1 - rate)
        predicted[k] = 3 if constant else np.where(right, labels, (labels + 1 + rng.integers(0, 9, N)) % 10)
    return Outcomes(tuple(wanted), np.arange(N), labels, labels, predicted, np.full(predicted.shape, 0.5, np.float32))


def report(outcomes):
    return {
        "dataset": {"dataset": "made-up"},
        "n_images": N,
        "matrix_images": N,
        "clean": {"accuracy": 1.0},
        "kept_share": 0.2,
        "kept_pixels": 157,
        "methods": {m: {"seconds_per_image": 0.1 * k, "forwards_per_image": 10 * k} for k, m in enumerate(outcomes)},
        "parameters": {"training": {"seed": 0, "weights": "trained"}},
        "headline": headline(outcomes, 0.2, replicates=400, seed=0),
        "curves": [],
        "schema": REPORT_SCHEMA,
        "made": {"model": "a network"},
    }


def known(**changes):
    rates = {"lime": 0.6, "lrp": 0.9, "lrp_superpixel": 0.75, "lime_logit": 0.6, "random": 0.3, "sobel": 0.31} | changes
    return {name: answers(rate, seed=i) for i, (name, rate) in enumerate(rates.items()) if rate is not None}


def silence(outcomes, name):
    """The outcomes, with one class named for all images of this method."""
    return outcomes | {name: answers(0.9, constant=True)}


def turned(outcomes, **rates):
    """The outcomes, but that the second judge answers at these rates."""
    for name, rate in rates.items():
        rows = outcomes[name].rows(judge="adapted")
        outcomes[name].predicted[rows] = answers(rate, seed=70).predicted[rows]
    return outcomes
