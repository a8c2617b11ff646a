"""The reliability diagrams of a section as one picture file, for a paper or a README."""

import os
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from calibwrap import metrics
from calibwrap.errors import InputError, need
from calibwrap.files import replacing
from calibwrap.report.records import Section
from calibwrap.report.words import counted, share
from calibwrap.scores import Bools, Floats
from calibwrap.summary import BINS

BAR, OVER, UNDER, INK, GREY = "#b9c3d0", "#e69f00", "#56b4e9", "#1b1f24", "#555d68"
"""The colours of report.css in its light form; orange and blue are from the palette of Okabe and Ito (2008)."""
WIDEST = 46
"""Letters of a line above a diagram."""


def reliability_picture(path: str | os.PathLike[str], section: Section, *, n_bins: int = BINS, dpi: int = 150) -> Path:
    """Write the reliability diagrams of all states side by side, counts below, and return the path.

    The file's ending chooses the format: .png, .svg or .pdf.

    Args:
        path: where to write.
        section: a question set with answers.
        n_bins: bins of equal width.
        dpi: dots an inch, for .png.

    Raises:
        InputError: no state, no question with an answer, or an unknown ending.
        MissingExtra: matplotlib is not installed.
    """
    target = Path(path)
    if target.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"'path' must end in .png, .svg or .pdf. Got {target.name!r}.")
    if not section.series or not section.answered.any():
        raise InputError(f"Section {section.title!r} has no scored question with an answer, so nothing can be drawn.")
    need("matplotlib", feature="a picture of reliability diagrams", extra="plot")
    from matplotlib.figure import Figure as Canvas

    wide = len(section.series)
    canvas = Canvas(figsize=(4.2 * wide, 5.2), layout="constrained")
    axes = canvas.subplots(2, wide, sharex="col", sharey="row", squeeze=False, height_ratios=[4, 1])
    for column, one in enumerate(section.series):
        stated = section.stated(one)
        curve = metrics.reliability_curve(*stated, n_bins=n_bins)
        _draw_reliability(axes[0, column], curve)
        axes[0, column].set_title(_heading(one.name, *stated, n_bins), fontsize=10)
        _draw_counts(axes[1, column], curve)
    axes[0, 0].set_ylabel("share that was right")
    axes[1, 0].set_ylabel("questions")
    metadata: dict[str, Any] = {"Date": None} if target.suffix == ".svg" else {}
    with replacing(target) as part:
        canvas.savefig(part, dpi=dpi, metadata=metadata, format=target.suffix[1:])
    return target


def _heading(name: str, confidence: Floats, correct: Bools, n_bins: int) -> str:
    """Return the name of a state and its main figures."""
    error = metrics.ece(confidence, correct, n_bins=n_bins)
    said = share(float(confidence.mean()))
    return f"{fill(name, WIDEST)}\nECE {error:.3f}, says {said}, {counted(len(confidence), 'question')}"


def _draw_reliability(axes: Any, curve: metrics.ReliabilityCurve) -> None:
    """Draw bars of the share right, the gaps, and the points with their intervals."""
    from matplotlib.patches import Patch

    filled = curve.count > 0
    middle, width = (curve.edges[:-1] + curve.edges[1:])[filled] / 2, 0.92 * np.diff(curve.edges)[filled]
    right, said, gap = curve.accuracy[filled], curve.confidence[filled], curve.gap[filled]
    low, high = (ends[filled] for ends in curve.accuracy_interval())
    colours = np.where(gap < 0, OVER, UNDER).tolist()
    axes.bar(middle, right, width, color=BAR, zorder=1)
    axes.bar(middle, np.abs(gap), width, np.minimum(right, said), color=colours, alpha=0.55, zorder=2)
    axes.errorbar(
        said,
        right,
        np.abs([right - low, high - right]),
        fmt="o",
        color=INK,
        markersize=4,
        linewidth=1,
        zorder=4,
        clip_on=False,
    )
    axes.plot([0, 1], [0, 1], linestyle="--", color=GREY, linewidth=1, zorder=3)
    marks = [
        Patch(color=colour, alpha=0.55, label=text) for colour, text in ((OVER, "too much"), (UNDER, "too little"))
    ]
    axes.legend(handles=marks, title="claims", loc="upper left", fontsize=8, title_fontsize=8, frameon=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _draw_counts(axes: Any, curve: metrics.ReliabilityCurve) -> None:
    """Draw the number of questions in each bin."""
    bars = axes.bar((curve.edges[:-1] + curve.edges[1:]) / 2, curve.count, 0.92 * np.diff(curve.edges), color=BAR)
    axes.bar_label(bars, [str(count) if count else "" for count in curve.count.tolist()], fontsize=7)
    axes.margins(y=0.25)
    axes.set_xlabel("confidence that the model stated")
