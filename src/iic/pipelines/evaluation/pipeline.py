"""evaluation: {dataset}.{method}.attributions -> .headline, .matrix -> {dataset}.accuracy_report, verdict, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kedro.pipeline import Node, Pipeline

from iic.explainers.names import explained_together
from iic.pipelines.evaluation import leak_nodes, nodes, property_nodes, shortcut_nodes
from iic.pipelines.wiring import with_names


def create_pipeline(datasets: tuple[str, ...], methods: tuple[str, ...], project: Path) -> Pipeline:
    """Per dataset the second judges, what both judges say of each method, what else is known of it, and the reports."""
    return Pipeline(
        [node for d in datasets for m in methods for node in _of_method(d, m, project)]
        + [
            node
            for d in datasets
            for node in (_judges(d), *_leakage(d, methods, project), *_shortcut(d, methods, project))
        ]
        + [node for d in datasets for node in (*_reports(d, methods), *_pictures(d, methods))]
    )


def _images(d: str) -> dict[str, str]:
    """The inputs that nearly all nodes have."""
    return {"train": f"{d}.train", "test": f"{d}.test", "card": f"{d}.data_card"}


def _params(d: str, *others: str) -> dict[str, str]:
    """The evaluation's parameters, and other blocks."""
    return {"params": f"params:{d}.evaluation", **{name: f"params:{d}.{name}" for name in others}}


def _each(d: str, methods: tuple[str, ...], kind: str, prefix: str = "") -> dict[str, str]:
    """One entry of every method."""
    return {prefix + method: f"{d}.{method}.{kind}" for method in methods}


def _node(func: Callable, inputs: dict[str, str] | str, outputs: list[str] | str, namespace: str, **names) -> Node:
    return Node(func=with_names(func, **names), inputs=inputs, outputs=outputs, name=func.__name__, namespace=namespace)


def _of_method(d: str, m: str, project: Path) -> list[Node]:
    space = f"{d}.{m}"
    maps = {"maps": f"{space}.attributions", "model": f"{d}.model", **_images(d)}
    names = {"dataset": d, "method": m}
    judges = {"judges": f"{d}.judges", "precisions": f"{d}.judge_precisions"}
    judged = [f"{space}.headline", f"{space}.matrix"]
    explained = {**_params(d, "attribution"), **maps}
    return [
        _node(nodes.judge_method, {**_params(d), **maps, **judges}, judged, space, **names),
        _node(property_nodes.describe_method, explained, f"{space}.properties", space, project=project, **names),
    ]


def _leakage(d: str, methods: tuple[str, ...], project: Path) -> list[Node]:
    """A node for all methods that share the maps of one source, in a namespace of its own: it needs maps of several."""
    inputs = {**_params(d, "attribution", "training"), "model": f"{d}.model", **_images(d)}
    return [
        Node(
            func=with_names(leak_nodes.leak_methods, dataset=d, methods=group, project=project),
            inputs={**inputs, **_each(d, group, "attributions")},
            outputs=list(_each(d, group, "leakage").values()),
            name=f"leak_{sources[0]}",
            namespace=f"{d}.leakage",
        )
        for sources, group in explained_together(methods).items()
    ]


def _judges(d: str) -> Node:
    inputs = {
        **_params(d, "training"),
        "model": f"{d}.model",
        "train": f"{d}.train",
        "card": f"{d}.data_card",
    }
    return _node(nodes.train_judges, inputs, [f"{d}.judges", f"{d}.judge_precisions"], f"{d}.judges", dataset=d)


def _shortcut(d: str, methods: tuple[str, ...], project: Path) -> list[Node]:
    """A network with a planted shortcut, and which methods find it."""
    space = f"{d}.shortcut"
    trained = {**_params(d, "training"), **_images(d)}
    planted = {"network": f"{d}.shortcut_model", "planted": f"{d}.planted"}
    explained = {**_params(d, "attribution"), **_images(d), **planted}
    names = {"dataset": d, "methods": methods, "project": project}
    return [
        _node(shortcut_nodes.plant_shortcut, trained, list(planted.values()), space, dataset=d, project=project),
        _node(shortcut_nodes.find_shortcut, explained, f"{d}.shortcut", space, **names),
        _node(shortcut_nodes.draw_shortcut, f"{d}.shortcut", f"{d}.shortcut_plot", space),
    ]


def _reports(d: str, methods: tuple[str, ...]) -> list[Node]:
    space, report = f"{d}.evaluation", f"{d}.accuracy_report"
    inputs = {
        **_params(d, "attribution", "training"),
        "model": f"{d}.model",
        "test": f"{d}.test",
        "accuracy": f"{d}.model_accuracy",
        "card": f"{d}.data_card",
        **{
            key: entry
            for kind in ("headline", "matrix", "cost")
            for key, entry in _each(d, methods, kind, f"{kind}_").items()
        },
    }
    agreement = {**_params(d), **_each(d, methods, "attributions")}
    return [
        _node(nodes.report_accuracy, inputs, report, space, dataset=d),
        _node(nodes.write_verdict, report, f"{d}.verdict", space),
        _node(nodes.tabulate, report, [f"{d}.{what}_table" for what in ("accuracy", "lead", "claim")], space),
        _node(property_nodes.compare_maps, agreement, f"{d}.agreement", space),
    ]


def _pictures(d: str, methods: tuple[str, ...]) -> list[Node]:
    space, report = f"{d}.evaluation", f"{d}.accuracy_report"
    properties = _each(d, methods, "properties")
    grid = {**_params(d), "test": f"{d}.test", "card": f"{d}.data_card", **_each(d, methods, "attributions")}
    return [
        _node(nodes.draw_accuracy, report, f"{d}.accuracy_plot", space),
        _node(nodes.draw_curves, report, f"{d}.curves_plot", space),
        _node(nodes.draw_cost, report, f"{d}.cost_plot", space),
        _node(nodes.compare_visually, grid, f"{d}.visual_comparison", space),
        _node(leak_nodes.draw_leakage, _each(d, methods, "leakage"), f"{d}.leakage_plot", space, dataset=d),
        _node(property_nodes.draw_agreement, {"agreement": f"{d}.agreement"}, f"{d}.agreement_plot", space, dataset=d),
        _node(property_nodes.draw_properties, properties, f"{d}.properties_plot", space, dataset=d),
        _node(property_nodes.draw_randomisation, properties, f"{d}.randomisation_plot", space, dataset=d),
    ]
