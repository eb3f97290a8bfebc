"""Shared fixtures: a project folder of its own, and one whole small run in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

# The same examples in every run, so that what was green stays so; new ones: pytest --hypothesis-profile=default.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

# Small enough for seconds, real in every step.
JUDGING = {
    "noise_seeds": [0, 1],
    "bootstrap": 200,
    "judge_epochs": 1,
    "shares": [0.2, 0.5],
    "matrix_images": 20,
    "properties_images": 10,
    "sanity_images": 2,
    "leakage_images": 30,
    "shortcut_epochs": 1,
    "shortcut_images": 10,
}
SMALL = {
    "digits": {
        "training": {"epochs": 2, "widths": [8, 16, 16]},
        "attribution": {"n_images": 30, "budget": 120, "superpixels": 20},
        "evaluation": JUDGING,
        "bayesian": {
            "hidden": [32],
            "references": ["laplace", "ensemble"],
            "epochs": 2,
            "samples": 10,
            "members": 2,
            "noise_images": 100,
            "explained_images": 40,
            "refused_images": 5,
            "variance_images": 3,
            "repeats": 2,
        },
    },
    "shapes": {
        "data": {"n_train": 400, "n_test": 100},
        "training": {"epochs": 1, "widths": [8, 16, 16], "batch_size": 100, "n_validation": 50},
        "attribution": {"n_images": 30, "budget": 120, "superpixels": 20},
        "evaluation": JUDGING,
        "bayesian": {
            "epochs": 2,
            "samples": 10,
            "members": 2,
            "noise_images": 50,
            "explained_images": 20,
            "refused_images": 3,
            "variance_images": 3,
            "repeats": 2,
        },
    },
}


QUICK_JUDGING = ",".join(  # for runs of digits from the command line, where judging is not what is tested
    f"digits.evaluation.{name}"
    for name in (
        "judge_epochs=1",
        "matrix_images=10",
        "properties_images=5",
        "sanity_images=1",
        "leakage_images=20",
        "shortcut_epochs=1",
        "shortcut_images=10",
    )
)
QUICK_DOUBT = ",".join(
    f"digits.bayesian.{name}"
    for name in (
        "epochs=2",
        "samples=5",
        "noise_images=50",
        "explained_images=20",
        "refused_images=4",
        "variance_images=2",
        "repeats=2",
    )
)


def flat(parameters: dict, prefix: str = "") -> list[str]:
    """Nested parameters as kedro's --params takes them; lists stay out."""
    rows = []
    for key, value in parameters.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            rows.append(f"{prefix}{key}={value}")
    return rows


def make_project(folder: Path) -> Path:
    """A copy of the project with a data folder of its own."""
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / ".telemetry", folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    if (ROOT / "weights").exists():
        shutil.copytree(ROOT / "weights", folder / "weights")
    (folder / "data").mkdir()
    return folder


def kedro(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run kedro's command line in the project; output as text."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("IIC_")} | {"COLUMNS": "400"} | environment
    command = [sys.executable, "-m", "kedro", *words]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="session")
def small_parameters() -> dict:
    return SMALL


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> tuple[Path, dict]:
    """One whole `KedroSession` run of the default datasets: (temporary project folder, what the run returned)."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    project = make_project(tmp_path_factory.mktemp("project"))
    before = Path.cwd()
    os.chdir(project)
    try:
        bootstrap_project(project)
        with KedroSession.create(project_path=project, runtime_params=SMALL) as session:
            result = session.run()
    finally:
        os.chdir(before)
    (project / "conf" / "local" / "parameters.yml").write_text(json.dumps(SMALL))  # JSON is YAML
    return project, result


@pytest.fixture(scope="session")
def waves():
    """Stripes of four classes: (training images, test images, card)."""
    from watermarked import draw_waves

    return draw_waves()


@pytest.fixture(scope="session")
def shortcut(waves):
    """A network that took a planted watermark for a class, and what was measured of it."""
    from watermarked import with_shortcut

    return with_shortcut(waves)
