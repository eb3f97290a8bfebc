"""What methods' maps are like: agreement, properties with intervals, and what random layers leave of a map."""

from __future__ import annotations

import math
from typing import Any

from iic.report.style import DIVERGING, GREY, method_styles, new_figure, one_line

COLUMNS = 4  # panels beside each other
WRITTEN = 20  # methods up to which a heat map has its numbers written into it
FEWEST = 6  # images of which a bootstrap's band says something
PERCENT = "sensitivity_n_"  # and so many per cent of the pixels

LABELS = {
    "gini": "Gini index of |map|\n(higher: sparser)",
    "entropy": "entropy of |map|, nats\n(lower: simpler)",
    "completeness_error": "completeness error, median, 0: complete\n(hollow: the method does not claim it)",
    "infidelity": "infidelity, {output}²\n(0: faithful; maps scaled to fit)",
    "mass_accuracy": "positive relevance in the object's mask\n(share)",
    "rank_accuracy": "largest pixels in the object's mask\n(share)",
    "pointing_game": "pointing game: maximum in the mask\n(share of images)",
    "auroc": "AUROC of the mask\n(0.5: chance)",
    "max_sensitivity": "max-sensitivity to noise of ±5 levels\n(0: steady)",
}
SIMILARITIES = {
    "spearman": "Spearman's rank correlation",
    "spearman_absolute": "Spearman's, of absolute values",
    "ssim": "structural similarity (SSIM)",
}


def agreement_heat_map(dataset: str, agreement: dict) -> Any:
    """Two matrices, methods by methods: rank correlation, and overlap of the top pixels.

    Args:
        dataset: its name.
        agreement: from `iic.evaluation.properties.agree`.
    """
    names = [one_line(method) for method in agreement["methods"]]
    side = 0.42 * len(names) + 2.4  # inches
    figure, axes = new_figure(2 * side + 1.5, side, 1, 2, sharey=True)
    share = agreement["share"]
    panels = (
        ("spearman", "Spearman's rank correlation", {"cmap": DIVERGING, "vmin": -1, "vmax": 1}),
        (
            "top_overlap",
            f"shared part of the top {share:.0%} (chance: {share:.2f})",
            {"cmap": "cividis", "vmin": 0, "vmax": 1},
        ),
    )
    for axis, (key, label, colours) in zip(axes[0], panels, strict=True):
        picture = axis.imshow(agreement[key], **colours)
        figure.colorbar(picture, ax=axis, shrink=0.8, label=f"{label}, mean")
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        if len(names) <= WRITTEN:
            _write_values(axis, picture, agreement[key])
    figure.suptitle(f"{dataset}: how far methods agree, {agreement['n_images']} test images", fontsize=10)
    return figure


def _write_values(axis: Any, picture: Any, rows: list[list[float]]) -> None:
    """Each number on its cell, in what can be read there."""
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            red, green, blue, _ = picture.cmap(picture.norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            colour = "white" if dark else "black"
            axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)


def property_dots(dataset: str, properties: dict[str, dict]) -> Any:
    """A panel for each property, a row for each method: its number and 95 % interval.

    Infidelity has a panel for each output, since squared logits and squared probabilities cannot be compared.

    Args:
        dataset: its name.
        properties: method -> what `iic.evaluation.properties.describe` says.
    """
    panels = _panels(properties)
    rows, columns = math.ceil(len(panels) / COLUMNS), min(COLUMNS, len(panels))
    size = (3.1 * columns + 2, (0.22 * len(properties) + 1.2) * rows + 0.6)
    figure, axes = new_figure(*size, rows, columns, sharey=True)
    styles = {method: {**style, "ls": "none"} for method, style in method_styles(list(properties)).items()}
    for axis, (key, output, label) in zip(axes.flat, panels, strict=False):
        for row, (method, found) in enumerate(properties.items()):
            if key in found["properties"] and output in (None, found["output"]):
                hollow = key == "completeness_error" and not found["claims_completeness"]
                _dot(axis, row, found["properties"][key], styles[method], hollow)
        axis.set_xlabel(label, fontsize=8)
        count = next(f["properties"][key]["n_images"] for f in properties.values() if key in f["properties"])
        axis.set_title(f"{count} test images", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.grid(axis="y", lw=0.4, alpha=0.5)
        if key == "completeness_error":  # from one in a thousand to many times too much
            axis.set_xscale("symlog", linthresh=1e-3)
            axis.set_xlim(left=0)
            axis.tick_params(axis="x", rotation=90)
        else:  # few ticks: small numbers have long labels
            axis.locator_params(axis="x", nbins=4, min_n_ticks=3)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    axes[0, 0].set_yticks(range(len(properties)), [one_line(method) for method in properties])
    axes[0, 0].invert_yaxis()
    figure.suptitle(f"{dataset}: properties of the maps, 95 % intervals", fontsize=10)
    return figure


def _panels(properties: dict[str, dict]) -> list[tuple[str, str | None, str]]:
    """Property, the output that its methods explain where that matters, and label, of all that was measured."""
    panels = []
    for key in dict.fromkeys(key for found in properties.values() for key in found["properties"]):
        if key.startswith(PERCENT):
            panels.append((key, None, f"sensitivity-n, {key.removeprefix(PERCENT)} % of the pixels\n(1: faithful)"))
        elif key == "infidelity":
            outputs = sorted({found["output"] for found in properties.values()})
            panels += [(key, output, LABELS[key].format(output=output)) for output in outputs]
        else:
            panels.append((key, None, LABELS[key]))
    return panels


def _dot(axis: Any, row: int, number: dict, style: dict, hollow: bool) -> None:
    value, (low, high) = number["value"], number["interval"]
    reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
    face = {"mfc": "white"} if hollow else {}
    axis.errorbar(value, row, xerr=reach, capsize=2, ms=5, lw=1, **style, **face)


def randomisation_lines(dataset: str, properties: dict[str, dict]) -> Any:
    """How alike maps stay while layers become random, the last first: a panel for each measure, a line per method.

    Args:
        dataset: its name.
        properties: method -> what `iic.evaluation.properties.describe` says; methods without a cascade are left out.
    """
    shown = {method: found["randomisation"] for method, found in properties.items() if found["randomisation"]}
    if not shown:
        figure, axes = new_figure(7, 1.6)
        axes[0, 0].set_axis_off()
        words = f"{dataset}: no method was explained again with random layers"
        axes[0, 0].text(0.5, 0.5, words, ha="center", va="center", fontsize=10)
        return figure
    figure, axes = new_figure(14, 4.4, 1, len(SIMILARITIES), sharey=True)
    styles = method_styles(list(shown))
    count = next(iter(shown.values()))[0]["spearman"]["n_images"]
    banded = count >= FEWEST
    for axis, (measure, label) in zip(axes[0], SIMILARITIES.items(), strict=True):
        for method, layers in shown.items():
            steps = range(len(layers))
            low, high = zip(*(layer[measure]["interval"] for layer in layers), strict=True)
            axis.plot(steps, [layer[measure]["value"] for layer in layers], lw=1.4, ms=4, **styles[method])
            if banded:
                axis.fill_between(steps, low, high, color=styles[method]["color"], alpha=0.1, lw=0)
        axis.axhline(0, color=GREY, lw=0.7, ls=":")
        names = [f"{layer['kind']} {layer['layer']}" for layer in next(iter(shown.values()))]
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axis.set(xlabel="all layers from the last down to this one are random")
        axis.set_title(label, fontsize=9)
    axes[0, 0].set_ylabel("similarity to the trained network's map")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    bands = "95 % bands" if banded else f"too few for bands ({FEWEST})"
    figure.suptitle(
        f"{dataset}: a map that stays shows the image, not the network; test images: {count}, {bands}", fontsize=10
    )
    return figure
