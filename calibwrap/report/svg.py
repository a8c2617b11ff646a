"""The report's drawings: small pure functions from numbers to inline SVG; colours and fonts are in report.css."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibwrap.metrics import ReliabilityCurve
from calibwrap.report.markup import Markup, join, number, tag
from calibwrap.report.words import counted, share
from calibwrap.scores import Floats, Ints
from calibwrap.summary import Figure

WIDTH = 360.0
"""Width of every diagram in its own units: about the pixels of a phone, so that its letters stay readable there."""

MOST_POINTS = 200
"""Points of a drawn curve; a longer one is thinned out evenly."""


@dataclass(frozen=True)
class Frame:
    """A rectangle of the drawing and the data ranges that it shows; both ranges begin at 0.

    >>> frame = Frame(left=40, top=10, width=300, height=200)
    >>> frame.x(0.5), frame.y(1.0)
    (190.0, 10.0)
    """

    left: float
    top: float
    width: float
    height: float
    x_most: float = 1.0
    y_most: float = 1.0

    def x(self, value: float) -> float:
        """Return the horizontal place of a value."""
        return self.left + self.width * float(value) / self.x_most

    def y(self, value: float) -> float:
        """Return the vertical place of a value; larger ones are higher."""
        return self.top + self.height * (1.0 - float(value) / self.y_most)

    @property
    def bottom(self) -> float:
        """Vertical place of 0."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """Horizontal place of the largest value."""
        return self.left + self.width


def drawing(label: str, height: float, *parts: str | None, class_: str = "diagram", width: float = WIDTH) -> Markup:
    """Return an SVG picture that a screen reader announces by `label`."""
    size = f"0 0 {number(width)} {number(height)}"
    return tag("svg", tag("title", label), *parts, role="img", aria_label=label, viewBox=size, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, title: str | None = None) -> Markup:
    """Return a rectangle; `title` shows when the pointer rests on it."""
    inside = None if title is None else tag("title", title)
    return tag("rect", inside, x=x, y=y, width=max(width, 0.0), height=max(height, 0.0), class_=class_)


def words(x: float, y: float, text: str, anchor: str = "middle", class_: str = "tick", turn: float = 0.0) -> Markup:
    """Return a text, turned by `turn` degrees around its own place."""
    rotate = f"rotate({number(turn)} {number(x)} {number(y)})" if turn else None
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=class_, transform=rotate)


def grid(frame: Frame, y_title: str, ticks: Sequence[float]) -> Markup:
    """Return the horizontal lines of a frame with their values, in per cent, and the axis's name on its left."""
    parts = [line(frame.left, frame.y(tick), frame.right, frame.y(tick), "grid") for tick in ticks]
    parts += [words(frame.left - 5, frame.y(tick) + 3.5, f"{100 * tick:.0f}%", "end") for tick in ticks]
    parts.append(words(9, frame.top + frame.height / 2, y_title, class_="axis", turn=-90))
    return join(parts)


def horizontal_axis(frame: Frame, title: str) -> Markup:
    """Return the axis under a frame: quarters in per cent, and its name."""
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    ends = ("start", "middle", "middle", "middle", "end")
    ticks = [words(frame.x(q), frame.bottom + 14, f"{q:.0%}", end) for q, end in zip(quarters, ends, strict=True)]
    return join([*ticks, words(frame.left + frame.width / 2, frame.bottom + 30, title, class_="axis")])


def short_count(count: int) -> str:
    """Return a count in four letters at most.

    >>> short_count(250), short_count(1234), short_count(45000)
    ('250', '1.2k', '45k')
    """
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{name}" if count < 9.95 * unit else f"{count / unit:.0f}{name}"
    return str(count)


def count_bars(frame: Frame, edges: Floats, count: Ints, noun: str = "question") -> Markup:
    """Return one bar for each bin with its number of questions, or what `noun` says, on top; empty bins stay empty."""
    most = max(int(count.max()), 1)
    parts: list[Markup] = [line(frame.left, frame.bottom, frame.right, frame.bottom, "frame")]
    for low, high, here in zip(edges[:-1], edges[1:], count.tolist(), strict=True):
        if not here:
            continue
        height = (frame.height - 12) * here / most
        middle = frame.x((low + high) / 2)
        title = f"confidence {low:.2f} to {high:.2f}: {counted(here, noun)}"
        parts.append(
            box(frame.x(low) + 1, frame.bottom - height, frame.x(high - low) - frame.left - 2, height, "count", title)
        )
        parts.append(words(middle, frame.bottom - height - 3, short_count(here), class_="number"))
    return join(parts)


def _bin(frame: Frame, curve: ReliabilityCurve, index: int, noun: str) -> Markup:
    """Return one bin: what was right as a bar, the gap to what was said, and the share right with its interval."""
    low, high = float(curve.edges[index]), float(curve.edges[index + 1])
    said, right, count = float(curve.confidence[index]), float(curve.accuracy[index]), int(curve.count[index])
    least, most = (float(ends[index]) for ends in curve.accuracy_interval())
    left, width = frame.x(low) + 1, frame.x(high - low) - frame.left - 2
    gap = "over" if said > right else "under"
    title = (
        f"confidence {low:.2f} to {high:.2f}, {counted(count, noun)}: said {share(said)}, "
        f"right {share(right)} (95% interval {share(least)} to {share(most)})"
    )
    middle = frame.x(said)
    return tag(
        "g",
        tag("title", title),
        box(left, frame.y(right), width, frame.bottom - frame.y(right), "right"),
        box(left, frame.y(max(said, right)), width, abs(frame.y(said) - frame.y(right)), f"gap {gap}"),
        line(middle, frame.y(least), middle, frame.y(most), "whisker"),
        tag("circle", cx=middle, cy=frame.y(right), r=3.4, class_="point"),
    )


def reliability_diagram(curve: ReliabilityCurve, label: str, noun: str = "question") -> Markup:
    """Return the diagram of confidence against share right, with the bins' counts under it.

    A bar ends at the share of right answers; the shaded part is the gap to the mean confidence; the point sits at the
    mean confidence and carries a 95 % Wilson interval; on the dashed line what is said is what happens.

    >>> from calibwrap.metrics import reliability_curve
    >>> drawn = reliability_diagram(reliability_curve([0.9, 0.8], [1, 0]), "Before")
    >>> drawn.count('class="point"'), drawn.startswith('<svg role="img" aria-label="Before"')
    (2, True)
    """
    frame = Frame(left=46, top=10, width=304, height=272)
    strip = Frame(left=46, top=292, width=304, height=64)
    filled = np.flatnonzero(curve.count).tolist()
    return drawing(
        label,
        396,
        grid(frame, "share that was right", (0.0, 0.25, 0.5, 0.75, 1.0)),
        *(_bin(frame, curve, index, noun) for index in filled),
        line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "perfect"),
        words(9, strip.top + 36, f"{noun}s", class_="axis", turn=-90),
        count_bars(strip, curve.edges, curve.count, noun),
        horizontal_axis(strip, "confidence that the model stated"),
    )


def confidence_histogram(edges: Floats, count: Ints, label: str) -> Markup:
    """Return how many questions got which confidence; edges (B + 1,), counts (B,).

    >>> confidence_histogram(np.array([0.0, 0.5, 1.0]), np.array([3, 0]), "Stated").count("<rect")
    1
    """
    strip = Frame(left=46, top=10, width=304, height=150)
    title = words(9, strip.top + 75, "questions", class_="axis", turn=-90)
    bars = count_bars(strip, edges, count)
    return drawing(label, 200, title, bars, horizontal_axis(strip, "confidence that the model stated"))


def _thinned(values: Floats) -> Floats:
    """Return at most `MOST_POINTS` entries, evenly spread, both ends kept."""
    if len(values) <= MOST_POINTS:
        return values
    kept: Floats = values[np.linspace(0, len(values) - 1, MOST_POINTS).round().astype(int)]
    return kept


def risk_coverage_diagram(curves: Sequence[tuple[Floats, Floats]], label: str) -> Markup:
    """Return the share wrong among the most confident part of the questions, one line for each (coverage, risk).

    >>> drawn = risk_coverage_diagram([(np.array([0.5, 1.0]), np.array([0.0, 0.5]))], "Risk")
    >>> drawn.count("<polyline")
    1
    """
    top = max(0.1, *(float(risk.max()) for _, risk in curves))
    y_most = min(1.0, np.ceil(top * 10) / 10)
    frame = Frame(left=46, top=10, width=304, height=230, y_most=y_most)
    lines = []
    for index, (coverage, risk) in enumerate(curves):
        pairs = zip(_thinned(coverage), _thinned(risk), strict=True)
        path = " ".join(f"{number(frame.x(x))},{number(frame.y(y))}" for x, y in pairs)
        lines.append(tag("polyline", points=path, class_=f"curve s{index % 4}"))
    everything = float(curves[0][1][-1])
    step = 0.2 if y_most > 0.5 else 0.1 if y_most > 0.2 else 0.05
    ticks = [step * index for index in range(int(y_most / step + 1e-6) + 1)]
    return drawing(
        label,
        280,
        grid(frame, "share wrong among those answered", ticks),
        line(frame.left, frame.y(everything), frame.right, frame.y(everything), "perfect"),
        *lines,
        horizontal_axis(frame, "share of the questions answered, surest first"),
    )


def interval_strip(figure: Figure, most: float, label: str) -> Markup:
    """Return a figure and its interval on a line from 0 to `most`, small enough for a tile.

    >>> interval_strip(Figure(0.5, 0.4, 0.6), 1.0, "Accuracy").count("<circle")
    1
    """
    frame = Frame(left=5, top=2, width=190, height=10, x_most=most)
    parts = [line(frame.left, 7, frame.right, 7, "track")]
    if figure.low is not None and figure.high is not None:
        parts.append(line(frame.x(figure.low), 7, frame.x(figure.high), 7, "reach"))
    if figure.value is not None:
        parts.append(tag("circle", cx=frame.x(figure.value), cy=7.0, r=4.0, class_="dot"))
    return drawing(label, 14, *parts, class_="strip", width=200)
