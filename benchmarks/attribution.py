"""Explanations per second and error: ours beside the libraries, on one machine in one run.

    make bench-attribution                                         # mnist and cifar10
    make bench-attribution ARGS="--datasets mnist --images 4 --repeats 2"

Same shipped network, images, superpixels and fill for all. Every library runs twice: with the float32 model as its
users run it (evaluation mode, as trained), and with our frozen forward. Errors are relative L2 to a converged float32
reference: Shapley values for Kernel SHAP; for LIME, what the same library (or ours) converges to. Seconds to equal
error: the forwards that a library needs for the error that ours has with 1,000, from its errors at several budgets (a
straight line through the logarithms), times its seconds a forward. Medians over images and repeats. The last line
compares each library of Kernel SHAP with the better of our two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from peers import LIMES, SHAPLEY
from relevance import time_relevance
from setting import Setting, relative_error

from iic.explainers.libraries import Explained
from iic.explainers.work import TOGETHER
from iic.progress import bar
from iic.selection import project_folder

BUDGET = 1000
PEER_BUDGETS = (500, 1000, 2000, 4000, 8000)  # until the errors that ours has with BUDGET
BATCHES = (64, 125, 250, 500)
OURS_OF = {**dict.fromkeys(SHAPLEY, "kernel_shap"), **dict.fromkeys(LIMES, "lime")}


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def best_batch(answer: Callable, shape: tuple, repeats: int) -> tuple[int, float]:
    """The batch size at which a forward is cheapest, and its seconds for BUDGET images."""
    found = {}
    for size in BATCHES:
        pixels = torch.rand(size, *shape) * 255
        found[size] = median_seconds(lambda x=pixels: answer(x), repeats) / size * BUDGET
    return min(found.items(), key=lambda item: item[1])


def bench(dataset: str, arguments: argparse.Namespace) -> pd.DataFrame:
    """All rows of one dataset: what, with which forward, seconds an image, error, seconds to equal error."""
    setting = Setting.load(dataset)
    rows: list[dict] = []
    shape = setting.test.images.shape[1:]
    forwards = {}
    for name, answer in (("float32, as users run it", setting.users_answer), ("frozen", setting.fast_answer)):
        size, seconds = best_batch(answer, shape, arguments.repeats)
        forwards[name] = size
        rows.append({"what": "forward", "forward": name, "batch": size, "seconds": seconds})
    indices = setting.chosen(arguments.images)
    targets = setting.targets(indices)
    truth = _references(setting, indices, targets, arguments.reference)
    together = np.resize(indices, TOGETHER), np.resize(targets, TOGETHER)
    for method in ("lime", "kernel_shap", "kernel_shap_fast"):
        seconds = median_seconds(lambda m=method: setting.values(m, *together, budget=BUDGET), arguments.repeats)
        found = setting.values(method, indices, targets, budget=BUDGET)
        kind = "kernel_shap" if method == "kernel_shap_fast" else method
        errors = [relative_error(f, t) for f, t in zip(found, truth[kind], strict=True)]
        rows.append(
            {
                "what": method,
                "forward": "frozen",
                "forwards": BUDGET,
                "seconds": seconds / TOGETHER,
                "error": float(np.median(errors)),
            }
        )
    ours = {row["what"]: row for row in rows}
    for name in bar(f"{dataset}: libraries", "library")([*LIMES, *arguments.shapley]):
        rows += _peer(setting, name, indices, targets, truth, forwards, ours, arguments)
    rows += time_relevance(setting, arguments.repeats)
    return pd.DataFrame(rows).assign(dataset=dataset)


def _references(setting: Setting, indices: np.ndarray, targets: np.ndarray, budget: int) -> dict[str, list]:
    """Converged float32 values, by draws that no row uses."""
    plain = setting.float32()
    found = {}
    for method in bar(f"{setting.dataset}: references", "method")(("kernel_shap", "lime")):
        found[method] = plain.values(method, indices, targets, budget=budget, seed=987654)
    return found


def _peer(
    setting: Setting,
    name: str,
    indices: np.ndarray,
    targets: np.ndarray,
    truth: dict[str, list],
    batches: dict[str, int],
    ours: dict[str, dict],
    arguments: argparse.Namespace,
) -> list[dict]:
    """A library's rows, one for each forward."""
    explain: Callable[[Explained, int, int], np.ndarray] = {**SHAPLEY, **LIMES}[name]
    mine, kind = ours[OURS_OF[name]], OURS_OF[name]

    def seen(at: int, fast: bool) -> Explained:
        x = setting.as_peers_see(indices[at], targets[at], fast=fast)
        return replace(x, batch_size=batches["frozen" if fast else "float32, as users run it"])

    if name == "captum.Lime":  # weighs masks by distances between images: it converges to numbers of its own
        reference = [explain(seen(i, True), arguments.reference, 987654) for i in range(len(indices))]
    else:
        reference = truth[kind]
    errors = []
    for budget in PEER_BUDGETS:
        found = [explain(seen(i, True), budget, budget) for i in range(len(indices))]
        errors.append(np.median([relative_error(f, t) for f, t in zip(found, reference, strict=True)]))
    slope, level = np.polyfit(np.log(PEER_BUDGETS), np.log(errors), 1)
    rows = []
    for fast in (False, True):
        seconds = median_seconds(lambda f=fast: explain(seen(0, f), BUDGET, 0), arguments.repeats)
        row = {
            "what": name,
            "forward": "frozen" if fast else "float32, as users run it",
            "forwards": BUDGET,
            "seconds": seconds,
            "error": errors[PEER_BUDGETS.index(BUDGET)],
            "slope": slope,
            "ratio_equal_forwards": seconds / mine["seconds"],
        }
        for which in (kind, f"{kind}_fast"):
            if which in ours and slope < -0.1:
                needed = np.exp((np.log(ours[which]["error"]) - level) / slope)
                row[f"forwards_to_error_of_{which}"] = needed
                row[f"ratio_equal_error_{which}"] = seconds * needed / BUDGET / ours[which]["seconds"]
        rows.append(row)
    return rows


def save(table: pd.DataFrame) -> None:
    """Through the project's catalog, one version a run; and the picture beside it."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project
    from plots import ratios

    project = project_folder()
    bootstrap_project(project)
    with KedroSession.create(project_path=project) as session:
        dataset = session.load_context().catalog["attribution_benchmark"]
        dataset.save(table)
    path = project / "docs" / "images" / "attribution_benchmark.png"
    ratios(table).savefig(path, dpi=110, metadata={"Software": None})
    print(f"Figures: {dataset._get_load_path()}; picture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--reference", type=int, default=32000)
    parser.add_argument(
        "--shapley", nargs="*", default=["shap.KernelExplainer", "captum.KernelShap", "shapiq.KernelSHAP"]
    )
    arguments = parser.parse_args()
    table = pd.concat([bench(dataset, arguments) for dataset in arguments.datasets], ignore_index=True)
    with pd.option_context("display.width", 250, "display.max_columns", None, "display.precision", 4):
        print(table.to_string(index=False))
    save(table)
    users = table[table.forward == "float32, as users run it"]
    ratios = users[[c for c in users if c.startswith("ratio_equal_error_")]].max(axis=1).dropna()
    print(f"slowest ratio at equal error: {ratios.min():.1f}")


if __name__ == "__main__":
    main()
