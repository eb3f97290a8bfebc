"""From made-up answers of judges to cells, areas, ranks and tables."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_answers import N, answers, known, report, silence

from iic.datasets import OutcomesDataset
from iic.errors import UserError
from iic.evaluation.areas import area_per_image, curves, mean_ranks
from iic.evaluation.comparison import resampled_means
from iic.evaluation.outcomes import merged
from iic.evaluation.report import check_made_alike
from iic.evaluation.statistics import wilson_interval
from iic.evaluation.summary import Way, compare, headline, per_image
from iic.evaluation.tables import cell_table, claim_table, lead_table
from iic.params import EvaluationParams
from iic.pipelines.evaluation import nodes
from iic.provenance import EXPLAINING, JUDGING, REPORT_SCHEMA, code_hash, made_like


def test_a_cell_is_the_mean_over_seeds_and_images():
    o = answers(0.7)
    way = Way("explained", "keep", "salt_and_pepper")
    rows = [k for k, c in enumerate(o.cells) if c[:3] == way]
    assert len(rows) == 2  # two noise seeds
    by_hand = (o.predicted[rows] == o.labels).mean(0)
    np.testing.assert_array_equal(per_image(o, way, 0.2), by_hand)
    cell = headline({"lime": o}, 0.2, replicates=200, seed=0)[0]["methods"]["lime"]
    assert cell["accuracy"] == pytest.approx(by_hand.mean()) and not cell["abstains"]
    assert cell["minus_best_control"] is None  # there is none
    mean = headline({"lime": o}, 0.2, replicates=200, seed=0)[-1]["methods"]["lime"]  # one draw: Wilson
    right = o.predicted[[k for k, c in enumerate(o.cells) if c[:3] == ("adapted", "remove", "mean_colour")]] == o.labels
    assert mean["interval"] == list(wilson_interval(right.sum(), N))


def test_draws_are_averaged_like_noise_seeds():
    parts = [answers(rate, seed=i) for i, rate in enumerate((0.2, 0.6))]
    way = Way("adapted", "remove", "mean_colour")
    expected = (per_image(parts[0], way, 0.2) + per_image(parts[1], way, 0.2)) / 2
    np.testing.assert_allclose(per_image(merged(parts), way, 0.2), expected)


def test_the_area_is_the_mean_height_of_the_curve():
    shares = (0.1, 0.3, 0.9)
    o = answers(0.5, shares=shares, seeds=(0,), fills=("blur",))
    heights = [per_image(o, Way("adapted", "keep", "blur"), share) for share in shares]
    by_hand = (0.2 * (heights[0] + heights[1]) / 2 + 0.6 * (heights[1] + heights[2]) / 2) / 0.8
    np.testing.assert_allclose(area_per_image(o, Way("adapted", "keep", "blur"), shares), by_hand)
    table = curves({"lime": o, "random": answers(0.5, shares=shares, seeds=(0,), fills=("blur",), seed=9)},
                   replicates=100, seed=0)[0]  # fmt: skip
    assert table["methods"]["lime"]["area"] == pytest.approx(
        area_per_image(o, Way("explained", "keep", "blur"), shares).mean()
    )
    assert table["groups"] == [["lime", "random"]] or table["groups"] == [["random", "lime"]]


def test_the_table_has_a_row_for_each_cell():
    found = report(known())
    table = cell_table(found)
    assert len(table) == 8 * len(found["methods"])
    row = table[(table.judge == "explained") & (table.direction == "keep") & (table.fill == "mean_colour")].iloc[0]
    (headline_table,) = [
        t for t in found["headline"] if (t["judge"], t["direction"], t["fill"]) == ("explained", "keep", "mean_colour")
    ]
    assert row.accuracy == headline_table["methods"][row.method]["accuracy"]


def test_leads_and_claims_are_tables_too():
    outcomes = silence(known(), "lime_logit")
    found = report(outcomes)
    leads, claims = lead_table(found), claim_table(found)
    assert len(leads) == 8 * len(outcomes) and leads[leads.method == "lime_logit"].lead.isna().all()
    lrp = leads[leads.method == "lrp"]
    assert (lrp.low > 0.4).all() and lrp.control.isin(["random", "sobel"]).all()
    assert (lrp.forwards_per_image == 10).all() and (lrp.seconds_per_image == 0.1).all()
    assert len(claims) == 8 and (claims.better == "lrp").all() and (claims.abstains == "lime_logit").all()
    assert not claims.supported.any() and claim_table(report({"lrp": answers(0.9)})).empty


READERS = (nodes.write_verdict, nodes.tabulate, nodes.draw_curves, nodes.draw_cost, nodes.draw_accuracy)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("schema", [None, REPORT_SCHEMA - 1])
def test_nothing_is_made_of_a_report_of_an_older_version(read, schema):
    older = report({"lrp": answers(0.9)}) | {"schema": schema}
    with pytest.raises(UserError, match="accuracy report of 'made-up' was written by another version of the code"):
        read(older)


def test_outcomes_come_back_from_the_disk(tmp_path):
    o = answers(0.5)
    entry = OutcomesDataset(filepath=str(tmp_path / "outcomes.npz"))
    entry.save(o)
    back = entry.load()
    assert back.cells == o.cells and back.made == o.made
    np.testing.assert_array_equal(back.predicted, o.predicted)
    assert back.predicted.dtype == np.int16 and back.probability.dtype == np.float32


def test_outcomes_of_other_images_networks_or_data_are_refused():
    params = EvaluationParams()
    of_maps = {"model": "a", "data": "b", "parameters": params.model_dump(mode="json"), "code": code_hash(EXPLAINING)}
    costs = {method: {"method": method, **of_maps} for method in ("lime", "lrp")}
    precision = {name: {"precision": "int8", "same_class": 1.0} for name in ("explained", "adapted/blur")}
    judged = {**of_maps, "code": code_hash(JUDGING), "judges": {"blur": "d"}, "precision": precision}
    lime, one = (replace(answers(0.5), made={**judged, "maps": made_like(cost)}) for cost in costs.values())
    made, blocks = one.made, {"evaluation": params, "attribution": params}

    def check(other, matrix=None, **changed):
        both = {"headline": {"lime": lime, "lrp": other}, "matrix": {"lime": lime, "lrp": matrix or one}}
        check_made_alike("made-up", "a", "b", both, costs | changed, blocks)

    check(one)
    with pytest.raises(UserError, match=r"headline or the cost of made-up\.lrp is of other maps"):
        check(lime)  # another method's answers
    with pytest.raises(UserError, match=r"headline or the cost of made-up\.lime is of other maps"):
        check(one, lime=costs["lrp"])
    with pytest.raises(UserError, match=r"made-up\.lrp is of other images"):
        check(replace(one, indices=one.indices[::-1]))
    with pytest.raises(UserError, match=r"evaluation of made-up\.lrp was made with another network"):
        check(replace(one, made={**made, "model": "c"}))
    with pytest.raises(UserError, match=r"attribution of made-up\.lime was made of other test images"):
        check(one, lime={**costs["lime"], "data": "c"})
    with pytest.raises(UserError, match=r"evaluation of made-up\.lrp was made by another version of the code"):
        check(replace(one, made={**made, "code": "old"}))
    with pytest.raises(UserError, match=r"made-up\.lrp is of other maps or by other judges"):
        check(replace(one, made={**made, "maps": {**made["maps"], "precision": "int8"}}))
    with pytest.raises(UserError, match=r"made-up\.lrp is of other maps or by other judges"):
        check(replace(one, made={**made, "judges": {"blur": "e"}}))
    for name in precision:
        slow = replace(one, made={**made, "precision": precision | {name: {"precision": "float32", "same_class": 1.0}}})
        for kind, answered in (("headline", (slow, one)), ("matrix", (one, slow))):
            with pytest.raises(UserError, match=rf"The {kind} or the cost of made-up\.lrp .* by other judges"):
                check(*answered)
    with pytest.raises(UserError, match=r"made with keep = 0\.3, not 0\.2"):
        check(replace(one, made={**made, "parameters": {**made["parameters"], "keep": 0.3}}))


def test_ranks_say_who_is_first_in_most_fills():
    made_up = {name: answers(rate, shares=(0.1, 0.5), seed=i) for i, (name, rate) in enumerate(
        {"lime": 0.5, "lrp": 0.9, "random": 0.1}.items())}  # fmt: skip
    for table in mean_ranks(made_up):
        assert table["mean_rank"] == {"lime": 2, "lrp": 1, "random": 3}


def test_an_area_over_silent_cells_is_nobodys_score():
    """One class for all images wherever pixels go is an accuracy lost of .9, which would be the best of scores."""
    made_up = {name: answers(rate, shares=(0.1, 0.5), seed=i) for i, (name, rate) in enumerate(
        {"lime": 0.6, "random": 0.3}.items())} | {"lrp": answers(0, shares=(0.1, 0.5), constant=True)}  # fmt: skip
    for table in curves(made_up | {"sobel": made_up["lrp"]}, replicates=100, seed=0):
        rows = table["methods"]
        assert rows["lrp"]["abstains"] == [0.1, 0.5] and rows["lrp"]["area_minus_best_control"] is None
        assert rows["lime"]["area_minus_best_control"]["control"] == "random"
        assert rows["lime"]["beats_controls"] == (table["direction"] == "keep")
        assert not any("lrp" in group for group in table["groups"])
    for table in mean_ranks(made_up):
        assert table["mean_rank"] == {"lime": 1, "random": 2, "lrp": None}
        assert table["fills_ranked"] == {"lime": 2, "random": 2, "lrp": 0}


def test_a_handful_of_images_is_no_lead_over_a_control_that_silences_the_judge_either():
    """lrp is ahead of random by 30 images, and of sobel, on which the judge abstains, by five, or six."""
    for ahead in (5, 6):
        scores = np.zeros((3, N))
        scores[0, :40], scores[1, :10], scores[2, : 40 - ahead] = 1, 1, 1
        found, _ = compare(["lrp", "random", "sobel"], scores, resampled_means(scores, 500, 0), {"sobel"})
        assert found["lrp"]["lead"]["control"] == "random" and found["lrp"]["lead"]["interval"][0] > 0
        assert found["lrp"]["not_ahead_of_silent"] == (["sobel"] if ahead == 5 else [])
        assert found["lrp"]["beats_controls"] == (ahead == 6)
