"""A user's own network: a state dict with its factory, or a torch.export file."""

import io
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import QUICK_JUDGING, kedro, make_project

from iic.checks import check_parameters, check_weights
from iic.classifiers.own import check_export, check_forward, load_own, own_structure
from iic.errors import UserError

MODULE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(196, 10))

def with_sigmoid():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Sigmoid(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(196, 10))

class Tempered(nn.Module):
    def __init__(self, temperature):
        super().__init__()
        self.inner = build()
        if isinstance(temperature, torch.Tensor) and not isinstance(temperature, nn.Parameter):
            self.register_buffer("temperature", temperature)
        else:
            self.temperature = temperature

    def forward(self, x):
        return self.inner(x) / self.temperature

def with_a_parameter():
    return Tempered(nn.Parameter(torch.tensor(2.0)))

def with_a_number():
    return Tempered(2.0)

def with_many():
    return Tempered(torch.ones(10))

def with_a_buffer():
    return Tempered(torch.tensor(2.0))

def nothing():
    return 3

def with_arguments(width):
    return build()

def failing():
    raise KeyError("no such layer")

constant = 3

def with_norm():
    layers = list(build())
    return nn.Sequential(layers[0], nn.BatchNorm2d(4), *layers[1:])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds own_networks.py, a state dict and an export file of the same network."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_networks.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    from own_networks import build

    torch.manual_seed(0)
    model = build().eval()
    torch.save(model.state_dict(), folder / "own.pt")
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "own.pt2")
    yield folder, model
    sys.path.remove(str(folder))


def test_both_files_give_the_same_network(folder):
    path, model = folder
    pixels = torch.rand(5, 1, 28, 28) * 255
    with torch.no_grad():
        expected = model(pixels)
        for loaded in (load_own(path / "own.pt", "own_networks:build"), load_own(path / "own.pt2", None)):
            check_forward(loaded, (1, 28, 28), 10)
            torch.testing.assert_close(loaded(pixels), expected)


@pytest.mark.parametrize(
    ("name", "factory", "message"),
    [
        ("missing.pt", "own_networks:build", "There is no file"),
        ("own.pt", None, "is a state dict: give training.factory"),
        ("own.pt", "own_networks:other", "cannot be imported"),
        ("own.pt", "no_such_package:f", "cannot be imported"),
        ("own.pt", "own_networks:nothing", "made a int"),
        ("own.pt", "own_networks:with_arguments", r"failed without arguments \(TypeError: .*width"),
        ("own.pt", "own_networks:failing", r"failed without arguments \(KeyError: 'no such layer'\)"),
        ("own.pt", "own_networks:constant", "failed without arguments .*not callable"),
        (".", "own_networks:build", "There is no file"),
    ],
)
def test_what_cannot_be_loaded_is_named(folder, name, factory, message):
    with pytest.raises(UserError, match=message):
        load_own(folder[0] / name, factory)


@pytest.mark.parametrize("kind", ["a_parameter", "a_number", "many"])
def test_another_temperature_is_refused_by_name(folder, kind):
    with pytest.raises(UserError, match=r"own\.pt has something called 'temperature' that is no buffer of one number"):
        own_structure(folder[0] / "own.pt", f"own_networks:with_{kind}")


def test_a_temperature_that_comes_with_the_network_is_kept(folder):
    model = own_structure(folder[0] / "own.pt", "own_networks:with_a_buffer")
    assert model.temperature.item() == 2 and own_structure(folder[0] / "own.pt2", None).temperature.item() == 1


def test_a_network_of_another_form_is_refused_before_it_is_used(folder):
    with pytest.raises(UserError, match="does not take 2 images"):
        check_forward(folder[1], (3, 32, 32), 10)
    with pytest.raises(UserError, match=r"shape \(2, 7\)"):
        check_forward(folder[1], (1, 28, 28), 7)


class Bomb:
    def __reduce__(self):
        return exec, ("raise AssertionError('executed')",)


def test_nothing_in_an_export_file_is_executed(folder, tmp_path):
    path, _ = folder
    for place in ("model/data/sample_inputs/model.pt", "model/data/constants/custom_obj_0"):
        poisoned = tmp_path / "poisoned.pt2"
        with zipfile.ZipFile(path / "own.pt2") as source, zipfile.ZipFile(poisoned, "w") as target:
            for name in source.namelist():
                if not name.endswith("sample_inputs/model.pt") or "sample" not in place:
                    target.writestr(name, source.read(name))
            buffer = io.BytesIO()
            torch.save(Bomb(), buffer) if place.endswith(".pt") else pickle.dump(Bomb(), buffer)
            target.writestr(place, buffer.getvalue())
        with pytest.raises(UserError, match=r"holds (pickled|custom) objects"):
            check_export(poisoned)
    poisoned = tmp_path / "sizes.pt2"
    with zipfile.ZipFile(path / "own.pt2") as source, zipfile.ZipFile(poisoned, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b"Symbol('s", b"exec(1) or Symbol('s"))
    with pytest.raises(UserError, match="unusual sizes"):
        check_export(poisoned)


def test_a_state_dict_with_code_in_it_is_refused(folder, tmp_path):
    for content in ({"0.weight": Bomb()}, folder[1]):  # and a whole module, as some save it
        torch.save(content, tmp_path / "bomb.pt")
        with pytest.raises(UserError, match=r"holds more than tensors: write it with torch\.save\(model\.state_dict"):
            load_own(tmp_path / "bomb.pt", "own_networks:build")


def saved(content, path):
    torch.save(content, path)
    return path.read_bytes()


def test_files_that_are_something_else_are_named(folder, tmp_path):
    state, other = folder[1].state_dict(), tmp_path / "other.pt"
    contents = {
        b"a text": r"other\.pt cannot be read",
        b"": r"other\.pt cannot be read",
        saved({1: torch.zeros(1)}, other): r"other\.pt is no state dict: write",
        saved([torch.zeros(1)], other): r"other\.pt is no state dict: write",
        saved(
            {"epoch": 3, "state_dict": state}, other
        ): r"builds \(it has a dictionary 'state_dict': save that one alone",
        saved({**state, "0.bias": torch.zeros(9)}, other): "is no state dict of what .* size mismatch for 0.bias",
    }
    for content, message in contents.items():
        other.write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_own(other, "own_networks:build")


def test_export_files_that_are_something_else_are_named(folder, tmp_path):
    path, model = folder
    whole, other = (path / "own.pt2").read_bytes(), tmp_path / "other.pt2"
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 1
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("a.json", "{not json")
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as target:
        target.writestr("a.txt", "nothing")
    for content in (b"a text", whole[:-100], bytes(broken), archive.getvalue(), empty.getvalue()):
        other.write_bytes(content)
        with pytest.raises(UserError, match=r"other\.pt2 is no torch\.export file"):
            load_own(other, None)
    other.write_bytes(saved(model.state_dict(), tmp_path / "state.pt"))
    with pytest.raises(UserError, match=r"other\.pt2 is no torch\.export file"):
        load_own(other, None)


def exported(model, path, largest=4096):
    batch = torch.export.Dim("batch", min=1, max=largest)
    torch.export.save(torch.export.export(model, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: batch},)), path)
    return load_own(path, None)


def test_an_export_in_training_mode_or_for_few_images_is_refused(folder, tmp_path):
    from own_networks import with_norm

    torch.manual_seed(0)
    check_forward(exported(with_norm().eval(), tmp_path / "whole.pt2"), (1, 28, 28), 10)
    with pytest.raises(UserError, match=r"depend on the other images of a batch.*call model\.eval\(\)"):
        check_forward(exported(with_norm().train(), tmp_path / "training.pt2"), (1, 28, 28), 10)
    with pytest.raises(UserError, match="does not take 64 images"):
        check_forward(exported(folder[1], tmp_path / "few.pt2", largest=4), (1, 28, 28), 10)


def blocks(**training):
    parameters = {"digits": {"data": {"source": "digits", "class_names": list("0123456789"), "channels": 1}}}
    parameters["digits"]["training"] = training
    return check_parameters(parameters, ["digits"])


def test_a_network_is_tried_and_its_weights_looked_at_before_work_starts(folder, tmp_path):
    path = folder[0]
    check_weights(blocks(weights=str(path / "own.pt2")), ["lime", "random"], tmp_path)
    with pytest.raises(UserError, match="in no layer that can draw them anew"):
        check_weights(blocks(weights=str(path / "own.pt2")), ["lime", "lime_random_weights"], tmp_path)
    exported(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 7)), tmp_path / "seven.pt2")
    with pytest.raises(UserError, match=r"finite logits of shape \(2, 10\)"):
        check_weights(blocks(weights=str(tmp_path / "seven.pt2")), ["random"], tmp_path)


@pytest.mark.parametrize("weights", ["trained", "shipped", "shipped_small", "own.pt2"])
def test_a_factory_without_a_state_dict_is_refused(weights):
    with pytest.raises(UserError, match=f"factory builds the module of a state dict, and weights is '{weights}'"):
        blocks(weights=weights, factory="own_networks:build")


SMALL = (
    "digits.attribution.n_images=20,digits.attribution.budget=110,digits.attribution.superpixels=20,digits.evaluation.bootstrap=100,"
    "digits.evaluation.noise_seeds=[0]"
)


def run(project, parameters, **environment) -> subprocess.CompletedProcess:
    words = ("run", "--pipelines", "evaluation", "--params", f"{SMALL},{QUICK_JUDGING},{parameters}")
    return kedro(project, *words, IIC_DATASETS="digits", **environment)


def test_a_whole_run_with_own_networks(folder, tmp_path):
    path, _ = folder
    project = make_project(tmp_path / "project")
    own = f"digits.training.weights={path}/own.pt,digits.training.factory=own_networks:build"
    result = run(project, own, PYTHONPATH=str(path))
    assert result.returncode == 0, result.stderr
    another = kedro(
        project,
        *("run", "--pipelines", "attribution", "--params", f"{SMALL},digits.training.weights={path}/own.pt2"),
        IIC_DATASETS="digits",
        IIC_METHODS="random",
    )
    assert another.returncode != 0 and "The newest network of 'digits' was made with training.weights" in another.stderr
    bad = f"digits.training.weights={path}/own.pt,digits.training.factory=own_networks:with_sigmoid"
    refused = run(project, bad, PYTHONPATH=str(path))
    assert refused.returncode != 0 and "LRP has no rule for layer 1 (Sigmoid)" in refused.stderr
    exported = f"digits.training.weights={path}/own.pt2"
    refused = run(project, exported)
    assert refused.returncode != 0 and "LRP has no rule for layer" in refused.stderr
    result = run(project, exported, IIC_METHODS="kernel_shap,random")
    assert result.returncode == 0, result.stderr
