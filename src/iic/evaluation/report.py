"""The accuracy report: one JSON-ready dictionary per dataset; its fields are described in docs/report.md."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping

import numpy as np
from torch import nn

from iic.classifiers.inference import fingerprint
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.areas import curves, mean_ranks
from iic.evaluation.outcomes import ADAPTED, EXPLAINED, Outcomes
from iic.evaluation.scores import correct, proportion
from iic.evaluation.summary import headline
from iic.params import Block
from iic.provenance import EXPLAINING, JUDGING, REPORT_SCHEMA, code_hash, made_like

WORDS = {"model": "with another network", "data": "of other test images", "code": "by another version of the code"}
PACKAGES = ("iic", "torch", "numpy", "scikit-image", "kedro")


def check_made_alike(
    dataset: str,
    model: str,
    data: str,
    outcomes: Mapping[str, Mapping[str, Outcomes]],
    costs: dict[str, dict],
    parameters: dict[str, Block],
) -> None:
    """Raise UserError unless all maps and outcomes belong to this network, data, code and these parameters.

    Args:
        dataset: its name.
        model: fingerprint of the frozen network.
        data: checksum of the test set.
        outcomes: "headline" and "matrix" -> method -> what the judges said.
        costs: method -> cost, with what made the maps.
        parameters: the blocks.
    """
    expected = {"model": model, "data": data}
    made = [(name, "attribution", cost, EXPLAINING) for name, cost in costs.items()]
    made += [(n, "evaluation", o.made, JUDGING) for found in outcomes.values() for n, o in found.items()]
    for method, stage, record, parts in made:
        wanted = expected | {"code": code_hash(parts), "parameters": parameters[stage]}
        _check_record(f"The {stage} of {dataset}.{method}", stage, record, wanted)
    judged = _judges(next(iter(next(iter(outcomes.values())).values())).made)
    for kind, found in outcomes.items():
        first = next(iter(found.values()))
        for method, o in found.items():
            if not np.array_equal(o.indices, first.indices) or {c[:4] for c in o.cells} != {c[:4] for c in first.cells}:
                raise UserError(
                    f"The {kind} of {dataset}.{method} is of other images or cells than the rest: run evaluation again."
                )
            maps = made_like(costs[method])
            if maps["method"] != method or _judges(o.made) != judged or o.made["maps"] != maps:
                raise UserError(
                    f"The {kind} or the cost of {dataset}.{method} is of other maps or by other judges than the rest: "
                    "run `kedro run --pipelines evaluation` again, without --only-missing-outputs."
                )


def _check_record(what: str, stage: str, record: dict, wanted: dict) -> None:
    """Raise UserError if a record of how something was made differs from what is wanted; says in what."""
    way_out = f"run `kedro run --pipelines {stage}` again, without --only-missing-outputs."
    for key, words in WORDS.items():
        if record.get(key) != wanted[key]:
            raise UserError(f"{what} was made {words}: {way_out}")
    expected = wanted["parameters"].model_dump(mode="json", exclude={"scheduler"})  # only where they were computed
    for name, value in expected.items():
        if record["parameters"].get(name) != value:
            raise UserError(f"{what} was made with {name} = {record['parameters'].get(name)}, not {value}: {way_out}")


def _judges(made: dict) -> dict:
    """The judges of some outcomes: fingerprint, precision and the share of images that it leaves as in float32."""
    explained = {"fingerprint": made["model"], **made["precision"][EXPLAINED]}
    adapted = {
        fill: {"fingerprint": network, **made["precision"][f"{ADAPTED}/{fill}"]}
        for fill, network in made["judges"].items()
    }
    return {EXPLAINED: explained, ADAPTED: adapted}


def accuracy_report(
    dataset: str,
    model: nn.Module,
    test: ImageSet,
    headlines: dict[str, Outcomes],
    matrices: dict[str, Outcomes],
    costs: dict[str, dict],
    *,
    card: dict,
    model_accuracy: dict,
    parameters: dict[str, Block],
) -> dict:
    """Put the judges' answers, costs, clean accuracy, seeds and versions together.

    Args:
        dataset: its name.
        model: frozen.
        test: the test set.
        headlines: method -> outcomes of all explained images, one share.
        matrices: method -> outcomes of some of them, every share and fill.
        costs: method -> images, seconds, forwards.
        card: the data card.
        model_accuracy: on the whole training and test sets.
        parameters: the blocks that made this.

    Raises:
        UserError: maps or outcomes were made by another network, code or judge, with other parameters, of other images.
    """
    both = {"headline": headlines, "matrix": matrices}
    made_of = {"model": fingerprint(model), "data": card["test"]["sha256"]}
    check_made_alike(dataset, **made_of, outcomes=both, costs=costs, parameters=parameters)
    if model_accuracy.get("network") != made_of["model"]:
        raise UserError(
            f"{dataset}.model_accuracy is of another network than the maps, or of an older version: "
            "run `kedro run --pipelines training` and the evaluation again."
        )
    params = parameters["evaluation"]
    chosen = next(iter(headlines.values())).indices
    height, width = test.images.shape[2:]
    draws = {"replicates": params.bootstrap, "seed": params.seed}
    return {
        "schema": REPORT_SCHEMA,
        "made": made_of | {"explaining_code": code_hash(EXPLAINING), "judging_code": code_hash(JUDGING)},
        "dataset": {k: card[k] for k in ("dataset", "source", "shape_chw")} | {"test_sha256": card["test"]["sha256"]},
        "model": model_accuracy,
        "n_images": len(chosen),
        "matrix_images": len(next(iter(matrices.values())).indices),
        "clean": proportion(correct(model, test.images[chosen], test.labels[chosen])),
        "judges": _judges(next(iter(headlines.values())).made),
        "kept_share": params.keep,
        "kept_pixels": round(params.keep * height * width),
        "chance": 1 / len(card["test"]["images_per_class"]),
        "methods": {m: {"tied_share": o.made["tied_share"], **_cost(costs[m])} for m, o in headlines.items()},
        "headline": headline(headlines, params.keep, **draws),
        "curves": curves(matrices, **draws),
        "ranks": mean_ranks(matrices),
        "intervals": "95 %: Wilson's score for one draw, percentile bootstrap over images for several noise seeds",
        "parameters": {name: block.model_dump(mode="json") for name, block in parameters.items()},
        "versions": {p: importlib.metadata.version(p) for p in PACKAGES} | {"python": platform.python_version()},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _cost(cost: dict) -> dict:
    optional = {k: v for k, v in cost.items() if k in ("mean_superpixels", "mean_leak")}
    return {
        "seconds": cost["seconds"],
        "seconds_per_image": cost["seconds_per_image"],
        "forwards_per_image": cost["mean_forwards"],
        **optional,
    }
