"""Which numbers a forward computes in: the fastest that this machine has and that answers as float32 does.

float32 everywhere; for the project's networks 8 bits on CPUs with VNNI or AMX, bfloat16 on CUDA, and on CPUs whose
convolutions are clearly faster in it where there are no 8 bits, or where these name other classes. Users' own networks
get the same as far as they are built alike.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iic.classifiers.inference import best_dtype, can_cast, freeze, predicted_class
from iic.classifiers.quantized import can_quantize, quantize
from iic.errors import UserError

PRECISIONS = ("auto", "float32", "bfloat16", "int8")
DEVICES = ("auto", "cpu", "cuda")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
KEPT = 2**30  # bytes that are kept at most, and from which on a piece of memory goes back at once
CALIBRATED = 256  # images that the scales of 8-bit numbers are taken from
SAME_CLASS = 0.995  # share of images on which a faster forward has to name float32's class
SAME_RANKING = 0.995  # share of clear pairs of superpixels that it has to rank as float32 does, where that is asked

# (fast, float32, device) -> share of clear pairs ranked alike, None if there are none
Ranking = Callable[[nn.Module, nn.Module, str], float | None]


@dataclass(frozen=True)
class Forward:
    """A frozen network for many forwards: its module, precision, device, and how often it answers as float32 does.

    `same_class`: share of the images; `same_ranking`: of clear pairs of superpixels, None where that was not looked at.
    """

    model: nn.Module
    precision: str
    device: str
    same_class: float
    same_ranking: float | None = None


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc hand freed memory out again instead of giving it back to the kernel, for the rest of this process.

    A forward frees its activations and asks for as many again; what went back to the kernel comes as new pages, one
    fault each, which can cost more than the layer's arithmetic. Anywhere but with glibc nothing happens.

    Returns:
        whether it does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, KEPT) for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))


def choose_device(device: str) -> str:
    """ "cuda" where there is one and it is wanted, else "cpu".

    With CUDA convolutions in float32 are computed in float32, not in TF32, and alike every time, for the rest of this
    process: what is called float32 here is compared to 1e-4.

    Raises:
        UserError: CUDA is asked for and torch finds none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda', but torch finds no CUDA device here: use 'auto' or 'cpu'.")
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    return "cuda"


def fast_forward(
    model: nn.Module,
    sample: Tensor,
    precision: str = "auto",
    device: str = "auto",
    ranking: Ranking | None = None,
) -> Forward:
    """The fastest forward whose classes are float32's on at least 99.5 % of the sample; float32 if there is none.

    Args:
        model: trained, not frozen; in evaluation mode.
        sample: pixels 0..255 (N, C, H, W), training images.
        precision: a name of PRECISIONS; one that is named is used, "auto" tries the faster ones, the fastest first.
        device: a name of DEVICES.
        ranking: what "auto" also asks whether superpixels are ranked as in float32: at least 99.5 % of clear pairs.

    Raises:
        UserError: a device or precision that is not to be had.
    """
    device = choose_device(device)
    plain = freeze(model).to(device)
    candidates = _faster(plain, device) if precision == "auto" else [precision]
    if candidates in ([], ["float32"]):
        return Forward(plain, "float32", device, 1.0)
    pixels = sample.to(device)
    exact = predicted_class(plain, pixels)
    for wanted in candidates:
        fast = forward_in(wanted, model, sample, device)
        same = (predicted_class(fast, pixels) == exact).float().mean().item()
        if precision != "auto":
            return Forward(fast, wanted, device, same)
        if same >= SAME_CLASS:
            alike = None if ranking is None else ranking(fast, plain, device)
            if alike is None or alike >= SAME_RANKING:
                return Forward(fast, wanted, device, same, alike)
    return Forward(plain, "float32", device, 1.0)


def forward_in(precision: str, model: nn.Module, sample: Tensor, device: str) -> nn.Module:
    """The frozen network in one precision, compared with nothing; arguments and errors as `fast_forward`.

    Of the sample the first CALIBRATED images are looked at, for 8 bits only. `device` is "cpu" or "cuda".
    """
    plain = freeze(model).to(device)
    if precision == "float32":
        return plain
    if precision == "int8":
        if device != "cpu" or not can_quantize(plain):
            raise UserError("precision 'int8' needs a CPU with VNNI and a network of this project: use 'auto'.")
        return quantize(plain, _with_masked(sample))
    if not can_cast(plain):
        raise UserError(
            "precision 'bfloat16' is for an nn.Sequential that has known layers between its first and its last with "
            "weights: use 'auto' or 'float32'."
        )
    return freeze(model, torch.bfloat16).to(device)


def _faster(model: nn.Module, device: str) -> list[str]:
    """Precisions that the frozen network can be had in and that are faster than float32, the fastest first."""
    found = ["int8"] if device == "cpu" and can_quantize(model) else []  # bfloat16 takes more than twice as long
    if can_cast(model) and (device == "cuda" or best_dtype() == torch.bfloat16):
        found.append("bfloat16")
    return found


def _with_masked(sample: Tensor) -> Tensor:
    """Some images, and the same with a half of their 4 x 4 blocks in their mean colour: what explainers show."""
    images = sample[:CALIBRATED].float()
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(len(images), 1, -(-images.shape[2] // 4), -(-images.shape[3] // 4), generator=generator) < 0.5
    keep = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., : images.shape[2], : images.shape[3]]
    return torch.cat([images, torch.where(keep, images, images.mean((0, 2, 3), keepdim=True))])
