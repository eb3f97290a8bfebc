"""Which numbers a network is trained in: bfloat16 where it is clearly faster and its gradients are right."""

from __future__ import annotations

import copy

import torch
from torch import nn

from iic.classifiers.inference import best_dtype
from iic.classifiers.recipe import Recipe
from iic.classifiers.training import backward, pool_early, whiten
from iic.data.images import ImageSet

AGREE = 0.4  # relative error of gradients up to which bfloat16 trains; colour images have 0.29 at most, digits 0.5


def choose_dtype(wanted: str, model: nn.Sequential, data: ImageSet, recipe: Recipe, device: str = "cpu") -> torch.dtype:
    """The type called `wanted`; for "auto" bfloat16 where it is clearly faster and its gradients are right."""
    if wanted != "auto":
        return getattr(torch, wanted)
    fast = trains_faster_in_bfloat16(device)
    return torch.bfloat16 if fast and bfloat16_agrees(model, data, recipe, device) else torch.float32


def trains_faster_in_bfloat16(device: str) -> bool:
    """Whether "cpu" or "cuda" here is clearly faster in bfloat16."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return best_dtype() == torch.bfloat16


def bfloat16_agrees(model: nn.Sequential, data: ImageSet, recipe: Recipe, device: str = "cpu") -> bool:
    """Whether the first gradients in bfloat16 are float32's, for every parameter: the model is left as it is.

    On digits they are not: most pixels are the same black, some channels hardly vary, BatchNorm blows their gradients
    up, and a bias, whose gradient is the sum of these and nearly zero, gets the sum of their rounding errors.
    """
    found = []
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(data), generator=generator)[: recipe.micro_batch]
    images, labels = (torch.from_numpy(a)[some].to(device) for a in (data.images, data.labels))
    ones = torch.ones(len(some), device=device)
    for dtype in (torch.float32, torch.bfloat16):
        trial = copy.deepcopy(model).to(device)
        whiten(trial, images)
        backward(pool_early(trial).train(), images, labels, ones, recipe, dtype)
        found.append({name: p.grad for name, p in trial.named_parameters() if p.grad is not None})
    exact, rounded = found
    return all((rounded[name] - g).norm() < AGREE * g.norm() for name, g in exact.items())
