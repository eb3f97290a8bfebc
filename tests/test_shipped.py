"""Weights that come with the project: checksums, float16, and a run that uses them."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import QUICK_DOUBT, QUICK_JUDGING, ROOT, kedro, make_project

from iic.bayes import network
from iic.bayes.inference import Posterior, sample_probabilities
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.files import record_path
from iic.shipped import FOLDER, SMALL, as_shipped, card_path, check_shipped, load_shipped, network_path, ship
from iic.shipping import ship_posterior

SHIPPED = sorted((ROOT / FOLDER).glob("*.pt"))


def test_weights_come_back_and_an_altered_file_is_refused(tmp_path):
    state = {"large": torch.randn(50, 50), "small": torch.randn(7), "count": torch.tensor(3)}
    path = tmp_path / "digits.pt"
    ship(state, path, {"train_content_sha256": "abc"})
    assert check_shipped(path, "abc")["train_content_sha256"] == "abc"
    loaded = load_shipped(path)
    assert torch.equal(loaded["large"], state["large"].half().float())
    assert torch.equal(loaded["small"], state["small"]) and loaded["count"] == 3
    assert all(torch.equal(loaded[name], tensor) for name, tensor in as_shipped(state).items())
    with pytest.raises(UserError, match="trained on other images"):
        check_shipped(path, "xyz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not the file that its model card describes"):
        check_shipped(path)
    path.unlink()
    with pytest.raises(UserError, match="There are no shipped weights"):
        check_shipped(path)


def test_each_shipped_network_has_a_file_and_a_small_one_for_each_seed(tmp_path):
    assert network_path(tmp_path, "mnist") == network_path(tmp_path, "mnist", seed=5) == tmp_path / FOLDER / "mnist.pt"
    paths = {network_path(tmp_path, "mnist", SMALL, seed) for seed in range(3)}
    assert len(paths | {network_path(tmp_path, "mnist")}) == 4


class Shelf(dict):
    """As much of a catalog as shipping asks for."""

    def exists(self, name):
        return name in self

    def load(self, name):
        return super().__getitem__(name)

    def __getitem__(self, name):
        return self  # the entry, of which only the path is wanted

    def _get_load_path(self):
        return self.path


@pytest.mark.parametrize("size", [1.0, 1e8])
def test_a_posterior_that_float16_changes_is_not_shipped(tmp_path, size):
    """Weights of a million are infinite in float16, and in float32 as good as small ones."""
    torch.manual_seed(0)
    loc = {name: mean * size for name, mean in network.initial_means((784, 10)).items()}
    scale = {name: torch.full_like(mean, 1e-3 * size) for name, mean in loc.items()}
    posterior = Posterior(loc, scale, 0.1, torch.zeros(2, dtype=torch.float64))
    images = np.random.default_rng(0).integers(0, 256, (50, 1, 28, 28), dtype=np.uint8)
    labels = sample_probabilities(posterior, images, 20, seed=3).mean(0).argmax(1).numpy()  # all of them right
    shelf = Shelf(
        {
            "digits.posterior": posterior,
            "digits.test": ImageSet(images, labels),
            "digits.data_card": {
                "source": "digits",
                "train": {"sha256": "a", "content_sha256": "c"},
                "test": {"sha256": "b"},
            },
            "digits.bayesian_report": {"forced_accuracy": 1.0},
        }
    )
    shelf.path = tmp_path / "posterior.pt"
    made = {"parameters": {"digits.bayesian": {"samples": 20, "seed": 3}}, "code": {}, "date": "2026-01-01"}
    record_path(shelf.path).write_text(json.dumps(made))
    path = tmp_path / FOLDER / "digits_bayesian.pt"
    if size == 1:
        assert ship_posterior(shelf, "digits", tmp_path) == path
        assert check_shipped(path, "c")["forced_accuracy"] == 1
    else:
        with pytest.raises(UserError, match="float16 moves the test accuracy of 'digits' to 0"):
            ship_posterior(shelf, "digits", tmp_path)
        assert not path.exists()


def test_what_is_shipped_is_what_the_cards_say():
    assert sum(path.stat().st_size for path in SHIPPED) <= 25e6
    for path in SHIPPED:
        card = check_shipped(path)
        assert card_path(path).name == f"{path.name}.json"
        assert {"dataset", "train_sha256", "train_content_sha256", "recipe", "seed", "date", "code", "sha256"} <= set(
            card
        )


def test_a_run_ships_and_a_run_uses_what_was_shipped(finished_run, tmp_path):
    project, _ = finished_run
    shutil.copytree(project, tmp_path / "project")
    project = tmp_path / "project"
    shutil.rmtree(project / FOLDER, ignore_errors=True)  # those of the repository
    shipped = kedro(project, "ship", "digits", "shapes")
    assert shipped.returncode == 0, shipped.stderr
    assert {p.name for p in (project / FOLDER).glob("*.pt")} == {"digits.pt", "digits_bayesian.pt", "shapes.pt"}
    shipped = kedro(project, "ship", "--small", "digits")
    assert shipped.returncode == 0, shipped.stderr
    small = project / FOLDER / "digits_small_0.pt"
    assert small.read_bytes() == (project / FOLDER / "digits.pt").read_bytes()
    clone = make_project(tmp_path / "clone")
    shutil.rmtree(clone / FOLDER, ignore_errors=True)
    shutil.copytree(project / FOLDER, clone / FOLDER)
    small = (
        "digits.training.weights=shipped,digits.bayesian.weights=shipped,digits.attribution.n_images=10,"
        "digits.attribution.budget=110,digits.attribution.superpixels=20,"
        f"{QUICK_DOUBT},{QUICK_JUDGING}"
    )
    result = kedro(clone, "run", "--params", small, IIC_DATASETS="digits", IIC_METHODS="lrp,random")
    assert result.returncode == 0, result.stderr
    (report,) = (clone / "data/08_reporting/digits/accuracy_report.json").glob("*/accuracy_report.json")
    card = json.loads(card_path(clone / FOLDER / "digits.pt").read_text())
    found = json.loads(report.read_text())["model"]["test"]["accuracy"]
    assert found == pytest.approx(card["accuracy"]["test"]["accuracy"], abs=0.0006)
    with (clone / FOLDER / "digits.pt").open("ab") as file:
        file.write(b"x")
    refused = kedro(clone, "run", "--params", small, IIC_DATASETS="digits", IIC_METHODS="lrp,random")
    assert refused.returncode != 0 and "is not the file that its model card describes" in refused.stderr


def test_the_weights_of_the_repository_serve_a_run_without_training(tmp_path):
    clone = make_project(tmp_path / "clone")
    small = f"digits.training.weights=shipped,digits.attribution.n_images=10,{QUICK_JUDGING}"
    words = ("run", "--pipeline", "evaluation", "--params", small)
    result = kedro(clone, *words, IIC_DATASETS="digits", IIC_METHODS="lrp,random")
    assert result.returncode == 0, result.stderr
    assert "digits: training" not in result.stderr  # the network with a shortcut is trained
    (report,) = (clone / "data/08_reporting/digits/accuracy_report.json").glob("*/accuracy_report.json")
    assert json.loads(report.read_text())["model"]["test"]["accuracy"] >= 0.985
