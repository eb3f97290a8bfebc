"""Explaining many images: shard by shard, in this process or on a cluster, kept on disk as they are finished."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iic.errors import UserError
from iic.explainers.attributions import CHECKED, Attributions, Maps
from iic.explainers.context import Context
from iic.explainers.methods import explain
from iic.explainers.names import LRP_COMPOSITES, MEAN_MAP, RANDOM_WEIGHTS, SUPERPIXEL
from iic.explainers.segmentation import Segmenter
from iic.explainers.shards import SECONDS, UNFINISHED, is_finished, read_attributions, write_index, write_shard
from iic.explainers.twins import averaged, blurred, mean_map
from iic.files import write_whole
from iic.params import AttributionParams

TOGETHER = 32  # images whose masks share batches, or that go through a gradient method at once
ON_GPU = 256  # as many there, so that the calls that wait for it are few
Tick = Callable[[int], object]  # told how many images are done


@dataclass(frozen=True)
class Shard:
    """Some images of a run: what one worker is sent."""

    number: int
    images: np.ndarray  # uint8 (n, C, H, W)
    indices: np.ndarray  # int64 (n,)
    targets: np.ndarray  # int64 (n,)


def _silent(images: int) -> None:
    """Nobody watches."""


def explain_shard(
    method: str, context: Context, shard: Shard, tick: Tick = _silent, *, twin: bool = False
) -> tuple[Maps, float]:
    """The maps of one shard, with those of the logit if a `twin` is asked for, and the seconds they took."""
    start = time.perf_counter()
    parts = []
    by_layers = method.removesuffix(RANDOM_WEIGHTS) in LRP_COMPOSITES
    together = TOGETHER if context.forward.device == "cpu" else ON_GPU
    together = len(shard.images) if by_layers else together  # LRP parts its images itself
    for at in range(0, len(shard.images), together):
        some = slice(at, at + together)
        parts.append(explain(method, context, shard.images[some], shard.indices[some], shard.targets[some], twin=twin))
        tick(len(parts[-1].values))
    return _joined(parts), time.perf_counter() - start


def _joined(parts: list[Maps]) -> Maps:
    """Maps of several groups of images as one."""
    return Maps(
        np.concatenate([p.values for p in parts]),
        None if parts[0].errors is None else np.concatenate([p.errors for p in parts]),
        {name: np.concatenate([p.numbers[name] for p in parts]) for name in parts[0].numbers},
        None if parts[0].twin is None else _joined([p.twin for p in parts]),
    )


def work_key(made: dict, indices: np.ndarray, targets: np.ndarray) -> str:
    """What an unfinished folder is called by: the same for the same work only, however its precision was checked."""
    determining = {name: value for name, value in made.items() if name not in CHECKED}
    text = json.dumps(determining, sort_keys=True).encode()
    return hashlib.sha256(text + indices.tobytes() + targets.tobytes()).hexdigest()[:16]


def keep_shards(
    outputs: Sequence[tuple[Path, dict]],
    indices: np.ndarray,
    targets: np.ndarray,
    size: int,
    produce: Callable[[list[int], Tick], Iterator[tuple[int, Maps, float]]],
    tick: Tick = _silent,
) -> tuple[list[Attributions], float]:
    """Attributions as `produce` makes them shard by shard; what an interrupted run finished is not made again.

    Args:
        outputs: for the maps, and for their twins if there are any: a folder, in which unfinished work lies in a folder
            of its own, so that memory does not grow with the number of images; and what determines the result,
            JSON-ready, which is kept in the index.
        indices: int64 (n,), the images.
        targets: int64 (n,), the explained classes.
        size: images a shard.
        produce: given the numbers of missing shards, yields them with their maps and seconds, in any order.
        tick: called with each number of images that are done.

    Returns:
        the attributions of each output, on disk, and the seconds that making them took, on all workers together.

    Raises:
        UserError: another run of the same work took the folder away meanwhile.
    """
    works = [folder / f"{UNFINISHED}{work_key(made, indices, targets)}" for folder, made in outputs]
    rows = [slice(start, start + size) for start in range(0, len(indices), size)]
    todo = [n for n in range(len(rows)) if not all(is_finished(work, n) for work in works)]
    tick(len(indices) - sum(len(indices[rows[n]]) for n in todo))
    for n, maps, seconds in produce(todo, tick):
        for work, kept in zip(works, (maps, maps.twin)[: len(works)], strict=True):
            write_whole(work / f"{n:05d}{SECONDS}", lambda file, s=seconds: file.write(f"{s}".encode()))
            write_shard(work, n, indices[rows[n]], targets[rows[n]], kept)
    if gone := [work for work in works if not all(is_finished(work, n) for n in range(len(rows)))]:
        raise UserError(
            f"{gone[0]} was finished and moved by another run of the same command: wait for that run, then call this "
            "one again with --only-missing-outputs."
        )
    seconds = sum(float((works[0] / f"{n:05d}{SECONDS}").read_text()) for n in range(len(rows)))
    for work, (_, made) in zip(works, outputs, strict=True):
        write_index(work, len(rows), made)
    return [read_attributions(work) for work in works], seconds


def explain_images(
    method: str,
    context: Context,
    images: np.ndarray,
    indices: np.ndarray,
    targets: np.ndarray,
    folder: Path,
    *,
    made: dict,
    tick: Tick = _silent,
) -> tuple[Attributions, float]:
    """Explain the chosen images of a test set, in this process or on the cluster that the parameters name.

    Args:
        method: a name of `iic.explainers.names.DIRECT`.
        context: the network and how it is explained.
        images: uint8 (N, C, H, W), the test set.
        folder, made: of the output, see `keep_shards`; so are the others.

    Returns:
        the attributions, on disk, and the seconds that making them took, on all workers together.
    """
    (maps,), seconds = explain_outputs(method, context, images, indices, targets, [(folder, made)], tick=tick)
    return maps, seconds


def explain_outputs(
    method: str,
    context: Context,
    images: np.ndarray,
    indices: np.ndarray,
    targets: np.ndarray,
    outputs: Sequence[tuple[Path, dict]],
    *,
    tick: Tick = _silent,
) -> tuple[list[Attributions], float]:
    """`explain_images`, with the logit's maps from the same forwards where two outputs are given; see `keep_shards`."""
    size, scheduler, twin = context.params.shard_size, context.params.scheduler, len(outputs) > 1

    def produce(todo: list[int], tick: Tick) -> Iterator[tuple[int, Maps, float]]:
        shards = (_shard(n, images, indices, targets, slice(n * size, (n + 1) * size)) for n in todo)
        if scheduler is None:
            for shard in shards:
                yield shard.number, *explain_shard(method, context, shard, tick, twin=twin)
            return
        try:
            from iic.cluster import on_cluster
        except ImportError as error:
            raise UserError(
                "`scheduler` needs Dask: pip install -e '.[cluster]' in the project, or leave it out."
            ) from error
        for shard, (maps, seconds) in on_cluster(scheduler, method, context, shards, twin=twin):
            tick(len(shard.indices))
            yield shard.number, maps, seconds

    return keep_shards(outputs, indices, targets, size, produce, tick)


def _shard(number: int, images: np.ndarray, indices: np.ndarray, targets: np.ndarray, some: slice) -> Shard:
    return Shard(number, images[indices[some]], indices[some], targets[some])


def derive_images(
    method: str,
    maps: Attributions,
    images: np.ndarray,
    segmenter: Segmenter,
    params: AttributionParams,
    folder: Path,
    *,
    made: dict,
    tick: Tick = _silent,
) -> tuple[Attributions, float]:
    """Maps made from stored ones: `<source>_superpixel`, `_blurred` or `_mean_map`; arguments as `explain_images`."""
    mean = mean_map(maps.values) if method.endswith(MEAN_MAP) else None

    def twin(row: int) -> np.ndarray:
        if mean is not None:
            return mean
        if not method.endswith(SUPERPIXEL):
            return blurred(maps.values[row], params.blur)
        index = int(maps.indices[row])
        return averaged(maps.values[row], segmenter(images[index], index))

    def produce(todo: list[int], tick: Tick) -> Iterator[tuple[int, Maps, float]]:
        for n in todo:
            start = time.perf_counter()
            rows = range(n * params.shard_size, min((n + 1) * params.shard_size, len(maps.indices)))
            values = np.stack([twin(row) for row in rows])
            numbers = {"forwards": maps.extras["forwards"][rows.start : rows.stop]}
            tick(len(rows))
            yield n, Maps(values, None, numbers), time.perf_counter() - start

    (found,), seconds = keep_shards([(folder, made)], maps.indices, maps.targets, params.shard_size, produce, tick)
    return found, seconds
