"""The explained networks: normalisation, a whitening convolution, three blocks of convolutions, one linear layer.

Order within a block: convolution, BatchNorm, ReLU, pool; every BatchNorm folds into its convolution, no module is used
twice. Widths, the whitened 2x2 input and the residual sums follow Jordan 2024 (arXiv 2404.00498), with ReLU in place of
GELU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# So many first layers stay float32 whatever the others compute in: normalisation, whitening convolution, ReLU. The
# whitening's outputs are small differences, enlarged up to 45 times, and with them the rounding of its inputs would be.
WHITENED = 3


def is_chain(model: nn.Module) -> bool:
    """Whether a network is its modules one after the other: an nn.Sequential without a forward of its own."""
    return isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward


class Normalize(nn.Module):
    """(x - mean) / std per channel, x and both statistics in pixel units 0..255; input uint8 or float (N, C, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std  # (N, C, H, W)


class Cast(nn.Module):
    """Numbers of another type from here on; the identity for relevance."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


class Residual(nn.Module):
    """The input plus what a chain of layers makes of it (He et al. 2016, arXiv 1512.03385): (N, C, H, W)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.path = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x)


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[: min(inputs, outputs)])  # starts by passing its input on
    norm = nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.05)
    norm.weight.requires_grad_(False)
    return [convolution, norm, nn.ReLU()]


def build_network(
    mean: Sequence[float],
    std: Sequence[float],
    widths: tuple[int, int, int] = (64, 256, 256),
    classes: int = 10,
    depth: int = 2,
    residual: bool = False,
) -> nn.Sequential:
    """A network for 28x28 or 32x32 images with len(mean) channels; logits (N, classes) from pixels 0..255.

    Each of its three blocks has `depth` convolutions of its width; the pooling follows the first. `residual` bridges
    the others of a block by a sum, which stands before the block's last ReLU.

    Its buffer `temperature` is what its logits are to be divided by for calibrated probabilities; 1 until it is fitted.
    """
    whitened = 2 * len(mean) * 2 * 2
    layers: list[nn.Module] = [Normalize(mean, std), nn.Conv2d(len(mean), whitened, 2), nn.ReLU()]
    for inputs, outputs in zip((whitened, *widths[:2]), widths, strict=True):
        layers += [*_convolution(inputs, outputs), nn.MaxPool2d(2)]
        rest = [layer for _ in range(depth - 1) for layer in _convolution(outputs, outputs)]
        layers += [Residual(*rest[:-1]), rest[-1]] if residual and rest else rest
    head = nn.Linear(widths[-1], classes, bias=False)
    nn.init.normal_(head.weight, std=1 / widths[-1])
    layers += [nn.MaxPool2d(3), nn.Flatten(), head]
    network = nn.Sequential(*layers)
    network.register_buffer("temperature", torch.tensor(1.0))
    return network


def network_from_state(state: dict[str, Tensor]) -> nn.Sequential:
    """The network of `build_network` with these weights, its form read off their names and shapes.

    Raises:
        RuntimeError, KeyError: the state dict is of another network.
    """
    filters = [tensor for name, tensor in state.items() if name.endswith("weight") and tensor.ndim == 4]
    depth = (len(filters) - 1) // 3
    widths = tuple(len(tensor) for tensor in filters[1::depth])  # the first convolution of each block
    head = next(tensor for tensor in reversed(state.values()) if tensor.ndim == 2)
    mean, std = state["0.mean"].flatten().tolist(), state["0.std"].flatten().tolist()
    with torch.random.fork_rng(devices=[]):  # the start is overwritten: leave no trace in the caller's draws
        model = build_network(mean, std, widths, len(head), depth, any(".path." in name for name in state))
    model.load_state_dict(state)
    return model.eval()
