"""Learning from trained networks: their mean answer to the very picture that the learner sees takes the label's place.

Hinton et al. 2015 (arXiv 1503.02531) at temperature 1; same picture for both, and mixed pictures, as Beyer et al. 2022
(arXiv 2106.05237) have it. Only training knows of it: the network that comes out is like any other.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from iic.classifiers.inference import probabilities
from iic.classifiers.networks import network_from_state
from iic.classifiers.precision import fast_forward
from iic.errors import UserError
from iic.shipped import load_shipped

COMPARED = 1000  # images on which a fast forward has to name float32's class


class Teachers:
    """Networks that are asked for the classes of pictures, each in the fastest numbers that name its own classes.

    Args:
        networks: from `build_network`, trained, in evaluation mode.
        sample: training images, uint8 (N, C, H, W).
        mirrored: show every second network the mirror image: together they judge both.
        device: "cpu" or "cuda".
    """

    def __init__(self, networks: Sequence[nn.Sequential], sample: Tensor, mirrored: bool, device: str) -> None:
        self.networks, self.mirrored, self.device = networks, mirrored, device
        self.sample = sample[:COMPARED].cpu()
        self.forwards: dict[int, list[nn.Module]] = {}  # by the pictures' side: 8-bit weights are packed for it

    def __call__(self, pixels: Tensor) -> Tensor:
        """Mean probabilities, float32 (N, classes), of pictures (N, C, H, W), pixels 0..255."""
        side = pixels.shape[-1]
        if side not in self.forwards:
            first = (self.sample.shape[-1] - side) // 2
            sample = self.sample[..., first : first + side, first : first + side]
            self.forwards[side] = [fast_forward(net, sample, device=self.device).model for net in self.networks]
        answers = [
            probabilities(forward, pixels.flip(-1) if self.mirrored and number % 2 else pixels)
            for number, forward in enumerate(self.forwards[side])
        ]
        return torch.stack(answers).mean(0)


def load_teachers(paths: Sequence[Path], channels: int, classes: int) -> list[nn.Sequential]:
    """The networks whose state dicts lie there.

    Raises:
        UserError: a file that is missing, or is no network of this project for such images and so many classes.
    """
    networks = []
    for path in paths:
        if not path.exists():
            raise UserError(f"There is no file {path}: training.teachers names state dicts of trained networks.")
        try:
            network = network_from_state(load_shipped(path))
        except (pickle.UnpicklingError, RuntimeError, KeyError, StopIteration, EOFError, AttributeError) as error:
            raise UserError(f"{path} in training.teachers is no network of this project: train one first.") from error
        if (network[0].mean.numel(), network[-1].out_features) != (channels, classes):
            raise UserError(
                f"{path} in training.teachers is for {network[0].mean.numel()} channels and "
                f"{network[-1].out_features} classes, not {channels} and {classes}: name one of this dataset."
            )
        networks.append(network)
    return networks
