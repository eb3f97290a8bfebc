"""What every method is given besides the images: networks, parameters, colours, superpixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from iic.classifiers.precision import Forward
from iic.draws import generator
from iic.explainers.fills import fill_image
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams


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
