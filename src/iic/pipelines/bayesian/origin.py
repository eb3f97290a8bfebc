"""What the Bayesian reports were made from, so that networks, thresholds and maps of different runs never mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iic.data.card import checksum
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.explainers.attributions import Attributions


def made_from(model: Any, posteriors: Mapping[str, Any], test: ImageSet) -> dict[str, Any]:
    """Fingerprints of the explained network (`model`) and of every other (`networks`), checksum of the test set."""
    from iic.classifiers.inference import fingerprint, freeze, state_fingerprint

    networks = {name: state_fingerprint(posterior.state_dict()) for name, posterior in posteriors.items()}
    return {"model": fingerprint(freeze(model)), "data": checksum(test), "networks": networks}


def check_uncertainty(
    uncertainty: dict, model: Any, posteriors: Mapping[str, Any], test: ImageSet, dataset: str
) -> None:
    """Raise UserError unless the thresholds in `uncertainty` are those of these networks."""
    made, wanted = uncertainty.get("made", {}), made_from(model, posteriors, test)
    known = made.get("networks", {})
    others = [name for name, its_print in wanted["networks"].items() if known.get(name) != its_print]
    others += [key for key in ("model", "data") if made.get(key) != wanted[key]]
    if others:
        raise UserError(
            f"The thresholds in {dataset}.uncertainty are of another {others[0]} than there is now: "
            "run `kedro run --pipelines bayesian` again, without --only-missing-outputs."
        )


def check_maps(maps: Mapping[str, Attributions], model: Any, card: dict, dataset: str) -> None:
    """Raise UserError unless all maps are of this network and these test images."""
    from iic.classifiers.inference import fingerprint, freeze

    wanted = {"model": fingerprint(freeze(model)), "data": card["test"]["sha256"]}
    for method, found in maps.items():
        if any(found.made.get(key) != value for key, value in wanted.items()):
            raise UserError(
                f"The maps of {dataset}.{method} are of another network, or of other test images: "
                "run `kedro run --pipelines attribution` again, without --only-missing-outputs."
            )
