"""Small help for building nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper


def with_names(func: Callable, **fixed: str) -> Callable:
    """`func` with arguments fixed that are names rather than data; keeps its own name and annotations for Kedro."""
    return update_wrapper(partial(func, **fixed), func)
