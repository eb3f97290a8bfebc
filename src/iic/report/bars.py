"""The accuracy report's headline as a bar chart."""

from __future__ import annotations

from typing import Any

from iic.report.style import FILLS, GREEN, GREY, JUDGES, chart_size, name_methods, new_figure, write_above

WIDTH = 0.38  # of a bar; two stand beside each other


def accuracy_bars(report: dict) -> Any:
    """Accuracy on what each method keeps: a panel for each judge, a bar for each fill with its 95 % interval."""
    from matplotlib.patches import Patch

    tables = [t for t in report["headline"] if t["direction"] == "keep"]
    judges = list(dict.fromkeys(t["judge"] for t in tables))
    methods = list(report["methods"])
    figure, axes = new_figure(*chart_size(methods, 3.6 * len(judges) + 0.8), len(judges), 1, sharex=True)
    for judge, axis in zip(judges, axes[:, 0], strict=True):
        mine = [t for t in tables if t["judge"] == judge]
        for number, table in enumerate(mine):
            _bars(axis, table, [i + (number - (len(mine) - 1) / 2) * (WIDTH + 0.02) for i in range(len(methods))])
        clean = report["clean"]["accuracy"]
        axis.axhline(clean, color=GREEN, ls="--", label=f"explained network, clean: {clean:.3f}")
        axis.axhline(report["chance"], color=GREY, ls=":", label=f"chance: {report['chance']:.2f}")
        axis.set(ylim=(0, 1.12), ylabel="accuracy against the true label")
        axis.set_title(f"judge: {JUDGES[judge]}", fontsize=9)
    name_methods(axes[-1, 0], methods)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles.append(Patch(facecolor="white", edgecolor=GREY, hatch="//"))
    figure.legend(
        handles, [*labels, "hollow: the judge abstains,\none class for most images"], loc="outside right center"
    )
    figure.suptitle(
        f"{report['dataset']['dataset']}: the judge sees only the top {report['kept_share']:.0%} of the pixels;\n"
        f"{report['n_images']} test images, 95 % intervals",
        fontsize=10,
    )
    return figure


def _bars(axis: Any, table: dict, places: list[float]) -> None:
    """One fill's bars; hollow where the judge abstains."""
    label, colour = FILLS[table["fill"]]
    cells = list(table["methods"].values())
    heights = [c["accuracy"] for c in cells]
    below = [max(0.0, c["accuracy"] - c["interval"][0]) for c in cells]
    above = [max(0.0, c["interval"][1] - c["accuracy"]) for c in cells]
    axis.bar([0], [0], color=colour, label=f"rest: {label}")  # a full one for the legend
    bars = axis.bar(places, heights, WIDTH, yerr=[below, above], capsize=3, color=colour)
    for bar, cell, place, up in zip(bars, cells, places, above, strict=True):
        if cell["abstains"]:
            bar.set(facecolor="white", edgecolor=colour, hatch="//")
        height = cell["accuracy"]
        write_above(axis, place, height + up, f"{height:.2f}")
