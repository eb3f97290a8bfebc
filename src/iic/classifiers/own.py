"""A network of the user's own: a state dict with the function that builds its module, or a torch.export file."""

from __future__ import annotations

import importlib
import io
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iic.errors import UserError

# What a symbolic size may be written with in an export file: sympy's form of symbols, numbers and arithmetic. torch
# hands the text to a parser that would evaluate anything else.
_SYMBOL = r"Symbol\('[a-z]+\d+'(?:, \w+=(?:True|False))*\)"
_SIZE = re.compile(rf"(?:{_SYMBOL}|[su]\d+|\d+|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|FloorDiv|CeilDiv|[-+*/(), ])*")


def call_factory(factory: str) -> nn.Module:
    """The module that `package.module:function` makes when called without arguments.

    Raises:
        UserError: there is no such function, or it makes something else.
    """
    module_name, _, function = factory.partition(":")
    try:
        build = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"training.factory '{factory}' cannot be imported ({error}): write package.module:function."
        ) from error
    model = build()
    if not isinstance(model, nn.Module):
        raise UserError(f"training.factory '{factory}' made a {type(model).__name__}: it has to return an nn.Module.")
    return model


def own_structure(weights: Path, factory: str | None) -> nn.Module:
    """The user's module before its state is loaded, with a buffer `temperature` added.

    Args:
        weights: a state dict (.pt) or a torch.export file (.pt2).
        factory: `package.module:function` for a state dict; None for an export file, which has its weights inside.

    Raises:
        UserError: a missing file or factory, an export file that holds more than tensors and a graph, or a module that
            calls something else `temperature`.
    """
    if not weights.exists():
        raise UserError(f"There is no file {weights}: training.weights is 'trained', 'shipped' or a path.")
    if weights.suffix == ".pt2":
        check_export(weights)
        model = torch.export.load(str(weights)).module()
    elif factory is None:
        raise UserError(f"{weights} is a state dict: give training.factory, package.module:function, that builds it.")
    else:
        model = call_factory(factory)
    if not hasattr(model, "temperature"):
        model.register_buffer("temperature", torch.tensor(1.0))
    own = dict(model.named_buffers()).get("temperature")
    if own is None or own.numel() != 1:
        raise UserError(
            f"The network of {weights} has something called 'temperature' that is no buffer of one number, which is "
            "what its logits are divided by for calibrated probabilities: give it another name."
        )
    return model


def load_own(weights: Path, factory: str | None) -> nn.Module:
    """The user's network in evaluation mode; arguments and errors as `own_structure`, and a state of another module."""
    model = own_structure(weights, factory)
    if weights.suffix != ".pt2":
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            model.load_state_dict({"temperature": torch.tensor(1.0), **state})
        except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError) as error:
            raise UserError(
                f"{weights} is no state dict of what {factory} builds: {str(error).strip().splitlines()[0]}"
            ) from error
        model.eval()
    return model


@torch.no_grad()
def check_forward(model: nn.Module, shape: tuple[int, ...], classes: int) -> None:
    """Raise UserError unless pixels 0..255 (N, *shape) give finite logits (N, classes), for any number N of images."""
    for count in (2, 3):
        pixels = torch.zeros(count, *shape)
        try:
            logits = model(pixels)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"Your network does not take {count} images {tuple(shape)}: {str(error).strip().splitlines()[0]} "
                "(export with a dynamic batch dimension)."
            ) from error
        if not isinstance(logits, Tensor) or logits.shape != (count, classes) or not logits.isfinite().all():
            raise UserError(f"Your network has to give finite logits of shape ({count}, {classes}) for black images.")


def check_export(path: Path) -> None:
    """Raise UserError unless reading the torch.export file cannot execute code.

    torch.export.load unpickles custom objects and evaluates the text of symbolic sizes; a file with either is refused.
    """
    import json

    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is no torch.export file ({error}): write it with torch.export.save.") from error
    with archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(".json"):
                document = json.loads(content)
                pickled = [v for k, v in _items(document) if k == "use_pickle" and v]
                texts = [v for k, v in _items(document) if k == "expr_str" and not _SIZE.fullmatch(str(v))]
                if pickled or texts:
                    raise UserError(f"{path} holds pickled objects or unusual sizes ({name}): use a state dict.")
            elif name.endswith(".pt"):  # sample inputs: torch would fall back to unpickling
                try:
                    torch.load(io.BytesIO(content), weights_only=True)
                except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                    raise UserError(f"{path} holds pickled objects ({name}): use a state dict instead.") from error
            elif "/custom_obj" in name or "/opaque_obj" in name:
                raise UserError(f"{path} holds custom objects ({name}): use a state dict instead.")


def _items(document: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested JSON."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key, value
            yield from _items(value)
    elif isinstance(document, list):
        for value in document:
            yield from _items(value)
