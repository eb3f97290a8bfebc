"""The frozen forward: every BatchNorm folded, no gradients, probabilities or logits from pixels."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iic.errors import UserError


def freeze(model: nn.Sequential) -> nn.Sequential:
    """A copy for explaining: BatchNorm folded, evaluation mode, weights without gradients; the same logits to 1e-4.

    Raises:
        UserError: a BatchNorm that does not follow a convolution.
    """
    layers: list[nn.Module] = []
    for number, module in enumerate(copy.deepcopy(model).eval()):
        if not isinstance(module, nn.BatchNorm2d):
            layers.append(module)
        elif layers and isinstance(layers[-1], nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], module)
        else:
            raise UserError(f"Layer {number} is a BatchNorm without a convolution before it: it cannot be folded.")
    return nn.Sequential(*layers).requires_grad_(False).eval()


@torch.no_grad()
def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Logits float32 (N, classes) of one batch of pixels 0..255 (N, C, H, W), any dtype."""
    return model(pixels.float().contiguous(memory_format=torch.channels_last))


def probabilities(model: nn.Module, pixels: Tensor) -> Tensor:
    """Softmax of `logits`: (N, classes)."""
    return logits(model, pixels).softmax(1)


def predicted_class(
    model: nn.Module, images: Tensor, batch_size: int = 250, progress: Callable[[Iterable], Iterable] = iter
) -> Tensor:
    """The class of the largest logit of each image: int64 (N,); `progress` wraps the batches, such as tqdm."""
    return torch.cat([logits(model, part).argmax(1) for part in progress(images.split(batch_size))])


def fingerprint(model: nn.Module) -> str:
    """sha256 over the names and bytes of all weights: the same for the same network, whenever it was loaded."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def best_dtype() -> torch.dtype:
    """bfloat16 on a CPU with AMX, where its convolutions are several times faster; else float32.

    Without AMX bfloat16 is slower: measured, see docs/decisions.md.
    """
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32
