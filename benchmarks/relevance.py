"""LRP beside zennit and Captum, and beside its own floor: the forwards and transposed passes that its rules need."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from setting import Setting
from torch import nn

from iic.explainers.composites import COMPOSITES
from iic.explainers.lrp import Propagator

IMAGES = 32


def passes(model: nn.Sequential, x: torch.Tensor, plus: bool) -> None:
    """The arithmetic alone: forward, for z-plus a second one, and one transposed pass, without anything else."""
    inputs = []
    for layer in model:
        inputs.append(x)
        x = layer(x)
    flow = x
    for number, layer in reversed(list(enumerate(model))):
        below = inputs[number]
        if isinstance(layer, nn.Conv2d):
            options = layer.stride, layer.padding, layer.dilation, layer.groups
            if plus:
                F.conv2d(below, layer.weight, layer.bias, *options)
            flow = torch.nn.grad.conv2d_input(below.shape, layer.weight, flow, *options)
        elif isinstance(layer, nn.Linear):
            flow = flow @ layer.weight
        elif isinstance(layer, nn.MaxPool2d):
            size = layer.kernel_size
            flow = F.interpolate(flow, scale_factor=size) if below.shape[-1] % size == 0 else flow.new_ones(below.shape)
        else:
            flow = flow.reshape(below.shape)


def by_zennit(setting: Setting, name: str) -> Callable:
    """zennit's composite on the folded network."""
    from zennit.composites import EpsilonPlusFlat

    normalize, network = setting.context.plain[0], nn.Sequential(*list(setting.context.plain)[1:])
    composite = EpsilonPlusFlat() if name == "epsilon_plus_flat" else _plain_epsilon()

    def explain(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        inputs = normalize(images.float()).requires_grad_()
        with composite.context(network) as modified:
            output = modified(inputs)
            flow = torch.eye(output.shape[1])[targets] * output.detach()
            return torch.autograd.grad(output, inputs, flow)[0]

    return explain


def _plain_epsilon():
    from zennit.composites import LayerMapComposite
    from zennit.rules import Epsilon, Norm, Pass
    from zennit.types import Activation, AvgPool, Convolution, Linear

    return LayerMapComposite([(Activation, Pass()), (AvgPool, Norm()), ((Convolution, Linear), Epsilon(1e-6))])


def by_captum(setting: Setting) -> Callable:
    """Captum's LRP, epsilon rule everywhere; it knows no Flatten, so the last layer is a convolution."""
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    plain = setting.context.plain
    head = nn.Conv2d(plain[-1].in_features, plain[-1].out_features, 1, bias=plain[-1].bias is not None)
    head.weight.data = plain[-1].weight.data[..., None, None]
    network = nn.Sequential(*list(plain)[1:-2], head).requires_grad_(False)
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
    """Rows: seconds an image, and how many times the floor, side by side: each repeat runs all of them in turn."""
    indices = setting.chosen(IMAGES)
    images = torch.from_numpy(setting.test.images[indices])
    targets = torch.from_numpy(setting.targets(indices))
    plain = setting.context.plain
    pixels = images.float().contiguous(memory_format=torch.channels_last)
    runs: dict[str, tuple[str, Callable]] = {}
    with torch.no_grad():
        for name, plus in (("epsilon", False), ("epsilon_plus_flat", True)):
            ours = Propagator(plain, COMPOSITES[name])
            theirs = by_zennit(setting, name)
            runs[f"{name}: floor"] = name, torch.no_grad()(lambda p=plus: passes(plain, pixels, p))
            runs[f"{name}: ours"] = name, lambda o=ours: o(images, targets)
            runs[f"{name}: zennit"] = name, torch.enable_grad()(lambda t=theirs: t(images, targets))
        captum = by_captum(setting)
        runs["epsilon: captum"] = "epsilon", torch.enable_grad()(lambda: captum(images, targets))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, (_, run) in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(t[1:])) for name, t in times.items()}
    return [
        {
            "what": f"lrp {name}",
            "forward": "float32",
            "seconds": medians[name] / IMAGES,
            "times_floor": medians[name] / medians[f"{composite}: floor"],
        }
        for name, (composite, _) in runs.items()
    ]
