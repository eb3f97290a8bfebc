"""Deep ensemble: networks trained alike from different starts (Lakshminarayanan 2017, arXiv 1612.01474)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from iic.bayes.point import fit_point
from iic.bayes.record import UNRECORDED, Learnt, Record
from iic.bayes.settings import Settings
from iic.bayes.training import prepare


@dataclass(frozen=True)
class Ensemble(Learnt):
    """Equally probable sets of weights.

    Attributes:
        members: name -> float32 (M, *shape), names and shapes as in `network.weight_shapes`.
        pixel_mean, curve, record: as in `record.Learnt`; the curve is the members' mean.
    """

    kind: ClassVar[str] = "ensemble"
    members: dict[str, Tensor]
    pixel_mean: float
    curve: Tensor
    record: Record = UNRECORDED

    @property
    def size(self) -> int:
        """Number of members M."""
        return len(next(iter(self.members.values())))

    @property
    def is_finite(self) -> bool:
        """It is."""
        return True

    def draw(self, n_samples: int, *, seed: int = 0) -> Iterator[dict[str, Tensor]]:
        """Member s mod M for sample s: a multiple of M gives every member the same weight; the seed changes nothing."""
        for sample in range(n_samples):
            yield {name: stacked[sample % self.size] for name, stacked in self.members.items()}

    def distinct(self, n_samples: int) -> int:
        """M, after which it is the first member's turn again."""
        return min(n_samples, self.size)


def member_seed(seed: int, member: int) -> int:
    """Seed of one member's `fit_point`: no two (seed, member) share a network."""
    return int(np.random.SeedSequence([seed, member]).generate_state(1)[0])


def fit(
    train_images, train_labels, settings: Settings, *, seed: int, progress: Callable[[Iterable], Iterable] = iter
) -> Ensemble:
    """Train `settings.members` networks; arguments and errors as `point.fit_point` and `inference.fit`.

    `progress` wraps each member's steps.
    """
    data = prepare(train_images, train_labels, settings)
    fitted = [
        fit_point(data, settings, seed=member_seed(seed, member), progress=progress)
        for member in range(settings.members)
    ]
    members = {name: torch.stack([weights[name] for weights, _ in fitted]) for name in fitted[0][0]}
    curve = torch.stack([fields["curve"] for _, fields in fitted]).mean(0)
    return Ensemble(members, **{**fitted[0][1], "curve": curve})
