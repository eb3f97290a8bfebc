"""The frozen forward: every BatchNorm folded, no gradients, probabilities or logits from pixels."""

from __future__ import annotations

import copy
import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iic.classifiers.networks import Cast, Residual, is_chain

CLEARLY_FASTER = 1.4  # times float32's speed from which training in bfloat16 pays
WEIGHTED = (nn.Conv2d, nn.Linear)
CASTABLE = (  # known to compute in any type that they are cast to; not so another class, or one derived from these
    *WEIGHTED,
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    *(nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity),
)


def freeze(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy for explaining: BatchNorm folded, evaluation mode, weights without gradients and in the fastest layout.

    Logits are the same to 1e-4 in float32. A BatchNorm that does not directly follow a convolution of an nn.Sequential
    stays as it is. In bfloat16 the first layer with weights, the last and what follows it stay float32; a network that
    is no nn.Sequential, or has nothing between these that `can_cast` knows, runs in float32.
    """
    model = copy.deepcopy(model)
    if is_chain(model):
        model = nn.Sequential(*_folded(model.eval()))
        if dtype != torch.float32:
            model = _cast(model, dtype)
    for module in model.modules():  # GraphModules of torch.export refuse eval(), and need none
        module.training = False
    return model.requires_grad_(False).to(memory_format=torch.channels_last)


def _folded(layers: nn.Sequential) -> list[nn.Module]:
    folded: list[nn.Module] = []
    for module in layers:
        if type(module) is Residual:
            module = Residual(*_folded(module.path))
        norm = type(module) is nn.BatchNorm2d and module.running_mean is not None
        if norm and folded and type(folded[-1]) is nn.Conv2d:  # a derived class may make its weights as it runs
            folded[-1] = fuse_conv_bn_eval(folded[-1], module)
        else:
            folded.append(module)
    return folded


def can_cast(model: nn.Module) -> bool:
    """Whether a frozen network has layers that `freeze` lets compute in bfloat16."""
    return len(_middle(model)) > 0


def _middle(model: nn.Module) -> range:
    """Positions of the layers from the second with weights to before the last; none where these are not all known.

    The first stays float32: what it enlarges would be the rounding of the pixels (see `networks.WHITENED`).
    """
    if type(model) is not nn.Sequential:
        return range(0)
    weighted = [number for number, module in enumerate(model) if isinstance(module, WEIGHTED)]
    once = len({model[number] for number in weighted}) == len(weighted)
    if len(weighted) < 3 or not once:
        return range(0)
    middle = range(weighted[1], weighted[-1])
    return middle if all(_castable(model[number]) for number in middle) else range(0)


def _castable(module: nn.Module) -> bool:
    return all(map(_castable, module.path)) if type(module) is Residual else type(module) in CASTABLE


def _cast(layers: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    """The layers of `_middle` in `dtype`, between two casts; the layers as they are where there are none."""
    middle = _middle(layers)
    if not middle:
        return layers
    cast = [layers[number].to(dtype) for number in middle]
    return nn.Sequential(*layers[: middle.start], Cast(dtype), *cast, Cast(torch.float32), *layers[middle.stop :])


@torch.no_grad()
def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Logits float32 (N, classes) of one batch of pixels 0..255 (N, C, H, W), any dtype."""
    return model(pixels.float().contiguous(memory_format=torch.channels_last))


def probabilities(model: nn.Module, pixels: Tensor) -> Tensor:
    """Softmax of `logits`: (N, classes)."""
    return logits(model, pixels).softmax(1)


def predict_logits(
    model: nn.Module, images: Tensor, batch_size: int = 250, progress: Callable[[Iterable], Iterable] = iter
) -> Tensor:
    """Logits float32 (N, classes) of pixels (N, C, H, W), in batches; `progress` wraps them, such as tqdm."""
    return torch.cat([logits(model, part) for part in progress(images.split(batch_size))])


def predicted_class(
    model: nn.Module, images: Tensor, batch_size: int = 250, progress: Callable[[Iterable], Iterable] = iter
) -> Tensor:
    """The class of the largest logit of each image: int64 (N,); arguments as `predict_logits`."""
    return predict_logits(model, images, batch_size, progress).argmax(1)


def fingerprint(model: nn.Module) -> str:
    """sha256 over the names and bytes of all weights: the same for the same network, whenever it was loaded."""
    return state_fingerprint(model.state_dict())


def state_fingerprint(state: Mapping[str, Tensor]) -> str:
    """`fingerprint` of weights without their network."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())  # bfloat16 has no numpy type
    return digest.hexdigest()


@functools.cache
def best_dtype() -> torch.dtype:
    """bfloat16 on a CPU whose convolutions are clearly faster in it, else float32.

    With AMX they are. With AVX-512-BF16 alone it depends on the maker (twice as fast on Zen 5, no faster on some
    Xeons: docs/decisions.md), so one convolution is timed both ways.
    """
    if torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    if not torch.cpu._is_avx512_bf16_supported():
        return torch.float32
    seconds = _convolution_seconds()
    gain = seconds[torch.float32] / seconds[torch.bfloat16]
    return torch.bfloat16 if gain > CLEARLY_FASTER else torch.float32


@torch.no_grad()
def _convolution_seconds(repeats: int = 15) -> dict[torch.dtype, float]:
    """The shortest of some forwards of one convolution in either type, in turns: what else runs on the machine can only
    lengthen the others."""
    dtypes = (torch.float32, torch.bfloat16)
    layers, pixels, times = {}, {}, {dtype: [] for dtype in dtypes}
    for dtype in dtypes:
        layer = nn.Conv2d(128, 128, 3, padding=1, bias=False)
        layers[dtype] = layer.to(dtype, memory_format=torch.channels_last)
        pixels[dtype] = torch.ones(64, 128, 15, 15, dtype=dtype).contiguous(memory_format=torch.channels_last)
    for _ in range(repeats):
        for dtype in dtypes:
            start = time.perf_counter()
            layers[dtype](pixels[dtype])
            times[dtype].append(time.perf_counter() - start)
    return {dtype: min(found) for dtype, found in times.items()}
