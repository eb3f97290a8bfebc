"""Small help for building nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from pathlib import Path


def with_names(func: Callable, **fixed: str | Path | None) -> Callable:
    """`func` with arguments fixed that are names or places; keeps its own name and annotations for Kedro."""
    return update_wrapper(partial(func, **fixed), func)
