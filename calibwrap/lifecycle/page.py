"""The study's report: one HTML file that needs nothing but itself."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from calibwrap.files import replacing
from calibwrap.lifecycle.drawings import Line, Reach, against, along, heat, interval_rows, legend, place_in_words
from calibwrap.lifecycle.result import Finding, Study
from calibwrap.lifecycle.settings import COLUMNS
from calibwrap.report.figures import diagram_legend, diagram_numbers
from calibwrap.report.markup import Markup, join, own, table, tag
from calibwrap.report.page import head
from calibwrap.report.svg import reliability_diagram

MEANINGS = {
    "generation": "Next tokens at places of texts: the confidence is the probability of the likeliest token, and it is "
    "right when that is the token of the text.",
    "factuality": "The first token of each entity or answer in a text, given all that stands before it.",
    "understanding": "Questions with options: the confidence is the probability of the likeliest option among them.",
}
GUIDE = (
    "A model is calibrated when, of all that it gives with 70% confidence, 70% is right. The calibration error (ECE) "
    "sorts events into bins by confidence and averages the gaps between mean confidence and share right, weighted by "
    "the number of events. A small ECE at an accuracy near chance says little: look at both.",
    "The gap is mean confidence minus accuracy: above 0 the model claims too much. The Brier score is the mean squared "
    "difference between confidence and right (1) or wrong (0); the negative log-likelihood (nats) is that of what was "
    "right; AUROC asks whether what is right gets the higher confidences.",
    "An ECE is never below 0, and chance alone lifts it: a model without any error has an ECE of about 0.06 over 300 "
    "events, and the interval of so small an ECE lies above the truth. The gap has no such lift; of two models on the "
    "same events both have it.",
    "Intervals are 95% intervals over texts or questions: texts are dealt into blocks by their names, and blocks are "
    "resampled, so that the places of one text stay together. Changes are measured on the same blocks of both models. "
    "None of this covers a change of texts, prompts or seeds of training.",
    "With another tokenizer the events of texts are other events: such a model has no change beside the base.",
)
_COLUMNS = ("n", "Accuracy", "Confidence", "ECE", "ECE, change", "Gap", "Brier", "NLL", "AUROC")
_NUMBERED = 2
"""Fewest models of which pictures compare anything."""
_PLACES = 3
"""Fewest places on an axis that are worth a line."""
_LINES = 4
"""Most lines in one drawing: as many as there are colours that everybody can tell apart."""
Row = dict[str, Any]


def write_page(study: Study, rows: Sequence[Row], path: Path, command: str = "") -> Path:
    """Write the report to `path`, whole or not at all, and return it."""
    with replacing(path) as part:
        part.write_text(page_of(study, rows, command), encoding="utf-8", newline="\n")
    return path


def page_of(study: Study, rows: Sequence[Row], command: str = "") -> str:
    """Return the report as one HTML page: inline style and drawings, no script, nothing fetched."""
    probes = list(dict.fromkeys(row["probe"] for row in rows))
    parts = [
        tag("h1", study.settings.title),
        _lead(study, rows, probes),
        *(
            tag("p", tag("strong", own(name)), " could not be measured: ", own(why), class_="note")
            for name, why in study.failures.items()
        ),
        *(tag("p", own(note), class_="note") for note in study.notes()),
        *(_section(study, probe, [row for row in rows if row["probe"] == probe]) for probe in probes),
        tag("h2", "How to read this"),
        *(tag("p", text) for text in GUIDE),
        join([tag("h2", "Command"), tag("pre", tag("code", command))]) if command else None,
        tag("footer", tag("p", f"Written by calibwrap {version('calibwrap')}.")),
    ]
    return f"<!doctype html>\n{tag('html', head(study.settings.title), tag('body', tag('main', *parts)), lang='en')}\n"


def _lead(study: Study, rows: Sequence[Row], probes: Sequence[str]) -> Markup:
    """Return the result in plain words, a sentence or two a probe."""
    if not rows:
        return tag("div", tag("p", "No model could be measured."), class_="lead")
    return tag("div", *(tag("p", _sentence(study, probe, rows)) for probe in probes), class_="lead")


def _sentence(study: Study, probe: str, rows: Sequence[Row]) -> str:
    mine = [row for row in rows if row["probe"] == probe]
    mine = [row for row in mine if row["comparable"]] or mine  # others saw other events
    best, worst = min(mine, key=lambda row: row["ece"]), max(mine, key=lambda row: row["ece"])
    if best is worst:
        return f"{probe.capitalize()}: {best['model']} has an ECE of {best['ece']:.3f} at {best['accuracy']:.1%} right."
    said = (
        f"{probe.capitalize()}: the ECE goes from {best['ece']:.3f} ({best['model']}, {best['accuracy']:.1%} right) to "
        f"{worst['ece']:.3f} ({worst['model']}, {worst['accuracy']:.1%} right)."
    )
    beyond = [row for row in mine if row["ece_change_low"] is not None and row["model"] != study.base]
    worse = sum(row["ece_change_low"] > 0.0 for row in beyond)
    better = sum(row["ece_change_high"] < 0.0 for row in beyond)
    if beyond:
        said += (
            f" Beside {study.base} it is higher beyond the noise for {worse} of {len(beyond)}, and lower for {better}."
        )
    return said


def _section(study: Study, probe: str, rows: Sequence[Row]) -> Markup:
    """Return everything on one probe."""
    found = study.of(probe)
    names = [row["model"] for row in rows]
    base = names.index(study.base) if study.base in names else None
    several = len(rows) >= _NUMBERED
    reaches = [_reach(row, "ece") for row in rows]
    points = [(row["confidence"], row["accuracy"]) for row in rows]
    return join(
        [
            tag("h2", probe.capitalize()),
            tag("p", MEANINGS.get(probe, ""), class_="soft"),
            _table(rows, has_base=base is not None),
            join(
                [
                    tag("h3", "Calibration error, and accuracy against confidence"),
                    tag(
                        "div",
                        tag("figure", interval_rows(names, reaches, f"ECE of each model, {probe}", "ECE", base)),
                        tag(
                            "figure",
                            against(points, f"Accuracy against mean confidence, {probe}"),
                            tag("figcaption", "Numbers are those of the table; below the line: claims too much."),
                        ),
                        class_="figures",
                    ),
                ]
            )
            if several
            else None,
            *_axes(rows),
            tag("h3", "Reliability, and how often which confidence was stated"),
            diagram_legend(),
            tag("div", *(_diagram(one) for one in found), class_="figures"),
            _groups(found),
        ]
    )


def _table(rows: Sequence[Row], *, has_base: bool) -> Markup:
    head_cells = ["Model", *_COLUMNS]
    lines = []
    for index, row in enumerate(rows):
        change = _with_interval(row, "ece_change", "+.3f") if row["comparable"] else "other events" if has_base else "–"
        lines.append(
            [
                join([f"{index + 1}. ", own(row["model"]), tag("small", own(row["stage"]))]),
                f"{row['n']:,}",
                _with_interval(row, "accuracy", ".3f"),
                _with_interval(row, "confidence", ".3f"),
                _with_interval(row, "ece", ".3f"),
                change,
                f"{row['gap']:+.3f}",
                f"{row['brier']:.3f}",
                f"{row['nll']:.3f}",
                "–" if row["auroc"] is None else f"{row['auroc']:.3f}",
            ]
        )
    return table("Figures of each model", head_cells, lines, class_="models")


def _with_interval(row: Row, name: str, form: str) -> Markup:
    ends = tag("small", f"{row[f'{name}_low']:{form}} to {row[f'{name}_high']:{form}}")
    return join([f"{row[name]:{form}}", " ", ends])


def _reach(row: Row, name: str) -> Reach:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


def _diagram(one: Finding) -> Markup:
    curve, name = one.tally.curve, one.stage.name
    label = f"Reliability diagram, {name}"
    caption = tag("figcaption", tag("strong", own(name)))
    return tag("figure", caption, reliability_diagram(curve, label, "event"), diagram_numbers(curve, "Events"))


def _axes(rows: Sequence[Row]) -> list[Markup]:
    """Return a drawing for each axis with enough places: ECE and accuracy along it, a line for what else differs."""
    names = [name for name in rows[0] if name not in COLUMNS]
    shown = []
    for axis in names:
        placed = [row for row in rows if isinstance(row[axis], (int, float)) and not isinstance(row[axis], bool)]
        if len({row[axis] for row in placed}) < _PLACES:
            continue
        others = [name for name in names if name != axis and len({row[name] for row in placed}) > 1]
        lines: dict[str, list[Row]] = {}
        for row in sorted(placed, key=lambda row: row[axis]):
            known = [_place(name, row[name]) for name in others if row[name] is not None]
            lines.setdefault(", ".join(known) or row["stage"], []).append(row)
        if len(lines) > _LINES:
            note = f"Not drawn: {len(lines)} lines are more than there are colours that everybody can tell apart."
            shown.append(join([tag("h3", f"Along {axis}"), tag("p", note, class_="soft")]))
            continue
        drawn = [
            tag("figure", along(_lines(lines, axis, figure), f"{title} along {axis}", axis, title))
            for figure, title in (("ece", "ECE"), ("accuracy", "accuracy"))
        ]
        shown.append(join([tag("h3", f"Along {axis}"), legend(list(lines)), tag("div", *drawn, class_="figures")]))
    return shown


def _place(axis: str, at: Any) -> str:
    is_number = isinstance(at, (int, float)) and not isinstance(at, bool)
    return f"{axis} {place_in_words(float(at)) if is_number else at}"


def _lines(rows: dict[str, list[Row]], axis: str, figure: str) -> list[Line]:
    return [
        Line(name, tuple(float(row[axis]) for row in own_rows), tuple(_reach(row, figure) for row in own_rows))
        for name, own_rows in rows.items()
    ]


def _groups(found: Sequence[Finding]) -> Markup | None:
    """Return a heat map of the ECE: a row for each group of questions, a column a model."""
    names = sorted({name for one in found for name in one.groups})
    if len(names) < _NUMBERED:
        return None
    errors = [[one.groups[name].ece() if name in one.groups else None for one in found] for name in names]
    most = max(value for row in errors for value in row if value is not None)
    counts = [max(one.groups[name].n for one in found if name in one.groups) for name in names]
    lines = [
        [join([own(name), tag("small", f"{count} questions")]), *(heat(value, most) for value in row)]
        for name, count, row in zip(names, counts, errors, strict=True)
    ]
    note = "Darker is worse. An ECE of few questions is high by luck alone: compare within a row."
    shown = table("ECE by group", ["Group", *(own(one.stage.name) for one in found)], lines, class_="heat-map")
    return join([tag("h3", "ECE by group of questions"), tag("p", note, class_="soft"), shown])
