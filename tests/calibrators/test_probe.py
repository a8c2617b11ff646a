"""The probe on arrays: what is planted is found, what is reported is honest, and what does not fit is named."""

import numpy as np
import pytest
from scipy.optimize import minimize

import calibwrap as cw
from calibwrap.calibrators import calibrator_class
from calibwrap.calibrators.probe import Probe, _head, fit_probe
from calibwrap.errors import CalibrationWarning, CapabilityError, FitError, InputError
from calibwrap.saving import load, save
from calibwrap.scores import log_softmax

QUICK = {"strengths": (1e-2, 1e-1), "n_folds": 3}


def planted(n=150, k=4, d=12, seed=0, size=1.0):
    """States of which the first two numbers hold the logit of being right; answers drawn from softmax."""
    random = np.random.default_rng(seed)
    states = random.normal(size=(n, k, d))
    logits = size * (2.0 * states[:, :, 0] - states[:, :, 1])
    return states, (logits + random.gumbel(size=(n, k))).argmax(axis=1), logits


def test_a_planted_direction_and_its_scale_are_found():
    states, answers, _ = planted(1500)
    probe = fit_probe({3: states}, answers, **QUICK)
    np.testing.assert_allclose(probe.weights[:2], [2.0, -1.0], atol=0.35)
    assert np.abs(probe.weights[2:]).max() < 0.2


def test_the_layer_that_knows_is_chosen():
    states, answers, _ = planted()
    noise = np.random.default_rng(9).normal(size=states.shape)
    probe = fit_probe({3: noise, 7: states, 9: 0.1 * states + noise}, answers, **QUICK)
    assert probe.layer == 7
    table = probe.report.candidates
    assert len(table) == 6
    assert min(table, key=lambda one: one.log_loss).chosen
    assert sum(one.chosen for one in table) == 1


def test_the_reported_log_loss_is_that_of_new_questions():
    """Means of four fits, on 4 000 fresh questions; on the questions of the fit it is smaller, and another figure."""
    said, new, seen = [], [], []
    fresh, right, _ = planted(4000, d=60, seed=99)
    for seed in range(4):
        states, answers, _ = planted(200, d=60, seed=seed)
        probe = fit_probe({1: states}, answers, strengths=(1e-2, 1e-1), seed=seed)
        said.append(float(probe.report.notes[0].split("log loss ")[1].split()[0]))
        new.append(-log_softmax(probe.of_states(fresh))[np.arange(4000), right].mean())
        seen.append(probe.report.objective_after)
        assert probe.report.objective_before == pytest.approx(np.log(4))
    assert np.mean(said) == pytest.approx(np.mean(new), abs=0.06)
    assert np.mean(seen) < np.mean(new) - 0.03


def test_states_that_know_nothing_give_no_confidence():
    states, _, _ = planted(120)
    answers = np.random.default_rng(1).integers(0, 4, 120)
    probe = fit_probe({1: states}, answers, **QUICK)
    fresh, _, _ = planted(500, seed=3)
    assert np.exp(log_softmax(probe.of_states(fresh)).max(axis=1)).mean() < 0.4


def test_the_head_is_the_penalised_optimum():
    """Against a plain minimisation of the pairs' logistic loss plus half the squared weights over C."""
    states, right, _ = planted(60, k=3, d=4)
    pairs = np.array([states[n, right[n]] - states[n, j] for n in range(60) for j in range(3) if j != right[n]])
    scale = np.sqrt((pairs**2).mean(axis=0))

    def objective(weights):
        return 0.5 * weights @ weights + 0.1 * np.logaddexp(0.0, -(pairs / scale) @ weights).sum()

    wanted = minimize(objective, np.zeros(4), tol=1e-10).x / scale
    np.testing.assert_allclose(_head(states, np.ones((60, 3), dtype=bool), right, 0.1), wanted, atol=1e-3)


def test_options_may_be_missing_and_come_in_any_order():
    states, answers, _ = planted(90, k=3)
    mask = np.ones((90, 3), dtype=bool)
    gone = np.flatnonzero(answers != 2)[::2]
    mask[gone, 2] = False
    states[gone, 2] = np.nan
    probe = fit_probe({1: states}, answers, mask, **QUICK)
    turned = fit_probe({1: states[:, ::-1]}, 2 - answers, mask[:, ::-1], **QUICK)
    np.testing.assert_allclose(turned.weights, probe.weights, atol=1e-3)


def test_saved_and_loaded_bit_for_bit(tmp_path):
    states, answers, _ = planted()
    probe = fit_probe({4: states}, answers, template="cloze", **QUICK)
    save(probe, tmp_path / "probe")
    again = load(tmp_path / "probe")
    assert again == probe
    assert again.report == probe.report
    assert again.readout == probe.readout
    assert again.weights.tobytes() == probe.weights.tobytes()
    assert calibrator_class("probe") is Probe


def test_its_name_tells_its_numbers():
    first = Probe([1.0, 2.0], 3, "cloze")
    assert first.readout.startswith("probe:3:cloze:")
    assert first.readout != Probe([1.0, 2.5], 3, "cloze").readout
    assert first == Probe([1, 2], 3, "cloze")
    assert hash(first) == hash(Probe([1, 2], 3, "cloze"))
    assert first != Probe([1.0, 2.0], 4, "cloze")
    assert first != "probe"


def test_scores_of_others_are_refused_and_its_own_left_alone():
    probe = Probe([1.0, 2.0], 3)
    own = cw.OptionScores(np.log([[0.8, 0.2]]), readout=probe.readout)
    assert probe(own) is own
    for scores in (cw.OptionScores(np.log([[0.8, 0.2]]), readout="label"), [[0.0, 1.0]]):
        with pytest.raises(CapabilityError, match="reads hidden states"):
            probe(scores)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s, a: ({}, a), "must map layers"),
        (lambda s, a: ({1: s, 2: s[:, :2]}, a), "must map layers"),
        (lambda s, a: ({1: s[0]}, a), "must map layers"),
        (lambda s, a: ({1: np.where(s > 2, np.nan, s)}, a), "finite"),
        (lambda s, a: ({1: s}, a + 4), "'answers'"),
        (lambda s, a: ({1: s}, a, np.ones((2, 2), dtype=bool)), "'mask'"),
        (lambda s, a: ({1: s}, a, np.arange(4) != a[:, None]), "options that exist"),
    ],
)
def test_inputs_that_do_not_fit_are_named(change, said):
    states, answers, _ = planted(40)
    with pytest.raises(InputError, match=said):
        fit_probe(*change(states, answers), **QUICK)


def test_too_few_questions_are_named():
    states, answers, _ = planted(19)
    with pytest.raises(FitError, match="at least 20 questions"):
        fit_probe({1: states}, answers)


@pytest.mark.parametrize(("weights", "layer"), [([], 1), ([np.nan], 1), ([[1.0]], 1), ([1.0], -1), ([1.0], True)])
def test_broken_numbers_are_named(weights, layer):
    with pytest.raises(InputError):
        Probe(weights, layer)


def test_widths_are_compared():
    with pytest.raises(InputError, match=r"\(N, K, 2\)"):
        Probe([1.0, 2.0], 1).of_states(np.zeros((1, 3, 4)))


def test_a_probe_that_knows_no_more_than_a_guess_is_told_of():
    states = np.zeros((30, 3, 2))
    with pytest.warns(CalibrationWarning, match=r"Guessing has 1\.0986 nats"):
        probe = fit_probe({1: states}, np.arange(30) % 3, **QUICK)
    assert probe.weights.tolist() == [0.0, 0.0]


def test_states_without_their_layer_are_named():
    with pytest.raises(InputError, match=r"'states' must be a mapping from layer .+ Got ndarray"):
        fit_probe(np.zeros((30, 3, 2)), np.arange(30) % 3, **QUICK)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"n_folds": 1}, "'n_folds' must be a whole number of at least 2"),
        ({"n_folds": 2.5}, "'n_folds'"),
        ({"seed": -1}, "'seed'"),
        ({"strengths": ()}, "'strengths' must be at least one"),
        ({"strengths": (0.1, 0.0)}, "'strengths' must be at least one number, each above 0"),
        ({"strengths": (np.inf,)}, "'strengths' must be a finite number"),
    ],
)
def test_settings_that_make_no_sense_are_named(setting, said):
    states, answers, _ = planted(40)
    with pytest.raises(InputError, match=said):
        fit_probe({1: states}, answers, **(QUICK | setting))


def test_as_many_questions_as_folds_are_asked_for():
    states, answers, _ = planted(24)
    with pytest.raises(FitError, match=r"at least 30 questions.+ Got 24 among 24"):
        fit_probe({1: states}, answers, n_folds=30)


def test_questions_with_one_option_teach_nothing():
    states, answers, _ = planted(60, k=3, size=3.0)
    alone = np.arange(60) % 3 == 0
    mask = ~alone[:, None] | (np.arange(3) == answers[:, None])
    probe = fit_probe({1: states}, answers, mask, **QUICK)
    assert probe == fit_probe({1: states[~alone]}, answers[~alone], **QUICK)
    assert (probe.report.rows, probe.report.rows_used) == (60, 40)
    assert "20 rows were left out" in probe.report.notes[-1]
    with pytest.raises(FitError, match=r"two options or more\. Got 0 among 60"):
        fit_probe({1: states}, answers, np.arange(3) == answers[:, None], **QUICK)
