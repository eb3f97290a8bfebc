"""The same study with networks from several training seeds: each seed is a point, and a claim needs its sign in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from iic.errors import UserError
from iic.evaluation.comparison import same_sign
from iic.explainers.names import EXPLAINERS
from iic.provenance import REPORT_SCHEMA
from iic.shipped import SMALL

WANTED = 3  # training seeds
OF_A_SEED = ("trained", SMALL)  # `training.weights` of which each seed has its own
# the number of explained images, where things were computed, and what the headline does not depend on: the matrix,
# properties, leakage, the planted shortcut; `fills` is not among it, because the explained network's precision is
# chosen on images of every fill
MAY_DIFFER = {
    "training": ("seed", "device"),
    "attribution": ("n_images", "scheduler"),
    "evaluation": (
        *("shares", "matrix_images", "matrix_seeds", "properties_images", "sanity_images", "leakage_images"),
        *("shortcut_class", "shortcut_share", "shortcut_epochs", "shortcut_images", "per_class"),
    ),
}


def newest_by_seed(reports: Iterable[dict]) -> dict[int, dict]:
    """The last report of each training seed among those whose headline differs from the last one's in nothing else.

    The first so many images are explained, so that fewer of them in one seed are some of another's: they may be.

    Args:
        reports: of one dataset, oldest first.

    Raises:
        UserError: fewer than two seeds, or two of them with the same network.
    """
    reports = [r for r in reports if r.get("schema") == REPORT_SCHEMA]  # fields of others mean something else
    found = [r for r in reports if r["parameters"]["training"]["weights"] in OF_A_SEED]  # others are one network
    like = _but_seed(found[-1]) if found else None
    by_seed = {r["parameters"]["training"]["seed"]: r for r in found if _but_seed(r) == like}
    networks: dict[str, int] = {}
    for seed, report in by_seed.items():
        twin = networks.setdefault(report["made"]["model"], seed)
        if twin != seed:
            raise UserError(
                f"The reports of training seeds {twin} and {seed} are of one and the same network: run the evaluation "
                "of one of them again, without --only-missing-outputs."
            )
    if len(by_seed) < 2:
        raise UserError(
            f"Reports of this form, of training seeds that differ in nothing else: {len(by_seed)}, and two at "
            "least are needed: run the evaluation pipeline once for each, with --params <dataset>.training.seed=1 say."
        )
    return dict(sorted(by_seed.items()))


def _but_seed(report: dict) -> dict:
    """What has to be the same: parameters but those that may differ, code, dataset, methods."""
    blocks = {
        block: {name: value for name, value in named.items() if name not in MAY_DIFFER.get(block, ())}
        for block, named in report["parameters"].items()
    }
    code = {key: report.get("made", {}).get(key) for key in ("explaining_code", "judging_code")}
    return {"parameters": blocks, "code": code, "data": report["dataset"], "methods": list(report["methods"])}


def across_seeds(by_seed: dict[int, dict]) -> list[dict[str, Any]]:
    """For every judge, direction and fill: leads over the best control and claims, seed by seed.

    Args:
        by_seed: training seed -> accuracy report, from `newest_by_seed`; the first seed's claims are looked at.

    Returns:
        `images`: their number by seed; `leads`: method -> `by_seed`, `same_sign`, and `not_ahead_of_silent`, by seed
        the controls on which the judge abstains and that the method is not ahead of; `claims`: better, worse,
        `by_seed`, `same_sign` (of the difference and of its fair twins' differences), and `supported`: by the first
        seed's images and by the sign of all, which have to be WANTED at least. Of both, `contradicted_by`: by
        seed the judges that say the opposite there. Where a judge abstains with one seed, the value is null, and no
        sign is the same.
    """
    first = next(iter(by_seed.values()))
    images = {seed: report["n_images"] for seed, report in by_seed.items()}
    found = []
    for number, table in enumerate(first["headline"]):
        tables = {seed: report["headline"][number] for seed, report in by_seed.items()}
        leads = {m: _lead(m, tables) for m in table["methods"] if m in EXPLAINERS}
        where = {key: table[key] for key in ("judge", "direction", "fill")}
        claims = [_claim(claim, tables) for claim in table["claims"]]
        found.append(where | {"images": images, "leads": leads, "claims": claims})
    return found


def _lead(method: str, tables: dict[int, dict]) -> dict[str, Any]:
    leads = {seed: table["methods"][method]["minus_best_control"] for seed, table in tables.items()}
    values = {seed: None if lead is None else lead["value"] for seed, lead in leads.items()}
    behind = {seed: table["methods"][method]["not_ahead_of_silent"] for seed, table in tables.items()}
    against = {seed: table["methods"][method]["contradicted_by"] for seed, table in tables.items()}
    agree = _agree(values)
    return {"by_seed": values, "same_sign": agree, "not_ahead_of_silent": behind, "contradicted_by": against}


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
        "supported": claim["supported"] and agree and len(tables) >= WANTED,
        "contradicted_by": {seed: _contradicting(claim, table) for seed, table in tables.items()},
    }


def _contradicting(claim: dict, table: dict) -> list[str]:
    """The judges that contradict the same claim in the table of another seed, if it is made there."""
    same = (other for other in table["claims"] if all(other[key] == claim[key] for key in ("better", "worse")))
    return next((other["contradicted_by"] for other in same), [])


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
    """What holds in all seeds, a line for each lead and each claim."""
    images = found[0]["images"].values()
    lines = [f"Of {len(images)} training seeds, {', '.join(map(str, images))} images."]
    if len(images) < WANTED:
        lines.append(f"{WANTED} training seeds are asked for.")
    for table in found:
        lines.append(f"{table['judge']} judge, {table['direction']}, {table['fill'].replace('_', ' ')}:")
        for method, lead in table["leads"].items():
            verdict = (f"same sign{_against(lead)}" if lead["same_sign"] else _without_sign(lead)) + _reserved(lead)
            lines.append(f"  {method} minus its best control: {verdict} ({_listed(lead)})")
        for claim in table["claims"]:
            verdict = f"holds{_against(claim)}" if claim["supported"] else "does not hold"
            if len(images) < WANTED:
                sign = f"same sign{_against(claim)}" if claim["same_sign"] else "no sign in common"
                verdict = f"{sign}, which is no claim yet"
            lines.append(f"  {claim['better']} better than {claim['worse']}: {verdict} ({_listed(claim)})")
    return "\n".join(lines)


def _against(entry: dict[str, Any]) -> str:
    """Which judges contradict a lead or a claim, and with how many seeds."""
    judges = Counter(judge for names in entry["contradicted_by"].values() for judge in names)
    return "".join(f", contradicted by the {j} judge in {n} of {len(entry['by_seed'])}" for j, n in judges.items())


def _reserved(lead: dict[str, Any]) -> str:
    """Which controls on which the judge abstains a method is not ahead of with some seed, if it leads the others."""
    behind = dict.fromkeys(name for names in lead["not_ahead_of_silent"].values() for name in names)
    ahead = lead["same_sign"] and min(lead["by_seed"].values()) > 0
    return f", but not ahead of {', '.join(behind)}, on which it abstains" if ahead and behind else ""


def _without_sign(lead: dict[str, Any]) -> str:
    silent = list(lead["by_seed"].values()).count(None)
    return f"the judge abstains in {silent} of {len(lead['by_seed'])}" if silent else "no sign in common"


def _listed(entry: dict[str, Any]) -> str:
    values = ("abstains" if value is None else f"{value:+.3f}" for value in entry["by_seed"].values())
    return f"{', '.join(values)} by training seed"
