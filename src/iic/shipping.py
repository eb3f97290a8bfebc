"""Turn the newest run's networks into the weights that come with the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from iic.data.card import content_of
from iic.errors import UserError
from iic.files import record_path
from iic.shipped import FOLDER, SHIPPED, as_shipped, network_path, ship

TOLERANCE = 0.0005  # accuracy that float16 may cost: 0.05 percentage points


def ship_network(catalog: Any, dataset: str, project: Path, name: str = SHIPPED) -> Path:
    """Write the newest trained network and its card as the one that `training.weights` calls `name`; the path.

    Raises:
        UserError: no network was trained here, or float16 moves its test accuracy by more than `TOLERANCE`.
    """
    import torch

    from iic.classifiers.inference import fingerprint, freeze, predicted_class
    from iic.classifiers.networks import network_from_state

    if not catalog.exists(f"{dataset}.model_accuracy"):
        command = f"IIC_DATASETS={dataset} kedro run --pipelines data_prep,training"
        raise UserError(f"There is no {dataset}.model yet: run `{command}` first.")
    model, test = catalog.load(f"{dataset}.model"), catalog.load(f"{dataset}.test")
    measured, card = catalog.load(f"{dataset}.model_accuracy"), catalog.load(f"{dataset}.data_card")
    made = _made(catalog, f"{dataset}.model")
    recipe = made["parameters"][f"{dataset}.training"]
    if recipe["weights"] != "trained":
        raise UserError(
            f"The newest {dataset}.model was not trained here (weights: {recipe['weights']}): train it first."
        )
    if measured.get("network") != fingerprint(freeze(model)):
        raise UserError(f"{dataset}.model_accuracy is of another network than {dataset}.model: train it again.")
    rounded = network_from_state(as_shipped(model.state_dict()))
    halved = (predicted_class(rounded, torch.from_numpy(test.images)).numpy() == test.labels).mean()
    _check_rounding(dataset, halved, measured["test"]["accuracy"])
    path = network_path(project, dataset, name, recipe["seed"])
    ship(
        model.state_dict(),
        path,
        {
            **_about(dataset, card, made),
            "recipe": recipe,
            "seed": recipe["seed"],
            "accuracy": {name: value for name, value in measured.items() if name != "network"},  # it was not rounded
            "learning_curve": catalog.load(f"{dataset}.learning_curve"),
        },
    )
    return path


def ship_posterior(catalog: Any, dataset: str, project: Path) -> Path:
    """Write `weights/<dataset>_bayesian.pt` and its card from the newest Bayesian network; the path.

    Raises:
        UserError: the newest Bayesian network was not trained here, or float16 moves its test accuracy, when it may not
            refuse, by more than `TOLERANCE`.
    """
    from iic.bayes import posteriors
    from iic.bayes.inference import sample_probabilities
    from iic.bayes.uncertainty import forced_prediction

    if not catalog.exists(f"{dataset}.bayesian_report"):
        raise UserError(f"There is no {dataset}.posterior yet: run `kedro run --pipelines bayesian` first.")
    card, made = catalog.load(f"{dataset}.data_card"), _made(catalog, f"{dataset}.posterior")
    report, recipe = catalog.load(f"{dataset}.bayesian_report"), made["parameters"][f"{dataset}.bayesian"]
    if recipe.get("weights") == "shipped":
        raise UserError(f"The newest {dataset}.posterior was not trained here (weights: shipped): train it first.")
    posterior, test = catalog.load(f"{dataset}.posterior"), catalog.load(f"{dataset}.test")
    state = posterior.state_dict()
    accuracies = []
    for one in (posterior, posteriors.from_state_dict(as_shipped(state))):  # under the same draws
        answers = sample_probabilities(one, test.images, recipe["samples"], seed=recipe["seed"])
        accuracies.append((forced_prediction(answers.numpy())[0] == test.labels).mean())
    measured, halved = accuracies
    _check_rounding(dataset, halved, measured)
    path = project / FOLDER / f"{dataset}_bayesian.pt"
    about = {**_about(dataset, card, made), "recipe": recipe, "seed": recipe["seed"]}
    ship(state, path, {**about, "forced_accuracy": report["forced_accuracy"]})
    return path


def _check_rounding(dataset: str, halved: float, measured: float) -> None:
    """Raise UserError if the accuracy of the weights in float16 is not that of the weights as they were trained."""
    if abs(halved - measured) > TOLERANCE + 1e-9:
        raise UserError(f"float16 moves the test accuracy of '{dataset}' to {halved:.4f}: its weights are not shipped.")


def _about(dataset: str, card: dict, made: dict) -> dict:
    return {
        "dataset": dataset,
        "source": card["source"],
        "train_sha256": card["train"]["sha256"],
        "train_content_sha256": content_of(card),
        "test_sha256": card["test"]["sha256"],
        "code": made["code"],
        "date": made["date"],
    }


def _made(catalog: Any, name: str) -> dict:
    """The record beside the newest version of a catalog entry."""
    return json.loads(record_path(Path(catalog[name]._get_load_path())).read_text())
