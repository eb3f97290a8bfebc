"""Small sets and parameters for leakage and for a network with a planted shortcut; fixtures in conftest."""

from pathlib import Path

from test_judges import stripes

from iic.data.card import describe
from iic.params import AttributionParams, EvaluationParams, TrainingParams
from iic.pipelines.evaluation.shortcut_nodes import plant_shortcut

NAMES = ("first", "second", "third", "fourth")
EVALUATION = EvaluationParams(
    keep=16 / 144, bootstrap=100, shortcut_class=1, shortcut_epochs=12, shortcut_images=30, leakage_images=300
)
ATTRIBUTION = AttributionParams(
    n_images=200, budget=80, superpixels=16, segmentation="grid", precision="float32", occlusion_window=4, shard_size=80
)
TRAINING = TrainingParams(
    epochs=20, widths=(8, 16, 16), batch_size=25, micro_batch=25, dtype="float32", weights="trained"
)


def draw_waves():
    """Training and test images of four classes of stripes, and their card."""
    train, test = stripes(800, 0, 28, 60), stripes(240, 1, 28, 60)
    return train, test, describe(train, test, name="waves", source="made", class_names=NAMES)


def with_shortcut(waves):
    """A network that was trained on waves with a watermark on the second class, and what is known of it."""
    return plant_shortcut(EVALUATION, TRAINING, *waves, dataset="waves", project=Path())
