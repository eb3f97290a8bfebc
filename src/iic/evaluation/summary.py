"""From the judges' answers to the numbers of a report: cells, curves, differences from the best control, groups.

Everywhere a score is oriented so that higher speaks for the map: accuracy where its top pixels are kept, accuracy lost
where they are removed. Noise seeds are averaged per image first; images are the unit that the bootstrap draws again.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from iic.evaluation.comparison import (
    Difference,
    against_best_control,
    claims,
    difference,
    groups,
    ranks_by_fill,
    resampled_means,
    tellable_pairs,
)
from iic.evaluation.judges import abstains
from iic.evaluation.outcomes import Outcomes
from iic.evaluation.statistics import bootstrap_interval, wilson_interval
from iic.explainers.names import EXPLAINERS, fair_twins, is_control_of


class Way(NamedTuple):
    """One way to degrade and judge, at any share, with any noise seed."""

    judge: str
    direction: str
    fill: str


def ways(outcomes: Outcomes) -> list[Way]:
    """Every judge, direction and fill that was measured, in the order of the cells."""
    return list(dict.fromkeys(Way(c.judge, c.direction, c.fill) for c in outcomes.cells))


def _rows(outcomes: Outcomes, way: Way, share: float) -> np.ndarray:
    return outcomes.rows(**way._asdict(), share=share)


def per_image(outcomes: Outcomes, way: Way, share: float, what: str = "accuracy") -> np.ndarray:
    """Each image's mean over the noise seeds: float64 (N,).

    Args:
        outcomes: one method's.
        way: judge, direction, fill.
        share: of the pixels.
        what: "accuracy", whether the true class is named; "agreement", whether the explained one is; "probability", of
            the explained class.
    """
    rows = _rows(outcomes, way, share)
    if what == "probability":
        return outcomes.probability[rows].mean(0, dtype=np.float64)
    return (outcomes.right(rows) if what == "accuracy" else outcomes.same(rows)).mean(0)


def oriented(values: np.ndarray, direction: str) -> np.ndarray:
    """Higher is better for the map: what is left, or what is lost."""
    return values if direction == "keep" else 1 - values


def area_per_image(outcomes: Outcomes, way: Way, shares: Sequence[float], what: str = "accuracy") -> np.ndarray:
    """Area under each image's curve over the shares, a mean height in 0..1: float64 (N,); `what` as in `per_image`."""
    heights = np.stack([per_image(outcomes, way, share, what) for share in shares])  # (shares, N)
    return trapezoid(heights, shares, axis=0) / (shares[-1] - shares[0])


def cell_summary(outcomes: Outcomes, way: Way, share: float, *, replicates: int, seed: int) -> dict[str, Any]:
    """Accuracy with its 95 % interval, agreement and probability of the explained class; whether the judge abstains."""
    rows = _rows(outcomes, way, share)
    right = outcomes.right(rows)
    if len(rows) == 1:
        interval = wilson_interval(int(right.sum()), right.size)
    else:
        interval = bootstrap_interval(right.mean(0), replicates=replicates, seed=seed)
    return {
        "accuracy": float(right.mean()),
        "interval": list(interval),
        "agreement": float(outcomes.same(rows).mean()),
        "probability": float(outcomes.probability[rows].mean()),
        "abstains": any(abstains(outcomes.predicted[row], outcomes.labels) for row in rows),
    }


def compare(
    names: Sequence[str], scores: np.ndarray, means: np.ndarray, silent: Collection[str] = ()
) -> tuple[dict[str, dict], list[list[str]]]:
    """Each method's score minus that of its best control, and the groups that cannot be told apart, the best first.

    Args:
        names: of the M methods, controls among them.
        scores: float64 (M, N), higher is better.
        means: (R, M), `resampled_means` of these scores.
        silent: methods on which the judge abstains; they have no lead, are nobody's best control, and in no group.
    """
    speaks = np.array([name not in silent for name in names])
    controls = np.array([[is_control_of(other, name) for other in names] for name in names]) & speaks
    leads = against_best_control(names, scores, means, controls)
    found = {
        n: _difference(lead.difference) | {"control": lead.control} for n, lead in leads.items() if n not in silent
    }
    rows = np.flatnonzero(speaks)
    tied = groups(scores[rows].mean(1), tellable_pairs(means[:, rows]))
    return found, [[names[rows[row]] for row in group] for group in tied]


def headline(outcomes: Mapping[str, Outcomes], share: float, *, replicates: int, seed: int) -> list[dict[str, Any]]:
    """For every judge, direction and fill: each method's cell, its lead over the best control, and the groups."""
    names = list(outcomes)
    found = []
    for way in ways(next(iter(outcomes.values()))):
        cells = {n: cell_summary(o, way, share, replicates=replicates, seed=seed) for n, o in outcomes.items()}
        silent = {name for name, cell in cells.items() if cell["abstains"]}
        scores = np.stack([oriented(per_image(o, way, share), way.direction) for o in outcomes.values()])
        means = resampled_means(scores, replicates, seed)
        leads, tied = compare(names, scores, means, silent)
        for row, name in enumerate(names):
            cells[name]["minus_best_control"] = leads.get(name)
            others = [k for k, other in enumerate(names) if other in silent and is_control_of(other, name)]
            behind = [k for k in others if difference(row, k, scores, means).low <= 0]
            cells[name]["not_ahead_of_silent"] = [] if name in silent else [names[k] for k in behind]
        said = claimed(outcomes, way, share, scores, means, silent)
        found.append(way._asdict() | {"methods": cells, "groups": tied, "claims": said})
    return found


def mean_ranks(outcomes: Mapping[str, Outcomes]) -> list[dict[str, Any]]:
    """For every judge and direction: each method's mean rank over the fills by its area; a description, not a test."""
    first = next(iter(outcomes.values()))
    shares = sorted({cell.share for cell in first.cells})
    found = []
    for judge, direction in dict.fromkeys(way[:2] for way in ways(first)):
        some = [way for way in ways(first) if way[:2] == (judge, direction)]
        areas = [[area_per_image(o, way, shares).mean() for o in outcomes.values()] for way in some]
        ranks = ranks_by_fill(oriented(np.array(areas), direction))
        found.append(
            {"judge": judge, "direction": direction, "fills": [way[2] for way in some]}
            | {"mean_rank": dict(zip(outcomes, ranks.tolist(), strict=True))}
        )
    return found


def claimed(
    outcomes: Mapping[str, Outcomes],
    way: Way,
    share: float,
    scores: np.ndarray,
    means: np.ndarray,
    silent: Collection[str] = (),
) -> list[dict[str, Any]]:
    """ "A is better than B" for every two explainers, the better one first: evidence, and what the fair twins say.

    Args:
        outcomes: by method.
        way: judge, direction, fill.
        share: of the pixels.
        scores: float64 (M, N), higher is better, rows in the order of `outcomes`.
        means: (R, M), `resampled_means` of these scores.
        silent: methods on which the judge abstains: no claim about them, or that needs one of them as a twin, holds.
    """
    names = list(outcomes)
    explainers = [row for row, name in enumerate(names) if name in EXPLAINERS]
    ordered = sorted(explainers, key=lambda row: -scores[row].mean())
    pairs = list(itertools.combinations(ordered, 2))
    if not pairs:
        return []
    first = np.array([o.right(_rows(o, way, share)[:1])[0] for o in outcomes.values()])
    hits = first if way.direction == "keep" else ~first  # higher is better, as in the scores
    found = []
    for claim in claims(names, pairs, scores, means, hits):
        twins = []
        for better, worse in fair_twins(claim.better, claim.worse):
            known = better in outcomes and worse in outcomes
            gain = difference(names.index(better), names.index(worse), scores, means) if known else None
            twins.append({"better": better, "worse": worse, **_difference(gain)})
        holds = [twin["interval"] is not None and twin["interval"][0] > 0 for twin in twins]
        asked = {claim.better, claim.worse, *(twin[key] for twin in twins for key in ("better", "worse"))}
        silenced = sorted(asked & set(silent))
        found.append(
            {
                "better": claim.better,
                "worse": claim.worse,
                **_difference(claim.difference),
                "p": claim.p,
                "twins": twins,
                "abstains": silenced,
                "supported": claim.is_supported and all(holds) and not silenced,
            }
        )
    return found


def _difference(gain: Difference | None) -> dict[str, Any]:
    """JSON-ready; null for a comparison whose methods were not in the run."""
    if gain is None:
        return {"value": None, "interval": None}
    return {"value": gain.point, "interval": [gain.low, gain.high]}


def curves(outcomes: Mapping[str, Outcomes], *, replicates: int, seed: int) -> list[dict[str, Any]]:
    """For every judge, direction and fill: each method's cells over the shares, its area, the area's lead, groups."""
    first = next(iter(outcomes.values()))
    shares = sorted({cell.share for cell in first.cells})
    names, found = list(outcomes), []
    for way in ways(first):
        areas = np.stack([area_per_image(o, way, shares) for o in outcomes.values()])  # (M, N)
        scores = oriented(areas, way.direction)
        leads, tied = compare(names, scores, resampled_means(scores, replicates, seed))
        rows = {}
        for name, o, area in zip(names, outcomes.values(), areas, strict=True):
            cells = [cell_summary(o, way, share, replicates=replicates, seed=seed) for share in shares]
            rows[name] = {
                "cells": cells,
                "area": float(area.mean()),
                "area_interval": list(bootstrap_interval(area, replicates=replicates, seed=seed)),
                "area_minus_best_control": leads.get(name),
                **{
                    f"{what}_area": float(area_per_image(o, way, shares, what).mean())
                    for what in ("agreement", "probability")
                },
            }
        found.append(way._asdict() | {"shares": shares, "methods": rows, "groups": tied})
    return found
