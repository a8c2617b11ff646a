"""The study's drawings: pure functions from numbers to inline SVG; colours and fonts are in the report's style."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from calibwrap.report.markup import Markup, join, number, tag
from calibwrap.report.svg import WIDTH, Frame, drawing, line, words

Reach = tuple[float, float, float]
"""A value and the ends of its interval."""
_ROW = 34
"""Height of one model's row: its name above, its interval below."""
_DECADES = 30.0
"""Largest over smallest place beyond which an axis is logarithmic."""
_TOPS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.2, 0.24, 0.28, 0.32, 0.4, 0.48, 0.6, 0.8, 1.0)
"""Where an axis of shares may end: their quarters are short numbers."""
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_BESIDE = ((7, -5), (-7, -5), (7, 12), (-7, 12), (7, -16), (-7, -16), (7, 23), (-7, 23))
"""Places of a dot's number, the better ones first: to the right of it or to the left, above or below."""


@dataclass(frozen=True)
class Line:
    """Values along an axis, such as the sizes' at one step: places, values with intervals, and a name."""

    name: str
    at: tuple[float, ...]
    values: tuple[Reach, ...]


def interval_rows(names: Sequence[str], values: Sequence[Reach], label: str, title: str, base: int | None) -> Markup:
    """Return one row a model: its value as a dot, its interval as a line; dashed, what the base has.

    >>> interval_rows(["a", "b"], [(0.1, 0.05, 0.2), (0.3, 0.2, 0.4)], "ECE", "ECE", 0).count('class="dot"')
    2
    """
    most = _top(high for _, _, high in values)
    frame = Frame(left=8, top=4, width=WIDTH - 16, height=_ROW * len(names), x_most=most)
    parts: list[Markup] = []
    if base is not None:
        x = frame.x(values[base][0])
        parts.append(line(x, frame.top, x, frame.bottom, "perfect"))
    for row, (name, (value, low, high)) in enumerate(zip(names, values, strict=True)):
        y = frame.top + _ROW * row + 24
        told = f"{name}: {value:.3f}, 95% interval {low:.3f} to {high:.3f}"
        parts.append(
            tag(
                "g",
                tag("title", told),
                words(frame.left, y - 9, _short(name), "start", "row-name"),
                words(frame.right, y - 9, f"{value:.3f}", "end", "row-name"),
                line(frame.left, y, frame.right, y, "track"),
                line(frame.x(low), y, frame.x(high), y, "reach"),
                tag("circle", cx=frame.x(value), cy=y, r=4.0, class_="dot"),
                class_=f"s{1 if row == base else 0}",
            )
        )
    ticks = [
        words(frame.x(part * most), frame.bottom + 16, f"{part * most:.3g}", place)
        for part, place in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    ]
    axis = words(frame.left + frame.width / 2, frame.bottom + 32, title, class_="axis")
    return drawing(label, frame.bottom + 40, *parts, *ticks, axis)


def against(points: Sequence[tuple[float, float]], label: str) -> Markup:
    """Return accuracy over mean confidence, a numbered dot a model; on the dashed line what is said is what happens.

    >>> against([(0.9, 0.6)], "Accuracy against confidence").count("<circle")
    1
    """
    top = _top(value for point in points for value in point)
    frame = Frame(left=46, top=10, width=304, height=290, x_most=top, y_most=top)
    ticks = [top * part for part in _QUARTERS]
    parts = [line(frame.left, frame.y(tick), frame.right, frame.y(tick), "grid") for tick in ticks]
    parts += [words(frame.left - 5, frame.y(tick) + 3.5, f"{100 * tick:.3g}%", "end") for tick in ticks]
    parts += [words(frame.x(tick), frame.bottom + 14, f"{100 * tick:.3g}%") for tick in ticks[1:-1]]
    parts.append(line(frame.x(0), frame.y(0), frame.x(top), frame.y(top), "perfect"))
    taken: list[tuple[float, float]] = []
    for index, (confidence, accuracy) in enumerate(points):
        x, y = frame.x(confidence), frame.y(accuracy)
        told = f"{index + 1}: said {confidence:.1%}, right {accuracy:.1%}"
        right, down = _free_place(x, y, taken)
        taken.append((x + right, y + down))
        mark = (
            tag("title", told),
            tag("circle", cx=x, cy=y, r=4.0, class_="point"),
            words(x + right, y + down, str(index + 1), "start" if right > 0 else "end", "row-name"),
        )
        parts.append(tag("g", *mark))
    parts.append(words(9, frame.top + frame.height / 2, "share that was right", class_="axis", turn=-90))
    parts.append(words(frame.left + frame.width / 2, frame.bottom + 30, "mean confidence", class_="axis"))
    return drawing(label, 340, *parts)


def along(lines: Sequence[Line], label: str, axis: str, title: str) -> Markup:
    """Return values along an axis with their intervals, one line for each name; logarithmic where it spans decades.

    >>> one = Line("70M", (1.0, 1000.0), ((0.2, 0.1, 0.3), (0.1, 0.0, 0.2)))
    >>> along([one], "ECE over steps", "step", "ECE").count("<polyline")
    1
    """
    places = sorted({at for one in lines for at in one.at})
    is_log = places[0] > 0 and places[-1] / places[0] > _DECADES
    low, high = _scaled(places[0], is_log), _scaled(places[-1], is_log)
    most = _top(end for one in lines for _, _, end in one.values)
    frame = Frame(left=46, top=10, width=304, height=220, y_most=most)

    def x(at: float) -> float:
        return frame.x((_scaled(at, is_log) - low) / (high - low) if high > low else 0.5)

    ticks = [most * part for part in _QUARTERS]
    parts = [line(frame.left, frame.y(tick), frame.right, frame.y(tick), "grid") for tick in ticks]
    parts += [words(frame.left - 5, frame.y(tick) + 3.5, f"{tick:.3g}", "end") for tick in ticks]
    for index, one in enumerate(lines):
        pairs = list(zip(one.at, one.values, strict=True))
        path = " ".join(f"{number(x(at))},{number(frame.y(value))}" for at, (value, _, _) in pairs)
        own = [tag("polyline", points=path, class_=f"curve s{index % 4}")]
        for at, (value, least, greatest) in pairs:
            told = f"{one.name}, {axis} {place_in_words(at)}: {value:.3f}, 95% interval {least:.3f} to {greatest:.3f}"
            own.append(
                tag(
                    "g",
                    tag("title", told),
                    line(x(at), frame.y(least), x(at), frame.y(greatest), "reach"),
                    tag("circle", cx=x(at), cy=frame.y(value), r=3.4, class_="dot"),
                    class_=f"s{index % 4}",
                )
            )
        parts += own
    shown = places if len(places) <= 4 else [places[0], places[len(places) // 2], places[-1]]
    for at in shown:
        side = "start" if at == places[0] and len(places) > 1 else "end" if at == places[-1] else "middle"
        parts.append(words(x(at), frame.bottom + 14, place_in_words(at), side))
    scale = ", logarithmic" if is_log else ""
    parts.append(words(frame.left + frame.width / 2, frame.bottom + 30, f"{axis}{scale}", class_="axis"))
    parts.append(words(9, frame.top + frame.height / 2, title, class_="axis", turn=-90))
    return drawing(label, 270, *parts)


def heat(value: float | None, most: float) -> Markup:
    """Return a cell whose shade says how large a number is, of the largest; the number stands in it.

    >>> heat(0.5, 1.0)
    '<span class="heat h3">0.50</span>'
    """
    if value is None:
        return tag("span", "–", class_="heat")
    level = 0 if most <= 0.0 else min(5, math.floor(6 * value / most))
    return tag("span", f"{value:.2f}", class_=f"heat h{level}")


def legend(names: Sequence[str]) -> Markup:
    """Return which colour is which line."""
    keys = [tag("li", join([tag("span", class_=f"swatch s{index % 4}"), name])) for index, name in enumerate(names)]
    return tag("ul", *keys, class_="legend")


def _top(shares: Iterable[float]) -> float:
    """Return where an axis ends that shows shares.

    >>> _top([0.03, 0.017]), _top([]), _top([0.95])
    (0.04, 0.01, 1.0)
    """
    most = max(shares, default=0.0)
    return next((top for top in _TOPS if most <= top), 1.0)


def _free_place(x: float, y: float, taken: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """Return where beside a dot its number meets no earlier one; the first place where all are taken.

    >>> _free_place(100.0, 50.0, []), _free_place(100.0, 50.0, [(107.0, 45.0)])
    ((7, -5), (-7, -5))
    """
    free = (
        (right, down)
        for right, down in _BESIDE
        if all(abs(x + right - a) >= 12 or abs(y + down - b) >= 10 for a, b in taken)
    )
    return next(free, _BESIDE[0])


def _scaled(at: float, is_log: bool) -> float:
    return math.log(at) if is_log else at


def place_in_words(at: float) -> str:
    """Return a place on an axis in few letters.

    >>> place_in_words(135000000.0), place_in_words(1000.0), place_in_words(0.5)
    ('135M', '1k', '0.5')
    """
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if at >= unit:
            return f"{at / unit:.3g}{letter}"
    return f"{at:g}"


def _short(name: str) -> str:
    return name if len(name) <= 44 else f"{name[:43]}…"
