"""DACA: the invariants that the method promises, its refusals, and the interval."""

import inspect

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from calibwrap.calibrators import Temperature, VectorScaling, fit_daca, fit_naive_kl
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.scores import OptionScores

pytestmark = pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")


def models(seed, n=400, k=4, factor=2.5, noise=0.7):
    """Logits of a pre-trained model and of a sharper one that now and then chooses otherwise."""
    rng = np.random.default_rng(seed)
    pre = 1.5 * rng.normal(size=(n, k))
    return factor * pre + noise * rng.normal(size=(n, k)), pre


def mean_kl(pre, post):
    p, log_p, log_q = softmax(pre, axis=1), log_softmax(pre, axis=1), log_softmax(post, axis=1)
    return (p * (log_p - log_q)).sum(1).mean()


def by_root_search(post, pre):
    p = softmax(pre, axis=1)
    return 1 / brentq(
        lambda b: ((softmax(b * post, axis=1) - p) * post).sum(1).mean(), 0.01, 100, xtol=1e-15, rtol=1e-14
    )


def agreeing(post, pre):
    return post.argmax(1) == pre.argmax(1)


def top_label_ece(probabilities, answers, bins=10):
    confidence, right = probabilities.max(1), probabilities.argmax(1) == answers
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum(abs((right - confidence)[index == one].sum()) for one in range(bins)) / len(answers)


def fitted(post, pre, **options):
    return fit_daca(post, pre, n_bootstrap=0, **options)


@pytest.mark.parametrize("seed", range(10))
def test_the_optimum_is_that_of_an_independent_search(seed):
    post, pre = models(seed)
    same = agreeing(post, pre)
    report = fitted(post, pre).report
    assert fitted(post, pre).value == pytest.approx(by_root_search(post[same], pre[same]), rel=1e-10)
    assert fit_naive_kl(post, pre).value == pytest.approx(by_root_search(post, pre), rel=1e-10)
    assert report.objective_before == pytest.approx(mean_kl(pre[same], post[same]), rel=1e-9)
    assert report.objective_after == pytest.approx(mean_kl(pre[same], post[same] / fitted(post, pre).value), rel=1e-7)
    assert (report.rows, report.rows_used, report.method) == (400, same.sum(), "daca")
    assert report.agreement_rate == same.mean()
    assert report.converged


def test_t1_full_agreement_is_naive_alignment():
    post, pre = models(0)
    same = agreeing(post, pre)
    assert fitted(post[same], pre[same]).value == fit_naive_kl(post[same], pre[same]).value


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 50.0))
def test_t2_and_t3_a_planted_temperature_is_found_in_any_order_of_the_options(seed, planted):
    pre = models(seed, n=50)[1]
    assert fitted(planted * pre, pre).value == pytest.approx(planted, rel=1e-7)
    order = np.random.default_rng(seed).permutation(4)
    post = models(seed, n=50)[0]
    assert fitted(post[:, order], pre[:, order]).value == pytest.approx(fitted(post, pre).value, rel=1e-10)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-30, 30), st.floats(-30, 30))
def test_t4_a_constant_added_to_a_row_changes_nothing(seed, first, second):
    post, pre = models(seed, n=50)
    ramp = np.arange(50)[:, None] / 25
    assert fitted(post + first * ramp, pre + second * ramp).value == pytest.approx(fitted(post, pre).value, rel=1e-9)


@pytest.mark.parametrize("fit", [fit_daca, fit_naive_kl])
def test_t5_no_parameter_takes_labels(fit):
    names = set(inspect.signature(fit).parameters)
    assert names <= {"post", "pre", "calibrator", "mask", "min_agree", "n_bootstrap", "seed", "bounds", "ridge"}


def test_t6_no_choice_changes():
    post, pre = models(1)
    assert (fitted(post, pre)(post).argmax(1) == post.argmax(1)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_t7_rows_of_disagreement_make_no_difference(seed):
    post, pre = models(seed, n=60, noise=2.0)
    same = agreeing(post, pre)
    assume(same.any())
    assert fitted(post[same], pre[same]).value == pytest.approx(fitted(post, pre).value, rel=1e-12)


def test_t8_disagreement_alone_drives_naive_alignment_to_the_bound_and_daca_refuses():
    pre = np.log([[0.7, 0.2, 0.1]] * 30)
    post = -3.0 * pre
    assert fit_naive_kl(post, pre).report.at_bound == "upper"
    assert fit_naive_kl(post, pre).value == 100.0
    with pytest.raises(FitError, match="none of the 30 rows"):
        fit_daca(post, pre)


def test_t9_the_paper_s_optimiser_agrees():
    import torch

    post, pre = models(2, n=512)
    same = torch.tensor(agreeing(post, pre))
    logits, reference = torch.tensor(post)[same], torch.tensor(softmax(pre, axis=1))[same]
    tau = torch.ones(1, requires_grad=True, dtype=torch.float64)
    adam = torch.optim.Adam([tau], lr=0.05)
    for _ in range(400):
        adam.zero_grad()
        loss = -(reference * torch.log_softmax(logits / tau, 1)).sum(1).mean()
        loss.backward()
        adam.step()
    assert fitted(post, pre).value == pytest.approx(tau.item(), abs=1e-2)


rows = st.lists(st.floats(-20, 20), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None)
@given(rows, rows)
def test_t10_the_temperature_is_endless_exactly_where_the_mean_gap_says_so(post, pre):
    post, pre = np.array([post]), np.array([pre])
    excess = float((softmax(pre, axis=1) * post).sum() - post.mean())
    assume(abs(excess) > 1e-6)
    report = fit_naive_kl(post, pre, n_bootstrap=0, bounds=(1e-6, 1e9)).report
    assert (report.at_bound == "upper") == (excess < 0.0)
    if excess < 0.0:
        losses = [mean_kl(pre, post / temperature) for temperature in np.geomspace(0.1, 1e3, 40)]
        assert (np.diff(losses) <= 1e-12).all()


def test_t10_a_small_probability_of_the_choice_is_not_enough():
    # p of the choice is 0.2 < 1/4, and still the optimum is finite
    with np.errstate(divide="ignore"):
        pre = np.log([[0.2, 0.8, 1e-12, 1e-12]])
    assert fit_naive_kl([[3.0, 2.9, 0.0, 0.0]], pre).report.at_bound == ""


def test_t11_daca_beats_naive_alignment_beats_nothing():
    rng = np.random.default_rng(0)
    pre = 1.5 * rng.normal(size=(20_000, 4))
    answers = (pre + rng.gumbel(size=pre.shape)).argmax(1)
    better = pre + 0.0
    changed = rng.random(len(pre)) < 0.25  # post-training taught it a quarter of the answers
    better[changed, answers[changed]] += 3.0
    post = 3.0 * better
    ece = {
        "none": top_label_ece(softmax(post, axis=1), answers),
        "naive": top_label_ece(np.exp(fit_naive_kl(post, pre)(post)), answers),
        "daca": top_label_ece(np.exp(fit_daca(post, pre)(post)), answers),
    }
    assert ece["daca"] < ece["naive"]
    assert ece["daca"] < ece["none"]


def test_t12_a_reference_that_is_sure_drives_the_temperature_to_its_lower_bound():
    pre = np.array([[900.0, 0.0, 0.0]] * 30)
    with pytest.warns(CalibrationWarning, match="outside the bounds"):
        fit = fit_daca([[2.0, 1.0, 0.0]] * 30, pre)
    assert (fit.value, fit.report.at_bound) == (0.01, "lower")


def test_few_rows_that_agree_are_a_warning_and_a_note():
    post, pre = models(3, n=19, noise=0.0)
    with pytest.warns(CalibrationWarning, match="Only 19 rows agree"):
        report = fit_daca(post, pre).report
    assert "Only 19 rows agree, fewer than 20." in report.notes
    assert fit_daca(post, pre, min_agree=19).report.notes == ()


def test_tied_options_agree_when_one_is_shared():
    tied = np.array([[1.0, 1.0, 0.0]] * 30)
    assert fit_daca(tied, [[0.0, 2.0, 0.0]] * 30).report.rows_used == 30
    with pytest.raises(FitError):
        fit_daca(tied, [[0.0, 0.0, 2.0]] * 30)


@pytest.mark.parametrize("kind", ["vector", "matrix"])
def test_vector_and_matrix_align_better_than_a_temperature(kind):
    post, pre = models(4, n=2000)
    post = post + np.array([1.5, 0.0, 0.0, 0.0])
    same = agreeing(post, pre)
    mapped = fit_daca(post, pre, kind)
    assert mapped.report.objective_after == pytest.approx(mean_kl(pre[same], mapped(post[same])), rel=1e-6)
    assert mapped.report.objective_after < fit_daca(post, pre).report.objective_after
    assert mapped.report.rows_used == same.sum()


@pytest.mark.parametrize("kind", ["vector", "matrix"])
def test_the_rescaled_mask_is_the_agreement_of_the_calibrated_model(kind):
    post, pre = models(5, n=2000)
    post = post + np.array([2.5, 0.0, 0.0, 0.0])
    mapped = fit_daca(post, pre, kind, mask="rescaled")
    assert mapped.report.rows_used == agreeing(mapped(post), pre).sum()
    assert mapped.report.rows_used > agreeing(post, pre).sum()
    assert mapped.report.notes == ()


def test_ragged_rows_need_the_same_options_on_both_sides():
    post, pre = models(6, n=60)
    post[:30, 3] = pre[:30, 3] = -np.inf
    same = agreeing(post, pre)
    finite = np.where(np.isfinite(post), post, -1e3)
    expected = by_root_search(finite[same], np.where(np.isfinite(pre), pre, -1e3)[same])
    assert fitted(post, pre).value == pytest.approx(expected, rel=1e-9)
    assert isinstance(fit_daca(post, pre, "vector"), VectorScaling)
    pre[0, 3] = 0.0
    with pytest.raises(InputError, match=r"row 0 they exist as \[True, True, True, False\] against"):
        fit_daca(post, pre)


def test_a_probability_of_zero_where_the_reference_has_some_leaves_the_row_out():
    post, pre = models(7, n=60)
    hard = post.copy()
    hard[0, post[0].argmin()] = -np.inf
    given = OptionScores(hard, "label", mask=np.ones(hard.shape), missing=np.zeros(hard.shape))
    fit = fitted(given, OptionScores(pre, "label:pre"))
    assert fit.value == pytest.approx(fitted(post[1:], pre[1:]).value, rel=1e-10)
    assert "1 rows were left out because 'post' has probability 0" in fit.report.notes[0]
    assert (fit.report.readout, fit.report.reference_readout) == ("label", "label:pre")


def test_rows_that_truncation_leaves_open_are_left_out_on_either_side():
    post, pre = models(8, n=60)
    open_rows = np.zeros(60, dtype=bool)
    open_rows[:2] = True
    sides = [OptionScores(side, "label", missing=np.repeat(rows[:, None], 4, axis=1))
             for side, rows in ((post, open_rows), (pre, np.roll(open_rows, 2)))]  # fmt: skip
    fit = fitted(*sides)
    assert fit.value == pytest.approx(fitted(post[4:], pre[4:]).value, rel=1e-10)
    assert [note[:5] for note in fit.report.notes] == ["post:", "pre: "]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[0.0, 1.0]], [[0.0, 1.0, 2.0]]), "Got 1 x 2 against 1 x 3"),
        (([[0.0, 1.0]] * 2, [[0.0, 1.0]]), "Got 2 x 2 against 1 x 2"),
        (([[0.0, np.nan]], [[0.0, 1.0]]), "'post'"),
        (([[0.0, 1.0]], [[0.0, np.nan]]), "'pre'"),
        (([[0.0, 1.0]], [[0.0, 1.0]], "platt"), "'calibrator' must be"),
    ],
)
def test_wrong_input_is_named(arguments, words):
    with pytest.raises(InputError, match=words):
        fit_daca(*arguments)


@pytest.mark.parametrize(
    "option",
    [{"mask": "soft"}, {"min_agree": -1}, {"n_bootstrap": 2.5}, {"seed": None}, {"bounds": (0, 1)}, {"ridge": -1}],
)
def test_wrong_options_are_named(option):
    with pytest.raises(InputError, match=f"'{next(iter(option))}'"):
        fit_daca(*models(0), **option)


def test_the_interval_is_that_of_refitting_every_resample():
    post, pre = models(9, n=150)
    same = np.flatnonzero(agreeing(post, pre))
    rng = np.random.default_rng(1)
    refits = [fit_naive_kl(post[rows], pre[rows], n_bootstrap=0).value
              for rows in (rng.choice(same, len(same)) for _ in range(1500))]  # fmt: skip
    low, high = fit_daca(post, pre, n_bootstrap=1500, seed=2).report.interval
    width = np.subtract(*np.percentile(refits, [97.5, 2.5]))
    assert low == pytest.approx(np.percentile(refits, 2.5), abs=0.1 * width)
    assert high == pytest.approx(np.percentile(refits, 97.5), abs=0.1 * width)


def test_the_interval_of_many_rows_covers_as_it_should():
    # 4 000 rows are resampled in random groups; sorted rows must neither narrow nor widen the interval
    widths = []
    for order in ("as drawn", "sorted"):
        post, pre = models(10, n=4000)
        if order == "sorted":  # by each row's own pull on the temperature, the worst order there is
            tempered = softmax(post / fitted(post, pre).value, axis=1)
            rank = np.argsort(((tempered - softmax(pre, axis=1)) * post).sum(1))
            post, pre = post[rank], pre[rank]
        low, high = fit_daca(post, pre, n_bootstrap=2000).report.interval
        assert low < fitted(post, pre).value < high
        widths.append(high - low)
    assert widths[0] == pytest.approx(widths[1], rel=0.12)


def test_the_interval_is_reproducible_and_may_be_left_out():
    post, pre = models(11)
    first, again, other = (fit_daca(post, pre, seed=seed).report.interval for seed in (0, 0, 1))
    assert first == again != other
    assert fitted(post, pre).report.interval is None


def test_a_flat_objective_keeps_one():
    fit = fit_daca(np.zeros((30, 3)), np.zeros((30, 3)))
    assert (fit, fit.report.interval) == (Temperature(1.0), None)
    assert "does not depend" in fit.report.notes[0]
