"""The visual comparison: each image beside the maps of every method."""

from __future__ import annotations

from typing import Any

import numpy as np

from iic.data.images import ImageSet
from iic.explainers.attributions import Attributions, check_side_by_side
from iic.report.style import DIVERGING, new_figure, title, unit


def grid_rows(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Positions of the first `per_class` images of each class, class by class: int64 (classes * per_class,)."""
    return np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)])


def comparison_grid(
    test: ImageSet, class_names: tuple[str, ...], maps: dict[str, Attributions], per_class: int = 3
) -> Any:
    """One row per image, one column per method; red speaks for the predicted class, blue against it.

    Args:
        test: the test set.
        class_names: by label.
        maps: method -> attributions, all of the same images, which are in an order drawn from the seed.
        per_class: rows of each class.

    Raises:
        UserError: the methods explain different images, or with different networks, parameters or code.
    """
    check_side_by_side(maps)
    first = next(iter(maps.values()))
    rows = grid_rows(test.labels[first.indices], per_class)
    figure, axes = new_figure(1.35 * (len(maps) + 1) + 0.6, 1.3 * len(rows) + 1.4, len(rows), len(maps) + 1)
    for row, axis in zip(rows, axes[:, 0], strict=True):
        index = first.indices[row]
        pixels = test.images[index]
        if len(pixels) == 1:
            axis.imshow(pixels[0], cmap="gray", vmin=0, vmax=255)
        else:
            axis.imshow(pixels.transpose(1, 2, 0))
        true, predicted = test.labels[index], first.targets[row]
        axis.set_ylabel(
            f"{class_names[true]}\npredicted:\n{class_names[predicted]}",
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
            color="black" if true == predicted else "#D55E00",
        )
    for column, (method, attributions) in enumerate(maps.items(), start=1):
        draw_maps(figure, list(axes[:, column]), attributions.values[rows], unit(method))
        axes[0, column].set_title(title(method), fontsize=9)
    axes[0, 0].set_title("image", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.suptitle(
        f"test images: {len(rows)}, up to {per_class} per class; red speaks for the predicted class, blue against it\n"
        "(the controls know no class); one colour scale per method, centred at zero",
        fontsize=9,
    )
    return figure


def draw_maps(
    figure: Any, axes: list, values: np.ndarray, unit: str, fraction: float = 0.02, pad: float = 0.005
) -> None:
    """All maps (N, H, W) of one method on one colour scale centred at zero, which ends at the 99.5 % quantile.

    Args:
        figure: that the axes are in.
        axes: one for each map, in a column.
        values: the maps.
        unit: of their numbers.
        fraction, pad: height of the colour bar below them, and its distance, in parts of the column's height.
    """
    limit = float(np.quantile(np.abs(values), 0.995)) or 1.0
    for axis, value in zip(axes, values, strict=True):
        picture = axis.imshow(value, cmap=DIVERGING, vmin=-limit, vmax=limit)
    bar = figure.colorbar(picture, ax=axes, location="bottom", fraction=fraction, pad=pad, aspect=8)
    bar.set_ticks([-limit, 0, limit], labels=[f"{-limit:.1g}", "0", f"{limit:.1g}"])
    bar.ax.tick_params(labelsize=7)
    bar.set_label(unit, fontsize=7)
