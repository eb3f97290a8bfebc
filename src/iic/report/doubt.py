"""Whether a Bayesian network says that it does not know where a plain one is confidently wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iic.explainers.names import is_control
from iic.report.style import DASHES, FILLS, new_figure, title
from iic.report.uncertainty import LIGHT, TARGET, named_once, network_styles, whiskers

SELECTORS = ("confidence", "mutual_information")  # the first that a network has a threshold for decides what it refuses
DIRECTIONS = {"keep": "kept", "remove": "removed"}
SHARES = {  # all of the same images
    "forced_accuracy": "forced accuracy (%)",
    "refused": "refused (%)",
    "confidently_wrong": "confidently wrong:\nanswered and wrong (%)",
}
WHOLE = ("forced_accuracy", "refused")  # shown from 0 to 100 %
MOVING = {"refused": "refused", "confidently_wrong": "confidently wrong"}  # over the shares
DOUBT = "mutual_information"  # of posterior samples; a plain network has none


def doubt_plot(dataset: str, report: dict) -> Any:
    """Panels for each figure (rows) and fill (columns): each method's images as each network takes them.

    Colours are networks; filled markers stand for images of which the most important pixels are kept, hollow ones for
    those without them. Controls are shaded. Below, where there are several shares, how it moves with them.

    Args:
        dataset: its name.
        report: from `iic.bayes.doubt.doubt_report`.
    """
    cells, shares = _cells(report), report["shares"]
    methods, fills = ([*dict.fromkeys(cell[i] for cell in cells)] for i in (1, 3))
    measures = [*SHARES, *([DOUBT] if any(cell[-1][DOUBT] for cell in cells) else [])]
    slots = len(DIRECTIONS) * len(report["networks"])
    width = len(fills) * (max(0.5, 0.11 * slots) * len(methods) + 0.5) + 3.4
    heights = [1.9 * len(measures) + 1.6, *([1.1 * len(MOVING) * len(DIRECTIONS) + 0.8] if len(shares) > 1 else [])]
    figure, axes = new_figure(max(9.5, width), sum(heights))  # the title's width at least
    axes[0, 0].remove()  # two grids of panels take its place
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _main(parts[0], cells, methods, fills, measures, _styles(report))
    for part in parts[1:]:
        _curves(part, report, methods, fills)
    figure.legend(*named_once(parts[0].axes[0]), loc="outside right upper", fontsize=8)
    figure.suptitle(
        f"{dataset}: does the Bayesian network refuse where the plain one is confidently wrong?\n"
        f"{cells[0][-1]['n_images']} test images, 95 % intervals; shaded: controls\n"
        f"{_refusal([cell[-1] for cell in cells])}",
        fontsize=10,
    )
    return figure


def _cells(report: dict) -> list[tuple]:
    """(network, method, direction, fill, row) of all rows at the share that is shown."""
    return [
        (network, method, direction, fill, next(row for row in rows if row["share"] == report["shown"]))
        for network, by_method in report["networks"].items()
        for method, by_direction in by_method.items()
        for direction, by_fill in by_direction.items()
        for fill, rows in by_fill.items()
    ]


def _main(
    part: Any, cells: list[tuple], methods: list[str], fills: list[str], measures: list[str], styles: Mapping
) -> None:
    """Every figure at the share that is shown, with its interval."""
    axes = part.subplots(len(measures), len(fills), squeeze=False, sharex=True, sharey="row")
    slots = list(styles)  # (network, direction)
    for network, method, direction, fill, row in cells:
        shift = 0.8 * ((slots.index((network, direction)) + 0.5) / len(slots) - 0.5)
        for axis, measure in zip(axes[:, fills.index(fill)], measures, strict=True):
            _dot(axis, methods.index(method) + shift, _cell(row, measure), measure, styles[network, direction])
    _dress(axes, methods, fills, measures)


def _curves(part: Any, report: dict, methods: list[str], fills: list[str]) -> None:
    """A small panel for each method: what moves with the share of the pixels, a line for each network and fill."""
    wanted = [(measure, direction) for measure in MOVING for direction in DIRECTIONS]
    axes = part.subplots(len(wanted), len(methods), squeeze=False, sharex=True, sharey="row")
    for (measure, direction), row in zip(wanted, axes, strict=True):
        for axis, method in zip(row, methods, strict=True):
            for network, look in network_styles(report["networks"]).items():
                for fill, dashes in zip(fills, DASHES, strict=False):
                    _curve(axis, report["networks"][network][method][direction][fill], measure, look["color"], dashes)
            axis.tick_params(labelsize=6)
            axis.grid(lw=0.3, alpha=0.5)
        row[0].set_ylabel(f"{MOVING[measure]},\n{DIRECTIONS[direction]} (%)", fontsize=7)
        row[0].set_ylim(-3, 103)
    for axis, method in zip(axes[0], methods, strict=True):
        axis.set_title(title(method), fontsize=7)
    words = "; ".join(f"{name}: {FILLS[fill][0]}" for fill, name in zip(fills, ("solid", "dashed"), strict=False))
    part.suptitle(f"by share of the pixels (%), 95 % intervals are in doubt.json; {words}", fontsize=9)


def _curve(axis: Any, rows: list[dict], measure: str, colour: str, dashes: str) -> None:
    """One figure over the shares; nothing where a network has no threshold."""
    found = [(100 * row["share"], 100 * cell["value"]) for row in rows if (cell := _cell(row, measure))]
    if found:
        axis.plot(*zip(*found, strict=True), color=colour, ls=dashes, lw=1, marker=".", ms=3)


def _styles(report: dict) -> dict[tuple[str, str], dict]:
    """How a network and direction look, and what the legend says of them."""
    part = f"top {report['shown']:.0%}"
    styles = {}
    for network, look in network_styles(report["networks"]).items():
        for direction, word in DIRECTIONS.items():
            face = {} if direction == "keep" else {"mfc": "white"}
            styles[network, direction] = {**look, **face, "label": f"{look['label']},\n{part} {word}"}
    return styles


def _rule(row: dict) -> tuple[str, dict] | None:
    """The first selector that has a threshold, and what it refuses."""
    found = ((name, (row["selectors"].get(name) or {}).get(TARGET)) for name in SELECTORS)
    return next(((name, rule) for name, rule in found if rule is not None), None)


def _refusal(rows: list[dict]) -> str:
    """What decides in these rows whether an image is answered, in words."""
    rules = filter(None, map(_rule, rows))
    used = " or ".join(dict.fromkeys(name.replace("_", " ") for name, _ in rules))
    return f"refused by {used}, threshold for 1 % risk on clean validation images" if used else "no thresholds"


def _cell(row: dict, measure: str) -> dict | None:
    """A figure of the row; what depends on a threshold is None where there is none."""
    if measure in row:
        return row[measure]
    rule = _rule(row)
    return rule and rule[1][measure]


def _dot(axis: Any, place: float, cell: dict | None, measure: str, style: dict) -> None:
    """A figure and its interval; nothing where there is none."""
    if cell is None:
        return
    scale = 1 if measure == DOUBT else 100
    reach = whiskers(cell["value"], cell["interval"], scale)
    axis.errorbar(place, scale * cell["value"], yerr=reach, ms=4, lw=1, capsize=1.5, ls="none", **style)


def _dress(axes: Any, methods: list[str], fills: list[str], measures: list[str]) -> None:
    """Limits, names and the shade behind controls."""
    for measure, row in zip(measures, axes, strict=True):
        row[0].set_ylabel(SHARES.get(measure, "mean mutual\ninformation (nats)"), fontsize=9)
        top = 100 if measure in WHOLE else row[0].get_ylim()[1]
        row[0].set_ylim(-0.03 * top, 1.03 * top)  # with room for markers at 0
    for axis in axes.flat:
        axis.grid(axis="y", lw=0.4, alpha=0.5)
        axis.set_xlim(-0.5, len(methods) - 0.5)
        for number, method in enumerate(methods):
            axis.axvline(number + 0.5, color=LIGHT, lw=0.6)
            if is_control(method):
                axis.axvspan(number - 0.5, number + 0.5, color=LIGHT, alpha=0.35, lw=0, zorder=0)
    names = [title(method).replace("\n(control)", "").replace("\n", " ") for method in methods]
    for fill, top, bottom in zip(fills, axes[0], axes[-1], strict=True):
        top.set_title(f"replaced by: {FILLS[fill][0]}", fontsize=9)
        bottom.set_xticks(range(len(methods)), names, rotation=90, fontsize=8)
