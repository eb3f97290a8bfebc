"""The report's cells as one flat table."""

from __future__ import annotations

import pandas as pd


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
    where = {key: table[key] for key in ("judge", "direction", "fill")}
    low, high = cell["interval"]
    found = {key: cell[key] for key in ("accuracy", "agreement", "probability", "abstains")}
    return {"part": part, **where, "method": method, "share": share, **found, "low": low, "high": high}
