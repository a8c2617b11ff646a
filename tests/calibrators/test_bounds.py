"""Bounds under truncation: whatever the true distribution is, its calibrated probabilities lie inside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from calibwrap.calibrators import Identity, Temperature, VectorScaling, chain, fit_daca
from calibwrap.errors import CapabilityError
from calibwrap.scores import OptionScores


def truncated(full, options, top):
    """Scores of `options` out of a list of the `top` most probable tokens, as a backend would give them."""
    order = np.argsort(-full)
    listed = set(order[:top].tolist())
    cut, rest = full[order[top - 1]], full[order[top:]].sum()  # summed, since 1 - sum would round a small rest
    missing = np.array([option not in listed for option in options])
    most = min(cut, rest)
    together = min(rest, missing.sum() * cut)
    mass = full[options][~missing].sum()
    if mass == 0.0:
        return OptionScores(
            np.zeros((1, len(options))), "label", missing=[missing], lower=[missing * 0.0], upper=[missing * 1.0]
        )
    lower = np.where(missing, 0.0, full[options] / (mass + together))
    upper = np.where(missing, most / (mass + most), full[options] / mass)
    with np.errstate(divide="ignore"):
        point = np.log(np.where(missing, most / 2, full[options]))
    return OptionScores([point], "label", mask=[[True] * len(options)], missing=[missing], lower=[lower], upper=[upper])


def inside(calibrated, truth):
    assert (calibrated.lower[0] <= truth * (1 + 1e-9) + 1e-13).all(), (calibrated.lower, truth)
    assert (calibrated.upper[0] >= truth * (1 - 1e-9) - 1e-13).all(), (calibrated.upper, truth)
    assert (calibrated.lower >= 0.0).all()
    assert (calibrated.upper <= 1.0).all()


distributions = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(5, 60), st.integers(1, 12), st.integers(2, 5), st.floats(0.1, 6.0)
)


def drawn(case):
    """A full distribution over V tokens, K of them options, and its top list; peaked, flat or with exact ties."""
    seed, vocabulary, top, k, spread = case
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=vocabulary)
    if seed % 3 == 0:
        logits = np.round(logits)
    full = softmax(logits)
    options = rng.permutation(vocabulary)[:k]
    if seed % 2:  # options among the most probable tokens, as in practice, some shown and some not
        options = rng.permutation(np.argsort(-full)[: max(k, min(vocabulary, top + 3))])[:k]
    return full, options, truncated(full, options, min(top, vocabulary))


@settings(max_examples=400, deadline=None)
@given(distributions, st.floats(0.3, 5.0))
def test_the_truth_lies_inside_at_every_temperature(case, temperature):
    full, options, scores = drawn(case)
    inside(Temperature(temperature)(scores), softmax(np.log(full[options]) / temperature))


@settings(max_examples=200, deadline=None)
@given(distributions, st.floats(0.3, 5.0), st.floats(0.3, 5.0))
def test_the_truth_lies_inside_after_a_chain(case, first, second):
    full, options, scores = drawn(case)
    both = chain(Temperature(first), Identity(), Temperature(second))
    inside(both(scores), softmax(np.log(full[options]) / (first * second)))


@settings(max_examples=100, deadline=None)
@given(distributions)
def test_temperature_one_keeps_the_bounds(case):
    scores = drawn(case)[2]
    calibrated = Temperature(1.0)(scores)
    if scores.missing.all():
        return
    assert calibrated.lower == pytest.approx(scores.lower, rel=1e-9, abs=1e-12)
    assert calibrated.upper == pytest.approx(scores.upper, rel=1e-9, abs=1e-12)


def test_by_hand():
    # p = 0.6 shown, u = U = 0.2 missing; at T = 1/2 the weights are 0.36 and at most 0.04
    scores = OptionScores(
        np.log([[0.6, 0.1]]), "label", missing=[[False, True]], lower=[[0.75, 0.0]], upper=[[1.0, 0.25]]
    )
    calibrated = Temperature(0.5)(scores)
    assert calibrated.lower == pytest.approx(np.array([[0.9, 0.0]]))
    assert calibrated.upper == pytest.approx(np.array([[1.0, 0.1]]))


def test_the_bounds_are_attained():
    # two missing options share U = 0.2 with u = 0.15: evenly is worst at T = 2, (0.15, 0.05) is worst at T = 1/2
    shown, most, together = 0.6, 0.15, 0.2
    scores = OptionScores(
        np.log([[shown, most / 2, most / 2]]),
        "label",
        missing=[[False, True, True]],
        lower=[[shown / (shown + together), 0, 0]],
        upper=[[1.0, most / (shown + most), most / (shown + most)]],
    )
    for temperature, worst in ((2.0, [shown, 0.1, 0.1]), (0.5, [shown, 0.15, 0.05])):
        attained = softmax(np.log(worst) / temperature)[0]
        assert Temperature(temperature)(scores).lower[0, 0] == pytest.approx(attained, rel=1e-12)


def test_a_row_that_shows_nothing_says_nothing():
    scores = OptionScores([[0.0, 0.0, -np.inf]], "label", missing=[[True, True, False]], lower=[[0, 0, 0]])
    calibrated = Temperature(2.0)(scores)
    assert calibrated.lower.tolist() == [[0.0, 0.0, 0.0]]
    assert calibrated.upper.tolist() == [[1.0, 1.0, 0.0]]
    assert not calibrated.argmax_certified[0]


def test_exact_rows_beside_truncated_ones_stay_exact():
    logprobs = np.log([[0.7, 0.3], [0.8, 0.2]])
    scores = OptionScores(
        logprobs,
        "label",
        missing=[[False, False], [False, True]],
        lower=[[0.7, 0.3], [0.7, 0]],
        upper=[[0.7, 0.3], [1, 0.3]],
    )
    calibrated = Temperature(3.0)(scores)
    assert calibrated.lower[0] == pytest.approx(calibrated.probabilities[0], rel=1e-14)
    assert calibrated.upper[0] == pytest.approx(calibrated.probabilities[0], rel=1e-14)
    assert calibrated.lower[1, 0] < calibrated.probabilities[1, 0] < calibrated.upper[1, 0]


def test_identity_keeps_bounds_and_vector_scaling_refuses():
    scores = drawn((1, 20, 3, 4, 1.0))[2]
    assert scores.missing.any()
    assert (Identity()(scores).upper == scores.upper).all()
    with pytest.raises(CapabilityError, match="cut off"):
        VectorScaling(np.ones(4), np.zeros(4))(scores)


def test_daca_says_how_the_temperature_moves_between_the_ends():
    rng = np.random.default_rng(0)
    parts = [truncated(softmax(2 * rng.normal(size=12)), np.arange(4), 9) for _ in range(60)]
    rows = {name: np.concatenate([getattr(part, name) for part in parts]) for name in
            ("logprobs", "mask", "missing", "lower", "upper", "argmax_certified")}  # fmt: skip
    pre = OptionScores(readout="label", **rows)
    post = 2.0 * pre.logprobs + 0.3 * rng.normal(size=pre.logprobs.shape)
    report = fit_daca(post, pre).report
    note = next(note for note in report.notes if "lower end" in note)
    low, high = (float(word.strip(".,")) for word in note.split() if word[0].isdigit())
    fitted = fit_daca(post, pre).value
    assert low < fitted < high  # more mass on the missing options asks for a flatter distribution
