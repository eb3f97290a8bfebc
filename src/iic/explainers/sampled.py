"""Methods that only ask the network for outputs: LIME, Kernel SHAP, occlusion and RISE, on the perturbation engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from iic.errors import UserError
from iic.explainers.attributions import Maps
from iic.explainers.coalition_process import LARGEST_BUDGET, process_shapley_values
from iic.explainers.coalitions import Coalitions, draw_coalitions
from iic.explainers.context import Context
from iic.explainers.kernel_shap import PairedValues, all_masks, paired_values, shapley_estimates, standard_errors
from iic.explainers.lime import draw_masks, lime_coefficients
from iic.explainers.perturbation import Masks, Perturbed, SuperpixelMasks, masked_values
from iic.explainers.ranking import is_stable
from iic.explainers.windows import SmoothMasks, Windows, occlusion_map, rise_map

ROUNDS = (0.25, 0.5, 1.0)  # shares of the budget after which early stopping looks whether the ranking is settled

LIME, KERNEL_SHAP, RISE = 0, 1, 5  # key the draws; the numbers of older methods stay theirs


class Group:
    """A few images that are explained together, so that their masks share batches."""

    def __init__(self, context: Context, images: np.ndarray, indices: np.ndarray, targets: np.ndarray, output: str):
        self.context, self.images, self.indices, self.targets, self.output = context, images, indices, targets, output

    def __len__(self) -> int:
        return len(self.images)

    def segments(self) -> list[np.ndarray]:
        return [self.context.segments(image, int(i)) for image, i in zip(self.images, self.indices, strict=True)]

    def ask(self, masks: dict[int, Masks], segments: list[np.ndarray]) -> dict[int, np.ndarray]:
        """The network's output for each mask of the images with these numbers."""
        jobs = [
            Perturbed(
                self.images[i],
                self.context.fill(self.images[i], segments[i]),
                rows,
                int(self.targets[i]),
                f"test image {self.indices[i]}",
            )
            for i, rows in masks.items()
        ]
        size = self.context.params.batch_size
        values = masked_values(self.context.forward, jobs, output=self.output, batch_size=size)
        return dict(zip(masks, values, strict=True))


def _spread(values: list[np.ndarray], segments: list[np.ndarray]) -> np.ndarray:
    """A value for each superpixel to one for each pixel: float32 (n, H, W)."""
    return np.stack([v[s] for v, s in zip(values, segments, strict=True)]).astype(np.float32)


def _counts(masks: list[int], segments: list[np.ndarray], **more: list) -> dict[str, np.ndarray]:
    found = {"superpixels": [int(s.max()) + 1 for s in segments], "forwards": masks, **more}
    return {name: np.array(column, dtype=np.float64) for name, column in found.items()}


def lime(group: Group) -> Maps:
    """Coefficients of LIME's local linear model."""
    params, segments = group.context.params, group.segments()
    masks = [
        draw_masks(int(s.max()) + 1, params.budget, group.context.draws(i, LIME))
        for s, i in zip(segments, group.indices, strict=True)
    ]
    values = group.ask(
        {i: SuperpixelMasks(s, z) for i, (s, z) in enumerate(zip(segments, masks, strict=True))}, segments
    )
    found, errors = lime_coefficients(
        masks, list(values.values()), kernel_width=params.lime_kernel_width, ridge=params.lime_ridge
    )
    return Maps(_spread(found, segments), _spread(errors, segments), _counts([len(z) for z in masks], segments))


def kernel_shap(group: Group) -> Maps:
    """Shapley values; with `stop_early` an image's sampling ends when its top fifth is settled."""
    segments = group.segments()
    answers, estimates, settled = _sample_pairs(group, segments)
    found, errors = [values for values, _ in estimates], [standard_errors(c) for _, c in estimates]
    return _shapley_maps(found, errors, segments, answers, settled)


def kernel_shap_fast(group: Group) -> Maps:
    """Shapley values by a process that knows how superpixels interact (`iic.explainers.coalition_process`).

    Raises:
        UserError: a budget of more masks than the process can be solved for.
    """
    budget = group.context.params.budget
    if budget > LARGEST_BUDGET:
        raise UserError(
            f"kernel_shap_fast takes a budget of {LARGEST_BUDGET} masks at most, not {budget}: with so many, "
            "use kernel_shap."
        )
    segments = group.segments()
    answers, estimates, settled = _sample_pairs(group, segments)
    found, errors = zip(
        *(process_shapley_values(a, e[0]) for a, e in zip(answers, estimates, strict=True)), strict=True
    )
    return _shapley_maps(list(found), list(errors), segments, answers, settled)


def _shapley_maps(
    found: list[np.ndarray], errors: list[np.ndarray], segments: list, answers: list, settled: list
) -> Maps:
    forwards = [2 + 2 * len(a.kept) for a in answers]
    return Maps(_spread(found, segments), _spread(errors, segments), _counts(forwards, segments, settled=settled))


def _sample_pairs(
    group: Group, segments: list[np.ndarray]
) -> tuple[list[PairedValues], list[tuple[np.ndarray, np.ndarray]], list[bool]]:
    """Each image's coalitions and values; Shapley values and their covariance; whether its top fifth is settled."""
    params = group.context.params
    drawn = [
        draw_coalitions(int(s.max()) + 1, params.budget - 2, group.context.draws(i, KERNEL_SHAP), params.kernel_power)
        for s, i in zip(segments, group.indices, strict=True)
    ]
    answers: list[PairedValues | None] = [None] * len(group)
    estimates: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(group)
    settled = [False] * len(group)
    for share in ROUNDS if params.stop_early else ROUNDS[-1:]:
        open_ = [i for i in range(len(group)) if not settled[i]]
        if not open_:
            break
        _ask_pairs(group, segments, drawn, answers, {i: _pairs(drawn[i], share) for i in open_})
        for i, *estimate in zip(open_, *shapley_estimates([answers[i] for i in open_]), strict=True):
            estimates[i] = tuple(estimate)
            settled[i] = is_stable(estimate[0], standard_errors(estimate[1]), segments[i])
    return answers, estimates, settled


def _pairs(drawn: Coalitions, share: float) -> int:
    """So many pairs after this share of the budget; never too few for the regression."""
    p, m = drawn.masks.shape
    return min(p, max(round(share * p), 2 * m))


def _ask_pairs(group: Group, segments: list, drawn: list[Coalitions], answers: list, upto: dict[int, int]) -> None:
    """Bring each image's answers up to its number of pairs."""
    masks = {}
    for i, pairs in upto.items():
        before = 0 if answers[i] is None else len(answers[i].kept)
        new = drawn[i].masks[before:pairs]
        z = np.concatenate([new, ~new])
        if answers[i] is None:
            z = all_masks(drawn[i].first(pairs))
        masks[i] = SuperpixelMasks(segments[i], z)
    values = group.ask({i: m for i, m in masks.items() if len(m)}, segments)
    for i, found in values.items():
        chosen = drawn[i].first(upto[i])
        if answers[i] is None:
            answers[i] = paired_values(chosen, found)
        else:
            old, (kept, others) = answers[i], np.split(found, 2)
            kept, others = np.append(old.kept, kept), np.append(old.others, others)
            answers[i] = PairedValues(chosen, kept, others, old.nothing, old.everything)


def occlusion(group: Group) -> Maps:
    """How much each pixel's neighbourhood is missed."""
    params = group.context.params
    windows = Windows(group.images.shape[2:], params.occlusion_window, params.occlusion_stride)
    values = group.ask({i: windows for i in range(len(group))}, _whole(group))
    maps = np.stack([occlusion_map(values[i], windows) for i in range(len(group))]).astype(np.float32)
    return Maps(maps, None, {"forwards": np.full(len(group), float(len(windows)))})


def rise(group: Group) -> Maps:
    """Mean output over smooth random masks, weighted by how much each shows of a pixel."""
    params, shape = group.context.params, group.images.shape[2:]
    masks = {
        i: SmoothMasks.draw(shape, params.budget, params.rise_cells, group.context.draws(index, RISE))
        for i, index in enumerate(group.indices)
    }
    values = group.ask(masks, _whole(group))
    maps = np.stack([rise_map(values[i], masks[i]) for i in range(len(group))]).astype(np.float32)
    return Maps(maps, None, {"forwards": np.full(len(group), float(params.budget))})


def _whole(group: Group) -> list[np.ndarray]:
    """Fills that need superpixels get every pixel of its own, which is what windows and fields switch."""
    shape = group.images.shape[2:]
    return [np.arange(shape[0] * shape[1]).reshape(shape)] * len(group)


SAMPLED: dict[str, Callable[[Group], Maps]] = {
    "lime": lime,
    "kernel_shap": kernel_shap,
    "kernel_shap_fast": kernel_shap_fast,
    "occlusion": occlusion,
    "rise": rise,
}
