"""What an interrupted training goes on from: one file, written whole after every epoch."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from iic.files import write_whole

log = logging.getLogger(__name__)


class Checkpoint:
    """The state of one training, in one file.

    Args:
        path: the file.
        made_from: whatever the training depends on (recipe, seed, checksum of the data), JSON-ready. A file of another
            training is not read.

    Attributes:
        earlier_seconds: what the runs before this one spent on the state that `load` found; 0 without one.
        dtype: name of the type that the training computes in, such as "bfloat16": of the file if there is one, so that
            a training goes on in the type that it began in; else for the caller to set before `save`.
    """

    def __init__(self, path: Path, made_from: dict[str, Any]) -> None:
        self.path = path
        text = json.dumps({**made_from, "torch": torch.__version__, "format": 3}, sort_keys=True, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()
        self.earlier_seconds, self._start = 0.0, time.perf_counter()
        saved = self._saved(mmap=True)  # its tensors are not looked at
        self.dtype: str | None = None if saved is None else saved["dtype"]

    def load(self) -> dict[str, Any] | None:
        """The state after the last whole epoch; None if there is none, or it is of another training or damaged."""
        saved = self._saved(say=log.warning)
        if saved is None:
            return None
        self.earlier_seconds = saved["seconds"]
        return saved["state"]

    def _saved(self, *, say: Callable[..., object] = log.debug, mmap: bool = False) -> dict[str, Any] | None:
        """The file's content; None where a new training is the way out, which overwrites the file."""
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mmap)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            say("%s cannot be read (%s): the training begins anew.", self.path, type(error).__name__)
            return None
        if not isinstance(saved, dict) or saved.get("key") != self.key:
            say("%s is of other parameters, data or version: the training begins anew.", self.path)
            return None
        return saved

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file by this state: tensors, numbers, strings, lists and dictionaries only."""
        seconds = self.earlier_seconds + time.perf_counter() - self._start
        saved = {"key": self.key, "seconds": seconds, "dtype": self.dtype, "state": state}
        write_whole(self.path, lambda file: torch.save(saved, file))
