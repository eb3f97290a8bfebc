"""What can be said of a method's maps besides how they degrade: complexity, faithfulness, localisation, sanity.

Every number is over the first explained images, which hold all classes alike. It is
{"value", "statistic", "interval", "n_images"}: the mean, or the median where single images have no bound, and its 95 %
bootstrap interval over images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from iic.classifiers.inference import fingerprint, freeze, logits
from iic.classifiers.precision import fast_forward
from iic.data.images import ImageSet
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation import complexity, localisation
from iic.evaluation.agreement import agreement_matrix, spearman, top_overlap
from iic.evaluation.faithfulness import Explanations, Progress, completeness_error, infidelity, sensitivity_n
from iic.evaluation.sanity import Explainer, can_randomise, randomised, steadiness
from iic.evaluation.statistics import bootstrap_interval
from iic.explainers.attributions import Attributions, check_side_by_side
from iic.explainers.names import LOGIT, RANDOM_WEIGHTS, SAMPLED, SUPERPIXEL_METHODS, base_of
from iic.params import EvaluationParams
from iic.provenance import EXPLAINING, JUDGING, code_hash, made_otherwise

SENSITIVITY_SHARES = (0.1, 0.3, 0.5)  # of the pixels: the n of sensitivity-n
COMPLETE = ("kernel_shap", "kernel_shap_fast", "integrated_gradients", "deeplift")  # say that their maps add up
LARGEST_ERROR = 1e6  # a completeness error beyond, such as infinity, counts as so much

AGAIN = "without --only-missing-outputs"

Stages = Callable[[str], Progress]  # the name of a stage -> what wraps its loop


def _unseen(stage: str) -> Progress:
    """Nobody watches."""
    return iter


def explained_output(method: str) -> str:
    """ "probability" for methods that only ask for outputs, "logit" for all others and for controls."""
    return "probability" if base_of(method) in SAMPLED and LOGIT not in method else "logit"


def describe(
    explainer: Explainer,
    maps: Attributions,
    test: ImageSet,
    params: EvaluationParams,
    *,
    data: str,
    progress: Stages = _unseen,
) -> dict[str, Any]:
    """All properties of one method's maps.

    The network is asked for the output that the method explains, as its fastest forward; for completeness, where a
    difference is compared with a sum, in float32. What is taken away shows the mean colour. Of a method that gives
    values to superpixels, a pixel contributes its share of the superpixel's.

    Args:
        explainer: the method, the network, and what explaining again needs.
        maps: the method's maps of some test images.
        test: the test set; localisation is measured where it has masks.
        params: how many images, seeds, bootstrap replicates.
        data: the test set's checksum, which the maps have to name too.
        progress: from the name of a stage to what wraps its loop, such as tqdm.

    Returns:
        JSON-ready: "method"; "output", what is explained; "claims_completeness"; "properties", name -> number (see the
        module); "randomisation", for each layer, the last first, "layer", "kind" and three similarities, empty for
        controls, derived maps and networks whose weights cannot be drawn anew; "precision"; "made".

    Raises:
        UserError: the maps are another method's, or were made with another network or code, of other images or with
            other parameters.
    """
    method, output = explainer.method, explained_output(explainer.method)
    made = _origin(explainer, maps, data)
    context = explainer.context(explainer.model)
    device = context.forward.device
    fast = fast_forward(explainer.model, explainer.sample, params.precision, device)
    given = _first(maps, test, params.properties_images, answering(fast.model, device, output), explainer.mean)
    parts = replace(given, maps=_contributions(explainer, given))
    exact = replace(parts, answer=answering(context.plain, device, output))
    errors = completeness_error(exact, progress("completeness")).clip(max=LARGEST_ERROR)
    properties = {
        "gini": _mean(complexity.gini_index(given.maps), params),
        "entropy": _mean(complexity.entropy(given.maps), params),
        "completeness_error": _median(errors, params),
        **_faithfulness(parts, params, progress),
        **({} if test.masks is None else _localisation(given, test.masks[given.indices], params)),
    }
    layers = []
    if explainer.explains_again:
        few = _first(maps, test, params.sanity_images, given.answer, explainer.mean)
        steady = steadiness(explainer, context, few, seed=params.seed, progress=progress("max-sensitivity"))
        properties["max_sensitivity"] = _mean(steady, params)
        if can_randomise(explainer.model):
            draws = {"seed": params.seed, "precision": context.forward.precision}
            layers = randomised(explainer, few, **draws, progress=progress("random layers"))
    return {
        "method": method,
        "output": output,
        # their own fill is what their maps add up to, and the error is measured to the mean colour
        "claims_completeness": method.removesuffix(LOGIT) in COMPLETE and explainer.segmenter.params.fill == "mean",
        "properties": properties,
        "randomisation": [
            {"layer": name, "kind": kind} | {measure: _mean(values, params) for measure, values in alike.items()}
            for name, kind, alike in layers
        ],
        "precision": fast.precision,
        "made": {
            **made,
            "attribution": made["parameters"],
            "parameters": params.model_dump(mode="json"),
            "code": code_hash(JUDGING),
        },
    }


def agree(maps: Mapping[str, Attributions], params: EvaluationParams, progress: Progress = iter) -> dict[str, Any]:
    """How far every two methods say the same of the same images.

    Args:
        maps: method -> attributions, all of the same images and network.
        params: how many images, and the share of pixels whose overlap is taken.
        progress: wraps the loops over pairs of methods, such as tqdm.

    Returns:
        JSON-ready: "methods", "n_images", "share", and the matrices "spearman" and "top_overlap", rows and columns in
        the order of "methods", means over the images.

    Raises:
        UserError: maps of other images than the rest, or made with another network, code or other parameters.
    """
    check_side_by_side(maps)
    some = [np.asarray(each.values[: params.properties_images]) for each in maps.values()]
    return {
        "methods": list(maps),
        "n_images": len(some[0]),
        "share": params.keep,
        "spearman": agreement_matrix(some, spearman, progress).tolist(),
        "top_overlap": agreement_matrix(some, lambda a, b: top_overlap(a, b, params.keep), progress).tolist(),
    }


def check_alike(properties: Mapping[str, dict]) -> None:
    """Raise UserError unless all methods' properties are of the same network, images and parameters."""
    first = next(iter(properties.values()))
    for method, found in properties.items():
        if found["made"] != first["made"]:
            raise UserError(
                f"The properties of {method} are of another network, code, other images or parameters than the rest: "
                f"run `kedro run --pipelines evaluation` again, {AGAIN}."
            )


def answering(model: nn.Module, device: str, output: str) -> Callable[[Tensor], Tensor]:
    """A frozen network as a function of pixels (B, C, H, W) to outputs float32 (B, classes)."""

    def answer(pixels: Tensor) -> Tensor:
        found = logits(model, pixels.to(device)).float()
        return (found.softmax(1) if output == "probability" else found).cpu()

    return answer


def _origin(explainer: Explainer, maps: Attributions, data: str) -> dict[str, Any]:
    """What the maps were made from, which has to be what they are judged by."""
    expected = {
        "model": fingerprint(freeze(explainer.model)),
        "data": data,
        "parameters": explainer.segmenter.params.determining(),
        "segments": explainer.segmenter.fingerprint(),
        "code": code_hash(EXPLAINING),
    }
    another = "another method" if maps.made.get("method") != explainer.method else None
    what = another or made_otherwise(maps.made, expected)
    if what:
        raise UserError(
            f"The maps of {explainer.method} were made with {what} than they are to be judged with: "
            f"run `kedro run --pipelines attribution` again, {AGAIN}."
        )
    return expected


def _first(maps: Attributions, test: ImageSet, count: int, answer: Callable, mean: np.ndarray) -> Explanations:
    indices = maps.indices[:count]
    return Explanations(
        answer, test.images[indices], indices, maps.targets[:count], np.asarray(maps.values[:count]), mean
    )


def _contributions(explainer: Explainer, given: Explanations) -> np.ndarray:
    """The maps as what each pixel contributes: (N, H, W). LIME and Kernel SHAP give a superpixel's value to each of its
    pixels, where it would count once for every pixel. What is blurred, or averaged over images, has no superpixels of
    its own: there the value counts for as many pixels as a superpixel has on average.
    """
    if base_of(explainer.method) not in SUPERPIXEL_METHODS:
        return given.maps
    segments = [explainer.segmenter(x, int(i)) for x, i in zip(given.images, given.indices, strict=True)]
    if explainer.method.removesuffix(LOGIT).removesuffix(RANDOM_WEIGHTS) not in SUPERPIXEL_METHODS:
        return given.maps * np.array([s.max() + 1 for s in segments])[:, None, None] / segments[0].size
    return given.maps / np.stack([np.bincount(s.ravel())[s] for s in segments])


def _faithfulness(given: Explanations, params: EvaluationParams, progress: Stages) -> dict[str, dict]:
    found = {"infidelity": infidelity(given, seed=params.seed, progress=progress("infidelity"))}
    for share in SENSITIVITY_SHARES:
        n, percent = round(share * given.maps[0].size), round(100 * share)
        show = progress(f"sensitivity-n, {percent} %")
        found[f"sensitivity_n_{percent}"] = sensitivity_n(given, n, seed=params.seed, progress=show)
    return {name: _mean(values, params) for name, values in found.items()}


def _localisation(given: Explanations, masks: np.ndarray, params: EvaluationParams) -> dict[str, dict]:
    places = {"indices": given.indices, "seed": params.seed}
    return {
        "mass_accuracy": _mean(localisation.mass_accuracy(given.maps, masks), params),
        "rank_accuracy": _mean(localisation.rank_accuracy(given.maps, masks, **places), params),
        "pointing_game": _mean(localisation.pointing_game(given.maps, masks), params, proportion=True),
        "auroc": _mean(localisation.auroc(given.maps, masks), params),
    }


def _mean(values: np.ndarray, params: EvaluationParams, proportion: bool = False) -> dict[str, Any]:
    """The mean (N,) -> number."""
    interval = bootstrap_interval(values, replicates=params.bootstrap, seed=params.seed, proportion=proportion)
    return {"value": float(values.mean()), "statistic": "mean", "interval": list(interval), "n_images": len(values)}


def _median(values: np.ndarray, params: EvaluationParams) -> dict[str, Any]:
    """The median (N,) -> number."""
    rng = generator("bootstrap", params.seed)
    medians = np.median(rng.choice(values, (params.bootstrap, len(values))), axis=1)
    interval = np.quantile(medians, [0.025, 0.975]).tolist()
    return {"value": float(np.median(values)), "statistic": "median", "interval": interval, "n_images": len(values)}
