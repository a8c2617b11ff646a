"""Maps of the first choice fitted to a reference's word: the parts by themselves, laws, and truncation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.calibrators import FITS, soft_labels
from calibwrap.calibrators._align import paired
from calibwrap.errors import CapabilityError, InputError
from calibwrap.saving import load, save
from calibwrap.scores import OptionScores, log_softmax

METHODS = ("beta", "histogram", "isotonic", "platt", "venn-abers")


def problem(seed, n=400, k=4):
    random = np.random.default_rng(seed)
    truth = log_softmax(random.normal(size=(n, k)))
    return log_softmax(3.0 * truth + 0.5 * random.normal(size=(n, k))), truth


def word(post, pre):
    """The reference's probability of the model's choice, the slow way."""
    return np.array([np.exp(p)[np.argmax(row)] / np.exp(p).sum() for row, p in zip(post, pre, strict=True)])


@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_matched_mean_and_then_the_map(method):
    post, pre = problem(1)
    first = cw.fit_matched_mean(post, pre, n_bootstrap=0)
    confidence = np.exp(first(post)).max(axis=1)
    part = FITS[f"soft:{method}"](post, reference=pre)
    alone = getattr(cw, {"histogram": "fit_histogram_binning"}.get(method, f"fit_{method.replace('-', '_')}"))
    wanted = alone(confidence, word(post, pre))(confidence)
    np.testing.assert_allclose(part.parts[1].part(confidence), wanted, atol=1e-9)
    assert part.report.method == f"soft:{method}"
    assert part.parts[0].value == pytest.approx(first.value)


def test_the_mean_is_the_matched_mean():
    post, pre = problem(2)
    assert cw.fit_without_labels(post, pre) == cw.fit_matched_mean(post, pre)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(METHODS))
def test_the_choice_stays_and_rows_sum_to_one(seed, method):
    post, pre = problem(seed, n=60)
    fitted = cw.fit_without_labels(post, pre, method)
    mapped = fitted(post)
    assert fitted.keeps_argmax
    assert (mapped.argmax(axis=1) == post.argmax(axis=1)).all()
    np.testing.assert_allclose(np.exp(mapped).sum(axis=1), 1.0)


def test_labels_are_not_needed_for_what_labels_would_say():
    """Where the reference is the truth, its word gives what many labels give."""
    random = np.random.default_rng(0)
    truth = log_softmax(1.5 * random.normal(size=(20_000, 3)))
    post = log_softmax(3.0 * truth)
    answers = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)
    fitted = cw.fit_without_labels(post[:10_000], truth[:10_000], "platt")
    held, right = fitted(post[10_000:]), answers[10_000:]
    confidence, correct = np.exp(held).max(axis=1), held.argmax(axis=1) == right
    assert cw.metrics.ece(confidence, correct) < 0.02
    assert cw.metrics.nll(held, right) < cw.metrics.nll(truth[10_000:], right) + 0.005


def test_truncated_rows_keep_bounds():
    random = np.random.default_rng(0)
    p = np.exp(log_softmax(3.0 * random.normal(size=(30, 12))))
    listed = p >= np.sort(p, axis=1)[:, -3][:, None]
    shown, tail = np.where(listed, p, 0.0)[:, :4], np.where(listed, 0.0, p).sum(axis=1)
    cut = OptionScores.from_lists(shown, (~listed)[:, :4], tail, np.sort(p, axis=1)[:, -3], "label")
    pre = np.log(p[:, :4]) / 3.0
    fitted = cw.fit_without_labels(cut, pre, "platt")
    mapped, exact = fitted(cut), fitted(np.log(p[:, :4]))
    assert fitted.report.rows_used < 30
    assert (mapped.lower <= np.exp(exact) + 1e-9).all()
    assert (mapped.upper >= np.exp(exact) - 1e-9).all()
    with pytest.raises(CapabilityError):
        cw.fit_without_labels(cut, pre, "platt", keeps_choice=False)(cut)


@pytest.mark.parametrize("method", METHODS)
def test_save_and_load_are_bit_equal(tmp_path, method):
    post, pre = problem(4)
    fitted = cw.fit_without_labels(post, pre, method)
    save(fitted, tmp_path / "soft.safetensors")
    again = load(tmp_path / "soft.safetensors")
    assert again == fitted
    assert (again(post) == fitted(post)).all()
    assert again.report.method == f"soft:{method}"


def test_an_unknown_method_is_named():
    post, pre = problem(5, n=30)
    with pytest.raises(InputError, match=r"one of mean, beta.*Got 'temperature'"):
        cw.fit_without_labels(post, pre, "temperature")


def test_halves_and_evaluations_take_them_by_name(tmp_path):
    from calibwrap.evaluate import evaluate
    from calibwrap.halves import over_halves
    from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

    model, methods = ToyModel.random(3), ["matched-mean", "soft:platt"]
    questions = toy_questions(80, model=model)
    lm, base = cw.wrap(ToyAdapter(model.sharpened(3.0))), cw.wrap(ToyAdapter(model))
    found = evaluate(lm, questions, tmp_path / "out", fit=methods, reference=base, readout="label")
    series = found.metrics()["series"]
    assert {series[name]["accuracy"]["value"] for name in ("raw", *methods)} == {series["raw"]["accuracy"]["value"]}
    assert all(series[name]["nll"]["value"] < series["raw"]["nll"]["value"] for name in methods)
    scores, reference = lm.scores(questions, "label"), base.scores(questions, "label")
    halves = over_halves(scores, [one.answer for one in questions], ["batch", *methods], reference, halves=3)
    assert all(halves[name].value < halves["raw"].value for name in methods)
    assert halves["batch"].value is not None
    assert load(tmp_path / "out" / "calibrator-soft:platt.json") == found.calibrators["soft:platt"]


def test_rows_are_compared_once(monkeypatch):
    calls = []
    monkeypatch.setattr(soft_labels, "paired", lambda *rows: calls.append(1) or paired(*rows))
    cw.fit_without_labels(*problem(4), "isotonic")
    assert len(calls) == 1


def test_a_reference_that_cannot_be_read_so_is_named_before_the_model_is_asked(tmp_path):
    from calibwrap.capabilities import Provides
    from calibwrap.evaluate import evaluate
    from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

    asked = []

    class Counted(ToyAdapter):
        def next_token(self, *arguments, **options):
            asked.append(arguments)
            return super().next_token(*arguments, **options)

    lm = cw.CalibratedLM(Counted(ToyModel.random()), readout=cw.Label(min_mass=0.0))
    reference = cw.CalibratedLM(ToyAdapter(ToyModel.random(), Provides(top=3, token_bytes=True)))
    with pytest.raises(CapabilityError, match=r"Of the reference: .+ 'reference_readout' says how"):
        evaluate(
            lm, toy_questions(20), tmp_path / "out", fit=["daca"], reference=reference, reference_readout="continuation"
        )
    assert not asked
