"""Choosing a method: planted problems, the table worked out a second way, and no winner by luck."""

import json

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.calibrators import CONFIDENCE_FITS, FITS
from calibwrap.calibrators.auto import CONFIDENCE_ENTRANTS, GROUPED, LEFT_OUT, ON_REQUEST, OPTION_ENTRANTS
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.saving import load, save
from calibwrap.scores import log_softmax
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions


def planted(n, bias, seed=0):
    """Scores too sharp by 2.5, and answers drawn from the truth, which leans to some places by `bias`."""
    random = np.random.default_rng(seed)
    truth = log_softmax(random.normal(0.0, 1.5, (n, 4)))
    return 2.5 * truth, (truth + np.asarray(bias) + random.gumbel(size=truth.shape)).argmax(axis=1)


FEW = ["vector", "matrix"]
"""The race of most tests: the rule is the same, and dirichlet, which cross-validates itself, takes most of the time."""


def by_name(calibrator):
    return {one.method: one for one in calibrator.report.candidates}


def test_plain_temperature_stays_where_it_is_right():
    """Twelve draws of a problem that temperature solves: at 95 % for all rivals together, more than two is no luck."""
    chosen = [cw.fit_auto(*planted(300, [0, 0, 0, 0], seed), methods=FEW).kind for seed in range(12)]
    assert chosen.count("temperature") >= 10


def test_a_planted_bias_is_found():
    logprobs, answers = planted(1500, [1, 0, -1, 0])
    fitted = cw.fit_auto(logprobs, answers, methods=["vector"])
    assert fitted == cw.fit_vector_scaling(logprobs, answers)
    found = by_name(fitted)
    assert list(found) == ["identity", "temperature", "vector"]
    assert [one.method for one in found.values() if one.chosen] == ["vector"]
    assert found["vector"].difference[1] < 0.0 < found["identity"].difference[0]
    assert "Chosen as 'vector' out of 2 methods" in fitted.report.notes[-1]


def test_the_least_log_loss_wins_among_those_that_beat_temperature():
    found = by_name(cw.fit_auto(*planted(1500, [1, 0, -1, 0]), methods=FEW))
    better = {name: one.log_loss for name, one in found.items() if one.difference and one.difference[1] < 0.0}
    assert found[min(better, key=better.get)].chosen
    assert sum(one.chosen for one in found.values()) == 1


def test_the_log_loss_is_that_of_fits_that_did_not_see_the_row():
    """By hand, with the same deal of the rows: fit on four fifths, look at the fifth."""
    logprobs, answers = planted(103, [0, 0, 0, 0])
    order, losses = np.random.default_rng(7).permutation(103), np.empty(103)
    for held in np.array_split(order, 5):
        rest = np.setdiff1d(order, held)
        fold = cw.fit_temperature(logprobs[rest], answers[rest])
        losses[held] = -fold(logprobs[held])[np.arange(len(held)), answers[held]]
    found = by_name(cw.fit_auto(logprobs, answers, methods=[], seed=7))
    assert found["temperature"].log_loss == pytest.approx(losses.mean(), abs=1e-9)
    raw = -log_softmax(logprobs)[np.arange(103), answers].mean()
    assert found["identity"].log_loss == pytest.approx(raw)


def test_all_methods_race_by_default():
    found = by_name(cw.fit_auto(*planted(200, [0, 0, 0, 0])))
    assert list(found)[1:] == [one.name for one in OPTION_ENTRANTS]
    assert all((one.log_loss is None) == bool(one.note) for one in found.values())


def test_identity_is_there_to_compare_and_never_chosen():
    random = np.random.default_rng(3)
    truth = log_softmax(random.normal(0.0, 1.5, (40, 3)))
    answers = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)
    assert cw.fit_auto(truth, answers).kind == "temperature"


def test_too_few_rows_are_said():
    found = by_name(cw.fit_auto(*planted(60, [0, 0, 0, 0])))
    assert found["vector"].note == "needs 80 rows, and each fit has 48"
    assert found["vector"].log_loss is None
    few = cw.fit_auto([[4.0, 0.0]] * 4, [0, 0, 0, 1])
    assert "Too few rows to compare" in few.report.notes[-1]
    assert by_name(few)["temperature"].note == "5 folds need as many rows, and 4 came"


def test_what_a_method_refuses_is_in_the_table():
    logprobs, answers = planted(300, [0, 0, 0, 0])
    logprobs[::2, 3] = -np.inf
    answers = np.where(np.isneginf(logprobs[np.arange(300), answers]), 0, answers)
    assert "same number of options in every row" in by_name(cw.fit_auto(logprobs, answers, methods=FEW))["matrix"].note


def in_groups(spread, n=1200, seed=0):
    """The problem that temperature solves, in 12 groups whose log T differ with a standard deviation of `spread`."""
    logprobs, answers = planted(n, [0, 0, 0, 0], seed)
    which = np.arange(n) % 12
    sharpness = np.exp(spread * np.random.default_rng(seed + 100).normal(size=12))
    return logprobs * sharpness[which, None], answers, [f"g{one:02}" for one in which]


def test_told_the_groups_it_tries_their_temperatures():
    logprobs, answers, groups = in_groups(0.8)
    fitted = cw.fit_auto(logprobs, answers, groups=groups, methods=["group-temperature", "vector"])
    assert list(by_name(fitted)) == ["identity", "temperature", "vector", "group-temperature"]
    assert by_name(fitted)["group-temperature"].difference[1] < 0.0
    assert fitted == cw.fit_group_temperature(logprobs, answers, groups=groups)
    logprobs, answers, groups = in_groups(0.0)
    alike = cw.fit_auto(logprobs, answers, groups=groups, methods=["group-temperature"])
    assert alike.kind == "temperature"
    assert "group-temperature" in by_name(cw.fit_auto(logprobs[:40], answers[:40], groups=groups[:40]))
    with pytest.raises(InputError, match="'groups' must be 1200 texts"):
        cw.fit_auto(logprobs, answers, groups=groups[1:])
    with pytest.raises(InputError, match="out of temperature"):  # no groups, no temperatures of them
        cw.fit_auto(logprobs, answers, methods=["group-temperature"])


def test_the_held_out_rows_of_a_group_are_judged_by_its_own_temperature():
    """By hand, as for temperature below: a fold's rows keep their names."""
    logprobs, answers, groups = in_groups(0.5, n=97)
    order, losses, names = np.random.default_rng(3).permutation(97), np.empty(97), np.array(groups)
    for held in np.array_split(order, 5):
        rest = np.setdiff1d(order, held)
        fold = cw.fit_group_temperature(logprobs[rest], answers[rest], groups=names[rest].tolist())
        mapped = fold(logprobs[held], groups=names[held].tolist())
        losses[held] = -mapped[np.arange(len(held)), answers[held]]
    found = by_name(cw.fit_auto(logprobs, answers, groups=groups, methods=["group-temperature"], seed=3))
    assert found["group-temperature"].log_loss == pytest.approx(losses.mean(), abs=1e-9)


def test_class_wise_is_tried_when_it_is_named():
    logprobs, answers = planted(1500, [1, 0, -1, 0])
    fitted = cw.fit_auto(logprobs, answers, methods=["class-wise:platt"])
    assert fitted == cw.fit_class_wise(logprobs, answers, method="platt")
    few = by_name(cw.fit_auto(logprobs[:60], answers[:60], methods=["class-wise:platt"]))
    assert few["class-wise:platt"].note == "needs 80 rows, and each fit has 48"


def test_truncated_rows_leave_temperature_and_what_has_honest_bounds():
    logprobs, answers = planted(300, [0, 0, 0, 0])
    p = np.exp(log_softmax(logprobs))
    scores = cw.OptionScores(logprobs, readout="label", lower=np.maximum(p - 0.01, 0), upper=np.minimum(p + 0.01, 1))
    fitted = cw.fit_auto(scores, answers)
    assert fitted == cw.fit_temperature(scores, answers)
    found = by_name(fitted)
    raced = {name for name, one in found.items() if one.log_loss is not None}
    assert raced == {"identity", "temperature", "top-label:platt", "top-label:beta"}
    assert all("cut off by the backend" in found[name].note for name in ("vector", "matrix", "dirichlet"))
    assert found["top-label:isotonic"].note == "needs 500 rows, and each fit has 240"


def test_same_seed_same_table_and_the_seed_matters():
    logprobs, answers = planted(200, [0.5, 0, 0, 0])
    first, again = (cw.fit_auto(logprobs, answers, methods=FEW, seed=1).report.candidates for _ in range(2))
    assert first == again
    assert first != cw.fit_auto(logprobs, answers, methods=FEW, seed=2).report.candidates


def test_the_table_is_saved_and_old_files_load(tmp_path):
    fitted = cw.fit_auto(*planted(200, [1, 0, -1, 0]), methods=FEW)
    save(fitted, tmp_path / "cal")
    again = load(tmp_path / "cal")
    assert again == fitted
    assert again.report == fitted.report
    save(cw.fit_temperature(*planted(20, [0, 0, 0, 0])), tmp_path / "old.json")
    old = json.loads((tmp_path / "old.json").read_text())
    del old["calibrator"]["report"]["candidates"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert load(tmp_path / "old.json").report.candidates == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ["tempera"]}, "out of temperature"),
        ({"methods": "vector"}, "must be a list"),
        ({"n_folds": 1}, "'n_folds'"),
        ({"n_folds": 2.5}, "'n_folds'"),
        ({"level": 1.0}, "'level'"),
    ],
)
def test_wrong_settings_are_named(options, said):
    with pytest.raises(InputError, match=said):
        cw.fit_auto(*planted(30, [0, 0, 0, 0]), **options)


def test_every_fit_with_labels_is_tried_or_left_out_for_a_reason():
    labelled = {name for name, spec in FITS.items() if spec.needs_answers}
    tried = {one.name for one in (*OPTION_ENTRANTS, GROUPED)}
    assert tried <= labelled
    assert labelled - tried <= set(LEFT_OUT)
    confident = {one.name for one in CONFIDENCE_ENTRANTS}
    assert confident <= set(CONFIDENCE_FITS)
    assert set(CONFIDENCE_FITS) - confident <= set(LEFT_OUT)
    assert not set(LEFT_OUT) - labelled - set(CONFIDENCE_FITS)
    assert {one.name for one in ON_REQUEST} == {name for name in LEFT_OUT if name.startswith("class-wise:")}


def confidences(n, shape, seed=0):
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.0, 1.0, n)
    return confidence, random.uniform(size=n) < shape(confidence)


def test_confidence_stays_with_platt_where_platt_is_right():
    fitted = cw.fit_auto_confidence(*confidences(800, lambda c: c))
    assert fitted.kind == "platt"
    assert by_name(fitted)["isotonic"].log_loss is not None


def test_confidence_leaves_platt_where_the_curve_is_a_staircase():
    fitted = cw.fit_auto_confidence(*confidences(2000, lambda c: np.where(c < 0.5, 0.2, np.where(c < 0.9, 0.3, 0.95))))
    assert fitted.kind != "platt"


def test_wrapped_models_fit_it_by_name():
    model = ToyModel.random(seed=0)
    questions = toy_questions(100, seed=1, model=model)
    lm = cw.wrap(ToyAdapter(model.sharpened(3.0))).fit(questions, method="auto", readout="label")
    assert lm.calibrator.kind == "temperature"
    assert lm.calibrator.report.provenance == lm.adapter.fingerprint()
    assert by_name(lm.calibrator)["temperature"].chosen
    names = ["odd", "even"] * 50
    again = lm.fit(questions, method="auto", groups=names, methods=["group-temperature"])
    assert list(by_name(again.calibrator)) == ["identity", "temperature", "group-temperature"]


@pytest.mark.filterwarnings("error::calibwrap.errors.CalibrationWarning")
def test_fits_on_parts_warn_of_nothing_and_the_last_one_does():
    rows = np.array([[3.0, 0.0]] * 30 + [[0.5, 0.0]] * 2)
    answers = np.array([0] * 30 + [1, 0])
    with pytest.raises(CalibrationWarning):
        cw.fit_auto([[4.0, 0.0]] * 10, [0] * 10)  # separable: the last fit hits its bound, and says so
    assert cw.fit_auto(rows, answers).kind == "temperature"  # folds without the one wrong row are separable


@pytest.mark.filterwarnings("ignore:Confidence parts right from wrong:calibwrap.errors.CalibrationWarning")
def test_a_difference_of_rounding_makes_no_winner():
    confidence = np.random.default_rng(0).random(200)  # all answers are right: every map says so, to 1e-9 nats
    fitted = cw.fit_auto_confidence(confidence, np.ones(200))
    beta = next(one for one in fitted.report.candidates if one.method == "beta")
    assert beta.difference[1] < 0.0
    assert fitted.kind == "platt"
