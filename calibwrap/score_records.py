"""Rows of option scores as JSON records and back: floats are exact in JSON, and are normalised again when read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from calibwrap.errors import JournalError
from calibwrap.scores import OptionScores


def row_record(scores: OptionScores, row: int, k: int) -> dict[str, Any]:
    """Return the first k options of one row as values that JSON knows; bounds only where a list was cut off.

    >>> row_record(OptionScores([[0.0, -np.inf]], readout="label"), 0, 2)
    {'logprobs': [0.0, None], 'label_mass': None}
    """
    mass = float(scores.label_mass[row])
    logprobs = [None if value == -np.inf else value for value in scores.logprobs[row, :k].tolist()]
    return {"logprobs": logprobs, **bounds_record(scores, row, k), "label_mass": None if np.isnan(mass) else mass}


def bounds_record(scores: OptionScores, row: int, k: int) -> dict[str, Any]:
    """Return what a cut-off list leaves open of the first k options of one row; nothing where it was not cut off.

    >>> bounds_record(OptionScores([[0.0, 0.0]], readout="label", lower=[[0.0, 0.5]], upper=[[0.5, 1.0]]), 0, 2)
    {'lower': [0.0, 0.5], 'upper': [0.5, 1.0], 'missing': [False, False], 'argmax_certified': True}
    """
    if not scores.is_cut[row]:
        return {}
    bounds = {name: getattr(scores, name)[row, :k].tolist() for name in ("lower", "upper", "missing")}
    return {**bounds, "argmax_certified": bool(scores.argmax_certified[row])}


def with_bounds(scores: OptionScores, records: Sequence[Mapping[str, Any]]) -> OptionScores:
    """Return the scores of N questions with what `bounds_record` said of each.

    >>> cut = {"lower": [0.25, 0.0], "upper": [1.0, 0.75], "missing": [False, True], "argmax_certified": False}
    >>> with_bounds(OptionScores([[0.0, 0.0]] * 2, readout="label"), [{}, cut]).upper.tolist()
    [[0.5, 0.5], [1.0, 0.75]]
    """
    arrays: dict[str, Any] = {
        name: np.array(getattr(scores, name)) for name in ("lower", "upper", "missing", "argmax_certified")
    }
    for row, record in enumerate(records):
        for name, values in record.items():
            arrays[name][row : row + 1].flat[: np.size(values)] = values
    return replace(scores, **arrays)


def row_scores(record: Mapping[str, Any], readout: str) -> OptionScores:
    """Return the scores (1, K) of one record.

    Raises:
        JournalError: a field is missing or has the wrong kind.

    >>> row_scores({"logprobs": [0.0, None], "label_mass": 0.5}, "label").probabilities.tolist()
    [[1.0, 0.0]]
    """
    try:
        logprobs = np.array([[-np.inf if v is None else v for v in record["logprobs"]]], dtype=np.float64)
        mass = np.array([np.nan if record["label_mass"] is None else record["label_mass"]], dtype=np.float64)
        names = ("lower", "upper", "missing", "argmax_certified")
        rest: dict[str, Any] = {name: np.array([record[name]]) for name in names if name in record}
        return OptionScores(logprobs, readout, np.ones(logprobs.shape, dtype=np.bool_), label_mass=mass, **rest)
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"The journal's line of question {record.get('id')!r} is not complete: {error}.") from error
