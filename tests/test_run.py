"""The whole default run through KedroSession, and what lies on the disk after it."""

import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, kedro, make_project
from PIL import Image

from iic.classifiers.networks import network_from_state
from iic.explainers.names import DEFAULT as METHODS
from iic.explainers.shards import read_attributions
from iic.files import record_path, sha256


def newest(project, pattern):
    found = sorted(project.glob(f"data/{pattern}"))
    assert found, pattern
    return found[-1]


@pytest.mark.parametrize("dataset", ["digits", "shapes"])
def test_the_report_says_what_was_asked(finished_run, dataset):
    project, _ = finished_run
    path = newest(project, f"08_reporting/{dataset}/accuracy_report.json/*/accuracy_report.json")
    report = json.loads(path.read_text())
    assert tuple(report["methods"]) == METHODS
    assert report["n_images"] == 30
    assert report["kept_pixels"] == round(0.2 * report["dataset"]["shape_chw"][1] ** 2)
    for table in report["headline"]:
        for cell in table["methods"].values():
            assert 0 <= cell["interval"][0] <= cell["accuracy"] <= cell["interval"][1] <= 1
    assert report["methods"]["lime"]["forwards_per_image"] == 119  # the image itself and 59 pairs
    assert report["methods"]["kernel_shap"]["forwards_per_image"] <= 120
    assert report["methods"]["lime"]["tied_share"] > 0.9 > 0.1 > report["methods"]["random"]["tied_share"]
    assert report["parameters"]["attribution"]["budget"] == 120
    assert {"torch", "kedro", "iic"} <= set(report["versions"])


def test_every_field_of_the_report_is_described(finished_run):
    """The table of docs/report.md and the report name the same fields, down to those of a cell, a curve and a claim."""
    project, _ = finished_run
    report = json.loads(newest(project, "08_reporting/digits/accuracy_report.json/*/accuracy_report.json").read_text())
    text = (ROOT / "docs" / "report.md").read_text().split("**Judges**")[0]
    described = set(re.findall(r"`…?\.?([a-z_]+)", text)) | set(re.findall(r"[.`]([a-z_]+)(?:\[\])?`", text))
    table, curves = report["headline"][0], report["curves"][0]
    nested = [report, table, table["methods"]["lrp"], table["claims"][0], curves, curves["methods"]["lrp"]]
    assert not {key for fields in nested for key in fields} - described
    assert report["schema"] == 4 and f"`schema` | {report['schema']}" in text


def test_training_seeds_are_compared(finished_run, tmp_path):
    """`kedro seeds` on the reports of two seeds: the same report twice, relabelled as of another network."""
    project, _ = finished_run
    path = newest(project, "08_reporting/digits/accuracy_report.json/*/accuracy_report.json")
    report, other = json.loads(path.read_text()), make_project(tmp_path / "project")
    for version, seed in (("2026-01-01T00.00.00.000Z", 0), ("2026-01-02T00.00.00.000Z", 1)):
        report["parameters"]["training"]["seed"], report["made"]["model"] = seed, f"network {seed}"
        folder = other / "data/08_reporting/digits/accuracy_report.json" / version
        folder.mkdir(parents=True)
        (folder / "accuracy_report.json").write_text(json.dumps(report))
    done = kedro(other, "seeds", "digits")
    assert done.returncode == 0 and "3 training seeds are asked for." in done.stdout, done.stderr[-2000:]
    found = json.loads(newest(other, "08_reporting/digits/seeds_report.json/*/seeds_report.json").read_text())
    assert len(found) == len(report["headline"])
    for ours, table in zip(found, report["headline"], strict=True):
        assert [c["better"] for c in ours["claims"]] == [c["better"] for c in table["claims"]]
        assert not any(c["supported"] for c in ours["claims"])  # of two seeds


def test_a_cell_of_the_report_follows_from_the_files(finished_run):
    """Accuracy on what LRP keeps, mean colour around it, computed anew from the saved maps, images and network."""
    project, _ = finished_run
    maps = read_attributions(newest(project, "07_attributions/shapes/lrp/attributions/*/attributions"))
    test = np.load(newest(project, "02_intermediate/shapes/test.npz/*/test.npz"))
    train = np.load(newest(project, "02_intermediate/shapes/train.npz/*/train.npz"))
    state = torch.load(newest(project, "06_models/shapes/model.pt/*/model.pt"), weights_only=True)
    model = network_from_state(state)
    hits = []
    for values, index in zip(maps.values[:], maps.indices, strict=True):
        image = test["images"][index].astype(np.float32)
        pixels = np.empty_like(image)
        pixels[:] = train["images"].mean((0, 2, 3))[:, None, None]
        top = np.argsort(values.ravel())[::-1][: round(0.2 * 32 * 32)]  # LRP maps hardly tie
        rows, columns = np.unravel_index(top, values.shape)
        pixels[:, rows, columns] = image[:, rows, columns]
        with torch.no_grad():
            hits.append(model(torch.from_numpy(pixels)[None]).argmax().item() == test["labels"][index])
    report = json.loads(newest(project, "08_reporting/shapes/accuracy_report.json/*/accuracy_report.json").read_text())
    wanted = {"judge": "explained", "direction": "keep", "fill": "mean_colour"}
    (table,) = [t for t in report["headline"] if wanted.items() <= t.items()]
    assert table["methods"]["lrp"]["accuracy"] == pytest.approx(np.mean(hits), abs=1.5 / 30)


def test_every_artefact_has_a_record_that_fits(finished_run):
    project, _ = finished_run
    files = [p for p in project.glob("data/**/*") if p.is_file() and not p.name.endswith(".made.json")]
    artefacts = {p.parent if p.parent.name == "attributions" else p for p in files}  # a folder is one artefact
    assert len(artefacts) > 50
    for path in artefacts:
        record = json.loads(record_path(path).read_text())
        assert record["sha256"] == sha256(path)
        assert record["code"]["iic"] and record["date"] and record["node"]
        for name, source in record["inputs"].items():
            if name.endswith(".shortcut_model"):  # stays in memory; planted.json has its fingerprint
                assert source is None
                continue
            assert source["sha256"] == sha256(project / source["file"])
    lrp = newest(project, "07_attributions/digits/lrp/attributions/*/attributions")
    assert json.loads(record_path(lrp).read_text())["parameters"]["digits.attribution"]["n_images"] == 30


def test_models_load_without_executing_code(finished_run):
    project, _ = finished_run
    for pattern in ("06_models/digits/model.pt/*/model.pt", "06_models/digits/posterior.pt/*/posterior.pt"):
        state = torch.load(newest(project, pattern), weights_only=True)
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_pictures_have_content(finished_run):
    project, _ = finished_run
    pictures = list(project.glob("data/08_reporting/*/*.png/*/*.png"))
    assert {p.name for p in pictures} == {
        "learning_curve.png",
        "accuracy.png",
        "curves.png",
        "cost.png",
        "agreement.png",
        "properties.png",
        "randomisation.png",
        "leakage.png",
        "shortcut.png",
        "visual_comparison.png",
        "bayesian.png",
        "reliability.png",
        "selection.png",
        "outside.png",
        "doubt.png",
        "posterior_maps.png",
        "refusals.png",
        "variance.png",
    }
    for path in pictures:
        grey = np.asarray(Image.open(path).convert("L"))
        assert 0.3 < (grey > 250).mean() < 0.995 and grey.std() > 10  # drawn on white paper, with something drawn


def test_a_bayesian_network_is_for_one_channel_and_a_last_layer_for_three(finished_run):
    project, _ = finished_run
    report = json.loads(newest(project, "08_reporting/digits/bayesian_report.json/*/bayesian_report.json").read_text())
    assert set(report["degraded"]) == set(METHODS)
    assert 0.3 < report["forced_accuracy"] <= 1
    assert report["uniform_noise"]["median"]["n_images"] == 100
    assert not list(project.glob("data/08_reporting/shapes/bayesian_report.json/*"))
    found = json.loads(newest(project, "08_reporting/shapes/uncertainty.json/*/uncertainty.json").read_text())
    assert set(found["networks"]) == {"plain", "mean_field", "laplace", "low_rank"}


def test_one_namespace_runs_again_with_its_own_parameters(finished_run):
    project, _ = finished_run
    words = ("--pipelines", "attribution", "--namespaces", "digits.lrp", "--params", "digits.attribution.n_images=50")
    done = kedro(project, "run", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    path = newest(project, "07_attributions/digits/lrp/attributions/*/attributions")
    assert read_attributions(path).values.shape == (50, 28, 28)
    assert len(list(project.glob("data/07_attributions/digits/lime/attributions/*"))) == 1
    # What was made with other parameters must not be mixed in one report, nor be reported under them.
    alone = ("run", "--pipelines", "evaluation", "--namespaces", "digits.evaluation")
    mixed = kedro(project, *alone, *small(project))
    assert mixed.returncode == 1 and "The maps of lrp are of other images" in mixed.stderr
    again = kedro(project, "run", *words[:-1], small(project)[1])
    assert again.returncode == 0, again.stderr[-2000:]
    relabelled = kedro(project, *alone, "--params", f"{small(project)[1]},digits.evaluation.keep=0.3")
    assert relabelled.returncode == 1 and "was made with keep = 0.2, not 0.3" in relabelled.stderr


def test_only_missing_outputs_skips_what_exists(finished_run):
    project, _ = finished_run
    before = len(list(project.glob("data/**/*.npz")))
    gone = newest(project, "08_reporting/shapes/accuracy.png/*/accuracy.png")
    gone.unlink()
    done = kedro(project, "run", "--pipeline", "evaluation", "--only-missing-outputs", *small(project))
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(project.glob("data/**/*.npz"))) == before
    newest(project, "08_reporting/shapes/accuracy.png/*/accuracy.png")


def test_a_report_is_of_the_network_that_the_parameters_say(finished_run):
    """With --only-missing-outputs the network is not made again: its training has to be what is reported."""
    project, _ = finished_run
    of_another = ["--params", f"{small(project)[1]},digits.training.seed=7"]
    done = kedro(project, "run", "--pipeline", "evaluation", "--only-missing-outputs", *of_another)
    assert (
        done.returncode == 1 and "network of 'digits' was made with training.seed = 0, and now it is 7" in done.stderr
    )


def test_another_methods_answers_are_no_methods_answers(finished_run):
    """Two files that change places are refused by their records, and, if these go with them, by what they are of."""
    project, _ = finished_run
    paths = [newest(project, f"08_reporting/digits/{m}/headline.npz/*/headline.npz") for m in ("lime", "kernel_shap")]
    files = [(path, record_path(path)) for path in paths]
    good = {path: path.read_bytes() for pair in files for path in pair}
    words = ("run", "--nodes", "digits.evaluation.report_accuracy", *small(project))
    try:
        for ours, theirs in zip(files, files[::-1], strict=True):
            ours[0].write_bytes(good[theirs[0]])
        altered = kedro(project, *words)
        for ours, theirs in zip(files, files[::-1], strict=True):
            ours[1].write_bytes(good[theirs[1]])
        done = kedro(project, *words)
    finally:
        for path, content in good.items():
            path.write_bytes(content)
    assert altered.returncode == 1 and "headline.npz is not what was written there" in altered.stderr
    assert done.returncode == 1 and "The headline or the cost of digits." in done.stderr, done.stderr[-2000:]


def test_a_shard_that_is_not_what_the_index_says_is_refused(finished_run):
    project, _ = finished_run
    folders = [newest(project, f"07_attributions/digits/{m}/attributions/*/attributions") for m in ("sobel", "centre")]
    shards = [folder / "00000.values.npy" for folder in folders]
    good = [shard.read_bytes() for shard in shards]
    try:
        shards[0].write_bytes(good[1])
        done = kedro(project, "run", "--nodes", "digits.sobel.judge_method", *small(project))
    finally:
        shards[0].write_bytes(good[0])
    assert done.returncode == 1 and "sobel" in done.stderr and "is not what was written there" in done.stderr


def test_a_report_of_an_older_version_is_refused(finished_run):
    project, _ = finished_run
    path = newest(project, "08_reporting/shapes/accuracy_report.json/*/accuracy_report.json")
    good, record = path.read_text(), record_path(path).read_text()
    try:
        path.write_text(good.replace('"schema": 4', '"schema": 3'))
        record_path(path).write_text(record.replace(json.loads(record)["sha256"], sha256(path)))
        done = kedro(project, "run", "--nodes", "shapes.evaluation.write_verdict", *small(project))
    finally:
        path.write_text(good)
        record_path(path).write_text(record)
    assert done.returncode == 1 and "was written by another version of the code" in done.stderr


def small(project):
    from conftest import SMALL, flat

    return ["--params", ",".join(flat(SMALL))]


def test_a_poisoned_model_is_refused_by_name(finished_run, tmp_path):
    project, _ = finished_run
    path = newest(project, "06_models/shapes/model.pt/*/model.pt")
    good = path.read_bytes()

    class Poison:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    record = record_path(path).read_text()
    torch.save({"0.mean": Poison()}, path, pickle_module=pickle)
    words = ("run", "--pipelines", "attribution", "--namespaces", "shapes.random", *small(project))
    try:
        altered = kedro(project, *words)
        record_path(path).write_text(record.replace(json.loads(record)["sha256"], sha256(path)))  # a sly one
        done = kedro(project, *words)
    finally:
        path.write_bytes(good)
        record_path(path).write_text(record)
    assert altered.returncode == done.returncode == 1
    assert re.search(r"Error: .*model\.pt is not what was written", altered.stderr), altered.stderr[-2000:]
    assert re.search(r"Error: .*model\.pt cannot be read", done.stderr), done.stderr[-2000:]
    assert not (tmp_path / "executed").exists()


def test_same_seed_same_bytes(finished_run):
    project, _ = finished_run
    words = ("--pipelines", "attribution", "--namespaces", "shapes.kernel_shap", *small(project))
    assert kedro(project, "run", *words).returncode == 0
    first, second = sorted(project.glob("data/07_attributions/shapes/kernel_shap/attributions/*/attributions"))
    names = sorted(p.name for p in first.iterdir())
    assert names == sorted(p.name for p in second.iterdir()) and "index.json" in names
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_the_notebook_shows_the_run(finished_run, monkeypatch):
    import nbformat
    from conftest import ROOT
    from nbclient import NotebookClient

    project, _ = finished_run
    notebook = nbformat.read(ROOT / "notebooks" / "explore.ipynb", as_version=4)
    monkeypatch.delenv("IIC_DATASETS", raising=False)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    text = "".join(output.get("text", "") for output in outputs)
    measured, recorded = re.search(r"test accuracy ([\d.]+), as recorded: ([\d.]+)", text).groups()
    assert measured == recorded


def test_kedro_viz_builds_with_previews(finished_run):
    project, _ = finished_run
    done = kedro(project, "viz", "build", "--include-previews")
    assert done.returncode == 0, done.stderr[-2000:]
    nodes = json.loads((project / "build" / "api" / "main").read_text())["nodes"]
    assert {"digits", "digits.lrp", "shapes.evaluation"} <= {node["id"] for node in nodes}
    # collapsed: the names of a dataset's groups, and nothing of what is inside them
    report = next(node for node in nodes if node.get("name", "").endswith("accuracy_report"))
    details = json.loads((project / "build" / "api" / "nodes" / report["id"]).read_text())
    assert details["preview"]


def test_a_run_warns_of_nothing(finished_run):
    done = kedro(finished_run[0], "run", "--pipelines", "data_prep", *small(finished_run[0]))
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr


def test_the_registry_lists_the_pipelines(finished_run):
    done = kedro(finished_run[0], "registry", "list")
    assert done.returncode == 0
    for name in ("__default__", "data_prep", "training", "attribution", "evaluation", "bayesian"):
        assert f"- {name}\n" in done.stdout


def test_kedro_starts_without_the_heavy_libraries():
    code = "import sys, iic.pipeline_registry, iic.hooks; print({'torch', 'shap', 'lime', 'pyro'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
