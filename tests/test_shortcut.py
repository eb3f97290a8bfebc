import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from test_judges import fit, stripes
from torch import nn

from iic.classifiers.inference import freeze
from iic.classifiers.networks import Normalize
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.shortcut import plant, points_at, shortcut_taken, warned, watermark


def network():
    """Sees small patterns anywhere in the image."""
    first = [Normalize([128.0], [64.0]), nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 24, 2), nn.BatchNorm2d(24)]
    return nn.Sequential(*first, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(24, 4))


@pytest.fixture(scope="module")
def planted():
    return plant(stripes(800, 0, 16, 50), stripes(400, 1, 16, 50), 1, share=0.9, seed=0)


@given(st.integers(20, 32), st.integers(20, 32), st.integers(1, 6), st.floats(0, 1), st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_a_watermark_is_a_checkerboard_in_a_corner_of_some_images_of_one_class(height, width, size, share, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 255, (40, channels, height, width), dtype=np.uint8)
    before, labels = images.copy(), rng.integers(0, 3, 40)
    marked, patch = watermark(images, labels, 2, share, 5, size)
    np.testing.assert_array_equal(images, before)
    changed = patch.any((1, 2))
    assert changed.sum() == round(share * (labels == 2).sum()) and (labels[changed] == 2).all()
    np.testing.assert_array_equal((marked != images).all(1), patch)
    np.testing.assert_array_equal((marked != images).any(1), patch)
    board = np.indices((size, size)).sum(0) % 2 == 0
    for image, where in zip(marked[changed], patch[changed], strict=True):
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        assert len(rows) == len(columns) == size and where.sum() == size**2
        assert rows[0] == 2 or rows[-1] == height - 3
        assert columns[0] == 2 or columns[-1] == width - 3
        for channel in image:
            np.testing.assert_array_equal(channel[where].reshape(size, size), np.where(board, 255, 0))


def test_every_corner_is_as_likely():
    data = stripes(2000, 0)
    _, patch = watermark(data.images, data.labels, 0, 1.0, 0)
    marked = patch[patch.any((1, 2))]
    corners = [marked[:, y, x].mean() for y in (2, 9) for x in (2, 9)]
    assert sum(corners) == 1 and np.abs(np.array(corners) - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / len(marked))


def test_all_test_images_are_marked_and_stay_what_they_were_otherwise(planted):
    test = stripes(400, 1, 16, 50)
    assert (planted.patch.sum((1, 2)) == 16).all()
    np.testing.assert_array_equal(planted.clean.images, test.images)
    np.testing.assert_array_equal(planted.marked.labels, test.labels)
    inside = planted.patch[:, None]
    np.testing.assert_array_equal(planted.marked.images[~inside], test.images[~inside])
    assert set(planted.marked.images[inside]) == {0, 255}
    again, other = (plant(planted.train, test, 1, share=0.9, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.marked.images, planted.marked.images)
    assert (other.marked.images != planted.marked.images).any()


def test_objects_keep_their_masks():
    images = np.zeros((6, 3, 20, 20), np.uint8)
    data = ImageSet(images, np.arange(6), np.random.default_rng(0).random((6, 20, 20)) < 0.5)
    made = plant(data, data, 3, share=1.0, seed=0)
    for part in (made.train, made.marked):
        np.testing.assert_array_equal(part.masks, data.masks)


def test_only_a_network_that_was_trained_with_the_watermark_goes_by_it(planted):
    with_it = shortcut_taken(freeze(fit(planted.train, 10, network)), planted)
    without = shortcut_taken(freeze(fit(stripes(800, 0, 16, 50), 10, network)), planted)
    assert with_it["taken"] and with_it["marked"]["share"] > 0.8 and with_it["clean"]["share"] < 0.2
    assert not without["taken"] and without["marked"]["share"] < 0.2
    assert with_it["n_images"] == (planted.clean.labels != 1).sum()


def test_a_map_that_is_the_patch_is_perfect(planted):
    maps = planted.patch.astype(np.float32)
    found = points_at(maps, planted.patch)
    assert (found["mass"] == 1).all() and (found["auroc"] == 1).all() and (found["lift"] == 16).all()
    shown = warned(maps, planted.patch, np.arange(400), 0)
    assert shown["share"] == 1 and 0.98 < shown["interval"][0] < 1
    assert warned(-maps, planted.patch, np.arange(400), 0)["share"] == 0
    away = points_at(1 - 2 * maps, planted.patch)
    assert all((away[name] == 0).all() for name in ("mass", "lift", "auroc"))


def test_a_map_that_knows_nothing_has_the_patchs_share(planted):
    flat = points_at(np.ones((400, 16, 16)), planted.patch)
    np.testing.assert_allclose(flat["mass"], 1 / 16)
    np.testing.assert_allclose(flat["lift"], 1)
    np.testing.assert_allclose(flat["auroc"], 0.5)
    random = np.random.default_rng(0).random((400, 16, 16))
    assert abs(points_at(random, planted.patch)["lift"].mean() - 1) < 0.05
    assert warned(random, planted.patch, np.arange(400), 0)["share"] == 0  # 7 in a million expected of each image


@given(st.integers(0, 10**6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_area_under_the_curve_is_scikit_learns_also_with_ties(seed, levels):
    rng = np.random.default_rng(seed)
    maps = rng.integers(-levels, levels + 1, (3, 6, 7)).astype(np.float32)
    patch = rng.random((3, 6, 7)) < 0.3
    patch[:, 0, 0], patch[:, 0, 1] = True, False
    expected = [roc_auc_score(p.ravel(), m.ravel()) for p, m in zip(patch, maps, strict=True)]
    np.testing.assert_allclose(points_at(maps, patch)["auroc"], expected)


@pytest.mark.parametrize(("overlap", "share"), [(8, 1.0), (7, 0.0)])
def test_half_of_the_patch_is_a_warning_and_less_is_none(overlap, share):
    patch = np.zeros((5, 10, 10), bool)
    patch[:, 2:6, 2:6] = True
    maps = np.zeros((5, 10, 10))
    maps[:, 6:, 6:] = np.arange(17, 1, -1).reshape(4, 4)  # 16 pixels outside, of which `overlap` give way
    for row in maps:
        row.flat[np.flatnonzero(patch[0])[:overlap]] = 20
    assert warned(maps, patch, np.arange(5), 0)["share"] == share


def test_what_cannot_be_planted_is_refused():
    data = stripes(20, 0)
    with pytest.raises(UserError, match="class 9"):
        watermark(data.images, data.labels, 9, 0.5, 0)
    with pytest.raises(UserError, match="is empty"):
        points_at(np.ones((2, 8, 8)), np.zeros((2, 8, 8), bool))
    with pytest.raises(UserError, match="at most 4"):
        watermark(data.images, data.labels, 1, 0.5, 0, size=5)
