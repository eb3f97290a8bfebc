"""From made-up answers of judges to leads, groups, claims and sentences."""

import numpy as np
from made_up_answers import answers, known, report, silence, turned

from iic.evaluation.seeds import across_seeds
from iic.evaluation.tables import claim_table
from iic.evaluation.verdict import verdict


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
    found = report(turned(known(), lrp=0.6, lime=0.9))  # the second judge sees it the other way round
    other = {"explained": "adapted", "adapted": "explained"}
    for table in found["headline"]:
        (claim,) = table["claims"]
        assert claim["contradicted_by"] == [other[table["judge"]]]
    assert "The other judge contradicts it." in verdict(found)
    rows = claim_table(found)
    assert (rows.contradicted_by == rows.judge.map(other)).all() and rows.supported.any()
    silent = turned(known(), lrp=0.6, lime=0.9)
    silent["lime"].predicted[silent["lime"].rows(judge="adapted")] = 3
    assert not any(claim["contradicted_by"] for table in report(silent)["headline"] for claim in table["claims"])
    agreed = report(known())
    assert "contradict" not in verdict(agreed) and (claim_table(agreed).contradicted_by == "").all()


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


def test_the_other_judge_contradicts_a_lead():
    found = report(turned(known(lrp_superpixel=None), lrp=0.2, sobel=0.6, random=0.6))
    said = verdict(found)
    assert said.count("The adapted judge contradicts it: -0.") == 4  # keep and remove, both fills
    short = [line for line in said.splitlines() if line.startswith("- top pixels")]
    assert sum("`lrp` (0." in line and ", contradicted by the adapted judge)" in line for line in short) == 4
    for table in found["headline"]:
        by = {name: cell["contradicted_by"] for name, cell in table["methods"].items()}
        assert by == {name: [] for name in by} | ({"lrp": ["adapted"]} if table["judge"] == "explained" else {})
    assert "contradicted" not in verdict(report(known()))


def test_a_run_without_explainers_or_with_silent_controls_says_so():
    assert verdict(report({"random": answers(0.3)})).count("no explainer was in this run.") == 8
    found = verdict(report({"lrp": answers(0.9), "random": answers(0.9, constant=True)}))
    assert found.count("it abstains on every control.") == 8
    assert found.count("; the judge abstains on every control (`random`).") == 8 and "there was no control" not in found


def wrong_on(outcomes, *images, seed=None):
    """The outcomes with wrong answers on these images, in one noise seed's cells or all, right on the others."""
    rows = np.arange(len(outcomes.cells)) if seed is None else outcomes.rows(seed=seed)
    outcomes.predicted[rows] = outcomes.labels
    outcomes.predicted[np.ix_(rows, images)] = (outcomes.labels[list(images)] + 1) % 10
    return outcomes


def salted(found):
    """The claim and the line on it where the explained judge is shown what is kept in salt and pepper."""
    heading = "is all that is left; salt and pepper; explained judge"
    (section,) = [part for part in verdict(found).split("\n## ") if heading in part]
    (claim,) = found["headline"][0]["claims"]
    return claim, next(line for line in section.splitlines() if line.startswith("- `lrp`") and "`lime`" in line)


def test_a_claim_by_a_handful_of_images_is_none_though_its_twins_hold():
    """With the first noise seed lime is wrong on eight images, but three of them are lrp's with the second."""
    outcomes = known(lrp_superpixel=1.0)
    wrong_on(outcomes["lrp"], seed=0)
    wrong_on(outcomes["lime"], *range(8), seed=0)
    wrong_on(outcomes["lrp"], 5, 6, 7, seed=1)
    wrong_on(outcomes["lime"], *range(5), seed=1)
    claim, line = salted(report(outcomes))
    assert claim["interval"][0] > 0 and claim["p"] < 0.05 and claim["differing"] == 5
    assert all(twin["holds"] for twin in claim["twins"]) and not claim["supported"]
    assert line.endswith("but they differ on 5 images only, too few to tell.")


def test_a_fair_twin_ahead_by_a_handful_of_images_says_so():
    outcomes = known(lime_logit=1.0)
    wrong_on(outcomes["lrp"], *range(1, 9))
    wrong_on(outcomes["lrp_superpixel"], *range(1, 9))
    wrong_on(outcomes["lime_logit"], *range(1, 14))
    claim, line = salted(report(outcomes))
    assert [twin["differing"] for twin in claim["twins"]][1:] == [5, 5] and not claim["supported"]
    assert "but not in the fair comparison: `lrp` over `lime_logit` by 0.01" in line
    assert line.endswith(": they differ on 5 images only, too few to tell.")


def test_a_fair_twin_that_failed_is_named_before_one_that_is_missing():
    claim, line = salted(report(known(lrp_superpixel=None, lime_logit=0.95)))
    assert [twin["differing"] is None for twin in claim["twins"]] == [True, False, True]
    assert "but not in the fair comparison: `lrp` over `lime_logit` by -0." in line
    assert "add `lrp_superpixel` to" in salted(report(known(lrp_superpixel=None)))[1]
