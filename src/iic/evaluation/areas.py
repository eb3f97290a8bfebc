"""From the judges' answers over all shares to curves, the areas under them, their leads and ranks.

Scores are oriented and averaged as in `summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from iic.evaluation.comparison import ranks_by_fill, resampled_means
from iic.evaluation.outcomes import Outcomes
from iic.evaluation.statistics import bootstrap_interval
from iic.evaluation.summary import Way, cell_summary, compare, is_silent, oriented, per_image, ways


def area_per_image(outcomes: Outcomes, way: Way, shares: Sequence[float], what: str = "accuracy") -> np.ndarray:
    """Area under each image's curve over the shares, a mean height in 0..1: float64 (N,); `what` as in `per_image`."""
    heights = np.stack([per_image(outcomes, way, share, what) for share in shares])  # (shares, N)
    return trapezoid(heights, shares, axis=0) / (shares[-1] - shares[0])


def silent_shares(outcomes: Outcomes, way: Way, shares: Sequence[float]) -> list[float]:
    """The shares at which the judge abstains: an area over one of them is nobody's score."""
    return [share for share in shares if is_silent(outcomes, way, share)]


def curves(outcomes: Mapping[str, Outcomes], *, replicates: int, seed: int) -> list[dict[str, Any]]:
    """For every judge, direction and fill: each method's cells over the shares, its area, the area's lead, groups.

    Where the judge abstains at one of the shares an area has no lead and is nobody's best control: to name one class
    whatever is removed looks like the best of maps.
    """
    first = next(iter(outcomes.values()))
    shares = sorted({cell.share for cell in first.cells})
    names, found = list(outcomes), []
    for way in ways(first):
        areas = np.stack([area_per_image(o, way, shares) for o in outcomes.values()])  # (M, N)
        scores = oriented(areas, way.direction)
        silent = {name: silent_shares(o, way, shares) for name, o in outcomes.items()}
        quiet = [name for name, some in silent.items() if some]
        leads, tied = compare(names, scores, resampled_means(scores, replicates, seed), quiet)
        rows = {}
        for name, o, area in zip(names, outcomes.values(), areas, strict=True):
            cells = [cell_summary(o, way, share, replicates=replicates, seed=seed) for share in shares]
            rows[name] = {
                "cells": cells,
                "area": float(area.mean()),
                "area_interval": list(bootstrap_interval(area, replicates=replicates, seed=seed)),
                "area_minus_best_control": leads[name].pop("lead"),
                **leads[name],
                "abstains": silent[name],
                **{
                    f"{what}_area": float(area_per_image(o, way, shares, what).mean())
                    for what in ("agreement", "probability")
                },
            }
        found.append(way._asdict() | {"shares": shares, "methods": rows, "groups": tied})
    return found


def mean_ranks(outcomes: Mapping[str, Outcomes]) -> list[dict[str, Any]]:
    """For every judge and direction: each method's mean rank over the fills by its area; a description, not a test.

    In a fill where the judge abstains on it a method has no rank, and the others are ranked without it.
    """
    first = next(iter(outcomes.values()))
    shares = sorted({cell.share for cell in first.cells})
    found = []
    for judge, direction in dict.fromkeys(way[:2] for way in ways(first)):
        some = [way for way in ways(first) if way[:2] == (judge, direction)]
        areas = [
            [
                np.nan if silent_shares(o, way, shares) else area_per_image(o, way, shares).mean()
                for o in outcomes.values()
            ]
            for way in some
        ]  # (F, M)
        ranks = ranks_by_fill(oriented(np.array(areas), direction))
        found.append(
            {
                "judge": judge,
                "direction": direction,
                "fills": [way[2] for way in some],
                "fills_ranked": dict(zip(outcomes, (~np.isnan(areas)).sum(0).tolist(), strict=True)),
                "mean_rank": {
                    m: None if np.isnan(rank) else float(rank) for m, rank in zip(outcomes, ranks, strict=True)
                },
            }
        )
    return found
