"""Which leads and claims have the same sign with networks of several training seeds."""

import pytest
from made_up_answers import known, report, silence, turned

from iic.errors import UserError
from iic.evaluation.seeds import MAY_DIFFER, across_seeds, newest_by_seed, sentences
from iic.evaluation.tables import lead_table
from iic.params import AttributionParams, EvaluationParams


def of_seed(seed, **changes):
    found = report(known(**changes))
    training = {"seed": seed, "epochs": 3, "weights": "trained"}
    return {**found, "parameters": {"training": training}, "made": {"model": f"network {seed}"}}


def test_a_claim_needs_its_sign_in_all_training_seeds():
    good = across_seeds(newest_by_seed([of_seed(0), of_seed(1, lrp=0.8), of_seed(2, lrp=0.7)]))
    assert all(claim["supported"] for table in good for claim in table["claims"])
    bad = across_seeds(newest_by_seed([of_seed(0), of_seed(1, lrp=0.5), of_seed(2)]))
    (claim,) = bad[0]["claims"]
    assert not claim["supported"] and claim["by_seed"][1] < 0 < claim["by_seed"][0]
    assert bad[0]["leads"]["lrp"]["by_seed"][2] > 0.5 and bad[0]["leads"]["lrp"]["same_sign"]
    assert "does not hold" in sentences(bad) and "are asked for" not in sentences(bad)
    assert "lrp minus its best control: same sign" in sentences(bad)
    bad[0]["leads"]["lrp"] |= {"by_seed": {0: 0.1, 1: None, 2: 0.1}, "same_sign": False}
    assert "lrp minus its best control: the judge abstains in 1 of 3 (+0.100, abstains, +0.100" in sentences(bad)
    unfair = across_seeds({0: report(known()), 1: report(known(lrp_superpixel=0.5))})  # a twin turns its sign
    assert not unfair[0]["claims"][0]["supported"] and "Of 2 training seeds" in sentences(unfair)
    assert "3 training seeds are asked for" in sentences(unfair)


def test_two_training_seeds_are_no_claim_yet():
    found = across_seeds(newest_by_seed([of_seed(0), of_seed(1)]))
    assert not any(claim["supported"] for table in found for claim in table["claims"])
    assert all(claim["same_sign"] for table in found for claim in table["claims"])
    assert "same sign, which is no claim yet" in sentences(found) and "holds" not in sentences(found)


def test_a_claim_that_another_judge_contradicts_says_so():
    contradicted = report(turned(known(), lrp=0.6, lime=0.9))
    plain, clear = report(known()), "lrp better than lime: holds (+0."
    found = across_seeds({0: plain, 1: contradicted, 2: plain})
    (claim,) = found[0]["claims"]
    assert claim["supported"] and claim["contradicted_by"] == {0: [], 1: ["adapted"], 2: []}
    assert sentences(found[:1]).count("lime: holds, contradicted by the adapted judge in 1 of 3 (+0.") == 1
    assert clear not in sentences(found[:1]) and clear in sentences(across_seeds(dict.fromkeys(range(3), plain))[:1])
    two = across_seeds({0: contradicted, 1: contradicted})
    assert "same sign, contradicted by the adapted judge in 2 of 2, which is no claim yet" in sentences(two[:1])
    behind = report(turned(known(), lrp=0.2, sobel=0.6, random=0.6))
    leads = across_seeds({0: plain, 1: behind})
    assert leads[0]["leads"]["lrp"]["contradicted_by"] == {0: [], 1: ["adapted"]}
    assert "lrp minus its best control: same sign, contradicted by the adapted judge in 1 of 2 (" in sentences(leads)


def test_one_network_is_not_several_training_seeds():
    with pytest.raises(UserError, match="training seeds 0 and 1 are of one and the same network"):
        newest_by_seed([of_seed(0), {**of_seed(1), "made": {"model": "network 0"}}])


def test_a_lead_over_some_controls_is_none_over_those_that_silence_the_judge():
    reports = {seed: report(silence(known(), "sobel")) for seed in range(3)}
    removed = [t for t in across_seeds(reports) if t["direction"] == "remove"]
    assert all(t["leads"]["lrp"]["not_ahead_of_silent"] == {seed: ["sobel"] for seed in range(3)} for t in removed)
    assert "same sign, but not ahead of sobel, on which it abstains" in sentences(removed)
    leads = lead_table(reports[0])
    lrp = leads[(leads.method == "lrp") & (leads.direction == "remove")]
    assert (lrp.low > 0).all() and not lrp.beats_controls.any() and (lrp.not_ahead_of_silent == "sobel").all()
    assert leads[leads.method == "sobel"].abstains.all()


def test_reports_of_an_older_form_are_no_seeds():
    older = {"schema": 1, "parameters": {"training": {"seed": 0}}}
    assert list(newest_by_seed([older, of_seed(1), of_seed(2)])) == [1, 2]


def test_reports_of_other_parameters_or_code_are_no_seeds():
    older = {**of_seed(1), "made": {"judging_code": "older"}}
    with pytest.raises(UserError, match="in nothing else: 1"):
        newest_by_seed([older, of_seed(0)])
    other = of_seed(1)
    other["parameters"]["training"]["epochs"] = 9
    with pytest.raises(UserError, match="in nothing else: 1"):
        newest_by_seed([other, of_seed(0)])
    shipped = of_seed(1)
    shipped["parameters"]["training"]["weights"] = "shipped"  # the same network, whatever the seed
    with pytest.raises(UserError, match="in nothing else: 1"):
        newest_by_seed([shipped, of_seed(0)])
    assert list(newest_by_seed([other, of_seed(2), of_seed(0), of_seed(2)])) == [0, 2]


def test_small_shipped_networks_are_one_for_each_seed():
    found = [of_seed(0), of_seed(1), of_seed(2)]
    for small in found[:2]:
        small["parameters"]["training"]["weights"] = "shipped_small"
    with pytest.raises(UserError, match="in nothing else: 1"):  # a trained one is not of their recipe
        newest_by_seed(found)
    assert list(newest_by_seed(found[:2])) == [0, 1]


def test_what_the_headline_does_not_depend_on_may_differ_between_seeds():
    assert set(MAY_DIFFER["evaluation"]) < set(EvaluationParams.model_fields)
    assert set(MAY_DIFFER["attribution"]) < set(AttributionParams.model_fields)
    reports = [of_seed(0), of_seed(1)]
    for number, judged in enumerate(reports):
        judged["parameters"]["attribution"] = {"n_images": 10 + number, "budget": 1000}
        judged["parameters"]["attribution"]["scheduler"] = (None, "tcp://127.0.0.1:8786")[number]
        judged["parameters"]["evaluation"] = {"keep": 0.2, "leakage_images": 50 + number}
    assert list(newest_by_seed(reports)) == [0, 1]
    assert "Of 2 training seeds, 400, 400 images." in sentences(across_seeds(newest_by_seed(reports)))
    for name, value in (("keep", 0.3), ("fills", ["blur"]), ("a parameter to come", 1)):
        changed = {**reports[0]["parameters"]["evaluation"], name: value}
        other = {**reports[0], "parameters": {**reports[0]["parameters"], "evaluation": changed}}
        with pytest.raises(UserError, match="in nothing else: 1"):
            newest_by_seed([other, reports[1]])
