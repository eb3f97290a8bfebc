"""Whether a network refuses where another is confidently wrong: what they say as pixels are kept or removed.

A cell is one way to degrade the same images: the most important share of the pixels by a map is kept or removed, and
something takes the place of the rest. "Confidently wrong" is answered, by the network's own threshold, and wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from iic.bayes.asked import PLAIN, PLAIN_SAME, Ask
from iic.bayes.bootstrap import mean_interval
from iic.bayes.scores import check_labels
from iic.bayes.selection import answered, share
from iic.bayes.uncertainty_table import TARGETS, Answers, Thresholds, degradation_row, read
from iic.data.images import ImageSet
from iic.evaluation.degradation import pixel_ranks
from iic.evaluation.fills import Fills
from iic.evaluation.outcomes import DIRECTIONS
from iic.evaluation.statistics import wilson_interval
from iic.explainers.attributions import Attributions

RULE = "confidence"  # by which plain networks refuse
RULES = (RULE, "mutual_information")  # by which others are compared with them


class Cell(NamedTuple):
    """One way to degrade: "keep" or "remove" the most important share of the pixels, and what replaces the rest."""

    direction: str
    fill: str
    share: float


@dataclass(frozen=True)
class Taken:
    """How a network takes N images.

    Attributes:
        answers: what it says.
        labels: int64 (N,), of the images before they were degraded.
        thresholds: from `choose_thresholds`, on clean validation images.
    """

    answers: Answers
    labels: np.ndarray
    thresholds: Thresholds

    @property
    def wrong(self) -> np.ndarray:
        """Whether its forced answers are wrong: bool (N,)."""
        return self.answers.predicted != self.labels

    def answers_by(self, selector: str, target: str) -> np.ndarray:
        """Which images it answers under the threshold of a selector that it has: bool (N,)."""
        return answered(self.answers.selectors[selector], (self.thresholds[selector] or {}).get(target))


def take(samples, labels, thresholds: Thresholds) -> Taken:
    """How a network takes images of these labels, int (N,): posterior samples (S, N, K), S = 1 for a plain one."""
    answers = read(samples)
    return Taken(answers, check_labels(labels, *answers.mean.shape), thresholds)


def doubt_report(
    networks: Mapping[str, Ask],
    thresholds: Mapping[str, Thresholds],
    maps: Mapping[str, Attributions],
    test: ImageSet,
    fills: Fills,
    *,
    shares: tuple[float, ...],
    shown: float,
    images: int,
    fill_names: tuple[str, ...],
    noise_seed: int,
    seed: int,
    replicates: int,
    see: Callable[[np.ndarray], np.ndarray] = lambda images: images,
) -> dict:
    """What the networks say as the most important pixels are kept or removed, and how they differ there.

    Args:
        networks: name -> how it is asked; plain ones first.
        thresholds: name -> from `choose_thresholds`, on clean validation images.
        maps: method -> attributions of the explained network, controls among them.
        test: the test set.
        fills: what takes the place of pixels.
        shares: of the pixels that are kept, or removed.
        shown: the share that figures show, if it is one of them; else they show the middle one.
        images: explained images that are degraded, at most: the first, which are of all classes.
        fill_names: of `fills`.
        noise_seed: of the fills.
        seed: keys ties in the maps, and the bootstrap.
        replicates: number of bootstrap samples.
        see: what makes the networks' inputs of images.

    Returns:
        JSON-ready: `shares`, ascending; `shown`, one of them; `precisions` by network; `networks`: name -> method ->
        direction -> fill -> a `degradation_row` for each share, with its `share` and, under `against`, a `comparison`
        with each plain network that stands before.
    """
    shares, draws = tuple(sorted(shares)), {"seed": seed, "replicates": replicates}
    cells = [Cell(*cell) for cell in product(DIRECTIONS, fill_names, shares)]
    rows: dict[str, dict] = {name: {method: {} for method in maps} for name in networks}
    for method, found in maps.items():
        indices, values = found.indices[:images], np.asarray(found.values[:images])
        labels, ranks = test.labels[indices], pixel_ranks(values, indices, seed)
        degraded = [_degraded(cell, test.images[indices], ranks, indices, fills, noise_seed) for cell in cells]
        inputs = see(np.concatenate(degraded))
        samples = {name: ask(inputs) for name, ask in networks.items()}  # all cells at once, (S, cells * N, K)
        for number, cell in enumerate(cells):
            part = slice(number * len(labels), (number + 1) * len(labels))
            taken = {name: take(answers[:, part], labels, thresholds[name]) for name, answers in samples.items()}
            for name, row in _rows(taken, **draws).items():
                by_share = rows[name][method].setdefault(cell.direction, {}).setdefault(cell.fill, [])
                by_share.append({"share": cell.share, **row})
    return {
        "shares": list(shares),
        "shown": shown if shown in shares else shares[len(shares) // 2],
        "precisions": {name: ask.precision for name, ask in networks.items()},
        "networks": rows,
    }


def _degraded(
    cell: Cell, images: np.ndarray, ranks: np.ndarray, indices: np.ndarray, fills: Fills, noise_seed: int
) -> np.ndarray:
    """The images of a cell: uint8 (N, C, H, W)."""
    top = ranks < round(cell.share * ranks[0].size)
    keep = top if cell.direction == "keep" else ~top
    return np.rint(fills(cell.fill, images, keep, indices, noise_seed)).astype(np.uint8)


def _rows(taken: Mapping[str, Taken], *, seed: int, replicates: int) -> dict[str, dict]:
    """A cell's row of each network."""
    draws, rows, before = {"seed": seed, "replicates": replicates}, {}, {}
    for name, one in taken.items():
        rows[name] = degradation_row(one.answers, one.labels, one.thresholds, **draws)
        rows[name]["against"] = {plain: comparison(other, one, **draws) for plain, other in before.items()}
        before |= {name: one} if name in (PLAIN, PLAIN_SAME) else {}
    return rows


def _gap_interval(gap: np.ndarray, seed: int, replicates: int) -> list[float]:
    """95 % interval of a mean of -1, 0 and 1 over images (N,): where all agree, a bootstrap is blind, what Wilson's
    allows of others, on either side.
    """
    if gap.min() < gap.max():
        return mean_interval(gap, seed=seed, replicates=replicates)
    value, most = float(gap[0]), wilson_interval(0, len(gap))[1]
    return [max(-1.0, value - most), min(1.0, value + most)]


def comparison(plain: Taken, other: Taken, *, seed: int, replicates: int) -> dict[str, dict | None]:
    """Whether one network refuses where another, of the same images, is confidently wrong, JSON-ready.

    The plain one refuses by its confidence, the other by each of RULES that it has, both at the threshold for the same
    target on their own validation answers.

    Returns:
        selector -> target -> `confidently_wrong`: number of images that the plain one answers and gets wrong;
            `confidently_wrong_share`: of all images, with Wilson's interval; `refused`: the share of these that the
            other refuses, with Wilson's interval, None where there are none; `minus_plain`: the share of all images on
            which the other is confidently wrong, less that of the plain one, with the interval of a paired bootstrap
            over images.
        None for a selector that the other has not.
    """

    def compare(selector: str, target: str) -> dict:
        plain_errs = plain.answers_by(RULE, target) & plain.wrong
        is_answered = other.answers_by(selector, target)
        gap = (is_answered & other.wrong).astype(np.float64) - plain_errs  # -1, 0 or 1 by image
        return {
            "confidently_wrong": int(plain_errs.sum()),
            "confidently_wrong_share": share(plain_errs),
            "refused": share(~is_answered[plain_errs]),
            "minus_plain": {"value": float(gap.mean()), "interval": _gap_interval(gap, seed, replicates)},
        }

    has = other.answers.selectors
    return {name: {target: compare(name, target) for target in TARGETS} if name in has else None for name in RULES}
