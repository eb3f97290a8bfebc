"""Which posteriors stand in the tables, by which names, and why others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from iic.bayes.possible import no_reference
from iic.bayes.settings import Settings
from iic.bayes.sizes import Size, layer_sizes
from iic.params import BayesianParams

POINT = "point"  # kind of the plain network of the posteriors' architecture


def settings_of(params: BayesianParams, last_layer: bool) -> Settings:
    """Size, prior and training of the posteriors of a whole network, or of a last layer."""
    return replace(params.settings(), hidden=(), filters=()) if last_layer else params.settings()


def sizes_of(settings: Settings, image: Sequence[int], classes: int, model: Any = None) -> tuple[Size, ...]:
    """Layers of the posteriors' network, of images (C, H, W), or of the last layer of `model`, a single one."""
    seen = image if model is None else (model[-1].in_features,)
    return layer_sizes(seen, settings.filters, settings.hidden, classes)


def left_out(params: BayesianParams, sizes: Sequence[Size]) -> dict[str, str]:
    """The references that are asked for and not learnt, each with the reason in one sentence."""
    settings, found = settings_of(params, last_layer=len(sizes) == 2), {}
    for kind in params.references:
        reason = no_reference(kind, settings, sizes)
        if params.weights == "trained" and kind == params.posterior and params.temperature == 1:
            reason = "It is the explained posterior."
        if reason is not None:
            found[kind] = reason
    return found


def row_name(posterior: Any) -> str:
    """What a posterior is, not what was asked for: a shipped one may be of another kind than the parameters say."""
    from iic.bayes.asked import PLAIN_SAME

    if posterior.kind == POINT:
        return PLAIN_SAME
    return f"{posterior.kind}_tempered" if posterior.record.tempered else posterior.kind


def named(posterior: Any, references: Mapping[str, Any]) -> dict[str, Any]:
    """All networks but the convolutional one, by the names of their rows.

    The plain one among the references comes first, the explained posterior next; a reference of its kind gets a name
    apart.
    """
    rows = {row_name(one): one for one in (*plain_among(references).values(), posterior)}
    for kind, reference in references.items():
        if kind != POINT:
            name = row_name(reference)
            rows[f"{name}_reference" if name in rows else name] = reference
    return rows


def plain_among(references: Mapping[str, Any]) -> dict[str, Any]:
    """The plain network of the posteriors' architecture, by its kind; a last layer has none but the explained one."""
    return {kind: one for kind, one in references.items() if kind == POINT}
