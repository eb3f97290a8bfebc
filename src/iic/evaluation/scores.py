"""Accuracies, each with its 95 % interval."""

from __future__ import annotations

import numpy as np
from torch import nn

from iic.evaluation.statistics import wilson_interval


def correct(model: nn.Module, pixels: np.ndarray, labels: np.ndarray, progress=iter) -> np.ndarray:
    """bool (N,): whether the network names the true class of each image of pixels (N, C, H, W), 0..255."""
    import torch

    from iic.classifiers.inference import predicted_class

    return predicted_class(model, torch.from_numpy(pixels), progress=progress).numpy() == labels


def proportion(hits: np.ndarray) -> dict:
    """Share of True with its Wilson interval: bool (N,)."""
    return {"accuracy": float(hits.mean()), "interval": list(wilson_interval(int(hits.sum()), len(hits)))}
