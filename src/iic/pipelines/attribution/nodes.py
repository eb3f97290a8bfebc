"""The node that explains test images with one method."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from iic.data.images import ImageSet
from iic.explainers.methods import Attributions, explain, select_images
from iic.params import AttributionParams
from iic.progress import bar


def explain_images(
    params: AttributionParams, test: ImageSet, card: dict, model: Any, dataset: str, method: str
) -> tuple[Attributions, dict]:
    """Maps of the selected test images, and what they cost."""
    from iic.classifiers.inference import fingerprint, freeze

    indices = select_images(test.labels, params.n_images, params.seed)
    frozen, fill = freeze(model), np.array(card["train"]["mean"])
    start = time.perf_counter()
    show = bar(f"{dataset}: {method}", "image")
    maps = explain(method, frozen, test.images[indices], indices, fill, params, progress=show)
    seconds = time.perf_counter() - start
    cost = {
        "images": len(indices),
        "seconds": seconds,
        "seconds_per_image": seconds / len(indices),
        "parameters": params.model_dump(mode="json"),
        "model": fingerprint(frozen),
        **{f"mean_{name}": float(column.mean()) for name, column in maps.extras.items()},
    }
    return maps, cost
