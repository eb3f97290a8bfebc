"""The original study's numbers beside ours, with all of its shortcuts and with one undone at a time.

    make bench-original                                            # mnist and cifar10, 1,000 images
    make bench-original ARGS="--datasets mnist --images 100 --budget 200"
    make bench-original ARGS="--datasets cifar10 --shared-maps"    # leaves out rows that need maps of their own

Accuracy against the true label when the most important pixels are kept, with Wilson's 95 % interval over images (draws
are averaged first). The networks are the shipped ones, not the study's: what is compared is what a shortcut does to a
number. See `iic.evaluation.original` for what the shortcuts are and what is not repeated.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from setting import Setting

from iic.evaluation.fills import Fills
from iic.evaluation.original import PUBLISHED, STUDY, Measured, Variant, map_key, measure, variants
from iic.evaluation.statistics import wilson_interval
from iic.progress import bar

NOTES = {
    "mnist": 'The study\'s "LRP" ranked the image itself, not the relevance; ours ranks the relevance.',
    "cifar10": "The study's Kernel SHAP number cannot be read in its notebook.",
}


def published(dataset: str, method: str) -> str:
    """The study's number."""
    value = PUBLISHED[dataset][method]
    return "not readable" if value is None else f"{value:.3f}"


def sharing_methods(variant: Variant, first: Variant) -> tuple[str, ...]:
    """The methods whose maps are made as in the first row."""
    return tuple(method for method in variant.methods if map_key(variant, method) == map_key(first, method))


def cell(found: Measured | None) -> str:
    """Accuracy and interval; a dash where the variant changes nothing for the method."""
    if found is None:
        return "-"
    low, high = wilson_interval(found.hits.sum(), len(found.hits))
    return f"{found.hits.mean():.3f} [{low:.3f}, {high:.3f}]"


def print_table(dataset: str, wanted: list[Variant], found: dict[tuple[str, str], Measured], images: int) -> None:
    """One dataset's table, and what to know when reading it."""
    print(f"\n{dataset}, {images} images\n")
    print("| | LIME | Kernel SHAP | LRP |")
    print("|---|---|---|---|")
    print(f"| published | {' | '.join(published(dataset, method) for method in STUDY)} |")
    for variant in wanted:
        cells = (cell(found.get((variant.name, method))) for method in STUDY)
        print(f"| {variant.name} | {' | '.join(cells)} |")
    blind = (f"{found[wanted[0].name, method].blind.mean():.1%}" for method in STUDY)
    print(f"| images with a map that ranks nothing | {' | '.join(blind)} |")
    print(f"\n{NOTES[dataset]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--budget", type=int, default=1000, help="forwards an image of LIME and Kernel SHAP")
    parser.add_argument("--shared-maps", action="store_true", help="only the rows that use the first row's maps")
    arguments = parser.parse_args()
    for dataset in arguments.datasets:
        setting = Setting.load(dataset)
        params = setting.context.params.model_copy(update={"budget": arguments.budget})
        wanted = variants(setting.test.images.shape[1:])
        if arguments.shared_maps:
            wanted = [replace(variant, methods=sharing_methods(variant, wanted[0])) for variant in wanted]
            wanted = [variant for variant in wanted if variant.methods]
        fills = Fills(setting.context.mean, setting.train.images)
        progress = bar(f"{dataset}: shortcuts", "group")
        context = replace(setting.context, params=params)
        found = measure(context, setting.test, wanted, fills, arguments.images, progress)
        print_table(dataset, wanted, found, arguments.images)


if __name__ == "__main__":
    main()
