"""Temperatures of groups: recovered spreads, the closed form, unknown groups, bounds and what is refused."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from typer.testing import CliRunner

import calibwrap as cw
from calibwrap.calibrators._newton import gaps_of
from calibwrap.calibrators._shrinkage import between_groups, posterior_mode, split
from calibwrap.cli.app import app
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.evaluate import evaluate
from calibwrap.evaluate_traces import evaluate_decoder
from calibwrap.halves import over_halves
from calibwrap.questions import CLOZE, Question
from calibwrap.readouts import find_readout
from calibwrap.saving import load, save
from calibwrap.scores import OptionScores, TokenScores, log_softmax
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions


def made(sizes, spread, seed=0, k=4):
    """Rows of groups whose log T are normal around log 2."""
    random = np.random.default_rng(seed)
    temperatures = 2.0 * np.exp(spread * random.normal(size=len(sizes)))
    truth = log_softmax(random.normal(0.0, 1.5, (sum(sizes), k)))
    answers = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)
    which = np.repeat(np.arange(len(sizes)), sizes)
    return truth * temperatures[which, None], answers, [f"g{one:02}" for one in which], temperatures


def mean_loss(mapped, answers):
    return -mapped[np.arange(len(answers)), answers].mean()


@pytest.mark.parametrize("spread", [0.2, 0.5, 1.0])
def test_shrunken_beats_one_for_all_and_each_for_itself(spread):
    """57 groups of 5 to 34 rows, as MMLU's validation sets: held-out loss, mean of three draws."""
    losses = []
    for seed in range(3):
        sizes = np.random.default_rng(seed).integers(5, 35, 57)
        logprobs, answers, groups, temperatures = made(sizes, spread, seed)
        random = np.random.default_rng(100 + seed)
        truth = log_softmax(random.normal(0.0, 1.5, (57 * 100, 4)))
        right = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)
        tests, names = truth * np.repeat(temperatures, 100)[:, None], np.repeat(sorted(set(groups)), 100).tolist()
        fitted = cw.fit_group_temperature(logprobs, answers, groups=groups)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)
            alone = [cw.fit_temperature(logprobs[rows], answers[rows]).value for rows in rows_of(groups)]
        each = cw.GroupTemperature(fitted.value, tuple(sorted(set(groups))), tuple(alone))
        maps = (cw.Temperature(fitted.value)(tests), fitted(tests, groups=names), each(tests, groups=names))
        losses.append([mean_loss(mapped, right) for mapped in maps])
    common, shrunken, separate = np.mean(losses, axis=0)
    assert shrunken < common
    assert shrunken < separate


def rows_of(groups):
    return [np.flatnonzero(np.array(groups) == name) for name in sorted(set(groups))]


def test_the_spread_is_recovered_and_none_is_none():
    logprobs, answers, groups, temperatures = made([300] * 40, 0.4, 1)
    fitted = cw.fit_group_temperature(logprobs, answers, groups=groups)
    logs = np.log(fitted.values) - np.log(temperatures)
    assert np.abs(logs).mean() < 0.08
    assert spread_of(fitted) == pytest.approx(np.log(temperatures).std(), abs=0.1)


def test_groups_that_differ_by_chance_alone_share_one_temperature():
    logprobs, answers, _, _ = made([30], 0.0, 2)
    names = np.repeat(["a", "b", "c"], 30).tolist()  # the same rows three times
    fitted = cw.fit_group_temperature(np.tile(logprobs, (3, 1)), np.tile(answers, 3), groups=names)
    assert set(fitted.values) == {fitted.value}
    assert "no more than chance" in fitted.report.notes[0]


@pytest.mark.filterwarnings("ignore:The optimum lies outside:calibwrap.errors.CalibrationWarning")
def test_at_a_bound_the_groups_slopes_say_nothing_of_their_spread():
    random = np.random.default_rng(0)
    logits, answers = random.normal(0.0, 3.0, (400, 4)), random.integers(0, 4, 400)  # answers that no score knows
    names = random.choice(["a", "b", "c"], 400).tolist()
    fitted = cw.fit_group_temperature(logits, answers, groups=names, bounds=(0.5, 2.0))
    assert {*fitted.values} == {fitted.value} == {2.0}
    assert "At a bound" in fitted.report.notes[1]


def test_the_common_temperature_is_that_of_all_rows():
    logprobs, answers, groups, _ = made([30] * 5, 0.5)
    fitted = cw.fit_group_temperature(logprobs, answers, groups=groups)
    assert fitted.value == cw.fit_temperature(logprobs, answers).value
    assert fitted.report.notes[1] == "Rows of each group: g00 30, g01 30, g02 30, g03 30, g04 30."


def test_the_mode_is_the_least_of_the_penalised_loss_and_near_the_closed_form():
    logprobs, answers, groups, _ = made([400, 400], 0.3, 3)
    gaps = gaps_of("rows", logprobs)
    parts = split(np.array(groups), gaps, gaps[answers, np.arange(len(answers))])
    variance, dispersion, theta = 0.01, 1.3, -np.log(2.0)
    for part in parts.values():

        def objective(at, part=part):
            return part.loss(at) / dispersion + (at - theta) ** 2 / (2 * variance)

        mode = posterior_mode(part, theta, variance, dispersion)
        assert mode == pytest.approx(minimize_scalar(objective, bracket=(-2.0, 1.0), tol=1e-12).x, abs=1e-6)
        own = posterior_mode(part, theta, 1e12, dispersion)
        curvature = part.slopes(own)[1].sum()
        weight = curvature / (curvature + dispersion / variance)
        assert mode == pytest.approx(theta + weight * (own - theta), abs=0.05)


def test_the_spread_by_hand():
    """Logits 4 and 0, 4 of 8 right and 8 of 8: beta 4 (m - t) and 16 beta^2 p (1 - p) for each row."""
    gaps = np.array([[0.0] * 16, [-4.0] * 16])
    targets = np.where([1, 0] * 4 + [1] * 8, 0.0, -4.0)
    parts = split(np.array(["a"] * 8 + ["b"] * 8), gaps, targets)
    p, beta = 12 / 16, np.log(3.0) / 4.0
    slopes = 4.0 * beta * np.array([8 * p - 4, 8 * p - 8])  # of the loss: 4, then 8, of 8 right
    curvature = 8 * 16.0 * beta**2 * p * (1 - p)
    squares = 16.0 * beta**2 * (12 * (1 - p) ** 2 + 4 * p**2)
    dispersion = squares / (2 * curvature)
    excess = (slopes**2).sum() / curvature - dispersion
    variance, found = between_groups(list(parts.values()), np.log(beta))
    assert found == pytest.approx(dispersion)
    assert variance == pytest.approx(excess / curvature)
    assert variance == pytest.approx(2.393547, abs=1e-6)


def test_the_spread_of_groups_that_know_unlike_much_by_hand():
    """As above with 8 and 4 rows: I_g is 2 to 1, and the sums of moments are those of the docstring."""
    gaps = np.array([[0.0] * 12, [-4.0] * 12])
    targets = np.where([1, 0] * 4 + [1] * 4, 0.0, -4.0)
    parts = split(np.array(["a"] * 8 + ["b"] * 4), gaps, targets)
    p, beta = 8 / 12, np.log(2.0) / 4.0
    slopes = 4.0 * beta * np.array([8 * p - 4, 4 * p - 4])
    one = 16.0 * beta**2 * p * (1 - p)  # the curvature of a row, and its squared slope on average
    excess = (slopes**2).sum() - (12 - (64 + 16) / 12) * one
    room = (64 + 16 - 2 * (512 + 64) / 12 + ((64 + 16) / 12) ** 2) * one**2
    variance, dispersion = between_groups(list(parts.values()), np.log(beta))
    assert dispersion == pytest.approx(1.0)
    assert variance == pytest.approx(excess / room)


@pytest.mark.parametrize("gap", [40.0, 100.0, 1e4, 1e200])
@pytest.mark.filterwarnings("ignore:The optimum lies outside:calibwrap.errors.CalibrationWarning")
def test_a_group_that_is_all_but_certain_and_once_wrong_upsets_nobody(gap):
    """Its curvature is next to 0; divided by, one wrong answer made the spread 80 at a gap of 40, 4e7 at 100."""
    logprobs, answers, groups, _ = made(np.random.default_rng(0).integers(5, 35, 57), 0.4)
    sure = np.where(np.arange(4) == 0, 0.0, -gap) * np.ones((20, 1))
    wrong_once = np.eye(20, dtype=int)[0]
    fitted = cw.fit_group_temperature(
        np.concatenate([logprobs, sure]), np.concatenate([answers, wrong_once]), groups=[*groups, *["sure"] * 20]
    )
    assert np.isfinite(fitted.values).all()
    if gap <= 100.0:  # beyond, the one answer takes all of the common temperature, as it does alone
        plain = cw.fit_group_temperature(logprobs, answers, groups=groups)
        assert spread_of(fitted) == pytest.approx(spread_of(plain), abs=0.05)


def spread_of(fitted):
    return float(fitted.report.notes[0].split("deviation of ")[1].split()[0])


def test_a_separable_group_is_held():
    logprobs, answers, groups, _ = made([40] * 12, 0.4, 5)
    easy = np.tile([[6.0, 0.0, 0.0, 0.0]], (5, 1))
    fitted = cw.fit_group_temperature(
        np.concatenate([logprobs, easy]),
        np.concatenate([answers, np.zeros(5, dtype=int)]),
        groups=[*groups, *["z"] * 5],
    )
    assert 0.3 < fitted.of("z").value < fitted.value  # alone it would be the lower bound, 0.01


def test_groups_are_told_by_the_call():
    fitted = cw.GroupTemperature(1.0, ("law", "maths"), (2.0, 0.5))
    rows = np.log([[0.8, 0.2]] * 3)
    scores = OptionScores(rows, "label")
    names = ["law", "maths", "art"]
    got = fitted(scores, groups=names)
    np.testing.assert_allclose(got.logprobs, fitted(rows, groups=names))
    np.testing.assert_array_equal(got.lower, got.upper)
    for row, name in enumerate(names):
        np.testing.assert_allclose(fitted.of(name)(rows)[row], got.logprobs[row])
    with pytest.warns(CalibrationWarning, match=r"temperature 1 of all 2 groups.*with_calibrator"):
        np.testing.assert_allclose(fitted(scores).logprobs, scores.logprobs)  # no groups: the common one, 1
    assert cw.GroupTemperature(1.0, (), ())(rows).shape == rows.shape, "nothing is lost where there are no groups"
    for wrong in (["law"], "law", [1, 2, 3]):
        with pytest.raises(InputError, match="'groups' must be 3 texts"):
            fitted(scores, groups=wrong)
    with pytest.raises(InputError, match=r"of\(group\)"):
        fitted(TokenScores(rows), groups=names)
    with pytest.raises(InputError, match="'groups' must be 2 texts"):
        cw.fit_group_temperature(np.zeros((2, 2)), [0, 1])


def test_a_cut_list_keeps_the_bounds_of_its_group():
    lists = OptionScores.from_lists([[0.6, 0.0]] * 2, [[0, 1]] * 2, tail=[0.3] * 2, cut=[0.2] * 2, readout="label")
    got = cw.GroupTemperature(1.0, ("law",), (2.0,))(lists, groups=["law", "art"])
    for row, value in enumerate((2.0, 1.0)):
        wanted = cw.Temperature(value)(lists)
        np.testing.assert_allclose(got.lower[row], wanted.lower[row])
        np.testing.assert_allclose(got.upper[row], wanted.upper[row])


def test_saved_and_loaded_with_its_names(tmp_path):
    fitted = cw.fit_group_temperature(*made([30] * 5, 0.5)[:2], groups=made([30] * 5, 0.5)[2])
    save(fitted, tmp_path / "groups.json")
    assert load(tmp_path / "groups.json") == fitted


def test_wrong_fields_are_named():
    with pytest.raises(InputError, match="as many"):
        cw.GroupTemperature(1.0, ("a", "b"), (1.0,))
    with pytest.raises(InputError, match="each once"):
        cw.GroupTemperature(1.0, ("a", "a"), (1.0, 2.0))
    with pytest.raises(InputError, match="finite number above 0"):
        cw.GroupTemperature(1.0, ("a",), (0.0,))


@pytest.mark.filterwarnings("ignore:The labels together carry")
def test_a_model_answers_with_the_temperature_of_one_group():
    asked = [Question(f"What is {n}?", ["one", "two"], answer=int(n % 4 == 0)) for n in range(80)]
    names = ["law"] * 40 + ["art"] * 40
    lm = cw.wrap(ToyAdapter(ToyModel.random(3))).fit(asked, "group-temperature", readout="label", groups=names)
    with pytest.warns(CalibrationWarning, match="No groups were named"):
        lm.choose("Which?", ["one", "two"])
    of_law = lm.with_calibrator(lm.calibrator.of("law"))
    expected = lm.calibrator(lm.scores(asked[:1]), groups=["law"])
    assert of_law.choose_batch(asked[:1])[0].confidence == pytest.approx(expected.confidence[0])


@pytest.mark.filterwarnings("ignore:The labels together carry")
def test_a_model_answers_each_question_with_the_temperature_of_its_group():
    model = ToyModel.random(3)
    asked = toy_questions(3, seed=2, model=model, template=CLOZE)
    lm = cw.CalibratedLM(ToyAdapter(model), readout=find_readout("continuation"))
    known = lm.with_calibrator(cw.GroupTemperature(1.0, ("law", "art"), (2.0, 0.5)))
    got = known.choose_batch(asked, groups=["law", "art", "maths"])
    for answer, question, value in zip(got, asked, (2.0, 0.5, 1.0), strict=True):
        assert answer.confidence == lm.with_calibrator(cw.Temperature(value)).choose_batch([question])[0].confidence


@pytest.mark.filterwarnings("ignore:The labels together carry")
def test_questions_that_name_their_group_need_no_list_of_names():
    model = ToyModel.random(3)
    asked = [replace(one, group=("law", "art")[n % 2]) for n, one in enumerate(toy_questions(60, seed=2, model=model))]
    names = [one.group for one in asked]
    plain = cw.CalibratedLM(ToyAdapter(model), readout=find_readout("label"))
    lm = plain.fit(asked, "group-temperature")
    assert lm.calibrator == plain.fit(asked, "group-temperature", groups=names).calibrator
    assert lm.choose_batch(asked) == lm.choose_batch(asked, groups=names)
    turned = lm.choose_batch(asked, groups=names[::-1])  # what the call says counts
    assert [one.confidence for one in turned] == pytest.approx(
        lm.calibrator(lm.scores(asked), groups=names[::-1]).confidence
    )
    assert [one.method for one in plain.fit(asked, "auto").calibrator.report.candidates][-1] == "group-temperature"
    assert plain.fit(asked, "temperature").choose_batch(asked[:1])[0].calibrated_by == "temperature"


def test_groups_that_do_not_fit_are_refused_before_any_model_call():
    adapter, asked = ToyAdapter(), [Question("Is it?", ["yes", "no"])]
    lm = cw.wrap(adapter).with_calibrator(cw.GroupTemperature(1.0, ("law",), (2.0,)))
    with pytest.raises(InputError, match="'groups' must be 1 texts"):
        lm.choose_batch(asked, groups=["law", "art"])
    with pytest.raises(InputError, match="go with a calibrator of groups"):
        cw.wrap(adapter).choose_batch(asked, groups=["law"])
    assert not any(adapter.calls.values())


@pytest.mark.filterwarnings("ignore:The labels together carry")
def test_where_nothing_tells_groups_it_is_refused_before_any_model_call(tmp_path):
    adapter = ToyAdapter()
    asked = [Question(f"What is {n}?", ["one", "two"], answer=n % 2) for n in range(40)]
    told = r"'group-temperature' needs the name of each question's group.*groups=\[\.\.\.\]"
    lacking = "40 of 40 questions have none"
    with pytest.raises(InputError, match=told):
        cw.wrap(adapter).fit(asked, "group-temperature")
    with pytest.raises(InputError, match=lacking):
        evaluate(cw.wrap(adapter), asked, fit=["group-temperature"])
    with pytest.raises(InputError, match=told):
        evaluate_decoder(cw.wrap(adapter), asked, cw.ConfidenceAtK(4), fit=["group-temperature"])
    with pytest.raises(InputError, match="'groups' must be 2 texts"):
        over_halves(OptionScores(np.zeros((4, 2)), "label"), [0, 1, 0, 1], ["group-temperature"])
    data, out = tmp_path / "asked.jsonl", tmp_path / "out.json"
    data.write_text('{"id": "1", "prompt": "One?", "options": ["a", "b"], "answer": 0}\n')
    run = CliRunner().invoke(
        app, ["fit", "hf:no-such-model", "--data", str(data), "--method", "group-temperature", "--out", str(out)]
    )
    assert isinstance(run.exception, InputError)
    assert "1 of 1 questions have none" in str(run.exception)
    assert not any(adapter.calls.values())
