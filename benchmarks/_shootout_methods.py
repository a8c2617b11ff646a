"""The rows of the shoot-out: every fit of the shelf, readouts that correct another one, and the hidden-state probe."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from _shootout_probe import PROBE, fit_head_on_states
from _shootout_scores import Stored

import calibwrap as cw
from calibwrap.calibrators import FITS, GroupTemperature, Identity, TopLabel, fit_batch, fit_named
from calibwrap.calibrators.soft_labels import soft_labels
from calibwrap.training.head import train_catto_head
from calibwrap.training.head_positions import positions_of_options

LABELLED = "temperature"
"""The row that all others are compared with: one number, fitted with labels."""
HEADS = (("hard", "bce"), ("surrogate", "l1"))
"""Target and loss of the CATTO heads: the default, and the paper's."""

Fit = Callable[[Stored, cw.OptionScores], Any]
"""Takes what was read of the fit half, and the reference's scores of the same questions."""


@dataclass(frozen=True)
class Method:
    """One row of the tables."""

    name: str
    uses: str
    """What the fit is handed: "labels", "reference", "scores", or "nothing"."""
    fit: Fit
    reads: str = ""
    """Which reading it maps: the readout itself, "contextual", "permuted" or "probe" around or beside it."""
    in_groups: bool = False
    """Whether it tells groups of questions apart, so that it takes more sets than one."""


def methods() -> list[Method]:
    """Return all rows; of a set, those can be judged whose readings are there."""
    found = [Method("identity", "nothing", nothing)]
    for spec in FITS.values():
        uses = "labels" if spec.needs_answers else "reference" if spec.needs_reference else "scores"
        found.append(Method(spec.name, uses, partial(registered, spec.name), in_groups=spec.needs_groups))
    found.append(Method("batch, matched-mean", "reference", batch_then_mean))
    found.append(Method("platt of the first choice", "reference", platt_alone))
    found += [Method(f"catto-head:{of}:{loss}", "labels", partial(head, of, loss)) for of, loss in HEADS]
    for around in ("contextual", "permuted"):
        found.append(Method(around, "nothing", nothing, around))
        found.append(Method(f"{around}, matched-mean", "reference", partial(registered, "matched-mean"), around))
        found.append(Method(f"{around}, {LABELLED}", "labels", partial(registered, LABELLED), around))
    return [*found, Method(PROBE, "labels", lambda read, other: fit_head_on_states(read.scores, read.answers), PROBE)]


def nothing(read: Stored, other: cw.OptionScores) -> cw.Calibrator:
    """Return the identity: the reading as it is."""
    return Identity()


def registered(name: str, read: Stored, other: cw.OptionScores) -> cw.Calibrator:
    """Return the fit of this name, without the resamples that only a report shows; labels go to who needs them."""
    spec = fit_named(name)
    options: dict[str, Any] = {"n_bootstrap": 0} if spec.resamples else {}
    if spec.needs_groups:
        options["groups"] = read.groups
    return spec(read.scores, answers=read.answers if spec.needs_answers else None, reference=other, **options)


def batch_then_mean(read: Stored, other: cw.OptionScores) -> cw.Calibrator:
    """Return batch calibration, which moves probability between places, and a matched mean of what it gives."""
    first = fit_batch(read.scores)
    return cw.chain(first, cw.fit_matched_mean(first(read.scores), other, n_bootstrap=0))


def platt_alone(read: Stored, other: cw.OptionScores) -> cw.Calibrator:
    """Return what "soft:platt" is without the temperature before it: the other options stay as sharp as they are."""
    rows = soft_labels(read.scores, other, "platt of the first choice")
    return TopLabel(cw.fit_platt(rows.confidence, rows.correct))


def head(target: Any, loss: Any, read: Stored, other: cw.OptionScores) -> cw.Calibrator:
    """Return a CATTO head on options; the last third of the questions says which epoch is kept."""
    cut = 2 * len(read.answers) // 3
    sides = [read.take(rows) for rows in np.split(np.arange(len(read.answers)), [cut])]
    rows = [positions_of_options(side.scores, side.answers) for side in sides]
    return train_catto_head(*rows, target=target, loss=loss, seed=0)


def mapped(calibrator: Any, read: Stored) -> cw.OptionScores:
    """Return what a fitted method makes of what was read."""
    if isinstance(calibrator, GroupTemperature):
        return calibrator(read.scores, groups=read.groups)
    return calibrator(read.scores)
