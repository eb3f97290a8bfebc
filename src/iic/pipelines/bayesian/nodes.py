"""Nodes that train a Bayesian network and say what it knows and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iic.data.images import ImageSet
from iic.explainers.attributions import Attributions
from iic.params import BayesianParams, EvaluationParams
from iic.progress import bar
from iic.shipped import FOLDER, check_shipped, load_shipped


def train_bayesian(
    params: BayesianParams, train: ImageSet, card: dict, dataset: str, project: Path | None = None
) -> Any:
    """The posterior of a network of linear layers and ReLU, learnt here or shipped with the project."""
    from iic.bayes.inference import Posterior, Settings, fit

    if params.weights == "shipped":
        path = (project or Path()) / FOLDER / f"{dataset}_bayesian.pt"
        check_shipped(path, card["train"]["sha256"])
        return Posterior.from_state_dict(load_shipped(path))
    names = ("hidden", "prior_scale", "epochs", "batch_size", "learning_rate")
    settings = Settings(**{name: getattr(params, name) for name in names})
    show = bar(f"{dataset}: Bayesian network", "step")
    return fit(train.images, train.labels, settings, seed=params.seed, progress=show)


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


def draw_bayesian(report: dict) -> Any:
    """The report as a picture."""
    from iic.report.bayes import bayesian_plot

    return bayesian_plot(report)
