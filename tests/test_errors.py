"""Bad input: one sentence that names the thing and the way out, before long work, nothing half-written."""

import io
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import kedro, make_project
from PIL import Image


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("errors"))


CASES = {
    "unknown dataset": ((), {"IIC_DATASETS": "digitz"}, ["Unknown dataset 'digitz'", "digits"]),
    "unknown method": ((), {"IIC_METHODS": "lime,shapley"}, ["Unknown method 'shapley'", "kernel_shap"]),
    "unknown namespace": (("--namespaces", "digits.lpr"), {}, ["digits.lpr", "registry list"]),
    "unknown pipeline": (("--pipelines", "evaluate"), {}, ["evaluate", "registry list"]),
    "unknown parameter": (
        ("--params", "digits.attribution.n_image=50"),
        {},
        ["digits.attribution.n_image'", "did you mean 'n_images'"],
    ),
    "unknown block": (("--params", "digits.attributions.n_images=50"), {}, ["digits.attributions", "attribution"]),
    "wrong type": (("--params", "digits.attribution.n_images=many"), {}, ["digits.attribution.n_images", "'many'"]),
    "out of range": (("--params", "digits.evaluation.keep=1.5"), {}, ["digits.evaluation.keep", "less than 1"]),
    "no pixel": (
        ("--params", "digits.evaluation.keep=0.0005"),
        {},
        ["digits.evaluation.keep has 0.0005", "784 pixels"],
    ),
    "no list": (
        ("--params", "digits.evaluation.fills=road"),
        {},
        ["digits.evaluation.fills", "conf/local/parameters.yml", "digits: {evaluation: {fills: [...]}}"],
    ),
    "no such class": (("--params", "digits.evaluation.shortcut_class=12"), {}, ["shortcut_class is 12", "10 classes"]),
    "nearly a group of methods": ((), {"IIC_METHODS": "studdy"}, ["did you mean 'study'"]),
    "negative seed": (("--params", "digits.evaluation.seed=-1"), {}, ["digits.evaluation.seed", "-1"]),
    "small budget": (("--params", "digits.attribution.budget=60"), {}, ["digits.attribution", "budget of 60"]),
    "another dataset's parameter": (("--params", "mnist.attribution.n_imges=5"), {}, ["'mnist.attribution.n_imges'"]),
    "a dataset that is not run": (("--params", "mnist.training.epochs=1"), {}, ["'mnist'", "IIC_DATASETS=mnist"]),
    "too many of a few images": (("--params", "digits.data.n_test=100"), {}, ["n_images", "200", "100"]),
    "too many images": (("--params", "digits.attribution.n_images=1001"), {}, ["n_images", "1001", "1000"]),
    "no files": ((), {"IIC_DATASETS": "mine"}, ["mine", "IIC_RAW", "IIC_DATASETS=digits,shapes"]),
    "no such environment": (("--env", "studdy"), {}, ["conf/studdy", "--env"]),
    "no inputs": (("--pipelines", "attribution", "--namespaces", "digits.lrp"), {}, ["digits.", "kedro run"]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sentence(project, case):
    words, environment, fragments = CASES[case]
    (project / "conf/local/parameters.yml").write_text(
        "mine: {data: {source: parquet, channels: 1, class_names: [a, b]}, training: {epochs: 1}}\n"
    )
    start = time.monotonic()
    done = kedro(project, "run", *words, **environment)
    assert done.returncode != 0
    sentence = done.stderr[done.stderr.rindex("Error: ") :]
    assert "Traceback" not in done.stderr + done.stdout
    for fragment in fragments:
        assert fragment in sentence
    assert not list((project / "data").iterdir())
    assert time.monotonic() - start < 90


def write_split(folder, sizes, broken=None, columns=("image", "label")):
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        pngs = []
        for row, size in enumerate(sizes):
            buffer = io.BytesIO()
            Image.fromarray(np.full(size, row, np.uint8)).save(buffer, format="PNG")
            pngs.append({"bytes": buffer.getvalue()[: 30 if row == broken else None], "path": "x"})
        table = {columns[0]: pa.array(pngs), columns[1]: pa.array([row % 2 for row in range(len(sizes))], pa.int64())}
        pq.write_table(pa.table(table), folder / f"{split}.parquet")


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"sizes": [(28, 28)] * 40, "columns": ("picture", "label")}, ["Column 'image'", "missing"]),
        ({"sizes": [(64, 64)] * 40}, ["first image", "64 x 64", "25 to 48"]),
        ({"sizes": [(28, 28)] * 40, "broken": 7}, ["Image 7", "train.parquet", "not a readable PNG"]),
        ({"sizes": [(28, 28)] * 39 + [(27, 28)]}, ["Image 39", "(1, 27, 28)", "one size"]),
    ],
)
def test_broken_parquet_is_named(project, tmp_path, options, fragments):
    write_split(tmp_path / "mine", **options)
    (project / "conf/local/parameters.yml").write_text(
        "mine:\n  data: {source: parquet, channels: 1, class_names: [a, b]}\n  training: {epochs: 1}\n"
        "  attribution: {n_images: 30}\n  bayesian: {}\n"
    )
    done = kedro(project, "run", IIC_DATASETS="mine", IIC_RAW=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    sentence = done.stderr[done.stderr.rindex("Error: ") :]
    for fragment in fragments:
        assert fragment in sentence
    assert not list((project / "data").iterdir())


def test_a_parameter_file_that_is_no_yaml_is_named(project):
    (project / "conf/local/parameters.yml").write_text("digits: {attribution: {n_images: 5}\nshapes: {}\n")
    done = kedro(project, "run")
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    sentence = done.stderr[done.stderr.rindex("Error: ") :]
    assert "conf/local/parameters.yml" in sentence and "did not find expected ',' or '}'" in sentence
    (project / "conf/local/parameters.yml").unlink()


def test_a_method_that_does_not_exist_is_a_sentence_in_other_commands_too(project):
    done = kedro(project, "registry", "list", IIC_METHODS="lime,shapley")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Unknown method 'shapley'" in done.stderr


def test_a_save_that_fails_is_a_sentence_and_leaves_nothing_behind(tmp_path):
    project = make_project(tmp_path)
    (project / "data" / "02_intermediate").write_text("in the way of a folder\n")
    done = kedro(project, "run", "--pipelines", "data_prep", IIC_DATASETS="digits")
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    sentence = done.stderr[done.stderr.rindex("Error: ") :]
    assert "02_intermediate" in sentence and "run again" in sentence
    assert [path.name for path in (project / "data").iterdir()] == ["02_intermediate"]
