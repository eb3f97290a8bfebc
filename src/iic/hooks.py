"""Kedro hooks: checks before a run, and the record beside every artefact."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from pydantic import BaseModel

from iic.checks import check_bayesian, check_explaining, check_images, check_parameters, check_weights, is_own
from iic.data.loading import raw_files
from iic.errors import UserError
from iic.explainers.shards import unfinished
from iic.files import altered, record_path, remove_partial, sha256, write_record
from iic.pipelines.training.nodes import checkpoint_path
from iic.selection import one_channel, selected_datasets, selected_methods

log = logging.getLogger(__name__)


class ProjectHooks:
    """Everything a run is checked for and leaves behind besides its outputs."""

    @hook_impl
    def after_context_created(self, context) -> None:
        """Check names and parameters before Kedro builds anything from them."""
        parameters = context.config_loader["parameters"]
        self._project_path = Path(context.project_path)
        self._blocks = check_parameters(parameters, selected_datasets())
        self._colours = [d for d in selected_datasets() if d not in one_channel(selected_datasets(), parameters)]

    @hook_impl
    def after_catalog_created(self, catalog) -> None:
        """Every block as its model, defaults filled in; and how users' own networks are built."""
        for dataset, blocks in self._blocks.items():
            for name, block in blocks.items():
                entry = f"params:{dataset}.{name}"
                if entry in catalog:
                    catalog[entry].save(block)  # assigning would warn of every entry that it replaces
                else:
                    catalog[entry] = block
            training = blocks["training"]
            if is_own(training):
                weights = self._project_path / training.weights
                catalog[f"{dataset}.model"].structure = partial(_own_structure, weights, training.factory)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline, catalog) -> None:
        """Check that inputs exist and images suffice; clear what killed runs left; start the records of this run."""
        for name in run_params.get("runtime_params") or {}:
            if name not in self._blocks:
                raise UserError(
                    f"--params has something for '{name}', but this run is of {', '.join(self._blocks)} only: "
                    f"set IIC_DATASETS={name}, or leave it out."
                )
        names = pipeline.datasets()
        used = {d: blocks for d, blocks in self._blocks.items() if f"{d}.test" in names}
        keep_existing = run_params.get("only_missing_outputs")
        ready = [d for d in used if keep_existing or f"{d}.test" not in pipeline.all_outputs()]
        cards = {d: catalog.load(f"{d}.data_card") for d in ready if catalog.exists(f"{d}.data_card")}
        check_images(used, {d: card["test"]["images"] for d, card in cards.items()})
        colours = {d for d in self._colours if f"{d}.posterior" in names}
        check_weights(used, selected_methods(), self._project_path, colours)
        learnt = {d: used[d] for d in used if f"{d}.posterior" in pipeline.all_outputs()}
        check_bayesian(learnt, colours, self._project_path)
        explained = {d: used[d] for d in used if any(_makes_maps_of(d, name) for name in pipeline.all_outputs())}
        check_explaining(explained, selected_methods(), self._project_path)
        missing = sorted(n for n in pipeline.inputs() if not n.startswith("params:") and not catalog.exists(n))
        complete = all(catalog.exists(n) for n in pipeline.outputs())
        if missing and not (keep_existing and complete):
            of = missing[0].split(".")[0]
            raise UserError(
                f"There is no {missing[0]} yet: run `IIC_DATASETS={of} kedro run --pipelines data_prep,training` first "
                "(and attribution, if maps are missing), or `kedro run --pipelines evaluation`, which makes all."
            )
        for dataset in used:
            if f"{dataset}.model" in (names if keep_existing else pipeline.inputs()):
                self._check_same_network(dataset, catalog, f"{dataset}.accuracy_report" in pipeline.all_outputs())
        for path in remove_partial(self._project_path / "data"):
            log.info("Removed %s, left half-written by a run that was killed.", path)
        for path in unfinished(self._project_path / "data" / "07_attributions"):
            log.info("Kept %s, maps of a run that was killed: the same run goes on with them, no other does.", path)
        self._catalog, self._run = catalog, run_params.get("run_id")
        self._code = code_version(self._project_path)
        self._hashes: dict[Path, str] = {}
        self._intact: set[Path] = set()  # files that are what their records say

    def _check_same_network(self, dataset: str, catalog, reported: bool) -> None:
        """Raise UserError if the newest network, if there is one, is from elsewhere than this run's parameters say.

        What is `reported` under these parameters has to have been trained with them.
        """
        if not catalog.exists(f"{dataset}.model"):
            return
        record = record_path(Path(catalog[f"{dataset}.model"]._get_load_path()))
        if not record.exists():
            return
        made = json.loads(record.read_text())["parameters"].get(f"{dataset}.training", {})
        wanted = self._blocks[dataset]["training"].model_dump(mode="json", exclude={"device"})
        trained = wanted["weights"] == made.get("weights") == "trained"
        for name in wanted if trained and reported else ("weights", "factory"):  # of others the recipe changes nothing
            if name in made and made[name] != wanted[name]:
                raise UserError(
                    f"The newest network of '{dataset}' was made with training.{name} = {made[name]}, and now it is "
                    f"{wanted[name]}: ask for the former, `--params {dataset}.training.{name}={made[name]}`, or run "
                    f"`IIC_DATASETS={dataset} kedro run --pipelines data_prep,training` first."
                )

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str, node) -> None:
        """Raise UserError if a file is no longer what its record says was written."""
        path = None if dataset_name.startswith("params:") else self._path(dataset_name, "_get_load_path")
        if path is None or path in self._intact or not record_path(path).exists():
            return
        if altered(path, json.loads(record_path(path).read_text())["sha256"]):
            raise UserError(
                f"{path} is not what was written there (see {record_path(path).name} beside it): make it again with "
                "the pipeline that it is of, or delete it, so that the version before it counts."
            )
        self._intact.add(path)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node) -> None:
        """Write the record: parameters, hashes of the inputs, code version, date."""
        path = self._path(dataset_name, "_get_save_path")
        if path is None:
            return
        if dataset_name.endswith(".model"):  # safe now: an interrupted training's state is no longer needed
            checkpoint_path(self._project_path, dataset_name.removesuffix(".model")).unlink(missing_ok=True)
        parameters, inputs = {}, {}
        for name in node.inputs:
            if name.startswith("params:"):
                value = self._catalog.load(name)
                dump = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
                parameters[name.removeprefix("params:")] = dump
            else:
                source = self._path(name, "_get_load_path")
                inputs[name] = None if source is None else {"file": str(source), "sha256": self._hash(source)}
        dataset = dataset_name.split(".")[0]
        if dataset in self._blocks and not inputs:  # the images themselves come from files outside the catalog
            for source in raw_files(dataset, self._blocks[dataset]["data"]):
                inputs[source.name] = {"file": str(source), "sha256": self._hash(source)}
        record = {
            "dataset": dataset_name,
            "node": node.name,
            "parameters": parameters,
            "inputs": inputs,
            "code": self._code,
            "run": self._run,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_record(path, record)
        self._intact.add(path)  # as this run wrote it

    def _path(self, name: str, which: str) -> Path | None:
        """Where the catalog keeps an entry, relative to the project; None for entries in memory."""
        dataset = self._catalog[name]
        if not hasattr(dataset, "_filepath"):
            return None
        if which == "_get_save_path":  # after saving, the path exists and _get_save_path would refuse it
            return Path(dataset._get_versioned_path(dataset.resolve_save_version()))
        return Path(dataset._get_load_path())

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = sha256(path)
        return self._hashes[path]


def _makes_maps_of(dataset: str, output: str) -> bool:
    return output.startswith(f"{dataset}.") and output.endswith(".attributions")


def _own_structure(weights: Path, factory: str | None):
    from iic.classifiers.own import own_structure  # imports torch

    return own_structure(weights, factory)


def code_version(project_path: Path) -> dict[str, Any]:
    """The package's version, and the git commit where the project is a checkout: {"iic", "commit", "changed"}."""
    version: dict[str, Any] = {"iic": importlib.metadata.version("iic"), "commit": None, "changed": None}

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=project_path, capture_output=True, text=True, check=True).stdout

    if (project_path / ".git").exists():
        try:
            version["commit"] = git("rev-parse", "HEAD").strip()
            version["changed"] = bool(git("status", "--porcelain", "--untracked-files=no").strip())
        except (OSError, subprocess.CalledProcessError) as error:
            log.warning("The records name no commit: git did not answer (%s).", error)
    return version
