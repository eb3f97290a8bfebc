"""The accuracy report as a bar chart."""

from __future__ import annotations

from typing import Any

from iic.report.style import FILLS, GREEN, GREY, new_figure, title


def accuracy_bars(report: dict) -> Any:
    """Accuracy of what each method keeps, one bar per fill with its 95 % interval, beside clean accuracy and chance."""
    methods = list(report["methods"])
    figure, axes = new_figure(1.4 * len(methods) + 3.5, 4.4)
    axis = axes[0, 0]
    for offset, (fill, (label, colour)) in zip((-0.2, 0.2), FILLS.items(), strict=True):
        cells = [report["methods"][m]["keep"][fill] for m in methods]
        heights = [c["accuracy"] for c in cells]
        below = [max(0.0, c["accuracy"] - c["interval"][0]) for c in cells]
        above = [max(0.0, c["interval"][1] - c["accuracy"]) for c in cells]
        places = [i + offset for i in range(len(methods))]
        axis.bar(places, heights, 0.38, yerr=[below, above], capsize=3, color=colour, label=f"rest: {label}")
        for place, height, up in zip(places, heights, above, strict=True):
            axis.text(place, height + up + 0.01, f"{height:.2f}", ha="center", va="bottom", fontsize=8)
    axis.axhline(report["clean"]["accuracy"], color=GREEN, ls="--", label=f"clean: {report['clean']['accuracy']:.3f}")
    axis.axhline(report["chance"], color=GREY, ls=":", label=f"chance: {report['chance']:.2f}")
    axis.set_xticks(range(len(methods)), [title(m) for m in methods])
    axis.set(ylim=(0, 1.08), ylabel="accuracy against the true label")
    axis.set_title(
        f"{report['dataset']['dataset']}: the network sees only the top {report['kept_share']:.0%} of the pixels\n"
        f"{report['n_images']} test images, 95 % intervals",
        fontsize=10,
    )
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure
