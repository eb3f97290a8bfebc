"""How far networks' confidence can be believed, what they had better not answer, and what they take for foreign."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from iic.report.style import COLOURS, GREY, MARKERS, new_figure

COLUMNS = 3  # networks beside each other
LIGHT = "#CCCCCC"  # what stands behind the result
NETWORKS = {
    "plain": "plain network",
    "plain_same_network": "plain, the posterior's architecture",
    "mean_field": "mean-field Normal",
    "low_rank": "low-rank Normal",
    "laplace": "Laplace",
    "ensemble": "deep ensemble",
    "dropout": "MC dropout",
    "last_layer": "Bayesian last layer",
    "density": "no network: a density of the images",
}
SELECTIONS = {"confidence": "-", "mutual_information": "--"}  # selectors whose curves are drawn
DETECTORS = ("mutual_information", "entropy", "strangeness")  # of foreign images: the first that a network has
TARGET = "1%"  # risk whose threshold is shown
RISKS = (0, 0.1, 0.3, 1, 3, 10, 30, 100)  # per cent, where the axis has ticks; linear below the second


def network_styles(names: Iterable[str]) -> dict[str, dict]:
    """Colour, marker and label of each network, by its place."""
    return {
        name: {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "label": NETWORKS.get(name, name.replace("_", " ")),
        }
        for number, name in enumerate(names)
    }


def whiskers(value: float, interval: Sequence[float] | None, scale: float = 100) -> list[list[float]] | None:
    """How far an interval reaches below and above its value, for `errorbar`, which draws nothing for None."""
    if interval is None:
        return None
    low, high = interval
    return [[scale * max(0.0, value - low)], [scale * max(0.0, high - value)]]


def worded(cell: Mapping, digits: int) -> str:
    """A share {"value", "interval"} in per cent, with its interval if it has one."""
    words = f"{100 * cell['value']:.{digits}f} %"
    if cell["interval"] is None:
        return words
    low, high = (f"{100 * end:.{digits}f}" for end in cell["interval"])
    return f"{words} ({low} to {high})"


def named_once(axis: Any) -> tuple[list, list[str]]:
    """Handles and labels for a legend, one per label."""
    handles = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    return list(handles.values()), list(handles)


def reliability_plot(dataset: str, tables: Mapping[str, dict]) -> Any:
    """A panel for each network: accuracy against confidence by bin, and below it how many images are that sure.

    Args:
        dataset: its name.
        tables: network -> from `iic.bayes.uncertainty_table.uncertainty_table`.
    """
    columns = min(COLUMNS, len(tables))
    rows = math.ceil(len(tables) / columns)
    size = (3.3 * columns + 0.7, 4.6 * rows + 0.5)
    figure, axes = new_figure(*size, 2 * rows, columns, height_ratios=(3.2, 1) * rows)
    panels = axes.reshape(rows, 2, columns).swapaxes(1, 2).reshape(-1, 2)  # (network, accuracy and counts)
    for (name, style), (upper, lower) in zip(network_styles(tables).items(), panels, strict=False):
        scores, bins = tables[name]["scores"], tables[name]["reliability"]["ece"]
        _reliability(upper, bins, style["color"])
        words = f"ECE {worded(scores['ece'], 2)}\nadaptive ECE {worded(scores['adaptive_ece'], 2)}"
        upper.set_title(f"{style['label']}\n{words}", fontsize=9)
        _counts(lower, bins)
    for upper, lower in panels[len(tables) :]:
        upper.remove()
        lower.remove()
    images = max(table["n_images"] for table in tables.values())
    figure.suptitle(f"{dataset}: is the confidence right?\n{images} test images, 95 % intervals", fontsize=10)
    return figure


def _reliability(axis: Any, bins: list[dict], colour: str) -> None:
    """A point with Wilson's interval for each bin that holds images, and where calibrated ones would lie."""
    shown = [b for b in bins if b["count"]]
    accuracy = np.array([b["accuracy"] for b in shown])
    ends = np.array([b["interval"] for b in shown])  # (B, 2)
    reach = 100 * np.maximum(0, np.abs(ends.T - accuracy))
    axis.plot([0, 100], [0, 100], color=GREY, lw=0.8, ls="--")
    confidence = [100 * b["confidence"] for b in shown]
    axis.errorbar(confidence, 100 * accuracy, yerr=reach, color=colour, fmt="o", ms=4, lw=1, capsize=2, clip_on=False)
    axis.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy (%)")
    axis.tick_params(labelbottom=False)


def _counts(axis: Any, bins: list[dict]) -> None:
    """How many images each bin of equal width holds."""
    width = 100 / len(bins)
    counts = [b["count"] for b in bins]
    axis.bar([i * width for i in range(len(bins))], counts, width, align="edge", color=LIGHT, ec="white")
    axis.set(xlim=(0, 100), yscale="log", ylim=(0.7, 2 * sum(counts)), xlabel="confidence (%)", ylabel="images")


def selection_plot(dataset: str, tables: Mapping[str, dict]) -> Any:
    """Share of wrong answers over the share answered, a line per network and selector that it has.

    A marker shows where the threshold that validation images chose for a risk of 1 % ends up on the test images.

    Args:
        dataset: its name.
        tables: network -> from `iic.bayes.uncertainty_table.uncertainty_table`.
    """
    figure, axes = new_figure(11, 4.6)
    axis = axes[0, 0]
    curves, markers = [], []
    for name, style in network_styles(tables).items():
        for selector, dashes in SELECTIONS.items():
            row = tables[name]["selectors"][selector]
            if row is not None:
                label = f"{style['label']}, {selector.replace('_', ' ')}:\nAUGRC {worded(row['augrc'], 3)}"
                curves.append(100 * np.array([row["curve"]["coverage"], row["curve"]["risk"]]))  # (2, points)
                axis.plot(*curves[-1], color=style["color"], ls=dashes, lw=1.4, label=label)
        markers += _at_threshold(axis, tables[name]["selectors"]["confidence"], style)
    _scale(axis, np.concatenate(curves, axis=1), np.reshape(markers, (-1, 2)).T)
    for target, dashes in ((1, "--"), (0.1, ":")):
        axis.axhline(target, color=GREY, lw=0.8, ls=dashes, label=f"risk {target:g} %")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    images = max(table["n_images"] for table in tables.values())
    axis.set_title(
        f"{dataset}: errors that are left if doubtful images are refused; {images} test images, 95 % intervals\n"
        "markers: the threshold of the confidence that validation images chose for 1 % risk",
        fontsize=10,
    )
    return figure


def _scale(axis: Any, curves: np.ndarray, markers: np.ndarray) -> None:
    """Logarithmic risk that can show a 0, from the coverage on where there is a marker or an error.

    Args:
        axis: of the plot.
        curves: (2, points), coverage and risk of all curves, per cent.
        markers: (2, networks), the same of the thresholds.
    """
    coverage, risk = curves
    first = min(coverage[risk > 0].min(initial=100), markers[0].min(initial=100))
    left, top = 10 * max(0, math.ceil(first / 10) - 1), max(risk.max(), markers[1].max(initial=0))
    axis.set_yscale("symlog", linthresh=RISKS[1], linscale=0.5)
    axis.set_yticks(RISKS, [f"{tick:g}" for tick in RISKS])
    axis.set(xlim=(left, 100 + (100 - left) / 100), ylim=(0, max(2, 1.3 * top)))
    axis.set_xlabel("answered (% of the test images" + ("; below, no network errs)" if left else ")"))
    axis.set_ylabel("risk: wrong among the answered (%)\nlinear below 0.1 %")


def _at_threshold(axis: Any, row: dict | None, style: dict) -> list[tuple[float, float]]:
    """Draws coverage and risk at the threshold with both intervals, and says where; nothing if nothing is answered."""
    found = (row or {}).get("at_threshold", {}).get(TARGET)
    if found is None or found["accuracy"]["value"] is None:
        return []
    coverage, accuracy = found["coverage"], found["accuracy"]
    below = whiskers(coverage["value"], coverage["interval"])
    wrong = accuracy["interval"] and [1 - end for end in reversed(accuracy["interval"])]
    reach = whiskers(1 - accuracy["value"], wrong)
    place = 100 * coverage["value"], 100 * (1 - accuracy["value"])
    look = {"color": style["color"], "marker": style["marker"]}
    axis.errorbar(*place, xerr=below, yerr=reach, ms=7, lw=1, capsize=2, zorder=3, **look)
    return [place]


def outside_plot(dataset: str, tables: Mapping[str, dict], typicality: Mapping) -> Any:
    """How well each network tells each set of foreign images from its test images: AUROC and FPR95.

    A network is judged by its mutual information, or its entropy if it is a single sample.

    Args:
        dataset: its name.
        tables: network -> from `iic.bayes.uncertainty_table.uncertainty_table`.
        typicality: of a density of the images, from `iic.bayes.typicality.typicality_report`.
    """
    images = max(table["n_images"] for table in tables.values())
    alone = {name: {**row, "selectors": {"strangeness": row}} for name, row in typicality["outside"].items()}
    tables = {**tables, "density": {"outside": alone}}
    sets = {name: found["n_images"] for table in tables.values() for name, found in table["outside"].items()}
    height = len(sets) * (0.16 * len(tables) + 0.25) + 1.5
    figure, axes = new_figure(11, max(3.2, height), 1, 2, sharey=True)
    left, right = axes[0]
    styles = network_styles(tables)
    styles["density"]["color"] = GREY
    for number, (name, style) in enumerate(styles.items()):
        shift = 0.8 * ((number + 0.5) / len(tables) - 0.5)
        for row, foreign in enumerate(sets):
            if foreign in tables[name]["outside"]:
                _detection(left, right, row + shift, tables[name]["outside"][foreign]["selectors"], style)
    _dress(left, right, sets)
    figure.legend(*named_once(left), loc="outside right upper", fontsize=8)
    figure.suptitle(f"{dataset}: {images} test images against foreign ones, 95 % intervals", fontsize=10)
    return figure


def _detection(left: Any, right: Any, place: float, selectors: dict[str, dict | None], style: dict) -> None:
    """Both figures of the first detector that the network has."""
    chosen = next((name for name in DETECTORS if selectors.get(name) is not None), None)
    if chosen is None:
        return
    look = {**style, "label": f"{style['label']}\n({chosen.replace('_', ' ')})", "ls": "none"}
    for axis, measure, scale in ((left, "auroc", 1), (right, "fpr95", 100)):
        cell = selectors[chosen][measure]
        reach = whiskers(cell["value"], cell["interval"], scale)
        axis.errorbar(scale * cell["value"], place, xerr=reach, ms=5, lw=1, capsize=2, **look)


def _dress(left: Any, right: Any, sets: dict[str, int]) -> None:
    """Limits, chance, and the sets' names with their numbers of images."""
    for axis, chance in ((left, 0.5), (right, 95)):
        axis.axvline(chance, color=GREY, lw=0.8, ls=":", label="chance")
        for edge in range(1, len(sets)):
            axis.axhline(edge - 0.5, color=LIGHT, lw=0.6)
    left.set(xlim=(min(0.48, left.get_xlim()[0]), 1.01), xlabel="AUROC (1: always told apart)")
    flagged = "FPR95: test images flagged as well when\n95 % of the foreign ones are (%; lower is better)"
    right.set(xlim=(-2, 102), xlabel=flagged)
    names = [f"{name.replace('_', ' ')}\n({count} images)" for name, count in sets.items()]
    left.set_yticks(range(len(sets)), names)
    left.set_ylim(len(sets) - 0.5, -0.5)
