"""Nodes that draw what the Bayesian pipeline has found."""

from __future__ import annotations

from typing import Any

from iic.errors import UserError


def draw_bayesian(report: dict) -> Any:
    """Accuracy and confidence on what each method keeps."""
    from iic.report.bayes import bayesian_plot

    return bayesian_plot(report)


def draw_reliability(uncertainty: dict, dataset: str) -> Any:
    """Accuracy against confidence, a panel for each network."""
    from iic.report.uncertainty import reliability_plot

    return reliability_plot(dataset, uncertainty["networks"])


def draw_selection(uncertainty: dict, dataset: str) -> Any:
    """Risk over coverage."""
    from iic.report.uncertainty import selection_plot

    return selection_plot(dataset, uncertainty["networks"])


def draw_outside(uncertainty: dict, dataset: str) -> Any:
    """How well each network knows foreign images."""
    from iic.report.uncertainty import outside_plot

    if "typicality" not in uncertainty:
        raise UserError(
            f"{dataset}.uncertainty is an older version's, without a density of the images: "
            "run `kedro run --pipelines bayesian` again, without --only-missing-outputs."
        )
    return outside_plot(dataset, uncertainty["networks"], uncertainty["typicality"])


def draw_doubt(doubt: dict, dataset: str) -> Any:
    """Accuracy, refusal and doubt as pixels are kept or removed."""
    from iic.report.doubt import doubt_plot

    return doubt_plot(dataset, doubt)


def draw_refusals(refusals: dict, dataset: str) -> Any:
    """Mutual information as the pixels that explain it are removed."""
    from iic.report.posterior_maps import removal_plot

    return removal_plot(refusals["mutual_information"], dataset)


def draw_variance(variance: dict, dataset: str) -> Any:
    """The sources of an explanation's variance."""
    from iic.report.variance import variance_plot

    return variance_plot(dataset, variance)
