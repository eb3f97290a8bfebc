"""Layer-wise Relevance Propagation (Bach et al. 2015) through any network of the layers named here, folded or not.

One forward keeps what the rules need; then each node of the network's graph hands its relevance to its inputs: layers
with weights by a composite's rule, sums and averages in proportion to what each input added, maxima to the winner,
normalisation, ReLU and Dropout unchanged. What biases and stabilisers keep is accounted for, layer by layer.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from iic.classifiers.networks import Cast, Normalize
from iic.errors import UserError
from iic.explainers.composites import COMPOSITES, RULES, Composite
from iic.explainers.graph import AVERAGES, LAYERS, SUMS, WAY_OUT, WEIGHTED, class_of, name_of, traced
from iic.explainers.lrp_account import Account, Relevance, joined
from iic.explainers.lrp_rules import Place, Shares, divided, per_image

EPSILON = 1e-6
Handed = dict[fx.Node, Tensor]  # input of a node -> its relevance
PASS_BYTES = 24 << 20  # of the largest map in one pass: more leaves a CPU's caches, with less the calls cost too much
FILLS_GPU = 1024  # images in one pass that fill a GPU


class Propagator:
    """A network made ready for LRP: traced, BatchNorm folded, every layer known to have a rule.

    Args:
        model: in evaluation mode; a module that torch.fx can trace.
        composite: which rule each layer gets; see `iic.explainers.composites`.

    Raises:
        UserError: a layer or operation that no rule covers, by name, or a rule that its layer cannot have.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, composite: Composite = COMPOSITES["epsilon_plus_flat"]) -> None:
        self.graph = traced(model)
        self.modules = dict(self.graph.named_modules())
        self.nodes = [node for node in self.graph.graph.nodes if node.op not in ("placeholder", "output")]
        self.image = next(node for node in self.graph.graph.nodes if node.op == "placeholder")
        self.result = next(node for node in self.graph.graph.nodes if node.op == "output").args[0]
        for node in self.nodes:
            self._check(node)
        weighted = [node for node in self.nodes if isinstance(self._module(node), WEIGHTED)]
        for name in composite.own:
            if name not in {node.target for node in weighted}:
                known = ", ".join(str(node.target) for node in weighted)
                raise UserError(f"There is no layer '{name}' that an LRP rule could be given: choose from {known}.")
        self.pools = {n: _pool_options(m) for n in self.nodes if isinstance(m := self._module(n), nn.MaxPool2d)}
        rules = {n: composite.rule(n.target, self._module(n), first=n is weighted[0]) for n in weighted}
        nonnegative = self._nonnegative()
        self.rectified = self._rectified(rules)
        self.sizes: dict[torch.Size, int] = {}
        self.steps = {}
        for node, rule in rules.items():
            box = self._box(node) if rule == "box" else None
            place = Place(node.args[0] in nonnegative, node in self.rectified, box)
            self.steps[node] = RULES[rule](self._module(node), place)

    @torch.no_grad()
    def __call__(self, images: Tensor, targets: Tensor) -> Relevance:
        """Relevance of each pixel for the logit of each image's target class.

        Args:
            images: uint8 or float (N, C, H, W), pixels 0..255.
            targets: int64 (N,).
        """
        size = self._together(images.shape[1:]) if images.device.type == "cpu" else FILLS_GPU
        found = [self._part(*part) for part in zip(images.split(size), targets.split(size), strict=True)]
        return found[0] if len(found) == 1 else joined(found)

    def _together(self, shape: torch.Size) -> int:
        """Images of this shape (C, H, W) in one pass on a CPU; found out once for each shape."""
        if shape not in self.sizes:
            largest = max(value.nbytes for value in self._forward(torch.zeros(1, *shape))[0].values())
            self.sizes[shape] = max(1, PASS_BYTES // largest)
        return self.sizes[shape]

    def _part(self, images: Tensor, targets: Tensor) -> Relevance:
        values, winners = self._forward(images.float().contiguous(memory_format=torch.channels_last))
        logits = values[self.result]
        explained = logits.gather(1, targets[:, None])
        flow = {self.result: torch.zeros_like(logits).scatter(1, targets[:, None], explained)}
        account = Account()
        for node in reversed(self.nodes):
            if node not in flow:
                continue  # computed, but not part of the logits
            handed, row = self._back(node, flow.pop(node), values, winners)
            if row is not None:
                account.book(str(node.target) if node.op == "call_module" else node.name, row)
            for source, part in handed.items():
                flow[source] = flow[source] + part if source in flow else part
            del values[node]  # nobody above asks for it any more
        return Relevance(flow[self.image], explained[:, 0], account.layers())

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[node.target] if node.op == "call_module" else None

    def _check(self, node: fx.Node) -> None:
        if node.op == "call_module" and type(self.modules[node.target]) in LAYERS:  # a derived class may do anything
            if unlike := _unlike_its_rule(self.modules[node.target]):
                raise UserError(f"LRP has no rule for layer {node.target} ({unlike}): {WAY_OUT}")
            return
        if node.op == "call_function" and node.target in (torch.flatten, F.relu):
            return
        plain_sum = all(isinstance(a, fx.Node) for a in node.args) and not node.kwargs  # torch.add has alpha=, out=
        if node.op == "call_function" and node.target in SUMS and plain_sum:
            return
        what = class_of(self.modules[node.target]) if node.op == "call_module" else name_of(node)
        name = node.target if node.op == "call_module" else node.name
        raise UserError(f"LRP has no rule for layer {name} ({what}): {WAY_OUT}")

    def _box(self, node: fx.Node) -> tuple[Tensor, Tensor]:
        """Smallest and largest normalised pixel, for the layer right behind the normalisation."""
        before = node.args[0]
        while isinstance(self._module(before), Cast):
            before = before.args[0]
        normalize = self._module(before)
        if not isinstance(normalize, Normalize) or before.args[0] is not self.image:
            raise UserError(
                f"The LRP rule 'box' is for the layer on the normalised pixels, not for layer {node.target}."
            )
        return normalize(torch.zeros_like(normalize.mean)), normalize(torch.full_like(normalize.mean, 255.0))

    def _nonnegative(self) -> set[fx.Node]:
        """Nodes whose values cannot be below zero: behind a ReLU, or made of such."""
        found: set[fx.Node] = set()
        for node in self.nodes:
            module = self._module(node)
            sources = [a for a in node.args if isinstance(a, fx.Node)]
            keeps = not isinstance(module, (*WEIGHTED, Normalize)) and all(s in found for s in sources)
            if _is_relu(node, module) or keeps:
                found.add(node)
        return found

    def _rectified(self, rules: dict[fx.Node, str]) -> set[fx.Node]:
        """Layers that only a ReLU follows, if no relevance arrives where it is shut.

        All rules hand down in proportion to the inputs, except flat and box: those may only be next to the pixels.
        """
        weighted = list(rules)
        if any(rules[node] in ("flat", "box") for node in weighted[1:]):
            return set()
        alone = {node: next(iter(node.users)) for node in weighted if len(node.users) == 1}
        return {node for node, user in alone.items() if _is_relu(user, self._module(user))}

    def _forward(self, pixels: Tensor) -> tuple[dict[fx.Node, Tensor], dict[fx.Node, Tensor]]:
        """Every node's value, and the positions of the maxima of each MaxPool2d."""
        values, winners = {self.image: pixels}, {}
        for node in self.nodes:
            module, args = self._module(node), [values[a] if isinstance(a, fx.Node) else a for a in node.args]
            if node in self.pools:
                values[node], winners[node] = torch.ops.aten.max_pool2d_with_indices(*args, *self.pools[node])
            elif _is_relu(node, module):  # in place only where nobody needs what was below zero
                values[node] = F.relu(args[0], inplace=node.args[0] in self.rectified)
            elif module is not None:
                values[node] = module(*args)
            elif node.target is operator.iadd:
                values[node] = torch.add(*args)
            else:
                values[node] = node.target(*args, **node.kwargs)
        return values, winners

    def _back(self, node: fx.Node, flow: Tensor, values: dict, winners: dict) -> tuple[Handed, Shares | None]:
        """Input node -> relevance; and, of what may keep some, its row of the account. Writes over value and flow."""
        module, source = self._module(node), node.args[0]
        x = values[source]
        if node in self.steps:
            shares = self.steps[node](x, values[node], flow)
            return {source: shares.inputs}, shares._replace(inputs=per_image(shares.inputs))
        if node in self.pools:
            inputs = torch.ops.aten.max_pool2d_with_indices_backward(flow, x, *self.pools[node], winners[node])
            return {source: inputs}, None
        if isinstance(module, AVERAGES) or node.target in SUMS:
            s, kept = divided(flow, values[node], EPSILON)
            handed = {source: _averaged(module, x, s)} if module is not None else _summed(node, values, s)
            return handed, Shares(sum(map(per_image, handed.values())), 0 * kept, kept)
        flow = flow.reshape(x.shape)
        return {source: flow.to(x.dtype) if isinstance(module, Cast) else flow}, None


def _averaged(module: nn.Module, x: Tensor, s: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(module(leaf), leaf, s)
    return x * gradient


def _summed(node: fx.Node, values: dict[fx.Node, Tensor], s: Tensor) -> Handed:
    handed: Handed = {}
    for each in node.args:  # one may be added to itself
        handed[each] = handed[each] + values[each] * s if each in handed else values[each] * s
    return handed


def _unlike_its_rule(module: nn.Module) -> str:
    """What of a known layer's options no rule covers; nothing if it is as usual."""
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        return "MaxPool2d with indices"
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return f"Conv2d with padding_mode '{module.padding_mode}'"
    if isinstance(module, nn.Conv2d) and isinstance(module.padding, str):
        return f"Conv2d with padding '{module.padding}', not a number"
    return ""


def _is_relu(node: fx.Node, module: nn.Module | None) -> bool:
    return isinstance(module, nn.ReLU) or node.target is F.relu


def _pool_options(module: nn.MaxPool2d) -> tuple:
    def pair(value: int | Sequence[int]) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
    return (*map(pair, sizes), module.ceil_mode)
