"""What an interrupted training goes on from: one file, written whole after every epoch."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from iic.files import write_whole


class Checkpoint:
    """The state of one training, in one file.

    Args:
        path: the file.
        made_from: whatever the training depends on (recipe, seed, checksum of the data), JSON-ready. A file of another
            training is not read.

    Attributes:
        earlier_seconds: what the runs before this one spent on the state that `load` found; 0 without one.
    """

    def __init__(self, path: Path, made_from: dict[str, Any]) -> None:
        self.path = path
        text = json.dumps({**made_from, "torch": torch.__version__, "format": 2}, sort_keys=True, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()
        self.earlier_seconds, self._start = 0.0, time.perf_counter()

    def load(self) -> dict[str, Any] | None:
        """The state after the last whole epoch; None if there is none, or it is of another training or damaged."""
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
            return None  # a new training is the way out, and it overwrites the file
        if not isinstance(saved, dict) or saved.get("key") != self.key:
            return None
        self.earlier_seconds = saved["seconds"]
        return saved["state"]

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file by this state: tensors, numbers, strings, lists and dictionaries only."""
        seconds = self.earlier_seconds + time.perf_counter() - self._start
        write_whole(self.path, lambda file: torch.save({"key": self.key, "seconds": seconds, "state": state}, file))
