"""bayesian: {dataset}.train, .{method}.attributions -> .posterior, .bayesian_report, .bayesian_plot."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Node, Pipeline

from iic.pipelines.bayesian import nodes
from iic.pipelines.wiring import with_names


def create_pipeline(datasets: tuple[str, ...], methods: tuple[str, ...], project: Path | None = None) -> Pipeline:
    """Three nodes per dataset; `datasets` are the one-channel ones, `project` the folder of shipped weights."""
    return Pipeline([node for dataset in datasets for node in _nodes(dataset, methods, project)])


def _nodes(d: str, methods: tuple[str, ...], project: Path | None) -> list[Node]:
    namespace = f"{d}.bayesian"
    return [
        Node(
            func=with_names(nodes.train_bayesian, dataset=d, project=project),
            inputs={"params": f"params:{d}.bayesian", "train": f"{d}.train", "card": f"{d}.data_card"},
            outputs=f"{d}.posterior",
            name="train_bayesian",
            namespace=namespace,
        ),
        Node(
            func=with_names(nodes.report_bayesian, dataset=d),
            inputs={
                "params": f"params:{d}.bayesian",
                "evaluation": f"params:{d}.evaluation",
                "posterior": f"{d}.posterior",
                "test": f"{d}.test",
                "card": f"{d}.data_card",
                **{m: f"{d}.{m}.attributions" for m in methods},
            },
            outputs=f"{d}.bayesian_report",
            name="report_bayesian",
            namespace=namespace,
        ),
        Node(
            func=nodes.draw_bayesian,
            inputs=f"{d}.bayesian_report",
            outputs=f"{d}.bayesian_plot",
            name="draw_bayesian",
            namespace=namespace,
        ),
    ]
