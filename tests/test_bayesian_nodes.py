"""What the nodes of the Bayesian pipeline say of their networks: who has learnt from what, and which rows there are."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from conftest import ROOT
from small_posteriors import small_fit, small_images

from iic.bayes import network
from iic.bayes.asked import ask_point
from iic.bayes.inference import sample_logits, sample_probabilities
from iic.bayes.last_layer import features
from iic.bayes.point import Point
from iic.bayes.possible import no_reference
from iic.bayes.settings import Settings
from iic.bayes.sizes import layer_sizes
from iic.bayes.sources import SAMPLED, with_last_layer
from iic.classifiers.inference import best_dtype, fingerprint, freeze, predict_logits
from iic.classifiers.networks import build_network
from iic.data.card import checksum
from iic.data.images import ImageSet, hold_out
from iic.data.sources import load_digits
from iic.errors import UserError
from iic.explainers.attributions import Attributions
from iic.params import AttributionParams, BayesianParams, EvaluationParams, TrainingParams
from iic.pipelines.bayesian.explanation_nodes import find_variance
from iic.pipelines.bayesian.held_out import has_learnt, plain_part, wanted_part, who_learnt, with_part
from iic.pipelines.bayesian.nodes import (
    measure_doubt,
    measure_uncertainty,
    report_bayesian,
    train_bayesian,
    train_references,
)
from iic.pipelines.bayesian.rows import left_out, named
from iic.shipped import FOLDER, card_path, load_shipped, ship

SMALL = {"hidden": (6,), "epochs": 1, "batch_size": 50, "members": 2, "rank": 1, "samples": 3, "noise_images": 20}


def card_of(name):
    return json.loads(card_path(ROOT / FOLDER / name).read_text())


def data_card(name):
    card = card_of(name)
    return {"train": {"sha256": card["train_sha256"], "content_sha256": card["train_content_sha256"]}}


@pytest.fixture(scope="module")
def digits():
    train, test = load_digits()
    return train[np.arange(0, len(train), 20)], test[np.arange(0, len(test), 20)]  # 200 and 50, of all classes


# Who has learnt from the images on which thresholds are chosen


def test_a_network_has_not_learnt_exactly_where_it_held_out_all_of_them():
    images, labels = small_images()
    numbered = ImageSet(images, np.arange(len(labels)))
    parts = list(product((0, 3, 7), (0, 1)))
    seen = {part: set(hold_out(numbered, *part)[0].labels) for part in parts}
    asked = {part: set(hold_out(numbered, *part)[1].labels) for part in parts if part[0]}
    expected = {(own, wanted): bool(seen[own] & asked[wanted]) for own in parts for wanted in asked}
    assert {key: has_learnt(*key) for key in expected} == expected
    assert {has_learnt((), wanted) for wanted in asked} == {True}  # nothing is known of it


def test_the_plain_networks_part_is_its_cards_where_it_is_shipped():
    card = card_of("digits.pt")["recipe"]
    other = TrainingParams(weights="shipped", n_validation=card["n_validation"] + 1, seed=card["seed"] + 1)
    train, _ = load_digits()
    assert plain_part(other, train, "digits", ROOT) == (card["n_validation"], card["seed"])
    assert plain_part(TrainingParams(n_validation=7, seed=3), train, "digits", ROOT) == (7, 3)
    assert plain_part(TrainingParams(weights="mine.pt2", n_validation=7), train, "digits", ROOT) == ()
    turned = train[np.arange(len(train))[::-1]]  # the same images in other places: which were held out is not known
    assert plain_part(other, turned, "digits", ROOT) == ()


def test_a_last_layer_has_learnt_what_the_layers_before_it_have():
    kept = {
        "laplace": with_part(small_fit("laplace"), (5, 0)),
        "mean_field": with_part(small_fit("mean_field"), (5, 1)),
    }
    whole = {"plain": True, "laplace": False, "mean_field": True}
    assert who_learnt((4, 0), kept, (5, 0), last_layer=False) == whole
    assert who_learnt((4, 0), kept, (5, 0), last_layer=True) == {**whole, "laplace": True}
    assert who_learnt((5, 0), kept, (5, 0), last_layer=True) == {**whole, "plain": False}


def test_a_posterior_says_what_was_held_out_from_it_wherever_it_comes_from(digits, tmp_path):
    train, _ = digits
    training = TrainingParams(n_validation=30, seed=2)
    found = train_bayesian(BayesianParams(**SMALL), training, train, {}, "digits")
    assert found.record.held_out == wanted_part(train, training) == (30, 2)
    assert type(found).from_state_dict(found.state_dict()).record == found.record
    references = train_references(BayesianParams(**SMALL, references=("laplace",)), TrainingParams(), train, "digits")
    part = wanted_part(train, TrainingParams())
    assert references["laplace"].record.held_out == references["point"].record.held_out == part == (40, 0)

    shipped = BayesianParams(weights="shipped")
    name = "mnist_bayesian.pt"
    recorded = train_bayesian(shipped, training, train, data_card(name), "mnist", ROOT)
    assert recorded.record.held_out == (1000, 0) and has_learnt(recorded.record.held_out, (30, 2))
    state = {key: value for key, value in load_shipped(ROOT / FOLDER / name).items() if key != "held_out"}
    card = {key: value for key, value in card_of(name).items() if key != "sha256"}  # of before, but its card may say so
    ship(state, tmp_path / FOLDER / name, card)
    old = train_bayesian(shipped, training, train, data_card(name), "mnist", tmp_path)
    assert old.record.held_out == () and has_learnt(old.record.held_out, (30, 2))
    ship(state, tmp_path / FOLDER / name, {**card, "held_out": {"n_validation": 40, "seed": 2}})
    known = train_bayesian(shipped, training, train, data_card(name), "mnist", tmp_path)
    assert known.record.held_out == (40, 2) and not has_learnt(known.record.held_out, (30, 2))
    reordered = {"train": {**data_card(name)["train"], "sha256": "of another order"}}
    assert train_bayesian(shipped, training, train, reordered, "mnist", tmp_path).record.held_out == ()


# Which posteriors there are, and their names


def test_references_that_cannot_be_are_left_out_with_a_reason():
    mixture = BayesianParams(narrow_scale=0.01, references=("mean_field", "laplace", "low_rank", "dropout", "ensemble"))
    found = left_out(mixture, (784, 256, 10))
    assert set(found) == {"mean_field", "laplace", "dropout"} and "explained" in found["mean_field"]
    assert all("needs a prior of one Normal" in found[kind] for kind in ("laplace", "dropout"))
    assert set(left_out(BayesianParams(), (784, 256, 10))) == set()
    assert set(left_out(BayesianParams(), (384, 10))) == {"dropout", "ensemble"}
    assert "at most 1599" in left_out(BayesianParams(), (784, 1600, 10))["laplace"]
    assert set(left_out(mixture.model_copy(update={"temperature": 0.1}), (784, 256, 10))) == {"laplace", "dropout"}


def test_own_scales_get_through_and_references_keep_their_prior(digits):
    train, _ = digits
    params = BayesianParams(**SMALL, own_scales=True, references=("low_rank",))
    assert train_bayesian(params, TrainingParams(), train, {}, "digits").record.prior == (0.0,)
    references = train_references(params, TrainingParams(), train, "digits")
    assert {reference.record.prior for reference in references.values()} == {(0.5,)}


def test_what_is_called_no_reference_is_what_fits_refuse_or_a_single_maximum():
    kinds = ("mean_field", "low_rank", "laplace", "dropout", "ensemble")
    for changes in ({}, {"narrow_scale": 0.01}, {"hidden": ()}):
        for kind in kinds:
            try:
                small_fit(kind, **changes)
                refused = False
            except UserError:
                refused = True
            settings = Settings(**changes)
            reason = no_reference(kind, settings, layer_sizes((1, 4, 4), settings.filters, settings.hidden, 3))
            assert (reason is not None) == (refused or (kind == "ensemble" and changes == {"hidden": ()}))


def test_members_of_a_single_layers_ensemble_end_together():
    """Why there is none of a last layer: its loss has one minimum, however far apart the members start."""
    layer = {"hidden": (), "batch_size": 30, "learning_rate": 0.05, "final_rate": 0.01}
    start, end = (small_fit("ensemble", epochs=epochs, **layer).members["layer0.weight"] for epochs in (1, 300))
    assert end.std(0).max() < 0.01 * start.std(0).max() and end.std() > 0.05


def test_a_mixture_prior_and_a_temperature_get_through(digits):
    train, _ = digits
    params = BayesianParams(**SMALL, narrow_scale=0.01, wide_share=0.25, temperature=0.5, kl_share=0.5, kl_start=0.0)
    posterior = train_bayesian(params, TrainingParams(), train, {}, "digits")
    references = train_references(params, TrainingParams(), train, "digits")
    assert posterior.record.prior == (0.25, 0.5, 0.01) and posterior.record.tempered
    assert set(references) == {"low_rank", "ensemble", "point"}
    assert not any(reference.record.tempered for reference in references.values())
    wider = params.model_copy(update={"init_scale": 0.3, "learning_rate": 1e-9})
    assert train_bayesian(wider, TrainingParams(), train, {}, "digits").scale["layer0.weight"].mean() > 0.29


def test_rows_are_named_by_what_the_posteriors_are_and_none_is_lost():
    plain, tempered = small_fit("mean_field"), small_fit("mean_field", temperature=0.1)
    other, laplace = small_fit("mean_field", seed=1), small_fit("laplace")
    assert named(tempered, {"mean_field": plain}) == {"mean_field_tempered": tempered, "mean_field": plain}
    found = named(plain, {"laplace": laplace, "mean_field": other})
    assert list(found.items()) == [("mean_field", plain), ("laplace", laplace), ("mean_field_reference", other)]
    point = Point(laplace.loc, 2.0, 0.0, laplace.curve)
    assert list(named(plain, {"laplace": laplace, "point": point})) == ["plain_same_network", "mean_field", "laplace"]


def test_the_plain_network_is_the_same_with_laplaces_approximation_or_without(digits):
    train, test = digits
    alone, beside = (
        train_references(BayesianParams(**SMALL, references=kinds), TrainingParams(), train, "digits")["point"]
        for kinds in ((), ("laplace",))
    )
    assert alone.shapes == beside.shapes == network.weight_shapes((784, 6, 10))
    assert all(torch.equal(value, beside.loc[name]) for name, value in alone.loc.items())
    assert alone.temperature == beside.temperature != 1
    logits = network.logits(alone.loc, network.normalise(torch.from_numpy(test.images), alone.pixel_mean))
    expected = (logits.double() / alone.temperature).softmax(-1)[None]
    np.testing.assert_allclose(ask_point(alone)(test.images), expected, atol=1e-6)


def test_references_may_be_trained_for_another_time(digits):
    train, _ = digits
    for given, expected in ((None, 1), (2, 2)):
        params = BayesianParams(**SMALL, references=("dropout",), reference_epochs=given)
        found = train_references(params, TrainingParams(), train, "digits")
        assert [len(one.curve) for one in found.values()] == [expected, expected]
        assert len(train_bayesian(params, TrainingParams(), train, {}, "digits").curve) == 1


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_network((33.0,), (78.0,), (4, 4, 8)).eval()


def test_the_reports_flag_every_network_and_name_a_shipped_one_by_its_kind(digits, model):
    train, test = digits
    # asked for as Laplace's, and shipped as a mean-field Normal
    params = BayesianParams(**SMALL, weights="shipped", posterior="laplace", references=("laplace",))
    training, evaluation = TrainingParams(n_validation=20, seed=0), EvaluationParams(bootstrap=100)
    card = data_card("digits_bayesian.pt")
    posterior = with_part(train_bayesian(params, training, train, card, "digits", ROOT), (10, 0))
    references = train_references(params, training, train, "digits")
    report = measure_uncertainty(
        params, training, evaluation, model, posterior, references, train, test, "digits", ROOT
    )
    flags = {name: table["learnt_from_validation"] for name, table in report["networks"].items()}
    assert flags == {"plain": False, "plain_same_network": False, "mean_field": True, "laplace": False}
    assert all(table["thresholds"] for table in report["networks"].values()) and report["left_out"] == {}
    same, others = report["networks"]["plain_same_network"], ("plain", "mean_field", "laplace")
    assert same["samples"] == 1 and same["selectors"]["mutual_information"] is None and set(same["outside"])
    assert all("minus_plain_same_network" in report["confidence_compared"][name] for name in others)
    fast = str(best_dtype()).removeprefix("torch.")
    precisions = {name: table["precision"] for name, table in report["networks"].items()}
    assert precisions == {name: fast if name == "mean_field" else "float32" for name in precisions}
    assert json.loads(json.dumps(report)) == report

    card["train"]["mean"], card["test"] = [33.0], {"sha256": checksum(test)}
    made = {"model": fingerprint(freeze(model)), "data": checksum(test)}
    maps = Attributions(np.ones((2, 28, 28), np.float32), np.array([3, 20]), np.zeros(2, np.int64), {}, made=made)
    asked = (model, posterior, references, report, train, test, card, "digits")
    doubt = measure_doubt(params, evaluation, *asked, flat=maps)
    assert list(doubt["networks"]) == ["plain", "plain_same_network", "mean_field"]
    assert doubt["shares"] == [0.1, 0.2, 0.5] and doubt["shown"] == evaluation.keep == 0.2
    rows = doubt["networks"]["mean_field"]["flat"]["keep"]["mean_colour"]
    assert [row["n_images"] for row in rows] == [2, 2, 2] and set(rows[0]["against"]) == {"plain", "plain_same_network"}
    assert json.loads(json.dumps(doubt)) == doubt
    without = measure_doubt(params, evaluation, model, posterior, {}, *asked[3:], flat=maps)
    assert list(without["networks"]) == ["plain", "mean_field"]
    another = replace(maps, made={**made, "model": "another"})
    with pytest.raises(UserError, match=r"maps of digits\.flat are of another network"):
        measure_doubt(params, evaluation, *asked, flat=another)
    with pytest.raises(UserError, match=r"maps of digits\.flat are of another network"):
        report_bayesian(params, evaluation, model, posterior, test, card, "digits", flat=another)
    cooler = replace(posterior, record=replace(posterior.record, kl_weights=(0.5,)))
    relearnt = replace(posterior, pixel_mean=0.5)
    for other, name in ((cooler, "mean_field_tempered"), (relearnt, "mean_field")):
        with pytest.raises(UserError, match=rf"thresholds in digits\.uncertainty are of another {name} than"):
            measure_doubt(params, evaluation, model, other, *asked[2:], flat=maps)
    said = report_bayesian(params, evaluation, model, posterior, test, card, "digits", flat=maps)
    assert json.loads(json.dumps(said)) == said
    for said_by in (said, said["plain"]):
        numbers = [(said_by["forced_accuracy"], said_by["forced_interval"])]
        numbers += [(said_by["clean_confidence"], said_by["clean_confidence_interval"])]
        numbers += [(rule["coverage"], rule["coverage_interval"]) for rule in said_by["test"].values()]
        for cell in said_by["degraded"]["flat"].values():
            numbers += [(cell["confidence"], cell["confidence_interval"])]
            numbers += [(cell["coverage"][rule], cell["coverage_interval"][rule]) for rule in ("median", "confidence")]
        assert all(low <= value <= high for value, (low, high) in numbers)
    samples = sample_probabilities(posterior, test.images, params.samples, seed=params.seed).numpy()
    by_hand = (samples.mean(0).argmax(1) == test.labels).mean()
    assert said["forced_accuracy"] == pytest.approx(by_hand, abs=1.5 / len(test))


def test_the_variance_table_says_whose_maps_vary_and_takes_each_methods_own_noise_off(digits, model):
    train, test = digits
    posterior = train_bayesian(BayesianParams(**SMALL), TrainingParams(), train, {}, "digits")
    table = find_variance(
        BayesianParams(**SMALL, variance_images=2, repeats=2),
        TrainingParams(weights="mine.pt2"),  # there is nothing to train again
        EvaluationParams(bootstrap=100),
        AttributionParams(budget=110, superpixels=20, compactness=0.1),
        model,
        posterior,
        train,
        test,
        {"train": {"mean": [33.0]}},
        dataset="digits",
        project=ROOT,
    )
    rows = table["sources"]
    sampled = [f"{method}: {source}" for method in SAMPLED for source in ("sampling", "segmentation", "posterior")]
    assert list(rows) == [*sampled, "lrp: posterior"]
    for source, row in rows.items():
        method, what = source.split(": ")
        assert row["network"] == ("Bayesian" if what == "posterior" else "explained")
        assert row["noise"] == (f"{method}: sampling" if what == "segmentation" else None)
        if row["noise"]:
            noise = rows[row["noise"]]["share"]["mean"]
            assert row["beyond_noise"]["mean"] == pytest.approx(row["share"]["mean"] - noise)


def test_a_sample_of_the_last_layer_takes_its_place(digits, model):
    """The network with it answers as the posterior does on the network's features."""
    train, test = digits
    posterior = train_bayesian(BayesianParams(**SMALL), TrainingParams(), train, {}, "digits", model=model)
    assert posterior.of_features
    images, frozen = torch.from_numpy(test.images[:20]), freeze(model)
    expected = sample_logits(posterior, features(model, images), 3, seed=0)
    for weights, logits in zip(posterior.draw(3, seed=0), expected, strict=True):
        network = with_last_layer(frozen, weights, posterior.pixel_mean, posterior.record.unit)
        torch.testing.assert_close(predict_logits(network, images), logits, atol=1e-4, rtol=1e-4)
    assert not torch.equal(predict_logits(frozen, images), expected[0])


def test_a_reference_may_have_a_learning_rate_of_its_own(digits):
    train, _ = digits
    few = ImageSet(train.images[:200], train.labels[:200])
    alike, other, slow = (
        train_references(
            BayesianParams(**SMALL, learning_rate=rate, references=("laplace", "low_rank"), reference_rates=rates),
            TrainingParams(),
            few,
            "digits",
        )
        for rate, rates in ((0.01, {}), (0.01, {"low_rank": 0.001}), (0.001, {}))
    )
    weights = [found["low_rank"].loc["layer0.weight"] for found in (alike, other, slow)]
    assert not torch.equal(weights[0], weights[1]) and torch.equal(weights[1], weights[2])
    assert torch.equal(alike["laplace"].root, other["laplace"].root)
