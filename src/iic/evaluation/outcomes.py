"""What the judges say of degraded images: every cell of the matrix, image by image.

A cell is one way to degrade: keep or remove the top share of a map's pixels, with one fill and noise seed, shown to one
judge. The images of a group are made once and shown to every judge; nothing is kept but the judges' answers, so that
memory does not grow with the number of images but by a few bytes each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from iic.classifiers.inference import predict_logits
from iic.classifiers.precision import keep_freed_memory
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.degradation import pixel_ranks
from iic.evaluation.fills import SEEDED, Fills
from iic.evaluation.road import imputation_noise, linear_imputation
from iic.explainers.attributions import Attributions
from iic.explainers.perturbation import suitable_batch
from iic.params import EvaluationParams

DIRECTIONS = ("keep", "remove")
EXPLAINED, ADAPTED = "explained", "adapted"  # the judges: the network itself, and its copies that know masked images
JUDGES = (EXPLAINED, ADAPTED)
HEADLINE_FILLS = ("salt_and_pepper", "mean_colour")
GROUP = 256  # images that are degraded together

Judges = Mapping[tuple[str, str], nn.Module]  # (judge, fill) -> frozen network


class Cell(NamedTuple):
    """One way to degrade and judge."""

    judge: str
    direction: str
    fill: str
    share: float
    seed: int


def cells(fills: Iterable[str], shares: Iterable[float], seeds: Iterable[int], judges: Iterable[str]) -> list[Cell]:
    """Every combination, both directions; fills that draw nothing get the first seed only."""
    shares, seeds, judges = tuple(shares), tuple(seeds), tuple(judges)
    return [
        Cell(judge, direction, fill, share, seed)
        for fill in fills
        for seed in (seeds if fill in SEEDED else seeds[:1])
        for direction, share, judge in itertools.product(DIRECTIONS, shares, judges)
    ]


def wanted_fills(params: EvaluationParams) -> tuple[str, ...]:
    """The fills of headline and matrix."""
    return tuple(dict.fromkeys((*HEADLINE_FILLS, *params.fills)))


def headline_cells(params: EvaluationParams) -> list[Cell]:
    """Keep and remove the headline's share, with both of its fills and all noise seeds."""
    return cells(HEADLINE_FILLS, [params.keep], params.noise_seeds, JUDGES)


def matrix_cells(params: EvaluationParams) -> list[Cell]:
    """Every share and fill."""
    return cells(params.fills, sorted(params.shares), params.matrix_seeds, JUDGES)


@dataclass(frozen=True)
class Outcomes:
    """The judges' answers for one method's maps.

    Attributes:
        cells: K ways to degrade.
        indices: int64 (N,), positions in the test set.
        labels: int64 (N,), the true classes.
        targets: int64 (N,), the explained classes: what the explained network names for the untouched images.
        predicted: int16 (K, N), the class that the judge names.
        probability: float32 (K, N), the judge's probability of the explained class.
        made: what it was made from; JSON-ready.
    """

    cells: tuple[Cell, ...]
    indices: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    made: dict = field(default_factory=dict)

    def rows(self, **fixed: object) -> np.ndarray:
        """Positions of the cells with these values, such as judge="explained", share=0.2."""
        return np.array(
            [k for k, cell in enumerate(self.cells) if all(getattr(cell, n) == v for n, v in fixed.items())], int
        )

    def right(self, rows: np.ndarray) -> np.ndarray:
        """bool (len(rows), N): whether the judge names the true class."""
        return self.predicted[rows] == self.labels

    def same(self, rows: np.ndarray) -> np.ndarray:
        """bool (len(rows), N): whether it names the class that was explained."""
        return self.predicted[rows] == self.targets


def merged(parts: Sequence[Outcomes]) -> Outcomes:
    """Several draws of one method as one: equal cells stand for a draw each, and are averaged like noise seeds."""
    first = parts[0]
    return replace(
        first,
        cells=tuple(cell for part in parts for cell in part.cells),
        predicted=np.concatenate([part.predicted for part in parts]),
        probability=np.concatenate([part.probability for part in parts]),
    )


def judge_maps(
    maps: Attributions,
    judges: Judges,
    test: ImageSet,
    fills: Fills,
    wanted: list[Cell],
    *,
    seed: int,
    count: int | None = None,
    made: dict | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Outcomes:
    """Show every judge the degraded images of one method.

    Args:
        maps: of some test images.
        judges: a frozen network for each judge and fill that `wanted` names.
        test: the test set the maps are of.
        fills: see there.
        wanted: the cells.
        seed: keys how ties of a map break.
        count: the first so many explained images; None takes all.
        made: what to write into the result.
        progress: wraps the groups of images, such as tqdm.

    Raises:
        UserError: maps of images beyond the test set; a judge whose output is not finite.
    """
    if maps.indices.max() >= len(test):
        raise UserError("The attributions are of images beyond the test set: run the attribution pipeline again.")
    keep_freed_memory()
    indices, targets = maps.indices[:count], maps.targets[:count]
    predicted = np.empty((len(wanted), len(indices)), np.int16)
    probability = np.empty((len(wanted), len(indices)), np.float32)
    ways: dict[tuple, list[int]] = {}  # what one picture is made by -> the cells that are shown it
    for k, cell in enumerate(wanted):
        ways.setdefault(cell[1:], []).append(k)
    devices = {name: _device_of(judges[name]) for name in {(cell.judge, cell.fill) for cell in wanted}}
    shape = test.images.shape[1:]
    batches = {name: suitable_batch(judges[name], device.type, shape) for name, device in devices.items()}
    for start in progress(range(0, len(indices), GROUP)):
        some = slice(start, start + GROUP)
        images = test.images[indices[some]]
        ranks = pixel_ranks(np.asarray(maps.values[some.start : min(some.stop, len(indices))]), indices[some], seed)
        answers: dict[int, torch.Tensor] = {}  # cell -> logits (n, classes)
        for way, pixels in _degraded(images, ranks, indices[some], fills, list(ways)):
            for k in ways[way]:
                name = wanted[k].judge, wanted[k].fill
                answers[k] = predict_logits(judges[name], pixels.to(devices[name]), batches[name])
        # of all cells at once: what is done for each would cost a small network as much as some of its layers
        logits = torch.stack([answers[k] for k in range(len(wanted))]).cpu()  # (K, n, classes)
        for cell, finite in zip(wanted, logits.isfinite().flatten(1).all(1).tolist(), strict=True):
            if not finite:
                raise UserError(f"The {cell.judge} judge's output is not finite for {cell.fill}: train it again.")
        predicted[:, some] = logits.argmax(2)
        chosen = torch.from_numpy(targets[some])[None, :, None].expand(len(wanted), -1, 1)
        probability[:, some] = logits.softmax(2).gather(2, chosen)[..., 0]
    return Outcomes(tuple(wanted), indices, test.labels[indices], targets, predicted, probability, made or {})


def judge_draws(
    draws: Sequence[Attributions], judges: Judges, test: ImageSet, fills: Fills, wanted: list[Cell], **options: Any
) -> Outcomes:
    """`judge_maps` of each draw of a method's maps, merged; arguments and errors are those of `judge_maps`."""
    shared = zip(draws, cells_by_draw(len(draws), wanted), strict=True)
    return merged([judge_maps(maps, judges, test, fills, some, **options) for maps, some in shared])


def cells_by_draw(draws: int, wanted: Sequence[Cell]) -> list[list[Cell]]:
    """Which of the cells each draw of a method's maps is shown in.

    Draws and noise seeds are paired, the first with the first, and so on around: five draws meet five seeds in five
    pairs, which average over the luck of both at the cost of one. Fills without noise meet every draw.
    """
    seeds = list(dict.fromkeys(cell.seed for cell in wanted if cell.fill in SEEDED)) or [0]
    pairs = [(k % draws, seeds[k % len(seeds)]) for k in range(max(draws, len(seeds)))]
    return [
        [cell for cell in wanted if cell.fill not in SEEDED or (number, cell.seed) in pairs] for number in range(draws)
    ]


def _device_of(model: nn.Module) -> torch.device:
    """Where a network's weights lie; 8-bit ones are packed for the CPU and are no parameters."""
    return next((t.device for t in itertools.chain(model.parameters(), model.buffers())), torch.device("cpu"))


def _degraded(
    images: np.ndarray, ranks: np.ndarray, indices: np.ndarray, fills: Fills, ways: list[tuple]
) -> Iterator[tuple[tuple, torch.Tensor]]:
    """Each (direction, fill, share, seed) and its images float32 (n, C, H, W), in the layout networks want.

    A fill's picture is made once for all shares; ROAD's systems are solved once for all seeds.
    """
    size = ranks[0].size
    shown = torch.from_numpy(images).to(torch.float32, memory_format=torch.channels_last)
    pictures: dict[tuple[str, int], torch.Tensor] = {}  # of ROAD the noise
    imputed: tuple[tuple, torch.Tensor] | None = None
    for way in sorted(ways, key=lambda w: (w[1], w[0], w[2], w[3])):
        direction, fill, share, seed = way
        top = ranks < round(share * size)
        keep = top if direction == "keep" else ~top
        if (fill, seed) not in pictures:
            road = fill == "road"
            made = (
                imputation_noise(indices, images.shape[1:], seed)
                if road
                else fills.picture(fill, images, indices, seed)
            )
            pictures[fill, seed] = _as_network_likes(np.asarray(made, np.float32))
        picture = pictures[fill, seed]
        if fill == "road":
            if imputed is None or imputed[0] != (direction, share):
                imputed = ((direction, share), _as_network_likes(linear_imputation(images, keep)))
            picture = imputed[1] + picture
        yield way, torch.where(torch.from_numpy(keep)[:, None], shown, picture)


def _as_network_likes(pixels: np.ndarray) -> torch.Tensor:
    """In channels_last layout, if it is whole images."""
    tensor = torch.from_numpy(pixels)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
