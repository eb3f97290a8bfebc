"""Nodes that judge the explanations and report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from iic.data.images import ImageSet
from iic.explainers.attributions import Attributions
from iic.params import AttributionParams, EvaluationParams, TrainingParams
from iic.progress import bar

RANDOM_DRAWS = 5  # of random pixels and superpixels, averaged: the luck of one draw is no control


def train_judges(
    params: EvaluationParams, training: TrainingParams, model: Any, train: ImageSet, card: dict, dataset: str
) -> dict[str, dict]:
    """The second judges' weights: for each fill those of a copy of the network that has seen masked images."""
    from functools import partial

    from iic.evaluation.judges import fine_tune
    from iic.evaluation.outcomes import wanted_fills

    fills = _fills(train, card)
    return {
        name: fine_tune(
            model,
            train,
            partial(fills, name),
            seed=params.seed,
            epochs=params.judge_epochs,
            flip=training.flip,
            dtype=training.dtype,
            progress=bar(f"{dataset}: judge of {name}", "step"),
        ).state_dict()
        for name in wanted_fills(params)
    }


def judge_method(
    params: EvaluationParams,
    maps: Attributions,
    model: Any,
    judges: dict[str, dict],
    train: ImageSet,
    test: ImageSet,
    card: dict,
    dataset: str,
    method: str,
) -> tuple[Any, Any]:
    """What both judges say of the method's maps: the headline on all explained images, the matrix on some of them."""
    from iic.classifiers.inference import fingerprint, freeze
    from iic.evaluation.degradation import tied_share
    from iic.evaluation.outcomes import headline_cells, judge_maps, matrix_cells, merged
    from iic.evaluation.panel import fast_judges
    from iic.explainers.controls import drawn_again

    fills = _fills(train, card)
    fast = fast_judges(model, judges, train, fills, params)
    made = {
        "parameters": params.model_dump(mode="json"),
        "model": fingerprint(freeze(model)),
        "data": card["test"]["sha256"],
        "precision": {"/".join(key): forward.precision for key, forward in fast.items()},
        "tied_share": tied_share(np.asarray(maps.values)),
    }
    forwards = {key: forward.model for key, forward in fast.items()}
    draws = [maps]
    if method in ("random", "random_superpixels"):
        draws += [drawn_again(maps, params.seed, draw) for draw in range(1, RANDOM_DRAWS)]

    def judged(part: str, cells: list, count: int | None) -> Any:
        show = bar(f"{dataset}: {method}, {part}", "group")
        return merged(
            [
                judge_maps(one, forwards, test, fills, cells, seed=params.seed, count=count, made=made, progress=show)
                for one in draws
            ]
        )

    headline = judged("headline", headline_cells(params), None)
    matrix = judged("matrix", matrix_cells(params), params.matrix_images)
    return headline, matrix


def _fills(train: ImageSet, card: dict) -> Any:
    from iic.evaluation.fills import Fills

    return Fills(np.array(card["train"]["mean"]), train.images)


def report_accuracy(
    params: EvaluationParams,
    attribution: AttributionParams,
    training: TrainingParams,
    model: Any,
    test: ImageSet,
    accuracy: dict,
    card: dict,
    dataset: str,
    **results: Any,
) -> dict:
    """The accuracy report; `results` holds `headline_<method>`, `matrix_<method>` and `cost_<method>`."""
    from iic.classifiers.inference import freeze
    from iic.evaluation.report import accuracy_report

    def of(kind: str) -> dict:
        return {k.removeprefix(kind): v for k, v in results.items() if k.startswith(kind)}

    return accuracy_report(
        dataset,
        freeze(model),
        test,
        of("headline_"),
        of("matrix_"),
        of("cost_"),
        card=card,
        model_accuracy=accuracy,
        parameters={"evaluation": params, "attribution": attribution, "training": training},
    )


def write_verdict(report: dict) -> str:
    """What the report says, in sentences."""
    from iic.evaluation.verdict import verdict

    return verdict(report)


def tabulate(report: dict) -> pd.DataFrame:
    """Every cell of the report, a row each."""
    from iic.evaluation.tables import cell_table

    return cell_table(report)


def draw_curves(report: dict) -> Any:
    """Accuracy over the share of pixels, one panel per judge, direction and fill."""
    from iic.report.degradation import degradation_curves

    return degradation_curves(report)


def draw_cost(report: dict) -> Any:
    """Score against cost."""
    from iic.report.pareto import score_against_cost

    return score_against_cost(report)


def draw_accuracy(report: dict) -> Any:
    """Bar chart of the report."""
    from iic.report.bars import accuracy_bars

    return accuracy_bars(report)


def compare_visually(params: EvaluationParams, test: ImageSet, card: dict, **maps: Attributions) -> Any:
    """Image beside each method's map, three images of each class."""
    from iic.report.grid import comparison_grid

    return comparison_grid(test, tuple(card["test"]["images_per_class"]), maps, params.per_class)
