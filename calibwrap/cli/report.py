"""`calibwrap report`: the page again, from the files of an evaluation; and the building of that page for others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from calibwrap.answer_scores import UNANSWERED, AnswerScores, outcome_scores, unread
from calibwrap.base import Answer, Calibrator
from calibwrap.calibrators import Identity
from calibwrap.cli.comparison import COMPARISON, origins_of, shown_names, side_by_side
from calibwrap.cli.console import print_json, say
from calibwrap.cli.series import series_name
from calibwrap.decoders.reading import signed
from calibwrap.errors import InputError
from calibwrap.evaluate import RAW, Evaluation
from calibwrap.evaluate_free import outcome_questions
from calibwrap.halves import HALVES
from calibwrap.provenance import Provenance
from calibwrap.questions import FreeQuestion, Question
from calibwrap.report import Section, Series, reliability_picture, write_report
from calibwrap.saving import load
from calibwrap.score_records import with_bounds
from calibwrap.scores import Bools, OptionScores
from calibwrap.summary import Figure

MANY_UNREAD = 0.1
"""Share of questions without a readable answer above which there is a caution."""


def run(folders: Sequence[Path], picture: Path | None, as_json: bool) -> None:
    """Read the evaluations in `folders` and write their page: of one again, of several side by side."""
    read = {folder: read_evaluation(folder) for folder in folders}
    names = shown_names(folders)
    parts = {names[folder]: (result, section_of(names[folder], result, of)) for folder, (result, of) in read.items()}
    title, section = side_by_side(parts)
    page = folders[0] / ("report.html" if len(parts) == 1 else COMPARISON)
    origins = origins_of({name: result for name, (result, _) in parts.items()})
    command = " ".join(["calibwrap report", *names.values()])
    write_report(page, title, [section], provenance=origins, command=command)
    if picture is not None:
        reliability_picture(picture, section)
    if as_json:
        print_json({"report": str(page), "picture": None if picture is None else str(picture)})
    else:
        say(f"Report: {page}")


def section_of(title: str, result: Evaluation, decoder: Mapping[str, Any] | None = None) -> Section:
    """Return an evaluation's held-out part as a section of a report; `decoder` is what metrics.json says of it."""
    questions, _ = result.part(RAW)
    series = []
    for name in result.scores:
        calibrator = result.calibrators.get(name)
        report = None if calibrator is None else calibrator.report
        keeps = None if calibrator is None else calibrator.keeps_argmax
        series.append(Series(series_name(name, calibrator), result.part(name)[1], report, keeps))
    note = " ".join(filter(None, (halves_sentence(result), decoder_sentence(decoder), unread_caution(result))))
    return Section(title, questions, tuple(series), note)


def decoder_sentence(decoder: Mapping[str, Any] | None) -> str:
    """Return what a decoder cost and how many traces had no vote, in words; empty without one.

    >>> cost = {"traces": 80, "tokens": 1600, "tokens_per_question": 160.0, "unparsed": 8, "unparsed_share": 0.1}
    >>> decoder_sentence({"name": "confidence@8", "unanswered": 0, **cost}).partition(";")[0]
    'confidence@8 read 80 traces of 1600 tokens, 160 tokens a question'
    """
    if decoder is None:
        return ""
    if "judge" in decoder:
        return _free_sentence(decoder)
    threshold, saved = decoder.get("threshold"), decoder.get("traces_saved")
    without = "" if threshold is None else f"once the posterior was {threshold:g}, {saved} more were not needed; "
    return (
        f"{decoder['name']} read {decoder['traces']} traces of {decoder['tokens']} tokens, "
        f"{decoder['tokens_per_question']:.0f} tokens a question; {without}{decoder['unparsed']} traces "
        f"({decoder['unparsed_share']:.1%}) name no label and have no vote, and {decoder['unanswered']} questions have "
        "none that does: they count as wrong answers of confidence 0."
    )


def _free_sentence(decoder: Mapping[str, Any]) -> str:
    """Return what answers in free text cost, and how many say nothing that could be read."""
    return (
        f"{decoder['completions']} completions of {decoder['tokens']} tokens, {decoder['tokens_per_question']:.0f} "
        f"tokens a question; {decoder['unparsed']} of them ({decoder['unparsed_share']:.1%}) were malformed or said "
        f"nothing. Questions without an answer, which count as wrong at confidence 0: {decoder['unanswered']}. "
        f"{decoder['name']} answered, and the judge {decoder['judge']} said which answers are right."
    )


def unread_caution(result: Evaluation) -> str:
    """Return the caution that many held-out questions have no answer that could be read; empty where few have none."""
    _, scores = result.part(RAW)
    silent = unread(scores)
    if silent <= MANY_UNREAD * len(scores):
        return ""
    return (
        f"Caution: {silent} of {len(scores)} held-out questions have no answer that could be read. Each counts as "
        "wrong at confidence 0, which is never off, so that calibration looks better than it is: read the texts in "
        "predictions.jsonl, and change the template, the decoder or the most tokens of a completion."
    )


def halves_sentence(result: Evaluation) -> str:
    """Return what the fits do on average over random halves, in one sentence; empty without fits or answers."""
    defined = {name: figure for name, figure in result.halves.items() if figure.value is not None}
    told = [f"{series_name(name)} {f.value:.3f} ({f.low:.3f} to {f.high:.3f})" for name, f in defined.items()]
    if not told:
        return ""
    return (
        f"One split can be luck. Calibration error (ECE) of the held-out half, mean over {HALVES} random halves of all "
        f"{len(result.questions)} questions (95 % of the halves): {'; '.join(told)}."
    )


def write_page(
    path: Path, title: str, sections: Sequence[Section], result: Evaluation, command: str, notes: Sequence[str] = ()
) -> Path:
    """Write report.html and return its path."""
    write_report(path, title, sections, provenance=origins_of({title: result}), command=command, notes=notes)
    return path


def read_evaluation(folder: Path) -> tuple[Evaluation, Mapping[str, Any] | None]:
    """Return the evaluation that `calibwrap evaluate` wrote to `folder`, and what it says of a decoder.

    Raises:
        InputError: files are missing or broken; says which.
    """
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        read = _free_evaluation if "references" in rows[0] else _evaluation
        return read(folder, metrics, rows), metrics.get("decoder")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{folder} does not hold a finished evaluation ({type(error).__name__}: {error}); pass the folder that "
            "`calibwrap evaluate --out` wrote."
        ) from error


def _evaluation(folder: Path, metrics: dict[str, Any], rows: list[dict[str, Any]]) -> Evaluation:
    questions = tuple(
        Question(r["prompt"], r["options"], r["answer"], r["id"], r["context"], r.get("group", "")) for r in rows
    )
    scores = {name: _read_scores(rows, name, metrics["readout"]) for name in rows[0]["probabilities"]}
    reference = metrics["reference"]
    return Evaluation(
        questions,
        _held_out(rows),
        scores,
        _calibrators(folder, list(scores)),
        Provenance(**metrics["model"]),
        None if reference is None else Provenance(**reference),
        {name: Figure(**figure) for name, figure in metrics["ece_over_random_halves"].items()},
        metrics.get("usage", {}),
    )


def _free_evaluation(folder: Path, metrics: dict[str, Any], rows: list[dict[str, Any]]) -> Evaluation:
    asked = [FreeQuestion(r["prompt"], r["references"], r["id"], r["context"]) for r in rows]
    answers = [Answer(r["answer"], r["confidence"], tuple(r["bounds"])) for r in rows]
    calibrators = _calibrators(folder, list(rows[0]["confidences"]))
    scores = {
        name: outcome_scores([signed(answer, calibrator) for answer in answers], metrics["readout"])
        for name, calibrator in {RAW: Identity(), **calibrators}.items()
    }
    return Evaluation(
        outcome_questions(asked, answers, [r["correct"] for r in rows]),
        _held_out(rows),
        scores,
        calibrators,
        Provenance(**metrics["model"]),
        usage=metrics["usage"],
    )


def _held_out(rows: Sequence[Mapping[str, Any]]) -> Bools:
    return np.array([row["part"] == "held-out" for row in rows], dtype=np.bool_)


def _calibrators(folder: Path, series: Sequence[str]) -> dict[str, Calibrator]:
    return {name: load(folder / f"calibrator-{name}.json") for name in series if name != RAW}


def _read_scores(rows: list[dict[str, Any]], name: str, readout: str) -> OptionScores:
    mass = [np.nan if row["label_mass"] is None else row["label_mass"] for row in rows]
    with np.errstate(divide="ignore"):
        logprobs = [np.log(row["probabilities"][name]).tolist() for row in rows]
    truncated = [row.get("truncated", {}).get(name, {}) for row in rows]
    scores = with_bounds(OptionScores.from_rows(logprobs, readout, mass), truncated)
    if "choices" not in rows[0]:
        return scores
    picked = [UNANSWERED if row["choices"][name] is None else row["choices"][name] for row in rows]
    stated = [row["confidences"][name] for row in rows]
    own = {field.name: getattr(scores, field.name) for field in fields(scores)}
    return AnswerScores(**own, picked=np.array(picked, dtype=np.int64), stated=np.array(stated, dtype=np.float64))
