"""Nodes that judge the explanations and report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from iic.data.images import ImageSet
from iic.errors import UserError
from iic.explainers.attributions import Attributions
from iic.params import AttributionParams, EvaluationParams, TrainingParams
from iic.progress import bar
from iic.provenance import JUDGING, REPORT_SCHEMA, code_hash, made_like


def train_judges(
    params: EvaluationParams, training: TrainingParams, model: Any, train: ImageSet, card: dict, dataset: str
) -> tuple[dict[str, dict], dict[str, dict]]:
    """The second judges' weights, fill by fill, and the precision that suits each judge."""
    from functools import partial

    from iic.classifiers.precision import choose_device
    from iic.evaluation.judges import fine_tune
    from iic.evaluation.outcomes import wanted_fills
    from iic.evaluation.panel import choose_precisions

    fills = _fills(train, card)
    recipe = {"epochs": params.judge_epochs, "flip": training.flip, "dtype": training.dtype}
    where, judges = choose_device(training.device), {}
    for name in wanted_fills(params):
        show = bar(f"{dataset}: judge of {name}", "step")
        judge = fine_tune(model, train, partial(fills, name), seed=params.seed, device=where, progress=show, **recipe)
        judges[name] = judge.state_dict()
    return judges, choose_precisions(model, judges, train, fills, params.precision)


def judge_method(
    params: EvaluationParams,
    maps: Attributions,
    model: Any,
    judges: dict[str, dict],
    precisions: dict[str, dict],
    train: ImageSet,
    test: ImageSet,
    card: dict,
    dataset: str,
    method: str,
) -> tuple[Any, Any]:
    """What both judges say of the method's maps: the headline on all explained images, the matrix on some of them."""
    from iic.classifiers.inference import fingerprint, freeze, state_fingerprint
    from iic.evaluation.degradation import tied_share
    from iic.evaluation.outcomes import headline_cells, judge_draws, matrix_cells
    from iic.evaluation.panel import ready_judges
    from iic.explainers.controls import draws_of

    fills = _fills(train, card)
    ready = ready_judges(model, judges, precisions, train, fills)
    draws = draws_of(method, maps, params.seed)
    made = {
        "parameters": params.model_dump(mode="json"),
        "model": fingerprint(freeze(model)),
        "data": card["test"]["sha256"],
        "maps": made_like(maps.made),
        "judges": {fill: state_fingerprint(state) for fill, state in judges.items()},
        "code": code_hash(JUDGING),
        "precision": precisions,
        "tied_share": tied_share(np.asarray(maps.values)),
    }

    def judged(part: str, cells: list, count: int | None) -> Any:
        show = bar(f"{dataset}: {method}, {part}", "group")
        return judge_draws(draws, ready, test, fills, cells, seed=params.seed, count=count, made=made, progress=show)

    headline = judged("headline", headline_cells(params), None)
    return headline, judged("matrix", matrix_cells(params), params.matrix_images)


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

    return verdict(_current(report))


def _current(report: dict) -> dict:
    """The report, unless an older version of the code wrote it, with other fields."""
    if report.get("schema") != REPORT_SCHEMA:
        raise UserError(
            f"The accuracy report of '{report['dataset']['dataset']}' was written by another version of the code: "
            "run `kedro run --pipelines evaluation` again, without --only-missing-outputs."
        )
    return report


def tabulate(report: dict) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The report as tables: every cell, every lead over the best control, every claim; a row each."""
    from iic.evaluation.tables import cell_table, claim_table, lead_table

    report = _current(report)
    return cell_table(report), lead_table(report), claim_table(report)


def draw_curves(report: dict) -> Any:
    """Accuracy over the share of pixels, one panel per judge, direction and fill."""
    from iic.report.degradation import degradation_curves

    return degradation_curves(_current(report))


def draw_cost(report: dict) -> Any:
    """Score against cost."""
    from iic.report.pareto import score_against_cost

    return score_against_cost(_current(report))


def draw_accuracy(report: dict) -> Any:
    """Bar chart of the report."""
    from iic.report.bars import accuracy_bars

    return accuracy_bars(_current(report))


def compare_visually(params: EvaluationParams, test: ImageSet, card: dict, **maps: Attributions) -> Any:
    """Image beside each method's map, three images of each class."""
    from iic.report.grid import comparison_grid

    return comparison_grid(test, tuple(card["test"]["images_per_class"]), maps, params.per_class)
