"""Rows of option scores as JSON records and back: floats are exact in JSON, and are normalised again when read."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calibwrap.errors import JournalError
from calibwrap.scores import OptionScores


def row_record(scores: OptionScores, row: int, k: int) -> dict[str, Any]:
    """Return the first k options of one row as values that JSON knows; bounds only where a list was cut off.

    >>> row_record(OptionScores([[0.0, -np.inf]], readout="label"), 0, 2)
    {'logprobs': [0.0, None], 'label_mass': None}
    """
    mass, cut = float(scores.label_mass[row]), scores.is_cut[row]
    names = ("logprobs", "lower", "upper", "missing") if cut else ("logprobs",)
    listed = {name: [None if v == -np.inf else v for v in getattr(scores, name)[row, :k].tolist()] for name in names}
    certified = {"argmax_certified": bool(scores.argmax_certified[row])} if cut else {}
    return {**listed, **certified, "label_mass": None if np.isnan(mass) else mass}


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
