"""Identity and chains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap.base import Calibrator
from calibwrap.calibrators import Chain, Identity, Temperature, VectorScaling, chain
from calibwrap.capabilities import Needs
from calibwrap.errors import InputError
from calibwrap.saving import load, save
from calibwrap.scores import OptionScores, TokenScores

BIASED = VectorScaling([1.0, 0.5], [0.0, 3.0])


def test_identity_is_identity():
    scores = OptionScores(np.log([[0.8, 0.2]]), "label")
    assert (Identity()(scores).logprobs == scores.logprobs).all()
    assert Identity() == chain()


def test_a_chain_applies_its_parts_in_order():
    rows = np.log([[0.8, 0.2], [0.4, 0.6]])
    assert chain(Temperature(2.0), BIASED)(rows) == pytest.approx(BIASED(Temperature(2.0)(rows)))
    assert chain(BIASED, Temperature(2.0))(rows) == pytest.approx(Temperature(2.0)(BIASED(rows)))
    assert chain(Temperature(2.0), BIASED)(rows) != pytest.approx(chain(BIASED, Temperature(2.0))(rows))
    scores = OptionScores(rows, "label")
    assert chain(Temperature(2.0), BIASED)(scores).logprobs == pytest.approx(BIASED(Temperature(2.0)(rows)))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 10), st.lists(st.floats(-100, 100), min_size=2, max_size=5))
def test_temperatures_multiply(first, second, row):
    both = chain(Temperature(first), Temperature(second))
    assert both([row]) == pytest.approx(Temperature(first * second)([row]), rel=1e-9, abs=1e-9)


def test_chains_flatten_and_compare():
    inner = chain(Temperature(2.0), Identity())
    assert chain(inner, BIASED) == Chain((Temperature(2.0), Identity(), BIASED))
    assert hash(chain(inner, BIASED)) == hash(chain(Temperature(2.0), Identity(), BIASED))


def test_a_chain_has_what_its_parts_have_in_common():
    assert chain(Temperature(2.0), Identity()).keeps_argmax
    assert not chain(Temperature(2.0), BIASED).keeps_argmax
    assert chain(Temperature(2.0, "token"), Identity("token")).level == "token"

    class Hungry(Identity):
        needs = Needs(given_ids=3, hidden=True)

    assert chain(Identity(), Hungry(), Temperature(2.0)).needs == Needs(given_ids=3, hidden=True)


def test_tokens_go_through_every_part():
    scores = TokenScores(np.log([[0.64, 0.36]]))
    both = chain(Temperature(2.0, "token"), Temperature(0.5, "token"))
    assert both(scores).logprobs == pytest.approx(scores.logprobs)


def test_parts_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="option, token"):
        chain(Temperature(2.0), Temperature(2.0, "token"))
    with pytest.raises(InputError, match="float"):
        chain(Temperature(2.0), 3.0)
    with pytest.raises(InputError, match="none"):
        Chain(())


def test_every_kind_here_is_a_calibrator():
    assert all(isinstance(one, Calibrator) for one in (Identity(), BIASED, chain(BIASED)))


def test_chains_inside_chains_have_a_deepest(tmp_path):
    deep = Temperature(2.0)
    for _ in range(50):
        deep = Chain((deep,))
    save(deep, tmp_path / "deep.json")
    assert load(tmp_path / "deep.json") == deep
    with pytest.raises(InputError, match=r"may be 50 deep\. Got 51: 'chain' makes them flat"):
        Chain((deep,))
