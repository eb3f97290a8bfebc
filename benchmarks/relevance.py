"""LRP beside zennit and Captum, and beside its own floor: the forwards and transposed passes that its rules need."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from setting import Setting, seconds
from torch import Tensor, nn

from iic.classifiers.inference import freeze
from iic.classifiers.networks import Residual
from iic.explainers.composites import COMPOSITES
from iic.explainers.lrp import Propagator

IMAGES = {"cpu": (32, 128, 256), "cuda": (128, 1024)}
SPLITS = (16, 32, 64, 128, 256, 1024)  # images in one pass of the floor: the fastest counts
TOP = 0.2  # of the pixels, for which maps are compared

Run = Callable[[], object]
Inputs = list[tuple[nn.Module, "Tensor | Inputs"]]  # each layer with what it saw; a sum with those of its path


def passes(model: nn.Sequential, pixels: Tensor, plus: bool) -> None:
    """The arithmetic alone: forward and transposed pass, without anything else.

    For the rules of epsilon_plus_flat (`plus`), also a second forward of each convolution but the first, and there the
    transposed pass of one channel, by `fold` as in ours. No rule's division and no account; pooling hands up copies,
    not the winners.
    """
    inputs, output = _forward(model, pixels)
    first = next(layer for layer in model if isinstance(layer, nn.Conv2d))
    _transposed(inputs, output, plus, first)


def _forward(layers: nn.Sequential, x: Tensor) -> tuple[Inputs, Tensor]:
    inputs: Inputs = []
    for layer in layers:
        if isinstance(layer, Residual):
            inner, made = _forward(layer.path, x)
            inputs.append((layer, inner))
            x = x + made
        else:
            inputs.append((layer, x))
            x = F.relu_(x) if isinstance(layer, nn.ReLU) else layer(x)
    return inputs, x


def _transposed(inputs: Inputs, flow: Tensor, plus: bool, first: nn.Module) -> Tensor:
    for layer, below in reversed(inputs):
        if isinstance(layer, Residual):
            flow = flow + _transposed(below, flow, plus, first)
        elif isinstance(layer, nn.Conv2d):
            weight = layer.weight
            if plus and layer is first:
                copies = flow.sum(1, keepdim=True).flatten(2).expand(-1, weight[0, 0].numel(), -1)
                flow = F.fold(copies, below.shape[2:], layer.kernel_size, 1, layer.padding, layer.stride)
                continue
            if plus:
                F.conv2d(below, weight, layer.bias, layer.stride, layer.padding)
            flow = F.conv_transpose2d(flow, weight, None, layer.stride, layer.padding)
        elif isinstance(layer, nn.Linear):
            flow = flow @ layer.weight
        elif isinstance(layer, nn.MaxPool2d):
            flow = _unpooled(flow, layer.kernel_size, below)
        elif isinstance(layer, nn.Flatten):
            flow = flow.reshape(below.shape)
    return flow


def _unpooled(flow: Tensor, size: int, below: Tensor) -> Tensor:
    return F.interpolate(flow, scale_factor=size) if below.shape[-1] % size == 0 else torch.ones_like(below)


def by_zennit(setting: Setting, name: str) -> Callable:
    """zennit's composite on the folded network."""
    from zennit.composites import EpsilonPlusFlat

    normalize, *layers = setting.context.plain
    network = nn.Sequential(*(_Summed(m) if isinstance(m, Residual) else m for m in layers))
    composite = EpsilonPlusFlat() if name == "epsilon_plus_flat" else _plain_epsilon()

    def explain(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        inputs = normalize(images.float()).requires_grad_()
        with composite.context(network) as modified:
            output = modified(inputs)
            flow = torch.eye(output.shape[1], device=output.device)[targets] * output.detach()
            return torch.autograd.grad(output, inputs, flow)[0]

    return explain


def _plain_epsilon():
    from zennit.composites import LayerMapComposite
    from zennit.layer import Sum
    from zennit.rules import Epsilon, Norm, Pass
    from zennit.types import Activation, AvgPool, Convolution, Linear

    sums = [(Sum, Norm()), (AvgPool, Norm())]
    return LayerMapComposite([(Activation, Pass()), *sums, ((Convolution, Linear), Epsilon(1e-6))])


class _Summed(nn.Module):
    """A residual sum as zennit knows it."""

    def __init__(self, residual: Residual) -> None:
        from zennit.layer import Sum

        super().__init__()
        self.path, self.sum = residual.path, Sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(torch.stack([x, self.path(x)], dim=-1))


def by_captum(setting: Setting) -> Callable:
    """Captum's LRP, epsilon rule everywhere; it knows no Flatten, so the last layer is a convolution."""
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    plain = setting.context.plain
    head = nn.Conv2d(plain[-1].in_features, plain[-1].out_features, 1, bias=plain[-1].bias is not None)
    head.weight.data = plain[-1].weight.data[..., None, None]
    network = nn.Sequential(*list(plain)[1:-2], head.to(plain[-1].weight.device)).requires_grad_(False)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.rule = EpsilonRule(epsilon=1e-6)
    method = LRP(network)

    def explain(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        inputs = plain[0](images.float()).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method.attribute(inputs, target=[(int(t), 0, 0) for t in targets])

    return explain


def time_relevance(setting: Setting, repeats: int) -> list[dict]:
    """Rows: seconds an image and how many times the floor, for each number of images given at once."""
    return [row for count in IMAGES[setting.context.forward.device] for row in _rows(setting, count, repeats)]


def _rows(setting: Setting, count: int, repeats: int) -> list[dict]:
    indices = setting.chosen(count)
    device = setting.context.forward.device
    images = torch.from_numpy(setting.test.images[indices]).to(device)
    targets = torch.from_numpy(setting.targets(indices)).to(device)
    rows = []
    for name in ("epsilon", "epsilon_plus_flat"):
        runs = _runs(setting, name, images, targets)
        each = {who: total / count for who, total in _medians(runs, repeats).items()}
        floor = min(value for who, value in each.items() if who.startswith("floor"))
        each = {"floor": floor, **{who: value for who, value in each.items() if not who.startswith("floor")}}
        for who, value in each.items():
            forward = "bfloat16" if who == "ours, bfloat16" else "float32"
            row = {"what": f"lrp {name}: {who}", "forward": forward, "batch": count, "seconds": value}
            rows.append(row | {"times_floor": value / floor})
            if forward == "bfloat16":
                rows[-1] |= agreement(runs["ours"]().values, runs[who]().values)
    return rows


def _runs(setting: Setting, name: str, images: Tensor, targets: Tensor) -> dict[str, Run]:
    plain, plus = setting.context.plain, name == "epsilon_plus_flat"
    pixels = images.float().contiguous(memory_format=torch.channels_last)
    rounded = freeze(setting.model, torch.bfloat16).to(images.device)
    ours, fast = (Propagator(net, COMPOSITES[name]) for net in (plain, rounded))
    theirs = {"zennit": by_zennit(setting, name)}
    if name == "epsilon" and not any(isinstance(layer, Residual) for layer in plain):  # Captum's LRP knows no sum
        theirs["captum"] = by_captum(setting)

    @torch.no_grad()
    def floor(size: int) -> None:
        for part in pixels.split(size):
            passes(plain, part, plus)

    return {
        **{f"floor {size}": lambda size=size: floor(size) for size in SPLITS if size <= len(images)},
        "ours": lambda: ours(images, targets),
        "ours, bfloat16": lambda: fast(images, targets),
        **{who: lambda explain=explain: explain(images, targets) for who, explain in theirs.items()},
    }


def _medians(runs: dict[str, Run], repeats: int) -> dict[str, float]:
    """Median seconds of each, side by side: every repeat runs all of them in turn.

    Each runs once unmeasured just before: else it would pay for the memory that the one before it gave back.
    """
    times: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(repeats):
        for who, run in runs.items():
            run()
            times[who].append(seconds(run))
    return {who: float(np.median(t)) for who, t in times.items()}


def agreement(truth: Tensor, found: Tensor) -> dict[str, float]:
    """How far maps (N, C, H, W) are those of float32: the share of the top pixels that they have in common, and the
    relative L2 distance; means over images."""
    truth, found = truth.sum(1).flatten(1), found.sum(1).flatten(1)  # (N, H W)
    size = round(TOP * truth.shape[1])
    tops = [torch.zeros_like(m).scatter(1, m.topk(size).indices, 1.0) for m in (truth, found)]
    distance = (found - truth).norm(dim=1) / truth.norm(dim=1)
    return {"overlap": float((tops[0] * tops[1]).sum(1).mean()) / size, "relative_l2": float(distance.mean())}
