"""What every method is given besides the images: networks, parameters, colours, superpixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from iic.classifiers.inference import freeze
from iic.classifiers.precision import Forward, fast_forward
from iic.draws import generator
from iic.explainers.fills import fill_image
from iic.explainers.names import SAMPLED, SUPERPIXEL_METHODS, base_of
from iic.explainers.precision_check import RankingCheck
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams


def precision_of(method: str, params: AttributionParams) -> str:
    """Of the forwards: relevance and gradients are always float32; faster ones are for methods that ask for outputs.

    "auto" is checked by how superpixels rank, which says nothing about single pixels: what ranks these gets float32.
    """
    base = base_of(method)
    if base not in SAMPLED or (params.precision == "auto" and base not in SUPERPIXEL_METHODS):
        return "float32"
    return params.precision


def make_context(model: nn.Module, sample: Tensor, mean: np.ndarray, segmenter: Segmenter, precision: str) -> Context:
    """A network made ready to be explained, as the segmenter's parameters say.

    A faster forward is taken only if it names the same classes and ranks superpixels alike, see `precision_check`.

    Args:
        model: trained, not frozen.
        sample: pixels 0..255 (S, C, H, W), training images that a faster forward is fitted to and compared on.
        mean: float (C,), the training images' mean colour, pixel units.
        segmenter: the superpixels, and the parameters.
        precision: of the forwards, see `precision_of`.
    """
    forward = fast_forward(model, sample, precision, segmenter.params.device, RankingCheck(sample, mean))
    return Context(freeze(model).to(forward.device), forward, mean, segmenter.params, segmenter)


@dataclass(frozen=True)
class Context:
    """One network and how it is to be explained.

    Attributes:
        plain: the frozen network in float32, for relevance and gradients.
        forward: the fastest forward, for methods that only ask for outputs.
        mean: float (C,), the training images' mean colour, pixel units.
        params: budgets and settings.
        segments: the superpixels of a test image.
    """

    plain: nn.Module
    forward: Forward
    mean: np.ndarray
    params: AttributionParams
    segments: Segmenter

    def fill(self, image: np.ndarray, segments: np.ndarray) -> np.ndarray:
        """What shows where a superpixel is off: float32 (C, H, W)."""
        return fill_image(self.params.fill, image, segments, self.mean, self.params.fill_constant)

    def draws(self, index: int, method: int) -> np.random.Generator:
        """The draws for one image and method: the same whatever else is explained."""
        return generator("method", self.params.seed, index, method)
