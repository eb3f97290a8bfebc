"""The accuracy report: one JSON-ready dictionary per dataset; its fields are described in docs/report.md."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform

import numpy as np
from torch import nn

from iic.classifiers.inference import fingerprint
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.scores import correct, proportion
from iic.params import Block

PACKAGES = ("iic", "torch", "numpy", "scikit-image", "kedro")


def check_made_alike(
    dataset: str, model: str, scores: dict[str, dict], costs: dict[str, dict], parameters: dict[str, Block]
) -> None:
    """Raise UserError unless all maps and scores belong to this network (its fingerprint) and to these parameters."""
    indices = next(iter(scores.values()))["indices"]
    for stage, block, results in (("attribution", "attribution", costs), ("evaluation", "evaluation", scores)):
        expected = parameters[block].model_dump(mode="json")
        for method, result in results.items():
            way_out = f"run `kedro run --pipelines {stage}` again, without --only-missing-outputs."
            if result["model"] != model:
                raise UserError(f"The {stage} of {dataset}.{method} was made with another network: {way_out}")
            differing = [k for k in expected if result["parameters"].get(k) != expected[k]]
            if differing:
                raise UserError(
                    f"The {stage} of {dataset}.{method} was made with {differing[0]} = "
                    f"{result['parameters'].get(differing[0])}, not {expected[differing[0]]}: {way_out}"
                )
    for method, score in scores.items():
        if score["indices"] != indices:
            raise UserError(
                f"The scores of {dataset}.{method} are of other images than the rest: run evaluation again."
            )


def accuracy_report(
    dataset: str,
    model: nn.Module,
    test: ImageSet,
    scores: dict[str, dict],
    costs: dict[str, dict],
    *,
    card: dict,
    model_accuracy: dict,
    parameters: dict[str, Block],
) -> dict:
    """Put scores, costs, clean accuracy, seeds and versions together.

    Args:
        dataset: its name.
        model: frozen.
        test: the test set.
        scores: method -> what `iic.evaluation.scores.score` returned.
        costs: method -> images, seconds, forwards.
        card: the data card.
        model_accuracy: on the whole training and test sets.
        parameters: the blocks that made this.

    Raises:
        UserError: maps or scores were made by another network, with other parameters, or of other images.
    """
    check_made_alike(dataset, fingerprint(model), scores, costs, parameters)
    indices = next(iter(scores.values()))["indices"]
    chosen = np.array(indices)
    clean = proportion(correct(model, test.images[chosen], test.labels[chosen]))
    rows = {
        method: {
            "keep": score["keep"],
            "tied_share": score["tied_share"],
            "seconds": costs[method]["seconds"],
            "seconds_per_image": costs[method]["seconds_per_image"],
            "forwards_per_image": costs[method]["mean_forwards"],
            **{k: v for k, v in costs[method].items() if k in ("mean_superpixels", "mean_leak")},
        }
        for method, score in scores.items()
    }
    height, width = test.images.shape[2:]
    evaluation = parameters["evaluation"].model_dump(mode="json")
    return {
        "dataset": {k: card[k] for k in ("dataset", "source", "shape_chw")} | {"test_sha256": card["test"]["sha256"]},
        "model": model_accuracy,
        "n_images": len(indices),
        "clean": clean,
        "kept_share": evaluation["keep"],
        "kept_pixels": round(evaluation["keep"] * height * width),
        "chance": 1 / len(card["test"]["images_per_class"]),
        "methods": rows,
        "intervals": "95 %: Wilson's score for one draw, percentile bootstrap over images for several noise seeds",
        "parameters": {name: block.model_dump(mode="json") for name, block in parameters.items()},
        "versions": {p: importlib.metadata.version(p) for p in PACKAGES} | {"python": platform.python_version()},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
