"""Each pipeline by itself, in memory, on a few images."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from iic.checks import check_parameters
from iic.data.sources import load_digits
from iic.explainers.names import DEFAULT, EXPLAINERS, METHODS, is_control_of
from iic.params import AttributionParams, BayesianParams, DataParams, EvaluationParams, TrainingParams
from iic.pipeline_registry import register_pipelines
from iic.pipelines.attribution.pipeline import create_pipeline as attribution
from iic.pipelines.bayesian.pipeline import create_pipeline as bayesian
from iic.pipelines.data_prep.pipeline import create_pipeline as data_prep
from iic.pipelines.evaluation.pipeline import create_pipeline as evaluation
from iic.pipelines.training.pipeline import create_pipeline as training
from iic.shipped import SMALL, card_path, network_path

DIGITS = ("digits",)
NAMES = tuple("0123456789")
PARAMETERS = {
    "params:digits.data": DataParams(source="digits", channels=1, class_names=NAMES),
    "params:digits.training": TrainingParams(
        epochs=1, widths=(4, 8, 8), batch_size=100, micro_batch=100, n_validation=400
    ),
    "params:digits.attribution": AttributionParams(
        n_images=12, budget=110, superpixels=20, compactness=0.1, gradient_steps=4
    ),
    "params:digits.evaluation": EvaluationParams(
        noise_seeds=(0,),
        bootstrap=100,
        per_class=1,
        judge_epochs=1,
        shares=(0.2, 0.6),
        matrix_images=10,
        properties_images=6,
        sanity_images=1,
        leakage_images=20,
        shortcut_epochs=1,
        shortcut_images=10,
    ),
    "params:digits.bayesian": BayesianParams(
        hidden=(16,),
        references=("dropout",),
        epochs=1,
        samples=5,
        noise_images=20,
        explained_images=20,
        refused_images=3,
        variance_images=2,
        repeats=2,
    ),
}


@pytest.fixture(scope="module")
def memory():
    """What earlier pipelines left, filled from stage to stage."""
    return dict(PARAMETERS)


class Kept(MemoryDataset):
    """Stays in memory after its last use, so that a test can look at it."""

    def _release(self):
        pass


def run(pipeline, memory):
    catalog = DataCatalog({n: Kept(memory[n], copy_mode="assign") for n in pipeline.inputs()})
    for name in pipeline.all_outputs():
        catalog[name] = Kept(copy_mode="assign")
    SequentialRunner().run(pipeline, catalog)
    outputs = {name: catalog.load(name) for name in pipeline.all_outputs()}
    memory.update(outputs)
    return outputs


def test_data_prep(memory):
    outputs = run(data_prep(DIGITS), memory)
    assert set(outputs) == {"digits.train", "digits.test", "digits.data_card"}
    expected = load_digits()[1]
    np.testing.assert_array_equal(outputs["digits.test"].images, expected.images)
    assert outputs["digits.data_card"]["train"]["images_per_class"] == {name: 400 for name in NAMES}


def test_training(memory):
    outputs = run(training(DIGITS), memory)
    assert outputs["digits.model_accuracy"]["test"]["accuracy"] > 0.6
    assert outputs["digits.model_accuracy"]["temperature"] == outputs["digits.model"].temperature.item() != 1
    assert len(outputs["digits.learning_curve"]["epochs"]) == 1
    assert len(outputs["digits.learning_curve_plot"].axes) == 2


def test_attribution(memory, tmp_path_factory):
    pipeline = attribution(DIGITS, METHODS, tmp_path_factory.mktemp("project"))
    alone = {m for m in METHODS if not m.endswith("_logit")}  # twins on logits come with the method
    assert {node.namespace for node in pipeline.nodes} == {f"digits.{m}" for m in alone}
    assert [n.namespace for n in attribution(DIGITS, ("lime_logit",), Path()).nodes] == ["digits.lime_logit"]
    outputs = run(pipeline, memory)
    for method in METHODS:
        maps = outputs[f"digits.{method}.attributions"]
        assert maps.made["method"] == method
        assert maps.values.shape == (12, 28, 28)
        np.testing.assert_array_equal(maps.indices, outputs["digits.lrp.attributions"].indices)
        assert outputs[f"digits.{method}.cost"]["images"] == 12


def test_a_twin_brings_what_it_is_derived_from(tmp_path):
    pipeline = attribution(DIGITS, ("lrp_blurred",), tmp_path)
    assert {node.namespace for node in pipeline.nodes} == {"digits.lrp", "digits.lrp_blurred"}


def test_evaluation(memory, tmp_path):
    methods = (*DEFAULT, "kernel_shap_blurred", "grad_cam", "lrp_mean_map", "lrp_random_weights")
    outputs = run(evaluation(DIGITS, methods, tmp_path), memory)
    report = outputs["digits.accuracy_report"]
    assert tuple(report["methods"]) == methods and report["n_images"] == 12 and report["matrix_images"] == 10
    assert len(report["headline"]) == 2 * 2 * 2 and len(report["curves"]) == 2 * 2 * 5
    for table in report["headline"]:
        cell = table["methods"]["lrp"]
        assert (cell["minus_best_control"] is None) == cell["abstains"]  # sobel and centre are there
        assert cell["abstains"] or is_control_of(cell["minus_best_control"]["control"], "lrp")
        assert {c["better"] for c in table["claims"]} | {c["worse"] for c in table["claims"]} <= set(EXPLAINERS)
    assert "`lrp`" in outputs["digits.verdict"] and outputs["digits.verdict"].startswith("# digits")
    table = outputs["digits.accuracy_table"]
    assert len(table) == len(methods) * (8 + 20 * 2) and table.accuracy.between(0, 1).all()
    grid = outputs["digits.visual_comparison"]
    assert len([axis for axis in grid.axes if axis.images]) >= 10 * (1 + len(methods))
    for column in range(1, 1 + len(methods)):  # one colour scale per method, centred at zero
        limits = {grid.axes[row * (1 + len(methods)) + column].images[0].get_clim() for row in range(10)}
        assert len(limits) == 1
        low, high = limits.pop()
        assert low == -high


def test_bayesian(memory):
    outputs = run(bayesian(DIGITS, DEFAULT, Path()), memory)
    report = outputs["digits.bayesian_report"]
    assert set(report["degraded"]) == set(DEFAULT)
    assert 0 <= report["uniform_noise"]["confidence"]["refused"] <= 1
    tables = outputs["digits.uncertainty"]["networks"]
    assert set(tables) == {"plain", "plain_same_network", "mean_field", "dropout"}
    assert set(tables["plain"]["outside"]) == {"noise", "inverted", "rotated_90", "rotated_180", "shapes"}
    assert tables["plain"]["n_validation"] == 400
    doubt = outputs["digits.doubt"]["networks"]
    assert all(set(doubt[name]) == set(DEFAULT) for name in ("plain", "plain_same_network", "mean_field"))
    found = outputs["digits.posterior_explanations"]["selectors"]
    assert set(found) == {"mutual_information", "disagreement_lrp", "disagreement_integrated_gradients"}
    assert outputs["digits.posterior_maps"]["lrp.95"].shape == (6, 28, 28)
    shown = memory["digits.test"].labels[outputs["digits.posterior_maps"]["images"]]
    assert outputs["digits.posterior_explanations"]["n_images"] == 20 and shown.max() > 1  # sorted by class: 0, 0, ...
    assert set(outputs["digits.refusals"]) == {"dataset", "judged_by", "mutual_information", "entropy"}
    sources = outputs["digits.variance"]["sources"]
    assert {"lime: sampling", "kernel_shap: segmentation", "lrp: training seed", "lrp: posterior"} < set(sources)


def test_a_bayesian_last_layer(memory):
    """Of digits' network, as that of a dataset of colours would get it."""
    pipeline = bayesian((), DEFAULT, Path(), DIGITS)
    kept = {name: value for name, value in memory.items() if name not in pipeline.all_outputs()}
    few = {
        "explained_images": 20,
        "refused_images": 3,
        "samples": 20,
        "noise_images": 50,
        "variance_images": 2,
        "variance_retrained": False,
        "repeats": 2,
    }
    params = BayesianParams(epochs=10, learning_rate=0.02, **few)
    outputs = run(
        pipeline,
        kept | {"params:digits.bayesian": params},
    )
    tables = outputs["digits.uncertainty"]["networks"]
    assert set(tables) == {"plain", "mean_field", "laplace", "low_rank"}
    plain = memory["digits.model_accuracy"]["test"]["accuracy"]
    assert tables["plain"]["scores"]["accuracy"]["value"] == pytest.approx(plain, abs=0.002)
    assert tables["mean_field"]["scores"]["accuracy"]["value"] > plain - 0.15
    assert set(outputs["digits.doubt"]["networks"]) == {"plain", "mean_field"}
    sources = outputs["digits.variance"]["sources"]
    assert {"kernel_shap: segmentation", "lrp: posterior"} < set(sources) and "lrp: training seed" not in sources
    assert {row["network"] for row in sources.values()} == {"explained"}
    assert not outputs["digits.uncertainty"]["networks"]["plain"]["learnt_from_validation"]
    assert set(outputs["digits.posterior_explanations"]["selectors"]) == {"mutual_information", "disagreement_lrp"}
    assert outputs["digits.posterior_maps"]["integrated_gradients.95"].shape == (6, 28, 28)
    rows = outputs["digits.refusals"]["entropy"]["fills"]["mean_colour"]
    assert rows["gradient_x_input"]["curve"][0] == rows["random"]["curve"][0]  # nothing removed yet


def test_the_study_is_of_whole_test_sets():
    """`--env study` changes sizes only, and takes the small network, by the recipe that it was trained by."""
    options = {"base_env": "base", "merge_strategy": {"parameters": "soft"}, "default_run_env": "local"}
    names = ("mnist", "cifar10")
    base = check_parameters(OmegaConfigLoader(conf_source=str(ROOT / "conf"), **options)["parameters"], names)
    study = OmegaConfigLoader(conf_source=str(ROOT / "conf"), env="study", **options)["parameters"]
    for name, blocks in check_parameters(study, names).items():
        assert blocks["attribution"] == base[name]["attribution"].model_copy(update={"n_images": 10_000})
        larger = {"matrix_images": 1000, "properties_images": 200, "sanity_images": 200, "leakage_images": 5000}
        assert blocks["evaluation"] == base[name]["evaluation"].model_copy(update=larger)
        if name == "mnist":
            assert blocks["training"] == base[name]["training"]
        else:
            recipe = json.loads(card_path(network_path(ROOT, name, SMALL)).read_text())["recipe"]
            assert blocks["training"] == TrainingParams(**{**recipe, "weights": SMALL})


def test_the_registry_is_built_for_the_names_asked_for(monkeypatch):
    monkeypatch.setenv("IIC_DATASETS", "digits,shapes")
    monkeypatch.setenv("IIC_METHODS", "lrp,random")
    pipelines = register_pipelines()
    assert "digits.posterior" in pipelines["bayesian"].all_outputs()
    assert "shapes.bayesian_report" not in pipelines["__default__"].all_outputs()
    assert {"shapes.uncertainty", "shapes.refusals"} <= pipelines["bayesian"].all_outputs()
    assert "shapes.lime.attributions" not in pipelines["__default__"].all_outputs()
    assert not {n for n in pipelines["evaluation"].inputs() if not n.startswith("params:")}
