"""Conformal sets: by hand, against a slow reference, by law, and their coverage over 1 000 resamplings."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import calibwrap as cw
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.guarantees import ConformalSets, conformal_quantile, fit_sets, nonconformity

METHODS = ("lac", "aps", "raps")
THREE = cw.OptionScores(np.log([[0.5, 0.3, 0.2]]), "label")


def slow_score(row: list[float], option: int, method: str, penalty: float = 0.01, free: int = 2) -> float:
    """The papers' formulas for one option, in plain Python."""
    if method == "lac":
        return 1.0 - row[option]
    ahead = [p for j, p in enumerate(row) if j == option or (p > 0.0 and p >= row[option])]
    extra = penalty * max(0, len(ahead) - free) if method == "raps" else 0.0
    return min(1.0, sum(ahead)) + extra


def draw(random: np.random.Generator, n: int, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model that is over-confident by a factor of 2, and right options drawn from the truth."""
    truth = cw.scores.log_softmax(random.normal(size=(n, k)) * 1.5)
    answers = (np.cumsum(np.exp(truth), axis=1) > random.random((n, 1))).argmax(axis=1)
    return truth * 2.0, answers


def test_three_options_by_hand() -> None:
    expected = {"lac": [0.5, 0.7, 0.8], "aps": [0.5, 0.8, 1.0], "raps": [0.5, 0.9, 1.2]}
    for method, values in expected.items():
        least, most = nonconformity(THREE, method, penalty=0.1, free_ranks=1)
        assert least[0] == pytest.approx(values, abs=1e-12)
        assert (least == most).all()


def test_equal_options_are_treated_alike_whatever_their_order() -> None:
    scores = cw.OptionScores(np.log([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]]), "label")
    assert nonconformity(scores, "aps")[0] == pytest.approx(np.array([[0.8, 0.8, 1.0], [1.0, 0.8, 0.8]]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), min_size=1, max_size=4),
    st.sampled_from(METHODS),
    st.sampled_from([0.0, 0.05]),
    st.integers(0, 3),
)
def test_scores_are_those_of_the_papers(weights, method, penalty, free) -> None:
    with np.errstate(divide="ignore"):
        scores = cw.OptionScores.from_rows([np.log(row).tolist() for row in weights], "label")
    scores = cw.OptionScores(scores.logprobs, "label", mask=scores.mask)
    least, most = nonconformity(scores, method, penalty=penalty, free_ranks=free)
    assert (least == most).all()
    for row, chances, found in zip(weights, scores.probabilities, least, strict=True):
        exists = np.isfinite(found)
        real = chances[: len(row)].tolist()
        for option in np.flatnonzero(exists):
            assert found[option] == pytest.approx(slow_score(real, int(option), method, penalty, free), abs=1e-9)
        assert not exists[len(row) :].any()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.fractions(Fraction(1, 100), Fraction(99, 100)))
def test_the_quantile_is_the_smallest_value_with_enough_at_or_below(values, coverage) -> None:
    found = conformal_quantile(values, float(coverage))
    needed = math.ceil((len(values) + 1) * Fraction(str(round(float(coverage), 12))))
    expected = sorted(values)[needed - 1] if needed <= len(values) else math.inf
    assert found == expected


def test_ten_times_nine_tenths_is_nine() -> None:
    assert conformal_quantile(range(9), 0.9) == 8  # 10 * 0.9: the ninth of nine, and not the tenth
    assert conformal_quantile(range(99), 0.07) == 6  # 100 * 0.07 is 7.000000000000001 in floating point
    assert conformal_quantile(range(8), 0.9) == math.inf


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "coverage"), [(50, 0.9), (200, 0.8)])
def test_coverage_over_1000_resamplings_is_inside_the_band(method: str, n: int, coverage: float) -> None:
    """One new question for each of 1 000 fits: covered or not are 1 000 coins of at least `coverage`."""
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(1000):
        logits, answers = draw(random, n + 1)
        sets = fit_sets(logits[:n], answers[:n], coverage=coverage, method=method)
        covered += bool(sets(cw.OptionScores(logits[n:], ""))[0, answers[n]])
    low, high = binom.ppf([0.001, 0.999], 1000, [coverage, coverage + 1 / (n + 1)])
    assert covered >= low
    assert covered <= high + (0 if method == "lac" else 60)  # always keeping the first choice adds coverage


def test_too_few_rows_give_all_options_and_say_so(tmp_path) -> None:
    with pytest.warns(CalibrationWarning, match="at least 9 rows"):
        sets = fit_sets(np.log([[0.8, 0.2]] * 8), [0] * 8, coverage=0.9)
    assert sets.threshold is None
    assert sets(cw.OptionScores.from_rows([[0.0, -9.0], [0.0]], "")).tolist() == [[True, True], [True, False]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_sets(np.log([[0.8, 0.2]] * 9), [0] * 9, coverage=0.9).threshold is not None


@pytest.mark.parametrize("method", METHODS)
def test_sets_are_never_empty_nest_and_leave_out_what_does_not_exist(method: str) -> None:
    random = np.random.default_rng(1)
    scores = cw.OptionScores.from_rows([random.normal(size=random.integers(1, 7)).tolist() for _ in range(300)], "")
    last = np.zeros_like(scores.mask)
    for threshold in (-1.0, 0.0, 0.3, 0.6, 0.9, 1.5):
        inside = ConformalSets(method, 0.9, threshold, 10)(scores)
        assert inside.any(axis=1).all()
        assert inside[np.arange(300), scores.choice].all()
        assert not (inside & ~scores.mask).any()
        assert (inside >= last).all()
        last = inside


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("top", [4, 9])
def test_a_cut_list_gives_a_set_that_holds_the_exact_one(method: str, top: int) -> None:
    """Full distributions over 12 tokens, 5 of them options; the backend shows the first `top` only."""
    random = np.random.default_rng(2)
    full = np.exp(cw.scores.log_softmax(random.normal(size=(400, 12)) * 2))
    cut = np.sort(full, axis=1)[:, -top]
    shown = np.where(full >= cut[:, None], full, 0.0)
    listed = cw.OptionScores.from_lists(
        shown[:, :5], shown[:, :5] == 0.0, np.maximum(1 - shown.sum(axis=1), 0), cut, "label"
    )
    exact = cw.OptionScores(np.log(full[:, :5]), "label")
    least, most = nonconformity(listed, method)
    truth, _ = nonconformity(exact, method)
    assert ((least <= truth + 1e-12) & (truth <= most + 1e-12)).all()
    answers = (np.cumsum(exact.probabilities, axis=1) > random.random((400, 1))).argmax(axis=1)
    fitted, cautious = fit_sets(exact, answers, method=method), fit_sets(listed, answers, method=method)
    assert cautious.threshold is None or cautious.threshold >= fitted.threshold - 1e-12
    wanted = fitted(exact)
    assert fitted(listed)[wanted].all()
    assert cautious(listed)[wanted].all()
    assert not fitted(listed).all()  # sets of every option would hold any other
    assert top == 4 or not cautious(listed).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coverage": 1.0}, "strictly between"),
        ({"coverage": float("nan")}, "strictly between"),
        ({"method": "top-k"}, "must be one of"),
        ({"penalty": -1.0}, "'penalty'"),
        ({"free_ranks": 1.5}, "'free_ranks'"),
    ],
)
def test_settings_out_of_range_are_refused(change, words) -> None:
    with pytest.raises(InputError, match=words):
        fit_sets(np.log([[0.8, 0.2]] * 20), [0] * 20, **change)


@pytest.mark.parametrize("answers", [[0, 1, 2], [0, -1], [0.0, 1.0], [0], [True, False], [1, 1]])
def test_answers_that_name_no_option_are_refused(answers) -> None:
    with pytest.raises(InputError, match="'answers'"):
        fit_sets(cw.OptionScores.from_rows([[0.0, 0.0], [0.0]], ""), answers)


def test_values_that_are_no_numbers_are_refused() -> None:
    for values in ([], [float("nan")], [[0.5]]):
        with pytest.raises(InputError, match="'values'"):
            conformal_quantile(values, 0.9)


def test_the_row_of_a_wrong_answer_and_numpys_whole_numbers() -> None:
    with pytest.raises(InputError, match=r"from 0 to 1\. Got 2 in row 1"):
        fit_sets(np.log([[0.8, 0.2]] * 3), [0, 2, 0])
    sets = ConformalSets("lac", 0.8, 0.5, np.int64(9))  # type: ignore[arg-type]
    assert type(sets.rows) is int
    with pytest.raises(InputError, match="'rows' must be a whole number of at least 1"):
        ConformalSets("lac", 0.8, 0.5, 0)


def test_arrays_go_in_where_scores_do():
    rows = np.log([[0.6, 0.3, 0.1], [0.9, 0.06, 0.04]])
    sets = ConformalSets("lac", coverage=0.8, threshold=0.75, rows=9)
    assert sets(rows).tolist() == sets(cw.OptionScores(rows, readout="x")).tolist()


def test_the_smallest_coverage_takes_the_smallest_score():
    assert conformal_quantile([0.4, 0.1, 0.3], 1e-13) == 0.1
