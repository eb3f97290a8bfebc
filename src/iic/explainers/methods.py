"""The one table of names -> functions: a method's maps of a few images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from iic.errors import UserError
from iic.explainers.attributions import Maps
from iic.explainers.context import Context
from iic.explainers.names import (
    CONTROLS,
    GRADIENTS,
    HOOKED,
    LIBRARY,
    LOGIT,
    LRP_COMPOSITES,
    METHODS,
    RANDOM_WEIGHTS,
    SAMPLED,
    base_of,
)
from iic.explainers.possible import by_library, check_possible

if TYPE_CHECKING:
    from torch import nn

RANDOM, RANDOM_SUPERPIXELS = 3, 6  # key the draws of random pixels and superpixels


def explain(
    method: str, context: Context, images: np.ndarray, indices: np.ndarray, targets: np.ndarray, *, twin: bool = False
) -> Maps:
    """Explain a few images with a method that asks the network itself.

    Args:
        method: a name of `iic.explainers.names.DIRECT`.
        context: the network and how it is explained; for `_random_weights` the caller gives it such a network.
        images: uint8 (n, C, H, W).
        indices: int64 (n,), their positions in the test set, which key all draws: a map does not depend on the others.
        targets: int64 (n,), the classes to explain.
        twin: whether the logit is to be explained beside the probability, as `<method>_logit` would, by the same
            forwards (the libraries make their own).

    Raises:
        UserError: an unknown method; what the method says of its inputs; a map that is not finite, by its image.
    """
    if method not in METHODS:
        raise UserError(f"Unknown method '{method}': choose from {', '.join(METHODS)}.")
    base = method.removesuffix(LOGIT).removesuffix(RANDOM_WEIGHTS)
    check_possible(base, context.params)
    if by_library(base, context.params):
        maps = _by_library(base, context, images, indices, targets, logits=method.endswith(LOGIT))
        if twin:
            maps = replace(maps, twin=_by_library(base, context, images, indices, targets, logits=True))
    elif base in SAMPLED:
        from iic.explainers.sampled import SAMPLED as functions
        from iic.explainers.sampled import Group

        output = "logit" if method.endswith(LOGIT) else "both" if twin else "probability"
        maps = functions[base](Group(context, images, indices, targets, output))
    elif base in LRP_COMPOSITES:
        maps = _relevance(base, context, images, targets)
    elif base in GRADIENTS:
        maps = _gradients(base, context, images, targets)
    elif base in CONTROLS:
        maps = _control(base, context, images, indices)
    else:
        raise UserError(f"The method '{method}' is derived from another's maps: run the attribution pipeline for it.")
    finite = np.all([_finite(m) for m in (maps, maps.twin) if m is not None], axis=0)
    if not finite.all():
        raise UserError(f"The {method} map of test image {indices[~finite][0]} is not finite: train the model again.")
    return maps


def _finite(maps: Maps) -> np.ndarray:
    """Whether values, errors and numbers of each image are finite: bool (n,)."""
    found = np.isfinite(maps.values).all((1, 2))
    if maps.errors is not None:
        found &= np.isfinite(maps.errors).all((1, 2))
    return np.all([found, *(np.isfinite(column) for column in maps.numbers.values())], axis=0)


def check_network(model: nn.Module, methods: Iterable[str], lrp_rules: Mapping[str, str] | None = None) -> None:
    """Raise UserError, naming layer, rule or operation, if one of the methods cannot explain the frozen network.

    Args:
        model: frozen.
        methods: names of `iic.explainers.names.METHODS`.
        lrp_rules: layer -> rule, before a composite's choice.
    """
    from iic.explainers.composites import composite
    from iic.explainers.gradients import last_spatial
    from iic.explainers.graph import check_hooks
    from iic.explainers.lrp import Propagator

    for method in dict.fromkeys(base_of(name) for name in methods):
        if method in LRP_COMPOSITES:
            Propagator(model, composite(LRP_COMPOSITES[method], lrp_rules))
        elif method in HOOKED:
            check_hooks(model, method)
            if method == "grad_cam":
                last_spatial(model)


def _by_library(
    method: str, context: Context, images: np.ndarray, indices: np.ndarray, targets: np.ndarray, *, logits: bool
) -> Maps:
    """The library that defined the method, image by image."""
    import torch

    from iic.explainers.libraries import Explained, captum_occlusion, lime_image, shap_kernel

    params, forward = context.params, context.forward
    asked = 0

    @torch.no_grad()
    def answer(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += len(pixels)
        found = forward.model(pixels.to(forward.device).contiguous(memory_format=torch.channels_last)).float()
        if not found.isfinite().all():
            raise UserError(f"The network's output for a perturbed test image {index} is not finite: train it again.")
        return (found if logits else found.softmax(1)).cpu()

    values, forwards = [], np.zeros(len(images))
    for row, (image, index, target) in enumerate(zip(images, indices, targets, strict=True)):
        before = asked
        segments = context.segments(image, int(index))
        x = Explained(image, context.fill(image, segments), segments, int(target), answer)
        seed = int(context.draws(int(index), LIBRARY.index(method)).integers(2**31))
        if method == "occlusion":
            values.append(captum_occlusion(x, params.occlusion_window, params.occlusion_stride))
        else:
            library = lime_image if method == "lime" else shap_kernel
            values.append(library(x, params.budget, seed)[segments])
        forwards[row] = asked - before
    return Maps(np.stack(values).astype(np.float32), None, {"forwards": forwards})


def _relevance(method: str, context: Context, images: np.ndarray, targets: np.ndarray) -> Maps:
    import torch

    from iic.explainers.composites import composite
    from iic.explainers.lrp import Propagator

    device = context.forward.device
    propagate = Propagator(context.plain, composite(LRP_COMPOSITES[method], context.params.lrp_rules))
    found = propagate(torch.from_numpy(images).to(device), torch.from_numpy(targets).to(device))
    values = found.values.sum(1).float().cpu().numpy()  # channels summed with their sign: (n, H, W)
    columns = {"leak": found.leak().double(), **found.account()}
    numbers = {name: column.cpu().numpy() for name, column in columns.items()}
    return Maps(values, None, {"forwards": np.ones(len(images)), **numbers})


def _gradients(method: str, context: Context, images: np.ndarray, targets: np.ndarray) -> Maps:
    import torch

    from iic.explainers.gradients import GRADIENTS as functions
    from iic.explainers.gradients import AfterNormalize, passes

    device = context.forward.device
    model = AfterNormalize(context.plain, torch.as_tensor(context.mean, dtype=torch.float32, device=device))
    x = model.normalize(torch.from_numpy(images).to(device).float())
    maps = functions[method](model, x, torch.from_numpy(targets).to(device), context.params)
    forwards = np.full(len(images), passes(method, context.params))
    return Maps(maps.detach().float().cpu().numpy(), None, {"forwards": forwards})


def _control(method: str, context: Context, images: np.ndarray, indices: np.ndarray) -> Maps:
    from iic.explainers import controls

    def one(image: np.ndarray, index: int) -> np.ndarray:
        if method == "random_superpixels":
            return controls.random_superpixels(context.segments(image, index), context.draws(index, RANDOM_SUPERPIXELS))
        if method == "random":
            return controls.random_pixels(image.shape[1:], context.draws(index, RANDOM))
        if method == "contrast":
            return controls.distance_from_mean(image, context.mean)
        return controls.sobel_edges(image) if method == "sobel" else controls.centred_gaussian(image.shape[1:])

    maps = [one(image, int(index)) for image, index in zip(images, indices, strict=True)]
    return Maps(np.stack(maps).astype(np.float32), None, {"forwards": np.zeros(len(images))})
