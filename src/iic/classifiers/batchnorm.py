"""BatchNorm's statistics taken anew, for weights that are no longer those which the running averages remember."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def settle(model: nn.Module, norms: Sequence[nn.Module], batches: Iterable[Tensor]) -> None:
    """Take the statistics of these BatchNorms from the batches: a plain average over them; each sees what comes to it.

    Args:
        model: in evaluation mode, and so it stays.
        norms: modules of it, which keep running statistics.
        batches: pixels float (n, C, H, W).
    """
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.training = True
    for pixels in batches:
        model(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.training = False
