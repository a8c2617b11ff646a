"""`calibwrap check SPEC --against SPEC`: how far two models differ on the same questions, and what that means."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibwrap.base import Calibrator, Readout
from calibwrap.calibrators import Chain
from calibwrap.capabilities import check_needs
from calibwrap.cli.calibrator_files import load_calibrator
from calibwrap.cli.console import print_json, print_rows, progress_bar, say, say_spent
from calibwrap.cli.fit import Source
from calibwrap.cli.free_text import are_free
from calibwrap.cli.parts import open_model, read_readout
from calibwrap.errors import CapabilityError, InputError
from calibwrap.parity import Parity, parity
from calibwrap.provenance import Verdict
from calibwrap.questions import Question
from calibwrap.readouts import find_readout
from calibwrap.scores import OptionScores
from calibwrap.wrap import CalibratedLM, Progress


@dataclass(frozen=True)
class Pair:
    """Two models and how they are opened."""

    spec: str
    against: str
    settings: list[str] | None = None
    against_settings: list[str] | None = None


@dataclass(frozen=True)
class How:
    """How both are read, what is put on top, and how far they may differ."""

    readout: str | None = None
    template: Path | None = None
    calibrator: Path | None = None
    tolerance: float | None = None


def run(pair: Pair, source: Source, how: How, as_json: bool) -> None:
    """Print the parity report; exit code 1 where the largest difference is above the tolerance."""
    saved = None if how.calibrator is None else load_calibrator(how.calibrator)
    questions = source.questions()
    if are_free(questions):
        raise InputError(f"check compares option probabilities, and the questions of {source.data} are in free text.")
    say(f"{len(questions)} questions from {source.data}; loading {pair.spec} and {pair.against}", as_json)
    with ExitStack() as opened:
        first = opened.enter_context(open_model(pair.spec, pair.settings))
        second = opened.enter_context(open_model(pair.against, pair.against_settings))
        readout = read_readout(how.readout, how.template) or _common(first, second, saved)
        scores = _read(first, second, questions, readout, as_json)
        found = _compared(scores, questions, saved)
        report = {"readout": readout.label, **_origins(first, second, saved), **found}
    raw: Parity = found["raw"]
    is_within = None if how.tolerance is None else raw.largest <= how.tolerance
    if as_json:
        told = {name: asdict(one) if isinstance(one, (Parity, Verdict)) else one for name, one in report.items()}
        print_json({**told, "tolerance": how.tolerance, "within_tolerance": is_within})
    else:
        _print(questions, report)
    if is_within is False:
        say(f"The largest difference, {raw.largest:.2g}, is above the tolerance of {how.tolerance:g}.", as_json)
        sys.exit(1)


def _common(first: CalibratedLM, second: CalibratedLM, saved: Calibrator | None) -> Readout:
    """Return the calibrator's readout, else the first one that both models can give.

    Raises:
        CapabilityError: there is none.
    """
    if saved is not None and saved.report is not None and saved.report.readout:
        return find_readout(saved.report.readout)
    problems = []
    for readout in (first.readout, second.readout, find_readout("label"), find_readout("label:letter-chat")):
        try:
            for lm in (first, second):
                check_needs(f"readout {readout.label!r}", readout.needs, lm.adapter.name, lm.adapter.provides)
        except CapabilityError as error:
            problems.append(str(error))
        else:
            return readout
    raise CapabilityError(f"No readout works on both models. {problems[-1]}")


def _read(
    first: CalibratedLM, second: CalibratedLM, questions: list[Question], readout: Readout, quiet: bool
) -> tuple[OptionScores, OptionScores]:
    """Return both models' scores, one after the other under one bar."""
    with progress_bar("questions, both models", quiet) as progress:

        def later(start: int) -> Progress:
            return lambda done, _: progress(start + done, 2 * len(questions))

        return (
            first.scores(questions, readout, later(0)),
            second.scores(questions, readout, later(len(questions))),
        )


def _compared(
    scores: tuple[OptionScores, OptionScores], questions: Sequence[Question], saved: Calibrator | None
) -> dict[str, Any]:
    """Return the parity of the raw scores, and that of the same calibrator on both."""
    answers = [question.answer for question in questions]
    raw = parity(*scores, answers)
    furthest = questions[raw.furthest]
    return {
        "raw": raw,
        "calibrated": None if saved is None else parity(saved(scores[0]), saved(scores[1]), answers),
        "furthest": {"id": furthest.id or f"#{raw.furthest}", "prompt": furthest.prompt},
    }


def _origins(first: CalibratedLM, second: CalibratedLM, saved: Calibrator | None) -> dict[str, Any]:
    """Return who the two are, whether a calibrator may move between them, and what was spent."""
    one, two = first.adapter.fingerprint(), second.adapter.fingerprint()
    return {
        "model": asdict(one),
        "against": asdict(two),
        "verdict": one.verdict(two),
        "calibrator": None if saved is None else _calibrator(saved, first, second),
        "usage": {"model": dict(first.adapter.usage()), "against": dict(second.adapter.usage())},
    }


def _calibrator(saved: Calibrator, first: CalibratedLM, second: CalibratedLM) -> dict[str, str]:
    """Return the calibrator's kind and what moving it to each of the models means."""
    part = saved.parts[0] if isinstance(saved, Chain) and saved.report is None else saved
    fitted = None if part.report is None else part.report.provenance
    unknown = "it does not say where it was fitted"
    told = [unknown if fitted is None else fitted.verdict(lm.adapter.fingerprint()).summary for lm in (first, second)]
    return {"kind": saved.kind, "model": told[0], "against": told[1]}


def _print(questions: Sequence[Question], report: Mapping[str, Any]) -> None:
    raw, calibrated, verdict = report["raw"], report["calibrated"], report["verdict"]
    states = {"raw": raw} if calibrated is None else {"raw": raw, report["calibrator"]["kind"]: calibrated}
    title = f"Option probabilities, {len(questions)} questions, {report['readout']}"
    print_rows(title, ["difference", *states], [[name, *map(of, states.values())] for name, of in _DIFFERENCES.items()])
    rows = [[name, of(raw.first), of(raw.second)] for name, of in _SIDES.items()]
    if calibrated is not None:
        rows.insert(
            2, [f"ECE, {report['calibrator']['kind']}", *map(_SIDES["ECE"], (calibrated.first, calibrated.second))]
        )
        rows.append(["calibrator", *(_found(report["calibrator"][name]) for name in ("model", "against"))])
    names = _names(report["model"], report["against"])
    print_rows("Each model", ["", *names], rows)
    say(f"From the first to the second: {_found(verdict.summary)}.")
    for reason in verdict.reasons:
        say(f"- {reason}")
    say(f"They differ most on question {report['furthest']['id']}: {report['furthest']['prompt']}")
    for name, usage in zip(names, report["usage"].values(), strict=True):
        say_spent(usage, name)


def _names(*origins: Mapping[str, str]) -> list[str]:
    """Return what the two models are called; the same name twice is numbered.

    >>> _names({"runtime": "openai", "model": "small"}, {"runtime": "openai", "model": "small"})
    ['first, openai:small', 'second, openai:small']
    """
    names = [f"{one['runtime']}:{one['model']}" for one in origins]
    if len(set(names)) == len(names):
        return names
    return [f"{place}, {name}" for place, name in zip(("first", "second"), names, strict=True)]


def _found(summary: str) -> str:
    """Return a verdict's words for people who have just measured, as it advises.

    >>> _found("same tokenizer and template on another runtime: check with --against")
    'same tokenizer and template on another runtime; the figures above say how far they differ'
    >>> _found("different model")
    'different model'
    """
    known, advice, _ = summary.partition(": check with --against")
    return f"{known}; the figures above say how far they differ" if advice else known


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_DIFFERENCES: Mapping[str, Callable[[Parity], str]] = {
    "largest": lambda found: f"{found.largest:.2g}",
    "mean": lambda found: f"{found.mean:.2g}",
    "99th percentile": lambda found: f"{found.percentile99:.2g}",
    "largest beyond bounds": lambda found: f"{found.beyond_bounds:.2g}",
    "same first choice": lambda found: _share(found.same_choice),
}
_SIDES: Mapping[str, Callable[[Any], str]] = {
    "accuracy": lambda side: _share(side.accuracy),
    "ECE": lambda side: _number(side.ece),
    "mean confidence": lambda side: _number(side.mean_confidence),
    "label mass": lambda side: _number(side.label_mass),
    "options not listed": lambda side: str(side.missing),
    "first choice not certain": lambda side: str(side.uncertain),
}
