"""The parts of a section that show its figures: tiles, the table before and after, the diagrams."""

from collections.abc import Sequence

import numpy as np

from calibwrap import metrics
from calibwrap.report.headline import Headline
from calibwrap.report.markup import Markup, join, table, tag
from calibwrap.report.records import Section, Series
from calibwrap.report.svg import confidence_histogram, interval_strip, reliability_diagram, risk_coverage_diagram
from calibwrap.report.words import BETTER, LABELS, counted, interval, share, written
from calibwrap.summary import BINS, FIGURES, Figure

TILES = {
    "accuracy": ("Accuracy", "how often the first choice was right"),
    "mean_confidence": ("Mean confidence", "how sure the model said it was; it should equal the accuracy"),
    "ece": ("Calibration error (ECE)", f"mean gap between said and true, {BINS} bins; 0 is perfect"),
    "brier": ("Brier score", "squared error of all probabilities; 0 is perfect, 2 the worst"),
}
"""The figures that get a tile, with what they are called and what they mean there."""

FREE_BRIER = "squared difference between confidence and right (1) or wrong (0); 0 is perfect, 1 the worst"
"""What the Brier score means in a tile where answers are free text."""

COVERAGES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the questions at which the risk is also given as a number."""


def named(section: Section, index: int) -> Markup:
    """Return the name of a series behind a dot of its colour."""
    return tag(
        "span", tag("span", class_=f"swatch s{index % 4}"), tag("span", section.series[index].name), class_="named"
    )


def tiles(section: Section, headlines: Sequence[Headline]) -> Markup:
    """Return one tile for each main figure: every state with its value, its interval and where they lie."""
    return tag("div", *(_tile(section, headlines, name) for name in TILES), class_="tiles")


def _tile(section: Section, headlines: Sequence[Headline], name: str) -> Markup:
    """Return the tile of one figure."""
    title, meaning = TILES[name]
    meaning = FREE_BRIER if section.is_free and name == "brier" else meaning
    found = [headline.figures[name] for headline in headlines]
    most = 1.0 if name in ("accuracy", "mean_confidence") else _scale(found)
    states = []
    for index, figure in enumerate(found):
        label = f"{title}, {section.series[index].name}: {_spoken(name, figure)}"
        value = "–" if figure.value is None else written(name, figure.value)
        states.append(tag("dt", named(section, index)))
        states.append(
            tag(
                "dd",
                tag("span", value, class_="value"),
                tag("span", interval(name, figure), class_="reach-words"),
                interval_strip(figure, most, label),
                class_=f"s{index % 4}",
            )
        )
    return tag("div", tag("h4", title), tag("p", meaning, class_="soft"), tag("dl", *states), class_="tile")


def _scale(found: Sequence[Figure]) -> float:
    """Return the right end of a tile's strips: the largest end of an interval, and a little more."""
    most = max(max(figure.value or 0.0, figure.high or 0.0) for figure in found)
    return max(1.05 * most, 0.05)


def _spoken(name: str, figure: Figure) -> str:
    """Return a figure for a screen reader."""
    if figure.value is None:
        return figure.reason
    return f"{written(name, figure.value)}, 95% interval {interval(name, figure)}"


def figures_table(section: Section, headlines: Sequence[Headline]) -> Markup:
    """Return all figures of all states with their intervals, and the changes against the first state."""
    head: list[str] = ["Figure", *(named(section, index) for index in range(len(headlines)))]
    head += [join([named(section, index + 1), " ", tag("small", "change")]) for index in range(len(headlines) - 1)]
    rows: list[list[str]] = []
    for name in FIGURES:
        cells = [_cell(name, headline.figures[name]) for headline in headlines]
        cells += [_cell(name, headline.changes[name], signed=True) for headline in headlines[1:]]
        rows.append([join([LABELS[name], " ", tag("small", f"better: {BETTER[name]}")]), *cells])
    luck = [_cell("ece", headline.chance) for headline in headlines]
    rows.append(["ECE that luck alone would give", *luck, *("" for _ in headlines[1:])])
    asked = counted(int(section.answered.sum()), "question")
    caption = f"Each figure over its 95% interval, {asked}. That of an ECE leans upwards: see “How to read this”."
    return join([tag("p", caption, class_="soft"), table("Figures before and after", head, rows)])


def _cell(name: str, figure: Figure, *, signed: bool = False) -> Markup:
    """Return a figure over its interval."""
    if figure.value is None:
        return tag("small", figure.reason)
    reach = tag("small", interval(name, figure, signed=signed))
    return join([written(name, figure.value, signed=signed), " ", reach])


def diagrams(section: Section) -> Markup:
    """Return the reliability diagrams of all states side by side, each with its numbers to unfold."""
    parts = [
        tag(
            "figure",
            tag("figcaption", tag("strong", named(section, index))),
            reliability_diagram(curve, f"Reliability diagram, {one.name}: {_shape(curve)}"),
            diagram_numbers(curve),
        )
        for index, (one, curve) in enumerate((one, _curve(section, one)) for one in section.series)
    ]
    return join([diagram_legend(), tag("div", *parts, class_="figures")])


def _curve(section: Section, one: Series) -> metrics.ReliabilityCurve:
    return metrics.reliability_curve(*section.stated(one), n_bins=BINS)


def _shape(curve: metrics.ReliabilityCurve) -> str:
    """Return what a diagram shows, for readers who do not see it."""
    filled = curve.count > 0
    over = int((curve.count[filled] * (curve.gap[filled] < 0)).sum())
    return f"{share(over / curve.count.sum())} of the answers lie in bins that claim more than they keep"


def diagram_legend() -> Markup:
    """Return what the marks of a reliability diagram mean."""
    marks = (
        ("right", "share that was right"),
        ("over", "claims too much"),
        ("under", "claims too little"),
        ("point", "share right at the stated confidence, with its 95% interval"),
        ("perfect", "perfect"),
    )
    return tag("ul", *(tag("li", tag("span", class_=f"key {kind}"), text) for kind, text in marks), class_="legend")


def diagram_numbers(curve: metrics.ReliabilityCurve, counted_things: str = "Questions") -> Markup:
    """Return the numbers of a diagram as a table that unfolds."""
    low, high = curve.accuracy_interval()
    rows = [
        [
            f"{curve.edges[index]:.3f} to {curve.edges[index + 1]:.3f}",
            str(curve.count[index]),
            f"{curve.confidence[index]:.3f}",
            f"{curve.accuracy[index]:.3f}",
            f"{low[index]:.3f} to {high[index]:.3f}",
        ]
        for index in np.flatnonzero(curve.count).tolist()
    ]
    shown = table("Bins", ["Bin", counted_things, "Said", "Right", "95% interval"], rows, class_="numbers")
    return tag("details", tag("summary", "Numbers of this diagram"), shown)


def risk_coverage(section: Section) -> Markup:
    """Return the risk-coverage curves of all states in one diagram, with the risk at four coverages as a table."""
    curves = [metrics.risk_coverage_curve(*section.stated(one)) for one in section.series]
    names = [named(section, index) for index in range(len(curves))]
    rows = [
        [f"surest {share(part)}" if part < 1.0 else "all", *(f"{curve.risk[_at(curve, part)]:.1%}" for curve in curves)]
        for part in COVERAGES
    ]
    label = "Risk-coverage curve: share wrong when only the surest answers are kept"
    return tag(
        "div",
        tag("figure", risk_coverage_diagram([(curve.coverage, curve.risk) for curve in curves], label)),
        tag(
            "div",
            tag("p", "Share wrong among the answers kept:"),
            table("Risk at four coverages", ["Kept", *names], rows),
            tag(
                "p",
                "The dashed line is what keeping everything gives. Where curves coincide, the answers rank alike.",
                class_="soft",
            ),
        ),
        class_="figures",
    )


def _at(curve: metrics.RiskCoverageCurve, coverage: float) -> int:
    """Return the first point of a curve that keeps at least this share."""
    return int(np.searchsorted(curve.coverage, coverage - 1e-9))


def histograms(section: Section) -> Markup:
    """Return how sure each state is, for questions without answers."""
    parts = []
    for index, one in enumerate(section.series):
        confidence = np.minimum(one.scores.confidence, 1.0)
        count, edges = np.histogram(confidence, BINS, (0.0, 1.0))
        label = f"Histogram of the confidence, {one.name}: mean {share(float(confidence.mean()))}"
        shown = tag("figcaption", tag("strong", named(section, index)), f", mean {share(float(confidence.mean()))}")
        parts.append(tag("figure", shown, confidence_histogram(edges, count, label)))
    return tag("div", *parts, class_="figures")
