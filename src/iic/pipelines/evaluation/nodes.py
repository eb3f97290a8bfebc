"""Nodes that judge the explanations and report."""

from __future__ import annotations

from typing import Any

import numpy as np

from iic.data.images import ImageSet
from iic.explainers.attributions import Attributions
from iic.params import AttributionParams, EvaluationParams, TrainingParams
from iic.progress import bar


def score_method(params: EvaluationParams, maps: Attributions, model: Any, test: ImageSet, card: dict) -> dict:
    """Accuracy of the network on what the method's maps keep."""
    from iic.classifiers.inference import freeze
    from iic.evaluation.scores import score

    return score(maps, freeze(model), test, np.array(card["train"]["mean"]), params, progress=bar("scores", "batch"))


def report_accuracy(
    params: EvaluationParams,
    attribution: AttributionParams,
    training: TrainingParams,
    model: Any,
    test: ImageSet,
    accuracy: dict,
    card: dict,
    dataset: str,
    **results: dict,
) -> dict:
    """The accuracy report; `results` holds `scores_<method>` and `cost_<method>`."""
    from iic.classifiers.inference import freeze
    from iic.evaluation.report import accuracy_report

    scores = {k.removeprefix("scores_"): v for k, v in results.items() if k.startswith("scores_")}
    costs = {k.removeprefix("cost_"): v for k, v in results.items() if k.startswith("cost_")}
    return accuracy_report(
        dataset,
        freeze(model),
        test,
        scores,
        costs,
        card=card,
        model_accuracy=accuracy,
        parameters={"evaluation": params, "attribution": attribution, "training": training},
    )


def draw_accuracy(report: dict) -> Any:
    """Bar chart of the report."""
    from iic.report.bars import accuracy_bars

    return accuracy_bars(report)


def compare_visually(params: EvaluationParams, test: ImageSet, card: dict, **maps: Attributions) -> Any:
    """Image beside each method's map, three images of each class."""
    from iic.report.grid import comparison_grid

    return comparison_grid(test, tuple(card["test"]["images_per_class"]), maps, params.per_class)
