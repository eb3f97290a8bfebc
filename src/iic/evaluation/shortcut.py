"""A planted shortcut: the network is given a watermark to go by, and an explanation has to point at it.

A small patch is put on a share of one class's training images and a copy of the network is trained with them (as in
Adebayo et al. 2020, arXiv 2011.05429, on spurious correlations). That it names the marked class once the patch is put
on images of other classes proves that it goes by the patch: the right explanation is then known on real images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from torch import nn

from iic.data.images import ImageSet
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation.localisation import auroc, mass_accuracy, rank_accuracy
from iic.evaluation.statistics import wilson_interval

SIZE = 4  # pixels a side
INSET = 2  # pixels between the patch and the border, so that the shifts of training leave most of it


@dataclass(frozen=True)
class Planted:
    """What a copy of the network is trained and tested with.

    Attributes:
        train: the training images; some of the marked class's carry the watermark.
        clean: the test images as they were.
        marked: the test images, all of them with the watermark.
        patch: bool (N, H, W), where the watermark of each image of `marked` is.
        marked_class: whose training images carry it.
    """

    train: ImageSet
    clean: ImageSet
    marked: ImageSet
    patch: np.ndarray
    marked_class: int


def watermark(
    images: np.ndarray, labels: np.ndarray, marked_class: int, share: float, seed: int, size: int = SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Put a checkerboard of black and white pixels in a corner of a share of one class's images.

    The corner is drawn for each image, two pixels off both borders: a map that always points to one place finds a
    quarter of the patches at most, and a centred one finds none.

    Args:
        images: uint8 (N, C, H, W), left as they are.
        labels: int64 (N,).
        marked_class: the class of which round(share * images of it) are marked.
        share: 0..1.
        seed: of the choice of images and of corners.
        size: pixels a side.

    Returns:
        (a copy of the images, some of them marked; bool (N, H, W), True on each patch, nowhere in unmarked images).

    Raises:
        UserError: no image of the class, or a patch so large that two corners overlap.
    """
    candidates = np.flatnonzero(labels == marked_class)
    if not len(candidates):
        raise UserError(f"No image is of class {marked_class}: choose a marked_class that the labels contain.")
    rng = generator("watermark", seed, 0)
    return _stamp(images, rng.permutation(candidates)[: round(share * len(candidates))], size, rng)


def plant(train: ImageSet, test: ImageSet, marked_class: int, *, share: float, seed: int, size: int = SIZE) -> Planted:
    """Training images with the shortcut, and test images without and with it; arguments and errors as `watermark`."""
    trained_on, _ = watermark(train.images, train.labels, marked_class, share, seed, size)
    marked, patch = _stamp(test.images, np.arange(len(test)), size, generator("watermark", seed, 1))
    return Planted(
        train=ImageSet(trained_on, train.labels, train.masks),
        clean=test,
        marked=ImageSet(marked, test.labels, test.masks),
        patch=patch,
        marked_class=marked_class,
    )


def shortcut_taken(model: nn.Module, planted: Planted, progress: Callable[[Iterable], Iterable] = iter) -> dict:
    """How many images of other classes the network names as the marked class, with the watermark and without.

    Args:
        model: trained on `planted.train`, frozen.
        planted: from `plant`.
        progress: wraps the batches, such as tqdm.

    Returns:
        JSON-ready: `marked` and `clean`, each a share with its 95 % interval (Wilson); `taken`, whether the first
        interval lies above the second, the proof that the network goes by the patch; n_images.
    """
    import torch

    from iic.classifiers.inference import predicted_class

    others = planted.clean.labels != planted.marked_class
    result = {}
    for name, data in (("marked", planted.marked), ("clean", planted.clean)):
        named = predicted_class(model, torch.from_numpy(data.images[others]), progress=progress).numpy()
        result[name] = _share(named == planted.marked_class)
    taken = result["marked"]["interval"][0] > result["clean"]["interval"][1]
    return {**result, "taken": taken, "n_images": int(others.sum())}


def points_at(maps: np.ndarray, patch: np.ndarray) -> dict[str, np.ndarray]:
    """Whether maps of marked images point at the watermark; explain images that the watermark made the marked class.

    Args:
        maps: float (N, H, W), higher = speaks more for the class.
        patch: bool (N, H, W), where the watermark is.

    Returns:
        float64 (N,) each. `mass`: positive relevance in the patch over all positive relevance, 0..1; `lift`: mass over
        the patch's share of the area, 1 for a map that knows nothing; `auroc`: the chance that a pixel of the patch
        lies above one outside, ties half.

    Raises:
        UserError: an image without a patch.
    """
    mass = mass_accuracy(maps, patch)
    return {"mass": mass, "lift": mass / patch.mean((1, 2)), "auroc": auroc(maps, patch)}


def warned(maps: np.ndarray, patch: np.ndarray, indices: np.ndarray, seed: int) -> dict:
    """The share of images in which a person who is shown the k top pixels sees half of the patch or more, k its size.

    Args:
        maps: float (N, H, W).
        patch: bool (N, H, W).
        indices: int64 (N,), positions in the test set, which with `seed` key how ties break.
        seed: see `indices`.

    Returns:
        JSON-ready: the share with its 95 % interval (Wilson).

    Raises:
        UserError: an image without a patch.
    """
    return _share(rank_accuracy(maps, patch, indices=indices, seed=seed) >= 0.5)


def _stamp(
    images: np.ndarray, chosen: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A copy of the images with a watermark on those chosen, and where it is: uint8 (N, C, H, W), bool (N, H, W)."""
    count, _, height, width = images.shape
    if 2 * (INSET + size) > min(height, width):
        raise UserError(
            f"A watermark of {size} pixels a side is too large for images of {height} x {width}: "
            f"take at most {min(height, width) // 2 - INSET}."
        )
    bottom, right = rng.integers(0, 2, (2, len(chosen), 1))
    y = np.arange(height) - np.where(bottom, height - INSET - size, INSET)  # (n, H), from the patch's upper edge
    x = np.arange(width) - np.where(right, width - INSET - size, INSET)  # (n, W)
    inside = ((y >= 0) & (y < size))[:, :, None] & ((x >= 0) & (x < size))[:, None]  # (n, H, W)
    white = (y[:, :, None] + x[:, None]) % 2 == 0
    board = np.where(white, 255, 0).astype(np.uint8)[:, None]  # (n, 1, H, W)
    marked, patch = images.copy(), np.zeros((count, height, width), bool)
    marked[chosen] = np.where(inside[:, None], board, images[chosen])
    patch[chosen] = inside
    return marked, patch


def _share(hits: np.ndarray) -> dict:
    """bool (N,) -> the share of True with its interval."""
    return {"share": float(hits.mean()), "interval": list(wilson_interval(int(hits.sum()), len(hits)))}
