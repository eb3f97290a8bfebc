"""Attributions on disk: a folder of .npy shards with a JSON index, written shard by shard, read memory-mapped.

    00000.values.npy   float32 (n, H, W)
    00000.errors.npy   float32 (n, H, W), for methods that sample
    00000.numbers.npy  a record per image: index, target, and the method's numbers; written last: the shard is finished
    index.json         shapes, sizes, checksums, what made it; written when all shards are there

The same work gives the same bytes, whatever was interrupted on the way.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from iic.errors import UserError
from iic.explainers.attributions import Attributions, Maps
from iic.files import sha256, write_whole

INDEX, SECONDS, UNFINISHED = "index.json", ".seconds", ".unfinished-"
FORMAT, SHARD_SIZE = 1, 100


class MappedShards:
    """Arrays of equal shards as one of shape (N, H, W) that is read from disk piece by piece."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.shape = (int(self._starts[-1]), *parts[0].shape[1:])
        self.dtype, self.ndim = parts[0].dtype, parts[0].ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key) -> np.ndarray:
        rest = ()
        if isinstance(key, tuple):
            key, rest = key[0], key[1:]
        if isinstance(key, (int, np.integer)):
            return self._rows(np.array([key]))[0][rest] if rest else self._rows(np.array([key]))[0]
        rows = self._rows(np.arange(len(self))[key])
        return rows[(slice(None), *rest)] if rest else rows

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        positions = np.where(positions < 0, positions + len(self), positions)
        if len(positions) and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"position {positions.max()} is beyond the {len(self)} maps")
        out = np.empty((len(positions), *self.shape[1:]), self.dtype)
        shard = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(shard):
            chosen = shard == number
            out[chosen] = self._parts[number][positions[chosen] - self._starts[number]]
        return out

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def _path(folder: Path, shard: int, what: str) -> Path:
    return folder / f"{shard:05d}.{what}.npy"


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is one that work is still going on in, or was until it was saved."""
    return folder.name.startswith(UNFINISHED)


def is_finished(folder: Path, shard: int) -> bool:
    """Whether a shard is there whole."""
    return _path(folder, shard, "numbers").exists()


def write_shard(folder: Path, shard: int, indices: np.ndarray, targets: np.ndarray, maps: Maps) -> None:
    """Write one shard whole or not at all."""
    for what, array in (("values", maps.values), ("errors", maps.errors)):
        if array is not None:
            _save(_path(folder, shard, what), np.ascontiguousarray(array, np.float32))
    columns = {"index": indices, "target": targets, **maps.numbers}
    types = [(name, "<i8" if name in ("index", "target") else "<f8") for name in columns]
    records = np.zeros(len(indices), types)
    for name, column in columns.items():
        records[name] = column
    _save(_path(folder, shard, "numbers"), records)


def _save(path: Path, array: np.ndarray) -> None:
    write_whole(path, lambda file: np.save(file, array, allow_pickle=False))


def write_index(folder: Path, shards: int, made: dict) -> None:
    """Write the index of a folder whose shards are all finished."""
    files = sorted(folder.glob("*.npy"))
    first = np.load(_path(folder, 0, "values"), mmap_mode="r")
    index = {
        "format": FORMAT,
        "shards": shards,
        "shape_hw": list(first.shape[1:]),
        "errors": _path(folder, 0, "errors").exists(),
        "made": made,
        "sha256": {path.name: sha256(path) for path in files},
    }
    write_whole(folder / INDEX, lambda file: file.write(json.dumps(index, indent=1, allow_nan=False).encode()))


def write_attributions(folder: Path, data: Attributions, shard_size: int = SHARD_SIZE) -> None:
    """Write attributions that are in memory, or in another folder, as shards with an index."""
    starts = range(0, len(data.indices), shard_size)
    for number, start in enumerate(starts):
        part = slice(start, start + shard_size)
        numbers = {name: column[part] for name, column in data.extras.items()}
        errors = None if data.errors is None else data.errors[part]
        maps = Maps(data.values[part], errors, numbers)
        write_shard(folder, number, data.indices[part], data.targets[part], maps)
    write_index(folder, len(starts), data.made)


def read_attributions(folder: Path) -> Attributions:
    """The attributions in a folder with an index; maps stay on disk until they are looked at.

    Raises:
        UserError: a folder that is not whole.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        shards = range(index["shards"])
        numbers = np.concatenate([np.load(_path(folder, n, "numbers"), allow_pickle=False) for n in shards])
        values = MappedShards(_mapped(folder, shards, "values"))
        errors = MappedShards(_mapped(folder, shards, "errors")) if index["errors"] else None
        if len(values) != len(numbers):
            raise ValueError(f"{len(values)} maps, {len(numbers)} records")
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(
            f"The attributions in {folder} cannot be read ({type(error).__name__}: {error}): "
            "delete the folder and run the attribution pipeline again."
        ) from error
    extras = {name: numbers[name].copy() for name in numbers.dtype.names if name not in ("index", "target")}
    return Attributions(
        values, numbers["index"].copy(), numbers["target"].copy(), extras, errors, index["made"], folder
    )


def _mapped(folder: Path, shards: range, what: str) -> list[np.ndarray]:
    return [np.load(_path(folder, n, what), mmap_mode="r", allow_pickle=False) for n in shards]
