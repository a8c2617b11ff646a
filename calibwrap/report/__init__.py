"""Reports: the result in plain words, figures with intervals, diagrams and provenance, in one HTML file."""

from calibwrap.report.headline import Headline, sentences, summary
from calibwrap.report.page import render_report, write_report
from calibwrap.report.picture import reliability_picture
from calibwrap.report.records import Section, Series

__all__ = [
    "Headline",
    "Section",
    "Series",
    "reliability_picture",
    "render_report",
    "sentences",
    "summary",
    "write_report",
]
