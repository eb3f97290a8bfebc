"""From the judges' answers to the numbers of a report: cells, differences from the best control, groups; and claims.

Everywhere a score is oriented so that higher speaks for the map: accuracy where its top pixels are kept, accuracy lost
where they are removed. Noise seeds are averaged per image first; images are the unit that the bootstrap draws again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from iic.evaluation.claims import claimed, contradicted_by, in_numbers
from iic.evaluation.comparison import (
    BestControl,
    against_best_control,
    difference,
    groups,
    resampled_means,
    tellable_pairs,
)
from iic.evaluation.judges import abstains
from iic.evaluation.outcomes import Outcomes
from iic.evaluation.statistics import bootstrap_interval, wilson_interval
from iic.explainers.names import is_control_of


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
        "abstains": is_silent(outcomes, way, share),
    }


def is_silent(outcomes: Outcomes, way: Way, share: float) -> bool:
    """Whether the judge abstains with one noise seed at least."""
    return any(abstains(outcomes.predicted[row], outcomes.labels) for row in _rows(outcomes, way, share))


def compare(
    names: Sequence[str], scores: np.ndarray, means: np.ndarray, silent: Collection[str] = ()
) -> tuple[dict[str, dict], list[list[str]]]:
    """Each method's score minus that of its best control, and the groups that cannot be told apart, the best first.

    Args:
        names: of the M methods, controls among them.
        scores: float64 (M, N), higher is better.
        means: (R, M), `resampled_means` of these scores.
        silent: methods on which the judge abstains; they have no lead, are nobody's best control, and in no group.

    Returns:
        For every method its `lead`, None without a control that speaks or where the judge abstains;
        `not_ahead_of_silent`, the controls on which it abstains whose score the method's does not exceed; and whether
        it `beats_controls`, those too. And the groups.
    """
    speaks = np.array([name not in silent for name in names])
    controls = np.array([[is_control_of(other, name) for other in names] for name in names]) & speaks
    leads = against_best_control(names, scores, means, controls)
    found = {}
    for row, name in enumerate(names):
        lead = None if name in silent else leads.get(name)
        others = [k for k, other in enumerate(names) if other in silent and is_control_of(other, name)]
        behind = [names[k] for k in others if not difference(row, k, scores, means).is_ahead]
        found[name] = {
            "lead": None if lead is None else _lead(lead),
            "not_ahead_of_silent": [] if name in silent else behind,
            "beats_controls": lead is not None and leads[name].difference.is_ahead and not behind,
        }
    rows = np.flatnonzero(speaks)
    tied = groups(scores[rows].mean(1), tellable_pairs(scores[rows], means[:, rows]))
    return found, [[names[rows[row]] for row in group] for group in tied]


def _lead(lead: BestControl) -> dict[str, Any]:
    """JSON-ready."""
    return in_numbers(lead.difference) | {"control": lead.control}


def headline(outcomes: Mapping[str, Outcomes], share: float, *, replicates: int, seed: int) -> list[dict[str, Any]]:
    """For every judge, direction and fill: each method's cell, its lead over the best control, and the groups."""
    names = list(outcomes)
    found, drawn = [], {}
    for way in ways(next(iter(outcomes.values()))):
        cells = {n: cell_summary(o, way, share, replicates=replicates, seed=seed) for n, o in outcomes.items()}
        silent = {name for name, cell in cells.items() if cell["abstains"]}
        scores = np.stack([oriented(per_image(o, way, share), way.direction) for o in outcomes.values()])
        means = resampled_means(scores, replicates, seed)
        leads, tied = compare(names, scores, means, silent)
        drawn[way] = scores, means
        for name in names:
            lead = leads[name].pop("lead")
            cells[name] |= {"minus_best_control": lead, **leads[name]}
        said = claimed(names, scores, means, _first_hits(outcomes, way, share), silent)
        found.append(way._asdict() | {"methods": cells, "groups": tied, "claims": said})
    for table in found:
        for name, cell in table["methods"].items():
            others = _other_judges(name, table, found, names, drawn)
            against = [judge for judge, gain in others.items() if cell["beats_controls"] and gain["interval"][1] < 0]
            cell |= {"other_judges": others, "contradicted_by": against}
        for claim in table["claims"]:
            claim["contradicted_by"] = contradicted_by(claim, table, found)
    return found


def _first_hits(outcomes: Mapping[str, Outcomes], way: Way, share: float) -> np.ndarray:
    """The first noise seed's answers, True = better for the map: bool (M, N)."""
    right = np.stack([o.right(_rows(o, way, share)[:1])[0] for o in outcomes.values()])
    return right if way.direction == "keep" else ~right


def _other_judges(
    name: str, table: dict, tables: list[dict], names: list[str], drawn: Mapping[Way, tuple[np.ndarray, np.ndarray]]
) -> dict[str, dict]:
    """What the other judges say of a method's lead: judge -> its difference from the same control, where both speak."""
    lead, found = table["methods"][name]["minus_best_control"], {}
    for other in tables:
        same = all(other[key] == table[key] for key in ("direction", "fill"))
        if lead is None or not same or other["judge"] == table["judge"]:
            continue
        if any(other["methods"][one]["abstains"] for one in (name, lead["control"])):
            continue
        way = Way(*(other[key] for key in Way._fields))
        found[other["judge"]] = in_numbers(difference(names.index(name), names.index(lead["control"]), *drawn[way]))
    return found
