"""Explaining again: whether a map stays when its image hardly changes, and changes when the network is another.

Images, explained classes, superpixels and draws stay what they were, so that nothing but the noise, or the network's
weights, can make a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

from iic.evaluation.faithfulness import Explanations, Progress, max_sensitivity
from iic.evaluation.randomisation import cascade, similarity
from iic.explainers.context import Context, make_context, precision_of
from iic.explainers.methods import explain
from iic.explainers.names import EXPLAINERS, LOGIT
from iic.explainers.segmentation import Segmenter
from iic.explainers.work import Shard, explain_shard


@dataclass(frozen=True)
class Explainer:
    """A method and what it needs to explain, the trained network or another.

    Attributes:
        method: its name.
        model: the trained network, not frozen.
        sample: uint8 (S, C, H, W), training images for faster forwards and for BatchNorm's statistics.
        mean: float (C,), the training images' mean colour, pixel units.
        segmenter: the superpixels and, in its `params`, how images are explained.
    """

    method: str
    model: nn.Module
    sample: Tensor
    mean: np.ndarray
    segmenter: Segmenter

    @property
    def explains_again(self) -> bool:
        """Whether it asks the network and is no control: maps derived from stored ones are not made anew."""
        return self.method.removesuffix(LOGIT) in EXPLAINERS

    def context(self, model: nn.Module, precision: str | None = None) -> Context:
        """How this network is explained; float32 for relevance and gradients, else the parameters' precision."""
        wanted = precision or precision_of(self.method, self.segmenter.params)
        return make_context(model, self.sample, self.mean, self.segmenter, wanted)


def noisy_copies(explainer: Explainer, context: Context, given: Explanations) -> Callable[[Tensor, int], np.ndarray]:
    """What explains copies of an image as if they were the image: pixels (B, C, H, W), its number -> maps (B, H, W)."""

    def maps(pixels: Tensor, row: int) -> np.ndarray:
        index = int(given.indices[row])
        clean = explainer.segmenter(given.images[row], index)  # superpixels of the copies would be others
        fixed = replace(context, segments=Segmenter(context.params, clean))
        places, targets = (np.repeat(of[row], len(pixels)) for of in (given.indices, given.targets))
        return explain(explainer.method, fixed, pixels.numpy(), places, targets).values

    return maps


def steadiness(
    explainer: Explainer, context: Context, given: Explanations, *, seed: int, progress: Progress = iter
) -> np.ndarray:
    """Max-sensitivity of the method on these images: float64 (N,), 0 = steady; see `faithfulness.max_sensitivity`."""
    copies = noisy_copies(explainer, context, given)
    return max_sensitivity(copies, given.images, indices=given.indices, seed=seed, progress=progress)


def can_randomise(model: nn.Module) -> bool:
    """Whether every weight lies in a layer that can draw it anew; those of a user's exported network do not."""
    weighted = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    return all(hasattr(module, "reset_parameters") for module in weighted)


def randomised(
    explainer: Explainer, given: Explanations, *, seed: int, precision: str = "float32", progress: Progress = iter
) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """How alike the maps stay while ever more layers become random (Adebayo et al. 2018, arXiv 1810.03292).

    Args:
        explainer: its network is the trained one.
        given: the images, and their maps by the trained network.
        seed: of the random weights.
        precision: of the random networks' forwards. Give the trained network's: what is rounded off averages out over
            the many masks of a map, so the check that a faster forward names the same classes is not needed.
        progress: wraps the loop over layers, such as tqdm.

    Returns:
        for each layer, the last first: its name, its type, and the `similarity` of the maps, float64 (N,) each.
    """
    found = []
    shard = Shard(0, given.images, given.indices, given.targets)
    for name, network in progress(cascade(explainer.model, explainer.sample, seed)):
        again, _ = explain_shard(explainer.method, explainer.context(network, precision), shard)
        kind = type(network.get_submodule(name)).__name__
        found.append((name, kind, similarity(given.maps, again.values)))
    return found
