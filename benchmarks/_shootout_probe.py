"""The hidden-state probe in the shoot-out: the states of packaged models, read through Transformers, and its fit."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _shootout_scores import Reading, Stored, opened, teller

import calibwrap as cw
from calibwrap.calibrators import Probe, fit_probe
from calibwrap.evaluate import question_keys
from calibwrap.files import replacing
from calibwrap.probing import DEPTHS, option_states

PROBE = "probe"
"""Name of the row, and of its readings."""
PIECE = 40
"""Questions that are read before what was read is kept."""


@dataclass(frozen=True)
class States:
    """Hidden states at the end of each option."""

    states: np.ndarray
    """(N, K, L, D)"""
    layers: np.ndarray
    """(L,)"""
    mask: np.ndarray
    """(N, K) True where there is an option."""

    def take(self, rows: np.ndarray) -> "States":
        """Return the states of some questions."""
        return States(self.states[rows], self.layers, self.mask[rows])


@dataclass(frozen=True)
class OnStates:
    """A fitted probe: hidden states in, scores of options out."""

    probe: Probe
    keeps_argmax = False

    def __call__(self, read: States) -> cw.OptionScores:
        """Return the scores of all options."""
        at = read.layers.tolist().index(self.probe.layer)
        logits = self.probe.of_states(read.states[:, :, at])
        return cw.OptionScores(np.where(read.mask, logits, -np.inf), self.probe.readout, read.mask)


def fit_head_on_states(read: States, answers: np.ndarray) -> OnStates:
    """Return the probe fitted on states and right answers."""
    by_layer = {int(layer): read.states[:, :, at] for at, layer in enumerate(read.layers)}
    return OnStates(fit_probe(by_layer, answers, read.mask))


def read_states(readings: Sequence[Reading], work: Path, threads: int) -> None:
    """Read the hidden states of what is not kept yet; each model is opened once, and a set is read in pieces."""
    for model in dict.fromkeys(one.model for one in readings):
        left = [one for one in readings if one.model == model and not one.path(work).exists()]
        if not left:
            continue
        with opened(model, threads) as lm:
            for reading in left:
                read_set(lm, reading, work)


def read_set(lm: Any, reading: Reading, work: Path) -> None:
    """Keep the states of one set; pieces that an earlier run kept are not read again."""
    layers = tuple(sorted({round(part * lm.adapter.n_layers) for part in DEPTHS}))
    tell, path, total = teller(str(reading)), reading.path(work), len(reading.questions)
    width = max(len(question.options) for question in reading.questions)
    for start in range(0, total, PIECE):
        piece = part_of(path, start)
        if not piece.exists():
            asked = reading.questions[start : start + PIECE]
            states, mask = option_states(lm.adapter, asked, layers)
            wider = ((0, 0), (0, width - mask.shape[1]))
            write(piece, States(np.pad(states, (*wider, (0, 0), (0, 0))), np.array(layers), np.pad(mask, wider)))
        tell(min(start + PIECE, total), total)
    pieces = [load(part_of(path, start)) for start in range(0, total, PIECE)]
    states, mask = (np.concatenate([getattr(one, of) for one in pieces]) for of in ("states", "mask"))
    write(path, States(states, np.array(layers), mask))
    for start in range(0, total, PIECE):
        part_of(path, start).unlink()


def part_of(path: Path, start: int) -> Path:
    """Return where the piece that begins at a question is kept until the set is whole."""
    return path.with_suffix(f".{start}.npz")


def write(path: Path, found: States) -> None:
    """Write states as single-precision numbers; the file appears whole or not at all."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, states=found.states.astype(np.float32), layers=found.layers, mask=found.mask)


def load(path: Path) -> States:
    """Return what `write` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return States(file["states"], file["layers"], file["mask"])


def kept_states(reading: Reading, plain: Stored, work: Path) -> Stored:
    """Return the states of the questions that the plain reading holds, with its answers and options."""
    at = {key: row for row, key in enumerate(question_keys(reading.questions))}
    found = load(reading.path(work))
    taken = found.take(np.array([at[one] for one in plain.ids]))
    width = plain.scores.mask.shape[1]
    narrow = States(taken.states[:, :width], taken.layers, taken.mask[:, :width])
    if not np.array_equal(narrow.mask, plain.scores.mask):
        sys.exit(f"{reading}: its states have other options than its scores. Delete the file and read again.")
    return Stored(narrow, plain.answers, plain.ids, plain.groups)
