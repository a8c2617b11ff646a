"""The parts of a report that say where its numbers come from: readout, fits, models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from calibwrap.provenance import Candidate, FitReport, Provenance
from calibwrap.readouts import keeps_argmax
from calibwrap.report.markup import Markup, join, own, table, tag
from calibwrap.report.records import Section, Series
from calibwrap.report.words import counted, names, share, written
from calibwrap.scores import OptionScores

LITTLE_MASS = 0.5
"""Label mass below which the report says that the model would mostly say something else than an option."""

ROWS = {
    "runtime": "Runtime",
    "model": "Model",
    "revision": "Revision",
    "dtype": "Number format",
    "tokenizer": "Tokenizer",
    "template": "Chat template",
    "semantics": "Log-probabilities",
}
"""What the fields of a provenance are called."""


def readout_lines(section: Section) -> list[str]:
    """Return what the backend gave for a section: readout, options, label mass, and what was cut off.

    >>> from calibwrap.questions import Question
    >>> from calibwrap.report.records import Series
    >>> raw = Series("raw", OptionScores([[0.0, -1.0]], readout="label:letter", label_mass=[0.25]))
    >>> readout_lines(Section("set", (Question("?", ["a", "b"]),), (raw,)))[1][:50]
    'The model itself put 25% of its probability on the'
    """
    scores = section.series[0].scores
    if section.is_free:
        return _free_lines(scores)
    sizes = sorted({len(question.options) for question in section.questions})
    options = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    first = {one.scores.readout: one.scores for one in reversed(section.series)}
    read = names(list(dict.fromkeys(one.scores.readout for one in section.series)))
    lines = [f"{counted(len(scores), 'question')} with {options} options each, read with {read}."]
    for readout, of in reversed(first.items()):
        lines += [f"{readout}: {line}" if len(first) > 1 else line for line in _read_lines(of)]
    return lines


def _read_lines(scores: OptionScores) -> list[str]:
    """Return what one readout gave: label mass, whether it may choose by itself, and what was cut off."""
    lines = []
    if np.isfinite(scores.label_mass).any():
        mass = float(np.nanmedian(scores.label_mass))
        line = f"The model itself put {share(mass)} of its probability on the options (median over the questions)."
        is_odd = mass < LITTLE_MASS and scores.readout.startswith("label")  # whole texts are always improbable
        lines.append(line + (" Most of it went elsewhere: look at the template." if is_odd else ""))
    if not keeps_argmax(scores.readout):
        lines.append(
            "This readout is not the model's own answer: the first choice, and so the accuracy, may be another."
        )
    if not scores.is_exact:
        lines.append(_cut_off(scores))
    return lines


def _free_lines(scores: OptionScores) -> list[str]:
    """Return what answered questions in free text, and what a truncated list hides of the confidences."""
    lines = [f"{counted(len(scores), 'question')} in free text, answered by {scores.readout}."]
    if not scores.is_exact:
        touched = counted(int(scores.is_cut.sum()), "answer")
        lines.append(f"Of {touched} the backend's list showed a part only: the true confidence lies in an interval.")
    return lines


def _cut_off(scores: OptionScores) -> str:
    """Return what a truncated list hides."""
    touched = int(scores.is_cut.sum())
    unsure = int((~scores.argmax_certified).sum())
    return (
        f"In {counted(touched, 'question')} the backend's list did not show everything; an option that it did not show "
        f"counts with a tenth of its upper bound. In {counted(unsure, 'question')} even the first "
        "choice is therefore not certain."
    )


def fits(section: Section) -> Markup | None:
    """Return one card for each fitted state; None when nothing was fitted."""
    cards = [_card(one, one.fit, index) for index, one in enumerate(section.series) if one.fit is not None]
    return tag("div", *cards, class_="cards") if cards else None


_CHOICE = {True: "always stays, and so does the accuracy", False: "may change: look at the accuracy", None: None}
"""What people read for whether a calibrator keeps the first choice."""


def _card(one: Series, fit: FitReport, index: int) -> Markup:
    """Return how one state was fitted."""
    objective = f"{written('nll', fit.objective_before)} → {written('nll', fit.objective_after)} nats"
    lines: list[tuple[str, str | None]] = [
        ("method", fit.method),
        ("rows used", f"{fit.rows_used:,} of {fit.rows:,}"),
        ("both models agree", None if fit.agreement_rate is None else f"on {share(fit.agreement_rate)} of the rows"),
        (
            "temperature, 95% interval",
            None if fit.interval is None else f"{fit.interval[0]:.3f} to {fit.interval[1]:.3f}",
        ),
        ("objective", objective),
        ("search", _search(fit)),
        ("first choice", _CHOICE[one.keeps_argmax]),
        ("readout", fit.readout or None),
        ("reference readout", fit.reference_readout or None),
        ("date", fit.date or None),
    ]
    facts = [join([tag("dt", key), tag("dd", value)]) for key, value in lines if value is not None]
    heading = tag("h4", tag("span", class_=f"swatch s{index % 4}"), one.name)
    notes = [tag("p", note, class_="note") for note in fit.notes]
    compared = [_compared(one.name, fit.candidates)] if fit.candidates else []
    return tag("div", heading, tag("dl", *facts, class_="facts"), *compared, *notes, class_="card")


def _compared(name: str, candidates: Sequence[Candidate]) -> Markup:
    """Return the table of the methods that a fit chose from: log loss on held-out folds, in nats."""
    rows = [
        [
            one.method,
            "–" if one.log_loss is None else written("nll", one.log_loss),
            "–" if one.difference is None else " to ".join(written("nll", end, signed=True) for end in one.difference),
            "chosen" if one.chosen else one.note,
        ]
        for one in candidates
    ]
    head = ["Compared", "Log loss (nats)", "Minus the plain method's", "Outcome"]
    return table(f"Methods compared for {name}, on held-out folds", head, rows)


def _search(fit: FitReport) -> str:
    """Return whether the optimum can be trusted."""
    if fit.at_bound:
        return f"stopped at the {fit.at_bound} bound: the data ask for more than the search allows"
    return "converged" if fit.converged else "did NOT converge: do not trust this fit"


_SPENT = {
    "requests": "request",
    "cached": "cached answer",
    "prompt_tokens": "prompt token",
    "completion_tokens": "completion token",
}


def usage_text(usage: Mapping[str, int]) -> str:
    """Return what was spent, as people say it; empty where nothing is billed.

    >>> usage_text({"requests": 12, "retries": 1, "cached": 0, "prompt_tokens": 4200, "completion_tokens": 12})
    '12 requests, 1 of them repeated, 4,200 prompt tokens, 12 completion tokens'
    """
    parts = []
    for name, number in usage.items():
        if name == "retries" and number:
            parts.append(f"{number:,} of them repeated")
        elif number or name == "requests":
            parts.append(counted(number, _SPENT.get(name, name)))
    return ", ".join(parts)


Origin = str | Provenance | Mapping[str, str]
"""A fact, or a model: a provenance record, or its fields by name."""


def origins(given: Mapping[str, Origin], sections: Sequence[Section]) -> Markup:
    """Return the provenance: one column for each model, then the facts that are plain texts."""
    models = {name: _fields(value) for name, value in given.items() if not isinstance(value, str)}
    models |= _fitted_models(sections, models)
    facts = [[name, own(value)] for name, value in given.items() if isinstance(value, str)]
    parts: list[Markup] = []
    if models:
        keys = list(dict.fromkeys([*ROWS, *(key for model in models.values() for key in model)]))
        used = [key for key in keys if any(key in model for model in models.values())]
        rows = [[ROWS.get(key, key), *(own(model.get(key, "–")) for model in models.values())] for key in used]
        parts.append(table("Models", ["", *models], rows, class_="provenance"))
    if facts:
        parts.append(table("Facts", ["Fact", "Value"], facts, class_="provenance"))
    return join(parts) if parts else tag("p", "Nothing was recorded about the model.", class_="soft")


def _fields(model: Provenance | Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a model that say something."""
    pairs = asdict(model) if isinstance(model, Provenance) else dict(model)
    return {key: value for key, value in pairs.items() if value}


def _fitted_models(sections: Sequence[Section], given: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return the models that the fits name and that are not known by then."""
    found: dict[str, dict[str, str]] = {}
    for section in sections:
        for one in section.series:
            pairs = [] if one.fit is None else [("fitted on", one.fit.provenance), ("reference", one.fit.reference)]
            for role, model in pairs:
                if model is not None and _fields(model) not in [*given.values(), *found.values()]:
                    found[f"{role}, {one.name}"] = _fields(model)
    return found
