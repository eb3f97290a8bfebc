"""What the Bayesian network refuses, and how sure it is of what the explanations keep."""

from __future__ import annotations

from typing import Any

from iic.report.style import BLUE, FILLS, GREEN, ORANGE, new_figure, title


def bayesian_plot(report: dict) -> Any:
    """Left: forced answers and both rules of refusal; right: confidence on degraded images."""
    wide = max(7.0, 1.1 * len(report["degraded"]))
    figure, axes = new_figure(5 + wide, 4.4, 1, 2, width_ratios=(5, wide))
    left, right = axes[0]
    rules = report["test"]
    names = ["forced", *rules]
    accuracy = [report["forced_accuracy"], *(rules[r]["answered_accuracy"] for r in rules)]
    coverage = [1.0, *(rules[r]["coverage"] for r in rules)]
    refused = [0.0, *(report["uniform_noise"][r]["refused"] for r in rules)]
    columns = (
        (accuracy, "accuracy on what is answered", BLUE),
        (coverage, "share answered (test)", ORANGE),
        (refused, "share of uniform noise refused", GREEN),
    )
    _grouped(left, names, columns)
    left.set(ylabel="share of images", title="forced, or free to refuse")
    clean = report["clean_confidence"]
    methods = list(report["degraded"])
    columns = [
        ([report["degraded"][m][fill]["confidence"] for m in methods], f"confidence, rest: {FILLS[fill][0]}", colour)
        for fill, colour in zip(report["degraded"][methods[0]], (BLUE, ORANGE), strict=True)
    ]
    _grouped(right, [title(m) for m in methods], columns)
    right.axhline(clean, color=GREEN, ls="--", label=f"confidence, clean: {clean:.2f}")
    right.set(ylabel="mean probability of the forced answer", title="confidence on what each method keeps")
    for axis in (left, right):
        axis.set_ylim(0, 1.15)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.27), fontsize=8)
    figure.suptitle(f"{report['dataset']}: Bayesian network, {report['samples']} posterior samples")
    return figure


def _grouped(axis: Any, names: list[str], columns) -> None:
    """Bars side by side, one group per name, their heights written above."""
    width = 0.8 / len(columns)
    for number, (heights, label, colour) in enumerate(columns):
        places = [i + (number - (len(columns) - 1) / 2) * width for i in range(len(names))]
        axis.bar(places, [height or 0 for height in heights], width * 0.95, color=colour, label=label)
        for place, height in zip(places, heights, strict=True):
            text = "none" if height is None else f"{height:.2f}"  # nothing answered has no accuracy
            axis.text(place, (height or 0) + 0.01, text, ha="center", va="bottom", fontsize=7)
    axis.set_xticks(range(len(names)), names, fontsize=8)
