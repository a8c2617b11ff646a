"""Question sets: from files, from datasets saved to disk, and published ones; and small models to try them on."""

from calibwrap.data.catalogue import PackagedSet, packaged_sets
from calibwrap.data.fetching import cache_folder
from calibwrap.data.jsonl import save_questions
from calibwrap.data.loading import load_questions
from calibwrap.data.models import PackagedModel, packaged_model, packaged_models

__all__ = [
    "PackagedModel",
    "PackagedSet",
    "cache_folder",
    "load_questions",
    "packaged_model",
    "packaged_models",
    "packaged_sets",
    "save_questions",
]
