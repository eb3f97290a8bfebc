"""Trained weights that come with the project: float16 tensors in `weights/`, each with a model card beside it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from iic.errors import UserError
from iic.files import sha256, write_whole

FOLDER = Path("weights")
SHIPPED, SMALL = "shipped", "shipped_small"  # values of `training.weights`
NETWORKS = (SHIPPED, SMALL)


def network_path(project: Path, dataset: str, weights: str = SHIPPED, seed: int = 0) -> Path:
    """Where a shipped network lies; of the small ones, which are for studies, there may be one for each seed."""
    return project / FOLDER / (f"{dataset}_small_{seed}.pt" if weights == SMALL else f"{dataset}.pt")


def as_shipped(state: dict) -> dict:
    """The tensors as `load_shipped` will give them back: large ones rounded to float16, in float32."""
    return {name: _restored(_halved(tensor)) for name, tensor in state.items()}


def ship(state: dict, path: Path, card: dict[str, Any]) -> None:
    """Write the tensors to `path`, large ones as float16, and the card with the file's sha256 to `<path>.json`.

    Args:
        state: name -> tensor.
        path: the file, `weights/<dataset>.pt` say.
        card: JSON-ready: dataset and its checksum, recipe, seed, accuracy, date.
    """
    import torch

    buffer = io.BytesIO()
    torch.save({name: _halved(tensor).contiguous() for name, tensor in state.items()}, buffer)
    write_whole(path, lambda file: file.write(buffer.getvalue()))
    text = json.dumps({"sha256": sha256(path), **card}, indent=2) + "\n"
    write_whole(card_path(path), lambda file: file.write(text.encode()))


def _halved(tensor):
    """float16 where it saves something: statistics and biases are few and stay exact."""
    return tensor.half() if tensor.is_floating_point() and tensor.numel() > 1000 else tensor


def _restored(tensor):
    return tensor.float() if tensor.is_floating_point() else tensor


def card_path(path: Path) -> Path:
    """Where the model card of the weights at `path` lies."""
    return path.with_name(f"{path.name}.json")


def check_shipped(path: Path, train_content: str | None = None) -> dict[str, Any]:
    """The model card, once the weights are known to be the ones that it describes.

    Args:
        path: the weights.
        train_content: `data.card.content_checksum` of the training images at hand; None leaves it unchecked.

    Raises:
        UserError: no such weights, a checksum that differs, or weights that were trained on other images.
    """
    if not path.exists() or not card_path(path).exists():
        raise UserError(f"There are no shipped weights at {path}: train the network (weights: trained).")
    card = json.loads(card_path(path).read_text())
    found = sha256(path)
    if found != card["sha256"]:
        raise UserError(
            f"{path} is not the file that its model card describes (sha256 {found[:12]}…, not {card['sha256'][:12]}…): "
            "take it from the repository again, or train the network (weights: trained)."
        )
    wanted = card.get("train_content_sha256", "unknown")
    if train_content is not None and train_content != wanted:
        raise UserError(
            f"{path} was trained on other images than those at hand (content_sha256 {wanted[:12]}…, "
            f"not {train_content[:12]}…): train the network (weights: trained)."
        )
    return card


def load_shipped(path: Path) -> dict:
    """The weights with float16 back in float32, name -> tensor; `check_shipped` first."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: _restored(tensor) for name, tensor in state.items()}
