"""How large the layers of a posterior's network are, without torch: parameters are checked before it is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iic.errors import UserError

KERNEL, STRIDE = 5, 2  # of every convolution

Size = int | tuple[int, int, int]  # of what a layer gives: units, or maps (channels, rows, columns)


def layer_sizes(image: Sequence[int], filters: Sequence[int], hidden: Sequence[int], classes: int) -> tuple[Size, ...]:
    """Inputs and what each layer gives: (784, 512, 10), or ((1, 28, 28), (16, 12, 12), (32, 4, 4), 128, 10).

    Args:
        image: shape of an input: (C, H, W), or (F,) of features.
        filters: of each convolution; with none the network is fully connected.
        hidden: units of each dense layer but the last.
        classes: units of the last one.

    Raises:
        UserError: convolutions of what is no square image, or has become too small for them.
    """
    if not filters:
        return (math.prod(image), *hidden, classes)
    if len(image) != 3 or image[1] != image[2]:
        raise UserError(f"A Bayesian network with filters needs square images, not inputs of {tuple(image)}.")
    maps: list[Size] = [tuple(image)]
    side = image[1]
    for count in filters:
        if side < KERNEL:
            raise UserError(
                f"Images of {image[1]} x {image[2]} pixels are too small for a Bayesian network of {len(filters)} "
                f"convolutions: name fewer filters than {tuple(filters)}."
            )
        side = side_after(side)
        maps.append((count, side, side))
    return (*maps, *hidden, classes)


def units(size: Size) -> int:
    """Values that a layer gives."""
    return math.prod(size) if isinstance(size, tuple) else size


def side_after(side: int) -> int:
    """Rows of a convolution's maps, of so many rows below."""
    return (side - KERNEL) // STRIDE + 1
