"""Asking for pairs of masks, round by round, until an image's top fifth is settled or the budget is spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from iic.explainers.coalitions import AMPLE, Coalitions, determine, draw_coalitions, in_pairs
from iic.explainers.kernel_shap import PairedValues, all_masks, paired_values
from iic.explainers.perturbation import SuperpixelMasks
from iic.explainers.ranking import is_stable

if TYPE_CHECKING:
    from iic.explainers.sampled import Group

ROUNDS = (0.25, 0.5, 1.0)  # shares of the budget after which early stopping looks whether the ranking is settled
KERNEL_SHAP = 1  # keys the draws, beside the numbers in `iic.explainers.sampled`

Estimate = Callable[[list[PairedValues]], tuple[list[np.ndarray], list[np.ndarray]]]  # each image's values and errors


class Sampled:
    """What one output of a group's images has come to: answers, values, errors, whether the top fifth is settled."""

    def __init__(self, count: int) -> None:
        self.answers: list[PairedValues | None] = [None] * count
        self.values: list[np.ndarray | None] = [None] * count
        self.errors: list[np.ndarray | None] = [None] * count
        self.settled = [False] * count

    def wanted(self, drawn: list[Coalitions], share: float) -> dict[int, int]:
        """Image -> pairs, where this share of the budget asks for more."""
        upto = {i: _pairs(coalitions, share) for i, coalitions in enumerate(drawn) if not self.settled[i]}
        return {i: pairs for i, pairs in upto.items() if self.answers[i] is None or pairs > len(self.answers[i].kept)}

    def settle(self, images: list[int], segments: list[np.ndarray], estimate: Estimate) -> None:
        """Estimate these images' values from their answers, and look whether their top fifths are certain."""
        for i, values, errors in zip(images, *estimate([self.answers[i] for i in images]), strict=True):
            self.values[i], self.errors[i] = values, errors
            self.settled[i] = is_stable(values, errors, segments[i])


def sample_pairs(group: Group, segments: list[np.ndarray], estimate: Estimate) -> list[Sampled]:
    """What each output comes to; with `stop_early` an image's sampling ends, for each output, once that is settled.

    Outputs share forwards only as long as they want the same ones: then each output's batches, and so its bytes, are
    what they would be if it were explained alone.
    """
    params = group.context.params
    drawn = [_drawn(group, int(s.max()) + 1, i) for s, i in zip(segments, group.indices, strict=True)]
    outputs = [Sampled(len(group)) for _ in group.apart()]
    for share in ROUNDS if params.stop_early else ROUNDS[-1:]:
        wanted = [sampled.wanted(drawn, share) for sampled in outputs]
        if all(upto == wanted[0] for upto in wanted):
            parts = [(group, outputs, wanted[0])]
        else:
            parts = [(g, [o], upto) for g, o, upto in zip(group.apart(), outputs, wanted, strict=True)]
        for part, asking, upto in parts:
            if upto:
                _ask_pairs(part, segments, drawn, asking, upto)
                for sampled in asking:
                    sampled.settle(list(upto), segments, estimate)
    return outputs


def _drawn(group: Group, superpixels: int, index: int) -> Coalitions:
    params, rng = group.context.params, group.context.draws(index, KERNEL_SHAP)
    return draw_coalitions(superpixels, params.budget - 2, rng, params.kernel_power, f"test image {index}")


def _pairs(drawn: Coalitions, share: float) -> int:
    """So many pairs after this share of the budget; never too few for the regression."""
    p, m = drawn.masks.shape
    pairs = min(p, max(round(share * p), 2 * m))
    while pairs < min(p, AMPLE * m) and not determine(drawn.masks[:pairs]):
        pairs += 1
    return pairs


def _ask_pairs(
    group: Group, segments: list, drawn: list[Coalitions], outputs: list[Sampled], upto: dict[int, int]
) -> None:
    """Bring the answers of these images up to their numbers of pairs; the outputs have the same ones so far."""
    masks = {}
    for i, pairs in upto.items():
        answered = outputs[0].answers[i]
        new = drawn[i].masks[0 if answered is None else len(answered.kept) : pairs]
        z = all_masks(drawn[i].first(pairs)) if answered is None else in_pairs(new)
        masks[i] = SuperpixelMasks(segments[i], z, 2 if answered is None else 0)
    for sampled, values in zip(outputs, group.ask(masks, segments), strict=True):
        for i, found in values.items():
            sampled.answers[i] = _extended(sampled.answers[i], drawn[i].first(upto[i]), found)


def _extended(old: PairedValues | None, chosen: Coalitions, found: np.ndarray) -> PairedValues:
    """The answers so far and those of the next pairs."""
    if old is None:
        return paired_values(chosen, found)
    kept, others = np.append(old.kept, found[0::2]), np.append(old.others, found[1::2])
    return PairedValues(chosen, kept, others, old.nothing, old.everything)
