"""Muon for filters, Nesterov SGD for the rest, one falling learning-rate schedule (Jordan 2024, arXiv 2404.00498)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iic.classifiers.muon import FilterMuon
from iic.classifiers.recipe import Recipe


def whitening_filters(patches: Tensor, eps: float = 5e-4) -> Tensor:
    """Filters whose responses to the patches are uncorrelated with variance about 1, and their negatives.

    Args:
        patches: float (P, D), normalised, flattened.
        eps: added to the eigenvalues, so that directions without variance are not blown up.

    Returns:
        (2 D, D): eigenvectors of the second-moment matrix over the roots of its eigenvalues, then the same times -1.
    """
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = vectors.T / torch.sqrt(values[:, None] + eps)
    return torch.cat([filters, -filters])


def build_optimizers(model: nn.Sequential, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Of `build_network`'s biases and last layer, and of its filters but the whitening ones, which are not learnt."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    head = model[-1]
    decay = recipe.weight_decay * recipe.batch_size
    norm_biases = [m.bias for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    # The published rates are for 256 features whose logits are divided by 256. Here the head carries that scale, so its
    # rate is divided by 256^2; and the fewer features, the larger each one's weight and the steps that it causes.
    narrowness = 256 / head.in_features
    head_lr = recipe.head_lr / 256**2 * narrowness
    bias_lr = recipe.bias_lr / narrowness
    bias = {"lr": bias_lr, "weight_decay": decay / bias_lr}
    groups = [
        {**bias, "params": [convolutions[0].bias], "whiten": True},
        {**bias, "params": norm_biases},
        {"params": list(head.parameters()), "lr": head_lr, "weight_decay": decay / head_lr},
    ]
    filters = [m.weight for m in convolutions[1:]]
    optimizers = [
        torch.optim.SGD(groups, lr=recipe.bias_lr, momentum=0.85, nesterov=True),
        FilterMuon(filters, lr=recipe.filter_lr, momentum=recipe.filter_momentum),
    ]
    for group in [g for o in optimizers for g in o.param_groups]:
        group["initial_lr"] = group["lr"]
    return optimizers


def set_rates(optimizers: list, done: float, whiten_done: float) -> None:
    """Fall linearly to zero; the whitening bias stops earlier."""
    for group in [g for o in optimizers for g in o.param_groups]:
        group["lr"] = group["initial_lr"] * max(0.0, 1 - (whiten_done if group.get("whiten") else done))
