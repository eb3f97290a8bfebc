"""Leakage and the planted shortcut as nodes, on sets whose answers are known."""

import io
import json

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.container import BarContainer
from test_judges import stripes
from test_leakage import outlines
from torch import nn

from iic.classifiers.inference import freeze, logits, predicted_class
from iic.classifiers.precision import fast_forward
from iic.data.card import describe
from iic.data.images import ImageSet
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation import leaks
from iic.evaluation.degradation import top_pixels
from iic.evaluation.planted import packed, summarise, turned_images, unpacked
from iic.evaluation.shortcut import plant
from iic.explainers import work
from iic.explainers.attributions import select_images
from iic.explainers.context import Context
from iic.explainers.methods import RANDOM, explain
from iic.explainers.names import source_of
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams, EvaluationParams, TrainingParams
from iic.pipelines.attribution.nodes import derive_maps, explain_images
from iic.pipelines.evaluation.leak_nodes import draw_leakage, draw_shortcut, find_shortcut, leak_method, plant_shortcut

NAMES = ("first", "second", "third", "fourth")
EVALUATION = EvaluationParams(
    keep=16 / 144, bootstrap=100, shortcut_class=1, shortcut_epochs=12, shortcut_images=30, leakage_images=300
)
ATTRIBUTION = AttributionParams(
    n_images=200, budget=80, superpixels=16, segmentation="grid", precision="float32", occlusion_window=4, shard_size=80
)


class Told(nn.Module):
    """Reads the class off the upper left pixel, which is 100 + class."""

    def forward(self, x):
        return -((x[:, 0, :1, 0] - 100 - torch.arange(4.0)) ** 2)


def drawn(count, seed):
    """A white form of 16 pixels, which is the class, on grey; sorted by class, as `digits` is."""
    masks, labels = outlines(count, seed)
    order = np.argsort(labels, kind="stable")
    images = np.where(masks[order], 255, 100).astype(np.uint8)[:, None]
    images[:, 0, 0, 0] = 100 + labels[order]
    return ImageSet(images, labels[order])


@pytest.fixture(scope="module")
def forms():
    train, test = drawn(320, 0), drawn(240, 1)
    return train, test, describe(train, test, name="forms", source="made", class_names=NAMES)


def maps_of(method, data, model, project, params=ATTRIBUTION):
    train, test, card = data
    source = source_of(method)
    names = {"dataset": "d", "project": project}
    found = explain_images(params, train, test, card, model, method=source or method, **names)
    return (found if source is None else derive_maps(params, test, *found, method=method, **names))[0]


def leak(method, data, model, project, params=ATTRIBUTION, wanted=EVALUATION):
    maps = maps_of(method, data, model, project, params)
    return leak_method(wanted, params, TRAINING, maps, model, *data, dataset="d", method=method, project=project)


@pytest.fixture
def seen(monkeypatch):
    """What the mask network is given, in place of what it would say."""
    calls = []

    def catch(*arrays, **options):
        calls.append((*arrays, options))
        return {"accuracy": 0.5}

    monkeypatch.setattr(leaks, "leakage", catch)
    return calls


def test_masks_that_show_the_form_leak_and_random_ones_do_not(forms, tmp_path):
    found = {m: leak(m, forms, Told(), tmp_path) for m in ("contrast", "contrast_blurred", "random")}
    assert found["contrast"]["leaks"] and found["contrast"]["accuracy"] > 0.9
    assert found["contrast_blurred"]["leaks"] and found["contrast_blurred"]["accuracy"] > 0.6
    assert not found["random"]["leaks"] and found["random"]["interval"][0] < 0.25 < found["random"]["interval"][1]
    for method, result in found.items():
        assert (result["method"], result["n"], result["n_train"], result["n_test"]) == (method, 300, 300, 200)
        assert result["made"]["images"] == "training" and result["made"]["method"] == method
        assert not (tmp_path / "data" / "07_attributions" / "d" / method / "training").exists()
    not_measured = {"method": "random_superpixels", "n": 0, "reason": "no superpixels"}
    leaves = json.loads(json.dumps({**found, "random_superpixels": not_measured}, allow_nan=False))
    figure = draw_leakage("forms", **leaves)
    figure.savefig(io.BytesIO())
    bars = [c for c in figure.axes[0].containers if isinstance(c, BarContainer)]
    heights = [bar.get_height() for container in bars for bar in container][2:]  # after two for the legend
    assert heights == [r["accuracy"] for r in found.values()]
    assert "not measured" in figure.axes[0].texts[-1].get_text()
    draw_leakage("forms", random_superpixels=not_measured).savefig(io.BytesIO())


def test_training_and_test_images_share_no_draws(forms, seen, tmp_path):
    """Each mask against the draws of its own position, training images behind the test set."""
    train, test, _ = forms
    leak("random", forms, Told(), tmp_path)
    ((train_masks, train_labels, test_masks, test_labels, options),) = seen
    for data, first, masks, labels in ((train, 240, train_masks, train_labels), (test, 0, test_masks, test_labels)):
        chosen = select_images(data.labels, len(masks), 0)
        np.testing.assert_array_equal(labels, data.labels[chosen])
        for position, mask in zip(chosen, masks, strict=True):
            values = generator("method", 0, first + position, RANDOM).random((12, 12))
            np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(np.argsort(values, axis=None)[-16:]))
    assert options["classes"] == 4


def test_what_was_explained_before_an_interruption_is_not_explained_again(forms, monkeypatch, tmp_path):
    explained = []
    monkeypatch.setattr(work, "explain", lambda *a, **k: explained.append(len(a[2])) or explain(*a, **k))

    def interrupted(*arrays, **options):
        raise KeyboardInterrupt

    few = EVALUATION.model_copy(update={"leakage_images": 120})
    maps = maps_of("sobel", forms, Told(), tmp_path)
    arguments = (few, ATTRIBUTION, TRAINING, maps, Told(), *forms, "d", "sobel", tmp_path)
    explained.clear()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(leaks, "leakage", interrupted)
        leak_method(*arguments)
    assert sum(explained) == 120
    assert leak_method(*arguments)["n"] == 120 and sum(explained) == 120
    assert not (tmp_path / "data" / "07_attributions" / "d" / "sobel" / "training").exists()


def test_superpixels_of_the_test_images_alone_are_said_to_be_too_few(forms, tmp_path):
    one = np.arange(144).reshape(12, 12) // 9
    np.save(tmp_path / "each.npy", np.stack([one] * 240))
    np.save(tmp_path / "one.npy", one)
    each, same = (ATTRIBUTION.model_copy(update={"segments": f"{name}.npy"}) for name in ("each", "one"))
    refused = leak("random_superpixels", forms, Told(), tmp_path, each)
    assert refused["n"] == 0 and "test images only" in refused["reason"] and "accuracy" not in refused
    few = EVALUATION.model_copy(update={"leakage_images": 60})
    assert leak("sobel_superpixel", forms, Told(), tmp_path, each, few)["n"] == 0
    assert leak("sobel", forms, Told(), tmp_path, each, few)["n"] == 60
    assert leak("random_superpixels", forms, Told(), tmp_path, same, few)["n"] == 60


def test_maps_of_other_parameters_are_refused(forms, tmp_path):
    maps = maps_of("sobel", forms, Told(), tmp_path)
    other = ATTRIBUTION.model_copy(update={"superpixels": 9})
    with pytest.raises(UserError, match=r"maps of d\.sobel were made with another"):
        leak_method(EVALUATION, other, TRAINING, maps, Told(), *forms, "d", "sobel", tmp_path)


TRAINING = TrainingParams(
    epochs=20, widths=(8, 16, 16), batch_size=25, micro_batch=25, dtype="float32", weights="trained"
)


@pytest.fixture(scope="module")
def waves():
    train, test = stripes(800, 0, 28, 60), stripes(240, 1, 28, 60)
    return train, test, describe(train, test, name="waves", source="made", class_names=NAMES)


@pytest.fixture(scope="module")
def shortcut(waves):
    return plant_shortcut(EVALUATION, TRAINING, *waves, dataset="waves")


def find(waves, network, planted, methods=(), project=None):
    train, test, card = waves
    return find_shortcut(EVALUATION, ATTRIBUTION, network, planted, test, train, card, "waves", methods, project)


def test_networks_maps_reach_the_mask_network_as_they_are_made_alone(waves, shortcut, seen, tmp_path):
    train, test, _ = waves
    network = shortcut[0]
    params = ATTRIBUTION.model_copy(update={"n_images": 10})
    few = EVALUATION.model_copy(update={"leakage_images": 40})
    for method in ("lrp_superpixel", "lrp_random_weights"):
        leak(method, waves, network, tmp_path, params, few)
    (masks, labels, *_), (random, same_labels, *_) = seen
    chosen = select_images(train.labels, 40, 0)
    frozen = freeze(network)
    targets = predicted_class(frozen, torch.from_numpy(train.images[chosen])).numpy()
    np.testing.assert_array_equal(labels, targets)
    np.testing.assert_array_equal(same_labels, targets)
    forward = fast_forward(network, torch.from_numpy(train.images), "float32", "cpu")
    context = Context(frozen, forward, train.images.mean((0, 2, 3)), params, Segmenter(params))
    maps = explain("lrp", context, train.images[chosen], chosen, targets).values
    blocks = maps.reshape(40, 4, 7, 4, 7).mean((2, 4)).repeat(7, 1).repeat(7, 2)  # the grid's sixteen superpixels
    expected = top_pixels(blocks, few.keep, chosen + len(test), 0)
    assert (masks == expected).all((1, 2)).mean() > 0.9  # float sums in another order may turn a near tie
    assert (random == top_pixels(maps, few.keep, chosen + len(test), 0)).mean() < 0.95


def test_the_planted_shortcut_is_taken_and_found(waves, shortcut):
    network, planted = shortcut
    assert planted["taken"] and planted["marked"]["share"] > 0.3 and planted["class_name"] == "second"
    assert planted["epochs"] == 12 and planted["clean"]["share"] < 0.05 and 0.25 < planted["test"]["accuracy"] <= 1
    found = find(
        waves,
        network,
        json.loads(json.dumps(planted, allow_nan=False)),
        ("lrp", "sobel", "lrp_blurred", "occlusion", "lime"),
    )
    assert found["reason"] is None and 10 <= found["n_images"] <= 30
    assert tuple(found["methods"]) == ("lrp", "occlusion", "lime", "random", "centre")
    seeing = found["methods"]["occlusion"]
    assert seeing["lift"]["interval"][0] > 1 and seeing["auroc"]["interval"][0] > 0.6
    blind, elsewhere = found["methods"]["random"], found["methods"]["centre"]
    assert abs(blind["lift"]["mean"] - 1) < 0.2 and abs(blind["auroc"]["mean"] - 0.5) < 0.1
    assert elsewhere["warned"]["share"] == 0 and elsewhere["lift"]["mean"] < 0.5 and elsewhere["auroc"]["mean"] < 0.25
    for cell in found["methods"].values():
        for name, number in cell.items():
            value, (low, high) = number["share" if name == "warned" else "mean"], number["interval"]
            assert low - 1e-9 <= value <= high + 1e-9
    train, test, _ = waves
    again = plant(train, test, 1, share=1.0, seed=0)
    loaded = json.loads(json.dumps(found, allow_nan=False))
    example = loaded["example"]
    np.testing.assert_array_equal(unpacked(example["image"]), again.marked.images[example["index"]])
    np.testing.assert_array_equal(unpacked(example["patch"]), again.patch[example["index"]])
    figure = draw_shortcut(loaded)
    figure.savefig(io.BytesIO())
    pictures = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(pictures) == 6
    np.testing.assert_array_equal(pictures[0].get_array(), again.marked.images[example["index"], 0])
    assert all(low == -high for low, high in (picture.get_clim() for picture in pictures[1:]))


def test_explained_images_are_those_that_the_watermark_alone_turned(waves, shortcut):
    train, test, _ = waves
    frozen = freeze(shortcut[0])
    data = plant(train, test, 1, share=1.0, seed=0)

    def named(image):
        return logits(frozen, torch.from_numpy(image)[None]).argmax().item()

    expected = [
        i
        for i in range(len(test))
        if test.labels[i] != 1 and named(test.images[i]) != 1 and named(data.marked.images[i]) == 1
    ]
    np.testing.assert_array_equal(turned_images(frozen, data), expected)


def test_without_a_shortcut_nothing_is_said_of_any_method(waves, shortcut):
    network, planted = shortcut
    refusals = {
        "did not take the shortcut": (waves, {**planted, "taken": False}),
        "and 10 are needed": ((waves[0], waves[1][np.arange(8)], waves[2]), planted),
    }
    for words, (data, about) in refusals.items():
        found = find(data, network, about, ("lrp",))
        assert words in found["reason"] and found["methods"] == {} and found["example"] is None
        json.dumps(found, allow_nan=False)
        figure = draw_shortcut(found)
        figure.savefig(io.BytesIO())
        assert words in figure.axes[0].texts[0].get_text().replace("\n", " ")
    with pytest.raises(UserError, match="measured on another network"):
        find(waves, network, {**planted, "model": "0"})


def test_no_network_is_trained_in_place_of_a_users_own(waves):
    own = TRAINING.model_copy(update={"weights": "own.pt2"})
    network, planted = plant_shortcut(EVALUATION, own, *waves, dataset="waves")
    found = find(waves, network, planted, ("lrp",))
    assert "the user's own" in found["reason"] and found["methods"] == {}
    assert "the user's own" in draw_shortcut(found).axes[0].texts[0].get_text().replace("\n", " ")


def test_a_map_that_is_the_patch_is_perfect_and_one_beside_it_worthless(waves):
    patch = plant(*waves[:2], 1, share=1.0, seed=0).patch
    judged = summarise(patch.astype(np.float32), patch, np.arange(240), replicates=100, seed=0)
    assert judged["mass"]["mean"] == judged["auroc"]["mean"] == judged["warned"]["share"] == 1
    assert [judged["lift"]["mean"], *judged["lift"]["interval"]] == pytest.approx([49, 49, 49])
    worthless = summarise(1.0 - patch, patch, np.arange(240), replicates=100, seed=0)
    assert worthless["mass"]["mean"] == worthless["auroc"]["mean"] == worthless["warned"]["share"] == 0
    json.dumps([judged, worthless], allow_nan=False)


def test_intervals_are_scipys(waves):
    patch = plant(*waves[:2], 1, share=1.0, seed=0).patch
    maps = np.random.default_rng(0).random(patch.shape) + patch
    judged = summarise(maps, patch, np.arange(240), replicates=4000, seed=0)
    masses = (maps * patch).sum((1, 2)) / maps.sum((1, 2))
    interval = scipy.stats.bootstrap(
        (masses,), np.mean, method="percentile", n_resamples=4000, rng=1
    ).confidence_interval
    spread = interval.high - interval.low
    np.testing.assert_allclose(judged["mass"]["interval"], tuple(interval), atol=0.1 * spread)
    np.testing.assert_allclose(judged["lift"]["interval"], np.array(interval) * 49, atol=4.9 * spread)
    assert judged["mass"]["mean"] == pytest.approx(masses.mean())


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
def test_arrays_come_back_from_json(dtype):
    array = (np.random.default_rng(0).random((3, 4, 5)) * 3).astype(dtype).transpose(2, 0, 1)
    back = unpacked(json.loads(json.dumps(packed(array))))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
