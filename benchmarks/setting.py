"""What the attribution benchmarks share: a shipped network, some test images, their superpixels, references, errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from iic.checks import check_parameters
from iic.classifiers.inference import predicted_class
from iic.classifiers.precision import Forward
from iic.data.images import ImageSet
from iic.explainers.attributions import select_images
from iic.explainers.context import Context, make_context
from iic.explainers.libraries import Explained
from iic.explainers.methods import explain
from iic.explainers.ranking import top_superpixels
from iic.explainers.segmentation import Segmenter
from iic.pipelines.attribution.nodes import sample_of
from iic.pipelines.data_prep.nodes import prepare_data
from iic.pipelines.training.nodes import train_model
from iic.selection import configured_parameters, project_folder


@dataclass
class Setting:
    """One dataset's shipped network and how its images are explained."""

    dataset: str
    train: ImageSet
    test: ImageSet
    model: nn.Module  # as trained: what a user of the libraries has
    context: Context

    @classmethod
    def load(cls, dataset: str, precision: str = "auto") -> Setting:
        """With the project's parameters and the shipped weights; "cifar10:small" is `cifar10` with `shipped_small`."""
        name, _, size = dataset.partition(":")
        blocks = check_parameters(configured_parameters(), [name])[name]
        train, test, card = prepare_data(blocks["data"], name)
        training = blocks["training"].model_copy(update={"weights": f"shipped_{size}" if size else "shipped"})
        model, _ = train_model(training, train, card, name, project_folder())
        params = blocks["attribution"]
        context = make_context(
            model.eval(), sample_of(train), np.array(card["train"]["mean"]), Segmenter(params), precision
        )
        return cls(dataset, train, test, model.to(context.forward.device), context)

    def chosen(self, count: int) -> np.ndarray:
        """Positions of the first explained test images."""
        return select_images(self.test.labels, count, self.context.params.seed)

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """The classes that the float32 network names."""
        images = torch.from_numpy(self.test.images[indices]).to(self.context.forward.device)
        return predicted_class(self.context.plain, images).cpu().numpy()

    def as_peers_see(self, index: int, target: int, fast: bool) -> Explained:
        """An image for the libraries, with the float32 model as its users run it, or with our frozen forward."""
        image = self.test.images[index]
        segments = self.context.segments(image, int(index))
        answer = self.fast_answer if fast else self.users_answer
        return Explained(image, self.context.fill(image, segments), segments, int(target), answer)

    @torch.no_grad()
    def users_answer(self, pixels: Tensor) -> Tensor:
        """The network in evaluation mode, float32, as it was trained: not folded, default layout, torch's settings."""
        with torch.backends.cudnn.flags(enabled=True):  # TF32 on CUDA
            return self.model(pixels.to(self.context.forward.device)).softmax(1).cpu()

    @torch.no_grad()
    def fast_answer(self, pixels: Tensor) -> Tensor:
        """Our frozen forward."""
        forward = self.context.forward
        return forward.model(pixels.to(forward.device).contiguous(memory_format=torch.channels_last)).softmax(1).cpu()

    def float32(self) -> Setting:
        """The same with the frozen float32 forward."""
        forward = Forward(self.context.plain, "float32", self.context.forward.device, 1.0)
        return replace(self, context=replace(self.context, forward=forward))

    def values(self, method: str, indices: np.ndarray, targets: np.ndarray, **params) -> list[np.ndarray]:
        """Our method's value for each superpixel of each image."""
        context = replace(self.context, params=self.context.params.model_copy(update=params))
        maps = explain(method, context, self.test.images[indices], indices, targets).values
        return [
            by_superpixel(m, context.segments(self.test.images[i], int(i))) for m, i in zip(maps, indices, strict=True)
        ]


def by_superpixel(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """One value for each superpixel from a map that is constant on them: float64 (M,)."""
    firsts = np.unique(segments, return_index=True)[1]
    return values.ravel()[firsts].astype(np.float64)


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Relative L2."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def overlap(found: np.ndarray, truth: np.ndarray, segments: np.ndarray) -> float:
    """Share of the pixels of the true top fifth that the found one holds."""
    pixels, right = top_superpixels(found, segments)[segments], top_superpixels(truth, segments)[segments]
    return float((pixels & right).sum() / right.sum())


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call, until a GPU has done what it was given."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def forwards_alone(model: nn.Module, pixels: torch.Tensor, count: int) -> None:
    """`count` images through the network, as many at a time as there are pixels for, and its probabilities."""
    for at in range(0, count, len(pixels)):
        model(pixels[: count - at]).softmax(1)
