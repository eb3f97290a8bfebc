"""What every posterior keeps beside its weights, and how it becomes a state dict of tensors and comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from iic.bayes.network import PIXEL_UNIT
from iic.errors import UserError


@dataclass(frozen=True)
class Record:
    """How a posterior was learnt.

    Attributes:
        unit: what a raw input is divided by: 255 for pixels.
        prior: `numbers` of the prior: (scale,), (share, wide, narrow), or (0,) for scales of each weight's own; () in
            files of before it was recorded.
        kl_weights: of the KL divergence (or the log prior), at the last step of each epoch; () says 1 throughout.
        held_out: (count, seed) of the training images that `data.images.hold_out` kept from it; () says nothing of any.
    """

    unit: float = PIXEL_UNIT
    prior: tuple[float, ...] = ()
    kl_weights: tuple[float, ...] = ()
    held_out: tuple[float, ...] = ()

    @property
    def tempered(self) -> bool:
        """Whether training ended at another KL weight than 1: then this is not the Bayesian posterior."""
        return bool(self.kl_weights) and self.kl_weights[-1] != 1


UNRECORDED = Record()
_DRAWS = 0  # spawn key of what is drawn from a posterior


def draw_generator(seed: int) -> torch.Generator:
    """Of a posterior's samples: not the stream that `training.learn` took its start from under the same seed."""
    sequence = np.random.SeedSequence(seed, spawn_key=(_DRAWS,))
    return torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))


class Learnt(ABC):
    """A posterior: a frozen dataclass that starts with a dictionary of weights and ends with these three fields.

    Attributes:
        pixel_mean: subtracted from every input, in the record's unit.
        curve: float64 (epochs,), mean loss of each epoch's steps, in nats, for the whole training set: negative
            log-likelihood, plus the penalty (KL divergence or negative log prior) times its weight in that step.
        record: how it was learnt.
    """

    kind: ClassVar[str]
    pixel_mean: float
    curve: Tensor
    record: Record

    @abstractmethod
    def draw(self, n_samples: int, *, seed: int) -> Iterator[dict[str, Tensor]]:
        """Sets of weights of `network.logits`; the first k are the same for every n_samples >= k."""

    @property
    def is_finite(self) -> bool:
        """Whether it is a few sets of weights, so that other draws are the same ones."""
        return False

    @property
    def fixed_layers(self) -> int:
        """How many of the first layers are the same in every draw: what they make of the inputs is computed once."""
        return 0

    @property
    def of_features(self) -> bool:
        """Whether its inputs are features of a network, whose last layer it is, and not pixels."""
        return self.record.unit != PIXEL_UNIT

    def distinct(self, n_samples: int) -> int:
        """After how many of so many draws they repeat, in the same order."""
        return n_samples

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each weight and bias, as `network.weight_shapes`."""
        named = getattr(self, fields(self)[0].name)
        # members of an ensemble have a dimension in front
        return {
            name: tuple(value.shape[-1 if name.endswith("bias") else -2 if value.ndim < 4 else -4 :])
            for name, value in named.items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors only, for `torch.save`; `torch.load(..., weights_only=True)` reads them back."""
        state = {"kind": torch.tensor(list(self.kind.encode()), dtype=torch.uint8)}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                state |= {f"{name}.{field.name}": tensor for name, tensor in value.items()}
            elif isinstance(value, Record):
                state |= {f.name: _float64(getattr(value, f.name)) for f in fields(value)}
            else:
                state[field.name] = value if isinstance(value, Tensor) else _float64(value)
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Self:
        """The inverse of `state_dict`.

        Raises:
            UserError: a tensor is missing, or it is a posterior of another kind.
        """
        if kind_of(state) != cls.kind:
            raise UserError(
                f"The saved Bayesian network is of the kind {kind_of(state)}, not {cls.kind}: load it as what it is."
            )
        own = {field.name: field.type for field in fields(cls) if field.name != "record"}
        first = f".{next(iter(own))}"
        names = [key.removesuffix(first) for key in state if key.endswith(first)]
        keys = {field: [f"{name}.{field}" for name in names] if _is_named(own[field]) else [field] for field in own}
        missing = [key for wanted in keys.values() for key in wanted if key not in state]
        if missing or not names:
            raise UserError(
                f"The saved Bayesian network lacks {', '.join(missing) or 'its weights'}: train and save it again."
            )
        values = {}
        for field, declared in own.items():
            if _is_named(declared):
                values[field] = {name: state[f"{name}.{field}"] for name in names}
            else:
                values[field] = state[field].item() if declared == "float" else state[field]
        known = {f.name: state[f.name] for f in fields(Record) if f.name in state}
        return cls(**values, record=Record(**{name: _plain(value) for name, value in known.items()}))


def kind_of(state: Mapping[str, Tensor]) -> str:
    """The `kind` of a saved posterior; files of before there were several hold mean-field Normals."""
    return bytes(state["kind"].tolist()).decode() if "kind" in state else "mean_field"


def _is_named(declared: str) -> bool:
    """Whether a field holds one tensor per weight; types of fields are text under postponed annotations."""
    return declared.startswith("dict")


def _float64(value: float | tuple[float, ...]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _plain(value: Tensor) -> float | tuple[float, ...]:
    return tuple(value.tolist()) if value.ndim else value.item()
