"""What the network says when superpixels are replaced by the fill: v(z) = f(image where z = 1, fill where z = 0)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from iic.classifiers.inference import probabilities
from iic.errors import UserError


def compose(image: Tensor, segments: Tensor, masks: Tensor, fill: Tensor) -> Tensor:
    """Perturbed images.

    Args:
        image: float (C, H, W), pixels 0..255.
        segments: int64 (H, W), superpixels 0..M-1.
        masks: bool (B, M), True keeps the superpixel.
        fill: float (C,), the colour of what is not kept, pixel units.

    Returns:
        float (B, C, H, W).
    """
    keep = masks[:, segments].unsqueeze(1)  # (B, 1, H, W)
    return torch.where(keep, image, fill.view(-1, 1, 1))


def masked_values(
    model: nn.Module,
    image: np.ndarray,
    segments: np.ndarray,
    masks: np.ndarray,
    fill: np.ndarray,
    target: int,
    batch_size: int,
) -> np.ndarray:
    """Probability of class `target` for each mask: float64 (B,); see `compose` for the arguments.

    Raises:
        UserError: the network answered with NaN or infinity.
    """
    pixels, labels = torch.from_numpy(image).float(), torch.from_numpy(segments)
    colour = torch.as_tensor(fill, dtype=torch.float32)
    values = [
        probabilities(model, compose(pixels, labels, part, colour))[:, target]
        for part in torch.from_numpy(masks).split(batch_size)
    ]
    result = torch.cat(values).double().numpy()
    if not np.isfinite(result).all():
        raise UserError("The network's output is not finite on a perturbed image: train the model again.")
    return result
