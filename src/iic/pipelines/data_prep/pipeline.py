"""data_prep: source -> {dataset}.train, .test, .data_card."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from iic.pipelines.data_prep import nodes
from iic.pipelines.wiring import with_names


def create_pipeline(datasets: tuple[str, ...]) -> Pipeline:
    """One node per dataset."""
    return Pipeline(
        [
            Node(
                func=with_names(nodes.prepare_data, dataset=d),
                inputs={"params": f"params:{d}.data"},
                outputs=[f"{d}.train", f"{d}.test", f"{d}.data_card"],
                name="prepare_data",
                namespace=f"{d}.data_prep",
            )
            for d in datasets
        ]
    )
