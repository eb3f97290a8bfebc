"""Attributions in shards: resumed, identical to the byte, read memory-mapped, in this process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_work import INDICES, PARAMS, TARGETS, contents, make_context, run

from iic.classifiers.inference import logits
from iic.datasets import AttributionsDataset
from iic.errors import UserError
from iic.explainers.attributions import Attributions
from iic.explainers.ranking import is_stable
from iic.explainers.segmentation import Segmenter
from iic.explainers.shards import MappedShards, read_attributions, unfinished, write_attributions
from iic.explainers.work import derive_images, explain_outputs
from iic.files import remove_partial


def test_shards_hold_what_the_images_get_alone(tmp_path):
    maps = run(tmp_path)
    assert maps.values.shape == (10, 28, 28) and isinstance(maps.values, MappedShards)
    np.testing.assert_array_equal(maps.indices, INDICES)
    np.testing.assert_array_equal(maps.targets, TARGETS)
    turned = run(tmp_path / "turned", order=slice(None, None, -1))
    np.testing.assert_allclose(turned.values[:][::-1], maps.values[:], atol=1e-6)
    larger = run(tmp_path / "larger", params=PARAMS.model_copy(update={"shard_size": 7, "batch_size": 13}))
    np.testing.assert_allclose(larger.values[:], maps.values[:], atol=1e-6)
    np.testing.assert_allclose(larger.errors[:], maps.errors[:], atol=1e-6)
    assert set(maps.extras) == {"superpixels", "forwards", "settled"}


def test_an_interrupted_run_keeps_its_shards_and_ends_in_the_same_bytes(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole").folder
    from iic.explainers import work

    explain, calls = work.explain_shard, []

    def fails_at_the_last(method, context, shard, *rest, **options):
        calls.append(shard.number)
        if shard.number == 2:
            raise KeyboardInterrupt
        return explain(method, context, shard, *rest, **options)

    monkeypatch.setattr(work, "explain_shard", fails_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part")
    calls.clear()
    monkeypatch.setattr(work, "explain_shard", lambda *a, **k: calls.append(a[2].number) or explain(*a, **k))
    ticks = []
    resumed = run(tmp_path / "part", tick=ticks.append).folder
    assert calls == [2] and ticks == [8, 2]
    assert contents(resumed) == contents(whole)


def test_a_folder_that_another_run_took_away_is_a_sentence(tmp_path, monkeypatch):
    from iic.explainers import work

    explain = work.explain_shard

    def moved_at_the_last(method, context, shard, *rest, **options):
        if shard.number == 2:
            (unfinished,) = tmp_path.glob(".unfinished-*")
            unfinished.rename(tmp_path / "saved")
        return explain(method, context, shard, *rest, **options)

    monkeypatch.setattr(work, "explain_shard", moved_at_the_last)
    with pytest.raises(UserError, match="was finished and moved by another run of the same command"):
        run(tmp_path)


@pytest.mark.parametrize("method", ["lime", "lime_fast", "kernel_shap", "kernel_shap_fast", "occlusion", "rise"])
def test_both_outputs_at_once_are_the_bytes_of_each_alone(tmp_path, method):
    context, images = make_context()
    made = [{"method": name, "parameters": PARAMS.model_dump(mode="json")} for name in (method, f"{method}_logit")]
    folders = [tmp_path / "both" / m["method"] for m in made]
    both, _ = explain_outputs(method, context, images, INDICES, TARGETS, list(zip(folders, made, strict=True)))
    for found, m in zip(both, made, strict=True):
        assert contents(found.folder) == contents(run(tmp_path / "alone" / m["method"], m["method"]).folder)
    assert np.abs(both[0].values[:] - both[1].values[:]).max() > 1e-3
    # a shard of the twin that is missing is made again, with its partner
    (both[1].folder / "00002.numbers.npy").unlink()
    ticks = []
    outputs = list(zip(folders, made, strict=True))
    again, _ = explain_outputs(method, context, images, INDICES, TARGETS, outputs, tick=ticks.append)
    assert ticks == [8, 2] and contents(again[1].folder) == contents(both[1].folder)


@pytest.mark.parametrize("method", ["kernel_shap", "kernel_shap_fast"])
def test_an_output_that_stops_early_is_the_same_bytes_beside_the_other_and_alone(tmp_path, method):
    params = PARAMS.model_copy(update={"budget": 600, "stop_early": True, "superpixels": 9})
    context, images = make_context(params)
    made = [{"method": name, "parameters": params.model_dump(mode="json")} for name in (method, f"{method}_logit")]
    outputs = [(tmp_path / "both" / m["method"], m) for m in made]
    both, _ = explain_outputs(method, context, images, INDICES, TARGETS, outputs)
    assert (both[0].extras["forwards"] != both[1].extras["forwards"]).any()  # each stops when it is settled itself
    for found, m in zip(both, made, strict=True):
        alone = run(tmp_path / "alone" / m["method"], m["method"], params)
        assert contents(found.folder) == contents(alone.folder)


def test_a_killed_run_goes_on(tmp_path):
    """kill -9 within a shard's values, behind a whole shard, and in the index: bytes are there, not yet their name."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import os, test_work, time; "
        "os.fsync = lambda _: (print('written', flush=True), time.sleep(0.3)); "
        "test_work.run(Path(sys.argv[2])); print('whole', flush=True)"
    )
    words = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path / "killed")]
    finished = []
    for file in (2, 5, 9):  # a shard is four files: seconds, values, errors, numbers
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert [process.stdout.readline() for _ in range(file)] == ["written\n"] * file
            os.kill(process.pid, signal.SIGKILL)
        assert len(remove_partial(tmp_path)) == 1  # what the next run's hook does first
        finished.append(len(list(tmp_path.glob("killed/*/*.numbers.npy"))))
        assert [path.parent.name for path in unfinished(tmp_path)] == ["killed"]  # what that hook says is kept
    assert finished == [0, 1, 3]
    found = run(tmp_path / "killed")
    assert contents(found.folder) == contents(run(tmp_path / "whole").folder)


def test_the_dataset_takes_the_folder_over_and_reads_it_back(tmp_path):
    maps = run(tmp_path / "work")
    expected = contents(maps.folder)
    dataset = AttributionsDataset(filepath=str(tmp_path / "attributions"))
    assert not dataset.exists()
    dataset.save(maps)
    assert contents(tmp_path / "attributions") == expected and not list((tmp_path / "work").iterdir())
    assert not list((tmp_path / "attributions").glob("*.seconds"))
    loaded = dataset.load()
    np.testing.assert_array_equal(loaded.values[3], np.load(tmp_path / "attributions/00000.values.npy")[3])
    np.testing.assert_array_equal(loaded.values[np.array([9, 0])], loaded.values[:][[9, 0]])
    np.testing.assert_array_equal(loaded.values[2:9:3, 5], loaded.values[:][2:9:3, 5])
    with pytest.raises(IndexError):
        loaded.values[10]


def test_attributions_in_memory_are_saved_too(tmp_path):
    maps = Attributions(np.ones((3, 4, 4), np.float32), np.arange(3), np.zeros(3, np.int64), {"forwards": np.ones(3)})
    dataset = AttributionsDataset(filepath=str(tmp_path / "attributions"))
    dataset.save(maps)
    assert dataset.load().errors is None
    np.testing.assert_array_equal(dataset.load().values[:], maps.values)


@pytest.mark.parametrize("harm", ["missing", "cut", "empty", "short", "wide", "object", "index"])
@pytest.mark.parametrize("what", ["values", "errors"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path, harm, what):
    folder = tmp_path / "attributions"
    stored(folder)
    file = folder / f"00001.{what}.npy"
    if harm == "missing":
        file.unlink()
    elif harm in ("cut", "empty"):
        file.write_bytes(file.read_bytes()[: {"cut": -1, "empty": 0}[harm]])
    elif harm in ("short", "wide"):
        np.save(file, np.ones({"short": (0, 4, 5), "wide": (1, 4, 6)}[harm], np.float32))
    elif harm == "object":
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    else:
        (folder / "index.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_attributions(folder)


def stored(folder, count=3):
    maps = np.random.default_rng(0).random((count, 4, 5)).astype(np.float32)
    numbers = {"forwards": np.ones(count)}
    data = Attributions(maps, np.arange(count), np.zeros(count, np.int64), numbers, errors=maps / 2)
    write_attributions(folder, data, shard_size=2)
    return maps


def test_no_file_stays_open_however_many_shards_are_held(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("there is no /proc here to count open files in")
    held, before = {}, len(os.listdir(descriptors))
    for method in ("lime", "kernel_shap", "lrp"):
        stored(tmp_path / method, 40)
        held[method] = read_attributions(tmp_path / method)
        rows = held[method].values
        looked = (rows[:], rows[7], rows[np.array([39, 0])], held[method].errors[3:9], next(iter(rows)))
        assert len(looked) == 5 and len(os.listdir(descriptors)) <= before


def test_maps_on_disk_are_read_as_an_array_is(tmp_path):
    plain = stored(tmp_path / "maps", 9)
    maps = read_attributions(tmp_path / "maps")
    found = maps.values
    assert found.shape == plain.shape and found.dtype == plain.dtype and found.ndim == 3 and len(found) == 9
    picked = np.random.default_rng(1).random(9) < 0.5
    for key in (0, -1, np.int64(5), slice(None), slice(3, 3), slice(1, 8, 3), slice(None, None, -2), picked):
        np.testing.assert_array_equal(found[key], plain[key])
    for key in ([8, 0, 3, 3], np.array([-1, 2]), (4, 2), (slice(2, 7), 1, slice(None, 3)), ([1, 6], ..., 0)):
        np.testing.assert_array_equal(found[key], plain[key])
    np.testing.assert_array_equal(np.asarray(found), plain)
    np.testing.assert_array_equal(np.stack(list(found)), plain)
    np.testing.assert_array_equal(maps.errors[2:5], plain[2:5] / 2)
    for beyond in (9, -10):
        with pytest.raises(IndexError):
            found[beyond]


def test_maps_that_go_after_they_were_looked_at_are_a_sentence(tmp_path):
    stored(tmp_path / "maps")
    maps = read_attributions(tmp_path / "maps")
    (tmp_path / "maps" / "00001.values.npy").unlink()
    assert maps.values[:2].shape == (2, 4, 5)
    with pytest.raises(UserError, match=r"maps cannot be read \(FileNotFoundError"):
        maps.values[2]


def test_twins_are_the_source_averaged_and_blurred(tmp_path):
    from scipy.ndimage import gaussian_filter

    _, images = make_context()
    source = run(tmp_path, "lrp")
    segmenter = Segmenter(PARAMS)
    twin, _ = derive_images("lrp_superpixel", source, images, segmenter, PARAMS, tmp_path / "twin", made={"a": 1})
    segments = segmenter(images[INDICES[4]], 4)
    for label in range(segments.max() + 1):
        inside = segments == label
        np.testing.assert_allclose(twin.values[4][inside], source.values[4][inside].mean(), rtol=1e-5)
    blurred, _ = derive_images("lrp_blurred", source, images, segmenter, PARAMS, tmp_path / "blur", made={"a": 2})
    np.testing.assert_allclose(blurred.values[4], gaussian_filter(source.values[4].astype(float), 1.5), rtol=1e-5)


def test_a_shard_with_a_bad_image_is_not_written(tmp_path, monkeypatch):
    from iic.explainers import perturbation

    compose = perturbation.compose

    def poisoned(image, fill, keep, out, parts=None):
        compose(image, fill, keep, out, parts)
        if torch.equal(image[..., 0], torch.from_numpy(make_context()[1][13, 0]).float()):
            out.fill_(float("nan"))

    monkeypatch.setattr(perturbation, "compose", poisoned)
    with pytest.raises(UserError, match="test image 13 is not finite"):
        run(tmp_path)
    (work,) = tmp_path.iterdir()
    assert sorted(p.name[:5] for p in work.glob("*.numbers.npy")) == ["00000"]  # image 13 is in the second shard


@pytest.mark.parametrize("method", ["kernel_shap", "kernel_shap_fast"])
@pytest.mark.parametrize("superpixels", [9, 16])
def test_early_stopping_spends_less_and_says_so(tmp_path, method, superpixels):
    params = PARAMS.model_copy(update={"budget": 600, "stop_early": True, "superpixels": superpixels})
    maps = run(tmp_path / "early", method, params)
    whole = run(tmp_path / "whole", method, params.model_copy(update={"stop_early": False}))
    context, images = make_context(params)
    for found in (maps, whole):
        for row, index in enumerate(INDICES):
            segments = context.segments(images[index], int(index))
            firsts = np.unique(segments, return_index=True)[1]
            values, errors = (kept[row].ravel()[firsts].astype(float) for kept in (found.values, found.errors))
            assert found.extras["settled"][row] == is_stable(values, errors, segments)  # by its own values and errors
    assert (maps.extras["forwards"] <= whole.extras["forwards"]).all()
    spent = maps.extras["forwards"] == whole.extras["forwards"]
    assert (spent | (maps.extras["settled"] == 1)).all()
    np.testing.assert_allclose(maps.values[:][spent], whole.values[:][spent], atol=1e-6)


@pytest.mark.parametrize("method", ["lrp", "lrp_gamma_box"])
def test_stored_shares_of_the_logit_add_up_to_it(tmp_path, method):
    maps = run(tmp_path, method)
    context, images = make_context()
    explained = logits(context.plain, torch.from_numpy(images[INDICES])).numpy()[np.arange(10), TARGETS]
    kept = maps.extras
    np.testing.assert_allclose(kept["logit"], explained, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(kept["input"], maps.values[:].sum((1, 2)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(kept["input"] + kept["bias"] + kept["epsilon"], explained, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(kept["relevance_1"], kept["input"], rtol=1e-4, atol=1e-4)  # the layer on the pixels
