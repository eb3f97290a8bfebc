"""What the Bayesian network refuses, and how sure it is of what the explanations keep."""

from __future__ import annotations

from typing import Any

from iic.report.style import BLUE, FILLS, GREEN, MANY, ORANGE, new_figure, one_line, title, write_above


def bayesian_plot(report: dict) -> Any:
    """Left: forced answers and both rules of refusal; right: confidence on degraded images; 95 % intervals."""
    many = len(report["degraded"]) > MANY
    wide = max(7.0, (0.5 if many else 1.1) * len(report["degraded"]))
    figure, axes = new_figure(5 + wide, 6.4 if many else 4.4, 1, 2, width_ratios=(5, wide))
    left, right = axes[0]
    rules, noise = report["test"], report["uniform_noise"]
    names = ["forced", *rules]
    forced, answered = (report["forced_accuracy"], report["forced_interval"]), "answered_accuracy"
    columns = (
        (
            [forced, *((rules[r][answered], rules[r]["answered_interval"]) for r in rules)],
            "accuracy on what is answered",
            BLUE,
        ),
        (
            [(1.0, None), *((rules[r]["coverage"], rules[r]["coverage_interval"]) for r in rules)],
            "share answered (test)",
            ORANGE,
        ),
        (
            [(0.0, None), *((noise[r]["refused"], noise[r]["interval"]) for r in rules)],
            "share of uniform noise refused",
            GREEN,
        ),
    )
    _grouped(left, names, columns)
    left.set(ylabel="share of images", title="forced, or free to refuse")
    clean, degraded = report["clean_confidence"], report["degraded"]
    methods = list(degraded)
    columns = [
        (
            [(degraded[m][fill]["confidence"], degraded[m][fill]["confidence_interval"]) for m in methods],
            f"confidence, rest: {FILLS[fill][0]}",
            colour,
        )
        for fill, colour in zip(degraded[methods[0]], (BLUE, ORANGE), strict=True)
    ]
    _grouped(right, [one_line(m) if many else title(m) for m in methods], columns)
    right.axhline(clean, color=GREEN, ls="--", label=f"confidence, clean: {clean:.2f}")
    right.set(ylabel="mean probability of the forced answer", title="confidence on what each method keeps")
    for axis, columns in ((left, 2), (right, 3)):
        axis.set(ylim=(0, 1.4), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])  # the legend has the room above
        axis.legend(loc="upper center", ncols=columns, fontsize=8)
    figure.suptitle(f"{report['dataset']}: Bayesian network, {report['samples']} posterior samples")
    return figure


def _grouped(axis: Any, names: list[str], columns) -> None:
    """Bars side by side, one group per name, their heights written above: (height, interval) each, None where none."""
    width = 0.8 / len(columns)
    for number, (bars, label, colour) in enumerate(columns):
        places = [i + (number - (len(columns) - 1) / 2) * width for i in range(len(names))]
        heights = [height or 0 for height, _ in bars]
        ends = [interval or (height, height) for height, (_, interval) in zip(heights, bars, strict=True)]
        reach = [[max(0.0, h - low) for h, (low, _) in zip(heights, ends, strict=True)]]
        reach.append([max(0.0, high - h) for h, (_, high) in zip(heights, ends, strict=True)])
        axis.bar(places, heights, width * 0.95, yerr=reach, capsize=2, error_kw={"lw": 0.8}, color=colour, label=label)
        for place, (height, _), (_, high) in zip(places, bars, ends, strict=True):
            text = "none" if height is None else f"{height:.2f}"  # nothing answered has no accuracy
            write_above(axis, place, high, text)
    many = len(names) > MANY
    axis.set_xticks(range(len(names)), names, fontsize=8, rotation=90 if many else 0)
