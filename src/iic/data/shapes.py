"""`shapes`: drawn objects whose right explanation, the object's mask, is known.

Class, colour, angle, size, place and background are drawn independently of each other, and fragments of every class lie
about as distractors: nothing but the outline of the one whole object tells its class.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from iic.data.images import ImageSet

SIDE = 32  # pixels
SCALE = 4  # supersampling for smooth edges
SMALLEST, LARGEST = 10.5, 21.5  # longest side of the object's upright bounding box in pixels; 10..22 after rounding
COLOUR_DISTANCE = 90.0  # between the object and the background's mean, Euclidean in RGB


def _polygon(corners: int, phase: float = 0.0) -> np.ndarray:
    angles = phase + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], 1)  # (corners, 2)


def _star() -> np.ndarray:
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return _polygon(10) * radius[:, None]


def _cross() -> np.ndarray:
    a, points = 0.34, []
    for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1)):  # the three corners of each quadrant, clockwise
        arm = [(x * a, y), (x * a, y * a), (x, y * a)]
        points += arm if x * y > 0 else arm[::-1]
    return np.array(points, dtype=float)


def _arrow() -> np.ndarray:
    points = [(1, 0), (0.1, 0.8), (0.1, 0.28), (-1, 0.28), (-1, -0.28), (0.1, -0.28), (0.1, -0.8)]
    return np.array(points, dtype=float)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, y], 1) / 16


def _crescent() -> np.ndarray:
    """Outer arc of the unit circle, and back along the circle of the same radius whose centre is 0.6 away."""
    tip = np.arccos(0.3)  # where the circles meet: x = 0.3
    outer = np.linspace(tip, 2 * np.pi - tip, 40)
    inner = np.linspace(np.pi + tip, np.pi - tip, 40)
    back = np.stack([0.6 + np.cos(inner), np.sin(inner)], 1)
    return np.concatenate([np.stack([np.cos(outer), np.sin(outer)], 1), back])


# Outline in object coordinates, and the radius of a hole as a share of it (0: none).
OUTLINES: dict[str, tuple[np.ndarray, float]] = {
    "disc": (_polygon(64), 0.0),
    "square": (_polygon(4), 0.0),
    "triangle": (_polygon(3), 0.0),
    "star": (_star(), 0.0),
    "cross": (_cross(), 0.0),
    "ring": (_polygon(64), 0.55),
    "arrow": (_arrow(), 0.0),
    "heart": (_heart(), 0.0),
    "crescent": (_crescent(), 0.0),
    "hexagon": (_polygon(6), 0.0),
}
CLASSES = tuple(OUTLINES)


def _place(outline: np.ndarray, size: float, angle: float, centre: np.ndarray) -> np.ndarray:
    """Rotate, scale so that the upright bounding box's longest side is `size` pixels, centre that box: (points, 2)."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = outline @ turn.T
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) * (size / (high - low).max()) + centre


def _coverage(name: str, size: float, angle: float, centre: np.ndarray) -> Image.Image:
    """The share of each supersampled pixel that the shape covers, 0 or 255: an "L" image of SIDE * SCALE pixels."""
    outline, hole = OUTLINES[name]
    canvas = Image.new("L", (SIDE * SCALE, SIDE * SCALE))
    draw = ImageDraw.Draw(canvas)
    points = _place(outline, size, angle, centre)
    draw.polygon([tuple(p) for p in points * SCALE], fill=255)
    if hole:
        draw.polygon([tuple(p) for p in ((points - centre) * hole + centre) * SCALE], fill=0)
    return canvas


def _shrink(canvas: Image.Image) -> np.ndarray:
    """Mean over each SCALE x SCALE block: float (SIDE, SIDE), 0..1."""
    return np.asarray(canvas.reduce(SCALE), dtype=float) / 255


def _background(rng: np.random.Generator) -> np.ndarray:
    """A colour gradient with noise, crossing lines and fragments of random shapes: float (SIDE, SIDE, 3), 0..255."""
    corners = rng.uniform(0, 255, 3) + rng.uniform(-40, 40, (2, 2, 3))
    ramp = np.linspace(0, 1, SIDE)
    rows = corners[0][None] * (1 - ramp)[:, None, None] + corners[1][None] * ramp[:, None, None]  # (SIDE, 2, 3)
    picture = rows[:, :1] * (1 - ramp)[None, :, None] + rows[:, 1:] * ramp[None, :, None]  # (SIDE, SIDE, 3)
    for _ in range(rng.integers(2, 5)):
        canvas = Image.new("L", (SIDE * SCALE, SIDE * SCALE))
        ends = rng.uniform(0, SIDE * SCALE, 4)
        ImageDraw.Draw(canvas).line(tuple(ends), fill=255, width=int(rng.integers(2, 6)))
        picture = _paint(picture, _shrink(canvas), rng.uniform(0, 255, 3))
    for _ in range(rng.integers(3, 7)):
        picture = _paint(picture, _fragment(rng), rng.uniform(0, 255, 3))
    return picture + rng.normal(0, 8, picture.shape)


def _fragment(rng: np.random.Generator) -> np.ndarray:
    """A piece of a small shape of any class, cut by a straight line near its middle: coverage (SIDE, SIDE)."""
    centre = rng.uniform(2, SIDE - 2, 2)
    whole = _shrink(_coverage(str(rng.choice(CLASSES)), rng.uniform(5, 9), rng.uniform(0, 2 * np.pi), centre))
    direction = _polygon(1, rng.uniform(0, 2 * np.pi))[0]
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    return whole * ((x - centre[0]) * direction[0] + (y - centre[1]) * direction[1] > 0)


def _paint(picture: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return picture * (1 - coverage[..., None]) + colour * coverage[..., None]


def _draw(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image uint8 (3, SIDE, SIDE) and its mask bool (SIDE, SIDE): pixels at least half covered by the object."""
    picture = _background(rng)
    size = rng.uniform(SMALLEST, LARGEST)
    centre = rng.uniform(size / 2, SIDE - size / 2, 2)  # of the box: the place does not depend on the class
    coverage = _shrink(_coverage(name, size, rng.uniform(0, 2 * np.pi), centre))
    mean = picture.mean((0, 1))
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - mean) < COLOUR_DISTANCE:
        colour = rng.uniform(0, 255, 3)
    picture = _paint(picture, coverage, colour)
    return picture.round().clip(0, 255).astype(np.uint8).transpose(2, 0, 1), coverage >= 0.5


def draw_shapes(count: int, *, seed: int, progress: Callable = iter) -> ImageSet:
    """Draw `count` images, each class equally often (to within one), in an order that tells nothing.

    Args:
        count: number of images.
        seed: keys the order of the classes, and with an image's position everything else in it.
        progress: wraps the iteration, such as tqdm.

    Returns:
        Images uint8 (count, 3, 32, 32), labels int64, masks bool (count, 32, 32).
    """
    labels = np.random.default_rng(seed).permutation(np.arange(count) % len(CLASSES)).astype(np.int64)
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    masks = np.empty((count, SIDE, SIDE), bool)
    for i in progress(range(count)):
        images[i], masks[i] = _draw(CLASSES[labels[i]], np.random.default_rng([seed, i]))
    return ImageSet(images, labels, masks)
