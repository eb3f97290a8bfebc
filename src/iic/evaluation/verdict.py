"""The report in plain sentences: what beats its controls, what can be told apart, where the judges disagree."""

from __future__ import annotations

from iic.evaluation.claims import SIGNIFICANT
from iic.evaluation.comparison import LEAST_DIFFERING
from iic.explainers.names import EXPLAINERS, controls_of, is_control_of

JUDGES = {
    "explained": "the explained network, which has never seen such images",
    "adapted": "the second judge, a copy that was shown masked training images: it measures the information "
    "that is left, not faithfulness",
}
FILLS = {"salt_and_pepper": "salt and pepper", "mean_colour": "the mean colour"}
TOO_MANY = "more than half of the images (of unbalanced ones: many more than have any class)"
DIRECTIONS = {"keep": "is all that is left", "remove": "is taken away"}


def verdict(report: dict) -> str:
    """Markdown.

    Args:
        report: from `iic.evaluation.report.accuracy_report`.
    """
    share, count = f"{report['kept_share']:.0%}", report["n_images"]
    lines = [
        f"# {report['dataset']['dataset']}: which explanation can be trusted?",
        "",
        f"{count} test images, of which the network names {_percent(report['clean']['accuracy'])} rightly. The top "
        f"{share} of a map's pixels ({report['kept_pixels']}) are kept, or removed; the rest is filled. Ranges are "
        "95 % intervals. A lead is over the best control, chosen anew in every bootstrap replicate: its lower end may "
        "be trusted, a range below zero only says that the method does not beat the best control.",
        "",
        _network(report["parameters"]["training"]),
        *_missing_controls(list(report["methods"])),
    ]
    lines += ["", "In short:", "", *(_short(table) for table in report["headline"])]
    for table in report["headline"]:
        heading = f"The top {share} {DIRECTIONS[table['direction']]}; {FILLS[table['fill']]}; {table['judge']} judge"
        lines += ["", f"## {heading}", ""]
        lines += [f"Judge: {JUDGES[table['judge']]}.", "", *_table(table, report)]
    return "\n".join(lines) + "\n"


def _network(training: dict) -> str:
    """Of how many trainings this is."""
    which = f"seed {training['seed']}" if training["weights"] == "trained" else f"weights: {training['weights']}"
    return (
        f"One network ({which}). What holds for it may not hold for another training: a claim needs the same sign with "
        "three training seeds (`kedro seeds`)."
    )


def _missing_controls(names: list[str]) -> list[str]:
    """A paragraph that names the controls that no method here had to beat."""
    wanted = dict.fromkeys(control for name in names if name in EXPLAINERS for control in controls_of(name))
    missing = [control for control in wanted if control not in names]
    if not missing:
        return []
    return [
        "",
        f"The best control is the best of those in this run. Not in it: {_list(missing)}; add them to IIC_METHODS "
        "(`study` has those of the three main methods).",
    ]


def _short(table: dict) -> str:
    """One line: which explainers beat their best control there."""
    done = "kept" if table["direction"] == "keep" else "removed"
    where = f"- top pixels {done}, {FILLS[table['fill']]}, {table['judge']} judge: "
    if all(cell["abstains"] for cell in table["methods"].values()):
        return where + "the judge abstains."
    speaking = {name: cell for name, cell in table["methods"].items() if name in EXPLAINERS and not cell["abstains"]}
    explainers = {name: cell["minus_best_control"] for name, cell in speaking.items()}
    leads = {name: lead for name, lead in explainers.items() if lead is not None}
    winners = [_winner(name, speaking[name]) for name in leads if speaking[name]["beats_controls"]]
    if not set(table["methods"]) & set(EXPLAINERS):
        return where + "no explainer was in this run."
    if not speaking:
        return where + "the judge abstains on every explainer."
    if not leads:
        silent = any(_silent_controls(name, table) for name in speaking)
        return where + ("it abstains on every control." if silent else "there was no control to compare with.")
    return where + (f"{', '.join(winners)} ahead of the best control." if winners else "no method beats its controls.")


def _winner(name: str, cell: dict) -> str:
    against = "".join(f", contradicted by the {judge} judge" for judge in cell["contradicted_by"])
    return f"`{name}` ({_range(cell['minus_best_control']['interval'])}{against})"


def _table(table: dict, report: dict) -> list[str]:
    silent = [name for name, cell in table["methods"].items() if cell["abstains"]]
    if len(silent) == len(table["methods"]):
        return [f"The judge gives one class to {TOO_MANY}, whatever the method: it abstains."]
    lines = []
    for name, cell in table["methods"].items():
        if name in EXPLAINERS and not cell["abstains"]:
            lines.append(f"- {_lead(name, cell, table)}")
    if silent:
        lines.append(
            f"- It abstains on {_list(silent)}: one class for {TOO_MANY}. A control among them is "
            "nobody's best control here, but a method that is not ahead of it beats no controls."
        )
    groups = [group for group in table["groups"] if len(group) > 1]
    for group in groups:
        lines.append(f"- Cannot be told apart: {_list(group)}.")
    said = [claim for claim in table["claims"] if claim["better"] not in silent and claim["worse"] not in silent]
    lines += [f"- {_claim(claim, report)}" for claim in said]
    return lines


def _silent_controls(name: str, table: dict) -> list[str]:
    """The controls of a method on which the judge abstains."""
    return [other for other, cell in table["methods"].items() if cell["abstains"] and is_control_of(other, name)]


def _lead(name: str, cell: dict, table: dict) -> str:
    accuracy = f"accuracy {_number(cell['accuracy'])} ({_range(cell['interval'])})"
    lead = cell["minus_best_control"]
    if lead is None:
        silent = _list(
            [one for one, other in table["methods"].items() if other["abstains"] and is_control_of(one, name)]
        )
        why = f"the judge abstains on every control ({silent})" if silent else "there was no control to compare it with"
        return f"`{name}`: {accuracy}; {why}."
    gap = f"{lead['value']:+.3f} ({_range(lead['interval'])}) against `{lead['control']}`, its best control"
    if lead["interval"][0] > 0 and cell["not_ahead_of_silent"]:
        behind = _list(cell["not_ahead_of_silent"])
        return f"`{name}`: {gap}, but not ahead of {behind}, on which the judge abstains; {accuracy}."
    if lead["interval"][0] > 0 and not cell["beats_controls"]:
        return f"`{name}`: {gap}, but {_few(lead)}; {accuracy}."
    against = ""
    for judge in cell["contradicted_by"]:
        theirs = cell["other_judges"][judge]
        against += f" The {judge} judge contradicts it: {theirs['value']:+.3f} ({_range(theirs['interval'])})."
    return (
        f"`{name}` {'beats' if cell['beats_controls'] else 'does not beat'} the controls: {gap}; {accuracy}.{against}"
    )


def _claim(claim: dict, report: dict) -> str:
    better, worse = f"`{claim['better']}`", f"`{claim['worse']}`"
    evidence = f"{_number(claim['value'])} ({_range(claim['interval'])}), Holm-corrected p = {claim['p']:.2g}"
    if claim["supported"]:
        fair = "its fair twins agree" if claim["twins"] else "they rank the same areas by the same output"
        against = " The other judge contradicts it." if claim["contradicted_by"] else ""
        return f"{better} is better than {worse}: by {evidence}; {fair}.{against}"
    if claim["interval"][0] > 0 and claim["differing"] < LEAST_DIFFERING:
        return f"{better} scores above {worse} by {evidence}, but {_few(claim)}."
    if claim["interval"][0] <= 0 or claim["p"] >= SIGNIFICANT:
        return f"{better} cannot be called better than {worse}: {evidence}."
    if claim["abstains"]:
        return (
            f"{better} scores above {worse} by {evidence}, but the judge abstains on {_list(claim['abstains'])}, "
            "which the fair comparison needs."
        )
    return f"{better} scores above {worse} by {evidence}, but {_unfair(claim['twins'], report)}."


def _unfair(twins: list[dict], report: dict) -> str:
    """Which fair comparison does not hold: the one that fails most clearly, else those that were not made."""
    failed = [twin for twin in twins if twin["interval"] is not None and not twin["holds"]]
    if not failed:
        wanted = {n for t in twins if not t["holds"] for n in (t["better"], t["worse"])} - set(report["methods"])
        return f"the fair comparison was not made: add {_list(sorted(wanted))} to IIC_METHODS"
    worst = min(failed, key=lambda twin: twin["interval"][0])
    few = f": {_few(worst)}" if worst["interval"][0] > 0 else ""
    return (
        f"not in the fair comparison: `{worst['better']}` over `{worst['worse']}` by {_number(worst['value'])} "
        f"({_range(worst['interval'])}){few}"
    )


def _few(gain: dict) -> str:
    """Why an interval above 0 is no evidence."""
    return f"they differ on {gain['differing']} images only, too few to tell"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _range(interval: list[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
