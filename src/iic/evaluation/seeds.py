"""The same study with networks from several training seeds: each seed is a point, and a claim needs its sign in all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iic.errors import UserError
from iic.evaluation.comparison import same_sign
from iic.explainers.names import EXPLAINERS


def newest_by_seed(reports: Iterable[dict]) -> dict[int, dict]:
    """The last report of each training seed among those that differ from the last one of all in nothing else.

    Args:
        reports: of one dataset, oldest first.

    Raises:
        UserError: fewer than two seeds.
    """
    found = [r for r in reports if r["parameters"]["training"]["weights"] == "trained"]  # others are one network
    like = _but_seed(found[-1]) if found else None
    by_seed = {r["parameters"]["training"]["seed"]: r for r in found if _but_seed(r) == like}
    if len(by_seed) < 2:
        raise UserError(
            f"Reports of training seeds that differ in nothing else: {len(by_seed)}, and two at least are needed: "
            "run the evaluation pipeline with another one, such as --params digits.training.seed=1."
        )
    return dict(sorted(by_seed.items()))


def _but_seed(report: dict) -> dict:
    """What has to be the same: parameters but the training seed, images, methods."""
    blocks = {name: dict(block) for name, block in report["parameters"].items()}
    blocks["training"].pop("seed")
    return {"parameters": blocks, "data": report["dataset"], "methods": list(report["methods"])}


def across_seeds(by_seed: dict[int, dict]) -> list[dict[str, Any]]:
    """For every judge, direction and fill: leads over the best control and claims, seed by seed.

    Args:
        by_seed: training seed -> accuracy report, from `newest_by_seed`; the first seed's claims are looked at.

    Returns:
        `leads`: method -> seed -> value; `claims`: better, worse, `by_seed`, `same_sign`, and `supported`: by the first
        seed's images and by the sign of all.
    """
    first = next(iter(by_seed.values()))
    found = []
    for number, table in enumerate(first["headline"]):
        tables = {seed: report["headline"][number] for seed, report in by_seed.items()}
        sign = 1 if table["direction"] == "keep" else -1
        leads = {
            method: {seed: t["methods"][method]["minus_best_control"] for seed, t in tables.items()}
            for method in table["methods"]
            if method in EXPLAINERS
        }
        claims = []
        for claim in table["claims"]:
            gaps = {
                seed: sign * (t["methods"][claim["better"]]["accuracy"] - t["methods"][claim["worse"]]["accuracy"])
                for seed, t in tables.items()
            }
            agree = same_sign(list(gaps.values()))
            names = {key: claim[key] for key in ("better", "worse")}
            claims.append(names | {"by_seed": gaps, "same_sign": agree, "supported": claim["supported"] and agree})
        where = {key: table[key] for key in ("judge", "direction", "fill")}
        found.append(where | {"leads": {m: _values(lead) for m, lead in leads.items()}, "claims": claims})
    return found


def _values(leads: dict[int, dict | None]) -> dict[int, float | None]:
    return {seed: None if lead is None else lead["value"] for seed, lead in leads.items()}


def sentences(found: list[dict[str, Any]]) -> str:
    """What holds in all seeds, a line for each claim."""
    lines = []
    for table in found:
        lines.append(f"{table['judge']} judge, {table['direction']}, {table['fill'].replace('_', ' ')}:")
        for claim in table["claims"]:
            gaps = ", ".join(f"{gap:+.3f}" for gap in claim["by_seed"].values())
            verdict = "holds" if claim["supported"] else "does not hold"
            lines.append(f"  {claim['better']} better than {claim['worse']}: {verdict} ({gaps} by training seed)")
    return "\n".join(lines)
