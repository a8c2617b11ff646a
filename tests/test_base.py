from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.base import Adapter, Answer, Calibrator, Decoder, Readout, Sampling
from calibwrap.capabilities import _INSTEAD, Needs, Provides, check_needs
from calibwrap.errors import CapabilityError, InputError
from calibwrap.provenance import FitReport, Provenance
from calibwrap.scores import OptionScores, TokenScores


@dataclass(frozen=True)
class Halved(Calibrator):
    kind: ClassVar[str] = "halved"

    def logits(self, logprobs):
        return logprobs / 2.0


THIRD = np.log([[0.8, 0.2]])
HALVED = [[2.0 / 3.0, 1.0 / 3.0]]  # sqrt(0.8) : sqrt(0.2) = 2 : 1


class TestSampling:
    @pytest.mark.parametrize(
        "fields",
        [
            {"n": 0},
            {"max_tokens": 0},
            {"temperature": -0.1},
            {"temperature": float("inf")},
            {"temperature": float("nan")},
        ],
    )
    def test_values_out_of_range_are_refused(self, fields):
        with pytest.raises(InputError, match="temperature"):
            Sampling(**fields)

    def test_an_empty_stop_text_is_refused(self):
        with pytest.raises(InputError, match="stop"):
            Sampling(stop=(".", ""))

    def test_the_defaults_leave_the_distribution_alone(self):
        sampling = Sampling()
        assert (sampling.n, sampling.temperature, sampling.top, sampling.stop) == (1, 1.0, 0, ())


class TestCalibrator:
    def test_an_array_gives_an_array(self):
        np.testing.assert_allclose(np.exp(Halved()(THIRD)), HALVED)

    @given(st.floats(-100.0, 100.0))
    def test_logits_and_log_probabilities_give_the_same(self, constant):
        np.testing.assert_allclose(Halved()(THIRD + constant), Halved()(THIRD), atol=1e-9)

    def test_exact_scores_get_exact_bounds(self):
        scores = Halved()(OptionScores(THIRD, readout="label", label_mass=[0.9]))
        for values in (scores.probabilities, scores.lower, scores.upper):
            np.testing.assert_allclose(values, HALVED)
        assert scores.label_mass.tolist() == [0.9]

    def test_truncated_scores_need_bounds(self):
        truncated = OptionScores(THIRD, readout="label", missing=[[False, True]])
        with pytest.raises(CapabilityError, match=r"halved.*1 rows were cut off"):
            Halved()(truncated)

    def test_bounds_are_carried_through(self):
        @dataclass(frozen=True)
        class Bounded(Halved):
            def bounds(self, scores):
                return np.zeros((1, 2)), np.ones((1, 2))

        scores = Bounded()(OptionScores(THIRD, readout="label", missing=[[False, True]]))
        assert scores.lower.tolist() == [[0.0, 0.0]]
        assert scores.upper.tolist() == [[1.0, 1.0]]
        assert scores.missing.tolist() == [[False, True]]

    def test_token_scores_keep_their_chosen_tokens(self):
        tokens = TokenScores(THIRD, chosen=[1], chosen_logprob=[np.log(0.2)], log_z=[3.0])
        mapped = Halved()(tokens)
        np.testing.assert_allclose(np.exp(mapped.logprobs), HALVED)
        np.testing.assert_allclose(np.exp(mapped.chosen_logprob), [1.0 / 3.0])
        assert mapped.chosen.tolist() == [1]
        assert mapped.log_z is None

    def test_a_list_of_tokens_is_refused(self):
        with pytest.raises(CapabilityError, match="whole vocabulary"):
            Halved()(TokenScores(THIRD, ids=[[0, 1]]))

    def test_ragged_rows_keep_their_mask(self):
        mapped = Halved()([[0.0, 0.0, -np.inf]])
        assert np.isneginf(mapped[0, 2])
        np.testing.assert_allclose(np.exp(mapped[0, :2]), [0.5, 0.5])

    @pytest.mark.parametrize("bad", [[[np.nan, 0.0]], [0.0, 1.0], np.zeros((0, 2))])
    def test_bad_arrays_are_refused(self, bad):
        with pytest.raises(InputError, match="scores"):
            Halved()(bad)


@pytest.mark.parametrize("contract", [Adapter, Calibrator, Decoder, Readout])
def test_contracts_cannot_be_made_without_their_methods(contract):
    with pytest.raises(TypeError, match="abstract"):
        contract()


def test_records_are_frozen():
    for record, name in (
        (Answer("a", 0.5, (0.5, 0.5)), "text"),
        (Sampling(), "n"),
        (Provides(), "top"),
        (Needs(), "chat"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, None)


class TestNeeds:
    @pytest.mark.parametrize("name", list(_INSTEAD))
    def test_each_unmet_need_names_who_what_and_an_alternative(self, name):
        with pytest.raises(CapabilityError, match=f"the part needs {name}=.*'toy'.*: {_INSTEAD[name][:10]}"):
            check_needs("the part", Needs(**{name: 2 if name == "given_ids" else True}), "toy", Provides(plain=False))

    def test_every_need_is_compared(self):
        assert set(_INSTEAD) == set(Needs.__dataclass_fields__)
        assert all(hasattr(Provides(), name) for name in _INSTEAD)

    @pytest.mark.parametrize(
        ("provides", "can"),
        [
            (Provides(given_ids=None, tokenize=True), True),
            (Provides(given_ids=1, tokenize=True), False),
            (Provides(given_ids=None), False),
            (Provides(top=20, token_bytes=True), True),
            (Provides(top=None, tokenize=True), True),
            (Provides(top=20), False),
            (Provides(token_bytes=True, tokenize=True), False),
        ],
    )
    def test_labels_are_read_by_id_or_in_a_list_that_can_be_matched(self, provides, can):
        assert provides.labels is can

    def test_no_limit_meets_every_need(self):
        check_needs("the part", Needs(given_ids=10**6), "toy", Provides(given_ids=None))

    @given(st.integers(0, 9), st.integers(0, 9))
    def test_a_number_is_a_limit(self, wanted, given_ids):
        if wanted <= given_ids:
            check_needs("the part", Needs(given_ids=wanted), "toy", Provides(given_ids=given_ids))
        else:
            with pytest.raises(CapabilityError):
                check_needs("the part", Needs(given_ids=wanted), "toy", Provides(given_ids=given_ids))


class TestProvenance:
    def test_differences_name_both_sides(self):
        one, other = Provenance(runtime="hf", dtype="float32"), Provenance(runtime="hf", dtype="q4_1")
        assert one.differences(other) == ["dtype: 'float32' against 'q4_1'"]
        assert one.differences(one) == []

    def test_a_fit_report_knows_what_it_was_told(self):
        report = FitReport("temperature", 10, 8, 1.0, 0.5)
        assert (report.converged, report.at_bound, report.interval) == (True, "", None)
