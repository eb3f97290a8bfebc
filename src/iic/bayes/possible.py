"""Which posteriors can be learnt with which settings; without torch, so that a run can ask before it begins."""

from __future__ import annotations

from collections.abc import Sequence

from iic.bayes.settings import Settings
from iic.bayes.sizes import Size, units
from iic.errors import UserError

SETS = ("laplace", "dropout", "ensemble")  # most probable weights, with something around them
# weights of the last layer: the square of it in float64 is 2 GB, and Laplace's approximation holds four of them
LARGEST = 16_000


def check_possible(kind: str, settings: Settings, sizes: Sequence[Size]) -> None:
    """Raise UserError if no posterior of this kind can be learnt.

    Args:
        kind: a key of `posteriors.KINDS`.
        settings: prior and training.
        sizes: `sizes.layer_sizes` of its network, classes last.
    """
    if kind in SETS:
        if settings.temperature != 1:
            raise UserError(
                f"Only mean-field and low-rank posteriors have a temperature: set it to 1, not {settings.temperature}."
            )
        if settings.own_scales:
            raise UserError("A single set of weights would get infinitely narrow own_scales: set them to false.")
    reason = obstacle(kind, settings, sizes)
    if reason is not None:
        raise UserError(reason)


def obstacle(kind: str, settings: Settings, sizes: Sequence[Size]) -> str | None:
    """Why a kind cannot be learnt whatever its temperature and scales, in one sentence; arguments as above."""
    if kind in ("laplace", "dropout") and settings.narrow_scale is not None:
        name = {"laplace": "Laplace's approximation", "dropout": "MC dropout"}[kind]
        return f"{name} needs a prior of one Normal: set narrow_scale ({settings.narrow_scale}) to None."
    if kind == "dropout" and len(sizes) == 2:
        return "MC dropout leaves out hidden units, and a single layer has none: choose another posterior."
    inputs, classes = units(sizes[-2]), sizes[-1]
    if kind == "laplace" and classes * (inputs + 1) > LARGEST:
        return (
            f"Laplace's approximation needs the square of the last layer's {classes * (inputs + 1)} weights: "
            f"let its inputs be at most {LARGEST // classes - 1}."
        )
    return None


def no_reference(kind: str, settings: Settings, sizes: Sequence[Size]) -> str | None:
    """Why this kind cannot stand beside other posteriors of these settings, in one sentence; None where it can.

    Under another prior it would be a posterior of another model, so that a difference would not be the approximation's.
    """
    if len(sizes) == 2 and kind == "ensemble":
        return "A single layer's likelihood has one maximum, so members would differ by the optimiser's noise only."
    return obstacle(kind, settings, sizes)
