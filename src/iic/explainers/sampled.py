"""Methods that only ask the network for outputs: LIME, Kernel SHAP, occlusion and RISE, on the perturbation engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from iic.explainers.attributions import Maps
from iic.explainers.balanced_masks import Balance
from iic.explainers.coalition_process import process_shapley_values
from iic.explainers.context import Context
from iic.explainers.kernel_shap import PairedValues, shapley_values
from iic.explainers.lime import draw_masks, lime_coefficients
from iic.explainers.mask_process import process_coefficients
from iic.explainers.pair_sampling import Estimate, sample_pairs
from iic.explainers.perturbation import Masks, Perturbed, SuperpixelMasks, masked_values
from iic.explainers.windows import SmoothMasks, Windows, occlusion_map, rise_map

LIME, RISE, LIME_FAST = 0, 5, 7  # key the draws; the numbers of older methods stay theirs


@dataclass(frozen=True)
class Group:
    """A few images that are explained together, so that their masks share batches.

    `output` is what is explained: "probability", "logit", or "both", two maps from the same forwards.
    """

    context: Context
    images: np.ndarray
    indices: np.ndarray
    targets: np.ndarray
    output: str

    def __len__(self) -> int:
        return len(self.images)

    def apart(self) -> list[Group]:
        """The same images with one output each."""
        return [replace(self, output=o) for o in ("probability", "logit")] if self.output == "both" else [self]

    def segments(self) -> list[np.ndarray]:
        which = [int(i) for i in self.indices]
        if self.context.forward.device == "cpu":  # its cores wait for the forwards as it is
            return list(map(self.context.segments, self.images, which))
        with ThreadPoolExecutor() as threads:
            return list(threads.map(self.context.segments, self.images, which))

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
        return [dict(zip(masks, [c[o] for c in columns], strict=True)) for o in range(len(self.apart()))]


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
    return _lime_maps(group, lambda _, segments, *drawn, **lime: lime_coefficients(*drawn, **lime))


def lime_fast(group: Group) -> Maps:
    """The same by a process that knows which superpixels are neighbours (`iic.explainers.mask_process`)."""
    return _lime_maps(group, _by_mask_process)


def _by_mask_process(
    group: Group,
    segments: list[np.ndarray],
    masks: list[np.ndarray],
    values: list[np.ndarray],
    _: list[Balance | None],  # of the masks: the process's errors, which the line is drawn through, are not balanced
    **lime: float,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    odds, draws = group.output == "probability", [group.context.draws(i, LIME_FAST) for i in group.indices]
    each = zip(masks, values, segments, draws, strict=True)
    found = [process_coefficients(*one, odds=odds, **lime) for one in each]
    return [coefficients for coefficients, _ in found], [errors for _, errors in found]


def _lime_maps(group: Group, estimate: Callable) -> Maps:
    params, segments = group.context.params, group.segments()
    drawn = [
        draw_masks(s, params.budget, group.context.draws(i, LIME)) for s, i in zip(segments, group.indices, strict=True)
    ]
    masks, balances = (list(each) for each in zip(*drawn, strict=True))
    shown = {i: SuperpixelMasks(s, z, 1) for i, (s, z) in enumerate(zip(segments, masks, strict=True))}
    counts = _counts([len(z) for z in masks], segments)
    lime = {"kernel_width": params.lime_kernel_width, "ridge": params.lime_ridge}
    maps = []
    for part, values in zip(group.apart(), group.ask(shown, segments), strict=True):
        found, errors = estimate(part, segments, masks, list(values.values()), balances, **lime)
        maps.append(Maps(_spread(found, segments), _spread(errors, segments), counts))
    return _with_twin(maps)


def kernel_shap(group: Group) -> Maps:
    """Shapley values; with `stop_early` an image's sampling ends when its top fifth is settled."""
    return _shapley_maps(group, shapley_values)


def kernel_shap_fast(group: Group) -> Maps:
    """Shapley values by a process that knows how superpixels interact (`iic.explainers.coalition_process`)."""
    return _shapley_maps(group, _by_process)


def _by_process(found: list[PairedValues]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each image the process's values and errors, from Kernel SHAP's as a pilot."""
    pilots, _ = shapley_values(found)
    both = [process_shapley_values(one, pilot) for one, pilot in zip(found, pilots, strict=True)]
    return [values for values, _ in both], [errors for _, errors in both]


def _shapley_maps(group: Group, estimate: Estimate) -> Maps:
    segments = group.segments()
    maps = []
    for sampled in sample_pairs(group, segments, estimate):
        counts = _counts([2 + 2 * len(a.kept) for a in sampled.answers], segments, settled=sampled.settled)
        maps.append(Maps(_spread(sampled.values, segments), _spread(sampled.errors, segments), counts))
    return _with_twin(maps)


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
    "lime_fast": lime_fast,
    "kernel_shap": kernel_shap,
    "kernel_shap_fast": kernel_shap_fast,
    "occlusion": occlusion,
    "rise": rise,
}
