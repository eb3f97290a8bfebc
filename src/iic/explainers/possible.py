"""What parameters ask of a method that it cannot do; without the libraries that the methods need."""

from __future__ import annotations

from math import ceil

from iic.errors import UserError
from iic.explainers.coalitions import smallest_budget
from iic.explainers.names import LIBRARY, LRP_COMPOSITES, SAMPLED
from iic.params import AttributionParams

LARGEST_BUDGET = 10_000  # of processes: half of the masks make a dense system, whose cost grows with the third power
PROCESSES = {"lime_fast": "lime", "kernel_shap_fast": "kernel_shap"}
COALITIONS = ("kernel_shap", "kernel_shap_fast")
FOUND = 1.2  # superpixels that SLIC and grids find at most, for each that they are asked for


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


def check_budget(name: str, params: AttributionParams, shape: tuple[int, ...] | None) -> None:
    """Raise UserError if Kernel SHAP's budget may be too small for some image of a dataset; an image of too many of a
    user's own superpixels is named once it is met.

    Args:
        name: of the dataset.
        shape: of its images, (C, H, W), if it is known.
    """
    pixels = params.segmentation == "pixels"
    if params.backend == "library" or params.segments is not None or (pixels and shape is None):
        return
    found = shape[1] * shape[2] if pixels else ceil(FOUND * params.superpixels)
    needed = smallest_budget(found)
    if params.budget < needed:
        what = "single pixels" if pixels else f"superpixels, as may be found where {params.superpixels} are asked for"
        raise UserError(
            f"{name}.attribution.budget is {params.budget}, but Kernel SHAP needs {needed} forwards for "
            f"{found} {what}: raise budget, choose fewer superpixels or leave Kernel SHAP out of IIC_METHODS."
        )
