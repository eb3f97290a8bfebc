"""Whether a faster forward explains as float32 does: Kernel SHAP of a few images from the same masks in both.

Where two superpixels' values in float32 differ by more than a standard error of the sampling, both have to rank them
alike. A pair that is closer the sampling could turn round as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from iic.classifiers.inference import logits, predicted_class
from iic.draws import generator
from iic.explainers.coalitions import draw_coalitions
from iic.explainers.kernel_shap import all_masks, paired_values, shapley_values

IMAGES = 16
BUDGET = 126  # masks an image, besides none and all: 128 forwards, one batch
SIDE = 4  # superpixels in a row of the grid


@dataclass(frozen=True)
class RankingCheck:
    """Compares two forwards of one network on the first IMAGES of a sample.

    Attributes:
        sample: pixels 0..255 (S, C, H, W).
        mean: float (C,), the colour of what is switched off, pixel units.
    """

    sample: Tensor
    mean: np.ndarray

    def __call__(self, fast: nn.Module, plain: nn.Module, device: str) -> float:
        """The share of clear pairs of superpixels that `fast` ranks as `plain` does, 0..1; 1 if no pair is clear."""
        images = self.sample[:IMAGES].to(device)
        targets = predicted_class(plain, images)
        coalitions = [draw_coalitions(SIDE**2, BUDGET, generator("subset", 0, row)) for row in range(len(images))]
        both = []
        for model in (plain, fast):
            answers = [
                paired_values(drawn, _asked(model, self._masked(image, all_masks(drawn)), target))
                for image, target, drawn in zip(images, targets, coalitions, strict=True)
            ]
            both.append(shapley_values(answers))
        (exact, errors), (found, _) = both
        pairs = np.sum([ranked_alike(*row) for row in zip(exact, found, errors, strict=True)], axis=0)
        return float(pairs[1] / pairs[0]) if pairs[0] else 1.0

    def _masked(self, image: Tensor, masks: np.ndarray) -> Tensor:
        """The image (C, H, W) with the grid's superpixels shown as in masks (n, M): (n, C, H, W)."""
        _, height, width = image.shape
        rows, columns = (torch.arange(length) * SIDE // length for length in (height, width))
        areas = rows[:, None] * SIDE + columns  # (H, W)
        shown = torch.from_numpy(masks)[:, areas][:, None].to(image.device)
        fill = torch.as_tensor(self.mean, dtype=torch.float32, device=image.device).view(-1, 1, 1)
        return torch.where(shown, image.float(), fill)


def _asked(model: nn.Module, pixels: Tensor, target: Tensor) -> np.ndarray:
    """Probability of the class: float64 (n,)."""
    return logits(model, pixels).double().softmax(1)[:, target].cpu().numpy()


def ranked_alike(exact: np.ndarray, fast: np.ndarray, errors: np.ndarray) -> tuple[int, int]:
    """Pairs of superpixels, each (M,), that differ by more than a standard error, and how many keep their order."""
    upper = np.triu_indices(len(exact), 1)
    gap, other = np.subtract.outer(exact, exact)[upper], np.subtract.outer(fast, fast)[upper]
    clear = np.abs(gap) > np.maximum.outer(errors, errors)[upper]
    return int(clear.sum()), int((clear & (np.sign(gap) == np.sign(other))).sum())
