"""Weights that come with the project: checksums, float16, and a run that uses them."""

import json
import shutil

import pytest
import torch
from conftest import QUICK_DOUBT, QUICK_JUDGING, ROOT, kedro, make_project

from iic.errors import UserError
from iic.shipped import FOLDER, as_shipped, card_path, check_shipped, load_shipped, ship

SHIPPED = sorted((ROOT / FOLDER).glob("*.pt"))


def test_weights_come_back_and_an_altered_file_is_refused(tmp_path):
    state = {"large": torch.randn(50, 50), "small": torch.randn(7), "count": torch.tensor(3)}
    path = tmp_path / "digits.pt"
    ship(state, path, {"train_sha256": "abc"})
    assert check_shipped(path, "abc")["train_sha256"] == "abc"
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


def test_what_is_shipped_is_what_the_cards_say():
    assert sum(path.stat().st_size for path in SHIPPED) <= 25e6
    for path in SHIPPED:
        card = check_shipped(path)
        assert card_path(path).name == f"{path.name}.json"
        assert {"dataset", "train_sha256", "recipe", "seed", "date", "code", "sha256"} <= set(card)


def test_a_run_ships_and_a_run_uses_what_was_shipped(finished_run, tmp_path):
    project, _ = finished_run
    shutil.copytree(project, tmp_path / "project")
    project = tmp_path / "project"
    shutil.rmtree(project / FOLDER, ignore_errors=True)  # those of the repository
    shipped = kedro(project, "ship", "digits", "shapes")
    assert shipped.returncode == 0, shipped.stderr
    assert {p.name for p in (project / FOLDER).glob("*.pt")} == {"digits.pt", "digits_bayesian.pt", "shapes.pt"}
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
    assert "training:" not in result.stderr
    (report,) = (clone / "data/08_reporting/digits/accuracy_report.json").glob("*/accuracy_report.json")
    assert json.loads(report.read_text())["model"]["test"]["accuracy"] >= 0.985
