"""Pictures of the benchmarks."""

from __future__ import annotations

from typing import Any

import pandas as pd

from iic.report.style import BLUE, ORANGE, new_figure

EQUAL_ERROR = tuple(f"ratio_equal_error_{ours}" for ours in ("lime", "lime_fast", "kernel_shap", "kernel_shap_fast"))


def ratios(table: pd.DataFrame) -> Any:
    """How many times longer each library takes than ours, as its users run it and with our forward, at equal error."""
    datasets = list(dict.fromkeys(table.dataset))
    figure, axes = new_figure(4.2 * len(datasets), 3.2, 1, len(datasets), sharex=True)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        rows = table[(table.dataset == dataset) & table.ratio_equal_forwards.notna()].copy()
        rows["ratio"] = rows[[c for c in EQUAL_ERROR if c in rows]].max(axis=1)
        names = list(dict.fromkeys(rows.what))
        for offset, (forward, colour) in enumerate((("float32, as users run it", BLUE), ("frozen", ORANGE))):
            chosen = rows[rows.forward == forward].set_index("what").ratio.reindex(names)
            places = [at + 0.4 * offset - 0.2 for at in range(len(names))]
            axis.barh(places, chosen, height=0.38, color=colour, label=forward.replace("frozen", "with our forward"))
        axis.set_yticks(range(len(names)), names)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", xlabel="seconds to equal error,\ntimes ours", title=dataset)
        axis.invert_yaxis()
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return figure
