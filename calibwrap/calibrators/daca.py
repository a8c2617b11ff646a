"""Disagreement-aware alignment: calibrate a post-trained model without labels, after its pre-trained one.

Luo, Wang, Li, Wei, "Your Pre-trained LLM is Secretly an Unsupervised Confidence Calibrator", 2025. A pre-trained model
f is close to calibrated, its post-trained successor g is over-confident. With p = softmax(f) and q = softmax(phi(g)),
the map phi is the one of least mean KL(p || q) over the questions where both models choose the same option. Where they
choose differently, p says little of g's own choice and asks for a higher temperature, without end on a row with
sum_k p_k g_k <= mean_k g_k. No label is read anywhere.

Differences from the paper: a convex search in 1/T with a certificate in place of 400 epochs of Adam; where best options
are tied, the models agree if they share one of them; an interval of the temperature.
"""

from typing import Literal, overload

from calibwrap.calibrators._affine import RIDGE
from calibwrap.calibrators._align import Aligned, Interval, Kind, Mask, Scores, Settings, align, paired
from calibwrap.calibrators._inputs import check_some
from calibwrap.calibrators.matrix_scaling import MatrixScaling
from calibwrap.calibrators.temperature import Temperature
from calibwrap.calibrators.vector_scaling import VectorScaling
from calibwrap.errors import FitError

_BOUNDS = (0.01, 100.0)


@overload
def fit_daca(
    post: Scores, pre: Scores, calibrator: Literal["temperature"] = ..., *, mask: Mask = ..., min_agree: int = ...,
    n_bootstrap: int = ..., seed: int = ..., bounds: Interval = ..., ridge: float = ...,
) -> Temperature: ...  # fmt: skip
@overload
def fit_daca(
    post: Scores, pre: Scores, calibrator: Literal["vector"], *, mask: Mask = ..., min_agree: int = ...,
    n_bootstrap: int = ..., seed: int = ..., bounds: Interval = ..., ridge: float = ...,
) -> VectorScaling: ...  # fmt: skip
@overload
def fit_daca(
    post: Scores, pre: Scores, calibrator: Literal["matrix"], *, mask: Mask = ..., min_agree: int = ...,
    n_bootstrap: int = ..., seed: int = ..., bounds: Interval = ..., ridge: float = ...,
) -> MatrixScaling: ...  # fmt: skip


def fit_daca(
    post: Scores,
    pre: Scores,
    calibrator: Kind = "temperature",
    *,
    mask: Mask = "raw",
    min_agree: int = 20,
    n_bootstrap: int = 200,
    seed: int = 0,
    bounds: Interval = _BOUNDS,
    ridge: float = RIDGE,
) -> Aligned:
    """Return the calibrator of the post-trained model that aligns it with the pre-trained one where both agree.

    Args:
        post: (N, K) log-probabilities or logits of the post-trained model (both give the same), -inf where there is no
            option, or `OptionScores`. Truncated rows are used when their first choice is certain; in `post` they allow
            a temperature only.
        pre: The same of the pre-trained model, for the same questions and options in the same order.
        calibrator: "temperature", "vector" or "matrix".
        mask: Whose choice decides agreement for "vector" and "matrix": of `post` as it is ("raw"), or as calibrated
            ("rescaled": fitted again until the agreeing rows stay). A temperature changes no choice.
        min_agree: Fewer agreeing rows give a `CalibrationWarning`. Not pinned in the paper; 20 is ours.
        n_bootstrap: Resamples for the interval of the temperature; 0 for none.
        seed: Of the resamples; same seed, same interval.
        bounds: Lowest and highest temperature to consider; hit ones are in `report.at_bound`, with a warning.
        ridge: For "vector" and "matrix", as in `fit_vector_scaling`.

    `report.objective_before` and `report.objective_after` are the mean KL divergence in nats over the rows used.

    Raises:
        InputError: shapes or existing options differ, NaN, or an unknown `calibrator` or `mask`.
        CapabilityError: `post` is truncated and `calibrator` is no temperature.
        FitError: the models agree nowhere.

    >>> import numpy as np
    >>> pre = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]] * 10)
    >>> fit_daca(3.0 * pre, pre).value.__round__(6)  # sharpened three times
    3.0
    """
    pair = paired(post, pre)
    agree = pair.agreement()
    used = pair.usable & agree
    if not used.any():
        raise FitError(
            f"The models choose the same option in none of the {int(pair.usable.sum())} rows, so that nothing tells "
            "how confident the post-trained one may be. Check that both saw the same questions with the options in the "
            "same order, or use another reference."
        )
    return align(pair, used, "daca", calibrator, Settings(mask, min_agree, n_bootstrap, seed, bounds, ridge))


@overload
def fit_naive_kl(
    post: Scores, pre: Scores, calibrator: Literal["temperature"] = ..., *, n_bootstrap: int = ..., seed: int = ...,
    bounds: Interval = ..., ridge: float = ...,
) -> Temperature: ...  # fmt: skip
@overload
def fit_naive_kl(
    post: Scores, pre: Scores, calibrator: Literal["vector"], *, n_bootstrap: int = ..., seed: int = ...,
    bounds: Interval = ..., ridge: float = ...,
) -> VectorScaling: ...  # fmt: skip
@overload
def fit_naive_kl(
    post: Scores, pre: Scores, calibrator: Literal["matrix"], *, n_bootstrap: int = ..., seed: int = ...,
    bounds: Interval = ..., ridge: float = ...,
) -> MatrixScaling: ...  # fmt: skip


def fit_naive_kl(
    post: Scores,
    pre: Scores,
    calibrator: Kind = "temperature",
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
    bounds: Interval = _BOUNDS,
    ridge: float = RIDGE,
) -> Aligned:
    """Return the calibrator that aligns `post` with `pre` on ALL rows: the baseline that `fit_daca` improves on.

    Arguments, report and errors are those of `fit_daca`, but for rows where the models disagree, which stay in: there
    it takes away confidence that the post-trained model may deserve.

    >>> import numpy as np
    >>> pre = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]] * 10)
    >>> fit_naive_kl(3.0 * pre, pre).value.__round__(6)
    3.0
    """
    pair = paired(post, pre)
    check_some(pair.usable, pair.notes)
    return align(pair, pair.usable, "naive-kl", calibrator, Settings("raw", 0, n_bootstrap, seed, bounds, ridge))
