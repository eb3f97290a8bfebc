"""Methods that only ask the network for outputs: LIME, Kernel SHAP, occlusion and RISE, on the perturbation engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
    """A few images that are explained together, so that their masks share batches.

    `output` is what is explained: "probability", "logit", or "both", two maps from the same forwards.
    """

    def __init__(self, context: Context, images: np.ndarray, indices: np.ndarray, targets: np.ndarray, output: str):
        self.context, self.images, self.indices, self.targets, self.output = context, images, indices, targets, output

    def __len__(self) -> int:
        return len(self.images)

    @property
    def outputs(self) -> int:
        """How many maps an image gets."""
        return 2 if self.output == "both" else 1

    def segments(self) -> list[np.ndarray]:
        return [self.context.segments(image, int(i)) for image, i in zip(self.images, self.indices, strict=True)]

    def ask(self, masks: dict[int, Masks], segments: list[np.ndarray]) -> list[dict[int, np.ndarray]]:
        """Of each output, what the network says of each mask of the images with these numbers."""
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
        columns = [v.reshape(len(v), -1).T for v in values]  # (outputs, B)
        return [dict(zip(masks, [c[o] for c in columns], strict=True)) for o in range(self.outputs)]


def _with_twin(maps: list[Maps]) -> Maps:
    """The first output's maps, and the second's with them."""
    return maps[0] if len(maps) == 1 else replace(maps[0], twin=maps[1])


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
    shown = {i: SuperpixelMasks(s, z) for i, (s, z) in enumerate(zip(segments, masks, strict=True))}
    counts = _counts([len(z) for z in masks], segments)
    maps = []
    for values in group.ask(shown, segments):
        found, errors = lime_coefficients(
            masks, list(values.values()), kernel_width=params.lime_kernel_width, ridge=params.lime_ridge
        )
        maps.append(Maps(_spread(found, segments), _spread(errors, segments), counts))
    return _with_twin(maps)


def kernel_shap(group: Group) -> Maps:
    """Shapley values; with `stop_early` an image's sampling ends when its top fifth is settled."""
    segments = group.segments()
    maps = []
    for sampled in _sample_pairs(group, segments):
        found = [values for values, _ in sampled.estimates]
        errors = [standard_errors(covariance) for _, covariance in sampled.estimates]
        maps.append(_shapley_maps(found, errors, segments, sampled))
    return _with_twin(maps)


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
    maps = []
    for sampled in _sample_pairs(group, segments):
        both = [process_shapley_values(a, e[0]) for a, e in zip(sampled.answers, sampled.estimates, strict=True)]
        found, errors = zip(*both, strict=True)
        maps.append(_shapley_maps(list(found), list(errors), segments, sampled))
    return _with_twin(maps)


class _Sampled:
    """What one output of a group's images has come to: answers, Shapley values and covariance, whether settled."""

    def __init__(self, count: int) -> None:
        self.answers: list[PairedValues | None] = [None] * count
        self.estimates: list[tuple[np.ndarray, np.ndarray] | None] = [None] * count
        self.settled = [False] * count


def _shapley_maps(found: list[np.ndarray], errors: list[np.ndarray], segments: list, sampled: _Sampled) -> Maps:
    counts = _counts([2 + 2 * len(a.kept) for a in sampled.answers], segments, settled=sampled.settled)
    return Maps(_spread(found, segments), _spread(errors, segments), counts)


def _sample_pairs(group: Group, segments: list[np.ndarray]) -> list[_Sampled]:
    """Coalitions and values of each output; an image's sampling ends when the first output's top fifth is settled."""
    params = group.context.params
    drawn = [
        draw_coalitions(int(s.max()) + 1, params.budget - 2, group.context.draws(i, KERNEL_SHAP), params.kernel_power)
        for s, i in zip(segments, group.indices, strict=True)
    ]
    outputs = [_Sampled(len(group)) for _ in range(group.outputs)]
    for share in ROUNDS if params.stop_early else ROUNDS[-1:]:
        open_ = [i for i in range(len(group)) if not outputs[0].settled[i]]
        if not open_:
            break
        _ask_pairs(group, segments, drawn, outputs, {i: _pairs(drawn[i], share) for i in open_})
        for sampled in outputs:
            for i, *estimate in zip(open_, *shapley_estimates([sampled.answers[i] for i in open_]), strict=True):
                sampled.estimates[i] = tuple(estimate)
                sampled.settled[i] = is_stable(estimate[0], standard_errors(estimate[1]), segments[i])
    return outputs


def _pairs(drawn: Coalitions, share: float) -> int:
    """So many pairs after this share of the budget; never too few for the regression."""
    p, m = drawn.masks.shape
    return min(p, max(round(share * p), 2 * m))


def _ask_pairs(
    group: Group, segments: list, drawn: list[Coalitions], outputs: list[_Sampled], upto: dict[int, int]
) -> None:
    """Bring each image's answers up to its number of pairs."""
    masks = {}
    for i, pairs in upto.items():
        answered = outputs[0].answers[i]
        new = drawn[i].masks[0 if answered is None else len(answered.kept) : pairs]
        z = all_masks(drawn[i].first(pairs)) if answered is None else np.concatenate([new, ~new])
        masks[i] = SuperpixelMasks(segments[i], z)
    for sampled, values in zip(outputs, group.ask({i: m for i, m in masks.items() if len(m)}, segments), strict=True):
        for i, found in values.items():
            sampled.answers[i] = _extended(sampled.answers[i], drawn[i].first(upto[i]), found)


def _extended(old: PairedValues | None, chosen: Coalitions, found: np.ndarray) -> PairedValues:
    """The answers so far and those of the next pairs."""
    if old is None:
        return paired_values(chosen, found)
    kept, others = np.split(found, 2)
    kept, others = np.append(old.kept, kept), np.append(old.others, others)
    return PairedValues(chosen, kept, others, old.nothing, old.everything)


def occlusion(group: Group) -> Maps:
    """How much each pixel's neighbourhood is missed."""
    params = group.context.params
    windows = Windows(group.images.shape[2:], params.occlusion_window, params.occlusion_stride)
    return _with_twin(
        [
            _maps([occlusion_map(values[i], windows) for i in range(len(group))], len(windows))
            for values in group.ask({i: windows for i in range(len(group))}, _whole(group))
        ]
    )


def rise(group: Group) -> Maps:
    """Mean output over smooth random masks, weighted by how much each shows of a pixel."""
    params, shape = group.context.params, group.images.shape[2:]
    masks = {
        i: SmoothMasks.draw(shape, params.budget, params.rise_cells, group.context.draws(index, RISE))
        for i, index in enumerate(group.indices)
    }
    return _with_twin(
        [
            _maps([rise_map(values[i], masks[i]) for i in range(len(group))], params.budget)
            for values in group.ask(masks, _whole(group))
        ]
    )


def _maps(values: list[np.ndarray], forwards: int) -> Maps:
    return Maps(np.stack(values).astype(np.float32), None, {"forwards": np.full(len(values), float(forwards))})


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
