"""The rules of Layer-wise Relevance Propagation: how one layer hands its relevance down to its inputs.

Every rule divides a layer's relevance r among terms x w and a bias b, in proportion to what each adds to some sum z,
stabilised by a small epsilon of z's own sign. Each returns what arrives at the inputs and, per image, what the bias
and the stabiliser keep: the three together are the relevance that came in (Montavon et al. 2019).

A rule is made ready for a layer once, its weights clamped. Its steps write over the sums and the relevance that they
are given: memory, not arithmetic, is what LRP waits for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Shares(NamedTuple):
    """Relevance at the inputs (N, ...), and what bias and stabiliser kept, (N,) each."""

    inputs: Tensor
    bias: Tensor
    stabiliser: Tensor

    def plus(self, other: Shares) -> Shares:
        """The sum of two."""
        return Shares(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Place:
    """What a rule is told of its layer's place: whether its inputs are never below zero; whether its outputs come as
    max(z, 0), with no relevance where that is zero; and the smallest and largest possible input, (1, C, 1, 1), where
    they are known (the layer on the normalised pixels)."""

    nonnegative: bool = False
    rectified: bool = False
    box: tuple[Tensor, Tensor] | None = None


Step = Callable[[Tensor, Tensor, Tensor], Shares]  # input, output z, relevance; writes over the last two
Rule = Callable[[nn.Module, Place], Step]


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """z plus epsilon with its sign; zeros have one too."""
    return z + torch.copysign(z.new_tensor(epsilon), z)


def forward(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer with other weights."""
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.linear(x, weight, bias)


def transposed(layer: nn.Module, flow: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
    """The transposed map, from outputs to inputs of this shape."""
    if not isinstance(layer, nn.Conv2d):
        return flow @ weight
    spans = zip(shape[2:], layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True)
    unseen = [(n + 2 * pad - gap * (k - 1) - 1) % step for n, k, step, pad, gap in spans]  # behind the last stride
    return F.conv_transpose2d(flow, weight, None, layer.stride, layer.padding, unseen, layer.groups, layer.dilation)


def per_image(x: Tensor) -> Tensor:
    """Sum over all but the first dimension, in float32 at least, read in the order of memory: (N,)."""
    return x.sum(tuple(range(1, x.ndim)), dtype=_exact(x))


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _per_output(s: Tensor, layer: nn.Module) -> Tensor:
    """Sum over places: (N, outputs)."""
    if isinstance(layer, nn.Conv2d):
        return s.sum((2, 3), dtype=_exact(s))
    return s.reshape(len(s), -1, s.shape[-1]).sum(1, dtype=_exact(s))


def divided(relevance: Tensor, z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """s = relevance / stabilised z, and what the stabiliser keeps of it, (N,). Writes over both."""
    added = torch.copysign(z.new_tensor(epsilon), z)
    s = relevance.div_(z.add_(added))
    return s, per_image(added.mul_(s))


class Division:
    """Divides relevance in proportion to each term of z = sum of x w + b.

    Args:
        weights: one for all inputs, or one for the positive and one for the negative inputs.
        sign: of every z, 1 or -1, or 0 if they can have either; known, it makes stabilising a part of the bias.
    """

    def __init__(self, layer: nn.Module, weights: list[Tensor], bias: Tensor | None, epsilon: float, sign: int) -> None:
        self.layer, self.weights, self.epsilon, self.sign = layer, weights, epsilon, sign
        none = weights[0].new_zeros(len(weights[0]))
        bias, added = none if bias is None else bias, none + epsilon * sign  # (outputs,)
        self.bias = bias + added
        self.keeps = torch.stack([bias, added], 1).to(_exact(bias))  # (outputs, 2)

    def __call__(self, x: Tensor, relevance: Tensor, z: Tensor | None = None) -> Shares:
        """Shares of an input; z is computed unless given. Writes over z and the relevance."""
        parts = [x] if len(self.weights) == 1 else [x.clamp(min=0), x.clamp(max=0)]
        if self.sign == 0:
            s, stabiliser = divided(relevance, self._sums(parts) if z is None else z, self.epsilon)
            bias = _per_output(s, self.layer) @ self.keeps[:, 0]
        else:
            s = relevance.div_(self._sums(parts) if z is None else z.add_(self.sign * self.epsilon))
            bias, stabiliser = (_per_output(s, self.layer) @ self.keeps).unbind(1)
        return Shares(self._inputs(parts, s), bias, stabiliser)

    def _sums(self, parts: list[Tensor]) -> Tensor:
        """Of known sign, they are stabilised, and not rounded across zero as Winograd's algorithm could."""
        z = forward(self.layer, parts[0], self.weights[0], self.bias)
        for part, weight in zip(parts[1:], self.weights[1:], strict=True):
            z += forward(self.layer, part, weight, None)
        if self.sign == 0:
            return z
        return z.clamp_(min=self.epsilon) if self.sign > 0 else z.clamp_(max=-self.epsilon)

    def _inputs(self, parts: list[Tensor], s: Tensor) -> Tensor:
        inputs = transposed(self.layer, s, self.weights[0], parts[0].shape).mul_(parts[0])
        for part, weight in zip(parts[1:], self.weights[1:], strict=True):
            inputs.addcmul_(transposed(self.layer, s, weight, part.shape), part)
        return inputs


def _signed(layer: nn.Module, place: Place, up: Callable, down: Callable, *options: float) -> Division:
    """Positive inputs with `up` of weights and bias; negative ones, if there are any, with `down` of the weights."""
    bias = None if layer.bias is None else up(layer.bias)
    weights = [up(layer.weight)] if place.nonnegative else [up(layer.weight), down(layer.weight)]
    return Division(layer, weights, bias, *options)


_positive, _negative = partial(torch.clamp, min=0), partial(torch.clamp, max=0)


def epsilon_rule(epsilon: float = 1e-6) -> Rule:
    """LRP-epsilon (Bach et al. 2015): in proportion to x w; a larger epsilon keeps more of weak, contradictory sums."""

    def ready(layer: nn.Module, place: Place) -> Step:
        divide = Division(layer, [layer.weight], layer.bias, epsilon, int(place.rectified))
        return lambda x, z, relevance: divide(x, relevance, z)

    return ready


def plus_rule(epsilon: float = 1e-6) -> Rule:
    """z-plus (Montavon et al. 2017): in proportion to the positive x w; robust in lower layers."""

    def ready(layer: nn.Module, place: Place) -> Step:
        divide = _signed(layer, place, _positive, _negative, epsilon, 1)
        return lambda x, z, relevance: divide(x, relevance)

    return ready


def alpha_beta_rule(alpha: float = 2.0, beta: float = 1.0, epsilon: float = 1e-6) -> Rule:
    """alpha times the positive shares less beta times the negative ones, alpha - beta = 1 (Bach et al. 2015)."""
    if alpha < 0 or beta < 0 or alpha - beta != 1:
        raise ValueError(f"alpha - beta must be 1 and neither negative, not alpha {alpha}, beta {beta}")

    def ready(layer: nn.Module, place: Place) -> Step:
        for_it = _signed(layer, place, _positive, _negative, epsilon, 1)
        against = _signed(layer, place, _negative, _positive, epsilon, -1)
        return lambda x, z, relevance: for_it(x, alpha * relevance).plus(against(x, -beta * relevance))

    return ready


def gamma_rule(gamma: float = 0.25, epsilon: float = 1e-6) -> Rule:
    """Positive x w count 1 + gamma times (Montavon et al. 2019); for outputs below zero the negative ones do
    (generalised to any sign, Andeol et al. 2021). An output of exactly zero hands nothing down."""

    def up(w: Tensor) -> Tensor:
        return w + gamma * w.clamp(min=0)

    def down(w: Tensor) -> Tensor:
        return w + gamma * w.clamp(max=0)

    def ready(layer: nn.Module, place: Place) -> Step:
        above, below = _signed(layer, place, up, down, epsilon, 0), _signed(layer, place, down, up, epsilon, 0)

        def step(x: Tensor, z: Tensor, relevance: Tensor) -> Shares:
            if place.rectified:  # none arrives at or below zero, and two passes are saved
                return above(x, relevance)
            shares = above(x, relevance * (z > 0)).plus(below(x, relevance * (z < 0)))
            return shares._replace(stabiliser=shares.stabiliser + per_image(relevance * (z == 0)))

        return step

    return ready


def flat_rule(epsilon: float = 1e-6) -> Rule:
    """Equal shares over the receptive field (Lapuschkin et al. 2019), for the layer on the pixels."""

    def ready(layer: nn.Module, place: Place) -> Step:
        # All channels of a convolution's group are alike, in front of it and behind it: one stands for them.
        single = copy.copy(layer)
        single.groups = 1
        ones = layer.weight.new_ones(1, 1, *layer.weight.shape[2:])
        field = cache(lambda *shape: forward(single, ones.new_ones(1, 1, *shape), ones, None))  # (1, 1, h, w)

        def step(x: Tensor, z: Tensor, relevance: Tensor) -> Shares:
            if isinstance(layer, nn.Conv2d):
                channels, shape = x.shape[1] // layer.groups, x.shape[2:]
                whole = relevance.unflatten(1, (layer.groups, -1)).sum(2)  # (N, groups, h, w)
                s = whole / (channels * field(*shape) + epsilon)
                copies = s.reshape(-1, 1, s[0, 0].numel()).expand(-1, ones.numel(), -1)  # one for each of its inputs
                inputs = F.fold(copies, shape, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
                inputs = inputs.view(-1, layer.groups, *shape).repeat_interleave(channels, 1)
            else:
                s = relevance.sum(-1, keepdim=True) / (x.shape[-1] + epsilon)
                inputs = s.expand(x.shape).contiguous()
            return Shares(inputs, 0 * (kept := per_image(s)), epsilon * kept)

        return step

    return ready


def box_rule(epsilon: float = 1e-6) -> Rule:
    """z-box (Montavon et al. 2017): the distance to the darkest and brightest possible pixel; on the pixels only."""

    def ready(layer: nn.Module, place: Place) -> Step:
        low, high = (bound.to(layer.weight.dtype) for bound in place.box)
        weights = [layer.weight, _positive(layer.weight), _negative(layer.weight)]
        bias = [None] * 2 if layer.bias is None else [_positive(layer.bias), _negative(layer.bias)]

        def step(x: Tensor, z: Tensor, relevance: Tensor) -> Shares:
            ends = [bound.expand(1, *x.shape[1:]) for bound in (low, high)]
            z = z - forward(layer, ends[0], weights[1], bias[0]) - forward(layer, ends[1], weights[2], bias[1])
            s, kept = divided(relevance, z, epsilon)
            whole, positive, negative = (transposed(layer, s, weight, x.shape) for weight in weights)
            inputs = whole.mul_(x).sub_(positive.mul_(low)).sub_(negative.mul_(high))
            return Shares(inputs, 0 * kept, kept)  # b less its two parts is zero

        return step

    return ready
