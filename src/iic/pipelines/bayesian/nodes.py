"""Nodes that learn posteriors of the weights and say what they know, doubt and refuse."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from iic.data.images import ImageSet, hold_out
from iic.errors import UserError
from iic.explainers.attributions import Attributions
from iic.params import BayesianParams, EvaluationParams, TrainingParams
from iic.progress import bar
from iic.shipped import FOLDER, check_shipped, load_shipped

TURNS = (1, 2)  # quarter turns that make digits foreign


def train_bayesian(
    params: BayesianParams,
    training: TrainingParams,
    train: ImageSet,
    card: dict,
    dataset: str,
    project: Path | None = None,
) -> Any:
    """The posterior of a network of linear layers and ReLU, learnt here or shipped with the project."""
    from iic.bayes import posteriors

    if params.weights == "shipped":
        path = (project or Path()) / FOLDER / f"{dataset}_bayesian.pt"
        check_shipped(path, card["train"]["sha256"])
        return posteriors.from_state_dict(load_shipped(path))
    return _fit(params.posterior, params, training, train, dataset)


def train_references(params: BayesianParams, training: TrainingParams, train: ImageSet, dataset: str) -> dict[str, Any]:
    """Other posteriors of the same network, by name."""
    return {kind: _fit(kind, params, training, train, dataset) for kind in params.references}


def _fit(kind: str, params: BayesianParams, training: TrainingParams, train: ImageSet, dataset: str) -> Any:
    from iic.bayes import posteriors
    from iic.bayes.settings import Settings

    rest, _ = hold_out(train, training.n_validation, training.seed)
    chosen = {field.name for field in fields(Settings)} & set(BayesianParams.model_fields)
    settings = Settings(**params.model_dump(include=chosen))
    show = bar(f"{dataset}: posterior, {kind}", "step")
    return posteriors.fit(kind, rest.images, rest.labels, settings, seed=params.seed, progress=show)


def measure_uncertainty(
    params: BayesianParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
    model: Any,
    posterior: Any,
    references: dict[str, Any],
    train: ImageSet,
    test: ImageSet,
    dataset: str,
) -> dict:
    """Scores, calibration, selection and foreign images for every posterior, beside the plain network.

    Raises:
        UserError: no training images are held out, on which thresholds could be chosen.
    """
    from iic.bayes.asked import uncertainty_report
    from iic.bayes.shifts import outside_images
    from iic.data.shapes import draw_shapes

    _, validation = hold_out(train, training.n_validation, training.seed)
    if not len(validation):
        raise UserError(
            f"Thresholds of refusal are chosen on held-out training images, and {dataset}.training.n_validation is 0: "
            "set it to 200, say."
        )
    count = params.noise_images
    # the other dataset that is at hand everywhere; an entry of another dataset's would make this node depend on it
    foreign = {"shapes": draw_shapes(count, seed=params.seed, progress=bar("shapes: images", "image")).images}
    outside = outside_images(test.images[:count], foreign, seed=params.seed, turns=TURNS)
    networks = _networks(params, model, {params.posterior: posterior, **references}, dataset)
    draws = {"seed": evaluation.seed, "replicates": evaluation.bootstrap}
    report = uncertainty_report(networks, test, validation, outside, **draws)
    return {"dataset": dataset, **report, "parameters": params.model_dump(mode="json")}


def _networks(params: BayesianParams, model: Any, posteriors: dict[str, Any], dataset: str) -> dict[str, Any]:
    from iic.bayes.asked import PLAIN, ask_plain, ask_posterior

    asked = {
        name: ask_posterior(
            posterior, params.samples, seed=params.seed, progress=bar(f"{dataset}: {name}, samples", "sample")
        )
        for name, posterior in posteriors.items()
    }
    return {PLAIN: ask_plain(model), **asked}


def measure_doubt(
    params: BayesianParams,
    evaluation: EvaluationParams,
    model: Any,
    posterior: Any,
    uncertainty: dict,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    dataset: str,
    **maps: Attributions,
) -> dict:
    """Accuracy, refusal and doubt on what each method keeps, or leaves, of an image."""
    from iic.bayes.asked import doubt_report
    from iic.evaluation.fills import Fills
    from iic.evaluation.outcomes import HEADLINE_FILLS

    networks = _networks(params, model, {params.posterior: posterior}, dataset)
    thresholds = {name: uncertainty["networks"][name]["thresholds"] for name in networks}
    fills = Fills(np.array(card["train"]["mean"]), train.images)
    report = doubt_report(
        networks,
        thresholds,
        maps,
        test,
        fills,
        share=evaluation.keep,
        fill_names=HEADLINE_FILLS,
        noise_seed=evaluation.noise_seeds[0],
        seed=evaluation.seed,
        replicates=evaluation.bootstrap,
    )
    return {"dataset": dataset, **report}


def report_bayesian(
    params: BayesianParams,
    evaluation: EvaluationParams,
    posterior: Any,
    test: ImageSet,
    card: dict,
    dataset: str,
    **maps: Attributions,
) -> dict:
    """Accuracy, coverage, refusal of noise, confidence on degraded images."""
    from iic.bayes.report import bayesian_report

    fill = np.array(card["train"]["mean"])
    show = bar(f"{dataset}: posterior samples", "sample")
    return bayesian_report(posterior, test, maps, fill, params, evaluation, dataset=dataset, progress=show)
