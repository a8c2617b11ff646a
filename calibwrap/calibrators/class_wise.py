"""Class-wise calibration: each label against all others by a map of its own, then renormalised.

Zadrozny, Elkan, "Transforming classifier scores into accurate multiclass probability estimates", 2002. For labels that
mean the same in every question, such as yes, no and maybe; not for letters whose options are shuffled.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Calibrator
from calibwrap.calibrators._confidence import CLIP, ConfidenceCalibrator, tied
from calibwrap.calibrators._confidence_fits import fit_part
from calibwrap.calibrators._inputs import check_uncut, fit_rows, today
from calibwrap.calibrators.top_label import checked_rows
from calibwrap.errors import FitError, InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats, Ints, OptionScores


@dataclass(frozen=True)
class ClassWise(Calibrator):
    """Maps the k-th option's probability by `parts[k]`, and divides by the sum; the first choice may change.

    A question with fewer than K options uses the first parts; one with more is refused. Mapped probabilities are kept
    within `CLIP` and 1 - `CLIP` before the division, so that no row is without mass.

    Raises:
        InputError: `parts` are not at least one map of one confidence each.

    >>> from calibwrap.calibrators import Platt
    >>> trusted, distrusted = Platt(1.0, 0.0), Platt(1.0, -np.log(4.0))
    >>> np.exp(ClassWise((trusted, distrusted))(np.log([[0.5, 0.5]]))).round(4).tolist()  # 1/2 and 1/5
    [[0.7143, 0.2857]]
    """

    kind: ClassVar[str] = "class-wise"
    parts: tuple[ConfidenceCalibrator, ...]
    """One map for each of the K labels."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the parts."""
        parts = self.parts if isinstance(self.parts, (tuple, list)) else (self.parts,)
        if not parts or not all(isinstance(part, ConfidenceCalibrator) for part in parts):
            raise InputError(f"'parts' of ClassWise must map one confidence each, as Platt does. Got {self.parts!r}.")
        object.__setattr__(self, "parts", tuple(parts))

    def logits(self, logprobs: Floats) -> Floats:
        """Return the logarithms of the mapped probabilities; -inf stays -inf.

        Raises:
            InputError: more options than there are parts.
        """
        k = logprobs.shape[-1]
        if k > len(self.parts):
            raise InputError(
                f"This ClassWise was fitted on {len(self.parts)} labels and {k} options came: fit it on questions with "
                "as many, or use TopLabel or Temperature, which take any number."
            )
        probabilities = tied(np.exp(logprobs))
        columns = [part(probabilities[..., index]) for index, part in enumerate(self.parts[:k])]
        mapped = np.clip(np.stack(columns, axis=-1), CLIP, 1.0 - CLIP)
        return np.where(logprobs > -np.inf, np.log(mapped), -np.inf)


def fit_class_wise(
    logprobs: OptionScores | ArrayLike, answers: ArrayLike, *, method: str = "platt", **options: Any
) -> ClassWise:
    """Return one map a label, each fitted to whether its label is the right one.

    Args:
        logprobs: (N, K) log-probabilities or logits (both give the same), -inf where there is no option, or
            `OptionScores`, none of them truncated.
        answers: (N,) index of each row's right option.
        method: "platt", "beta", "isotonic", "histogram" or "venn-abers".
        options: passed to the method, such as `n_bins=`.

    Raises:
        InputError: wrong shapes, NaN, an answer out of range, or an unknown method.
        CapabilityError: truncated scores.
        FitError: a label that is an option nowhere, or the method asks for more rows.

    >>> fitted = fit_class_wise(np.log([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2), [0, 0, 0, 1, 1, 0], method="isotonic")
    >>> np.exp(fitted(np.log([[0.9, 0.1]]))).round(4).tolist()
    [[0.75, 0.25]]
    """
    name = f"class-wise:{method}"
    rows = fit_rows("logprobs", logprobs)
    check_uncut(name, rows)
    normalised, right = checked_rows(rows, answers)
    fitted = [_one_label(normalised, right, label, method, options) for label in range(normalised.shape[1])]
    made = ClassWise(tuple(part for part, _ in fitted))
    possible = normalised[np.arange(len(right)), right] > -np.inf
    seen = np.arange(len(right))[possible], right[possible]
    report = FitReport(
        method=name,
        rows=len(right),
        rows_used=len(right),
        objective_before=-float(normalised[seen].sum()) / max(len(seen[0]), 1),
        objective_after=-float(made(normalised)[seen].sum()) / max(len(seen[0]), 1),
        converged=all(one.converged for _, one in fitted),
        notes=tuple(f"Label {label}: {note}" for label, (_, one) in enumerate(fitted) for note in one.notes),
        readout=rows.readout,
        date=today(),
    )
    return replace(made, report=report)


def _one_label(
    logprobs: Floats, right: Ints, label: int, method: str, options: dict[str, Any]
) -> tuple[ConfidenceCalibrator, FitReport]:
    """Return the map of one label's probability to whether it is the right one, and its report."""
    exists = logprobs[:, label] > -np.inf
    if not exists.any():
        raise FitError(f"Label {label} is an option of none of the {len(right)} rows: leave its column out.")
    confidence = tied(np.exp(logprobs[exists, label]))
    return fit_part(method, confidence, (right[exists] == label).astype(np.float64), **options)
