"""Nodes that learn posteriors of the weights and say what they know, doubt and refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from iic.checks import is_own
from iic.data.images import ImageSet, hold_out
from iic.explainers.attributions import Attributions, select_images
from iic.params import BayesianParams, EvaluationParams, TrainingParams
from iic.progress import bar
from iic.shipped import FOLDER, check_shipped, load_shipped

TURNS = (1, 2)  # quarter turns that make digits foreign
HELD = 500  # images on which thresholds are chosen, if the network's training held none out


def train_bayesian(
    params: BayesianParams,
    training: TrainingParams,
    train: ImageSet,
    card: dict,
    dataset: str,
    project: Path | None = None,
    model: Any = None,
) -> Any:
    """The posterior of a network of linear layers and ReLU, or of a model's last layer; learnt here or shipped."""
    from iic.bayes import posteriors

    if params.weights == "shipped":
        path = (project or Path()) / FOLDER / f"{dataset}_bayesian.pt"
        check_shipped(path, card["train"]["sha256"])
        return posteriors.from_state_dict(load_shipped(path))
    return _fit([params.posterior], params, training, train, dataset, model)[params.posterior]


def train_references(
    params: BayesianParams, training: TrainingParams, train: ImageSet, dataset: str, model: Any = None
) -> dict[str, Any]:
    """Other posteriors of the same network, or of the same last layer, by name."""
    kinds = [kind for kind in params.references if model is None or kind != "dropout"]  # of hidden units
    return _fit(kinds, params, training, train, dataset, model)


def _fit(
    kinds: list[str], params: BayesianParams, training: TrainingParams, train: ImageSet, dataset: str, model: Any
) -> dict[str, Any]:
    from iic.bayes import posteriors
    from iic.bayes.settings import Settings

    rest, _ = _parted(train, training)
    chosen = {field.name for field in fields(Settings)} & set(BayesianParams.model_fields)
    settings = Settings(**params.model_dump(include=chosen))
    seen = rest.images
    if model is not None:
        seen, settings = _features(model, dataset)(rest.images), replace(settings, hidden=())
    return {
        kind: posteriors.fit(
            kind, seen, rest.labels, settings, seed=params.seed, progress=bar(f"{dataset}: posterior, {kind}", "step")
        )
        for kind in kinds
    }


def _parted(train: ImageSet, training: TrainingParams) -> tuple[ImageSet, ImageSet]:
    """What posteriors learn from, and the images on which thresholds are chosen: those that the network left out.

    A network that left none out has learnt from these, and is too sure of them: the report says so.
    """
    return hold_out(train, training.n_validation or min(HELD, len(train) // 5), training.seed)


def _features(model: Any, dataset: str) -> Callable[[np.ndarray], np.ndarray]:
    """What makes a last layer's inputs, float32 (N, F), of images."""
    import torch

    from iic.bayes.last_layer import features

    show = bar(f"{dataset}: features", "batch")
    return lambda images: features(model, torch.from_numpy(images), progress=show).numpy()


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
    """Scores, calibration, selection and foreign images for every posterior, beside the plain network."""
    from iic.bayes.asked import Labelled, uncertainty_report
    from iic.bayes.shifts import outside_images

    _, validation = _parted(train, training)
    grey = test.images.shape[1] == 1
    foreign, turns = _foreign(params.noise_images, params.seed, grey), TURNS if grey else ()
    outside = outside_images(_some(test, params.noise_images, params.seed), foreign, seed=params.seed, turns=turns)
    networks, see = _networks(params, model, {params.posterior: posterior, **references}, dataset)
    report = uncertainty_report(
        networks,
        Labelled(see(test.images), test.labels),
        Labelled(see(validation.images), validation.labels),
        {name: see(images) for name, images in outside.items()},
        seed=evaluation.seed,
        replicates=evaluation.bootstrap,
    )
    knows = is_own(training) or not training.n_validation
    return {
        "dataset": dataset,
        "plain_learnt_from_validation": knows,
        **report,
        "parameters": params.model_dump(mode="json"),
    }


def _foreign(count: int, seed: int, grey: bool) -> dict[str, np.ndarray]:
    """Images of a bundled dataset: at hand everywhere, and no node depends on another dataset's entries."""
    from iic.data.shapes import draw_shapes
    from iic.data.sources import load_digits

    if grey:
        return {"shapes": draw_shapes(count, seed=seed, progress=bar("shapes: images", "image")).images}
    return {"digits": _some(load_digits()[1], count, seed)}


def _some(data: ImageSet, count: int, seed: int) -> np.ndarray:
    """At most so many images, of all classes alike: a set may be sorted by class."""
    return data.images[select_images(data.labels, min(count, len(data)), seed)]


def _networks(
    params: BayesianParams, model: Any, posteriors: dict[str, Any], dataset: str
) -> tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]:
    """How each network is asked, and what makes their inputs of images."""
    from iic.bayes.asked import PLAIN, ask_plain, ask_posterior
    from iic.bayes.network import PIXEL_UNIT

    asked = {
        name: ask_posterior(
            posterior, params.samples, seed=params.seed, progress=bar(f"{dataset}: {name}, samples", "sample")
        )
        for name, posterior in posteriors.items()
    }
    of_features = posteriors[params.posterior].record.unit != PIXEL_UNIT
    see = _features(model, dataset) if of_features else lambda images: images
    return {PLAIN: ask_plain(model, of_features=of_features), **asked}, see


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

    networks, see = _networks(params, model, {params.posterior: posterior}, dataset)
    report = doubt_report(
        networks,
        {name: uncertainty["networks"][name]["thresholds"] for name in networks},
        maps,
        test,
        Fills(np.array(card["train"]["mean"]), train.images),
        share=evaluation.keep,
        fill_names=HEADLINE_FILLS,
        noise_seed=evaluation.noise_seeds[0],
        seed=evaluation.seed,
        replicates=evaluation.bootstrap,
        see=see,
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
