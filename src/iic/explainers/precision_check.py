"""Whether a faster forward explains as float32 does: Kernel SHAP of a few images from the same masks in both.

Where two superpixels' values in float32 differ by more than a standard error of the sampling, both have to rank them
alike, for the explained class's probability and for its logit. A pair that is closer the sampling could turn round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from iic.classifiers.inference import logits, predicted_class
from iic.draws import generator
from iic.explainers.coalitions import draw_coalitions
from iic.explainers.kernel_shap import PairedValues, all_masks, paired_values, shapley_values

IMAGES = 16
BUDGET = 126  # masks an image, besides none and all: 128 forwards, one batch
KINDS = ("probability", "logit")
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

    def __call__(self, fast: nn.Module, plain: nn.Module, device: str) -> float | None:
        """The share of clear pairs of superpixels that `fast` ranks as `plain` does, 0..1: the lower one, of
        probabilities or of logits; None if no pair is clear.
        """
        images = self.sample[:IMAGES].to(device)
        targets = predicted_class(plain, images)
        asked: dict[tuple[str, str], list[PairedValues]] = {}
        for row, (image, target) in enumerate(zip(images, targets, strict=True)):
            drawn = draw_coalitions(SIDE**2, BUDGET, generator("subset", 0, row))
            pixels = self._masked(image, all_masks(drawn))
            for who, model in (("plain", plain), ("fast", fast)):
                for kind, values in _answers(model, pixels, target).items():
                    asked.setdefault((who, kind), []).append(paired_values(drawn, values))
        shares = [_share_alike(asked["plain", kind], asked["fast", kind]) for kind in KINDS]
        return min((share for share in shares if share is not None), default=None)

    def _masked(self, image: Tensor, masks: np.ndarray) -> Tensor:
        """The image (C, H, W) with the grid's superpixels shown as in masks (n, M): (n, C, H, W)."""
        _, height, width = image.shape
        rows, columns = (torch.arange(length) * SIDE // length for length in (height, width))
        areas = rows[:, None] * SIDE + columns  # (H, W)
        shown = torch.from_numpy(masks)[:, areas][:, None].to(image.device)
        fill = torch.as_tensor(self.mean, dtype=torch.float32, device=image.device).view(-1, 1, 1)
        return torch.where(shown, image.float(), fill)


def _answers(model: nn.Module, pixels: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """What is said of the class, by KINDS: float64 (n,)."""
    raw = logits(model, pixels).double()
    return dict(zip(KINDS, (values[:, target].cpu().numpy() for values in (raw.softmax(1), raw)), strict=True))


def _share_alike(plain: list[PairedValues], fast: list[PairedValues]) -> float | None:
    """Of all images' clear pairs, those that keep their order."""
    (exact, errors), (found, _) = shapley_values(plain), shapley_values(fast)
    clear, alike = np.sum([ranked_alike(*row) for row in zip(exact, found, errors, strict=True)], axis=0)
    return float(alike / clear) if clear else None


def ranked_alike(exact: np.ndarray, fast: np.ndarray, errors: np.ndarray) -> tuple[int, int]:
    """Pairs of superpixels, each (M,), that differ by more than a standard error, and how many keep their order."""
    upper = np.triu_indices(len(exact), 1)
    gap, other = np.subtract.outer(exact, exact)[upper], np.subtract.outer(fast, fast)[upper]
    clear = np.abs(gap) > np.maximum.outer(errors, errors)[upper]
    return int(clear.sum()), int((clear & (np.sign(gap) == np.sign(other))).sum())
