"""What a study found: a tidy table, differences to a base, and the sums behind both."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibwrap.errors import need
from calibwrap.files import replacing
from calibwrap.lifecycle.settings import FIGURES, Stage, StudySettings
from calibwrap.lifecycle.tally import Tally
from calibwrap.metrics import CalibrationState
from calibwrap.provenance import Provenance

TEXT_PROBES = ("generation", "factuality")
"""Probes whose events are tokens: with another tokenizer they are other events."""
FEW = 20
"""Blocks with events below which an interval, which resamples them, is too short."""


@dataclass(frozen=True)
class Finding:
    """What one probe saw of one model."""

    stage: Stage
    probe: str
    tally: Tally
    groups: Mapping[str, CalibrationState] = field(default_factory=dict)
    """Sums of each group of questions, such as a subject."""
    provenance: Provenance = field(default_factory=Provenance)
    events: int = 0
    """Which events they were: two models share it only when theirs were the same."""
    cut: int = 0
    """Of how many events a server hid a part of the probabilities."""


@dataclass(frozen=True)
class Study:
    """All that was found, models in the order of the study."""

    settings: StudySettings
    findings: tuple[Finding, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why a model, or a probe of it, is missing, by the model's name."""

    @property
    def base(self) -> str:
        """Name of the model that the others are compared with."""
        named = [one.stage.name for one in self.findings]
        return self.settings.base or (named[0] if named else "")

    def of(self, probe: str) -> tuple[Finding, ...]:
        """Return what one probe saw, models in order."""
        return tuple(one for one in self.findings if one.probe == probe)

    def notes(self) -> list[str]:
        """Return what to know before the figures are believed: few texts, few events, a base that is missing."""
        return [note for probe in dict.fromkeys(one.probe for one in self.findings) for note in self._notes_on(probe)]

    def _notes_on(self, probe: str) -> Iterator[str]:
        found = self.of(probe)
        if self.base not in [one.stage.name for one in found]:
            yield f"The base {self.base!r} has no figures of {probe}, so that no change is told."
        texts = "texts" if probe in TEXT_PROBES else "questions"
        held = min(int(np.count_nonzero(one.tally.count.sum(axis=1))) for one in found)
        if held < FEW:
            yield f"The figures of {probe} are of few {texts}, {held} blocks of them: their intervals are too short."
        for one in found:
            if one.cut:
                yield (
                    f"In {one.cut} of {one.tally.n} events of {probe} {one.stage.name} hid a part of the "
                    "probabilities: their confidences and losses are points inside bounds."
                )
        asked = getattr(self.settings.probes, probe)
        wanted, least = getattr(asked, "events", None), min(one.tally.n for one in found)
        if wanted is not None and 2 * least < wanted:
            yield f"{wanted} events of {probe} were asked for, and {asked.source} has {least}."

    def rows(self) -> list[dict[str, Any]]:
        """Return the table, a row for each probe of each model.

        Columns: `stage`, `model`, `probe`, the axes, `n`, and each figure with its ends `_low` and `_high`: `accuracy`,
        `confidence`, `ece`, `gap` (confidence minus accuracy), `brier`, `nll` in nats; `auroc`; then each figure's
        difference to the base, `ece_change` and so on, with its ends; and `comparable`, False where the tokenizer is
        not the base's, or the tokens that were predicted were others, so that there is no difference to tell. None:
        not known.
        """
        axes = list(dict.fromkeys(name for one in self.findings for name in one.stage.axes))
        bases = {one.probe: one for one in self.findings if one.stage.name == self.base}
        return [_row(one, bases.get(one.probe), axes, self.settings.seed) for one in self.findings]

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Write table.csv, table.parquet and study.json, and return the rows of the table."""
        rows = self.rows()
        if not rows:
            for name in ("table.csv", "table.parquet"):  # what an earlier run found is not what this one did
                (folder / name).unlink(missing_ok=True)
        else:
            with replacing(folder / "table.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            arrow = need("pyarrow", feature="writing Parquet", extra="study")
            parquet = need("pyarrow.parquet", feature="writing Parquet", extra="study")
            with replacing(folder / "table.parquet") as path:
                parquet.write_table(arrow.Table.from_pylist(rows), path)
        with replacing(folder / "study.json") as path:
            path.write_text(json.dumps(self.told(rows), indent=1, ensure_ascii=False), encoding="utf-8")
        return rows

    def told(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what study.json holds: the rows, the reliability data of each, failures and settings."""
        curves = [
            {
                "model": one.stage.name,
                "probe": one.probe,
                "provenance": asdict(one.provenance),
                "edges": one.tally.curve.edges.tolist(),
                "count": one.tally.count.sum(axis=0).tolist(),
                "confidence_sum": one.tally.confidence.sum(axis=0).tolist(),
                "correct_sum": one.tally.correct.sum(axis=0).tolist(),
                "groups": {
                    name: {"n": own.n, "accuracy": own.accuracy, "ece": own.ece()} for name, own in one.groups.items()
                },
            }
            for one in self.findings
        ]
        return {
            "settings": self.settings.model_dump(mode="json"),
            "base": self.base,
            "rows": [{name: _finite(value) for name, value in row.items()} for row in rows],
            "reliability": curves,
            "failures": dict(self.failures),
            "notes": self.notes(),
        }


def _row(one: Finding, base: Finding | None, axes: Sequence[str], seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"stage": one.stage.stage, "model": one.stage.name, "probe": one.probe}
    row |= {name: one.stage.axes.get(name) for name in axes}
    row["n"] = one.tally.n
    values, ends = one.tally.figures(), one.tally.intervals(seed)
    for name in FIGURES:
        row[name], (row[f"{name}_low"], row[f"{name}_high"]) = values[name], ends[name]
    row["auroc"] = one.tally.auroc()
    comparable = base is not None and _same_events(one, base)
    changes = one.tally.difference(base.tally, seed) if base is not None and comparable else {}
    for name in FIGURES:
        for ending, value in zip(("", "_low", "_high"), changes.get(name, (None,) * 3), strict=True):
            row[f"{name}_change{ending}"] = value
    return row | {"comparable": comparable}


def _same_events(one: Finding, base: Finding) -> bool:
    """Return whether two models saw the same events."""
    same_tokens = one.provenance.tokenizer == base.provenance.tokenizer
    return one.events == base.events and (same_tokens or one.probe not in TEXT_PROBES)


def _finite(value: Any) -> Any:
    """Return None for a number that JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
