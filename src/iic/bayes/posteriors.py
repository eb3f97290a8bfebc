"""The one table of posteriors: name -> what it is and how it is learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from iic.bayes import dropout, ensemble, inference, laplace, low_rank, point
from iic.bayes.inference import sample_weights
from iic.bayes.record import Learnt, kind_of
from iic.errors import UserError

__all__ = ["KINDS", "Kind", "fit", "from_state_dict", "sample_weights"]


class Kind(NamedTuple):
    """A posterior's class and how it is learnt: fit(images, labels, settings, *, seed, progress)."""

    posterior: type[Learnt]
    fit: Callable[..., Learnt]


KINDS: dict[str, Kind] = {
    "mean_field": Kind(inference.Posterior, inference.fit),
    "low_rank": Kind(low_rank.LowRank, low_rank.fit),
    "laplace": Kind(laplace.Laplace, laplace.fit),
    "ensemble": Kind(ensemble.Ensemble, ensemble.fit),
    "dropout": Kind(dropout.Dropout, dropout.fit),
}


def fit(kind: str, train_images, train_labels, settings: inference.Settings, **options) -> Learnt:
    """Learn the posterior of this name; other arguments and errors as `inference.fit`.

    Raises:
        UserError: also if there is no such kind.
    """
    return _kind(kind).fit(train_images, train_labels, settings, **options)


def from_state_dict(state: Mapping[str, Tensor]) -> Learnt:
    """Any posterior, or plain network of `point`, from its `state_dict`, of the kind that this says.

    Raises:
        UserError: a tensor is missing, or there is no such kind.
    """
    kind = kind_of(state)
    return (point.Point if kind == point.Point.kind else _kind(kind).posterior).from_state_dict(state)


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise UserError(f"There is no posterior '{name}': choose one of {', '.join(KINDS)}.")
    return KINDS[name]
