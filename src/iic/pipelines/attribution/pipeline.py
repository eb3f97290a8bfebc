"""attribution: {dataset}.model, .test -> {dataset}.{method}.attributions, .cost."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from iic.pipelines.attribution import nodes
from iic.pipelines.wiring import with_names


def create_pipeline(datasets: tuple[str, ...], methods: tuple[str, ...]) -> Pipeline:
    """One node per dataset and method, namespace {dataset}.{method}."""
    return Pipeline([_node(dataset, method) for dataset in datasets for method in methods])


def _node(d: str, method: str) -> Node:
    return Node(
        func=with_names(nodes.explain_images, dataset=d, method=method),
        inputs={
            "params": f"params:{d}.attribution",
            "test": f"{d}.test",
            "card": f"{d}.data_card",
            "model": f"{d}.model",
        },
        outputs=[f"{d}.{method}.attributions", f"{d}.{method}.cost"],
        name="explain_images",
        namespace=f"{d}.{method}",
    )
