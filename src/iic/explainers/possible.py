"""What parameters ask of a method that it cannot do; without the libraries that the methods need."""

from __future__ import annotations

from iic.errors import UserError
from iic.explainers.names import LIBRARY, LRP_COMPOSITES, SAMPLED
from iic.params import AttributionParams

LARGEST_BUDGET = 10_000  # of processes: half of the masks make a dense system, whose cost grows with the third power
PROCESSES = {"lime_fast": "lime", "kernel_shap_fast": "kernel_shap"}


def by_library(base: str, params: AttributionParams) -> bool:
    """Whether backend "library" is to run this method: the gradients are Captum's anyway, controls nobody's."""
    return params.backend == "library" and (base in SAMPLED or base in LRP_COMPOSITES)


def check_possible(base: str, params: AttributionParams) -> None:
    """Raise UserError if a method, a name without endings, cannot explain as the parameters say."""
    if by_library(base, params):
        if base not in LIBRARY:
            raise UserError(
                f"backend 'library' has no '{base}': it runs {', '.join(LIBRARY)}; take the others with backend 'own', "
                "or leave them out of IIC_METHODS."
            )
        if params.fill not in ("mean", "constant"):
            raise UserError(f"backend 'library' fills with one colour, not with '{params.fill}': set fill to 'mean'.")
    elif base in PROCESSES and params.budget > LARGEST_BUDGET:
        raise UserError(
            f"{base} takes a budget of {LARGEST_BUDGET} masks at most, not {params.budget}: with so many, use "
            f"{PROCESSES[base]}."
        )
