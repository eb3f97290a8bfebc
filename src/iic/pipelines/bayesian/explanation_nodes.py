"""Nodes that explain a posterior: how its explanations spread, what it doubts, and where their variance comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iic.checks import is_own
from iic.data.images import ImageSet
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams, BayesianParams, EvaluationParams, TrainingParams
from iic.pipelines.attribution.nodes import own_labels, sample_of
from iic.pipelines.training.nodes import like_the_explained, train_model
from iic.progress import bar

SHOWN = 6  # images whose maps are written out and drawn


def explain_posterior(
    params: BayesianParams,
    evaluation: EvaluationParams,
    attribution: AttributionParams,
    posterior: Any,
    test: ImageSet,
    card: dict,
    dataset: str,
    model: Any = None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Whether disagreement of explanations foretells errors; and maps over the posterior of a few images.

    The posterior is one of a whole network, or of the last layer of `model`.
    """
    from iic.bayes.explained import maps_of_whole, posterior_explanations

    if model is None:
        how: dict[str, Any] = {"maps": maps_of_whole(posterior.pixel_mean)}
    else:
        how = _of_last_layer(posterior, model, card, attribution, dataset)
    report, maps = posterior_explanations(
        posterior,
        test,
        params.explained_images,
        SHOWN,
        samples=params.samples,
        seed=params.seed,
        replicates=evaluation.bootstrap,
        **how,
    )
    return {"dataset": dataset, **report}, maps


def _of_last_layer(
    posterior: Any, model: Any, card: dict, attribution: AttributionParams, dataset: str
) -> dict[str, Any]:
    """How a posterior of the network's last layer is explained, for `posterior_explanations`."""
    import torch

    from iic.bayes.explained import maps_of_last_layer
    from iic.bayes.last_layer import features
    from iic.bayes.last_layer_maps import LastLayer
    from iic.classifiers.precision import Forward
    from iic.explainers.context import Context

    layer = LastLayer(model, posterior, np.array(card["train"]["mean"]))
    forward = Forward(layer.frozen, "float32", "cpu", 1.0)
    context = Context(layer.frozen, forward, layer.mean, attribution, Segmenter(attribution))
    show = bar(f"{dataset}: explanations of the posterior", "sample")
    return {
        "maps": maps_of_last_layer(layer, context, show),
        "of_shown": ("integrated_gradients",),
        "see": lambda images: features(model, torch.from_numpy(images)).numpy(),
    }


def draw_posterior_maps(maps: dict[str, np.ndarray], test: ImageSet, dataset: str) -> Any:
    """Mean, spread, percentiles, intersection and union of the LRP maps of a few images."""
    from iic.bayes.strategies import Summary
    from iic.report.posterior_maps import posterior_grid

    at = maps["images"]
    percentiles = {int(key[4:]): values for key, values in maps.items() if key[:4] == "lrp." and key[4:].isdigit()}
    summary = Summary(maps["lrp.mean"], maps["lrp.sd"], maps["lrp.snr"], percentiles, int(maps["samples"]))
    names = [f"image {index}, label {test.labels[index]}" for index in at]
    return posterior_grid(
        test.images[at],
        summary,
        maps["lrp.intersection"],
        maps["lrp.union"],
        names=names,
        method=f"{dataset}: LRP",
    )


def explain_refusals(
    params: BayesianParams,
    evaluation: EvaluationParams,
    attribution: AttributionParams,
    posterior: Any,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    *,
    dataset: str,
    project: Path,
    model: Any = None,
) -> dict:
    """What the network doubts in the images that it doubts most; with a posterior of the last layer of `model`."""
    from iic.bayes.explained import refusal_explanations
    from iic.bayes.last_layer_maps import LastLayer, LastLayerDoubt
    from iic.bayes.refusal import Doubt
    from iic.evaluation.fills import Fills

    doubt_of = None
    if model is not None:
        layer = LastLayer(model, posterior, np.array(card["train"]["mean"]))

        def doubt_of(samples: list, kind: str) -> LastLayerDoubt:
            return LastLayerDoubt(layer, Doubt(samples, posterior.pixel_mean, kind), test.images.shape[1:])

    report = refusal_explanations(
        posterior,
        test,
        params.refused_images,
        Segmenter(attribution, own_labels(attribution, test, project)),
        Fills(np.array(card["train"]["mean"]), train.images),
        samples=params.samples,
        budget=attribution.budget - 2,  # of masks other than none and all
        seed=params.seed,
        replicates=evaluation.bootstrap,
        doubt_of=doubt_of,
        progress=bar(f"{dataset}: doubt explained", "kind"),
    )
    return {"dataset": dataset, **report}


def find_variance(
    params: BayesianParams,
    training: TrainingParams,
    evaluation: EvaluationParams,
    attribution: AttributionParams,
    model: Any,
    posterior: Any,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    *,
    dataset: str,
    project: Path,
) -> dict:
    """One row for each method and source of variance: draws, superpixels, training seed, posterior."""
    from iic.bayes.sources import MASK_NOISE, Explained, repeated_maps, varied_network
    from iic.bayes.variance import variance_table
    from iic.explainers.attributions import select_images

    segmenter = Segmenter(attribution, own_labels(attribution, test, project))
    again = params.variance_retrained and not is_own(training)
    seeds = range(training.seed + 1, training.seed + params.repeats) if again else ()
    recipe = like_the_explained(training, dataset, project)
    recipes = [recipe.model_copy(update={"seed": seed}) for seed in seeds]
    indices = select_images(test.labels, params.variance_images, segmenter.params.seed)
    mean, sample = np.array(card["train"]["mean"]), sample_of(train)
    maps = repeated_maps(
        Explained(model, test.images[indices], indices, segmenter, mean, sample),
        [train_model(settings, train, card, dataset)[0].eval() for settings in recipes],
        posterior,
        repeats=params.repeats,
        seed=params.seed,
        progress=bar(f"{dataset}: sources of variance", "method"),
    )
    table = variance_table(
        maps,
        seed=evaluation.seed,
        replicates=evaluation.bootstrap,
        noise={source: noise for source, noise in MASK_NOISE.items() if source in maps},
        varied={source: varied_network(source, posterior) for source in maps},
    )
    return {"dataset": dataset, **table}
