"""training: {dataset}.train -> .model, .learning_curve, .model_accuracy, .learning_curve_plot."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Node, Pipeline

from iic.pipelines.training import nodes
from iic.pipelines.wiring import with_names


def create_pipeline(datasets: tuple[str, ...], project: Path | None = None) -> Pipeline:
    """Three nodes per dataset; `project` is the folder of shipped weights and of the state of interrupted trainings."""
    return Pipeline([node for dataset in datasets for node in _nodes(dataset, project)])


def _nodes(d: str, project: Path | None) -> list[Node]:
    namespace = f"{d}.training"
    return [
        Node(
            func=with_names(nodes.train_model, dataset=d, project=project),
            inputs={"params": f"params:{d}.training", "train": f"{d}.train", "card": f"{d}.data_card"},
            outputs=[f"{d}.model", f"{d}.learning_curve"],
            name="train_model",
            namespace=namespace,
        ),
        Node(
            func=nodes.measure_accuracy,
            inputs={"model": f"{d}.model", "train": f"{d}.train", "test": f"{d}.test"},
            outputs=f"{d}.model_accuracy",
            name="measure_accuracy",
            namespace=namespace,
        ),
        Node(
            func=with_names(nodes.draw_learning_curve, dataset=d),
            inputs={"curve": f"{d}.learning_curve", "accuracy": f"{d}.model_accuracy"},
            outputs=f"{d}.learning_curve_plot",
            name="draw_learning_curve",
            namespace=namespace,
        ),
    ]
