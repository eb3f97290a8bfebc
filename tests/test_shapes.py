import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from iic.data.shapes import CLASSES, draw_shapes


@pytest.fixture(scope="module")
def drawn():
    return draw_shapes(1000, seed=3)


def boxes(masks):
    """Bounding boxes (N, 4): top, bottom, left, right, inclusive."""
    rows, columns = masks.any(2), masks.any(1)
    last = masks.shape[1] - 1
    edges = [rows.argmax(1), last - rows[:, ::-1].argmax(1), columns.argmax(1), last - columns[:, ::-1].argmax(1)]
    return np.stack(edges, 1)


def test_classes_are_balanced_and_drawing_repeats(drawn):
    assert np.bincount(drawn.labels).tolist() == [100] * len(CLASSES)
    again = draw_shapes(1000, seed=3)
    np.testing.assert_array_equal(again.images, drawn.images)
    np.testing.assert_array_equal(again.masks, drawn.masks)


def test_objects_are_10_to_22_pixels_long(drawn):
    top, bottom, left, right = boxes(drawn.masks).T
    longest = np.maximum(bottom - top, right - left) + 1
    assert longest.min() >= 9 and longest.max() <= 22  # a pointed end may cover less than half of its last pixel
    assert np.percentile(longest, 5) <= 12 and np.percentile(longest, 95) >= 20


def test_nothing_but_the_shape_tells_the_class(drawn):
    top, bottom, left, right = boxes(drawn.masks).T
    rows = []
    for image, mask in zip(drawn.images, drawn.masks, strict=True):
        rows.append([*np.median(image[:, mask], 1), *image[:, ~mask].mean(1), *image[:, ~mask].std(1)])
    place = np.stack([(top + bottom) / 2, (left + right) / 2], 1)
    features = np.concatenate([np.array(rows), place], 1)
    accuracy = cross_val_score(RandomForestClassifier(100, random_state=0), features, drawn.labels, cv=5).mean()
    assert accuracy < 0.14  # chance is 0.10; 4 standard errors of 1,000 draws are 0.04


def test_mask_is_the_object(drawn):
    inside = [image[:, mask].std(1).mean() for image, mask in zip(drawn.images, drawn.masks, strict=True)]
    outside = [image[:, ~mask].std(1).mean() for image, mask in zip(drawn.images, drawn.masks, strict=True)]
    assert np.median(inside) < 0.5 * np.median(outside)  # one colour inside, clutter outside
