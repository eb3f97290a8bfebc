"""Accuracy over the share of pixels that is kept or removed."""

from __future__ import annotations

from typing import Any

from iic.report.style import FILLS, GREY, JUDGES, method_styles, new_figure


def degradation_curves(report: dict) -> Any:
    """A panel for each judge and direction (rows) and fill (columns): a line per method with its 95 % band.

    Explainers are solid and coloured, controls grey with dashes of their own; hollow points are those on which the
    judge abstains.
    """
    tables = report["curves"]
    fills = list(dict.fromkeys(t["fill"] for t in tables))
    rows = list(dict.fromkeys((t["judge"], t["direction"]) for t in tables))
    figure, axes = new_figure(3.3 * len(fills) + 2.4, 2.7 * len(rows) + 0.8, len(rows), len(fills), sharey=True)
    methods = list(report["methods"])
    styles = {m: {k: v for k, v in style.items() if k != "marker"} for m, style in method_styles(methods).items()}
    for table in tables:
        axis = axes[rows.index((table["judge"], table["direction"])), fills.index(table["fill"])]
        shares = [100 * share for share in table["shares"]]
        for method, curve in table["methods"].items():
            heights = [cell["accuracy"] for cell in curve["cells"]]
            low, high = zip(*(cell["interval"] for cell in curve["cells"]), strict=True)
            axis.plot(shares, heights, lw=1.4, **styles[method])
            silent = [(x, c["accuracy"]) for x, c in zip(shares, curve["cells"], strict=True) if c["abstains"]]
            if silent:
                points = {"ls": "none", "marker": "o", "ms": 4, "mfc": "white", "mec": styles[method]["color"]}
                axis.plot(*zip(*silent, strict=True), **points)
            axis.fill_between(shares, low, high, color=styles[method]["color"], alpha=0.1, lw=0)
        axis.axhline(report["chance"], color=GREY, lw=0.7, ls=":")
        axis.set(ylim=(0, 1.02), xlabel=f"pixels {'kept' if table['direction'] == 'keep' else 'removed'} (%)")
        axis.set_title(FILLS[table["fill"]][0], fontsize=9)
    for (judge, _), axis in zip(rows, axes[:, 0], strict=True):
        axis.set_ylabel(f"accuracy of\n{JUDGES[judge]}", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    figure.suptitle(
        f"{report['dataset']['dataset']}: {report['matrix_images']} test images, 95 % bands; dotted: chance; "
        "hollow: the judge abstains",
        fontsize=10,
    )
    return figure
