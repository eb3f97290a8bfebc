"""Composites: which rule each layer of a network gets (Kohlbrenner et al. 2020; Montavon et al. 2019).

Stabilisers are zennit's (1e-6). `rules` of your own, layer name -> rule name, go before a composite's choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from iic.errors import UserError
from iic.explainers.lrp_rules import (
    Rule,
    alpha_beta_rule,
    box_rule,
    epsilon_rule,
    flat_rule,
    gamma_rule,
    plus_rule,
)

RULES: dict[str, Rule] = {
    "epsilon": epsilon_rule(),
    "plus": plus_rule(),
    "alpha2_beta1": alpha_beta_rule(2.0, 1.0),
    "gamma": gamma_rule(0.25),
    "flat": flat_rule(),
    "box": box_rule(),
}


@dataclass(frozen=True)
class Composite:
    """Names of RULES for the first layer with weights, other convolutions, dense layers, and single layers by name."""

    first: str
    convolution: str
    dense: str = "epsilon"
    own: Mapping[str, str] = field(default_factory=dict)

    def rule(self, name: str, layer: nn.Module, *, first: bool) -> str:
        """The name of the rule for a Conv2d or Linear called `name` in the network."""
        if name in self.own:
            return self.own[name]
        if first:
            return self.first
        return self.convolution if isinstance(layer, nn.Conv2d) else self.dense


COMPOSITES: dict[str, Composite] = {
    "epsilon": Composite("epsilon", "epsilon"),
    "epsilon_plus_flat": Composite("flat", "plus"),
    "epsilon_alpha2_beta1_flat": Composite("flat", "alpha2_beta1"),
    "epsilon_gamma_box": Composite("box", "gamma"),
}


def composite(name: str, own: Mapping[str, str] | None = None) -> Composite:
    """The composite of this name, with rules of your own for single layers.

    Raises:
        UserError: an unknown composite or rule.
    """
    if name not in COMPOSITES:
        raise UserError(f"Unknown LRP composite '{name}': choose from {', '.join(COMPOSITES)}.")
    for layer, rule in (own or {}).items():
        if rule not in RULES:
            raise UserError(f"Unknown LRP rule '{rule}' for layer '{layer}': choose from {', '.join(RULES)}.")
    base = COMPOSITES[name]
    return Composite(base.first, base.convolution, base.dense, dict(own or {}))
