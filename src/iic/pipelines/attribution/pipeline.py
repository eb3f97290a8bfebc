"""attribution: {dataset}.model, .test -> {dataset}.{method}.attributions, .cost."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Node, Pipeline

from iic.explainers.names import explained_together, source_of
from iic.pipelines.attribution import nodes
from iic.pipelines.wiring import with_names


def create_pipeline(datasets: tuple[str, ...], methods: tuple[str, ...], project: Path) -> Pipeline:
    """One node per dataset and method, namespace {dataset}.{method}; a twin brings the method it is derived from.

    A method that explains probabilities brings forth its twin on logits, if both are wanted: the forwards are the same.
    """
    direct = [(*sources, None)[:2] for sources in explained_together(methods)]  # a method, and its twin or None
    derived = [(method, None) for method in methods if source_of(method)]
    return Pipeline([_node(d, *names, project) for d in datasets for names in (*direct, *derived)])


def _node(d: str, method: str, twin: str | None, project: Path) -> Node:
    source = source_of(method)
    func = nodes.explain_images if source is None else nodes.derive_maps
    inputs = {"params": f"params:{d}.attribution"}
    if source is None:
        inputs |= {"train": f"{d}.train", "test": f"{d}.test", "card": f"{d}.data_card", "model": f"{d}.model"}
    else:
        inputs |= {"test": f"{d}.test", "source": f"{d}.{source}.attributions", "cost": f"{d}.{source}.cost"}
    return Node(
        func=with_names(func, dataset=d, method=method, project=project, **({"twin": twin} if twin else {})),
        inputs=inputs,
        outputs=[f"{d}.{name}.{what}" for name in (method, twin) if name for what in ("attributions", "cost")],
        name=func.__name__,
        namespace=f"{d}.{method}",
    )
