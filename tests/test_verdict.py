"""From made-up answers of judges to cells, leads, groups, claims and sentences."""

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
from iic.evaluation.seeds import across_seeds
from iic.evaluation.statistics import wilson_interval
from iic.evaluation.summary import Way, compare, headline, per_image
from iic.evaluation.tables import cell_table, claim_table, lead_table
from iic.evaluation.verdict import verdict
from iic.params import EvaluationParams
from iic.provenance import EXPLAINING, JUDGING, code_hash, made_like


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


def test_removing_counts_what_is_lost():
    """Rates are turned for removal, so that the leads have the same sign."""
    for table in report(known())["headline"]:
        lead = table["methods"]["lrp"]["minus_best_control"]
        assert lead["control"] in ("random", "sobel") and lead["interval"][0] > 0.4
        assert table["groups"][0] == ["lrp"]
        (claim,) = table["claims"]
        assert (claim["better"], claim["worse"]) == ("lrp", "lime") and claim["supported"]
        assert [t["better"] for t in claim["twins"]] == ["lrp_superpixel", "lrp", "lrp_superpixel"]


def test_a_claim_needs_its_twins():
    unfair = report(known(lrp_superpixel=0.5))
    assert not any(c["supported"] for t in unfair["headline"] for c in t["claims"])
    assert "not in the fair comparison: `lrp_superpixel` over `lime`" in verdict(unfair)
    missing = report(known(lrp_superpixel=None))
    assert "add `lrp_superpixel` to IIC_METHODS" in verdict(missing)


def test_a_random_explainer_ranks_with_the_controls():
    found = report(known(lrp=0.3))
    grouped = [any({"lrp", "random"} <= set(group) for group in table["groups"]) for table in found["headline"]]
    assert sum(grouped) >= 6  # of eight tables; each tells equals apart in 5 % of cases
    leads = [table["methods"]["lrp"]["minus_best_control"]["interval"][0] for table in found["headline"]]
    assert max(leads) < 0.03 and "`lrp` does not beat" in verdict(found)


def test_a_judge_of_one_class_abstains():
    found = report({name: answers(0.9, constant=True) for name in ("lime", "random")})
    assert "it abstains" in verdict(found) and "beats" not in verdict(found)


def test_a_control_that_silences_the_judge_is_nobodys_best():
    """Removing: one class for all images is an accuracy of .1, which would be the best of scores."""
    found = report(silence(known(), "sobel"))
    for table in found["headline"]:
        assert table["methods"]["sobel"]["abstains"] and table["methods"]["sobel"]["minus_best_control"] is None
        assert table["methods"]["lrp"]["minus_best_control"]["control"] == "random"
        assert not any("sobel" in group for group in table["groups"])
        behind = table["methods"]["lrp"]["not_ahead_of_silent"]
        assert behind == (["sobel"] if table["direction"] == "remove" else [])
        assert not table["methods"]["sobel"]["not_ahead_of_silent"]
    said = verdict(found)
    assert "abstains on `sobel`" in said and said.count("but not ahead of `sobel`, on which the judge abstains") == 8
    assert said.count("`lrp` beats the controls") == 4 and said.count("`lrp` (") == 4  # where pixels are kept


def test_no_claim_rests_on_a_silent_twin():
    found = report(silence(known(), "lrp_superpixel"))
    for table in found["headline"]:
        (claim,) = table["claims"]
        assert claim["abstains"] == ["lrp_superpixel"] and not claim["supported"]
    assert "the judge abstains on `lrp_superpixel`, which the fair comparison needs" in verdict(found)
    seeds = across_seeds({0: report(known()), 1: found})
    (claim,) = seeds[0]["claims"]
    assert not claim["supported"] and claim["by_seed"][1] > 0  # the difference itself has its sign


def test_the_verdict_names_the_controls_that_were_not_there():
    found = verdict(report(known()))
    assert "Not in it: `random_superpixels`, `contrast`, `centre`, `random_blurred`" in found
    assert "`lrp_random_weights_blurred`" in found and "One network (seed 0)" in found


def test_a_contradicting_judge_is_named():
    outcomes = known()
    for name, turned in (("lrp", 0.6), ("lime", 0.9)):  # the second judge sees it the other way round
        o, other = outcomes[name], answers(turned, seed=70)
        rows = o.rows(judge="adapted")
        o.predicted[rows] = other.predicted[rows]
    assert "The other judge contradicts it." in verdict(report(outcomes))
    assert "contradicts" not in verdict(report(known()))


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
    assert len(claims) == 8 and (claims.better == "lrp").all() and (claims.abstains == "lime_logit").all()
    assert not claims.supported.any() and claim_table(report({"lrp": answers(0.9)})).empty


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
    judged = {**of_maps, "code": code_hash(JUDGING), "judges": {"blur": "d"}}
    lime, one = (replace(answers(0.5), made={**judged, "maps": made_like(cost)}) for cost in costs.values())
    made, blocks = one.made, {"evaluation": params, "attribution": params}

    def check(other, **changed):
        both = {"headline": {"lime": lime, "lrp": other}, "matrix": {"lime": lime}}
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


def test_a_handful_of_images_is_no_lead():
    """Five images that differ, all the same way: a bootstrap is sure, an exact test is not (2 / 2^5 = .06)."""
    for differing in (5, 6):
        outcomes = {name: answers(1.0) for name in ("lrp", "random")}
        outcomes["lrp"].predicted[:] = outcomes["lrp"].labels
        outcomes["random"].predicted[:] = outcomes["random"].labels
        outcomes["random"].predicted[:, :differing] = (outcomes["random"].labels[:differing] + 1) % 10
        found = report(outcomes)
        kept = [t["methods"]["lrp"] for t in found["headline"] if t["direction"] == "keep"]
        assert all(c["minus_best_control"]["differing"] == differing for c in kept)
        assert all(c["minus_best_control"]["interval"][0] > 0 for c in kept)
        assert [c["beats_controls"] for c in kept] == [differing > 5] * 4
        assert ("they differ on 5 images only, too few to tell" in verdict(found)) == (differing == 5)


def test_a_handful_of_images_is_no_lead_over_a_control_that_silences_the_judge_either():
    """lrp is ahead of random by 30 images, and of sobel, on which the judge abstains, by five, or six."""
    for ahead in (5, 6):
        scores = np.zeros((3, N))
        scores[0, :40], scores[1, :10], scores[2, : 40 - ahead] = 1, 1, 1
        found, _ = compare(["lrp", "random", "sobel"], scores, resampled_means(scores, 500, 0), {"sobel"})
        assert found["lrp"]["lead"]["control"] == "random" and found["lrp"]["lead"]["interval"][0] > 0
        assert found["lrp"]["not_ahead_of_silent"] == (["sobel"] if ahead == 5 else [])
        assert found["lrp"]["beats_controls"] == (ahead == 6)


def test_the_other_judge_contradicts_a_lead():
    outcomes = known(lrp_superpixel=None)
    for name, turned in (("lrp", 0.2), ("sobel", 0.6), ("random", 0.6)):
        other, rows = answers(turned, seed=70), outcomes[name].rows(judge="adapted")
        outcomes[name].predicted[rows] = other.predicted[rows]
    said = verdict(report(outcomes))
    assert said.count("The adapted judge contradicts it: -0.") == 4  # keep and remove, both fills
    assert "contradicts it: " not in verdict(report(known()))


def test_a_run_without_explainers_or_with_silent_controls_says_so():
    assert verdict(report({"random": answers(0.3)})).count("no explainer was in this run.") == 8
    found = verdict(report({"lrp": answers(0.9), "random": answers(0.9, constant=True)}))
    assert found.count("it abstains on every control.") == 8
    assert found.count("; the judge abstains on every control (`random`).") == 8 and "there was no control" not in found
