"""Whether explanations point at the planted watermark: bars, and one image beside its maps."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from iic.evaluation.planted import unpacked
from iic.report.grid import draw_maps
from iic.report.style import BLUE, GREEN, GREY, ORANGE, new_figure, title, unit, write_above

WIDTH = 0.38  # of a bar; two stand beside each other


def shortcut_figure(found: dict) -> Any:
    """Above: share of images in which a person would have been warned, and AUROC, each method's bars over its map.

    Below: one marked image and the maps of it, the watermark framed. If nothing can be said, a figure that says why.

    Args:
        found: what the node `find_shortcut` returns.
    """
    if found["reason"] is not None:
        figure, axes = new_figure(7, 1.8)
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, textwrap.fill(found["reason"], 90), ha="center", va="center", fontsize=9)
        figure.suptitle(f"{found['dataset']}: planted shortcut", fontsize=10)
        return figure
    methods = found["methods"]
    columns = len(methods) + 1
    figure, axes = new_figure(1.3 * columns + 0.8, 5.7, 2, columns, height_ratios=(2.2, 1.3))
    grid = axes[0, 0].get_gridspec()
    for axis in axes[0]:
        axis.remove()
    bars = figure.add_subplot(grid[0, 1:])
    _draw_bars(bars, methods)
    key = figure.add_subplot(grid[0, 0])
    key.axis("off")
    key.legend(*bars.get_legend_handles_labels(), loc="upper right", fontsize=7)
    _draw_example(figure, axes[1], found)
    figure.suptitle(
        f"{found['dataset']}: does the map show the planted watermark?\n{found['n_images']} test images that it alone "
        f"turns into '{found['class_name']}', 95 % intervals\n"
        f"below: red speaks for '{found['class_name']}', blue against it (the controls know no class)",
        fontsize=10,
    )
    return figure


def _draw_bars(axis: Any, methods: dict[str, dict]) -> None:
    """The two bars of each method, one unit a method."""
    columns = (
        ([cell["warned"]["share"] for cell in methods.values()], "warned", "a person\nis warned", ORANGE),
        ([cell["auroc"]["mean"] for cell in methods.values()], "auroc", "AUROC", BLUE),
    )
    for number, (heights, name, label, colour) in enumerate(columns):
        places = [i + (number - 0.5) * (WIDTH + 0.02) for i in range(len(methods))]
        ends = [cell[name]["interval"] for cell in methods.values()]
        reach = [
            [max(0.0, height - low) for height, (low, _) in zip(heights, ends, strict=True)],
            [max(0.0, high - height) for height, (_, high) in zip(heights, ends, strict=True)],
        ]
        axis.bar(places, heights, WIDTH, yerr=reach, capsize=3, color=colour, label=label)
        for place, height, up in zip(places, heights, reach[1], strict=True):
            write_above(axis, place, height + up, f"{height:.2f}")
    axis.axhline(0.5, color=GREY, ls=":", label="AUROC of a map\nthat knows nothing")
    axis.set(ylim=(0, 1.12), xlim=(-0.5, len(methods) - 0.5))
    axis.set_ylabel("half or more of the watermark among\nthe top pixels; AUROC of its pixels", fontsize=8)
    axis.set_xticks(range(len(methods)), [title(m) for m in methods], fontsize=8)


def _draw_example(figure: Any, axes: Any, found: dict) -> None:
    """The marked image, then each method's map on a colour scale of its own, centred at zero, its bar below."""
    from matplotlib.patches import Rectangle

    example = found["example"]
    image, patch = unpacked(example["image"]), unpacked(example["patch"])
    if len(image) == 1:
        axes[0].imshow(image[0], cmap="gray", vmin=0, vmax=255)
    else:
        axes[0].imshow(image.transpose(1, 2, 0))
    axes[0].set_anchor("S")  # as low as the maps, which have their colour bars below them
    axes[0].set_xlabel(f"{example['class_name']}, named\n'{found['class_name']}'", fontsize=8)
    for axis, (method, data) in zip(axes[1:], example["maps"].items(), strict=True):
        draw_maps(figure, [axis], unpacked(data)[None], unit(method), fraction=0.09, pad=0.05)
    rows, columns = np.flatnonzero(patch.any(1)), np.flatnonzero(patch.any(0))
    corner = (columns[0] - 0.5, rows[0] - 0.5)
    for axis in axes:
        axis.add_patch(Rectangle(corner, len(columns), len(rows), fill=False, edgecolor=GREEN, lw=1.5))
        axis.set(xticks=[], yticks=[])
