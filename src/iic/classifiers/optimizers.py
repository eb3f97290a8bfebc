"""Muon for filters, Nesterov SGD for the rest, one falling learning-rate schedule (Jordan 2024, arXiv 2404.00498)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FilterMuon:
    """`torch.optim.Muon`, which takes 2-D parameters only, on the filters of convolutions seen as (out, in * k * k).

    The 2-D parameter shares its storage with the filter. Before each step the filter is scaled to norm sqrt(out): the
    BatchNorm behind it makes its scale irrelevant, and a fixed norm makes the learning rate the angle of a step.
    """

    def __init__(self, filters: list[nn.Parameter], *, lr: float, momentum: float) -> None:
        self.filters = filters
        self.flat = [nn.Parameter(f.data.view(len(f), -1)) for f in filters]
        self.optimizer = torch.optim.Muon(self.flat, lr=lr, momentum=momentum, nesterov=True, weight_decay=0.0)

    @property
    def param_groups(self) -> list[dict]:
        return self.optimizer.param_groups

    def state_dict(self) -> dict:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state)

    @torch.no_grad()
    def step(self) -> None:
        for filters, flat in zip(self.filters, self.flat, strict=True):
            flat.mul_(len(flat) ** 0.5 / flat.norm())
            flat.grad = filters.grad.reshape(flat.shape)
        self.optimizer.step()


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
