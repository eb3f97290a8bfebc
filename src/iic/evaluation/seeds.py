"""The same study with networks from several training seeds: each seed is a point, and a claim needs its sign in all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iic.errors import UserError
from iic.evaluation.comparison import same_sign
from iic.explainers.names import EXPLAINERS

WANTED = 3  # training seeds


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
    """What has to be the same: parameters but the training seed, code, images, methods."""
    blocks = {name: dict(block) for name, block in report["parameters"].items()}
    for name in ("seed", "device"):
        blocks["training"].pop(name, None)
    code = {key: report.get("made", {}).get(key) for key in ("explaining_code", "judging_code")}
    return {"parameters": blocks, "code": code, "data": report["dataset"], "methods": list(report["methods"])}


def across_seeds(by_seed: dict[int, dict]) -> list[dict[str, Any]]:
    """For every judge, direction and fill: leads over the best control and claims, seed by seed.

    Args:
        by_seed: training seed -> accuracy report, from `newest_by_seed`; the first seed's claims are looked at.

    Returns:
        `leads`: method -> `by_seed` and `same_sign`; `claims`: better, worse, `by_seed`, `same_sign` (of the difference
        and of its fair twins' differences), and `supported`: by the first seed's images and by the sign of all. Where
        a judge abstains with one seed, the value is null, and no sign is the same.
    """
    first = next(iter(by_seed.values()))
    found = []
    for number, table in enumerate(first["headline"]):
        tables = {seed: report["headline"][number] for seed, report in by_seed.items()}
        leads = {m: _lead(m, tables) for m in table["methods"] if m in EXPLAINERS}
        where = {key: table[key] for key in ("judge", "direction", "fill")}
        found.append(where | {"leads": leads, "claims": [_claim(claim, tables) for claim in table["claims"]]})
    return found


def _lead(method: str, tables: dict[int, dict]) -> dict[str, Any]:
    leads = {seed: table["methods"][method]["minus_best_control"] for seed, table in tables.items()}
    values = {seed: None if lead is None else lead["value"] for seed, lead in leads.items()}
    return {"by_seed": values, "same_sign": _agree(values)}


def _claim(claim: dict, tables: dict[int, dict]) -> dict[str, Any]:
    """The difference by seed, and whether its sign, and that of each fair comparison, is the same in all."""
    by_seed = _gaps(claim["better"], claim["worse"], tables)
    agree = _agree(by_seed)
    for twin in claim["twins"]:
        agree = agree and _agree(_gaps(twin["better"], twin["worse"], tables))
    return {
        **{key: claim[key] for key in ("better", "worse")},
        "by_seed": by_seed,
        "same_sign": agree,
        "supported": claim["supported"] and agree,
    }


def _gaps(better: str, worse: str, tables: dict[int, dict]) -> dict[int, float | None]:
    """Seed -> difference of the scores, higher is better; None where a method is missing or its judge abstains."""
    gaps = {}
    for seed, table in tables.items():
        cells = [table["methods"].get(name) for name in (better, worse)]
        sign = 1 if table["direction"] == "keep" else -1
        spoken = all(cell is not None and not cell["abstains"] for cell in cells)
        gaps[seed] = sign * (cells[0]["accuracy"] - cells[1]["accuracy"]) if spoken else None
    return gaps


def _agree(values: dict[int, float | None]) -> bool:
    return None not in values.values() and same_sign(list(values.values()))


def sentences(found: list[dict[str, Any]]) -> str:
    """What holds in all seeds, a line for each claim."""
    seeds = max((len(claim["by_seed"]) for table in found for claim in table["claims"]), default=0)
    lines = [f"Of {seeds} training seeds; three are asked for."] if seeds < WANTED else []
    for table in found:
        lines.append(f"{table['judge']} judge, {table['direction']}, {table['fill'].replace('_', ' ')}:")
        for claim in table["claims"]:
            gaps = ", ".join("abstains" if gap is None else f"{gap:+.3f}" for gap in claim["by_seed"].values())
            verdict = "holds" if claim["supported"] else "does not hold"
            lines.append(f"  {claim['better']} better than {claim['worse']}: {verdict} ({gaps} by training seed)")
    return "\n".join(lines)
