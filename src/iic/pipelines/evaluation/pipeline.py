"""evaluation: {dataset}.{method}.attributions -> .scores -> {dataset}.accuracy_report and its pictures."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from iic.pipelines.evaluation import nodes
from iic.pipelines.wiring import with_names


def create_pipeline(datasets: tuple[str, ...], methods: tuple[str, ...]) -> Pipeline:
    """Per dataset one score for each method, the report, its chart, and the visual comparison."""
    scores = [_score(d, m) for d in datasets for m in methods]
    return Pipeline(scores + [node for d in datasets for node in _reports(d, methods)])


def _score(d: str, method: str) -> Node:
    return Node(
        func=nodes.score_method,
        inputs={
            "params": f"params:{d}.evaluation",
            "maps": f"{d}.{method}.attributions",
            "model": f"{d}.model",
            "test": f"{d}.test",
            "card": f"{d}.data_card",
        },
        outputs=f"{d}.{method}.scores",
        name="score_method",
        namespace=f"{d}.{method}",
    )


def _reports(d: str, methods: tuple[str, ...]) -> list[Node]:
    namespace = f"{d}.evaluation"
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
                **{f"scores_{m}": f"{d}.{m}.scores" for m in methods},
                **{f"cost_{m}": f"{d}.{m}.cost" for m in methods},
            },
            outputs=f"{d}.accuracy_report",
            name="report_accuracy",
            namespace=namespace,
        ),
        Node(
            func=nodes.draw_accuracy,
            inputs=f"{d}.accuracy_report",
            outputs=f"{d}.accuracy_plot",
            name="draw_accuracy",
            namespace=namespace,
        ),
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
