"""Decision readout: what a server prints becomes scores whose bounds hold the number that was rounded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.capabilities import Provides
from calibwrap.errors import CalibrationWarning, CapabilityError, InputError, SemanticsMismatch
from calibwrap.questions import CLOZE
from calibwrap.readouts import Decision, find_readout
from calibwrap.readouts.decision import decided_scores
from calibwrap.scores import Decided
from calibwrap.testing import ToyAdapter

SLACK = 1e-12  # what the numbers lose in double precision


class Judge(ToyAdapter):
    """A backend whose decision endpoint prints the same three numbers for every question."""

    def __init__(self, printed: tuple[float, ...], mass: float = 1.0) -> None:
        super().__init__()
        self.provides = Provides(decides=True, batch_size=2)
        self.printed, self.mass = printed, mass
        self.asked: list[cw.Question] = []

    def decide(self, questions):  # type: ignore[no-untyped-def]
        self.asked += questions
        return [Decided(self.printed, self.mass) for _ in questions]


QUESTION = cw.Question("Which tone?", ["calm", "angry", "sad"], context="Go away!")


def test_probabilities_are_those_of_the_server() -> None:
    lm = cw.wrap(Judge((0.625000001, 0.25, 0.124999999), mass=0.75))
    scores = lm.scores([QUESTION] * 3, readout="decision")
    np.testing.assert_allclose(scores.probabilities, [[0.625000001, 0.25, 0.124999999]] * 3, rtol=1e-12)
    assert scores.is_exact
    assert scores.readout == "decision"
    assert scores.label_mass.tolist() == [0.75] * 3


def test_any_option_calibrator_works_on_exact_ones() -> None:
    lm = cw.CalibratedLM(Judge((0.64000001, 0.15999999, 0.2)), readout=Decision())
    tempered = lm.with_calibrator(cw.Temperature(2.0)).choose_batch([QUESTION])[0]
    weights = np.sqrt([0.64000001, 0.15999999, 0.2])
    assert tempered.confidence == pytest.approx(weights[0] / weights.sum())
    moved = lm.with_calibrator(cw.VectorScaling([1.0, 1.0, 1.0], [0.0, 3.0, 0.0])).choose_batch([QUESTION])[0]
    assert moved.text == "angry"


def test_a_context_is_judged_and_a_bare_question_becomes_the_text_to_judge() -> None:
    judge = Judge((0.5, 0.3, 0.2))
    bare = cw.Question("Which planet is red?", ["Mars", "Venus", "Earth"])
    Decision().ask(judge, [QUESTION, bare])
    assert judge.asked[0] == QUESTION
    assert (judge.asked[1].context, judge.asked[1].prompt) == (bare.prompt, Decision().instructions)
    assert judge.asked[1].options == bare.options


def test_little_mass_is_told_where_the_server_tells_it() -> None:
    lm = cw.CalibratedLM(Judge((0.5, 0.3, 0.2), mass=0.1), readout=Decision())
    with pytest.warns(CalibrationWarning, match=r"only 0\.10"):
        lm.scores([QUESTION])
    cw.CalibratedLM(Judge((0.5, 0.3, 0.2), mass=float("nan")), readout=Decision()).scores([QUESTION])


def test_a_backend_without_such_an_endpoint_is_refused_before_any_call() -> None:
    adapter = ToyAdapter()
    with pytest.raises(CapabilityError, match="needs decides=True"):
        cw.wrap(adapter).scores([QUESTION], readout="decision")
    assert not adapter.calls
    with pytest.raises(CapabilityError, match="no decision endpoint"):
        adapter.decide([QUESTION])


def test_names() -> None:
    assert find_readout("decision").label == "decision"
    own = Decision(instructions="Choose.")
    assert own.label.startswith("decision:custom-")
    assert own.label != Decision(decimals=2).label
    with pytest.raises(InputError, match="takes no template"):
        find_readout("decision", CLOZE)
    with pytest.raises(InputError, match="takes no template"):
        find_readout("decision:cloze")
    with pytest.raises(InputError, match="instructions"):
        Decision(instructions=" ")
    with pytest.raises(InputError, match="decimals"):
        Decision(decimals=0)


def test_a_printed_zero_is_a_bound_and_never_minus_infinity() -> None:
    scores = decided_scores([Decided((1.0, 0.0)), Decided((0.98, 0.02))], "decision")
    assert np.isfinite(scores.logprobs).all()
    assert scores.missing.tolist() == [[False, True], [False, False]]
    np.testing.assert_allclose([scores.lower[0], scores.upper[0]], [[0.995, 0.0], [1.0, 0.005]], atol=1e-9)
    np.testing.assert_allclose([scores.lower[1], scores.upper[1]], [[0.975, 0.015], [0.985, 0.025]], atol=1e-9)
    assert scores.argmax_certified.all()


def test_known_decimals_narrow_the_bounds() -> None:
    """The answer 1.0 and 0.0 alone does not show how many decimals there are."""
    wide = decided_scores([Decided((1.0, 0.0))], "decision")
    narrow = decided_scores([Decided((1.0, 0.0))], "decision", decimals=4)
    assert wide.upper[0, 1] == pytest.approx(0.05)
    assert narrow.upper[0, 1] == pytest.approx(0.00005)


def test_equal_rounded_values_leave_the_first_choice_open() -> None:
    assert not decided_scores([Decided((0.48, 0.48, 0.04))], "decision").argmax_certified[0]
    assert decided_scores([Decided((0.49, 0.48, 0.03))], "decision").argmax_certified[0]
    assert decided_scores([Decided((0.40000001, 0.4, 0.19999999))], "decision").argmax_certified[0]


def test_a_zero_beside_long_numbers_is_small() -> None:
    scores = decided_scores([Decided((0.7512345678901, 0.2487654321099, 0.0))], "decision")
    assert scores.upper[0, 2] <= 1e-13
    assert np.isfinite(scores.logprobs).all()
    np.testing.assert_allclose(scores.lower[0, :2], [0.7512345678901, 0.2487654321099], rtol=1e-12)


@pytest.mark.parametrize(
    "printed",
    [(0.5, 0.6), (0.4, 0.4), (-0.1, 1.1), (0.0, 0.0), (-0.69, -0.7), (float("nan"), 1.0), (float("inf"), 0.0)],
)
def test_what_is_no_distribution_is_refused(printed: tuple[float, ...]) -> None:
    with pytest.raises(SemanticsMismatch, match="sum to 1"):
        decided_scores([Decided((0.50, 0.5)), Decided(printed)], "decision", decimals=2)


def test_questions_of_different_lengths_share_a_table() -> None:
    scores = decided_scores([Decided((0.97, 0.03)), Decided((0.91, 0.09, 0.0))], "decision")
    assert scores.mask.tolist() == [[True, True, False], [True, True, True]]
    assert scores.missing.sum() == 1
    assert scores.lower[0, 2] == scores.upper[0, 2] == 0.0


true_rows = st.lists(
    st.lists(st.floats(min_value=-12.0, max_value=0.0), min_size=2, max_size=6).map(
        lambda logits: np.exp(logits) / np.exp(logits).sum()
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(true_rows, st.integers(min_value=1, max_value=7), st.floats(min_value=0.2, max_value=5.0))
def test_the_number_that_was_rounded_lies_inside_the_bounds(rows, decimals, temperature) -> None:  # type: ignore[no-untyped-def]
    """Raw and tempered, however few decimals the server prints; the calibrated point lies inside as well."""
    decided = [Decided(tuple(round(float(p), decimals) for p in row)) for row in rows]
    if any(sum(one.probabilities) == 0.0 for one in decided):
        return  # nothing but zeros: refused, as tested above
    raw = decided_scores(decided, "decision")
    tempered = cw.Temperature(temperature)(raw)
    exact = decimals >= 6  # values are then taken as printed
    for power, scores in ((1.0, raw), (1.0 / temperature, tempered)):
        for index, row in enumerate(rows):
            if exact and power != 1.0:
                continue
            truth = row**power / (row**power).sum()
            k = len(row)
            slack = k * 10.0**-decimals if exact else SLACK
            assert (scores.lower[index, :k] - slack <= truth).all()
            assert (truth <= scores.upper[index, :k] + slack).all()
            assert (scores.lower[index, :k] <= scores.probabilities[index, :k] + SLACK).all()
            assert (scores.probabilities[index, :k] <= scores.upper[index, :k] + SLACK).all()
