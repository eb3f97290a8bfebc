"""Progress bars with a name; nothing is shown of what takes less than two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


def bar(name: str, unit: str = "it") -> Callable[[Iterable], Iterable]:
    """A wrapper for a loop that shows `name`, how far it is, and the time left."""

    def wrap(items: Iterable) -> Iterable:
        from tqdm import tqdm

        return tqdm(items, desc=name, unit=unit, mininterval=1.0, delay=2.0)

    return wrap


@contextmanager
def counter(name: str, unit: str, total: int) -> Iterator[Callable[[int], object]]:
    """A function that is told how many more are done."""
    from tqdm import tqdm

    with tqdm(total=total, desc=name, unit=unit, mininterval=1.0, delay=2.0) as shown:
        yield shown.update
