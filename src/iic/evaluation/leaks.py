"""Masks of training and of test images by the same methods, made alike, and what their shape gives away of the class.

The label is the predicted class on both sides: a map explains it, so it is what a mask's shape can tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iic.evaluation.degradation import top_pixels
from iic.evaluation.leakage import BATCH, leakage
from iic.explainers.attributions import Attributions
from iic.explainers.context import Context
from iic.explainers.names import LIBRARY, MEAN_MAP, SUPERPIXEL, SUPERPIXEL_METHODS, base_of, source_of
from iic.explainers.work import Tick, derive_images, explain_outputs
from iic.params import AttributionParams

PART = 500  # maps that are read and ranked together
EPOCHS = 15  # over the training masks at least
STEPS = 200  # at least: few masks are gone through more often, or the small network would not have learnt to read

NO_SUPERPIXELS = "attribution.segments holds superpixels of the test images only"
ONE_MASK = "its mask is the same for all images"


@dataclass(frozen=True)
class Behind:
    """Training images, called by positions that lie behind those of the test set.

    Draws and ties are keyed by position. Training image 7 must not share them with test image 7: a random map would be
    the same for both, and where both sets are sorted by class, the mask network would be told the label with it.

    Attributes:
        images: uint8 (N, C, H, W), the training set.
        first: position of the first one, the size of the test set.
    """

    images: np.ndarray
    first: int

    def __getitem__(self, positions: np.ndarray | int) -> np.ndarray:
        return self.images[positions - self.first]


def lacks_superpixels(method: str, params: AttributionParams, labels: np.ndarray | None) -> bool:
    """Whether the method needs superpixels, and the user's own `labels` (test images, H, W) have none for training."""
    base = base_of(method)
    needed = (
        base in (*SUPERPIXEL_METHODS, "random_superpixels")
        or method.endswith(SUPERPIXEL)
        or (params.backend == "library" and base in LIBRARY)
    )
    return needed and labels is not None and labels.ndim == 3


def why_not_measured(methods: Sequence[str], params: AttributionParams, labels: np.ndarray | None) -> dict[str, str]:
    """The methods of a group whose leakage is not measured, and why; arguments as `lacks_superpixels`.

    A mean map keeps the same pixels of all images but for ties: there is nothing to learn, and no image is explained
    for it alone.
    """
    silent = {m: NO_SUPERPIXELS for m in methods if lacks_superpixels(m, params, labels)}
    rest = [method for method in methods if method not in silent]
    if all(method.endswith(MEAN_MAP) for method in rest):
        silent |= dict.fromkeys(rest, ONE_MASK)
    return silent


def training_maps(
    methods: Sequence[str],
    sources: Sequence[str],
    context: Context,
    train: Behind,
    indices: np.ndarray,
    targets: np.ndarray,
    folders: Mapping[str, Path],
    *,
    made: dict,
    tick: Tick,
) -> dict[str, Attributions]:
    """Maps of training images by methods that share them: the sources' are made once, a twin's derived from these.

    Args:
        methods: whose maps are wanted.
        sources: the methods that ask the network, by the same forwards: one, or one and its twin on logits.
        context: the network and how it is explained.
        train: the training images.
        indices: int64 (n,), positions as `train` counts them.
        targets: int64 (n,), the explained classes.
        folders: of each method and source: its shards lie here, finished ones of an interrupted run are taken up;
            memory does not grow with n.
        made: what determines the maps, JSON-ready.
        tick: called with each number of images that are done, for the sources and for each derived method.

    Returns:
        by method, in their order.
    """
    outputs = [(folders[source], {**made, "method": source}) for source in sources]
    maps, _ = explain_outputs(sources[0], context, train, indices, targets, outputs, tick=tick)
    found = dict(zip(sources, maps, strict=True))
    for method in methods:
        if method not in found:
            source = source_of(method)
            derived = {**made, "method": method, "derived_from": source}
            where = (context.segments, context.params, folders[method])
            found[method], _ = derive_images(method, found[source], train, *where, made=derived, tick=tick)
    return {method: found[method] for method in methods}


def mask_leakage(
    train: Attributions,
    test: Attributions,
    *,
    share: float,
    classes: int,
    seed: int,
    flip: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """How often a small network names the explained class from the top pixels' places alone; see `leakage`.

    Args:
        train: maps of training images, at positions that no test image has.
        test: maps of test images by the same method.
        share: of the pixels that a mask keeps, 0..1.
        classes: how many there are.
        seed: keys how ties break, and the small network's draws.
        flip: whether training masks are mirrored, as the network's own recipe does with images.
        progress: wraps the steps, such as tqdm.
    """
    epochs = max(EPOCHS, math.ceil(STEPS / math.ceil(len(train.indices) / BATCH)))
    masks = [top_masks(maps, share, seed) for maps in (train, test)]
    return leakage(
        *(masks[0], train.targets),
        *(masks[1], test.targets),
        classes=classes,
        seed=seed,
        epochs=epochs,
        flip=flip,
        progress=progress,
    )


def top_masks(maps: Attributions, share: float, seed: int) -> np.ndarray:
    """The top share of each map's pixels, the maps read part by part: bool (N, H, W)."""
    masks = np.empty(maps.values.shape, bool)
    for start in range(0, len(masks), PART):
        some = slice(start, start + PART)
        masks[some] = top_pixels(np.asarray(maps.values[some]), share, maps.indices[some], seed)
    return masks
