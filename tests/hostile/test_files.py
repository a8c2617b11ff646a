"""Hostile files: saved calibrators, guarantees, monitors, decision.json and question sets, damaged in every way."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.calibrators import MatrixScaling, VectorScaling
from calibwrap.calibrators._catto_features import NAMES
from calibwrap.guarantees import (
    SavedGuarantee,
    load_guarantee,
    load_monitor,
    save_guarantee,
    save_monitor,
)
from calibwrap.provenance import Provenance

from .inputs import bytes_of, json_of
from .judging import EXAMPLES, hostile, judge, sound, table_of_outcomes

RANDOM = np.random.default_rng(0)
ROWS = np.log(RANDOM.dirichlet(np.ones(3), 60))
ANSWERS = (ROWS + RANDOM.gumbel(size=ROWS.shape)).argmax(axis=1)
SAID = RANDOM.random(60)
RIGHT = RANDOM.random(60) < SAID
MATRIX = MatrixScaling(RANDOM.normal(size=(3, 3)), [0.0, 0.1, 0.3])
CALIBRATORS: dict[str, Any] = {
    "temperature": cw.fit_temperature(ROWS, ANSWERS),
    "vector": VectorScaling([1.0, 0.5, 2.0], [0.0, 0.1, -0.1]),
    "matrix": cw.fit_matrix_scaling(np.tile(ROWS, (2, 1)), np.tile(ANSWERS, 2)),  # 60 rows would warn
    "chain": cw.chain(cw.Temperature(2.0), MATRIX, cw.Identity()),
    "platt": cw.fit_platt(SAID, RIGHT),
    "beta": cw.fit_beta(SAID, RIGHT),
    "isotonic": cw.fit_isotonic(SAID, RIGHT),
    "binning": cw.fit_histogram_binning(SAID, RIGHT, n_bins=4),
    "venn-abers": cw.fit_venn_abers(SAID, RIGHT),
    "top-label": cw.fit_top_label(ROWS, ANSWERS),
    "class-wise": cw.fit_class_wise(ROWS, ANSWERS),
    "groups": cw.fit_group_temperature(ROWS, ANSWERS, groups=["a", "b", "c"] * 20),
    "head": cw.CattoHead(
        *(RANDOM.uniform(0.5, 1.0, len(NAMES)) for _ in range(2)),
        RANDOM.normal(size=(len(NAMES), 4)),
        *RANDOM.normal(size=(2, 4)),
        0.3,
        level="option",
        top=2,
    ),
    "probe": cw.Probe([1.0, 2.0], 3, "cloze"),
    "auto": cw.fit_auto(ROWS, ANSWERS),
}
"""A calibrator of every kind that is fitted without a model, with its report."""
HERE = Provenance("hf", "tiny", "abc", "float32", "t", "")
GUARD = cw.fit_guard(SAID, RIGHT, risk=0.6, delta=0.5)
SETS = cw.fit_sets(ROWS, ANSWERS, coverage=0.8)
MONITORS = [
    cw.CalibrationMonitor(0.1).update([1.0, 0.7, 0.6], [0, 1, 0.25]),
    cw.DriftMonitor.from_calibration([0.5, 0.9, 0.9], seed=3).update([0.9, 0.1]),
]
QUESTIONS = [
    {"id": "q1", "prompt": "Red planet?", "options": ["Mars", "Venus"], "answer": 0},
    {"question": "Wet? é", "choices": {"text": ["water", "sand"], "label": ["A", "B"]}, "answer": "B", "context": "c"},
    {"id": 7, "prompt": "2 + 2?", "options": ["3", "4", "5"], "answer": None, "metadata": {"topic": "sums"}},
]
FREE = [{"prompt": "Red planet?", "answers": ["Mars", "the planet Mars"]}, {"question": "Wet?", "answers": []}]


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    yield
    if EXAMPLES >= 1000:
        kinds = ("saved bytes", "saved fields", "question bytes", "question fields")
        print("\n" + "\n".join(line for kind in kinds for line in table_of_outcomes(kind)))


def use_monitor(monitor: Any) -> None:
    """Return nothing when a loaded monitor goes on; its capital may be beyond the range of floats, its log may not."""
    more = ([0.4, 0.9], [1, 0]) if isinstance(monitor, cw.CalibrationMonitor) else ([0.4, 0.9],)
    assert np.isfinite(monitor.update(*more).log_value)


def use_guarantee(saved: SavedGuarantee) -> None:
    sound(saved.calibrator)
    if isinstance(saved.guarantee, cw.Guard):
        saved.guarantee(cw.Answer("Paris", 0.9, (0.9, 0.9)))
    else:
        assert saved.guarantee(cw.OptionScores(ROWS, readout="")).any(axis=1).all()


def use_questions(questions: list[Any]) -> None:
    assert questions
    assert len({one.id for one in questions}) == len(questions)
    assert all(isinstance(one, cw.Question | cw.FreeQuestion) and one.prompt.strip() for one in questions)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes, Callable[[Path], Any], Any]]:
    """Return (name, whole file, reader, what must hold of what was read)."""
    folder = tmp_path_factory.mktemp("whole")
    found: list[tuple[str, bytes, Callable[[Path], Any], Any]] = []
    for name, one in CALIBRATORS.items():
        for ending in ("json", "safetensors"):
            path = folder / f"{name}.{ending}"
            cw.save(one, path, provenance=HERE)
            found.append((path.name, path.read_bytes(), cw.load, sound))
    for name, guarantee in {"guard": GUARD, "sets": SETS}.items():
        for ending in ("json", "safetensors"):
            path = folder / f"{name}.{ending}"
            save_guarantee(SavedGuarantee(guarantee, MATRIX, HERE, "label:letter"), path)
            found.append((path.name, path.read_bytes(), load_guarantee, use_guarantee))
    for number, monitor in enumerate(MONITORS):
        path = folder / f"monitor{number}.json"
        save_monitor(monitor, path)
        found.append((path.name, path.read_bytes(), load_monitor, use_monitor))
    cw.save_decision(cw.Temperature(1.7), folder / "decision.json")
    found.append(("decision.json", (folder / "decision.json").read_bytes(), cw.load_decision, sound))
    return found


def read(kind: str, name: str, data: bytes, reader: Callable[[Path], Any], check: Any, folder: Path) -> None:
    path = folder / name
    path.write_bytes(data)
    judge(kind, name, lambda: reader(path), check)


@hostile
@given(data=st.data())
def test_saved_files_with_damaged_bytes(files: list[Any], tmp_path_factory: Any, data: st.DataObject) -> None:
    name, whole, reader, check = data.draw(st.sampled_from(files))
    read("saved bytes", name, data.draw(bytes_of(whole)), reader, check, tmp_path_factory.getbasetemp())


def with_header(whole: bytes, header: bytes) -> bytes:
    """Return a safetensors file with another header of ours in its own header."""
    size = int.from_bytes(whole[:8], "little")
    outer = json.loads(whole[8 : 8 + size])
    outer["__metadata__"] = {key: header.decode("utf-8", "replace") for key in outer["__metadata__"]}
    packed = json.dumps(outer).encode()
    return len(packed).to_bytes(8, "little") + packed + whole[8 + size :]


@hostile
@given(data=st.data())
def test_saved_files_with_other_fields(files: list[Any], tmp_path_factory: Any, data: st.DataObject) -> None:
    name, whole, reader, check = data.draw(st.sampled_from(files))
    folder = tmp_path_factory.getbasetemp()
    if whole[:1] == b"{":
        read("saved fields", name, data.draw(json_of(json.loads(whole))), reader, check, folder)
        return
    size = int.from_bytes(whole[:8], "little")
    outer = json.loads(whole[8 : 8 + size])
    if data.draw(st.booleans()):
        inner = json.loads(next(iter(outer["__metadata__"].values())))
        damaged = with_header(whole, data.draw(json_of(inner)))
    else:
        packed = data.draw(json_of(outer))  # shapes, types and offsets of arrays
        damaged = len(packed).to_bytes(8, "little") + packed + whole[8 + size :]
    read("saved fields", name, damaged, reader, check, folder)


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@hostile
@given(data=st.data())
def test_question_files_with_damaged_bytes(tmp_path_factory: Any, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([lines(QUESTIONS), lines(FREE)]))
    folder = tmp_path_factory.getbasetemp()
    read("question bytes", "q.jsonl", data.draw(bytes_of(whole)), cw.load_questions, use_questions, folder)


@hostile
@given(data=st.data())
def test_question_files_with_other_fields(tmp_path_factory: Any, data: st.DataObject) -> None:
    rows = data.draw(st.sampled_from([QUESTIONS, FREE, QUESTIONS + FREE]))
    at = data.draw(st.integers(0, len(rows) - 1))
    damaged = lines(rows[:at]) + data.draw(json_of(rows[at])) + b"\n" + lines(rows[at + 1 :])
    read("question fields", "q.jsonl", damaged, cw.load_questions, use_questions, tmp_path_factory.getbasetemp())
