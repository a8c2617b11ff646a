"""The shoot-out's tables of free text: what is read is kept, methods without labels read none, figures are known."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.testing import ToyAdapter, ToyModel

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))  # the command is a script, not a package
import _shootout_free as free
import _shootout_scores as reading
import shootout


def planted(n: int = 800, seed: int = 0) -> free.Free:
    """Return answers that are right as often as the reference says; the model doubles the log-odds."""
    random = np.random.default_rng(seed)
    odds = random.normal(-0.5, 1.5, n)
    truth, sharp = (1.0 / (1.0 + np.exp(-by * odds)) for by in (1.0, 2.0))
    verdicts = [np.log(np.stack([of, 1.0 - of], axis=1)) for of in (sharp, truth)]
    return free.Free(sharp, *verdicts, word=truth, correct=(random.random(n) < truth).astype(float), asked=n + 3)


def row(name: str) -> free.Row:
    return next(one for one in free.rows() if one.name == name)


def mean_of(result: dict, measure: str) -> float:
    return float(np.mean([split[measure] for split in result["splits"]]))


def test_a_references_word_does_what_labels_do_where_it_is_right():
    read = planted()
    raw, warm, base, daca = (
        free.judge_free(row(name), read)
        for name in ("tokens", "tokens, platt", "tokens, BaseCal by platt", "P(True), DACA")
    )
    assert mean_of(raw, "ece") > 0.08
    for one in (warm, base, daca):
        assert mean_of(one, "ece") < 0.06
        assert mean_of(one, "nll") < mean_of(raw, "nll") - 0.02
        assert mean_of(one, "auroc") == pytest.approx(mean_of(raw, "auroc"))
    slope = row("P(True), DACA").fit(read).slope
    assert slope == pytest.approx(0.5, abs=1e-3)


def test_methods_without_labels_do_not_look_at_them():
    read = planted(200)
    other = replace(read, correct=1.0 - read.correct)
    for one in free.rows():
        if one.uses == "labels":
            continue
        said = [one.of(of) if one.fit is None else one.fit(of)(one.of(of)) for of in (read, other)]
        np.testing.assert_array_equal(*said)


def test_figures_of_four_answers():
    found = free.measured(np.array([0.9, 0.9, 0.5, 0.5]), np.array([1.0, 0.0, 1.0, 0.0]))
    assert found["ece"] == pytest.approx(0.2)
    assert found["brier"] == pytest.approx((0.01 + 0.81 + 0.25 + 0.25) / 4)
    assert found["nll"] == pytest.approx(-(np.log(0.9) + np.log(0.1) + 2 * np.log(0.5)) / 4)
    assert found["auroc"] == 0.5


def test_all_wrong_has_no_ranking_and_says_nothing_of_it():
    read = replace(planted(60), correct=np.zeros(60))
    lines, data = free.free_table("m, s", read)
    assert lines[0].startswith("| m, s, free text: 0.000 right of 60, 3 silent |")
    assert len(lines) == 2 + len(free.rows())
    assert all(line.endswith("|  |") for line in lines[2:])
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert data["silent"] == 3


def test_a_failure_is_a_row_with_its_sentence():
    against = replace(planted(60), other=planted(60).own[:, ::-1].copy())
    lines, data = free.free_table("m, s", against)
    assert "choose the same option in none" in data["methods"]["P(True), DACA"]["failed"]
    assert lines[-1].startswith("| P(True), DACA | reference | split 0: ")
    assert lines[-1].count("|") == lines[0].count("|")


def test_what_was_read_is_not_read_again(tmp_path, monkeypatch, capsys):
    """Toys answer and re-evaluate; what they would be asked as judges is not in their words, so that is planted."""
    verdict = cw.OptionScores(np.log([[0.75, 0.25]]), "verdict")
    monkeypatch.setattr(free, "judgements", lambda adapter, asked, texts: verdict.take(np.zeros(len(texts), dtype=int)))
    opened: list[str] = []

    def toy(model, threads):
        opened.append(model)
        return cw.wrap(ToyAdapter(ToyModel.random(3)))

    monkeypatch.setattr(free, "opened", toy)
    prompts = [f"{first} {last}" for first in "ABC" for last in ("A", "B", "C", "sun")]
    questions = tuple(cw.FreeQuestion(prompt, ["sun", "B"]) for prompt in prompts)
    one = reading.Reading("smollm2-135m-instruct", free.FREE, "toys", questions)
    assert shootout.told_free([one], tmp_path) == ("", [])
    free.read_free([one], tmp_path, threads=1)
    assert opened == ["smollm2-135m-instruct", reading.REFERENCE]
    free.read_free([one], tmp_path, threads=1)
    assert len(opened) == 2
    free.by_reference(one).path(tmp_path).unlink()
    free.read_free([one], tmp_path, threads=1)
    assert opened[2:] == [reading.REFERENCE]
    read = free.kept_free(one, tmp_path)
    assert read.asked == 12
    assert len(read.correct) == len(read.word) == len(read.own) > 0
    assert ((read.word > 0.0) & (read.word <= 1.0)).all()
    assert set(read.correct) <= {0.0, 1.0}
    text, data = shootout.told_free([one], tmp_path)
    assert "smollm2-135m-instruct, toys, free text" in text
    assert json.loads(json.dumps(shootout.strict(data), allow_nan=False))[0]["set"] == "toys"
    assert "not read" in capsys.readouterr().err
