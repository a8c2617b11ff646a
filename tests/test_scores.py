import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from calibwrap.errors import InputError
from calibwrap.scores import ROUNDING, OptionScores, TokenScores, checked_logits, join, log_softmax, logsumexp

finite = st.floats(-1e4, 1e4)
tables = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=finite)


@given(tables)
def test_logsumexp_agrees_with_scipy(values):
    np.testing.assert_allclose(logsumexp(values), special.logsumexp(values, axis=-1), rtol=1e-13, atol=1e-10)


@given(tables)
def test_log_softmax_agrees_with_scipy_and_sums_to_one(values):
    np.testing.assert_allclose(log_softmax(values), special.log_softmax(values, axis=-1), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(np.exp(log_softmax(values)).sum(axis=-1), 1.0, rtol=1e-9)


@given(tables, st.floats(-1e3, 1e3))
def test_a_constant_changes_nothing(values, constant):
    np.testing.assert_allclose(log_softmax(values + constant), log_softmax(values), atol=1e-8)


def test_logsumexp_by_hand():
    assert float(logsumexp([math.log(1), math.log(2), -np.inf])) == pytest.approx(math.log(3))
    assert float(logsumexp([-np.inf, -np.inf])) == -np.inf
    assert float(logsumexp([])) == -np.inf


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "shape"),
        (np.zeros((0, 2)), "shape"),
        (np.zeros((2, 0)), "shape"),
        ([[0.0, np.nan]], "row 0, column 1"),
        ([[0.0, np.inf]], "row 0, column 1"),
        ([[0.0, 1.0], [-np.inf, -np.inf]], "Row 1"),
        ([[0.0], [1.0, 2.0]], "rows with fewer options are filled with -inf"),
        ("text", "array of numbers"),
        (None, "scores"),
    ],
)
def test_what_is_no_table_of_logits_is_refused_by_name(values, message):
    with pytest.raises(InputError, match=message):
        checked_logits("scores", values)


def test_checked_logits_copies():
    values = np.zeros((1, 2))
    array, mask = checked_logits("scores", values)
    array[0, 0] = 5.0
    assert values[0, 0] == 0.0
    assert mask.all()


class TestTokenScores:
    def test_the_tail_is_what_is_not_listed(self):
        scores = TokenScores(np.log([[0.5, 0.25], [0.6, 0.4]]), ids=[[7, 9], [1, 2]])
        np.testing.assert_allclose(np.exp(scores.log_tail), [0.25, ROUNDING], atol=1e-12)

    def test_rounding_does_not_hide_the_rest(self):
        """A confident answer whose listed 32-bit values sum to more than 1: the rest is not nothing."""
        values = np.log([[1.0 - 1e-8, 6e-9]]).astype(np.float32).astype(np.float64)
        scores = TokenScores(values, ids=[[7, 9]], log_cut=values[:, -1])
        assert np.exp(scores.log_tail[0]) == pytest.approx(ROUNDING)
        assert scores.log_cut[0] == values[0, -1]

    def test_a_whole_row_has_no_tail(self):
        scores = TokenScores(np.log([[0.5, 0.5]]))
        assert scores.is_full
        assert scores.log_tail.tolist() == [-np.inf]

    @pytest.mark.parametrize("bad", [[[np.nan]], [[0.5]], [0.0], [[[0.0]]]])
    def test_values_that_are_no_log_probabilities_are_refused(self, bad):
        with pytest.raises(InputError, match="logprobs"):
            TokenScores(bad)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("ids", [[1]]), ("chosen", [1]), ("chosen_logprob", [0.0]), ("log_z", [1.0]), ("hidden", [1])],
    )
    def test_a_field_of_another_length_is_refused_by_name(self, name, value):
        with pytest.raises(InputError, match=f"'{name}' of TokenScores"):
            TokenScores(np.log(np.full((2, 2), 0.5)), **{name: value})

    def test_given_ids_are_looked_up_in_the_order_asked(self):
        scores = TokenScores(np.log([[0.5, 0.25]]), ids=[[7, 9]])
        np.testing.assert_allclose(np.exp(scores.logprob_of([9, 7])), [0.25, 0.5])

    def test_an_unlisted_token_is_not_made_up(self):
        with pytest.raises(InputError, match=r"\[8\].*2 listed"):
            TokenScores(np.log([[0.5, 0.25]]), ids=[[7, 9]]).logprob_of([7, 8])

    def test_a_whole_row_is_looked_up_by_id_and_position(self):
        scores = TokenScores(np.log([[0.5, 0.5], [0.1, 0.9]]))
        np.testing.assert_allclose(np.exp(scores.logprob_of([1, 0], position=1)), [0.9, 0.1])

    def test_arrays_are_copied_and_locked(self):
        own = np.log([[0.5, 0.5]])
        scores = TokenScores(own)
        own[0, 0] = -9.0
        assert scores.logprobs[0, 0] == np.log(0.5)
        with pytest.raises(ValueError, match="read-only"):
            scores.logprobs[0, 0] = 0.0

    def test_length_is_the_number_of_positions(self):
        assert len(TokenScores(np.zeros((3, 1)))) == 3


class TestOptionScores:
    @given(tables)
    def test_rows_are_normalised_and_bounds_are_the_probability(self, values):
        scores = OptionScores(values, readout="label")
        np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1.0, rtol=1e-9)
        assert (scores.lower == scores.probabilities).all()
        assert (scores.upper == scores.probabilities).all()
        assert scores.is_exact
        assert scores.argmax_certified.all()

    def test_choice_and_confidence_by_hand(self):
        scores = OptionScores(np.log([[2.0, 6.0], [3.0, 1.0]]), readout="label")
        assert scores.choice.tolist() == [1, 0]
        np.testing.assert_allclose(scores.confidence, [0.75, 0.75])

    def test_the_first_of_equals_is_chosen(self):
        assert OptionScores([[0.0, 0.0]], readout="label").choice.tolist() == [0]

    def test_masked_options_get_nothing(self):
        scores = OptionScores([[0.0, 0.0, 0.0]], readout="label", mask=[[True, False, True]])
        assert scores.probabilities.tolist() == [[0.5, 0.0, 0.5]]

    def test_a_row_without_options_is_refused(self):
        with pytest.raises(InputError, match="mask"):
            OptionScores([[0.0, 0.0]], readout="label", mask=[[False, False]])

    def test_missing_options_are_counted(self):
        scores = OptionScores(np.log([[0.7, 0.2, 0.1]]), readout="label", missing=[[False, True, True]])
        assert scores.n_missing.tolist() == [2]
        assert not scores.is_exact

    def test_rows_are_taken_with_all_their_fields(self):
        scores = OptionScores(
            np.log([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]]),
            readout="label",
            label_mass=[0.1, 0.2, 0.3],
            missing=[[False, True], [False, False], [False, False]],
            lower=[[0.6, 0.0], [0.2, 0.8], [0.5, 0.5]],
        )
        taken = scores.take([2, 0])
        assert taken.label_mass.tolist() == [0.3, 0.1]
        assert taken.n_missing.tolist() == [0, 1]
        assert taken.lower.tolist() == [[0.5, 0.5], [0.6, 0.0]]
        assert taken.readout == "label"
        assert len(scores.take(np.array([True, False, True]))) == 2

    def test_ragged_rows(self):
        scores = OptionScores.from_rows([[0.0, 0.0], [-3.0]], "label", [0.9, 0.4])
        assert scores.mask.tolist() == [[True, True], [True, False]]
        assert scores.probabilities.tolist() == [[0.5, 0.5], [1.0, 0.0]]
        assert scores.label_mass.tolist() == [0.9, 0.4]

    def test_joined_parts_keep_every_field(self):
        one = OptionScores(np.log([[0.8, 0.2]]), readout="label", label_mass=[0.5], missing=[[False, True]])
        other = OptionScores(np.log([[0.2, 0.3, 0.5]]), readout="label")
        both = join([one, other])
        assert both.mask.tolist() == [[True, True, False], [True, True, True]]
        np.testing.assert_allclose(both.probabilities, [[0.8, 0.2, 0.0], [0.2, 0.3, 0.5]])
        assert both.n_missing.tolist() == [1, 0]
        assert both.label_mass[0] == 0.5
        assert np.isnan(both.label_mass[1])

    def test_different_readouts_are_not_joined(self):
        parts = [OptionScores([[0.0]], readout=name) for name in ("label", "continuation")]
        with pytest.raises(InputError, match=r"continuation.*label"):
            join(parts)
        with pytest.raises(InputError, match="parts"):
            join([])

    @given(tables, st.randoms(use_true_random=False))
    def test_joining_taken_halves_gives_the_whole(self, values, random):
        scores = OptionScores(values, readout="label")
        rows = np.arange(len(scores))
        cut = random.randint(1, len(scores))
        both = join([scores.take(half) for half in (rows[:cut], rows[cut:]) if len(half)])
        np.testing.assert_allclose(both.logprobs, scores.logprobs, atol=1e-9)


class TestListsOfTheMostProbable:
    """OptionScores.from_lists against full distributions, cut."""

    @staticmethod
    def cut(seed, top, forms):
        """A full distribution, disjoint sets of its tokens as options, and their scores out of its top list."""
        rng = np.random.default_rng(seed)
        logits = rng.uniform(0.3, 5.0) * rng.normal(size=40)
        full = np.exp(logits) / np.exp(logits).sum()
        pool = np.argsort(-full)[: max(sum(forms), min(40, top + 6))]
        tokens = np.split(rng.permutation(pool)[: sum(forms)], np.cumsum(forms)[:-1])
        listed = set(np.argsort(-full)[:top].tolist())
        shown = [[sum(full[t] for t in option if t in listed) for option in tokens]]
        unlisted = [[sum(t not in listed for t in option) for option in tokens]]
        rest = np.sort(full)[: 40 - top]
        bound = np.sort(full)[40 - top]
        scores = OptionScores.from_lists(shown, unlisted, [rest.sum()], [bound], "label")
        return np.array([full[option].sum() for option in tokens]), scores

    @given(st.integers(0, 10**6), st.integers(1, 30), st.lists(st.integers(1, 4), min_size=1, max_size=6))
    def test_the_truth_lies_inside(self, seed, top, forms):
        mass, scores = self.cut(seed, top, forms)
        own = mass / mass.sum()
        assert (scores.lower[0] <= own + 1e-12).all()
        assert (scores.upper[0] >= own - 1e-12).all()
        assert (scores.lower <= scores.probabilities).all()
        assert (scores.probabilities <= scores.upper).all()
        assert scores.label_mass[0] <= mass.sum() * (1 + 1e-12)
        if scores.argmax_certified[0]:
            assert own[scores.choice[0]] >= own.max() - 1e-12
        if scores.is_exact:
            np.testing.assert_allclose(scores.probabilities[0], own, rtol=1e-9)

    def test_bounds_are_attained(self):
        """s = .4, .2 and nothing; 1, 0 and 2 unlisted tokens of at most .1 each, .15 in all."""
        scores = OptionScores.from_lists([[0.4, 0.2, 0.0]], [[1, 0, 2]], [0.15], [0.1], "label")
        most = [0.5 / 0.7, 0.2 / 0.6, 0.15 / 0.75]  # itself all it can, the others nothing
        least = [0.4 / 0.75, 0.2 / 0.75, 0.0]  # itself nothing, the others all they can together
        np.testing.assert_allclose(scores.upper, [most], rtol=1e-14)
        np.testing.assert_allclose(scores.lower, [least], rtol=1e-14)
        np.testing.assert_allclose(scores.probabilities[0], np.array([0.4, 0.2, 0.015]) / 0.615)  # a tenth of .15
        assert scores.missing.tolist() == [[False, False, True]]
        assert scores.argmax_certified.all(), ".4 is more than .2 and than .15"

    def test_another_options_hidden_form_can_leave_the_choice_open(self):
        scores = OptionScores.from_lists([[0.25, 0.2]], [[0, 1]], [0.1], [0.06], "label")
        assert scores.choice.tolist() == [0]
        assert not scores.argmax_certified[0]
        assert not scores.is_exact, "both options are shown, and one may have more"
        assert not scores.missing.any()

    def test_what_hides_nothing_is_exact(self):
        scores = OptionScores.from_lists([[0.3, 0.1], [0.3, 0.1]], [[0, 0], [2, 1]], [0.6, 0.0], [0.05, 0.0], "label")
        assert scores.is_exact
        assert (scores.lower == scores.probabilities).all()
        assert (scores.upper == scores.probabilities).all()
        assert scores.argmax_certified.all()

    def test_no_list_no_knowledge(self):
        scores = OptionScores.from_lists(
            [[0.0, 0.0, 0.0]], [[1, 1, 0]], [0.5], [0.1], "label", mask=[[True, True, False]]
        )
        assert scores.probabilities.tolist() == [[0.5, 0.5, 0.0]]
        assert scores.lower.tolist() == [[0.0, 0.0, 0.0]]
        assert scores.upper.tolist() == [[1.0, 1.0, 0.0]]
        assert scores.missing.tolist() == [[True, True, False]]
        assert not scores.argmax_certified[0]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"tail": [-0.1]},
            {"cut": [np.nan]},
            {"unlisted": [[1, -1]]},
            {"shown": [[0.4, 0.2, 0.1]]},
            {"tail": [0.1, 0.1]},
        ],
    )
    def test_what_is_no_probability_is_refused(self, wrong):
        good = {"shown": [[0.4, 0.2]], "unlisted": [[1, 1]], "tail": [0.1], "cut": [0.1]}
        with pytest.raises(InputError, match="must"):
            OptionScores.from_lists(**{**good, **wrong}, readout="label")
