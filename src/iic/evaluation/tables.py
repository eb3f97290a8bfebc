"""The report as flat tables: cells, leads over the best control, claims."""

from __future__ import annotations

import pandas as pd

CLAIM = (
    *("judge", "direction", "fill", "better", "worse", "value", "low", "high", "differing", "p"),
    *("abstains", "supported", "contradicted_by"),
)


def cell_table(report: dict) -> pd.DataFrame:
    """A row for each cell of headline and curves: where, which method, and all that was measured."""
    rows = []
    for table in report["headline"]:
        for method, cell in table["methods"].items():
            rows.append(_row("headline", table, method, report["kept_share"], cell))
    for table in report["curves"]:
        for method, curve in table["methods"].items():
            rows += [
                _row("matrix", table, method, share, cell)
                for share, cell in zip(table["shares"], curve["cells"], strict=True)
            ]
    return pd.DataFrame(rows)


def _row(part: str, table: dict, method: str, share: float, cell: dict) -> dict:
    low, high = cell["interval"]
    found = {key: cell[key] for key in ("accuracy", "agreement", "probability", "abstains")}
    return {"part": part, **_where(table), "method": method, "share": share, **found, "low": low, "high": high}


def lead_table(report: dict) -> pd.DataFrame:
    """A row for each method, judge, direction and fill: its score, its lead over the best control, and its maps' cost.

    The score is the accuracy of the headline's cell, or the area under the matrix' curve of accuracy; leads are turned
    so that higher is better for the map, and empty where there is none to say. Whoever reads a lead needs
    `beats_controls`: it says whether the method is ahead of the controls on which the judge abstains as well.
    """
    rows = []
    kinds = (("headline", "accuracy", "minus_best_control"), ("curves", "area", "area_minus_best_control"))
    nothing = {"value": None, "interval": (None, None), "control": None, "differing": None}
    for part, score, lead in kinds:
        for table in report[part]:
            for method, found in table["methods"].items():
                gap, cost = found[lead] or nothing, report["methods"][method]
                low, high = gap["interval"]
                rows.append(
                    {"score": score, **_where(table), "method": method, "value": found[score]}
                    | {"lead": gap["value"], "low": low, "high": high}
                    | {key: gap[key] for key in ("control", "differing")}
                    | {"abstains": bool(found["abstains"]), "beats_controls": found["beats_controls"]}
                    | {"not_ahead_of_silent": " ".join(found["not_ahead_of_silent"])}
                    | {key: cost[key] for key in ("seconds_per_image", "forwards_per_image")}
                )
    return pd.DataFrame(rows)


def claim_table(report: dict) -> pd.DataFrame:
    """A row for each "better than" of the headline: the evidence, and whether it is supported, twins included.

    Whoever reads `supported` needs `contradicted_by`: the judges whose interval lies on the other side of 0.
    """
    rows = []
    for table in report["headline"]:
        for claim in table["claims"]:
            low, high = claim["interval"]
            said = {key: claim[key] for key in ("better", "worse", "value", "differing", "p", "supported")}
            listed = {key: " ".join(claim[key]) for key in ("abstains", "contradicted_by")}
            rows.append({**_where(table), **said, "low": low, "high": high, **listed})
    return pd.DataFrame(rows, columns=list(CLAIM))  # with its columns where there was nothing to compare


def _where(table: dict) -> dict:
    return {key: table[key] for key in ("judge", "direction", "fill")}
