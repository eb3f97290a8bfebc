"""A network as the graph of its layers, for methods that go through them one by one."""

from __future__ import annotations

import copy
import operator
from collections import Counter

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iic.classifiers.networks import Cast, Normalize
from iic.errors import UserError

UNCHANGED = (Normalize, Cast, nn.ReLU, nn.Dropout, nn.Identity)
WEIGHTED = (nn.Conv2d, nn.Linear)
AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
LAYERS = (*UNCHANGED, *WEIGHTED, *AVERAGES, nn.MaxPool2d, nn.Flatten)
HAS_RULES = {  # what a method has a rule for, or needs none, as Captum has them; Grad-CAM looks at one layer only
    "guided_backprop": LAYERS,
    "deeplift": (*LAYERS, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus),
}
# what a tensor's own method, or another name, is the same as
SAME_AS = {"relu": F.relu, torch.relu: F.relu, "flatten": torch.flatten, "add": torch.add}
SUMS = (operator.add, operator.iadd, torch.add)
WAY_OUT = "explain this network with the other methods (IIC_METHODS=lime,kernel_shap,random,sobel)."


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        # derived classes too, so that they are refused by the layer's name and not by what they call
        return isinstance(module, (*LAYERS, nn.BatchNorm2d)) or super().is_leaf_module(module, name)


def name_of(node: fx.Node) -> str:
    """What a node that is no module calls."""
    return getattr(node.target, "__name__", str(node.target))


def class_of(module: nn.Module) -> str:
    """A layer's class, and the known one that it is derived from, if it is."""
    name = type(module).__name__
    bases = [known.__name__ for known in type(module).__mro__[1:] if known in (*LAYERS, nn.BatchNorm2d)]
    return f"{name}, derived from {bases[0]}" if bases else name


def traced(model: nn.Module) -> fx.GraphModule:
    """A copy of the network as a graph of its layers, each BatchNorm folded into the convolution before it.

    Behind a class derived from Conv2d, whose weights may be anything, a BatchNorm is left out: the graph's order is
    right, and LRP, which alone computes with it, refuses the class.

    Raises:
        UserError: a forward that torch.fx cannot follow, a BatchNorm that does not follow a convolution of its own, or
            a layer that gets its input by keyword.
    """
    model = copy.deepcopy(model)
    try:
        graph = _Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise UserError(
            f"The forward of {type(model).__name__} cannot be followed layer by layer ({error}): {WAY_OUT}"
        ) from error
    modules = dict(model.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in list(graph.nodes):
        if node.op in ("call_method", "call_function") and node.target in SAME_AS:
            node.op, node.target = "call_function", SAME_AS[node.target]
        if node.op in ("call_module", "call_function") and node.kwargs and not node.args:
            name = node.target if node.op == "call_module" else name_of(node)
            raise UserError(f"Layer {name} gets its input by keyword, not as its first argument: {WAY_OUT}")
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        if type(modules[node.target]) is not nn.BatchNorm2d:
            raise UserError(f"Layer {node.target} is no plain BatchNorm ({class_of(modules[node.target])}): {WAY_OUT}")
        before = node.args[0]
        follows = before.op == "call_module" and isinstance(modules[before.target], nn.Conv2d)
        if not follows or len(before.users) > 1 or calls[before.target] > 1:  # folding changes every call's weights
            raise UserError(f"Layer {node.target} is a BatchNorm without a convolution of its own before it: {WAY_OUT}")
        if modules[node.target].running_mean is None:
            raise UserError(f"Layer {node.target} is a BatchNorm without running statistics: {WAY_OUT}")
        if type(modules[before.target]) is nn.Conv2d:
            folded = fuse_conv_bn_eval(modules[before.target].eval(), modules[node.target].eval())
            parent, _, name = before.target.rpartition(".")
            setattr(model.get_submodule(parent), name, folded)
            modules[before.target] = folded
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    return fx.GraphModule(model, graph)


def check_hooks(model: nn.Module, method: str) -> None:
    """Raise UserError unless every ReLU is a module of its own, as methods that change its gradient need, and the
    method has a rule for every layer.

    Without the check such a method would quietly be the plain gradient where it has none. DeepLIFT's rules are found
    by a layer's very class, so that one derived from it has none.
    """
    graph = traced(model)
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        if node.op == "call_method" or (node.op == "call_function" and node.target not in (*SUMS, torch.flatten)):
            raise UserError(
                f"{method} needs layers that are modules, and this network calls {name_of(node)}: {WAY_OUT}"
            )
        if node.op == "call_module" and not _has_rule(method, modules[node.target]):
            raise UserError(
                f"{method} has no rule for layer {node.target} ({class_of(modules[node.target])}): {WAY_OUT}"
            )
    used = Counter(
        n.target for n in graph.graph.nodes if n.op == "call_module" and isinstance(modules[n.target], nn.ReLU)
    )
    for name, times in used.items():
        if times > 1:
            raise UserError(
                f"{method} needs a ReLU for each use, and this network uses layer {name} {times} times: {WAY_OUT}"
            )


def _has_rule(method: str, module: nn.Module) -> bool:
    if method == "deeplift":
        return type(module) in HAS_RULES[method]
    return method not in HAS_RULES or isinstance(module, HAS_RULES[method])
