import math
import time

import numpy as np
import pytest
import torch
from conftest import needs_cuda
from torch import nn
from torch.nn import functional

from iic.checks import check_weights
from iic.classifiers import training
from iic.classifiers.augmentation import augment
from iic.classifiers.batchnorm import settle
from iic.classifiers.checkpoint import Checkpoint
from iic.classifiers.inference import logits, predicted_class
from iic.classifiers.networks import build_network
from iic.classifiers.recipe import Recipe
from iic.classifiers.training import _seen, pool_early, train
from iic.classifiers.training_dtype import bfloat16_agrees
from iic.data.images import ImageSet
from iic.data.shapes import draw_shapes
from iic.data.sources import load_digits
from iic.errors import UserError
from iic.params import AttributionParams, BayesianParams, DataParams, TrainingParams
from iic.pipelines.training.nodes import checkpoint_path, train_model


def windows_seen(images, padded, side, recipe, epoch):
    """Where in the padded images the views of one epoch are found; each at exactly one place."""
    seen = set()
    views = augment(images, epoch, recipe, torch.Generator().manual_seed(1))
    places = range(padded.shape[-1] - side + 1)
    for view, whole in zip(views, padded, strict=True):
        found = [(y, x) for y in places for x in places if torch.equal(view, whole[:, y : y + side, x : x + side])]
        assert len(found) == 1
        seen.add(found[0])
    return seen


def test_shifts_are_windows_of_the_reflected_image_and_crops_of_the_image_itself():
    images = torch.randint(0, 256, (300, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(epochs=2, flip=False, shift=2, crop=8, crop_epochs=1)
    assert len(windows_seen(images, images, 8, recipe, epoch=0)) == 25
    padded = functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    assert len(windows_seen(images, padded, 12, recipe, epoch=1)) == 25


def test_cutout_blanks_one_square_at_most_and_leaves_the_rest_alone():
    images = torch.randint(0, 256, (200, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = augment(images, 0, Recipe(epochs=1, flip=False, shift=0, cutout=6), torch.Generator().manual_seed(1))
    mean = images.double().mean((0, 2, 3)).floor().to(torch.uint8)
    blank = (views != images).any(1)  # (N, H, W)
    for view, image, at in zip(views, images, blank, strict=True):
        rows, columns = at.any(1).nonzero(), at.any(0).nonzero()
        assert 0 < len(rows) <= 6 and 0 < len(columns) <= 6
        square = view[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert torch.equal(square, mean.view(3, 1, 1).expand_as(square))
        assert torch.equal(view[:, ~at], image[:, ~at])


def test_pruning_leaves_out_easy_images_only_and_keeps_the_gradient_unbiased():
    losses = torch.linspace(0, 2, 1000) ** 2
    recipe, generator = Recipe(epochs=10, prune=0.5), torch.Generator().manual_seed(0)
    hard = losses >= losses.mean()
    total = torch.zeros(1000)
    for _ in range(400):
        order, weights = _seen(losses, 3, recipe, generator)
        assert len(order.unique()) == len(order) < 1000
        total[order] += weights[order]
    assert torch.equal(total[hard], torch.full((hard.sum(),), 400.0))
    torch.testing.assert_close(total[~hard].mean(), torch.tensor(400.0), atol=4.0, rtol=0)
    everyone = [_seen(losses, 9, recipe, generator), _seen(losses / 0, 3, recipe, generator)]
    assert all(len(order) == 1000 and (weights == 1).all() for order, weights in everyone)


@pytest.fixture(scope="module")
def trained():
    data, test = load_digits()
    some = ImageSet(data.images[::4].copy(), data.labels[::4].copy())

    def run(**options):
        torch.manual_seed(0)
        model = build_network([33.0], [78.0], widths=(8, 16, 16))
        curve = train(model, some, Recipe(epochs=4, batch_size=100, flip=False, prune=0.3), seed=0, **options)
        return model, curve

    return run, run(), test


def test_accuracy_is_a_share_of_what_was_seen_though_images_weigh_differently(monkeypatch):
    """If every class is named right, it is 1 in each epoch, whatever was left out."""
    backward = training.backward
    monkeypatch.setattr(training, "backward", lambda *given: (backward(*given)[0], torch.ones(len(given[1]))))
    data, _ = load_digits()
    some = ImageSet(data.images[::8].copy(), data.labels[::8].copy())
    model = build_network([33.0], [78.0], widths=(4, 4, 4))
    curve = train(model, some, Recipe(epochs=3, batch_size=100, flip=False, prune=0.8), seed=0)
    assert [row["accuracy"] for row in curve] == [1.0] * 3
    assert [row["images"] == 500 for row in curve] == [True, False, True]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_every_device_trains_and_goes_on_from_the_others_checkpoint(device, tmp_path):
    data, test = load_digits()
    some = ImageSet(data.images[::2].copy(), data.labels[::2].copy())

    def run(where, **options):
        torch.manual_seed(0)
        model = build_network([33.0], [78.0], widths=(8, 16, 16))
        recipe = Recipe(epochs=2, batch_size=100, flip=True, shift=1, cutout=4)
        train(model, some, recipe, seed=0, device=where, **options)
        assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
        return model, (predicted_class(model, torch.from_numpy(test.images)).numpy() == test.labels).mean()

    model, accuracy = run(device)
    again, _ = run(device)
    assert accuracy > 0.8
    for left, right in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    for first, second in {("cpu", device), (device, "cpu")}:
        checkpoint = Checkpoint(tmp_path / f"{first}.checkpoint", {"seed": 0})
        with pytest.raises(Killed):
            run(first, checkpoint=checkpoint, progress=stop_after(25))  # twenty steps an epoch
        assert run(second, checkpoint=checkpoint)[1] > 0.8


def test_a_micro_batch_of_zero_is_what_suits_the_device():
    recipe = Recipe(epochs=1, batch_size=700, micro_batch=0)
    assert (recipe.on("cpu").micro_batch, recipe.on("cuda").micro_batch) == (125, 700)
    assert Recipe(epochs=1, micro_batch=60).on("cuda").micro_batch == 60
    with pytest.raises(ValueError, match="a micro_batch of one image"):
        TrainingParams(micro_batch=1)


@needs_cuda
def test_bfloat16_trains_on_cuda():
    data = draw_shapes(1000, seed=0)
    torch.manual_seed(0)
    model = build_network([128.0] * 3, [64.0] * 3, widths=(16, 32, 64))
    recipe = Recipe(epochs=6, batch_size=100, micro_batch=100)
    train(model, data, recipe, seed=0, dtype=torch.bfloat16, device="cuda")
    assert (predicted_class(model, torch.from_numpy(data.images)).numpy() == data.labels).mean() > 0.7


CARD = {"train": {"images_per_class": dict.fromkeys("0123456789", 100), "mean": [33.0], "std": [78.0], "sha256": "x"}}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused_before_work_starts(tmp_path):
    params, grey = TrainingParams(device="cuda"), DataParams(source="digits", channels=1, class_names=("0", "1"))
    others = {"bayesian": BayesianParams(), "attribution": AttributionParams(), "data": grey}
    with pytest.raises(UserError, match="no CUDA device"):
        check_weights({"digits": {"training": params, **others}}, [], tmp_path)
    with pytest.raises(UserError, match="no CUDA device"):
        train_model(params, load_digits()[0], CARD, "digits", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_found_again_whatever_the_device_is_called(tmp_path, monkeypatch):
    data, _ = load_digits()
    some = ImageSet(data.images[::4].copy(), data.labels[::4].copy())
    numbers = {"epochs": 3, "widths": (4, 4, 4), "batch_size": 100, "dtype": "float32"}
    monkeypatch.setattr("iic.pipelines.training.nodes.bar", lambda *_: stop_after(15))  # ten steps an epoch
    with pytest.raises(Killed):
        train_model(TrainingParams(**numbers), some, CARD, "digits", tmp_path)
    without = {name: value for name, value in TrainingParams(**numbers).model_dump().items() if name != "device"}
    found = Checkpoint(checkpoint_path(tmp_path, "digits"), {"params": without, "data": "x"})
    assert found.load() is not None and found.dtype == "float32"
    steps = []
    monkeypatch.setattr("iic.pipelines.training.nodes.bar", lambda *_: lambda s: (steps.append(i) or i for i in s))
    _, curve = train_model(TrainingParams(**numbers, device="cpu"), some, CARD, "digits", tmp_path)
    assert steps == list(range(10, 30)) and curve["device"] == "cpu"


def test_digits_are_learnt_in_a_few_epochs(trained):
    _, (model, curve), test = trained
    assert [row["epoch"] for row in curve] == [1, 2, 3, 4]
    assert curve[-1]["loss"] < curve[0]["loss"]
    predicted = predicted_class(model, torch.from_numpy(test.images)).numpy()
    assert (predicted == test.labels).mean() > 0.93


def test_pooling_early_computes_the_same_once_trained(trained):
    _, (model, _), test = trained
    pooled_first = pool_early(model)
    kinds = [type(module).__name__ for module in pooled_first]
    assert kinds[3:10] == ["SideBySide", "MaxPool2d", "BatchNorm2d", "ReLU", "SideBySide", "BatchNorm2d", "ReLU"]
    assert kinds[-6:] == ["SideBySide", "BatchNorm2d", "ReLU", "MaxPool2d", "Flatten", "Linear"]
    images = torch.from_numpy(test.images)
    torch.testing.assert_close(logits(pooled_first, images), logits(model, images), atol=1e-4, rtol=1e-4)


def test_final_statistics_are_those_of_all_images_though_they_are_sorted_by_class():
    data, _ = load_digits()
    assert (np.diff(data.labels) >= 0).all()
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(8, 16, 16))
    train(model, data, Recipe(epochs=1, batch_size=100, flip=False), seed=0)
    with torch.no_grad():
        seen = nn.Sequential(*pool_early(model)[:5])(torch.from_numpy(data.images))  # what the first BatchNorm is given
    torch.testing.assert_close(model[4].running_mean, seen.mean((0, 2, 3)), rtol=0.02, atol=0.02)
    torch.testing.assert_close(model[4].running_var, seen.var((0, 2, 3)), rtol=0.05, atol=0.02)


def test_a_loss_that_is_no_number_is_an_error():
    data, _ = load_digits()
    model = build_network([33.0], [78.0], widths=(4, 4, 4))
    with pytest.raises(UserError, match="no longer finite in epoch 1"):
        train(model, data, Recipe(epochs=1, batch_size=100, head_lr=math.inf), seed=0)


def test_the_same_seed_gives_the_same_weights(trained):
    run, (model, curve), _ = trained
    again, curve_again = run()
    assert curve == curve_again
    for left, right in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)


class Killed(Exception):
    pass


def stop_after(steps):
    """A progress wrapper that ends the process's work in the middle of an epoch."""

    def wrapped(sequence):
        for number, item in enumerate(sequence):
            if number == steps:
                raise Killed
            yield item

    return wrapped


def test_an_interrupted_training_goes_on_and_ends_in_the_same_weights(trained, tmp_path):
    run, (model, curve), _ = trained
    checkpoint = Checkpoint(tmp_path / "training.checkpoint", {"seed": 0})
    with pytest.raises(Killed):
        run(checkpoint=checkpoint, progress=stop_after(25))  # ten steps an epoch: two whole epochs
    assert [row["epoch"] for row in checkpoint.load()["curve"]] == [1, 2]
    steps = []
    again, curve_again = run(checkpoint=checkpoint, progress=lambda s: (steps.append(i) or i for i in s))
    assert steps == list(range(20, 40))
    assert curve == curve_again
    for left, right in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_seconds_of_an_interrupted_training_count(tmp_path):
    path = tmp_path / "training.checkpoint"
    first = Checkpoint(path, {"seed": 0})
    time.sleep(0.2)
    first.save({"curve": []})
    second, other = Checkpoint(path, {"seed": 0}), Checkpoint(path, {"seed": 1})
    assert second.load() == {"curve": []} and other.load() is None
    assert second.earlier_seconds >= 0.2 and other.earlier_seconds == 0
    second.save({"curve": []})
    third = Checkpoint(path, {"seed": 0})
    third.load()
    assert third.earlier_seconds > second.earlier_seconds


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_used(trained, tmp_path, caplog):
    run, _, _ = trained
    path = tmp_path / "training.checkpoint"
    with pytest.raises(Killed):
        run(checkpoint=Checkpoint(path, {"seed": 0}), progress=stop_after(12))
    assert Checkpoint(path, {"seed": 0}).load() is not None
    assert not caplog.records
    assert Checkpoint(path, {"seed": 1}).load() is None
    assert "is of other parameters, data or version: the training begins anew" in caplog.text
    path.write_bytes(path.read_bytes()[:1000])
    assert Checkpoint(path, {"seed": 0}).load() is None


def test_an_interrupted_training_goes_on_in_the_type_that_it_began_in(tmp_path, monkeypatch):
    """Whatever timing says is faster the second time."""
    some = draw_shapes(200, seed=0)
    card = {**CARD, "train": {**CARD["train"], "mean": [100.0] * 3, "std": [60.0] * 3}}
    params = TrainingParams(epochs=3, widths=(4, 4, 4), batch_size=100, micro_batch=50)
    fast = {"now": "bfloat16"}
    monkeypatch.setattr("iic.classifiers.training_dtype.choose_dtype", lambda *_: getattr(torch, fast["now"]))
    whole, _ = train_model(params, some, card, "shapes", tmp_path / "whole")
    with monkeypatch.context() as interrupted, pytest.raises(Killed):
        interrupted.setattr("iic.pipelines.training.nodes.bar", lambda *_: stop_after(5))  # two steps an epoch
        train_model(params, some, card, "shapes", tmp_path / "killed")
    fast["now"] = "float32"
    again, curve = train_model(params, some, card, "shapes", tmp_path / "killed")
    assert curve["dtype"] == "bfloat16"
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_predictions_do_not_depend_on_the_batch_size(trained):
    _, (model, _), test = trained
    images = torch.from_numpy(test.images[:50])
    parts = torch.cat([logits(model, part) for part in images.split(7)])
    torch.testing.assert_close(parts, logits(model, images), atol=1e-4, rtol=1e-4)
    assert parts.isfinite().all()


def test_bfloat16_is_used_only_where_its_gradients_are_float32s():
    """On digits rounding errors outgrow the biases' gradients at the start; on drawn shapes in colour they do not."""
    digits, _ = load_digits()
    recipe = Recipe(epochs=1, micro_batch=100)
    for data, channels, agrees in ((digits, 1, False), (draw_shapes(200, seed=0), 3, True)):
        torch.manual_seed(0)
        pixels = data.images.transpose(1, 0, 2, 3).reshape(channels, -1)
        model = build_network(pixels.mean(1).tolist(), pixels.std(1).tolist(), widths=(16, 32, 64))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        assert bfloat16_agrees(model, data, recipe) is agrees
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_settled_statistics_are_the_mean_over_the_batches():
    norm = nn.BatchNorm2d(2, momentum=0.3).eval()
    batches = [torch.randn(50, 2, 4, 4, generator=torch.Generator().manual_seed(s)) * 3 + s for s in range(4)]
    settle(norm, [norm], batches)
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0))
    assert norm.momentum == 0.3 and not norm.training
