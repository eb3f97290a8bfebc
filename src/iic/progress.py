"""Progress bars with a name."""

from collections.abc import Callable, Iterable


def bar(name: str, unit: str = "it") -> Callable[[Iterable], Iterable]:
    """A wrapper for a loop that shows `name`, how far it is, and the time left; nothing for loops under two seconds."""

    def wrap(items: Iterable) -> Iterable:
        from tqdm import tqdm

        return tqdm(items, desc=name, unit=unit, mininterval=1.0, delay=2.0)

    return wrap
