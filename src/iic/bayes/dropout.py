"""Monte-Carlo dropout: hidden units left out at random when training and when asked (Gal and Ghahramani 2016).

arXiv 1506.02142. Its penalty, eq. 7, is the negative log prior of the masked weights, averaged over the masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iic.bayes import network
from iic.bayes.point import fit_point
from iic.bayes.possible import check_possible
from iic.bayes.record import UNRECORDED, Learnt, Record, draw_generator
from iic.bayes.settings import Settings
from iic.bayes.training import prepare


@dataclass(frozen=True)
class Dropout(Learnt):
    """One set of weights, and masks over the hidden units that dense layers see.

    Attributes:
        loc: name -> float32, names and shapes as in `network.weight_shapes`.
        rate: share of the hidden units that a mask leaves out, in (0, 1).
        pixel_mean, curve, record: as in `record.Learnt`.
    """

    kind: ClassVar[str] = "dropout"
    loc: dict[str, Tensor]
    rate: float
    pixel_mean: float
    curve: Tensor
    record: Record = UNRECORDED

    @property
    def fixed_layers(self) -> int:
        """The first, or all convolutions: what they see is not masked."""
        return max(1, sum(value.ndim == 4 for value in self.loc.values()))

    def draw(self, n_samples: int, *, seed: int) -> Iterator[dict[str, Tensor]]:
        """One mask per layer and sample, the same for all images: columns of the next weights, times 0 or 1 / keep."""
        generator = draw_generator(seed)
        for _ in range(n_samples):
            weights = dict(self.loc)
            for name, weight in self.loc.items():
                if network.is_masked(name, weight):
                    kept = torch.rand(weight.shape[1], generator=generator) >= self.rate  # (units of the layer below,)
                    weights[name] = weight * (kept / (1 - self.rate))
            yield weights


def fit(
    train_images, train_labels, settings: Settings, *, seed: int, progress: Callable[[Iterable], Iterable] = iter
) -> Dropout:
    """Train under dropout of `settings.dropout`; arguments and errors as `point.fit_point` and `inference.fit`.

    Raises:
        UserError: also if there is no hidden layer, or the prior is not a Normal.
    """
    data = prepare(train_images, train_labels, settings)
    check_possible("dropout", settings, data.sizes)
    weights, fields = fit_point(data, settings, seed=seed, dropout=settings.dropout, progress=progress)
    return Dropout(weights, settings.dropout, **fields)
