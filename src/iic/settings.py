"""Kedro's settings: hooks, and parameters of an environment merged key by key instead of block by block."""

import warnings

from iic.hooks import ProjectHooks

# What Kedro 1.7 does that newer omegaconf and Pydantic warn of: many lines that no user can do anything about.
warnings.filterwarnings("ignore", message=r"register_new_resolver\(\) is deprecated", category=UserWarning)
warnings.filterwarnings("ignore", message="Accessing the 'model_fields' attribute", category=DeprecationWarning)

HOOKS = (ProjectHooks(),)
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
}
