"""Mixed pictures, and networks that learn from networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iic.checks import check_weights
from iic.classifiers.checkpoint import Checkpoint
from iic.classifiers.distillation import Teachers, load_teachers
from iic.classifiers.inference import freeze, predicted_class, probabilities
from iic.classifiers.mixing import Mixed, cut_mix
from iic.classifiers.networks import build_network
from iic.classifiers.recipe import Recipe
from iic.classifiers.training import train
from iic.data.images import ImageSet
from iic.data.sources import load_digits
from iic.errors import UserError
from iic.files import sha256
from iic.params import AttributionParams, BayesianParams, DataParams, TrainingParams
from iic.pipelines.training.nodes import train_model

CARD = {"train": {"images_per_class": dict.fromkeys("0123456789", 100), "mean": [33.0], "std": [78.0], "sha256": "x"}}


def test_a_mixed_picture_has_one_rectangle_of_its_partner_and_that_share_is_its_area():
    images = torch.arange(300).view(300, 1, 1, 1).expand(300, 3, 20, 24).contiguous()  # each its own number
    views, mixed = cut_mix(images, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.partners.sort().values, torch.arange(300))
    for number, (view, partner, share) in enumerate(zip(views, *mixed, strict=True)):
        other = (view == partner).all(0) & (partner != number)
        assert (view[:, ~other] == number).all()
        if other.any():
            rows, columns = other.any(1).nonzero(), other.any(0).nonzero()
            assert other.sum() == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert share == pytest.approx(other.sum().item() / 480)
    assert 0.4 < mixed.shares.max() <= 0.5
    assert mixed.shares.mean() == pytest.approx(0.25, abs=0.04)  # sides are rounded down


def test_so_many_pictures_are_mixed_and_the_rectangles_lie_anywhere():
    images = torch.arange(4000).view(4000, 1, 1, 1).expand(4000, 1, 16, 16).contiguous()
    views, mixed = cut_mix(images, 0.3, torch.Generator().manual_seed(0))
    assert (views != images).flatten(1).any(1).float().mean() == pytest.approx(0.3, abs=0.03)
    places = (views != images).float().mean((0, 1))
    assert places.min() > 0 and torch.allclose(places, places.flip(0, 1), atol=0.03)
    none, kept = cut_mix(images, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(none, images) and (kept.shares == 0).all() and (mixed.shares > 0).any()


def test_labels_are_mixed_as_the_pictures_are():
    mixed = Mixed(torch.tensor([2, 0, 1]), torch.tensor([0.25, 0.0, 0.5]))
    soft = mixed.soften(torch.tensor([1, 0, 2]), torch.tensor([2, 0]), 3)
    torch.testing.assert_close(soft, torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.75, 0.25]]))


@pytest.fixture(scope="module")
def taught():
    """Digits, a quarter of them, and two networks that know them."""
    data, test = load_digits()
    some = ImageSet(data.images[::4].copy(), data.labels[::4].copy())
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(build_network([33.0], [78.0], widths=(8, 16, 16)))
        train(networks[-1], some, Recipe(epochs=4, batch_size=100, flip=False), seed=seed)
    return some, test, networks


@pytest.mark.parametrize("side", [28, 26])
def test_the_teachers_answer_is_the_mean_of_theirs_every_second_one_before_a_mirror(taught, side):
    some, test, networks = taught
    pixels = torch.from_numpy(test.images[:200, :, :side, :side])
    sample = torch.from_numpy(some.images)
    for mirrored in (False, True):
        second = pixels.flip(-1) if mirrored else pixels
        wanted = [probabilities(freeze(net), x) for net, x in zip(networks, (pixels, second), strict=True)]
        found = Teachers(networks, sample, mirrored, "cpu")(pixels)
        assert (found - torch.stack(wanted).mean(0)).abs().mean() < 0.005  # in 8 bits, where there are some
        torch.testing.assert_close(found.sum(1), torch.ones(200))


def learn(data: ImageSet, networks, seed=0, **options):
    torch.manual_seed(5)
    model = build_network([33.0], [78.0], widths=(8, 16, 16))
    recipe = Recipe(epochs=4, batch_size=100, flip=False, cutmix=0.5, crop=26, crop_epochs=2)
    curve = train(model, data, recipe, seed=seed, teachers=networks, **options)
    return model, curve


def test_answers_are_learnt_and_labels_are_not(taught):
    """With labels of other images it still learns what its teachers know."""
    some, test, networks = taught
    wrong = ImageSet(some.images, np.random.default_rng(0).permutation(some.labels))
    images = torch.from_numpy(test.images)
    right = [(predicted_class(m, images).numpy() == test.labels).mean() for m in (*networks, learn(wrong, networks)[0])]
    assert right[-1] > 0.9 and min(right[:2]) > 0.9
    alone = learn(wrong, ())[0]
    assert (predicted_class(alone, images).numpy() == test.labels).mean() < 0.3


def test_mixed_pictures_teach_digits_too(taught):
    some, test, _ = taught
    model, curve = learn(some, ())
    assert (predicted_class(model, torch.from_numpy(test.images)).numpy() == test.labels).mean() > 0.9
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_an_interrupted_learner_ends_in_the_same_weights(taught, tmp_path):
    some, _, networks = taught

    def stop(sequence):
        for number, item in enumerate(sequence):
            if number == 25:  # in the third epoch, the first of whole pictures
                raise KeyboardInterrupt
            yield item

    checkpoint = Checkpoint(tmp_path / "training.checkpoint", {"seed": 0})
    with pytest.raises(KeyboardInterrupt):
        learn(some, networks, checkpoint=checkpoint, progress=stop)
    whole, again = learn(some, networks)[0], learn(some, networks, checkpoint=checkpoint)[0]
    for left, right in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_learning_curve_names_the_teachers_and_what_is_none_is_refused(taught, tmp_path):
    some, _, networks = taught
    torch.save(networks[0].state_dict(), tmp_path / "teacher.pt")
    numbers = {"epochs": 1, "widths": (4, 4, 4), "batch_size": 100, "dtype": "float32"}
    params = TrainingParams(**numbers, teachers=("teacher.pt",))
    _, curve = train_model(params, some, CARD, "digits", tmp_path)
    assert curve["teachers"] == {"teacher.pt": sha256(tmp_path / "teacher.pt")}
    assert "teachers" not in train_model(TrainingParams(**numbers), some, CARD, "digits")[1]
    with pytest.raises(UserError, match=r"for 1 channels and 10 classes, not 3 and 10"):
        load_teachers([tmp_path / "teacher.pt"], 3, 10)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no tensors")
    others = {"bayesian": BayesianParams(), "attribution": AttributionParams()}
    data = DataParams(source="digits", channels=1, class_names=tuple("0123456789"))
    for name, message in (("missing", "no file"), ("other", "no network of this project"), ("text", "no network of")):
        training = TrainingParams(**numbers, teachers=(f"{name}.pt",))
        with pytest.raises(UserError, match=message):
            check_weights({"digits": {"training": training, "data": data, **others}}, [], tmp_path)
