"""The shoot-out on synthetic scores: readings are kept, figures are the library's, failures are said."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap import metrics
from calibwrap.calibrators import FITS
from calibwrap.scores import log_softmax
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))  # the command is a script, not a package
import _shootout_judge as judging
import _shootout_methods as rows
import _shootout_probe as states
import _shootout_scores as reading
import _shootout_tables as tables
import shootout

N = 120


def planted(temperature: float = 3.0, seed: int = 0, n: int = N) -> tuple[reading.Stored, reading.Stored]:
    """Return an over-confident model and a calibrated reference of the same questions, some with fewer options."""
    random = np.random.default_rng(seed)
    truth = 1.5 * random.normal(size=(n, 4))
    truth[::10, 3] = -np.inf
    truth = log_softmax(truth)
    answers = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)
    ids = tuple(f"q{row}" for row in range(n))
    sharp = np.where(np.isfinite(truth), temperature * truth, -np.inf)
    return tuple(reading.Stored(cw.OptionScores(of, "continuation"), answers, ids) for of in (sharp, truth))


def counts_of(n: int = N, resamples: int = 200) -> np.ndarray:
    return np.random.default_rng(0).multinomial(n, np.full(n, 1.0 / n), resamples)


def row(name: str) -> rows.Method:
    return next(one for one in rows.methods() if one.name == name)


def judged_by(name: str, temperature: float = 3.0, n: int = N) -> judging.Result:
    model, reference = planted(temperature, n=n)
    method = row(name)
    return judging.judge(method, model, reference.scores, counts_of(n))


def result(ece: float, nll: float = 1.0, uses: str = "labels", failed: str = "") -> judging.Result:
    figures = {} if failed else {m: (dict(ece=ece, nll=nll).get(m, 0.5), 0.0, 1.0) for m in judging.MEASURES}
    return judging.Result(uses, failed, figures, ece_draws=np.full(4, ece))


def test_what_is_kept_comes_back_with_its_bounds(tmp_path):
    cut = cw.OptionScores.from_lists([[0.6, 0.0]], [[0, 1]], tail=[0.3], cut=[0.2], readout="label")
    for scores in (planted()[0].scores, cut):
        before = reading.Stored(scores, np.zeros(len(scores), dtype=np.int64), tuple(map(str, range(len(scores)))))
        reading.keep(tmp_path / "x.npz", before)
        after = reading.kept(tmp_path / "x.npz")
        assert after.ids == before.ids
        assert after.scores.readout == scores.readout
        for name in ("logprobs", "mask", "lower", "upper", "missing", "argmax_certified", "label_mass"):
            np.testing.assert_allclose(getattr(after.scores, name), getattr(scores, name), rtol=0, atol=1e-14)
        assert after.scores.is_exact == scores.is_exact


def test_questions_of_another_width_are_left_out():
    scores = cw.OptionScores.from_rows([[0.0, -1.0], [0.0, -1.0, -2.0], [-3.0, 0.0]], "label")
    found = reading.usual(reading.Stored(scores, np.array([0, 2, 1]), ("a", "b", "c")))
    np.testing.assert_allclose(found.scores.logprobs, scores.logprobs[[0, 2], :2])
    assert found.scores.is_exact
    assert found.answers.tolist() == [0, 1]
    assert found.ids == ("a", "c")


def test_the_plan_reads_small_models_first_and_the_reference_once():
    sets = {"one": toy_questions(3), "two": toy_questions(3, seed=1)}
    models = ("qwen2.5-coder-1.5b-instruct", "smollm2-135m-instruct", "gemma-3-270m")
    found = reading.plan(models, ["text"], "gemma-3-270m", sets)
    assert [(one.model, one.readout, one.name) for one in found[::2]] == [
        ("smollm2-135m-instruct", "continuation:sum", "one"),
        ("smollm2-135m-instruct", "contextual:continuation:sum", "one"),
        ("gemma-3-270m", "continuation:token", "one"),
        ("gemma-3-270m", "continuation:sum", "one"),
        ("gemma-3-270m", "contextual:continuation:sum", "one"),
        ("qwen2.5-coder-1.5b-instruct", "continuation:sum", "one"),
        ("qwen2.5-coder-1.5b-instruct", "contextual:continuation:sum", "one"),
    ]
    assert len({one.path(Path()) for one in found}) == len(found) == 14


def test_letters_are_read_in_a_chat_where_the_model_knows_chats():
    found = reading.plan(
        ["gemma-3-270m", "smollm2-135m-instruct"], ["letters"], "gemma-3-270m", {"s": toy_questions(3)}
    )
    assert [one.readout for one in found] == [
        "label:letter-chat",
        "contextual:label:letter-chat",
        "permuted:label:letter-chat",
        "continuation:token",
        "label:letter",
        "contextual:label:letter",
        "permuted:label:letter",
    ]
    assert [one.plain.readout for one in found] == ["label:letter-chat"] * 3 + ["continuation:token"] + [
        "label:letter"
    ] * 3


def guessing(n: int = N) -> reading.Stored:
    """Return a model that always says the first letter, where every option is right as often."""
    scores = cw.OptionScores(np.log([[0.7, 0.1, 0.1, 0.1]] * n), "label:letter-chat")
    return reading.Stored(scores, np.arange(n) % 4, tuple(f"q{at}" for at in range(n)))


def test_letters_at_chance_are_known_and_their_corrections_not_read(tmp_path, monkeypatch, capsys):
    assert reading.knows(planted()[0])
    assert not reading.knows(guessing())
    questions = {"s": toy_questions(4)}
    found = reading.plan(["smollm2-135m-instruct"], ["text", "letters"], "gemma-3-270m", questions)
    plain, corrections = [], []
    for one in found:
        (plain if one.plain == one else corrections).append(one)
        if one.plain == one or one.readout.endswith("sum"):
            reading.keep(one.path(tmp_path), guessing())
    assert len(corrections) == 3
    assert {one.readout for one in found if reading.at_chance(one, tmp_path)} == {
        "contextual:label:letter-chat",
        "permuted:label:letter-chat",
    }
    monkeypatch.setattr(reading.cw, "wrap", lambda *args, **kwargs: pytest.fail("a model was opened"))
    reading.read_all(found, tmp_path, threads=1)


def test_sets_of_as_many_options_are_one_and_the_set_is_the_group():
    wide = cw.OptionScores(np.zeros((3, 5)), "continuation")
    sets = {"a": planted(seed=1)[0], "b": reading.Stored(wide, np.zeros(3, dtype=int), ("x", "y", "z"))}
    assert reading.pooled(sets) is None
    whole = reading.pooled({**sets, "c": planted(seed=2, n=40)[0]})
    assert whole.groups == ("a",) * N + ("c",) * 40
    assert whole.ids[:2] == ("a:q0", "a:q1")
    np.testing.assert_array_equal(whole.answers[:N], sets["a"].answers)
    np.testing.assert_allclose(whole.scores.logprobs[:N], sets["a"].scores.logprobs)
    part = whole.take(np.array([N, 0]))
    assert part.groups == ("c", "a")
    assert part.ids == ("c:q0", "a:q0")


def test_groups_get_temperatures_of_their_own():
    """Two sets, one twice as over-confident: the groups' temperatures beat the one of all."""
    parts = {"a": planted(2.0, 1, 600), "b": planted(6.0, 2, 600)}
    model, other = (reading.pooled({name: pair[side] for name, pair in parts.items()}) for side in (0, 1))
    one, each = (
        judging.judge(row(name), model, other.scores, counts_of(1200)) for name in ("temperature", "group-temperature")
    )
    assert each["nll"] < one["nll"] - 0.02
    assert each["accuracy"] == one["accuracy"]
    calibrator = row("group-temperature").fit(model, other.scores)
    by_group = dict(zip(calibrator.groups, calibrator.values, strict=True))
    assert by_group["a"] == pytest.approx(2.0, rel=0.25)
    assert by_group["b"] == pytest.approx(6.0, rel=0.25)


def test_a_correction_declares_that_the_choice_may_change():
    model, other = planted(n=600)
    plain, around = (judging.judge(row(name), model, other.scores, counts_of(600)) for name in ("identity", "permuted"))
    assert around.figures == plain.figures  # the same reading was passed
    assert plain.keeps_choice
    assert not around.keeps_choice


def hidden(n: int = 80) -> tuple[states.States, np.ndarray]:
    """Return states of which the first number tells the right option, the last layer more clearly than the first."""
    random = np.random.default_rng(0)
    answers = random.integers(0, 3, n)
    found = random.normal(size=(n, 4, 2, 6))
    found[np.arange(n), answers, :, 0] += (1.0, 4.0)
    mask = np.ones((n, 4), dtype=bool)
    mask[::8, 3] = False
    return states.States(found, np.array([3, 6]), mask), answers


def test_a_probe_is_a_row_on_hidden_states(monkeypatch):
    monkeypatch.setattr(judging, "SPLITS", 1)
    found, answers = hidden()
    read = reading.Stored(found, answers, tuple(map(str, range(80))))
    result = judging.judge(row("probe"), read, planted(n=80)[1].scores, counts_of(80))
    assert result["accuracy"] > 0.85
    assert not result.keeps_choice
    fitted = states.fit_head_on_states(found, answers)
    assert fitted.probe.layer == 6
    scores = fitted(found)
    np.testing.assert_array_equal(scores.mask, found.mask)
    np.testing.assert_allclose(np.exp(scores.logprobs).sum(axis=1), 1.0)


def test_states_are_read_in_pieces_and_go_with_the_plain_reading(tmp_path, monkeypatch):
    """The toy has no states, so those of a text are its length: each option's must come back at its own place."""
    asked: list[int] = []

    def lengths(adapter, questions, layers):
        asked.append(len(questions))
        table = np.zeros((len(questions), max(len(q.options) for q in questions), len(layers), 1))
        mask = np.zeros(table.shape[:2], dtype=bool)
        for at, question in enumerate(questions):
            for place, option in enumerate(question.options):
                table[at, place] = len(question.prompt + option)
                mask[at, place] = True
        return table, mask

    monkeypatch.setattr(states, "option_states", lengths)
    questions = tuple(cw.Question("x" * (at + 1), ["a", "bb", "ccc"][: 3 - at % 2], 0, id=f"q{at}") for at in range(90))
    one = reading.Reading("toy", "probe", "s", questions)
    first = states.part_of(one.path(tmp_path), 0)
    states.write(
        first,
        states.States(
            *lengths(None, questions[:40], (3, 4, 5, 6))[:1],
            np.array([3, 4, 5, 6]),
            lengths(None, questions[:40], (3,))[1],
        ),
    )
    asked.clear()
    states.read_set(SimpleNamespace(adapter=SimpleNamespace(n_layers=6)), one, tmp_path)
    assert asked == [40, 10]
    assert [path.name for path in tmp_path.iterdir()] == [one.path(tmp_path).name]
    kept = np.arange(0, 90, 2)
    plain = reading.Stored(
        cw.OptionScores(np.zeros((45, 3)), "c"), np.zeros(45, dtype=int), tuple(f"q{at}" for at in kept)
    )
    found = states.kept_states(one, plain, tmp_path)
    np.testing.assert_array_equal(found.scores.states[:, :, 0, 0], kept[:, None] + np.array([2, 3, 4]))
    assert found.scores.layers.tolist() == [3, 4, 5, 6]
    with pytest.raises(SystemExit, match="other options"):
        states.kept_states(
            one, reading.Stored(plain.scores, plain.answers, tuple(f"q{at}" for at in range(45))), tmp_path
        )


def test_a_reading_goes_on_where_it_stopped(tmp_path):
    model = ToyModel.random(1)
    questions = tuple(toy_questions(12, model=model))
    one = reading.Reading("toy", "label", "toys", questions)
    first = reading.read(cw.wrap(ToyAdapter(model)), one, tmp_path)
    journal = one.path(tmp_path).with_suffix(".jsonl")
    whole = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(whole[:-5]))
    again = reading.read(cw.wrap(ToyAdapter(model)), one, tmp_path)
    np.testing.assert_array_equal(again.scores.logprobs, first.scores.logprobs)
    assert again.answers.tolist() == [question.answer for question in questions]
    assert journal.read_text().splitlines(keepends=True)[: len(whole) - 5] == whole[:-5]


def test_no_model_is_opened_for_what_is_kept(tmp_path, monkeypatch):
    one = reading.Reading("smollm2-135m-instruct", "continuation:sum", "toys", tuple(toy_questions(4)))
    reading.keep(one.path(tmp_path), planted(n=4)[0])
    monkeypatch.setattr(reading.cw, "wrap", lambda *args, **kwargs: pytest.fail("a model was opened"))
    reading.read_all([one], tmp_path, threads=1)


@pytest.mark.parametrize("measure", judging.MEASURES)
def test_a_resample_of_every_question_once_is_the_librarys_figure(measure):
    model, _ = planted()
    held = judging.Held(np.arange(N), model.scores, model.answers)
    correct = model.scores.choice == model.answers
    confidence, expected = model.scores.confidence, float("nan")
    if measure == "ece":
        expected = metrics.ece(confidence, correct, n_bins=10)
    elif measure == "smooth_ece":
        expected = metrics.smooth_ece(confidence, correct)
    elif measure == "brier":
        expected = metrics.brier(model.scores.probabilities, model.answers)
    elif measure == "nll":
        expected = metrics.nll(model.scores.logprobs, model.answers)
    else:
        expected = float(correct.mean())
    draws = judging.DRAWS[measure](held, np.ones((1, N)))
    assert draws[0] == pytest.approx(expected, abs=1e-3 if measure == "smooth_ece" else 1e-12)
    assert judging.measured(measure, model.scores, model.answers) == pytest.approx(expected)


def test_counts_are_repeated_rows():
    model, _ = planted()
    counts = counts_of(resamples=1)
    rows = np.repeat(np.arange(N), counts[0])
    held = judging.Held(np.arange(N), model.scores, model.answers)
    drawn = model.scores.take(rows)
    for measure in ("accuracy", "ece", "brier", "nll"):
        repeated = judging.measured(measure, drawn, model.answers[rows])
        assert judging.DRAWS[measure](held, counts)[0] == pytest.approx(repeated)


def test_an_endless_loss_stays_endless_where_it_was_drawn():
    scores = cw.OptionScores(np.array([[0.0, -np.inf], [0.0, -1.0]]), "label", mask=np.ones((2, 2), dtype=bool))
    held = judging.Held(np.arange(2), scores, np.array([1, 0]))
    draws = judging.DRAWS["nll"](held, np.array([[1, 1], [0, 2]]))
    assert draws[0] == np.inf
    assert np.isfinite(draws[1])
    assert judging.ends(draws)[1] == np.inf


def test_an_interval_is_about_its_figure():
    assert judging.centred(np.array([0.1, 0.3]), 0.1).tolist() == pytest.approx([0.0, 0.2])
    assert judging.centred(np.array([0.1, np.inf]), 0.1).tolist() == [0.1, np.inf]
    for name in ("temperature", "top-label:histogram"):
        found = judged_by(name)
        assert found.ece_draws.mean() == pytest.approx(found["ece"])
        assert found.figures["ece"][1] < found["ece"] < found.figures["ece"][2]


def test_every_fit_of_the_registry_is_a_row():
    assert {"identity", *FITS, "probe", "batch, matched-mean"} < {one.name for one in rows.methods()}


def test_a_planted_temperature_is_found_and_counts():
    raw, warm, daca = (judged_by(name, n=600) for name in ("identity", "temperature", "daca"))
    assert warm.temperature == pytest.approx(3.0, abs=0.6)
    assert daca.temperature == pytest.approx(3.0, abs=0.6)
    assert warm["ece"] < raw["ece"] - 0.1
    assert warm["nll"] < raw["nll"]
    assert warm["accuracy"] == raw["accuracy"]
    assert warm.keeps_choice
    assert not judged_by("vector").keeps_choice
    value, low, high = raw.figures["brier"]
    assert low < value < high


def test_methods_without_labels_do_not_look_at_them():
    model, reference = planted()
    others = np.roll(model.answers, 7) % 3
    blind = [one for one in rows.methods() if one.uses != "labels"]
    assert {"daca", "batch", "soft:platt", "matched-mean", "identity", "permuted, matched-mean"} <= {
        o.name for o in blind
    }
    for one in blind:
        fits = [one.fit(replace(model, answers=answers), reference.scores) for answers in (model.answers, others)]
        np.testing.assert_array_equal(*(fit(model.scores).logprobs for fit in fits))


def test_a_failure_is_a_row_with_its_sentence():
    model, _ = planted()
    failed = judging.judge(row("daca"), model, guessing().scores, counts_of())
    assert failed.failed.startswith("split 0: ")
    line = tables.table(("m", "r", "s"), {"daca": failed})[2]
    assert tables.plain(failed.failed) in line
    assert line.count("|") == 4 + len(judging.MEASURES) + 1


def test_ranks_put_failures_last():
    found = {
        ("a", "r", "s"): {"x": result(0.1), "temperature": result(0.2), "z": result(0.0, failed="no")},
        ("b", "r", "s"): {"x": result(0.3), "temperature": result(0.2), "z": result(0.1)},
    }
    assert tables.mean_ranks(found, "ece") == {"x": 2.0, "temperature": 2.0, "z": 2.0}
    found["b", "r", "s"]["only here"] = result(0.05)
    assert tables.mean_ranks(found, "ece")["only here"] == 1.0
    rows = tables.summary(found)
    assert (rows["only here"]["worked"], rows["only here"]["tried"]) == (1, 1)
    assert (rows["z"]["worked"], rows["z"]["tried"]) == (1, 2)
    assert rows["x"]["ece"] == pytest.approx(0.2)
    assert rows["z"]["above_labels"] == pytest.approx((-10.0, -10.0, -10.0))
    assert rows["z"]["ece"] == pytest.approx(0.1)


def test_methods_without_labels_stand_beside_the_labels_by_how_good_the_reference_is():
    of = {
        "daca": result(0.2, 1.5, uses="reference"),
        "identity": result(0.4, 1.25, uses="nothing"),
        "temperature": result(0.1, 1.0),
    }
    broken = {**of, "daca": result(0.0, uses="reference", failed="no")}
    found = {("m", "r", "good"): of, ("m", "r", "bad"): {**of, "daca": result(0.5, 1.5)}, ("n", "r", "good"): broken}
    rows = tables.bar_rows(found, {"good": planted()[1], "bad": planted(4.0)[0]})
    assert tables.counted(rows) == [("m", "r", "good"), ("n", "r", "good")]
    lines = tables.above_table(found, rows)
    lost = "+0.250 | +0.250"
    assert (
        lines[2] == f"| identity | +30.0 (+30.0 to +30.0) | +30.0 | {lost} | +30.0 (+30.0 to +30.0) | +30.0 | {lost} |"
    )
    assert lines[3].startswith(
        "| daca | +10.0 (+10.0 to +10.0) | +10.0 | +0.500 | +0.500 | +40.0 (+40.0 to +40.0) | +40.0 | "
    )
    assert len(lines) == 4


def bars(daca: float, labelled: float, model: str = "m", reference_temperature: float = 1.0) -> str:
    found = {(model, "r", "s"): {"daca": result(daca, uses="reference"), "temperature": result(labelled)}}
    _, good = planted()
    sharp, _ = planted(reference_temperature)
    rows = tables.bar_rows(found, {"s": good if reference_temperature == 1.0 else sharp})
    return "\n".join(tables.bar_table(found, rows))


def test_the_bar_is_met_missed_or_not_tried():
    assert "(1 of 1 tables), DACA is +1.4 (+1.4 to +1.4) points above labels; the bar is 1.5: met." in bars(0.114, 0.1)
    assert "+1.6 (+1.6 to +1.6) points above labels; the bar is 1.5: missed." in bars(0.116, 0.1)
    assert "The bar is not tried" in bars(0.1, 0.1, reference_temperature=4.0)
    own = bars(0.1, 0.1, model=tables.REFERENCE)
    assert "not counted" in own
    assert "The bar is not tried" in own


def test_the_command_judges_what_is_kept(tmp_path, monkeypatch, capsys):
    sets = {"sciq": toy_questions(N), "arc_easy": toy_questions(N, seed=1)}
    model, reference = planted()
    for one in reading.plan(["smollm2-135m-instruct"], ["text", "letters"], tables.REFERENCE, sets):
        if one.readout == "label:letter-chat":
            reading.keep(one.path(tmp_path), guessing())
        elif one.readout != "contextual:continuation:sum" or one.name == "sciq":
            reading.keep(one.path(tmp_path), reference if one.model == tables.REFERENCE else model)
    monkeypatch.setattr(judging, "SPLITS", 2)
    chosen = ("identity", "daca", "temperature", "group-temperature", "contextual", "permuted", "probe")
    monkeypatch.setattr(shootout, "methods", lambda: [row(name) for name in chosen])
    monkeypatch.setattr(shootout, "load_questions", lambda name, **options: sets[name])
    words = f"--work {tmp_path} --sets sciq arc_easy --free --no-reading --resamples 50 --json {tmp_path}/a.json"
    monkeypatch.setattr(sys, "argv", ["shootout.py", *words.split(), "--markdown", f"{tmp_path}/a.md"])
    shootout.main()
    shown = capsys.readouterr()
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert text in shown.out
    assert "not read: qwen2.5-coder-1.5b-instruct, continuation:sum, sciq" in shown.err
    assert "not read: smollm2-135m-instruct, probe, sciq" in shown.err
    data = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert [(one["model"], one["set"]) for one in data["cells"]] == [
        ("smollm2-135m-instruct", name) for name in ("sciq", "arc_easy", "sciq + arc_easy")
    ]
    sciq, easy, both = (list(one["methods"]) for one in data["cells"])
    assert easy == ["identity", "daca", "temperature"]
    assert sciq == [*easy, "contextual"]
    assert both == [*easy, "group-temperature"]
    assert not any(one["failed"] for of in data["cells"] for one in of["methods"].values())
    assert list(data["sections"]) == ["text", "text, sets as one"]
    assert "Not judged, being at chance: smollm2-135m-instruct, label:letter-chat, sciq; " in text
    assert "108 questions a set" in text  # every tenth has three options
    for name in sciq:
        assert text.count(f"\n| {name} |") >= 2, name


def test_too_few_questions_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["shootout.py", "--questions", "39"])
    with pytest.raises(SystemExit, match="2"):
        shootout.main()
    assert "at least 40" in capsys.readouterr().err
