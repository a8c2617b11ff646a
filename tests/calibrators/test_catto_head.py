"""The CATTO head as a calibrator: its features, both levels, lists that were cut off, and its file."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.calibrators import CattoHead
from calibwrap.calibrators._catto_features import NAMES, feature_bounds, score_features
from calibwrap.errors import CapabilityError, InputError, SavedFileError
from calibwrap.scores import OptionScores, TokenScores, log_softmax
from calibwrap.testing import ToyAdapter

WIDTH = len(NAMES)


def head(level="token", seed=0, top=5, size=3.0, **changed):
    random = np.random.default_rng(seed)
    made = CattoHead(
        random.normal(0.5, 0.2, WIDTH), random.uniform(0.5, 2.0, WIDTH), size * random.normal(size=(WIDTH, 4)),
        random.normal(size=4), random.normal(size=4), 0.3, level=level, top=top,
    )  # fmt: skip
    return replace(made, **changed)


def full(seed, positions=6, vocabulary=40):
    return TokenScores(log_softmax(3.0 * np.random.default_rng(seed).normal(size=(positions, vocabulary))))


def listed(scores, top):
    """The same positions as a list of the most probable tokens."""
    ids = np.argsort(-scores.logprobs, axis=1)[:, :top]
    logprobs = np.take_along_axis(scores.logprobs, ids, axis=1)
    return TokenScores(logprobs, ids=ids, log_cut=logprobs[:, -1])


def test_by_hand():
    """With no weights, log T is log 20 tanh(d / log 20) on every row."""
    flat = head(first_weights=np.zeros((WIDTH, 4)), first_biases=np.zeros(4), last_bias=0.7)
    assert flat.temperatures(full(0)) == pytest.approx(np.full(6, np.exp(np.log(20) * np.tanh(0.7 / np.log(20)))))
    half = score_features(np.log([[0.25, 0.5, 0.125, 0.125]]), top=2)[0]
    entropy = 0.5 * np.log(2) + 2 * 0.25 * np.log(4)
    assert half == pytest.approx([0.5, 0.25, np.log1p(np.log(2)), np.log(2), entropy, 0.25, np.log(2)])


@given(st.integers(0, 10**6), st.sampled_from([-30.0, 0.0, 7.5]))
@settings(max_examples=30, deadline=None)
def test_a_constant_changes_nothing_and_an_order_only_the_order(seed, constant):
    random = np.random.default_rng(seed)
    rows, order = 3.0 * random.normal(size=(4, 9)), random.permutation(9)
    plain = head("option", seed)(rows)
    np.testing.assert_allclose(head("option", seed)(rows[:, order] + constant), plain[:, order], atol=1e-9)


def test_rows_have_temperatures_of_their_own():
    warm = head().temperatures(full(1))
    assert np.ptp(np.log(warm)) > 0.1
    expected = log_softmax(full(1).logprobs / warm[:, None])
    np.testing.assert_allclose(head()(full(1)).logprobs, expected, atol=1e-12)


def test_a_list_gives_the_temperature_of_the_whole_position():
    scores = full(2)
    for top in (5, 12):
        np.testing.assert_allclose(head().temperatures(listed(scores, top)), head().temperatures(scores), rtol=1e-9)
    with pytest.raises(CapabilityError, match=r"reads the 5 most probable tokens, and a list of 4 came"):
        head().temperatures(listed(scores, 4))


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_the_interval_of_a_list_holds_the_truth(seed):
    scores, part = full(seed), head(seed=seed)
    truth = np.take_along_axis(part(scores).logprobs, listed(scores, 8).ids, axis=1)
    for vocabulary in (40, None):
        low, high = part.interval(listed(scores, 8), vocabulary)
        assert (low <= truth + 1e-9).all()
        assert (truth <= high + 1e-9).all()
    known, unknown = (part.interval(listed(scores, 8), v) for v in (40, None))
    assert (known[1] - known[0] <= unknown[1] - unknown[0] + 1e-12).all()


def test_the_interval_is_attained_where_the_rest_is_even_or_heaped():
    for rest, edge in ((np.full(8, 0.03), 1), (np.r_[0.12, 0.12, np.zeros(6)], 0)):
        with np.errstate(divide="ignore"):
            scores = TokenScores(np.log(np.r_[0.5, 0.26, rest])[None])
        part = head(top=2, first_weights=np.zeros((WIDTH, 4)), first_biases=np.zeros(4), last_bias=np.log(2.0))
        cut = TokenScores(scores.logprobs[:, :2], ids=[[0, 1]], log_cut=[np.log(0.12)])
        assert part.interval(cut, 10)[1 - edge] == pytest.approx(part(scores).logprobs[:, :2])


def test_a_whole_position_is_its_own_interval():
    low, high = head().interval(full(3))
    np.testing.assert_allclose(low, high)
    np.testing.assert_allclose(low, head()(full(3)).logprobs, atol=1e-12)


def test_a_list_is_not_mapped_and_levels_are_not_mixed():
    with pytest.raises(CapabilityError, match=r"use interval\(scores, vocabulary\)"):
        head()(listed(full(4), 8))
    with pytest.raises(InputError, match="'vocabulary' must be at least"):
        head().interval(listed(full(4), 8), 7)
    with pytest.raises(CapabilityError, match=r"level 'token', and scores of level 'option' came.*level='option'"):
        head()(OptionScores(np.log([[0.8, 0.2]]), "label"))
    with pytest.raises(CapabilityError, match="level 'option', and scores of level 'token' came"):
        head("option")(full(4))


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_bounds_hold_for_every_list_behind_a_truncated_row(seed, options, top):
    random = np.random.default_rng(seed)
    part = head("option", seed, top=top)
    shown = random.dirichlet(np.ones(options)) * random.uniform(0.3, 0.9)
    shown[random.random(options) < 0.3] = 0.0
    tail = 1.0 - shown.sum()
    cut = min(tail, shown[shown > 0].min(initial=tail)) * random.uniform(0.1, 1.0)
    unlisted = random.integers(1, 4, options)
    scores = OptionScores.from_lists([shown], [unlisted], [tail], [cut], "label")
    hidden = random.uniform(0, 1, (50, options)) * np.minimum(tail, unlisted * cut)
    hidden *= np.minimum(1.0, tail / hidden.sum(axis=1, keepdims=True))
    possible = np.log(shown + hidden)
    low, high = feature_bounds(scores, top)
    found = score_features(log_softmax(possible), top)
    assert ((found >= low - 1e-9) & (found <= high + 1e-9)).all()
    mapped, exact = part(scores), np.exp(part(possible))
    assert ((exact >= mapped.lower - 1e-9) & (exact <= mapped.upper + 1e-9)).all()
    assert ((mapped.probabilities >= mapped.lower - 1e-9) & (mapped.probabilities <= mapped.upper + 1e-9)).all()


def test_hidden_states_are_needed_and_used():
    states = np.random.default_rng(0).normal(size=(6, 3))
    wide = WIDTH + 3
    part = head(
        center=np.zeros(wide), scale=np.ones(wide), features="hidden",
        first_weights=np.random.default_rng(1).normal(size=(wide, 4)),
    )  # fmt: skip
    scores = replace(full(5), hidden=states)
    expected = log_softmax(scores.logprobs / part.temperatures(scores)[:, None])
    np.testing.assert_allclose(part(scores).logprobs, expected, atol=1e-12)
    assert not np.allclose(part.temperatures(replace(scores, hidden=-states)), part.temperatures(scores))
    for wrong in (full(5), replace(full(5), hidden=states[:, :2])):
        with pytest.raises(CapabilityError, match="reads hidden states of 3 numbers"):
            part(wrong)
    with pytest.raises(CapabilityError, match="an array does not hold"):
        part(full(5).logprobs)
    with pytest.raises(CapabilityError, match=r"catto-head.*needs hidden=True"):
        cw.CalibratedLM(ToyAdapter(), part)


def test_it_calibrates_the_tokens_of_a_completion():
    lm = cw.CalibratedLM(ToyAdapter(), head())
    answer = lm("What comes after A", cw.Greedy(max_tokens=3), steer=True)
    raw = cw.CalibratedLM(ToyAdapter())("What comes after A", cw.Greedy(max_tokens=3))
    assert answer.calibrated_by == "catto-head"
    assert answer.text == raw.text
    assert answer.confidence != pytest.approx(raw.confidence)


def test_one_safetensors_file_holds_it(tmp_path):
    for part in (head(), head("option", seed=3, top=7)):
        cw.save(part, tmp_path / "head.safetensors")
        loaded = cw.load(tmp_path / "head.safetensors")
        assert loaded == part
        assert hash(loaded) == hash(part)
        assert (loaded.top, loaded.level) == (part.top, part.level)
        assert [file.name for file in tmp_path.iterdir()] == ["head.safetensors"]
    data = (tmp_path / "head.safetensors").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-5])
    with pytest.raises(SavedFileError, match="broken or truncated"):
        cw.load(tmp_path / "cut")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"scale": np.zeros(WIDTH)}, "every 'scale' above 0"),
        ({"first_weights": np.zeros((3, 4))}, r"'first_weights' of CattoHead must have shape \(7, 4\)"),
        ({"last_bias": np.nan}, "'last_bias' of CattoHead must be finite"),
        ({"last_weights": [np.inf] * 4}, "'last_weights' of CattoHead must be finite"),
        ({"top": 1}, "'top' of CattoHead must be at least 2"),
        ({"level": "confidence"}, "has level 'option' or 'token'"),
        ({"features": "hidden"}, "has 7 and one a hidden unit"),
        ({"features": "hidden", "level": "option"}, "level must be 'token'"),
    ],
)
def test_broken_heads_are_named(changed, match):
    with pytest.raises(InputError, match=match):
        head(**changed)
