"""Which method may be called better than which: the evidence, the fair twins, and the judges that contradict it.

Scores and means are those of `comparison`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iic.evaluation.comparison import Difference, difference, holm, mcnemar
from iic.evaluation.judges import contradicts
from iic.explainers.names import EXPLAINERS, fair_twins

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Claim:
    """ "`better` is better than `worse`": the evidence, and whether it carries.

    Attributes:
        p: McNemar's, corrected by Holm for all claims made together.
    """

    better: str
    worse: str
    difference: Difference
    p: float

    @property
    def is_supported(self) -> bool:
        """The difference is ahead, and p < .05."""
        return self.difference.is_ahead and self.p < SIGNIFICANT


def claims(
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    scores: np.ndarray,
    means: np.ndarray,
    hits: np.ndarray,
) -> list[Claim]:
    """The claims "a is better than b" that are made together, so that Holm's correction covers them all.

    Args:
        names: of the M methods.
        pairs: rows (a, b).
        scores: float64 (M, N).
        means: (R, M), `resampled_means` of these scores.
        hits: bool (M, N), the first noise seed's answers, True = better for the map.
    """
    # McNemar's test is two-sided: where the first seed says the opposite, its p is no evidence for the claim
    agrees = [hits[a].sum() > hits[b].sum() for a, b in pairs]
    p_values = [mcnemar(hits[a], hits[b]) if with_it else 1.0 for (a, b), with_it in zip(pairs, agrees, strict=True)]
    adjusted = holm(np.array(p_values))
    return [
        Claim(
            better=names[a],
            worse=names[b],
            difference=difference(a, b, scores, means),
            p=float(p),
        )
        for (a, b), p in zip(pairs, adjusted, strict=True)
    ]


def claimed(
    names: Sequence[str], scores: np.ndarray, means: np.ndarray, hits: np.ndarray, silent: Collection[str] = ()
) -> list[dict[str, Any]]:
    """ "A is better than B" for every two explainers, the better one first: evidence, and what the fair twins say.

    Args:
        names: of the M methods, controls and twins among them.
        scores: float64 (M, N), higher is better.
        means: (R, M), `resampled_means` of these scores.
        hits: bool (M, N), the first noise seed's answers, True = better for the map.
        silent: methods on which the judge abstains: no claim about them, or that needs one of them as a twin, holds.
    """
    explainers = [row for row, name in enumerate(names) if name in EXPLAINERS]
    ordered = sorted(explainers, key=lambda row: -scores[row].mean())
    pairs = list(itertools.combinations(ordered, 2))
    if not pairs:
        return []
    found = []
    for claim in claims(names, pairs, scores, means, hits):
        twins = []
        for better, worse in fair_twins(claim.better, claim.worse):
            known = better in names and worse in names
            gain = difference(names.index(better), names.index(worse), scores, means) if known else None
            holds = gain is not None and gain.is_ahead
            twins.append({"better": better, "worse": worse, **in_numbers(gain), "holds": holds})
        asked = {claim.better, claim.worse, *(twin[key] for twin in twins for key in ("better", "worse"))}
        silenced = sorted(asked & set(silent))
        found.append(
            {
                "better": claim.better,
                "worse": claim.worse,
                **in_numbers(claim.difference),
                "p": claim.p,
                "twins": twins,
                "abstains": silenced,
                "supported": claim.is_supported and all(twin["holds"] for twin in twins) and not silenced,
            }
        )
    return found


def contradicted_by(claim: dict, table: dict, tables: list[dict]) -> list[str]:
    """The judges whose interval of the same difference lies wholly on the other side of 0.

    Args:
        claim: one of `claimed`.
        table: the judge, direction and fill that it is of.
        tables: of all judges, directions and fills, each with its `claims`; where one of two judges abstains on one of
            the two methods, neither contradicts the other.
    """
    found = []
    for other in tables:
        if other["judge"] == table["judge"] or any(other[key] != table[key] for key in ("direction", "fill")):
            continue
        for said in other["claims"]:
            names = {said["better"], said["worse"]}
            if names != {claim["better"], claim["worse"]} or names & {*said["abstains"], *claim["abstains"]}:
                continue
            low, high = said["interval"]
            theirs = (low, high) if said["better"] == claim["better"] else (-high, -low)
            if contradicts(tuple(claim["interval"]), theirs):
                found.append(other["judge"])
    return found


def in_numbers(gain: Difference | None) -> dict[str, Any]:
    """JSON-ready; null for a comparison whose methods were not in the run."""
    if gain is None:
        return {"value": None, "interval": None, "differing": None}
    return {"value": gain.point, "interval": [gain.low, gain.high], "differing": gain.differing}
