"""A posterior's explanations studied: whether their disagreement foretells errors, and what makes it refuse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import numpy as np

from iic.bayes import last_layer_maps
from iic.bayes.doubt_shap import kernel_shap
from iic.bayes.explanations import Samples, integrated_gradients_maps, lrp_maps
from iic.bayes.inference import sample_probabilities, sample_weights
from iic.bayes.last_layer_maps import LastLayer, LastLayerDoubt
from iic.bayes.record import Learnt
from iic.bayes.refusal import DOUBTS, Doubt, gradient_x_input, integrated_gradients, removal_curve
from iic.bayes.selection import selection_measures, share
from iic.bayes.strategies import disagreement, intersection, summarise, union
from iic.bayes.uncertainty_table import read
from iic.data.images import ImageSet
from iic.evaluation.fills import Fills
from iic.explainers.attributions import select_images
from iic.explainers.context import Context
from iic.explainers.segmentation import Segmenter

# (samples, images, indices, targets) -> maps of the next samples, (B, N, H, W) each
Explain = Callable[[Iterable, np.ndarray, np.ndarray, np.ndarray], Iterable[np.ndarray]]
STEPS = 16  # of integrated gradients


def maps_of_whole(pixel_mean: float) -> dict[str, Explain]:
    """How a posterior of a whole network is explained: by name."""
    return {
        "lrp": lambda drawn, images, _, targets: lrp_maps(drawn, pixel_mean, images, targets, rules="epsilon_plus_box"),
        "integrated_gradients": lambda drawn, images, _, targets: integrated_gradients_maps(
            drawn, pixel_mean, images, targets, steps=STEPS
        ),
    }


def maps_of_last_layer(layer: LastLayer, context: Context, progress: Callable = iter) -> dict[str, Explain]:
    """How a posterior of a last layer is explained: by name; `context` is the network's, `progress` wraps samples."""
    return {
        "lrp": lambda drawn, *which: last_layer_maps.lrp_maps(layer, context, drawn, *which, progress=progress),
        "integrated_gradients": lambda drawn, images, _, targets: last_layer_maps.integrated_gradients_maps(
            layer, drawn, images, targets, steps=STEPS
        ),
    }


def posterior_explanations(
    posterior: Learnt,
    test: ImageSet,
    count: int,
    shown: int,
    *,
    samples: int,
    seed: int,
    replicates: int,
    maps: Mapping[str, Explain],
    of_shown: Collection[str] = (),
    see: Callable[[np.ndarray], np.ndarray] = lambda images: images,
) -> tuple[dict, dict[str, np.ndarray]]:
    """How far the samples' explanations of a test image differ, beside mutual information, as a sign of an error.

    Args:
        posterior: of a whole network, or of a last layer.
        test: the test set.
        count: so many images are judged, in rounds of one per class: a test set may be sorted by class.
        shown: so many images get their maps written out: half the most, half the least doubted of these.
        samples: S of the posterior.
        seed: of the selection, the samples and the bootstrap.
        replicates: number of bootstrap samples.
        maps: how each sample's logit of the class that the posterior names is explained.
        of_shown: names of those that only the images that are written out get: too slow for all.
        see: what makes the posterior's inputs of images.

    Returns:
        JSON-ready: `selection_measures` of mutual information and of each method's disagreement.
        `images` (positions), `samples` (S), and float32 (shown, H, W) under "<method>.mean" and so on (sd, snr, 05, 50,
        95, intersection, union).
    """
    indices = select_images(test.labels, min(count, len(test)), seed)
    images, labels = test.images[indices], test.labels[indices]
    answers = read(sample_probabilities(posterior, see(images), samples, seed=seed).numpy())
    doubt, wrong = answers.entropies.epistemic, answers.predicted != labels
    samples = posterior.distinct(samples)  # an ensemble's members once: a copy of a map is no other map
    drawn = Samples(lambda: sample_weights(posterior, samples, seed=seed))
    selectors = {"mutual_information": (doubt, wrong)}
    order = np.argsort(-doubt, kind="stable")
    chosen = np.concatenate([order[: -(-shown // 2)], order[len(order) - shown // 2 :]])
    arrays: dict[str, np.ndarray] = {"images": indices[chosen], "samples": np.array(samples)}
    for name, explain in maps.items():
        targets = answers.predicted
        if name not in of_shown:
            selectors[f"disagreement_{name}"] = disagreement(explain(drawn, images, indices, targets)), wrong
        few = np.concatenate(list(explain(drawn, images[chosen], indices[chosen], targets[chosen])))
        found = summarise([few])
        arrays |= {f"{name}.{what}": getattr(found, what).astype(np.float32) for what in ("mean", "sd", "snr")}
        arrays |= {f"{name}.{percent:02d}": maps.astype(np.float32) for percent, maps in found.percentiles.items()}
        arrays[f"{name}.intersection"] = intersection(few).astype(np.float32)
        arrays[f"{name}.union"] = union(few).astype(np.float32)
    report = {
        "n_images": len(labels),
        "samples": samples,
        "accuracy": share(~wrong),
        "selectors": selection_measures(selectors, replicates=replicates, seed=seed),
    }
    return report, arrays


def refusal_explanations(
    posterior: Learnt,
    test: ImageSet,
    count: int,
    segments: Segmenter,
    fills: Fills,
    *,
    samples: int,
    budget: int,
    seed: int,
    replicates: int,
    doubt_of: Callable[..., Doubt | LastLayerDoubt] | None = None,
    progress: Callable = iter,
) -> dict:
    """What makes the network doubt the test images that it doubts most: `removal_curve` of maps of its doubt.

    Maps are made from one set of posterior samples and judged by another; an ensemble's by its only members.

    Args:
        posterior: of a whole network, or of a last layer.
        test: the test set.
        count: so many of the most doubted images.
        segments: their superpixels, for Kernel SHAP.
        fills: the mean colour is Kernel SHAP's.
        samples: S of the posterior, in either set.
        budget: forwards of Kernel SHAP, of each sample.
        seed: of the samples, masks and bootstrap.
        replicates: number of bootstrap samples.
        doubt_of: (samples, kind) -> the doubt about images; None is that of a whole network.
        progress: wraps the kinds of doubt.

    Returns:
        JSON-ready: `judged_by`, "other samples" or "the same members", and the kinds of doubt.
    """
    members = posterior.distinct(samples)
    makers, judges = (list(sample_weights(posterior, members, seed=s)) for s in (seed, seed + 1))
    if doubt_of is None:
        doubt_of = partial(Doubt, pixel_mean=posterior.pixel_mean)
    report: dict = {"judged_by": "the same members" if posterior.is_finite else "other samples"}
    for kind in progress(DOUBTS):
        doubt = doubt_of(makers, kind=kind)
        indices = np.argsort(-doubt(test.images), kind="stable")[:count]
        images = test.images[indices]
        cut = np.stack([segments(image, int(index)) for image, index in zip(images, indices, strict=True)])
        maps = {
            "gradient_x_input": gradient_x_input(doubt, images),
            "integrated_gradients": integrated_gradients(doubt, images),
            "kernel_shap": kernel_shap(doubt, images, cut, fills.mean, indices=indices, budget=budget, seed=seed),
        }
        report[kind] = removal_curve(
            doubt_of(judges, kind=kind), images, maps, fills, indices=indices, seed=seed, replicates=replicates
        )
    return report
