"""How well a posterior answers, by its settings: learnt from a part of the training images, judged on the rest.

    make bench-mean-field
    make bench-mean-field ARGS="--settings '{shift: 1}' '{hidden: [400, 400], epochs: 50}' --samples 50"

Each of `--settings` is a YAML mapping of parameters that differ from the dataset's block `bayesian` (parameters.yml).
Accuracy is that of the mean probability over the samples, when none may be refused, with its 95 % interval; NLL in
nats an image; the loss is the last epoch's, in nats an image, the KL divergence included with its weight. The test
images are not looked at.
"""

from __future__ import annotations

import argparse
import time

import yaml

from iic.bayes import posteriors
from iic.bayes.inference import sample_probabilities
from iic.bayes.scores import negative_log_likelihood
from iic.bayes.uncertainty import forced_prediction
from iic.checks import check_parameters
from iic.data.images import ImageSet, hold_out
from iic.evaluation.scores import proportion
from iic.params import BayesianParams
from iic.pipelines.bayesian.rows import settings_of
from iic.pipelines.data_prep.nodes import prepare_data
from iic.progress import bar
from iic.selection import configured_parameters

CANDIDATES = ["{}", "{shift: 1}", "{own_scales: true}", "{own_scales: true, shift: 1}"]


def row(text: str, params: BayesianParams, train: ImageSet, held: ImageSet, samples: int) -> str:
    """One line of the table."""
    settings, start = settings_of(params, last_layer=False), time.perf_counter()
    show = bar(text, "step")
    posterior = posteriors.fit(params.posterior, train.images, train.labels, settings, seed=params.seed, progress=show)
    seconds = time.perf_counter() - start
    answers = sample_probabilities(posterior, held.images, samples, seed=params.seed).numpy()  # (S, N, classes)
    found = proportion(forced_prediction(answers)[0] == held.labels)
    low, high = found["interval"]
    nll = negative_log_likelihood(answers.mean(0), held.labels).mean()
    loss = posterior.curve[-1].item() / len(train)
    accuracy = f"{100 * found['accuracy']:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
    return f"| `{text}` | {params.temperature} | {seconds:.0f} | {accuracy} | {nll:.4f} | {loss:.4f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--settings", nargs="+", default=CANDIDATES)
    parser.add_argument("--held-out", type=int, default=5000, help="training images that judge")
    parser.add_argument("--samples", type=int, default=50, help="of the posterior")
    arguments = parser.parse_args()
    blocks = check_parameters(configured_parameters(), [arguments.dataset])[arguments.dataset]
    given = blocks["bayesian"].model_dump()
    candidates = [(text, BayesianParams(**{**given, **yaml.safe_load(text)})) for text in arguments.settings]
    data, _, _ = prepare_data(blocks["data"], arguments.dataset)
    train, held = hold_out(data, arguments.held_out, blocks["training"].seed)
    print("| settings | weight of the KL divergence | s | held-out accuracy | NLL | last epoch's loss |")
    print("|---|---|---|---|---|---|", flush=True)
    for text, params in candidates:
        print(row(text, params, train, held, arguments.samples), flush=True)


if __name__ == "__main__":
    main()
