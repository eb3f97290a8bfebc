"""bayesian: {dataset}.train, .{method}.attributions -> posteriors -> uncertainty, doubt, explanations of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kedro.pipeline import Node, Pipeline

from iic.pipelines.bayesian import explanation_nodes, nodes, pictures
from iic.pipelines.wiring import with_names


def create_pipeline(
    datasets: tuple[str, ...], methods: tuple[str, ...], project: Path, colour: tuple[str, ...] = ()
) -> Pipeline:
    """Posteriors and what is known of them.

    Args:
        datasets: those of one channel get a Bayesian network of their own, and explanations of it.
        methods: whose maps' pixels are kept or removed.
        project: the folder of shipped weights.
        colour: datasets whose convolutional network gets a Bayesian last layer.
    """
    whole = [
        (
            *_learnt(d, project),
            *_measured(d, methods, project),
            *_reported(d, methods),
            *_explained(d, project),
            _variance(d, project),
            *_pictures(d),
        )
        for d in datasets
    ]
    last = [
        (
            *_learnt(d, project, model=f"{d}.model"),
            *_measured(d, methods, project),
            *_explained(d, project, model=f"{d}.model"),
            _variance(d, project),
            *_pictures(d),
        )
        for d in colour
    ]
    return Pipeline([node for nodes_of in (*whole, *last) for node in nodes_of])


def _params(d: str, *others: str) -> dict[str, str]:
    return {"params": f"params:{d}.bayesian", **{name: f"params:{d}.{name}" for name in others}}


def _node(func: Callable, inputs: dict[str, str], outputs: list[str] | str, d: str, **names) -> Node:
    return Node(
        func=with_names(func, dataset=d, **names),
        inputs=inputs,
        outputs=outputs,
        name=func.__name__,
        namespace=f"{d}.bayesian",
    )


def _learnt(d: str, project: Path, **model: str) -> list[Node]:
    data = {"train": f"{d}.train", **model}
    card = {"card": f"{d}.data_card"}
    return [
        _node(nodes.train_bayesian, {**_params(d, "training"), **data, **card}, f"{d}.posterior", d, project=project),
        _node(nodes.train_references, {**_params(d, "training"), **data}, f"{d}.reference_posteriors", d),
    ]


def _measured(d: str, methods: tuple[str, ...], project: Path) -> list[Node]:
    test, card, train = {"test": f"{d}.test"}, {"card": f"{d}.data_card"}, {"train": f"{d}.train"}
    maps = {m: f"{d}.{m}.attributions" for m in methods}
    networks = {"model": f"{d}.model", "posterior": f"{d}.posterior"}
    references = {"references": f"{d}.reference_posteriors"}
    return [
        _node(
            nodes.measure_uncertainty,
            {**_params(d, "training", "evaluation"), **networks, **references, **train, **test},
            f"{d}.uncertainty",
            d,
            project=project,
        ),
        _node(
            nodes.measure_doubt,
            {
                **_params(d, "evaluation"),
                **networks,
                **references,
                "uncertainty": f"{d}.uncertainty",
                **train,
                **test,
                **card,
                **maps,
            },
            f"{d}.doubt",
            d,
        ),
    ]


def _reported(d: str, methods: tuple[str, ...]) -> list[Node]:
    networks = {"model": f"{d}.model", "posterior": f"{d}.posterior"}
    data = {**networks, "test": f"{d}.test", "card": f"{d}.data_card"}
    maps = {m: f"{d}.{m}.attributions" for m in methods}
    report = f"{d}.bayesian_report"
    space = f"{d}.bayesian"
    return [
        _node(nodes.report_bayesian, {**_params(d, "evaluation"), **data, **maps}, report, d),
        Node(pictures.draw_bayesian, report, f"{d}.bayesian_plot", name="draw_bayesian", namespace=space),
    ]


def _explained(d: str, project: Path, model: str | None = None) -> list[Node]:
    test = {"test": f"{d}.test", "card": f"{d}.data_card"}
    posterior = {"posterior": f"{d}.posterior", **({} if model is None else {"model": model})}
    return [
        _node(
            explanation_nodes.explain_posterior,
            {**_params(d, "evaluation", "attribution"), **posterior, **test},
            [f"{d}.posterior_explanations", f"{d}.posterior_maps"],
            d,
        ),
        _node(
            explanation_nodes.explain_refusals,
            {**_params(d, "evaluation", "attribution"), **posterior, "train": f"{d}.train", **test},
            f"{d}.refusals",
            d,
            project=project,
        ),
    ]


def _variance(d: str, project: Path) -> Node:
    data = {"train": f"{d}.train", "test": f"{d}.test", "card": f"{d}.data_card"}
    networks = {"model": f"{d}.model", "posterior": f"{d}.posterior"}
    inputs = {**_params(d, "training", "evaluation", "attribution"), **networks, **data}
    return _node(explanation_nodes.find_variance, inputs, f"{d}.variance", d, project=project)


def _pictures(d: str) -> list[Node]:
    maps = {"maps": f"{d}.posterior_maps", "test": f"{d}.test"}
    return [
        *_pictures_of_measures(d),
        _node(explanation_nodes.draw_posterior_maps, maps, f"{d}.posterior_maps_plot", d),
        _node(pictures.draw_refusals, {"refusals": f"{d}.refusals"}, f"{d}.refusals_plot", d),
    ]


def _pictures_of_measures(d: str) -> list[Node]:
    drawn = {
        "reliability": (pictures.draw_reliability, "uncertainty"),
        "selection": (pictures.draw_selection, "uncertainty"),
        "outside": (pictures.draw_outside, "uncertainty"),
        "doubt": (pictures.draw_doubt, "doubt"),
        "variance": (pictures.draw_variance, "variance"),
    }
    return [_node(draw, {what: f"{d}.{what}"}, f"{d}.{name}_plot", d) for name, (draw, what) in drawn.items()]
