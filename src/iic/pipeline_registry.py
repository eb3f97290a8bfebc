"""The pipelines by name, registered explicitly (see docs/decisions.md)."""

import click
from kedro.pipeline import Pipeline

from iic.errors import UserError
from iic.pipelines.attribution.pipeline import create_pipeline as attribution
from iic.pipelines.bayesian.pipeline import create_pipeline as bayesian
from iic.pipelines.data_prep.pipeline import create_pipeline as data_prep
from iic.pipelines.evaluation.pipeline import create_pipeline as evaluation
from iic.pipelines.training.pipeline import create_pipeline as training
from iic.selection import configured_parameters, one_channel, project_folder, selected_datasets, selected_methods


def register_pipelines() -> dict[str, Pipeline]:
    """`data_prep`, `training` and `attribution` are one stage each; `evaluation` and `bayesian` hold all they need."""
    try:
        datasets, methods = selected_datasets(), selected_methods()
    except UserError as error:  # a command of Kedro's own prints this kind as a sentence
        raise click.ClickException(str(error)) from None
    prepared = data_prep(datasets)
    trained = training(datasets, project_folder())
    attributed = attribution(datasets, methods, project_folder())
    evaluated = evaluation(datasets, methods, project_folder())
    grey = one_channel(datasets, configured_parameters())
    bayes = bayesian(grey, methods, project_folder(), tuple(d for d in datasets if d not in grey))
    everything = prepared + trained + attributed + evaluated + bayes
    return {
        "__default__": everything,
        "data_prep": prepared,
        "training": trained,
        "attribution": attributed,
        "evaluation": everything.to_outputs(*evaluated.outputs()),
        "bayesian": everything.to_outputs(*bayes.outputs()),
    }
