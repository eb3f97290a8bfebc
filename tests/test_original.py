"""The original study's degradation: against its own loops, `lime`'s superpixels, and a whole small run."""

import tomllib
from dataclasses import fields, replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from lime.wrappers.scikit_image import SegmentationAlgorithm
from skimage.color import gray2rgb
from skimage.segmentation import slic

from iic.classifiers.inference import freeze, predicted_class
from iic.classifiers.networks import build_network
from iic.classifiers.precision import Forward
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation import original
from iic.evaluation.degradation import pixel_ranks
from iic.evaluation.fills import Fills, salt_and_pepper
from iic.evaluation.original import STUDY, Shortcuts, Variant, degrade, explained, kept_pixels, measure, variants
from iic.evaluation.scores import correct
from iic.explainers.attributions import select_images
from iic.explainers.context import Context
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter, quickshift_superpixels
from iic.params import AttributionParams

COLOUR = (3, 32, 32)
MEAN = np.array([120.0, 110.0, 100.0])


def study_degraded(image, values, kept, side):
    """Its loops: the largest `kept` values of the whole map stay, the other pixels that the loops reach become zero."""
    top = {divmod(int(i), values.shape[1]) for i in np.argsort(values, axis=None)[-kept:]}
    result = image.astype(np.float32)
    for i in range(min(side, values.shape[0])):
        for j in range(min(side, values.shape[1])):
            if (i, j) not in top:
                result[:, i, j] = 0
    return result


def random_images(count, shape, seed=0):
    """Noise and two even patches far apart, which quickshift tells apart; no pixel is black."""
    images = np.random.default_rng(seed).integers(1, 256, (count, *shape), dtype=np.uint8)
    images[:, :, 2:9, 2:9], images[:, :, -9:-2, -9:-2] = 60, 200
    return images


FILLS = Fills(MEAN, random_images(4, COLOUR, seed=3))


def lime_segments(image):
    """`lime_image`'s own default."""
    pixels = gray2rgb(image[0]) if len(image) == 1 else image.transpose(1, 2, 0)
    by_default = SegmentationAlgorithm("quickshift", kernel_size=4, max_dist=200, ratio=0.2, random_seed=0)
    return by_default(pixels / 255.0)


def changed(variant):
    return {f.name for f in fields(Shortcuts) if getattr(variant.shortcuts, f.name) != getattr(Shortcuts(), f.name)}


@given(
    st.sampled_from([1, 3]),
    st.integers(3, 9),
    st.integers(3, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_the_degradation_is_the_studys(channels, height, width, kept, side, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, channels, height, width), dtype=np.uint8)
    values = np.stack([rng.permutation(height * width).reshape(height, width) for _ in images]).astype(np.float32)
    found = degrade(images, values, np.arange(2), Shortcuts(kept=kept, side=side), FILLS, 0)
    assert found.dtype == np.float32
    for image, one, ours in zip(images, values, found, strict=True):
        np.testing.assert_array_equal(ours, study_degraded(image, one, kept, side))


def test_156_pixels_are_kept_and_the_border_of_cifar10_beside_them():
    def shown(values, **undone):
        images = np.full((1, 3, *values.shape), 200, np.uint8)
        return (degrade(images, values[None], np.array([7]), Shortcuts(**undone), FILLS, 0)[0, 0] == 200).sum()

    assert shown(np.zeros((28, 28))) == shown(np.zeros((28, 28)), side=None) == 156
    inside, border = np.zeros((2, 32, 32))
    inside[:28, :28], border[28:, :], border[:, 28:] = 1, 1, 1
    assert shown(inside) == 156 + 240 and shown(inside, side=None) == 156
    assert shown(border) == 240 and shown(border, side=None) == 156
    assert shown(inside, kept=None) == 205 + 240 and shown(inside, kept=None, side=None) == 205


@pytest.mark.parametrize("fill", [*original.CONSTANTS, "mean_colour", "salt_and_pepper"])
def test_every_fill_shows_what_its_name_says(fill):
    images, indices = random_images(2, COLOUR), np.array([4, 9])
    values = np.random.default_rng(1).random((2, 32, 32))
    noise = salt_and_pepper(indices, (32, 32), 1)
    filled = {"zero": 0, "grey": 120.707, "mean_colour": MEAN.reshape(3, 1, 1), "salt_and_pepper": noise}[fill]
    keep = kept_pixels(values, indices, Shortcuts(), 1)[:, None]
    found = degrade(images, values, indices, Shortcuts(fill=fill), FILLS, 1)
    np.testing.assert_allclose(found, np.where(keep, images, filled), rtol=1e-6)


def test_every_shortcut_is_undone_once_where_it_matters():
    for shape, missing in ((COLOUR, set()), ((1, 28, 28), {"kept", "side"})):
        found = [changed(v) for v in variants(shape)]
        assert found[0] == set() and {"fill", "draws"} in found
        assert all(len(what) == 1 for what in found[1:] if what != {"fill", "draws"})
        assert set().union(*found) == {f.name for f in fields(Shortcuts)} - missing
    assert "grey" not in {v.shortcuts.fill for v in variants((1, 28, 28))}


@pytest.mark.parametrize("variant", variants(COLOUR), ids=lambda variant: variant.name)
def test_each_shortcut_changes_only_what_it_says(variant, tiny):
    images, indices, what = random_images(2, COLOUR), np.arange(2), changed(variant)
    values = np.random.default_rng(1).random((2, 32, 32))
    base, found = (degrade(images, values, indices, s, FILLS, 0) for s in (Shortcuts(), variant.shortcuts))
    keep_base, keep = (kept_pixels(values, indices, s, 0) for s in (Shortcuts(), variant.shortcuts))
    assert (keep == keep_base).all() != bool(what & {"kept", "side"})
    assert (found == base).all() != bool(what & {"kept", "side", "fill"})
    by_field = {"lime": {"lime_segmentation", "lime_fill"}, "kernel_shap": {"shap_fill"}, "lrp": set()}
    for method in STUDY:
        contexts = [explained(tiny, method, s) for s in (Shortcuts(), variant.shortcuts)]
        same = len({(type(c.segments), c.params.model_dump_json()) for c in contexts}) == 1
        assert same != bool(what & by_field[method])
        assert same or method in variant.methods


@pytest.mark.parametrize("channels", [1, 3])
def test_quickshift_is_what_lime_image_takes(channels):
    counts = []
    for image in random_images(3, (channels, 32, 32)):
        expected, found = lime_segments(image), quickshift_superpixels(image)
        assert sorted(np.unique(found)) == list(range(found.max() + 1))
        pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
        assert pairs.shape[1] == found.max() + 1 == len(np.unique(expected))  # the same partition
        counts.append(found.max() + 1)
    assert max(counts) > 1


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = build_network(MEAN.tolist(), [60.0] * 3, widths=(4, 8, 8)).eval()
    torch.nn.init.normal_(model[-1].weight)
    params = AttributionParams(budget=250, precision="float32")
    plain = freeze(model)
    return Context(plain, Forward(plain, "float32", "cpu", 1.0), MEAN, params, Segmenter(params))


def by_hand(context, method, images):
    """The study's explainers, put together without `explained`; LIME on the superpixels that `lime` finds."""
    fill = {"lime": "superpixel_mean", "kernel_shap": "constant", "lrp": "mean"}[method]
    params = context.params.model_copy(update={"fill": fill, "fill_constant": 255.0})
    labels = np.stack([lime_segments(image) for image in images]) if method == "lime" else None
    return replace(context, params=params, segments=Segmenter(params, labels))


def test_what_is_switched_off_is_white_or_the_superpixels_own_mean(tiny):
    image = random_images(1, COLOUR)[0]
    context = explained(tiny, "kernel_shap", Shortcuts())
    segments = context.segments(image, 0)
    assert (context.fill(image, segments) == 255).all()
    expected = slic(image.transpose(1, 2, 0) / 255.0, n_segments=50, compactness=10.0, start_label=0)
    np.testing.assert_array_equal(segments, expected)
    context = explained(tiny, "lime", Shortcuts())
    segments = context.segments(image, 0)
    for label in np.unique(segments):
        shown = context.fill(image, segments)[:, segments == label]
        np.testing.assert_allclose(shown, shown[:, :1].repeat(shown.shape[1], 1))
        np.testing.assert_allclose(shown[:, 0], image[:, segments == label].mean(1), rtol=1e-5)


@pytest.mark.parametrize("method", STUDY)
def test_a_whole_run_is_explain_degrade_classify(tiny, method, monkeypatch):
    """Two groups of three images; labels are right for every second image that the study's loops leave."""
    images, indices = random_images(5, COLOUR), np.arange(5)
    targets = predicted_class(tiny.plain, torch.from_numpy(images)).numpy()
    values = explain(method, by_hand(tiny, method, images), images, indices, targets).values
    order = -pixel_ranks(values, indices, 0)
    left = np.stack([study_degraded(image, one, 156, 28) for image, one in zip(images, order, strict=True)])
    named = predicted_class(tiny.plain, torch.from_numpy(left)).numpy()
    test = ImageSet(images, np.where(indices % 2 == 0, named, (named + 1) % 10))
    shown = []

    def seen(model, pixels, labels):
        shown.append(pixels)
        return correct(model, pixels, labels)

    monkeypatch.setattr(original, "correct", seen)
    monkeypatch.setattr(original, "TOGETHER", 3)
    found = measure(tiny, test, [Variant("all", Shortcuts(), (method,))], FILLS, 5)["all", method]
    np.testing.assert_array_equal(np.concatenate(shown), left)
    np.testing.assert_array_equal(found.hits, [1, 0, 1, 0, 1])
    assert not found.blind.all()


def test_all_rows_share_the_maps_that_do_not_depend_on_what_is_undone(tiny, monkeypatch):
    test = ImageSet(random_images(6, COLOUR), np.arange(6) % 3)
    spy = Mock(wraps=explain)
    monkeypatch.setattr(original, "explain", spy)
    found = measure(tiny, test, variants(COLOUR), FILLS, 3)
    assert set(found) == {(v.name, method) for v in variants(COLOUR) for method in v.methods}
    calls = [(call.args[0], tuple(call.args[3])) for call in spy.call_args_list]
    assert sorted(method for method, _ in calls) == ["kernel_shap"] * 3 + ["lime"] * 4 + ["lrp"] * 2
    balanced = tuple(select_images(test.labels, 3, tiny.params.seed))
    assert sorted(indices for _, indices in calls) == sorted([balanced] * 3 + [(0, 1, 2)] * 6)


def test_one_superpixel_ranks_nothing_and_ties_are_drawn(tiny):
    """An image of one colour: all pixels have the same value, as `lime_image` says; draws are averaged."""
    images, flat = np.full((2, *COLOUR), 90, np.uint8), np.zeros((2, 32, 32))
    assert (quickshift_superpixels(images[0]) == 0).all() and (lime_segments(images[0]) == 0).all()
    draws = [degrade(images, flat, np.arange(2), Shortcuts(), FILLS, draw) for draw in range(5)]
    assert len({draw.tobytes() for draw in draws}) == 5
    named = np.stack([predicted_class(tiny.plain, torch.from_numpy(draw)).numpy() for draw in draws])
    wanted = [Variant("five", Shortcuts(draws=5), ("lime",))]
    found = measure(tiny, ImageSet(images, named[0]), wanted, FILLS, 2)["five", "lime"]
    assert found.blind.all()
    np.testing.assert_allclose(found.hits, (named == named[0]).mean(0))


def test_positions_are_the_first_or_balanced_and_never_too_many():
    labels = np.repeat(np.arange(10), 6)
    np.testing.assert_array_equal(original.positions("first", labels, 7, 0), np.arange(7))
    assert np.bincount(labels[original.positions("balanced", labels, 30, 0)]).tolist() == [3] * 10
    with pytest.raises(UserError, match="61 images are more than the 60"):
        original.positions("first", labels, 61, 0)


def test_the_citation_is_complete_and_names_the_study():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software" and citation["message"]
    assert citation["title"] == "Interpretable Image Classifiers (iic)" and citation["version"] == project["version"]
    assert citation["authors"] == [{"name": "The iic contributors"}]
    (study,) = citation["references"]
    assert study["authors"][0]["family-names"] == "Malekzadeh" and study["year"] == 2021 and study["title"]
    assert (
        study["type"] == "software" and study["url"] == "https://github.com/arm-on/interpretable-image-classification"
    )
