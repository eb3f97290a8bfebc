"""What one propagation of relevance found: the pixels' values, and where the rest of the explained logit stayed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iic.explainers.lrp_rules import Shares


@dataclass(frozen=True)
class Relevance:
    """What one propagation found.

    Attributes:
        values: (N, C, H, W), relevance of each pixel and channel.
        explained: (N,), the logit that was handed down.
        layers: layer with weights, average or sum -> {"inputs", "bias", "stabiliser"}, float64 (N,) each: relevance
            that arrived at its inputs, and what it kept. The values' sum plus all that was kept is the explained logit.
    """

    values: Tensor
    explained: Tensor
    layers: dict[str, dict[str, Tensor]]

    def leak(self) -> Tensor:
        """Share of the logit that did not arrive at the pixels: (N,); 0 of a logit of 0, which hands nothing down."""
        nothing = self.explained == 0
        arrived = self.values.flatten(1).sum(1) / torch.where(nothing, 1, self.explained)
        return torch.where(nothing, 0, 1 - arrived)

    def account(self) -> dict[str, Tensor]:
        """Where the logit ended, float64 (N,) each: `input` + `bias` + `epsilon` (the stabilisers) = `logit`.

        `relevance_<layer>` is what arrived at the inputs of that layer.
        """
        logit = self.explained.double()
        kept = {k: sum((row[k] for row in self.layers.values()), 0 * logit) for k in ("bias", "stabiliser")}
        return {
            "logit": logit,
            "input": self.values.flatten(1).sum(1, dtype=torch.float64),
            "bias": kept["bias"],
            "epsilon": kept["stabiliser"],
            **{f"relevance_{layer}": row["inputs"] for layer, row in self.layers.items()},
        }


class Account:
    """The rows of one propagation as it goes down; a layer that is used twice has one row."""

    def __init__(self) -> None:
        self._rows: dict[str, Shares] = {}

    def book(self, layer: str, row: Shares) -> None:
        """Add what arrived and what was kept, (N,) each."""
        self._rows[layer] = self._rows[layer].plus(row) if layer in self._rows else row

    def layers(self) -> dict[str, dict[str, Tensor]]:
        """In float64, the layer next to the pixels first; many small tensors are converted as one."""
        if not self._rows:
            return {}
        numbers = torch.stack([number for row in self._rows.values() for number in row]).double().unbind()
        rows = {layer: Shares(*numbers[3 * i : 3 * i + 3])._asdict() for i, layer in enumerate(self._rows)}
        return dict(reversed(rows.items()))


def joined(found: list[Relevance]) -> Relevance:
    """One relevance of several batches."""
    values, explained = torch.cat([f.values for f in found]), torch.cat([f.explained for f in found])
    layers = {
        layer: {kind: torch.cat([f.layers[layer][kind] for f in found]) for kind in row}
        for layer, row in found[0].layers.items()
    }
    return Relevance(values, explained, layers)
