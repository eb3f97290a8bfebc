import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from iic.errors import UserError
from iic.evaluation import road
from iic.evaluation.road import imputation_noise, linear_imputation, road_fill


def by_definition(image, keep):
    """The paper's system, one equation per removed pixel, normalised by the weights inside the image: (C, H, W)."""
    height, width = keep.shape
    unknown = {tuple(at): number for number, at in enumerate(np.argwhere(~keep))}
    matrix, right = scipy.sparse.lil_matrix((len(unknown),) * 2), np.zeros((len(unknown), len(image)))
    for (y, x), row in unknown.items():
        around = [
            (y + dy, x + dx, 1 / 6 if dy == 0 or dx == 0 else 1 / 12)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy, dx) != (0, 0) and 0 <= y + dy < height and 0 <= x + dx < width
        ]
        inside = sum(weight for *_, weight in around)
        matrix[row, row] = 1
        for ny, nx, weight in around:
            if keep[ny, nx]:
                right[row] += weight / inside * image[:, ny, nx]
            else:
                matrix[row, unknown[ny, nx]] = -weight / inside
    filled = image.astype(np.float64)
    for channel in range(len(image) if unknown else 0):
        filled[channel][~keep] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right[:, channel])
    return filled


def random_images(count, channels, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


@given(st.sampled_from([1, 3]), st.integers(1, 8), st.integers(1, 8), st.floats(0.02, 1), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_fill_is_the_papers(channels, height, width, share, seed):
    images = random_images(3, channels, height, width, seed)
    keep = np.random.default_rng([seed, 1]).random((3, height, width)) < share
    keep[:, seed % height, seed % width] = True
    filled = linear_imputation(images, keep)
    assert filled.dtype == np.float32
    for image, kept, ours in zip(images, keep, filled, strict=True):
        np.testing.assert_array_equal(ours[:, kept], image[:, kept])
        np.testing.assert_allclose(ours, by_definition(image, kept), atol=1e-3)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_the_hardest_masks_converge_too(channels, size):
    """One pixel in each of two opposite corners, a compact blob, one row: long ways to the nearest kept pixel."""
    images = random_images(3, channels, size, size)
    keep = np.zeros((3, size, size), bool)
    keep[0, 0, 0] = keep[0, -1, -1] = True
    keep[1, 4:9, 5:12] = True
    keep[2, 0] = True
    for image, kept, ours in zip(images, keep, linear_imputation(images, keep), strict=True):
        np.testing.assert_allclose(ours, by_definition(image, kept), atol=1e-3)


def test_a_ramp_comes_back_where_the_border_is_kept():
    """A linear ramp is the mean of its neighbours everywhere but at the border."""
    y, x = np.mgrid[:20, :24]
    ramp = (3 * y + 5 * x + 7).astype(np.uint8)[None, None]
    keep = np.random.default_rng(0).random((1, 20, 24)) < 0.1
    keep[:, [0, -1]] = keep[:, :, [0, -1]] = True
    np.testing.assert_allclose(linear_imputation(ramp, keep), ramp, atol=1e-3)


def test_one_kept_pixel_paints_everything():
    images = random_images(2, 3, 16, 16)
    keep = np.zeros((2, 16, 16), bool)
    keep[0, 3, 4] = keep[1, 15, 0] = True
    filled = linear_imputation(images, keep)
    np.testing.assert_allclose(filled[0], np.broadcast_to(images[0, :, 3, 4, None, None], (3, 16, 16)), atol=1e-3)
    np.testing.assert_allclose(filled[1], np.broadcast_to(images[1, :, 15, 0, None, None], (3, 16, 16)), atol=1e-3)


def test_where_nothing_is_kept_nothing_is_told():
    images = random_images(3, 3, 8, 8)
    keep = np.random.default_rng(0).random((3, 8, 8)) < 0.3
    keep[1] = False
    filled = linear_imputation(images, keep)
    assert (filled[1] == 127.5).all()
    np.testing.assert_allclose(filled[2], by_definition(images[2], keep[2]), atol=1e-3)


def test_an_image_knows_nothing_of_the_others():
    images, indices = random_images(70, 3, 32, 32), np.arange(100, 170)
    keep = np.random.default_rng(1).random((70, 32, 32)) < np.linspace(0.01, 0.9, 70)[:, None, None]
    together = road_fill(images, keep, indices, 3)
    np.testing.assert_array_equal(together, road_fill(images, keep, indices, 3))
    for row in (0, 1, 40, 69):
        one = slice(row, row + 1)
        np.testing.assert_allclose(together[one], road_fill(images[one], keep[one], indices[one], 3), atol=1e-3)


def test_noise_is_gaussian_keyed_and_on_removed_pixels_alone():
    images, indices = random_images(40, 3, 16, 16), np.arange(40)
    keep = np.random.default_rng(1).random((40, 16, 16)) < 0.3
    added = road_fill(images, keep, indices, 0) - linear_imputation(images, keep)
    taken = np.broadcast_to(~keep[:, None], images.shape)
    assert (added[~taken] == 0).all()
    noise = imputation_noise(indices, (3, 16, 16), 0)
    np.testing.assert_allclose(added[taken], noise[taken], atol=1e-4)
    error = 2.55 / np.sqrt(noise.size)
    assert abs(noise.mean()) < 4 * error and abs(noise.std() - 2.55) < 4 * error / np.sqrt(2)
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 4 / np.sqrt(noise[:, 0].size)
    np.testing.assert_array_equal(noise[[9]], imputation_noise(np.array([9]), (3, 16, 16), 0))
    other_seed = imputation_noise(indices, (3, 16, 16), 1)
    assert abs(np.corrcoef(noise.ravel(), other_seed.ravel())[0, 1]) < 4 / np.sqrt(noise.size)


def test_what_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr(road, "MAX_ITERATIONS", 16)
    keep = np.zeros((2, 20, 20), bool)
    keep[:, 0] = True
    keep[1] = True
    with pytest.raises(UserError, match="fill of 1 images did not converge"):
        linear_imputation(random_images(2, 1, 20, 20), keep)
