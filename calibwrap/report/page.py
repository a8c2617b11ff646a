"""The report: one HTML file that needs nothing but itself."""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from calibwrap.files import replacing
from calibwrap.report.figures import diagrams, figures_table, histograms, risk_coverage, tiles
from calibwrap.report.headline import Headline, sentences, summary
from calibwrap.report.markup import Markup, join, tag
from calibwrap.report.mistakes import mistakes_list
from calibwrap.report.origins import Origin, fits, origins, readout_lines
from calibwrap.report.records import Section
from calibwrap.report.words import counted
from calibwrap.summary import BINS

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing; its style is inside, and there is no script."""

GUIDE = (
    "A model is calibrated when, of all answers that it gives with 70% confidence, 70% are right. Confidence is the "
    "probability that the model puts on its first choice among the options.",
    f"The calibration error (ECE) sorts the answers into {BINS} bins of equal width by confidence, each bin "
    "including its lower edge and the last one both, and averages the gaps between mean confidence and share right, "
    "weighted by the number of answers. On few questions luck alone gives an ECE above zero; the table says how much.",
    "The smooth calibration error has no bins: it smooths the gaps between confidence and right or wrong with a kernel "
    "that is as wide as the result, so that a small change of the confidences changes it little.",
    "Brier score (summed over the options) and negative log-likelihood judge all probabilities at once; they fall only "
    "when the probabilities become more truthful or the answers better. AUROC and AURC ask whether right answers "
    "get the higher confidences; one temperature for all hardly moves them.",
    "Intervals are 95% percentile bootstrap intervals over questions; changes are measured on the same resampled "
    "questions. Resampling adds noise, so the interval of an ECE leans upwards and may begin above the figure itself. "
    "Intervals inside the diagrams are Wilson intervals. None of them covers a change of subject, prompt or model.",
)
"""How to read the report, in short."""

FREE_GUIDE = (
    "Of answers in free text, the confidence is the decoder's, as the note of the question set names it; a judge "
    "compares each answer with the references, and an answer that says nothing is wrong at confidence 0. Their Brier "
    "score is the mean squared difference between confidence and correctness, from 0 to 1, and their negative "
    "log-likelihood is that of right or wrong.",
)
"""What to know besides, where answers are free text."""


def render_report(
    title: str,
    sections: Sequence[Section],
    *,
    provenance: Mapping[str, Origin],
    command: str = "",
    notes: Sequence[str] = (),
    seed: int = 0,
) -> str:
    """Return the report as one HTML page: inline style and drawings, no script, nothing fetched.

    Args:
        title: what the report is about.
        sections: the question sets; the first series of each is the state before calibration.
        provenance: facts by name; a `Provenance`, or a mapping, becomes a column of the table of models.
        command: the command line that made the numbers.
        notes: what the reader should know before the figures.
        seed: same seed, same intervals.

    >>> page = render_report("Planets", [], provenance={"data set": "planets.jsonl"})
    >>> page.startswith("<!doctype html>"), "planets.jsonl" in page
    (True, True)
    """
    sections = tuple(sections)
    found = [summary(section.series, section.questions, seed) if section.series else () for section in sections]
    body = tag(
        "main",
        tag("h1", title),
        _lead(sections, found),
        *(tag("p", note, class_="note") for note in notes),
        *(_section(section, headlines) for section, headlines in zip(sections, found, strict=True)),
        tag("h2", "Provenance"),
        origins(provenance, sections),
        tag("h2", "How to read this"),
        *(tag("p", text) for text in (*GUIDE, *_also(sections))),
        join([tag("h2", "Command"), tag("pre", tag("code", command))]) if command else None,
        tag("footer", tag("p", f"Written by calibwrap {version('calibwrap')}.")),
    )
    return f"<!doctype html>\n{tag('html', head(title), tag('body', body), lang='en')}\n"


def write_report(
    path: str | os.PathLike[str],
    title: str,
    sections: Sequence[Section],
    *,
    provenance: Mapping[str, Origin],
    command: str = "",
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Write the report to `path` and return it; the arguments are those of `render_report`.

    The file appears whole or not at all: it is written beside its place and moved there.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    page = render_report(title, sections, provenance=provenance, command=command, notes=notes, seed=seed)
    with replacing(target) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return target


def _also(sections: Sequence[Section]) -> Sequence[str]:
    """Return what the guide says besides, for these sections."""
    return FREE_GUIDE if any(section.is_free for section in sections) else ()


def head(title: str) -> Markup:
    """Return the page's head with its style."""
    style = files("calibwrap.report").joinpath("report.css").read_text(encoding="utf-8")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("style", Markup(style)),
    )


def _lead(sections: Sequence[Section], found: Sequence[Sequence[Headline]]) -> Markup:
    """Return the result in plain words, for each section."""
    if not sections:
        return tag("div", tag("p", "There is no question set in this report."), class_="lead")
    parts = []
    for section, headlines in zip(sections, found, strict=True):
        if len(sections) > 1:
            parts.append(tag("p", tag("strong", section.title)))
        parts += [tag("p", text) for text in _plain(section, headlines)]
    return tag("div", *parts, class_="lead")


def _plain(section: Section, headlines: Sequence[Headline]) -> list[str]:
    """Return a section's result in plain words."""
    if not section.series:
        return ["No questions were scored."]
    return sentences(headlines, int(section.answered.sum()))


def _section(section: Section, headlines: Sequence[Headline]) -> Markup:
    """Return one question set with everything that is known about it."""
    if not section.series:
        return join([tag("h2", section.title), tag("p", "No questions were scored.")])
    unanswered = len(section.questions) - int(section.answered.sum())
    if headlines and unanswered:
        verb = "has" if unanswered == 1 else "have"
        left_out = f"{counted(unanswered, 'question')} {verb} no known answer and did not count in the figures."
    else:
        left_out = ""
    fitted = fits(section)
    return join(
        [
            tag("h2", section.title),
            tag("p", section.note) if section.note else None,
            tag("p", " ".join([*readout_lines(section), left_out]), class_="soft"),
            _measured(section, headlines) if headlines else _unmeasured(section),
            join([tag("h3", "How the calibration was fitted"), fitted]) if fitted else None,
        ]
    )


def _measured(section: Section, headlines: Sequence[Headline]) -> Markup:
    """Return what can be shown where answers are known."""
    return join(
        [
            tag("h3", "Before and after"),
            tiles(section, headlines),
            figures_table(section, headlines),
            tag("h3", "Reliability: what was said against what was right"),
            diagrams(section),
            tag("h3", "Risk and coverage: keeping only the surest answers"),
            risk_coverage(section),
            tag("h3", "The most confident mistakes"),
            mistakes_list(section),
        ]
    )


def _unmeasured(section: Section) -> Markup:
    """Return what can be shown where no answer is known."""
    return join([tag("h3", "How sure the model says it is"), histograms(section)])
