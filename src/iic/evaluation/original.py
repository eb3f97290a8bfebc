"""The original study's degradation, with shortcuts that can be undone one at a time (Malekzadeh et al. 2021).

The study (github.com/arm-on/interpretable-image-classification, degradation-comparison) keeps 20 % of each image's
pixels and reports the accuracy on what is left. Its text speaks of salt and pepper; its code writes zero, and counts
and loops over 28 x 28 pixels on CIFAR-10 too. The defaults of `Shortcuts` do the same with this project's networks.

Not repeated: its "LRP" on MNIST ranked the input image, the first entry of its list of analysers; here relevance is
ranked. On CIFAR-10 it took the epsilon rule and the true class; here it is `lrp` and the predicted class, as
everywhere. Equal values break at random from a seed, not by the order that a partition leaves. SLIC has the project's
compactness (the study: 30, and a blur of 3 pixels), quickshift sees pixels in 0..1 (the study's were standardised on
CIFAR-10), LIME of few superpixels shows every mask once, and Kernel SHAP's values are not thinned out by a lasso.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from iic.classifiers.inference import predicted_class
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.degradation import pixel_ranks
from iic.evaluation.fills import Fills
from iic.evaluation.scores import correct
from iic.explainers.attributions import select_images
from iic.explainers.context import Context
from iic.explainers.methods import explain
from iic.explainers.ranking import TOP
from iic.explainers.segmentation import Segmenter, quickshift_superpixels
from iic.explainers.work import TOGETHER

STUDY = ("lime", "kernel_shap", "lrp")
PUBLISHED: dict[str, dict[str, float | None]] = {  # accuracy on 1,000 images; None: its notebook cannot be read
    "mnist": {"lime": 0.416, "kernel_shap": 0.232, "lrp": 0.145},
    "cifar10": {"lime": 0.198, "kernel_shap": None, "lrp": 0.229},
}
KEPT = 156  # int(0.2 * 28 * 28)
SIDE = 28  # where its loops over rows and columns end
SUPERPIXELS = 50
WHITE = 255.0
DRAWS = 5
MADE_BY = {"lime": ("lime_segmentation", "lime_fill"), "kernel_shap": ("shap_fill",), "lrp": ()}  # what maps depend on
CONSTANTS = {"zero": 0.0, "grey": 120.707}  # pixel units; grey is the zero of CIFAR-10 as the study standardised it


@dataclass(frozen=True)
class Shortcuts:
    """How images are explained and degraded; by default with all of the study's shortcuts.

    Attributes:
        fill: what replaces pixels: a name of CONSTANTS or of `fills.FILLS`.
        kept: so many pixels are kept whatever the image's size; None keeps 20 % of them.
        side: pixels in rows or columns from here on stay as they are; None degrades the whole image.
        lime_segmentation: LIME's superpixels; quickshift is `lime_image`'s default.
        lime_fill: what shows where LIME switches one off; its own mean is `lime_image`'s default too.
        shap_fill: the same for Kernel SHAP; "constant" is white.
        selection: the "first" test images, or "balanced" over the classes.
        draws: so many draws of noise and ties are averaged.
    """

    fill: str = "zero"
    kept: int | None = KEPT
    side: int | None = SIDE
    lime_segmentation: str = "quickshift"
    lime_fill: str = "superpixel_mean"
    shap_fill: str = "constant"
    selection: str = "first"
    draws: int = 1


@dataclass(frozen=True)
class Variant:
    """One row of the comparison: what is undone, by name, and the methods it makes a difference to."""

    name: str
    shortcuts: Shortcuts
    methods: tuple[str, ...] = STUDY


def map_key(variant: Variant, method: str) -> tuple[str, ...]:
    """What a method's maps depend on: variants with the same key share them."""
    return (variant.shortcuts.selection, *(getattr(variant.shortcuts, name) for name in MADE_BY[method]))


@dataclass(frozen=True)
class Measured:
    """One method under one variant.

    Attributes:
        hits: float64 (N,), for each image the share of draws in which the network names the true class.
        blind: bool (N,), whether all pixels of the map are equal, so that nothing is ranked.
    """

    hits: np.ndarray
    blind: np.ndarray


def variants(shape: tuple[int, int, int]) -> list[Variant]:
    """All shortcuts, then each one undone, for images of this shape, (C, H, W): what concerns others is left out."""
    study = Shortcuts()
    salted = replace(study, fill="salt_and_pepper")
    found = [
        Variant("all shortcuts", study),
        Variant("salt and pepper instead of zero", salted),
        Variant(f"salt and pepper instead of zero, {DRAWS} draws", replace(salted, draws=DRAWS)),
        Variant("mean colour instead of zero", replace(study, fill="mean_colour")),
    ]
    channels, height, width = shape
    if channels == 3:  # grey images were scaled to 0..1: there its zero is black
        found.append(Variant("grey 121 (its zero, standardised) instead of black", replace(study, fill="grey")))
    if min(height, width) > SIDE:
        pixels = round(TOP * height * width)
        found += [
            Variant(f"{pixels} pixels (20 %) kept instead of {KEPT}", replace(study, kept=None)),
            Variant(f"border of {height - SIDE} pixels degraded too", replace(study, side=None)),
        ]
    return [
        *found,
        Variant("SLIC 50 instead of quickshift", replace(study, lime_segmentation="slic"), ("lime",)),
        Variant("mean colour instead of own mean behind LIME's masks", replace(study, lime_fill="mean"), ("lime",)),
        Variant(
            "mean colour instead of white behind Kernel SHAP's masks",
            replace(study, shap_fill="mean"),
            ("kernel_shap",),
        ),
        Variant("balanced instead of first images", replace(study, selection="balanced")),
        Variant(f"{DRAWS} draws of ties instead of one", replace(study, draws=DRAWS), ("lime", "kernel_shap")),
    ]


@dataclass(frozen=True)
class Quickshift(Segmenter):
    """Quickshift's superpixels even where it finds a single one: LIME then ranks nothing, here as in `lime_image`."""

    def __call__(self, image: np.ndarray, index: int) -> np.ndarray:
        """int64 (H, W), labels 0..M-1, of the image uint8 (C, H, W)."""
        return quickshift_superpixels(image)


def explained(context: Context, method: str, shortcuts: Shortcuts) -> Context:
    """The same network, to be explained by a method as the shortcuts say: those in MADE_BY."""
    if method == "lrp":
        return context
    fill = shortcuts.lime_fill if method == "lime" else shortcuts.shap_fill
    changes = {"segmentation": "slic", "superpixels": SUPERPIXELS, "fill": fill, "fill_constant": WHITE}
    params = context.params.model_copy(update=changes)
    quickshift = method == "lime" and shortcuts.lime_segmentation == "quickshift"
    return replace(context, params=params, segments=Quickshift(params) if quickshift else Segmenter(params))


def kept_pixels(values: np.ndarray, indices: np.ndarray, shortcuts: Shortcuts, draw: int) -> np.ndarray:
    """Which pixels stay as they are.

    Args:
        values: float (N, H, W), higher = more important.
        indices: int64 (N,), positions in the test set.
        shortcuts: `kept` and `side` count.
        draw: which of several draws; with the index it keys how ties break.

    Returns:
        bool (N, H, W): the most important pixels, and those that the study's loops do not reach.
    """
    ranks = pixel_ranks(values, indices, draw)
    keep = ranks < (round(TOP * ranks[0].size) if shortcuts.kept is None else shortcuts.kept)
    if shortcuts.side is not None:
        keep[:, shortcuts.side :] = True
        keep[:, :, shortcuts.side :] = True
    return keep


def degrade(
    images: np.ndarray, values: np.ndarray, indices: np.ndarray, shortcuts: Shortcuts, fills: Fills, draw: int
) -> np.ndarray:
    """What the network is shown: uint8 images (N, C, H, W) -> float32 (N, C, H, W), pixel units.

    `fills` makes what is no constant; the other arguments are those of `kept_pixels`.
    """
    keep = kept_pixels(values, indices, shortcuts, draw)
    if shortcuts.fill in CONSTANTS:
        return np.where(keep[:, None], images, np.float32(CONSTANTS[shortcuts.fill])).astype(np.float32)
    return fills(shortcuts.fill, images, keep, indices, draw)


def positions(selection: str, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The explained test images, int64 (count,): the first, or balanced over the classes as `select_images` does.

    Raises:
        UserError: `count` is larger than the set.
    """
    if count > len(labels):
        raise UserError(f"{count} images are more than the {len(labels)} of the test set: ask for fewer.")
    return np.arange(count) if selection == "first" else select_images(labels, count, seed)


def measure(
    context: Context,
    test: ImageSet,
    wanted: Sequence[Variant],
    fills: Fills,
    count: int,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[tuple[str, str], Measured]:
    """Explain, degrade and classify; maps that several variants share are made once, and none is kept.

    Args:
        context: the network; `params` gives the budget, the compactness and the seed.
        test: the test set.
        wanted: the rows, of different names.
        fills: see there.
        count: images of each selection, N.
        progress: wraps the groups of images, such as tqdm.

    Returns:
        for each variant's name and method what the network made of the images.

    Raises:
        UserError: `count` is larger than the set; what a method says of its inputs.
    """
    sharing: dict[tuple, list[Variant]] = defaultdict(list)
    for variant in wanted:
        for method in variant.methods:
            sharing[method, map_key(variant, method)].append(variant)
    groups = []
    for (method, _), sharers in sharing.items():
        indices = positions(sharers[0].shortcuts.selection, test.labels, count, context.params.seed)
        groups += [(indices[at : at + TOGETHER], method, sharers) for at in range(0, count, TOGETHER)]
    found: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for some, method, sharers in progress(groups):
        images, labels = test.images[some], test.labels[some]
        targets = predicted_class(context.plain, torch.from_numpy(images)).numpy()
        values = explain(method, explained(context, method, sharers[0].shortcuts), images, some, targets).values
        blind = np.ptp(values, axis=(1, 2)) == 0
        for variant in sharers:
            shown = (
                degrade(images, values, some, variant.shortcuts, fills, draw) for draw in range(variant.shortcuts.draws)
            )
            hits = np.mean([correct(context.plain, pixels, labels) for pixels in shown], axis=0)
            found[variant.name, method].append((hits, blind))
    return {key: Measured(*map(np.concatenate, zip(*parts, strict=True))) for key, parts in found.items()}
