"""Nodes that learn posteriors of the weights and say what they know, doubt and refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from iic.data.card import content_of
from iic.data.images import ImageSet
from iic.explainers.attributions import Attributions, select_images
from iic.params import BayesianParams, EvaluationParams, TrainingParams
from iic.pipelines.bayesian.held_out import part_of, parted, plain_part, wanted_part, who_learnt, with_part
from iic.pipelines.bayesian.origin import check_maps, check_uncertainty, made_from
from iic.pipelines.bayesian.rows import POINT, left_out, named, plain_among, settings_of, sizes_of
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
    model: Any = None,
) -> Any:
    """The posterior of a network of linear layers and ReLU, or of a model's last layer; learnt here or shipped."""
    from iic.bayes import posteriors

    if params.weights == "shipped":
        path = (project or Path()) / FOLDER / f"{dataset}_bayesian.pt"
        shipped = check_shipped(path, content_of(card))
        posterior = posteriors.from_state_dict(load_shipped(path))
        # a file of before the record said it may have a card that does
        part = posterior.record.held_out or part_of(shipped.get("held_out", {}))
        return with_part(posterior, part if shipped["train_sha256"] == card["train"]["sha256"] else ())
    return _fit([params.posterior], params, training, train, dataset, model, {})[params.posterior]


def train_references(
    params: BayesianParams, training: TrainingParams, train: ImageSet, dataset: str, model: Any = None
) -> dict[str, Any]:
    """Other posteriors of the same network, or of the same last layer, by kind; none is tempered or has own scales.

    And a plain network of the same architecture; a last layer has the explained network's beside it.
    """
    skipped = left_out(params, _sizes(params, train, model))
    kinds = [kind for kind in params.references if kind not in skipped]
    epochs = params.reference_epochs or params.epochs
    params = params.model_copy(update={"temperature": 1.0, "epochs": epochs, "own_scales": False})
    found = _fit(kinds, params, training, train, dataset, model, params.reference_rates)
    if model is None:
        found[POINT] = _fit_plain(params, training, train, dataset, found.get("laplace"))
    return found


def _sizes(params: BayesianParams, train: ImageSet, model: Any) -> tuple[Any, ...]:
    """Layers of the posteriors' network; of a `model`'s last layer one."""
    settings = settings_of(params, last_layer=model is not None)
    return sizes_of(settings, train.images.shape[1:], int(train.labels.max()) + 1, model)


def _fit_plain(
    params: BayesianParams, training: TrainingParams, train: ImageSet, dataset: str, laplace: Any = None
) -> Any:
    """The most probable weights, which Laplace's approximation begins with, at their temperature."""
    from iic.bayes import point

    (rest, held), part = parted(train, training), wanted_part(train, training)
    if laplace is not None:
        plain = laplace.point()
    else:
        show = bar(f"{dataset}: plain network", "step")
        settings = settings_of(params, last_layer=False)
        plain = point.fit(rest.images, rest.labels, settings, seed=params.seed, progress=show)
    return with_part(plain.calibrated(held.images, held.labels), part)


def _fit(
    kinds: list[str],
    params: BayesianParams,
    training: TrainingParams,
    train: ImageSet,
    dataset: str,
    model: Any,
    rates: Mapping[str, float],
) -> dict[str, Any]:
    """Posteriors by kind; `rates` has the learning rates of those that have one of their own."""
    from iic.bayes import posteriors

    if not kinds:
        return {}
    (rest, _), part = parted(train, training), wanted_part(train, training)
    seen = rest.images if model is None else _features(model, dataset)(rest.images)
    settings = settings_of(params, last_layer=model is not None)
    found = {}
    for kind in kinds:
        show = bar(f"{dataset}: posterior, {kind}", "step")
        own = replace(settings, learning_rate=rates.get(kind, settings.learning_rate))
        posterior = posteriors.fit(kind, seen, rest.labels, own, seed=params.seed, progress=show)
        found[kind] = with_part(posterior, part)
    return found


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
    project: Path | None = None,
) -> dict:
    """Scores, calibration, selection and foreign images for every posterior, beside the plain network and a density.

    Thresholds are chosen for all networks; `learnt_from_validation` says which had better not be believed.
    """
    from iic.bayes import typicality
    from iic.bayes.asked import Labelled, uncertainty_report

    rest, validation = parted(train, training)
    outside, draws = _outside(params, test), {"seed": evaluation.seed, "replicates": evaluation.bootstrap}
    usual = typicality.fit(rest, validation.images, seed=params.seed)
    strange = {name: usual.density.strangeness(images) for name, images in {"test": test.images, **outside}.items()}
    posteriors, last_layer = named(posterior, references), posterior.of_features
    networks, see = _networks(params, model, posteriors, dataset, last_layer)
    report = uncertainty_report(
        networks,
        Labelled(see(test.images), test.labels),
        Labelled(see(validation.images), validation.labels),
        {name: see(images) for name, images in outside.items()},
        {name: usual.looks_typical(values) for name, values in strange.items()},
        **draws,
    )
    report["typicality"] = typicality.typicality_report(usual, strange.pop("test"), strange, **draws)
    plain, wanted = plain_part(training, train, dataset, project or Path()), wanted_part(train, training)
    for name, learnt in who_learnt(plain, posteriors, wanted, last_layer).items():
        report["networks"][name]["learnt_from_validation"] = learnt
        report["networks"][name]["prior"] = list(posteriors[name].record.prior) if name in posteriors else []
    skipped = left_out(params, _sizes(params, train, model if last_layer else None))
    return {
        "dataset": dataset,
        **report,
        "left_out": skipped,
        "parameters": params.model_dump(mode="json"),
        "made": made_from(model, posteriors, test),
    }


def _outside(params: BayesianParams, test: ImageSet) -> dict[str, np.ndarray]:
    """Images that no network should be sure of."""
    from iic.bayes.shifts import outside_images

    grey = test.images.shape[1] == 1
    foreign, turns = _foreign(params.noise_images, params.seed, grey), TURNS if grey else ()
    return outside_images(_some(test, params.noise_images, params.seed), foreign, seed=params.seed, turns=turns)


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
    params: BayesianParams, model: Any, posteriors: dict[str, Any], dataset: str, last_layer: bool
) -> tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]:
    """How each network is asked, and what makes their inputs of images."""
    from iic.bayes.asked import PLAIN, ask_plain, ask_point, ask_posterior

    asked = {
        name: ask_point(posterior)
        if posterior.kind == POINT
        else ask_posterior(
            posterior, params.samples, seed=params.seed, progress=bar(f"{dataset}: {name}, samples", "sample")
        )
        for name, posterior in posteriors.items()
    }
    see = _features(model, dataset) if last_layer else lambda images: images
    return {PLAIN: ask_plain(model, of_features=last_layer), **asked}, see


def measure_doubt(
    params: BayesianParams,
    evaluation: EvaluationParams,
    model: Any,
    posterior: Any,
    references: dict[str, Any],
    uncertainty: dict,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    dataset: str,
    **maps: Attributions,
) -> dict:
    """Accuracy, refusal and doubt on what each method keeps, or leaves, of an image: plain networks, the posterior."""
    from iic.bayes.doubt import doubt_report
    from iic.evaluation.fills import Fills
    from iic.evaluation.outcomes import HEADLINE_FILLS

    posteriors = named(posterior, plain_among(references))
    check_uncertainty(uncertainty, model, posteriors, test, dataset)
    check_maps(maps, model, card, dataset)
    networks, see = _networks(params, model, posteriors, dataset, posterior.of_features)
    report = doubt_report(
        networks,
        {name: uncertainty["networks"][name]["thresholds"] for name in networks},
        maps,
        test,
        Fills(np.array(card["train"]["mean"]), train.images),
        shares=params.doubt_shares,
        shown=evaluation.keep,
        images=params.doubt_images,
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
    model: Any,
    posterior: Any,
    test: ImageSet,
    card: dict,
    dataset: str,
    **maps: Attributions,
) -> dict:
    """Accuracy, coverage, refusal of noise, confidence on degraded images: the posterior's, and the plain network's."""
    from iic.bayes.asked import PLAIN
    from iic.bayes.report import bayesian_report

    check_maps(maps, model, card, dataset)
    fill = np.array(card["train"]["mean"])
    networks, _ = _networks(params, model, {"posterior": posterior}, dataset, last_layer=False)
    return bayesian_report(
        networks[PLAIN], networks["posterior"], test, maps, fill, params, evaluation, dataset=dataset
    )
