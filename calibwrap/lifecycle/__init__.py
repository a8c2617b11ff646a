"""The lifecycle study: how calibration moves over a model's whole construction."""

from typing import TYPE_CHECKING

from calibwrap.on_demand import door

if TYPE_CHECKING:
    from calibwrap.lifecycle.corpora import Document, load_documents
    from calibwrap.lifecycle.result import Finding, Study
    from calibwrap.lifecycle.run import study
    from calibwrap.lifecycle.settings import StudySettings, read_study
    from calibwrap.lifecycle.tally import Tally

__all__ = [
    "Document",
    "Finding",
    "Study",
    "StudySettings",
    "Tally",
    "load_documents",
    "read_study",
    "study",
]

_HOMES = {
    "corpora": ["Document", "load_documents"],
    "result": ["Finding", "Study"],
    "run": ["study"],
    "settings": ["StudySettings", "read_study"],
    "tally": ["Tally"],
}
"""Public names by the file that holds them, which is imported when one is first used."""

__getattr__, __dir__ = door(__name__, _HOMES)
