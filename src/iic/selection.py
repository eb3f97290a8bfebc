"""Which datasets and methods the pipelines are built for: the environment variables IIC_DATASETS and IIC_METHODS."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path

from iic.errors import UserError
from iic.explainers.names import BASE, DEFAULT, METHODS, STUDY

DEFAULT_DATASETS = "digits,shapes"


def _names(variable: str, default: str) -> tuple[str, ...]:
    names = tuple(n.strip() for n in (os.environ.get(variable) or default).split(",") if n.strip())
    for name in names:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise UserError(f"{variable} holds '{name}': names are lower-case letters, digits and underscores.")
    if len(set(names)) != len(names) or not names:
        raise UserError(f"{variable} needs one or more different names, separated by commas.")
    return names


def selected_datasets() -> tuple[str, ...]:
    """The names in IIC_DATASETS; that they are configured is checked where the parameters are known."""
    return _names("IIC_DATASETS", DEFAULT_DATASETS)


def selected_methods() -> tuple[str, ...]:
    """The names in IIC_METHODS; a few unless set; every method for "all", all that a strict verdict needs for "study".

    Raises:
        UserError: a method that does not exist.
    """
    names = _names("IIC_METHODS", ",".join(DEFAULT))
    if names in (("all",), ("study",)):
        return METHODS if names == ("all",) else STUDY
    for name in names:
        if name not in METHODS:
            near = get_close_matches(name, (*METHODS, "study", "all"), n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(BASE)}, or 'study', or 'all'."
            raise UserError(f"Unknown method '{name}' in IIC_METHODS: {hint}")
    return names


def one_channel(datasets: tuple[str, ...], parameters: dict) -> tuple[str, ...]:
    """The datasets that a whole Bayesian network is built for: configured with one channel."""
    return tuple(d for d in datasets if parameters.get(d, {}).get("data", {}).get("channels") == 1)


def project_folder() -> Path:
    """The project that the working directory is in."""
    from kedro.utils import find_kedro_project

    return Path(find_kedro_project(Path.cwd()) or Path.cwd())


def configured_parameters() -> dict:
    """The parameters as the project's configuration has them, before any given on the command line."""
    from kedro.config import OmegaConfigLoader

    loader = OmegaConfigLoader(
        conf_source=str(project_folder() / "conf"),
        base_env="base",
        default_run_env="local",
        merge_strategy={"parameters": "soft"},
    )
    return loader["parameters"]
