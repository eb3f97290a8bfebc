"""Attributions on disk: a folder of .npy shards with a JSON index, written shard by shard, read memory-mapped.

    00000.values.npy   float32 (n, H, W)
    00000.errors.npy   float32 (n, H, W), for methods that sample
    00000.numbers.npy  a record per image: index, target, and the method's numbers; written last: the shard is finished
    index.json         shapes, sizes, checksums, what made it; written when all shards are there

The same work gives the same bytes, whatever was interrupted on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from iic.errors import UserError
from iic.explainers.attributions import Attributions, Maps
from iic.files import sha256, write_whole

INDEX, SECONDS, UNFINISHED = "index.json", ".seconds", ".unfinished-"
FORMAT, SHARD_SIZE = 1, 100
PROBLEMS = (OSError, ValueError, KeyError, EOFError)  # of a folder that is not whole


class MappedShards:
    """Arrays of equal shards as one of shape (N, H, W) that is read from disk piece by piece.

    A file is open only while rows of it are read: a study has thousands of shards, and a process may usually keep
    1,024 files open. So the files have to stay where they are.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Look at every file once.

        Args:
            files: .npy files, each (n, H, W).

        Raises:
            OSError, ValueError, EOFError: a file that is missing, cut off, or of another kind than the first.
        """
        self._files = [file.absolute() for file in files]
        kinds = [_kind(file) for file in self._files]
        if len({(shape[1:], dtype) for shape, dtype in kinds}) > 1:
            raise ValueError("the shards differ in shape or type")
        (_, *rest), self.dtype = kinds[0]
        self._starts = np.cumsum([0, *(shape[0] for shape, _ in kinds)])
        self.shape = (int(self._starts[-1]), *rest)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Map by map; each file is opened once."""
        for start, stop in pairwise(self._starts):
            yield from self[start:stop]

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
            out[chosen] = self._open(number)[positions[chosen] - self._starts[number]]
        return out

    def _open(self, number: int) -> np.ndarray:
        """One shard, for as long as it is looked at; UserError if its file is no longer what it was."""
        try:
            return _mapped(self._files[number])
        except PROBLEMS as error:
            raise _unreadable(self._files[number].parent, error) from error

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def _mapped(file: Path) -> np.ndarray:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _kind(file: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a whole file: one that is cut off cannot be mapped."""
    array = _mapped(file)
    return array.shape, array.dtype


def _unreadable(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"The attributions in {folder} cannot be read ({type(error).__name__}: {error}): "
        "delete the folder and run the attribution pipeline again."
    )


def _path(folder: Path, shard: int, what: str) -> Path:
    return folder / f"{shard:05d}.{what}.npy"


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is one that work is still going on in, or was until it was saved."""
    return folder.name.startswith(UNFINISHED)


def unfinished(folder: Path) -> list[Path]:
    """All folders of unfinished work below a folder: a run of the same work goes on with them, no other ever does."""
    return sorted(folder.rglob(f"{UNFINISHED}*"))


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
        values = MappedShards([_path(folder, n, "values") for n in shards])
        errors = MappedShards([_path(folder, n, "errors") for n in shards]) if index["errors"] else None
        if len(values) != len(numbers) or (errors is not None and len(errors) != len(numbers)):
            raise ValueError("not as many maps or errors as records")
    except PROBLEMS as error:
        raise _unreadable(folder, error) from error
    extras = {name: numbers[name].copy() for name in numbers.dtype.names if name not in ("index", "target")}
    return Attributions(
        values, numbers["index"].copy(), numbers["target"].copy(), extras, errors, index["made"], folder
    )
