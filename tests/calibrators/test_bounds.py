"""Bounds under truncation: whatever the true distribution is, its calibrated probabilities lie inside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from calibwrap.calibrators import Identity, Temperature, VectorScaling, chain, fit_daca, fit_temperature
from calibwrap.calibrators._truncated import _piled, ends, hidden_in
from calibwrap.errors import CapabilityError
from calibwrap.scores import OptionScores, join


def truncated(full, options, top):
    """Scores of `options`, lists of tokens, out of a list of the `top` most probable, as a backend would give them."""
    order = np.argsort(-full)
    listed = set(order[:top].tolist())
    cut, rest = full[order[top - 1]], full[order[top:]].sum()  # summed, since 1 - sum would round a small rest
    shown = [[sum(full[token] for token in option if token in listed) for option in options]]
    unlisted = [[sum(token not in listed for token in option) for option in options]]
    return OptionScores.from_lists(shown, unlisted, [rest], [min(cut, rest)], "label")


def mass(full, options):
    return np.array([full[option].sum() for option in options])


def inside(calibrated, truth):
    assert (calibrated.lower[0] <= truth * (1 + 1e-9) + 1e-13).all(), (calibrated.lower, truth)
    assert (calibrated.upper[0] >= truth * (1 - 1e-9) - 1e-13).all(), (calibrated.upper, truth)
    assert (calibrated.lower >= 0.0).all()
    assert (calibrated.upper <= 1.0).all()


distributions = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(24, 60),
    st.integers(1, 12),
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.floats(0.1, 6.0),
)


def drawn(case):
    """A full distribution over V tokens, some of them forms of options, and its top list; peaked, flat or with ties."""
    seed, vocabulary, top, forms, spread = case
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=vocabulary)
    if seed % 3 == 0:
        logits = np.round(logits)
    if seed % 4 == 0:
        forms = [1] * len(forms)
    full = softmax(logits)
    tokens = rng.permutation(vocabulary)
    if seed % 2:  # options among the most probable tokens, as in practice, some shown and some not
        tokens = rng.permutation(np.argsort(-full)[: max(sum(forms), top + 3)])
    options = np.split(tokens[: sum(forms)], np.cumsum(forms)[:-1])
    return full, options, truncated(full, options, top)


@settings(max_examples=400, deadline=None)
@given(distributions, st.floats(0.3, 5.0))
def test_the_truth_lies_inside_at_every_temperature(case, temperature):
    full, options, scores = drawn(case)
    inside(Temperature(temperature)(scores), softmax(np.log(mass(full, options)) / temperature))


@settings(max_examples=200, deadline=None)
@given(distributions, st.floats(0.3, 5.0), st.floats(0.3, 5.0), st.floats(0.3, 5.0))
def test_the_truth_lies_inside_after_a_chain(case, first, second, third):
    full, options, scores = drawn(case)
    together = chain(Temperature(first), Identity(), Temperature(second), Temperature(third))
    inside(together(scores), softmax(np.log(mass(full, options)) / (first * second * third)))


@settings(max_examples=100, deadline=None)
@given(distributions, st.floats(0.3, 5.0))
def test_the_point_value_lies_inside_and_the_choice_stays(case, temperature):
    scores = drawn(case)[2]
    calibrated = Temperature(temperature)(scores)
    inside(calibrated, calibrated.probabilities[0])
    assert (calibrated.choice == scores.choice).all()
    assert (calibrated.argmax_certified == scores.argmax_certified).all()


@settings(max_examples=100, deadline=None)
@given(distributions)
def test_temperature_one_keeps_the_bounds(case):
    scores = drawn(case)[2]
    calibrated = Temperature(1.0)(scores)
    if scores.missing.all():
        return
    assert calibrated.lower == pytest.approx(scores.lower, rel=1e-9, abs=1e-12)
    assert calibrated.upper == pytest.approx(scores.upper, rel=1e-9, abs=1e-12)


def worst_of_others(shown, room, budget, power):
    """The largest sum of (shown + x) ** power, by bisection on the common level that the lowest are raised to."""
    low, high = 0.0, shown.max() + room.max() + budget
    for _ in range(200):
        level = (low + high) / 2
        if np.clip(level - shown, 0, room).sum() < budget:
            low = level
        else:
            high = level
    return ((shown + np.clip(low - shown, 0, room)) ** power).sum()


@settings(max_examples=200, deadline=None)
@given(distributions, st.floats(1.0, 5.0))
def test_both_bounds_are_attained_at_temperatures_above_one(case, temperature):
    full, options, scores = drawn(case)
    calibrated = Temperature(temperature)(scores)
    order = np.argsort(-full)
    top = case[2]
    listed = set(order[:top].tolist())
    rest = full[order[top:]].sum()
    shown = np.array([sum(full[token] for token in option if token in listed) for option in options])
    if not shown.any():
        return
    cut = min(full[order[top - 1]], rest)
    room = np.minimum(rest, [sum(token not in listed for token in option) * cut for option in options])
    power = 1.0 / temperature
    for i in range(len(options)):
        others = np.arange(len(options)) != i
        most = (shown[i] + room[i]) ** power
        assert calibrated.upper[0, i] == pytest.approx(most / (most + (shown[others] ** power).sum()), rel=1e-6)
        if shown[i] > 0:
            worst = worst_of_others(shown[others], room[others], min(rest, room[others].sum()), power)
            least = shown[i] ** power / (shown[i] ** power + worst)
            assert calibrated.lower[0, i] == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("power", [1.5, 3.0, 10.0])
def test_the_convex_bound_is_close_to_the_best_corner(power):
    """Every corner of the hidden part, one option partly full: the bound is above the best, and seldom far above."""
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(300):
        shown = rng.uniform(0, 1, 4) * rng.integers(0, 2, 4)
        room = rng.integers(0, 5, 4) * rng.uniform(0.02, 0.2)
        budget = rng.uniform(0, 1) * room.sum()
        best = 0.0
        for part in range(4):
            for full in range(16):
                x = np.array([room[j] if full >> j & 1 and j != part else 0.0 for j in range(4)])
                left = budget - x.sum()
                if left >= 0.0:
                    x[part] = min(room[part], left)
                    best = max(best, ((shown + x) ** power).sum())
        found = _piled(shown[None], room[None], np.array([budget]), power)[0]
        assert found >= best * (1 - 1e-12)
        ratios.append(found / best if best else 1.0)
    assert np.median(ratios) < 1.01


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
    scores = drawn((1, 24, 3, [1, 1, 1, 1], 1.0))[2]
    assert scores.missing.any()
    assert (Identity()(scores).upper == scores.upper).all()
    with pytest.raises(CapabilityError, match="cut off"):
        VectorScaling(np.ones(4), np.zeros(4))(scores)


def test_daca_says_how_the_temperature_moves_between_the_ends():
    rng = np.random.default_rng(0)
    pre = join([truncated(softmax(2 * rng.normal(size=12)), np.arange(4)[:, None], 9) for _ in range(60)])
    post = 2.0 * pre.logprobs + 0.3 * rng.normal(size=pre.logprobs.shape)
    report = fit_daca(post, pre).report
    note = next(note for note in report.notes if "lower end" in note)
    low, high = (float(word.strip(".,")) for word in note.split() if word[0].isdigit())
    fitted = fit_daca(post, pre).value
    assert low < fitted < high  # more mass on the missing options asks for a flatter distribution


def test_what_is_hidden_comes_back_out_of_the_bounds():
    """s = .4, .2, 0 and h = .1, 0, .15, at most .15 together: in units of .4."""
    scores = OptionScores.from_lists([[0.4, 0.2, 0.0]], [[1, 0, 2]], [0.15], [0.1], "label")
    hidden = hidden_in(scores)
    np.testing.assert_allclose(hidden.shown, [[1.0, 0.5, 0.0]], rtol=1e-12)
    np.testing.assert_allclose(hidden.own, [[0.25, 0.0, 0.375]], atol=1e-12)
    np.testing.assert_allclose(hidden.others[0, :2], [0.375, 0.375], rtol=1e-12)
    low, high = ends(scores)
    np.testing.assert_allclose(np.exp(low), hidden.shown, rtol=1e-12)
    share = 0.15 / 0.25  # of the most that each may hide, when all do at once
    np.testing.assert_allclose(np.exp(high), [[1.0 + 0.25 * share, 0.5, 0.375 * share]], rtol=1e-12)


def test_ends_keep_the_point_values_of_a_row_that_shows_nothing():
    scores = OptionScores.from_lists([[0.0, 0.0]], [[1, 1]], [0.5], [0.1], "label")
    for end in ends(scores):
        np.testing.assert_array_equal(end, scores.logprobs)


def test_a_fit_uses_the_rows_whose_first_choice_is_certain():
    """One option with a hidden form leaves the choice of the second row open; the first is fitted."""
    scores = OptionScores.from_lists(
        [[0.5, 0.2], [0.25, 0.2], [0.3, 0.4]], [[1, 1], [0, 1], [0, 0]], [0.2, 0.2, 0.0], [0.06, 0.06, 0.0], "label"
    )
    assert scores.argmax_certified.tolist() == [True, False, True]
    report = fit_temperature(scores, [0, 0, 0]).report
    assert (report.rows, report.rows_used) == (3, 2)
    assert [note.split()[0] for note in report.notes[:2]] == ["1", "1"]  # one cut and used, one left out
