"""The custom Kedro datasets. All save whole files or nothing, and loading never executes code from the file."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from kedro.io import AbstractVersionedDataset, Version
from kedro_datasets.json import JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.pandas import CSVDataset
from kedro_datasets.text import TextDataset

from iic.errors import UserError
from iic.files import PARTIAL, write_whole


class WholeJSONDataset(JSONDataset):
    """kedro-datasets' JSONDataset, saved whole or not at all; floats keep all digits, NaN is refused."""

    def save(self, data: Any) -> None:
        text = json.dumps(data, indent=2, allow_nan=False)
        write_whole(Path(self._get_save_path()), lambda file: file.write(text.encode()))
        self._invalidate_cache()


class WholeTextDataset(TextDataset):
    """kedro-datasets' TextDataset, saved whole or not at all."""

    def save(self, data: str) -> None:
        write_whole(Path(self._get_save_path()), lambda file: file.write(data.encode()))
        self._invalidate_cache()


class WholeCSVDataset(CSVDataset):
    """kedro-datasets' CSVDataset, saved whole or not at all."""

    def save(self, data: Any) -> None:
        text = data.to_csv(**self._save_args)
        write_whole(Path(self._get_save_path()), lambda file: file.write(text.encode()))
        self._invalidate_cache()


class WholeFigureDataset(MatplotlibDataset):
    """kedro-datasets' MatplotlibDataset for one figure, saved as PNG whole or not at all, and closed."""

    def save(self, data: Any) -> None:
        import matplotlib.pyplot as plt

        buffer = io.BytesIO()
        data.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        plt.close(data)
        write_whole(Path(self._get_save_path()), lambda file: file.write(buffer.getvalue()))
        self._invalidate_cache()


class _Local(AbstractVersionedDataset):
    """A local, versioned file or folder."""

    def __init__(
        self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata

    def _exists(self) -> bool:
        return Path(self._get_load_path()).exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "version": self._version}


class _File(_Local):
    """A binary file; subclasses say how it is written and read."""

    def save(self, data: Any) -> None:
        write_whole(Path(self._get_save_path()), lambda file: self._write(data, file))

    def load(self) -> Any:
        path = Path(self._get_load_path())
        try:
            return self._read(path)
        except (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} cannot be read ({type(error).__name__}: {error}): "
                "delete its folder and run the pipeline again."
            ) from error

    @abstractmethod
    def _write(self, data: Any, file: BinaryIO) -> None:
        """Write the data into the open file."""

    @abstractmethod
    def _read(self, path: Path) -> Any:
        """Read the data back, executing nothing that the file holds."""


class ImageSetDataset(_File):
    """An `iic.data.images.ImageSet` as an .npz of plain arrays."""

    def _write(self, data: Any, file: BinaryIO) -> None:
        masks = {} if data.masks is None else {"masks": data.masks}
        np.savez(file, images=data.images, labels=data.labels, **masks)

    def _read(self, path: Path) -> Any:
        from iic.data.images import ImageSet

        with np.load(path, allow_pickle=False) as arrays:
            return ImageSet(arrays["images"], arrays["labels"], arrays.get("masks", None))


class OutcomesDataset(_File):
    """An `iic.evaluation.outcomes.Outcomes` as an .npz of plain arrays and text."""

    def _write(self, data: Any, file: BinaryIO) -> None:
        text = {"cells": json.dumps(data.cells), "made": json.dumps(data.made)}
        arrays = {n: getattr(data, n) for n in ("indices", "labels", "targets", "predicted", "probability")}
        np.savez_compressed(file, **{name: np.array(value) for name, value in text.items()}, **arrays)

    def _read(self, path: Path) -> Any:
        from iic.evaluation.outcomes import Cell, Outcomes

        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        cells, made = (json.loads(str(found.pop(name))) for name in ("cells", "made"))
        return Outcomes(cells=tuple(Cell(*cell) for cell in cells), made=made, **found)


class AttributionsDataset(_Local):
    """An `iic.explainers.attributions.Attributions` as a folder of .npy shards (`iic.explainers.shards`)."""

    def save(self, data: Any) -> None:
        """Move the folder that the maps were made in, or write one; either way it appears whole."""
        from iic.explainers.shards import SECONDS, is_unfinished, write_attributions

        target = Path(self._get_save_path())
        target.parent.mkdir(parents=True, exist_ok=True)
        if data.folder is not None and is_unfinished(data.folder):
            data.folder.rename(target)
            for note in target.glob(f"*{SECONDS}"):
                note.unlink()
            return
        temporary = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
        try:
            write_attributions(temporary, data)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def load(self) -> Any:
        from iic.explainers.shards import read_attributions

        return read_attributions(Path(self._get_load_path()))


def _read_tensors(path: Path) -> dict[str, Any]:
    """A saved dictionary of tensors; raises ValueError for a file that holds anything else, which is never executed."""
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"not plain tensors: {str(error).splitlines()[0]}") from error


class NetworkDataset(_File):
    """A network as its state dict, read with `weights_only`.

    `structure`, set by a hook, makes the module that a user's own state belongs to; None is `build_network`'s, whose
    widths follow from the weights.
    """

    structure: Callable[[], Any] | None = None

    def _write(self, data: Any, file: BinaryIO) -> None:
        import torch

        torch.save({name: tensor.contiguous() for name, tensor in data.state_dict().items()}, file)

    def _read(self, path: Path) -> Any:
        from iic.classifiers.networks import network_from_state

        state = _read_tensors(path)
        if self.structure is None:
            return network_from_state(state)
        model = self.structure()
        model.load_state_dict(state)
        return model


class JudgesDataset(_File):
    """The state dicts of several networks by name, read with `weights_only`."""

    def _write(self, data: Any, file: BinaryIO) -> None:
        import torch

        states = {name: {key: tensor.contiguous() for key, tensor in state.items()} for name, state in data.items()}
        torch.save(states, file)

    def _read(self, path: Path) -> Any:
        return _read_tensors(path)


class PosteriorDataset(_File):
    """A posterior of `iic.bayes.posteriors` as a dictionary of tensors, read with `weights_only`."""

    def _write(self, data: Any, file: BinaryIO) -> None:
        import torch

        torch.save(data.state_dict(), file)

    def _read(self, path: Path) -> Any:
        from iic.bayes.posteriors import from_state_dict

        return from_state_dict(_read_tensors(path))


class PosteriorsDataset(_File):
    """Several posteriors by name, as dictionaries of tensors, read with `weights_only`."""

    def _write(self, data: Any, file: BinaryIO) -> None:
        import torch

        torch.save({name: posterior.state_dict() for name, posterior in data.items()}, file)

    def _read(self, path: Path) -> Any:
        from iic.bayes.posteriors import from_state_dict

        return {name: from_state_dict(state) for name, state in _read_tensors(path).items()}


class ArraysDataset(_File):
    """Plain arrays by name, as an .npz."""

    def _write(self, data: Any, file: BinaryIO) -> None:
        np.savez_compressed(file, **data)

    def _read(self, path: Path) -> Any:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
