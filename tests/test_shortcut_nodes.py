"""The planted shortcut as nodes, on sets whose answers are known."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from watermarked import ATTRIBUTION, EVALUATION, TRAINING

from iic.classifiers.inference import freeze, logits
from iic.errors import UserError
from iic.evaluation.planted import packed, summarise, turned_images, unpacked
from iic.evaluation.shortcut import plant
from iic.pipelines.evaluation.shortcut_nodes import draw_shortcut, find_shortcut, plant_shortcut


def find(waves, network, planted, methods=(), project=None):
    train, test, card = waves
    return find_shortcut(EVALUATION, ATTRIBUTION, network, planted, test, train, card, "waves", methods, project)


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
    units = [axis.get_xlabel() for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert units == ["logit", "probability", "probability", "no unit", "no unit"]
    assert "red speaks for 'second', blue against it" in figure.get_suptitle()


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
    network, planted = plant_shortcut(EVALUATION, own, *waves, dataset="waves", project=Path())
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
