"""Muon on the filters of convolutions (Jordan and others 2024, as in arXiv 2404.00498): steps without small directions.

`torch.optim.Muon` takes two-dimensional parameters only and always computes in bfloat16, which a CPU without it has to
imitate at a fortieth of float32's speed: there a step took longer than the gradients before it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, chosen for its slope at zero
ITERATIONS = 5
SMALLEST = 1e-7  # norm that a gradient is divided by at least


class FilterMuon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised: `torch.optim.Muon` on filters (out, in, k, k) seen as (out, in * k * k).

    Before each step a filter is scaled to norm sqrt(out): the BatchNorm behind it makes its scale irrelevant, and a
    fixed norm makes the learning rate the angle of a step.
    """

    def __init__(self, filters: Iterable[nn.Parameter], *, lr: float, momentum: float) -> None:
        super().__init__(filters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for filters in group["params"]:
                self._step(filters, group["lr"], group["momentum"])

    def _step(self, filters: nn.Parameter, lr: float, momentum: float) -> None:
        flat = filters.view(len(filters), -1)  # (out, in * k * k), the filter's own memory
        gradient = filters.grad.reshape(flat.shape)
        if "momentum_buffer" not in self.state[filters]:
            self.state[filters]["momentum_buffer"] = torch.zeros_like(gradient)
        mean = self.state[filters]["momentum_buffer"].lerp_(gradient, 1 - momentum)
        wanted = orthogonalised(gradient.lerp(mean, momentum), _fast_dtype(flat.device))
        out, inputs = flat.shape
        flat.mul_(out**0.5 / flat.norm()).add_(wanted, alpha=-lr * max(1, out / inputs) ** 0.5)


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearly U V^T of a matrix U S V^T: five Newton-Schulz iterations in `dtype`, which leave singular values of .5 to
    1.5."""
    a, b, c = COEFFICIENTS
    wide = matrix.to(dtype) if matrix.shape[0] <= matrix.shape[1] else matrix.to(dtype).T
    wide = wide / wide.norm().clamp(min=SMALLEST)  # singular values of at most 1
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def _fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where products of matrices have it in hardware: it is accurate enough here."""
    has_it = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_it else torch.float32
