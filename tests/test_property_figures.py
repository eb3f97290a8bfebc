"""Figures and nodes of the properties of maps, on a network whose right answers are known."""

import json

import numpy as np
import pytest
from summed_pixels import (
    CARD,
    EVALUATION,
    ORDER,
    PARAMS,
    SIDE,
    TARGETS,
    TEST,
    TRAIN,
    attributions,
    described,
    explained,
    explainer,
    linear_network,
    named,
)

from iic.errors import UserError
from iic.evaluation.properties import agree, describe
from iic.explainers.methods import explain
from iic.pipelines.evaluation.property_nodes import (
    compare_maps,
    describe_method,
    draw_agreement,
    draw_properties,
    draw_randomisation,
)
from iic.report.properties import agreement_heat_map, property_dots, randomisation_lines


@pytest.fixture(scope="module")
def linear():
    return linear_network()


def panels(figure):
    figure.canvas.draw()  # a layout that does not fit warns
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def test_figures_show_every_method(linear):
    found = {m: described(m, linear) for m in ("input_x_gradient", "kernel_shap", "sobel", "random")}
    dots = panels(property_dots("made-up", found))
    assert len(dots) == 13  # gini, entropy, completeness, infidelity of two outputs, 3 x sensitivity, 4 of masks, max
    drawn = {axis.get_xlabel().split("\n")[0]: len(axis.containers) for axis in dots}
    assert drawn["Gini index of |map|"] == 4 and drawn["AUROC of the mask"] == 4
    assert drawn["infidelity, logit²"] == 3 and drawn["infidelity, probability²"] == 1
    assert drawn["max-sensitivity to noise of ±5 levels"] == 2
    assert [label.get_text() for label in dots[0].get_yticklabels()][1:3] == ["Kernel SHAP", "Sobel edges (control)"]
    lines = panels(randomisation_lines("made-up", found))
    assert len(lines) == 3
    for axis in lines:
        names = [line.get_label() for line in axis.lines if not line.get_label().startswith("_")]
        assert names == ["input × gradient", "Kernel SHAP"]
    assert all(len(axis.collections) == 0 for axis in lines)  # three images are too few for bands
    assert "test images: 3, too few" in lines[0].figure.get_suptitle()
    for layer in (layer for one in found.values() for layer in one["randomisation"] or ()):
        layer["spearman"]["n_images"] = 6
    lines = panels(randomisation_lines("made-up", found))
    assert all(len(axis.collections) == 2 for axis in lines)
    assert "test images: 6, 95 % bands" in lines[0].figure.get_suptitle()
    none = panels(randomisation_lines("made-up", {"sobel": found["sobel"]}))
    assert len(none) == 1 and "no method" in none[0].texts[0].get_text()
    maps = {m: explained(m, linear) for m in found}
    heat = panels(agreement_heat_map("made-up", agree(maps, EVALUATION)))
    assert len(heat) == 2 and all(len(axis.texts) == 16 for axis in heat)
    assert heat[0].images[0].get_clim() == (-1, 1)


def test_every_node_in_memory(linear, tmp_path):
    labels = np.repeat(np.arange(3), 4)[:, None] * np.ones(SIDE, int)
    np.save(tmp_path / "own.npy", labels)
    params = PARAMS.model_copy(update={"segments": "own.npy"})
    methods = ("lime", "input_x_gradient", "random_superpixels")
    maps, found = {}, {}
    for method in methods:
        context = explainer(method, linear, params, labels).context(linear)
        values = explain(method, context, TEST.images[ORDER], ORDER, TARGETS).values
        maps[method] = named(method, attributions(values, linear, params, labels))
        found[method] = describe_method(
            params=EVALUATION,
            attribution=params,
            maps=maps[method],
            model=linear,
            train=TRAIN,
            test=TEST,
            card=CARD,
            dataset="made-up",
            method=method,
            project=tmp_path,
        )
    json.dumps(found, allow_nan=False)
    by_hand = describe(
        explainer("lime", linear, params, labels), maps["lime"], TEST, EVALUATION, data=CARD["test"]["sha256"]
    )
    assert found["lime"] == {"dataset": "made-up", **by_hand}
    figures = (
        draw_agreement("made-up", compare_maps(EVALUATION, **maps)),
        draw_properties("made-up", **found),
        draw_randomisation("made-up", **found),
    )
    assert [len(panels(figure)) for figure in figures] == [2, 13, 3]
    (tmp_path / "own.npy").unlink()
    with pytest.raises(UserError, match=r"own\.npy cannot be read"):
        describe_method(EVALUATION, params, maps["lime"], linear, TRAIN, TEST, CARD, "made-up", "lime", tmp_path)
