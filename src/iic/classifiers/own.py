"""A network of the user's own: a state dict with the function that builds its module, or a torch.export file."""

from __future__ import annotations

import importlib
import io
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iic.errors import UserError
from iic.shipped import NETWORKS

MANY = 64  # images that a network is tried with at once; explainers show more

# What a symbolic size may be written with in an export file: sympy's form of symbols, numbers and arithmetic. torch
# hands the text to a parser that would evaluate anything else.
_SYMBOL = r"Symbol\('[a-z]+\d+'(?:, \w+=(?:True|False))*\)"
_SIZE = re.compile(rf"(?:{_SYMBOL}|[su]\d+|\d+|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|FloorDiv|CeilDiv|[-+*/(), ])*")


def call_factory(factory: str) -> nn.Module:
    """The module that `package.module:function` makes when called without arguments.

    Raises:
        UserError: there is no such function, it fails, or it makes something else.
    """
    module_name, _, function = factory.partition(":")
    try:
        build = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"training.factory '{factory}' cannot be imported ({error}): write package.module:function."
        ) from error
    try:
        model = build()
    except Exception as error:  # the user's code, which may fail in any way
        raise UserError(
            f"training.factory '{factory}' failed without arguments ({_short(error)}): it has to return an nn.Module."
        ) from error
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
    if not weights.is_file():
        names = ", ".join(f"'{name}'" for name in ("trained", *NETWORKS))
        raise UserError(f"There is no file {weights}: training.weights is {names} or a path.")
    if weights.suffix == ".pt2":
        check_export(weights)
        model = _exported(weights)
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
        state = _state(weights)
        try:
            model.load_state_dict({"temperature": torch.tensor(1.0), **state})
        except (RuntimeError, AttributeError, TypeError) as error:
            inside = [key for key, value in state.items() if isinstance(value, dict)]
            hint = f" (it has a dictionary '{inside[0]}': save that one alone)" if inside else ""
            raise UserError(f"{weights} is no state dict of what {factory} builds{hint}: {_short(error)}") from error
        model.eval()
    return model


def _state(weights: Path) -> dict[str, Any]:
    """What the file of a state dict holds; or a UserError, whatever it holds instead."""
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names a file that it cannot read in many ways
        what = "holds more than tensors" if isinstance(error, pickle.UnpicklingError) else f"cannot be read ({error!r})"
        raise UserError(f"{weights} {what}: write it with torch.save(model.state_dict(), path).") from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError(f"{weights} is no state dict: write it with torch.save(model.state_dict(), path).")
    return state


def _exported(path: Path) -> nn.Module:
    """The module of a torch.export file that `check_export` has looked at; or a UserError."""
    try:
        return torch.export.load(str(path)).module()
    except Exception as error:  # torch names a file that it cannot read in many ways
        raise UserError(
            f"{path} is no torch.export file that this torch reads ({_short(error)}): write it with torch.export.save."
        ) from error


def _short(error: BaseException) -> str:
    """An error on one line of bearable length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:300]} …"


@torch.no_grad()
def check_forward(model: nn.Module, shape: tuple[int, ...], classes: int) -> None:
    """Raise UserError unless pixels 0..255 (N, *shape) give finite logits (N, classes), for any number N of images, and
    each image its own whatever the others are."""
    images = 255 * torch.rand(MANY, *shape, generator=torch.Generator().manual_seed(0))
    found = {}
    for count in (2, 1, MANY):
        try:
            logits = model(images[:count])
        except Exception as error:  # the user's code, which may fail in any way
            raise UserError(
                f"Your network does not take {count} images {tuple(shape)}: {_short(error)} "
                "(export with a dynamic batch dimension without a maximum)."
            ) from error
        if not isinstance(logits, Tensor) or logits.shape != (count, classes) or not logits.isfinite().all():
            raise UserError(f"Your network has to give finite logits of shape ({count}, {classes}) for random images.")
        found[count] = logits.float()
    several = found[MANY]
    if any((found[n] - several[:n]).abs().max() > 0.01 * several.std() for n in (1, 2)):
        raise UserError(
            "Your network's logits for an image depend on the other images of a batch, as BatchNorm's do in training: "
            "call model.eval() before you export it."
        )


def check_export(path: Path) -> None:
    """Raise UserError unless reading the torch.export file cannot execute code.

    torch.export.load unpickles custom objects and evaluates the text of symbolic sizes; a file with either is refused.
    """
    import json

    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        documents = {name: json.loads(content) for name, content in contents.items() if name.endswith(".json")}
    except (zipfile.BadZipFile, zlib.error, ValueError) as error:
        raise UserError(f"{path} is no torch.export file ({error}): write it with torch.export.save.") from error
    for name, content in contents.items():
        if name in documents:
            document = documents[name]
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
