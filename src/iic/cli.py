"""`kedro run` with errors as sentences: what the user can put right is said in one, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from kedro.config import MissingConfigException
from kedro.framework.cli.project import run as kedro_run
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError
from yaml import YAMLError

from iic.errors import UserError


@click.group(name=__name__)
def cli() -> None:
    """Commands of this project."""


def in_chain(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The first error of this kind in a chain of causes; Kedro wraps what happens when a dataset loads or saves."""
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None


@cli.command(name="run", params=kedro_run.params, help=kedro_run.help)
def run(**options) -> None:
    try:
        kedro_run.callback(**options)
    except MissingConfigException as error:
        raise click.ClickException(f"{error}: --env takes the name of a folder of conf, such as study.") from None
    except YAMLError as error:
        problem = getattr(error.__cause__, "problem", None)
        raise click.ClickException(f"{error}" + (f" There, {problem}." if problem else "")) from None
    except (UserError, ParameterValidationError, DatasetError, ValueError, OSError) as error:
        known = in_chain(error, UserError)
        if known is not None:
            raise click.ClickException(str(known)) from None
        failed = in_chain(error, OSError)
        if failed is not None:
            raise click.ClickException(
                f"{failed}: files are saved whole or not at all, so make room or give access, and run again "
                "(--only-missing-outputs goes on from what is there)."
            ) from None
        if "contains no nodes" in str(error):
            raise click.ClickException(
                "There is nothing to run: no node is left of what was asked for (see `kedro registry list`)."
            ) from None
        if "namespaces" in str(error) or "Failed to find the pipeline" in str(error):
            raise click.ClickException(
                f"{str(error).strip()} (pipelines: `kedro registry list`; namespaces: {{dataset}}.{{method}} "
                "for the datasets in IIC_DATASETS)."
            ) from None
        raise


@contextmanager
def _loaded(datasets: tuple[str, ...]) -> Iterator[tuple[Any, Path]]:
    """Kedro's context for these datasets, and the project's folder; errors of the user's become sentences."""
    import os

    from kedro.framework.session import KedroSession

    from iic.selection import project_folder

    os.environ["IIC_DATASETS"] = ",".join(datasets)
    project = project_folder()
    try:
        with KedroSession.create(project_path=project) as session:
            yield session.load_context(), project
    except UserError as error:
        raise click.ClickException(str(error)) from None


@cli.command(name="ship")
@click.argument("datasets", nargs=-1, required=True)
@click.option("--small", is_flag=True, help="As weights/<dataset>_small_<seed>.pt: training.weights=shipped_small.")
def ship(datasets: tuple[str, ...], small: bool) -> None:
    """Write the newest networks of DATASETS to weights/, in float16, each with its model card."""
    from iic.selection import one_channel
    from iic.shipped import SHIPPED, SMALL
    from iic.shipping import ship_network, ship_posterior

    with _loaded(datasets) as (context, project):
        for dataset in datasets:
            click.echo(ship_network(context.catalog, dataset, project, SMALL if small else SHIPPED))
        for dataset in () if small else one_channel(datasets, context.config_loader["parameters"]):
            if context.catalog.exists(f"{dataset}.bayesian_report"):
                click.echo(ship_posterior(context.catalog, dataset, project))
            else:
                click.echo(f"No Bayesian network of '{dataset}' was trained here: its shipped weights stay.")


@cli.command(name="seeds")
@click.argument("datasets", nargs=-1, required=True)
def seeds(datasets: tuple[str, ...]) -> None:
    """Compare the newest accuracy reports of DATASETS over training seeds, and save what holds in all."""
    import json

    from iic.evaluation.seeds import across_seeds, newest_by_seed, sentences

    with _loaded(datasets) as (context, project):
        for dataset in datasets:
            files = sorted((project / "data/08_reporting" / dataset).glob("accuracy_report.json/*/*_report.json"))
            found = across_seeds(newest_by_seed(json.loads(file.read_text()) for file in files))
            context.catalog[f"{dataset}.seeds_report"].save(found)
            click.echo(f"{dataset}\n{sentences(found)}")
