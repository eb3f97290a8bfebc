"""Explanations per second and error: ours beside the libraries, on one machine in one run.

    make bench-attribution                                         # mnist and cifar10
    make bench-attribution ARGS="--datasets mnist --images 4 --repeats 2"

Same shipped network, images, superpixels and fill for all. Every library runs twice: with the float32 model as its
users run it (evaluation mode, as trained), and with our frozen forward. Errors are relative L2 to a converged float32
reference: Shapley values for Kernel SHAP; for LIME, what ours (for Captum's: what itself) converges to. Each row's
errors are measured with its own forward, so that what 8 bits change is counted where 8 bits were used. Seconds to equal
error: the forwards that a library needs for the error that ours has with 1,000, from its errors at several budgets (a
straight line through the logarithms; `~` where it is read off outside of them), times its seconds a forward. Errors are
medians over images; seconds are medians over repeats: ours of 32 images together, a library's of three images one by
one. The last line compares each library with the better of our two, plain and fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from peers import LIMES, SHAPLEY
from relevance import time_relevance
from setting import Setting, relative_error
from setting import seconds as seconds_of

from iic.explainers.libraries import Explained
from iic.explainers.work import TOGETHER
from iic.progress import bar
from iic.selection import project_folder

BUDGET = 1000
PEER_BUDGETS = (500, 1000, 2000, 4000, 8000)  # until the errors that ours has with BUDGET
BATCHES = {"cpu": (64, 125, 250, 500), "cuda": (250, 1000, 4000)}
TIMED = 3  # images that a library is timed on
DRAWS = 5  # of ours, whose mean error counts: a single one is lucky or not; a library's are smoothed over its budgets
CONVERGED = 987654  # keys the draws of references, which no row uses
USERS, FROZEN = "float32, as users run it", "frozen"
Library = Callable[[Explained, int, int], np.ndarray]  # image, budget, seed -> a value for each superpixel
OURS = ("lime", "lime_fast", "kernel_shap", "kernel_shap_fast")
OUTSIDE = "outside_measured_budgets_"  # begins the names of columns that say which forwards were extrapolated
OURS_OF = {**dict.fromkeys(SHAPLEY, "kernel_shap"), **dict.fromkeys(LIMES, "lime")}


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after one that warms up."""
    run()
    return float(np.median([seconds_of(run) for _ in range(repeats)]))


def best_batch(answer: Callable, shape: tuple, device: str, repeats: int) -> tuple[int, float]:
    """The batch size at which a forward is cheapest, and its seconds for BUDGET images."""
    found = {}
    for size in BATCHES[device]:
        pixels = torch.rand(size, *shape) * 255
        found[size] = median_seconds(lambda x=pixels: answer(x), repeats) / size * BUDGET
    return min(found.items(), key=lambda item: item[1])


@dataclass(frozen=True)
class Contest:
    """What every library of one dataset is measured on.

    Attributes:
        setting: the network.
        indices, targets: the images and the explained classes.
        truth: our method -> each image's converged values.
        batches: forward -> images a forward at which it is cheapest.
        ours: our method -> its row.
        reference: forwards of a reference.
        repeats: timed runs.
    """

    setting: Setting
    indices: np.ndarray
    targets: np.ndarray
    truth: dict[str, list[np.ndarray]]
    batches: dict[str, int]
    ours: dict[str, dict]
    reference: int
    repeats: int

    def seen(self, at: int, forward: str) -> Explained:
        """An image as a library is given it."""
        x = self.setting.as_peers_see(self.indices[at], self.targets[at], fast=forward == FROZEN)
        return replace(x, batch_size=self.batches[forward])

    def values(self, explain: Library, forward: str, budget: int, seed: int) -> list[np.ndarray]:
        """What a library makes of each image."""
        return [explain(self.seen(i, forward), budget, seed) for i in range(len(self.indices))]

    def seconds(self, explain: Library, forward: str) -> float:
        """Median of an image with BUDGET forwards, its superpixels included, as in ours."""
        runs = [lambda i=i: explain(self.seen(i, forward), BUDGET, 0) for i in range(min(TIMED, len(self.indices)))]
        return float(np.median([median_seconds(run, self.repeats) for run in runs]))

    def forwards(self, explain: Library) -> float:
        """How many images a library really asks for with BUDGET."""
        asked, x = [], self.seen(0, FROZEN)

        def counted(pixels: torch.Tensor) -> torch.Tensor:
            asked.append(len(pixels))
            return x.answer(pixels)

        explain(replace(x, answer=counted), BUDGET, 0)
        return float(sum(asked))


def median_error(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Relative L2, median over images."""
    return float(np.median([relative_error(f, t) for f, t in zip(found, truth, strict=True)]))


def bench(dataset: str, arguments: argparse.Namespace) -> pd.DataFrame:
    """All rows of one dataset: what, with which forward, seconds an image, error, seconds to equal error."""
    setting = Setting.load(dataset)
    rows: list[dict] = []
    for name, answer in ((USERS, setting.users_answer), (FROZEN, setting.fast_answer)):
        device = setting.context.forward.device
        size, seconds = best_batch(answer, setting.test.images.shape[1:], device, arguments.repeats)
        rows.append({"what": "forward", "forward": name, "batch": size, "seconds": seconds})
    batches = {row["forward"]: row["batch"] for row in rows}
    indices = setting.chosen(arguments.images)
    targets = setting.targets(indices)
    truth = _references(setting, indices, targets, arguments.reference)
    ours = {method: _our_row(setting, method, indices, targets, truth, arguments.repeats) for method in OURS}
    contest = Contest(setting, indices, targets, truth, batches, ours, arguments.reference, arguments.repeats)
    rows += ours.values()
    for name in bar(f"{dataset}: libraries", "library")([*LIMES, *arguments.shapley]):
        rows += _peer(contest, name)
    rows += time_relevance(setting, arguments.repeats)
    return pd.DataFrame(rows).assign(dataset=dataset)


def _our_row(
    setting: Setting, method: str, indices: np.ndarray, targets: np.ndarray, truth: dict[str, list], repeats: int
) -> dict:
    together = np.resize(indices, TOGETHER), np.resize(targets, TOGETHER)
    seconds = median_seconds(lambda: setting.values(method, *together, budget=BUDGET), repeats)
    draws = [setting.values(method, indices, targets, budget=BUDGET, seed=seed) for seed in range(DRAWS)]
    error = float(np.mean([median_error(found, truth[method.removesuffix("_fast")]) for found in draws]))
    return {
        "what": method,
        "forward": FROZEN,
        "forwards": BUDGET,
        "seconds": seconds / TOGETHER,
        "error": error,
    }


def _references(setting: Setting, indices: np.ndarray, targets: np.ndarray, budget: int) -> dict[str, list]:
    """Converged float32 values, by draws that no row uses."""
    plain = setting.float32()
    found = {}
    for method in bar(f"{setting.dataset}: references", "method")(("kernel_shap", "lime")):
        found[method] = plain.values(method, indices, targets, budget=budget, seed=CONVERGED)
    return found


def _peer(contest: Contest, name: str) -> list[dict]:
    """A library's rows, one for each forward."""
    explain: Library = {**SHAPLEY, **LIMES}[name]
    truth = contest.truth[OURS_OF[name]]
    if name == "captum.Lime":  # weighs masks by distances between images: it converges to numbers of its own
        truth = contest.values(explain, USERS, contest.reference, CONVERGED)
    return [_peer_row(contest, name, explain, forward, truth) for forward in (USERS, FROZEN)]


def _peer_row(contest: Contest, name: str, explain: Library, forward: str, truth: list[np.ndarray]) -> dict:
    kind, ours = OURS_OF[name], contest.ours
    errors = [median_error(contest.values(explain, forward, budget, budget), truth) for budget in PEER_BUDGETS]
    slope, level = np.polyfit(np.log(PEER_BUDGETS), np.log(errors), 1)
    seconds = contest.seconds(explain, forward)
    row = {
        "what": name,
        "forward": forward,
        "forwards": contest.forwards(explain),
        "seconds": seconds,
        "error": errors[PEER_BUDGETS.index(BUDGET)],
        "slope": slope,
        "ratio_equal_forwards": seconds / ours[kind]["seconds"],
    }
    for which in (kind, f"{kind}_fast"):
        if which in ours and slope < -0.1:
            needed = np.exp((np.log(ours[which]["error"]) - level) / slope)
            row[f"forwards_to_error_of_{which}"] = needed
            row[f"ratio_equal_error_{which}"] = seconds * needed / BUDGET / ours[which]["seconds"]
            row[f"{OUTSIDE}{which}"] = not PEER_BUDGETS[0] <= needed <= PEER_BUDGETS[-1]
    return row


def marked(table: pd.DataFrame) -> pd.DataFrame:
    """For the eye: a `~` at numbers that rest on more or fewer forwards than any error was measured at."""
    shown = table.copy()
    for flag in [name for name in table if name.startswith(OUTSIDE)]:
        outside = table[flag].eq(True)
        for start in ("forwards_to_error_of_", "ratio_equal_error_"):
            name = start + flag.removeprefix(OUTSIDE)
            shown[name] = table[name].astype(object).where(~outside, "~" + table[name].map("{:.4g}".format))
    return shown.drop(columns=[name for name in table if name.startswith(OUTSIDE)])


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
        print(marked(table).to_string(index=False))
    print(f"~: outside of {PEER_BUDGETS[0]} to {PEER_BUDGETS[-1]} forwards, at which errors were measured")
    save(table)
    users = table[table.forward == USERS]
    ratios = users[[c for c in users if c.startswith("ratio_equal_error_")]].max(axis=1).dropna()
    print(f"slowest ratio at equal error: {ratios.min():.1f}")


if __name__ == "__main__":
    main()
