"""evaluation: {dataset}.{method}.attributions -> .headline, .matrix -> {dataset}.accuracy_report, verdict, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kedro.pipeline import Node, Pipeline

from iic.pipelines.evaluation import leak_nodes, nodes, property_nodes
from iic.pipelines.wiring import with_names


def create_pipeline(datasets: tuple[str, ...], methods: tuple[str, ...], project: Path) -> Pipeline:
    """Per dataset the second judges, what both judges say of each method, what else is known of it, and the reports."""
    return Pipeline(
        [node for d in datasets for m in methods for node in (_judge(d, m), _describe(d, m), _leak(d, m, project))]
        + [node for d in datasets for node in (_judges(d), *_shortcut(d, methods, project), *_reports(d, methods))]
    )


def _judges(d: str) -> Node:
    return Node(
        func=with_names(nodes.train_judges, dataset=d),
        inputs={
            "params": f"params:{d}.evaluation",
            "training": f"params:{d}.training",
            "model": f"{d}.model",
            "train": f"{d}.train",
            "card": f"{d}.data_card",
        },
        outputs=f"{d}.judges",
        name="train_judges",
        namespace=f"{d}.judges",
    )


def _judge(d: str, method: str) -> Node:
    return Node(
        func=with_names(nodes.judge_method, dataset=d, method=method),
        inputs={
            "params": f"params:{d}.evaluation",
            "maps": f"{d}.{method}.attributions",
            "model": f"{d}.model",
            "judges": f"{d}.judges",
            "train": f"{d}.train",
            "test": f"{d}.test",
            "card": f"{d}.data_card",
        },
        outputs=[f"{d}.{method}.headline", f"{d}.{method}.matrix"],
        name="judge_method",
        namespace=f"{d}.{method}",
    )


def _describe(d: str, method: str) -> Node:
    return Node(
        func=with_names(property_nodes.describe_method, dataset=d, method=method),
        inputs={
            "params": f"params:{d}.evaluation",
            "attribution": f"params:{d}.attribution",
            "maps": f"{d}.{method}.attributions",
            "model": f"{d}.model",
            "train": f"{d}.train",
            "test": f"{d}.test",
            "card": f"{d}.data_card",
        },
        outputs=f"{d}.{method}.properties",
        name="describe_method",
        namespace=f"{d}.{method}",
    )


def _leak(d: str, method: str, project: Path) -> Node:
    return Node(
        func=with_names(leak_nodes.leak_method, dataset=d, method=method, project=project),
        inputs={
            "params": f"params:{d}.evaluation",
            "attribution": f"params:{d}.attribution",
            "maps": f"{d}.{method}.attributions",
            "model": f"{d}.model",
            "train": f"{d}.train",
            "test": f"{d}.test",
            "card": f"{d}.data_card",
        },
        outputs=f"{d}.{method}.leakage",
        name="leak_method",
        namespace=f"{d}.{method}",
    )


def _shortcut(d: str, methods: tuple[str, ...], project: Path) -> list[Node]:
    """A network with a planted shortcut, and which methods find it."""
    images = {name: f"{d}.{name}" for name in ("train", "test")} | {"card": f"{d}.data_card"}
    return [
        Node(
            func=with_names(leak_nodes.plant_shortcut, dataset=d),
            inputs={"params": f"params:{d}.evaluation", "training": f"params:{d}.training", **images},
            outputs=[f"{d}.shortcut_model", f"{d}.planted"],
            name="plant_shortcut",
            namespace=f"{d}.shortcut",
        ),
        Node(
            func=with_names(leak_nodes.find_shortcut, dataset=d, methods=methods, project=project),
            inputs={
                "params": f"params:{d}.evaluation",
                "attribution": f"params:{d}.attribution",
                "network": f"{d}.shortcut_model",
                "planted": f"{d}.planted",
                **images,
            },
            outputs=f"{d}.shortcut",
            name="find_shortcut",
            namespace=f"{d}.shortcut",
        ),
        Node(
            func=leak_nodes.draw_shortcut,
            inputs=f"{d}.shortcut",
            outputs=f"{d}.shortcut_plot",
            name="draw_shortcut",
            namespace=f"{d}.shortcut",
        ),
    ]


def _reports(d: str, methods: tuple[str, ...]) -> list[Node]:
    namespace = f"{d}.evaluation"

    def of_report(func: Callable, output: str) -> Node:
        return Node(
            func=func, inputs=f"{d}.accuracy_report", outputs=f"{d}.{output}", name=func.__name__, namespace=namespace
        )

    return [
        Node(
            func=with_names(nodes.report_accuracy, dataset=d),
            inputs={
                "params": f"params:{d}.evaluation",
                "attribution": f"params:{d}.attribution",
                "training": f"params:{d}.training",
                "model": f"{d}.model",
                "test": f"{d}.test",
                "accuracy": f"{d}.model_accuracy",
                "card": f"{d}.data_card",
                **{f"headline_{m}": f"{d}.{m}.headline" for m in methods},
                **{f"matrix_{m}": f"{d}.{m}.matrix" for m in methods},
                **{f"cost_{m}": f"{d}.{m}.cost" for m in methods},
            },
            outputs=f"{d}.accuracy_report",
            name="report_accuracy",
            namespace=namespace,
        ),
        of_report(nodes.write_verdict, "verdict"),
        of_report(nodes.tabulate, "accuracy_table"),
        of_report(nodes.draw_accuracy, "accuracy_plot"),
        of_report(nodes.draw_curves, "curves_plot"),
        of_report(nodes.draw_cost, "cost_plot"),
        *_beyond_degradation(d, methods, namespace),
        Node(
            func=nodes.compare_visually,
            inputs={
                "params": f"params:{d}.evaluation",
                "test": f"{d}.test",
                "card": f"{d}.data_card",
                **{m: f"{d}.{m}.attributions" for m in methods},
            },
            outputs=f"{d}.visual_comparison",
            name="compare_visually",
            namespace=namespace,
        ),
    ]


def _beyond_degradation(d: str, methods: tuple[str, ...], namespace: str) -> list[Node]:
    properties = {m: f"{d}.{m}.properties" for m in methods}

    def drawn(func: Callable, output: str) -> Node:
        return Node(
            func=with_names(func, dataset=d), inputs=properties, outputs=f"{d}.{output}", name=func.__name__,
            namespace=namespace,
        )  # fmt: skip

    return [
        Node(
            func=property_nodes.compare_maps,
            inputs={"params": f"params:{d}.evaluation", **{m: f"{d}.{m}.attributions" for m in methods}},
            outputs=f"{d}.agreement",
            name="compare_maps",
            namespace=namespace,
        ),
        Node(
            func=property_nodes.draw_agreement,
            inputs=f"{d}.agreement",
            outputs=f"{d}.agreement_plot",
            name="draw_agreement",
            namespace=namespace,
        ),
        Node(
            func=with_names(leak_nodes.draw_leakage, dataset=d),
            inputs={m: f"{d}.{m}.leakage" for m in methods},
            outputs=f"{d}.leakage_plot",
            name="draw_leakage",
            namespace=namespace,
        ),
        drawn(property_nodes.draw_properties, "properties_plot"),
        drawn(property_nodes.draw_randomisation, "randomisation_plot"),
    ]
