"""Nodes that say what maps are like besides how they degrade, and where methods agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iic.data.images import ImageSet
from iic.explainers.attributions import Attributions
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams, EvaluationParams
from iic.pipelines.attribution.nodes import own_labels, sample_of
from iic.progress import bar


def describe_method(
    params: EvaluationParams,
    attribution: AttributionParams,
    maps: Attributions,
    model: Any,
    train: ImageSet,
    test: ImageSet,
    card: dict,
    dataset: str,
    method: str,
    project: Path,
) -> dict:
    """Complexity, faithfulness, localisation and sanity of one method's maps."""
    from iic.evaluation.properties import describe
    from iic.evaluation.sanity import Explainer

    segmenter = Segmenter(attribution, own_labels(attribution, test, project))
    explainer = Explainer(method, model, sample_of(train), np.array(card["train"]["mean"]), segmenter)
    return {
        "dataset": dataset,
        **describe(
            explainer,
            maps,
            test,
            params,
            data=card["test"]["sha256"],
            progress=lambda stage: bar(f"{dataset}: {method}, {stage}"),
        ),
    }


def compare_maps(params: EvaluationParams, **maps: Attributions) -> dict:
    """How far every two methods agree."""
    from iic.evaluation.properties import agree

    return agree(maps, params, bar("agreement of methods", "pair"))


def draw_agreement(dataset: str, agreement: dict) -> Any:
    """Heat maps of the methods' agreement."""
    from iic.report.properties import agreement_heat_map

    return agreement_heat_map(dataset, agreement)


def draw_properties(dataset: str, **properties: dict) -> Any:
    """Every property of every method, with intervals; `properties` is by method."""
    from iic.evaluation.properties import check_alike
    from iic.report.properties import property_dots

    check_alike(properties)
    return property_dots(dataset, properties)


def draw_randomisation(dataset: str, **properties: dict) -> Any:
    """What is left of the maps when layers are random; `properties` is by method."""
    from iic.evaluation.properties import check_alike
    from iic.report.properties import randomisation_lines

    check_alike(properties)
    return randomisation_lines(dataset, properties)
