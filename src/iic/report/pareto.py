"""What a score, the lead over the best control, costs: seconds, and forwards, beside it."""

from __future__ import annotations

import itertools
from typing import Any

from iic.explainers.names import is_control
from iic.report.style import BLUE, FILLS, GREY, JUDGES, method_styles, new_figure

# what a map costs -> what it is called, and its axis: a control that asks the network nothing has 0 forwards
COSTS = {
    "seconds_per_image": ("seconds an image", {"value": "log"}),
    "forwards_per_image": ("forwards an image", {"value": "symlog", "linthresh": 1}),
}


def score_against_cost(report: dict) -> Any:
    """Cost of an image's map against the score where the top pixels are kept; a row for each cost and judge.

    Fills are columns. Seconds are those of this machine, forwards those of any.

    The score is the accuracy less that of the best control, of a control that of the best other one: the line joins
    methods, which have all of them against them, and no control. Where the judge abstains on a method, it has none.
    """
    tables = [t for t in report["headline"] if t["direction"] == "keep"]
    judges = list(dict.fromkeys(t["judge"] for t in tables))
    fills = list(dict.fromkeys(t["fill"] for t in tables))
    rows = [(cost, judge) for cost in COSTS for judge in judges]
    options = {"sharex": "row", "sharey": True}
    figure, axes = new_figure(4.6 * len(fills) + 2.6, 3.1 * len(rows) + 0.8, len(rows), len(fills), **options)
    styles = method_styles(list(report["methods"]))
    for cost, table in itertools.product(COSTS, tables):
        axis = axes[rows.index((cost, table["judge"])), fills.index(table["fill"])]
        _draw_panel(axis, table, {name: method[cost] for name, method in report["methods"].items()}, styles)
        words, scale = COSTS[cost]
        axis.set_xscale(**scale)
        axis.set_xlabel(words, fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"score on the top {report['kept_share']:.0%}:\naccuracy less the best control's")
    named = [axis.get_legend_handles_labels() for axis in axes.flat]
    entries = {label: handle for handles, labels in named for handle, label in zip(handles, labels, strict=True)}
    labels = [style["label"] for style in styles.values() if style["label"] in entries]  # in the report's order
    if labels:
        figure.legend([entries[label] for label in labels], labels, loc="outside right upper", fontsize=8)
    figure.suptitle(
        f"{report['dataset']['dataset']}: score against cost, 95 % intervals; the line joins the best methods by cost\n"
        "each over the best of its own controls, a control over the best other one",
        fontsize=10,
    )
    return figure


def _draw_panel(axis: Any, table: dict, costs: dict[str, float], styles: dict[str, dict]) -> None:
    """One judge and fill: each method's cost and lead, and the line that joins the best methods."""
    points = []
    for method, cell in table["methods"].items():
        lead = cell["minus_best_control"]
        if lead is None:
            continue
        cost, score = costs[method], lead["value"]
        low, high = lead["interval"]
        reach = [[max(0.0, score - low)], [max(0.0, high - score)]]
        axis.errorbar(cost, score, yerr=reach, capsize=2, ms=6, **{**styles[method], "ls": "none"})
        points.append((cost, score, is_control(method)))
    if joined := [(cost, score) for cost, score, control in points if not control]:
        axis.step(*zip(*_front(joined), strict=True), where="post", color=BLUE, lw=0.8, alpha=0.6)
    if not points:
        axis.text(0.5, 0.6, "the judge abstains,\nor there is no control", ha="center", transform=axis.transAxes)
    axis.axhline(0, color=GREY, lw=0.7, ls=":")
    axis.set_title(f"{FILLS[table['fill']][0]}; judge: {JUDGES[table['judge']]}", fontsize=8)


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no cheaper one equals, cheapest first."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front
