"""Where an explanation's uncertainty comes from: the same images explained again with one thing changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from iic.bayes.explanations import lrp_maps
from iic.bayes.inference import sample_weights
from iic.bayes.record import Learnt
from iic.classifiers.inference import freeze, predicted_class
from iic.classifiers.networks import Normalize
from iic.classifiers.precision import Forward
from iic.explainers.context import Context, make_context, precision_of
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter

SAMPLED = ("lime", "kernel_shap")  # these have sampling noise and superpixels
COARSER = 0.8  # each segmentation asks for so many times the superpixels of the one before


def as_network(weights: Mapping[str, Tensor], pixel_mean: float, channels: int) -> nn.Sequential:
    """One posterior sample as a network that every explainer takes: logits (N, classes) of pixels 0..255."""
    layers: list[nn.Module] = [Normalize([255 * pixel_mean] * channels, [255.0] * channels), nn.Flatten()]
    names = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    for name in names:
        weight = weights[f"{name}.weight"]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": weights[f"{name}.bias"]})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval().requires_grad_(False)


def repeated_maps(
    model: nn.Module,
    retrained: Sequence[nn.Module],
    posterior: Learnt,
    images: np.ndarray,
    indices: np.ndarray,
    segmenter: Segmenter,
    *,
    mean: np.ndarray,
    sample: Tensor,
    repeats: int,
    seed: int,
    progress: Callable = iter,
) -> dict[str, np.ndarray]:
    """Maps of some test images by LIME, Kernel SHAP and LRP, with one source of uncertainty changed at a time.

    Superpixels that are the user's own, or single pixels, are no source: they do not change.

    Args:
        model: the explained network; its classes are explained throughout.
        retrained: the same network from other training seeds; none leaves that source out.
        posterior: fully connected; each of its samples is a network of its own.
        images: uint8 (N, C, H, W).
        indices: int64 (N,), their positions in the test set.
        segmenter: their superpixels, and how they are explained.
        mean: float (C,), the training images' mean colour, pixel units.
        sample: pixels that a faster forward is fitted to, see `make_context`.
        repeats: R, at least 2, of sampling noise, segmentation and posterior.
        seed: of the posterior's samples.
        progress: wraps the sources.

    Returns:
        "<method>: <source>" -> float32 (R, N, H, W).
    """
    targets = predicted_class(freeze(model), torch.from_numpy(images)).numpy()

    def maps(method: str, context: Context) -> np.ndarray:
        return explain(method, context, images, indices, targets).values

    def context(network: nn.Module, method: str) -> Context:
        return make_context(network, sample, mean, segmenter, precision_of(method, params))

    params = segmenter.params
    changes = segmenter.labels is None and params.segmentation != "pixels"
    counts = [max(2, round(params.superpixels * COARSER**r)) for r in range(repeats)] if changes else []
    weights = list(sample_weights(posterior, repeats, seed=seed))
    found: dict[str, np.ndarray] = {}
    for method in progress([*SAMPLED, "lrp"]):
        base = context(model, method)
        if method in SAMPLED:
            found[f"{method}: sampling"] = np.stack(
                [maps(method, _with(base, seed=params.seed + r)) for r in range(repeats)]
            )
            if counts:
                found[f"{method}: segmentation"] = np.stack([maps(method, _with(base, superpixels=c)) for c in counts])
        if retrained:
            found[f"{method}: training seed"] = np.stack(
                [maps(method, base), *(maps(method, context(network, method)) for network in retrained)]
            )
        if method == "lrp":
            parts = lrp_maps(weights, posterior.pixel_mean, images, targets, rules="epsilon_plus_box")
            found["lrp: posterior"] = np.concatenate(list(parts))
        else:
            networks = [as_network(w, posterior.pixel_mean, images.shape[1]) for w in weights]
            found[f"{method}: posterior"] = np.stack([maps(method, _of(base, network)) for network in networks])
    return found


def _with(context: Context, **changed: object) -> Context:
    """The same network, explained with other parameters."""
    params = context.params.model_copy(update=changed)
    return replace(context, params=params, segments=Segmenter(params, context.segments.labels))


def _of(context: Context, network: nn.Module) -> Context:
    """Another network, in float32 on the CPU, explained as this one."""
    return replace(context, plain=network, forward=Forward(network, "float32", "cpu", 1.0))
