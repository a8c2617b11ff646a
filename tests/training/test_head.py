"""Training a CATTO head: the loss's gradient, the recorded sketch of a position, and a planted calibration error."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from textwrap import dedent

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import approx_fprime, minimize_scalar

import calibwrap as cw
from calibwrap import training
from calibwrap.capabilities import Provides
from calibwrap.errors import CapabilityError, FitError, InputError, JournalError, QuestionError
from calibwrap.metrics import ece
from calibwrap.questions import CLOZE
from calibwrap.scores import TokenScores, log_softmax
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions
from calibwrap.training.catto import _LOSSES
from calibwrap.training.head import _fresh, _inputs, _Task, head_powers
from calibwrap.training.head_loss import _pointwise, head_loss, tempered
from calibwrap.training.head_positions import Positions, _sketched, pieces
from calibwrap.training.settings import HeadSettings

from . import runs

KINDS = list(itertools.product(("hard", "surrogate"), ("l1", "l2", "bce")))


def rows_of(logits, seed=0, top=20):
    """Record positions of whole rows (N, V) of logits, whose tokens are drawn from the rows themselves."""
    logprobs = log_softmax(logits)
    chosen = (logprobs + np.random.default_rng(seed).gumbel(size=logprobs.shape)).argmax(axis=1)
    return sketched(logprobs, chosen, top)


def sketched(logprobs, chosen, top=20):
    own = logprobs[np.arange(len(chosen)), chosen]
    return _sketched(TokenScores(logprobs, chosen=chosen, chosen_logprob=own), top, 0, 0, True)


def distorted(seed, n=4000, vocabulary=60):
    """Rows that are right at a temperature which depends on how spread they are: sharp ones are over-confident most."""
    random = np.random.default_rng(seed)
    true = log_softmax(random.uniform(0.3, 4.0, (n, 1)) * random.normal(size=(n, vocabulary)))
    chosen = (true + random.gumbel(size=true.shape)).argmax(axis=1)
    sharpness = 1.0 + 2.0 * np.exp(true.max(axis=1, keepdims=True))
    return sketched(log_softmax(sharpness * true), chosen)


@pytest.mark.parametrize(("target", "loss"), KINDS)
def test_the_gradient_of_the_loss_is_that_of_its_value(target, loss):
    rows = rows_of(2.0 * np.random.default_rng(1).normal(size=(7, 50)), top=5)
    powers = np.random.default_rng(2).uniform(0.3, 2.0, 7)
    options = {"target": target, "loss": loss, "margin_scale": 3.0}
    numeric = approx_fprime(powers, lambda at: head_loss(rows, at, **options)[0], 1e-7)
    np.testing.assert_allclose(head_loss(rows, powers, **options)[1], numeric, atol=1e-6)


@pytest.mark.parametrize(("target", "loss"), KINDS)
def test_the_gradient_of_the_head_is_that_of_the_objective(target, loss):
    rows = rows_of(2.0 * np.random.default_rng(1).normal(size=(30, 50)))
    inputs = _inputs(rows, "scores", 20)
    task = _Task(rows, inputs, target, 2.0, loss, ridge=0.1)
    head = replace(_fresh(inputs, 3, "scores", 20, "token", 0), last_weights=[0.3, -0.2, 0.1], last_bias=0.2)
    _, gradient = task.objective(head)
    for name, slope in gradient.items():
        shape = np.shape(getattr(head, name))
        at = np.ravel(getattr(head, name)).astype(float)

        def moved(flat, name=name, shape=shape):
            value = flat.reshape(shape) if shape else float(flat[0])
            return task.objective(replace(head, **{name: value}))[0]

        np.testing.assert_allclose(np.ravel(slope), approx_fprime(at, moved, 1e-6), atol=2e-5)


def test_the_loss_by_hand():
    """Confidence 0.8; the chosen entry is the second one, 0.2: margin -0.6."""
    none = np.zeros((1, 0))
    no, yes, zero = np.array([False]), np.array([True]), np.zeros(1)
    rows = Positions(np.log([[0.8, 0.2]]), none, none[0], np.log([0.2]), no, zero, zero, yes)
    s = 1.0 / (1.0 + np.exp(0.6))
    assert head_loss(rows, np.ones(1), target="surrogate", loss="l1")[0] == pytest.approx(0.8 - s)
    assert head_loss(rows, np.ones(1), target="hard", loss="l1")[0] == pytest.approx(0.8)
    assert head_loss(rows, np.ones(1), target="hard", loss="bce")[0] == pytest.approx(-np.log(0.2))
    assert tempered(rows, np.full(1, 0.5)).confidence == pytest.approx([2.0 / 3.0])  # sqrt(0.8) : sqrt(0.2) = 2 : 1


def test_the_loss_is_that_of_the_trainers_on_whole_rows():
    """The same numbers as CATTO's token loss gets from logits, row by row at temperature 1."""
    logits = 2.0 * np.random.default_rng(5).normal(size=(9, 30))
    rows = rows_of(logits)
    probabilities = np.exp(log_softmax(logits))
    chosen = (log_softmax(logits) + np.random.default_rng(0).gumbel(size=logits.shape)).argmax(axis=1)
    own = probabilities[np.arange(9), chosen]
    others = np.where(np.arange(30) == chosen[:, None], -1.0, probabilities).max(axis=1)
    s = 1.0 / (1.0 + np.exp(-(own - others)))
    expected = np.abs(probabilities.max(axis=1) - s).mean()
    assert head_loss(rows, np.ones(9), target="surrogate")[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", ["l1", "l2", "bce"])
def test_each_loss_is_the_trainers_where_neither_clips(loss):
    """Two files, since the trainer clips for 32-bit numbers and the head for 64-bit ones; elsewhere they agree."""
    c, s = np.random.default_rng(0).uniform(1e-5, 1.0 - 1e-5, (2, 500))
    for mine, theirs in zip(_pointwise(c, s, loss), _LOSSES[loss](np, c, s), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-7)


def test_a_sketch_knows_the_partition_function():
    logprobs = log_softmax(2.5 * np.random.default_rng(0).normal(size=(5, 20000)))
    rows = sketched(logprobs, logprobs.argmin(axis=1))
    assert rows.logprobs.shape[1] + rows.groups.shape[1] <= 52
    for warm in (0.5, 1.0, 1.5, 3.0, 10.0):
        truth = np.log(np.exp(logprobs / warm).sum(axis=1))
        found = tempered(rows, np.full(5, 1.0 / warm)).log_partition
        np.testing.assert_allclose(found, truth, atol=1e-6 if warm == 1.0 else 1e-2)


def test_a_head_finds_a_temperature_that_depends_on_the_row():
    train, held_out, test = (distorted(seed) for seed in (1, 2, 3))

    def measured(powers):
        return ece(np.minimum(tempered(test, powers).confidence, 1.0), test.is_top)

    def nll(log_temperature):
        powers = np.full(len(train), np.exp(-log_temperature))
        return float((tempered(train, powers).log_partition - powers * train.chosen_logprob).mean())

    scalar = minimize_scalar(nll, bounds=(-3, 3), method="bounded").x
    head = training.train_catto_head(train, held_out)
    raw, one, own = (measured(p) for p in (np.ones(4000), np.full(4000, np.exp(-scalar)), head_powers(head, test)))
    assert own < 0.5 * one < one < raw
    assert head.report.objective_after < head.report.objective_before
    assert "held-out ece" in head.report.notes[1].lower()


def test_a_calibrated_model_is_left_all_but_alone():
    sides = [rows_of(2.0 * np.random.default_rng(seed).normal(size=(3000, 30)), seed) for seed in (1, 2)]
    head = training.train_catto_head(*sides)
    assert np.abs(np.log(head_powers(head, sides[1]))).mean() < 0.2


def test_training_is_deterministic_and_seeded():
    train, held_out = distorted(1, 300), distorted(2, 300)
    one, again, other = (training.train_catto_head(train, held_out, seed=seed, max_epochs=9) for seed in (0, 0, 1))
    assert one == again != other


def test_no_epoch_is_the_identity_and_says_so():
    train, held_out = distorted(1, 300), distorted(2, 300)
    head = training.train_catto_head(train, held_out, target="surrogate", learning_rate=1e-12, max_epochs=2)
    np.testing.assert_allclose(head_powers(head, train), 1.0)
    with pytest.raises(FitError, match=r"Epoch 1 at loss .* lower 'learning_rate'"):
        training.train_catto_head(train, held_out, learning_rate=np.inf)


def test_recorded_positions_are_those_that_the_continuation_readout_scores(tmp_path):
    lm, questions = cw.CalibratedLM(ToyAdapter()), toy_questions(6, template=CLOZE)
    rows = training.record_positions(lm, questions, wrong="all", top=5)
    sums = {key: part.chosen_logprob.sum() for *key, part in pieces(rows) for key in [tuple(key)]}
    raw = np.array([[sums[q, o] for o in range(3)] for q in range(6)])
    np.testing.assert_allclose(log_softmax(raw), lm.scores(questions, readout="continuation").logprobs, atol=1e-6)
    assert rows.is_right.sum() == sum(len(p) for q, o, p in pieces(rows) if o == questions[q].answer)
    assert rows.readout == "continuation:sum:cloze"


def test_the_head_as_a_calibrator_does_what_was_trained():
    lm, questions = cw.CalibratedLM(ToyAdapter(ToyModel.random(1).sharpened(3.0))), toy_questions(60, template=CLOZE)
    rows = training.record_positions(lm, questions, wrong="none", top=5)
    head = training.train_catto_head(rows, rows, top=5, width=4)
    prompt, option = CLOZE.prompt(questions[0]), questions[0].options[questions[0].answer]
    ((scores,),) = lm.adapter.score([prompt], [[" " + option]], top=None)
    own = rows.take(rows.question == 0)
    expected = tempered(own, head_powers(head, own)).confidence
    np.testing.assert_allclose(np.exp(head(scores).logprobs).max(axis=1), expected, rtol=1e-5)


@pytest.mark.parametrize("level", ["token", "option"])
def test_a_stopped_recording_goes_on(tmp_path, level):
    lm, questions = cw.CalibratedLM(ToyAdapter()), toy_questions(20, template=CLOZE)
    whole = training.record_positions(lm, questions, level=level, top=5)
    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.record_positions(lm, questions, level=level, top=5, folder=tmp_path, progress=stop)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    resumed = training.record_positions(lm, questions, level=level, top=5, folder=tmp_path)
    for name in ("logprobs", "groups", "chosen_logprob", "is_top", "question", "option"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    with pytest.raises(JournalError, match="different are count, questions, read"):
        training.record_positions(lm, questions[:9], level=level, top=5, folder=tmp_path)


def test_a_head_of_options_goes_into_lm():
    model = ToyModel.random(1).sharpened(3.0)
    lm, questions = cw.CalibratedLM(ToyAdapter(model)), toy_questions(240, seed=1, model=ToyModel.random(1))
    sides = [
        training.record_positions(lm, part, level="option", readout="label")
        for part in (questions[:120], questions[120:])
    ]
    head = training.train_catto_head(*sides)
    tuned = lm.with_calibrator(head, strict=True)
    answers = [q.answer for q in questions]
    scores = lm.scores(questions, "label")
    right = scores.choice == answers
    told = [answer.confidence for answer in tuned.choose_batch(questions)]
    assert tuned.readout.label == "label:letter"
    assert ece(told, right) < 0.6 * ece(scores.confidence, right)


def test_what_cannot_be_recorded_is_named():
    questions = toy_questions(3, template=CLOZE)
    with pytest.raises(CapabilityError, match="needs full_vocabulary=True"):
        training.record_positions(cw.CalibratedLM(ToyAdapter(provides=Provides(top=5, score=True))), questions)
    with pytest.raises(CapabilityError, match="needs hidden=True"):
        training.record_positions(cw.CalibratedLM(ToyAdapter()), questions, hidden=True)
    with pytest.raises(InputError, match="record them at level 'token'"):
        training.record_positions(cw.CalibratedLM(ToyAdapter()), questions, hidden=True, level="option")
    with pytest.raises(QuestionError, match="Answers are needed"):
        training.record_positions(cw.CalibratedLM(ToyAdapter()), [replace(questions[0], answer=None)])
    rows = training.record_positions(cw.CalibratedLM(ToyAdapter()), questions, top=3)
    with pytest.raises(InputError, match="'top' is 20, and 3 entries of the training rows were recorded"):
        training.train_catto_head(rows, rows)
    wider = training.record_positions(cw.CalibratedLM(ToyAdapter()), questions, top=5)
    with pytest.raises(InputError, match="'top' is 5, and 3 entries of the held-out rows were recorded"):
        training.train_catto_head(wider, rows, top=5)
    with pytest.raises(InputError, match="Got readout 'continuation:sum:cloze' and 'continuation:sum:short': "):
        training.train_catto_head(rows, replace(rows, readout="continuation:sum:short"), top=3)
    with pytest.raises(InputError, match="needs hidden states"):
        training.train_catto_head(rows, rows, top=3, features="hidden")


def test_the_command_s_way_from_files_to_a_file(tmp_path):
    runs.prepare(tmp_path)
    asked = {
        "model": f"hf:{tmp_path / 'model' / 'weights'}", "output": tmp_path / "head.safetensors",
        "train": {"source": str(tmp_path / "train.jsonl")}, "held_out": {"source": str(tmp_path / "held-out.jsonl")},
        "max_epochs": 5,
    }  # fmt: skip
    head, found = training.head.train_head(HeadSettings.model_validate(asked))
    assert cw.load(tmp_path / "head.safetensors") == head
    assert head.report.provenance.runtime == "hf"
    assert json.loads((tmp_path / "head.positions" / "train" / "recording.json").read_text())["count"] == 18
    assert head.report.notes[-len(found.notes) :] == found.notes
    assert list(found.after) == ["ece_tokens", "ece_answers", "accuracy_answers"]
    with pytest.raises(JournalError, match=r"head\.safetensors is there already\. Pass --resume"):
        training.head.train_head(HeadSettings.model_validate({**asked, "loss": "l2"}))
    assert cw.load(tmp_path / "head.safetensors") == head
    other, _ = training.head.train_head(HeadSettings.model_validate({**asked, "loss": "l2"}), replace_old=True)
    assert cw.load(tmp_path / "head.safetensors").report.notes[0] == other.report.notes[0] != head.report.notes[0]
    again = {**asked, "held_out": asked["train"], "output": tmp_path / "other.safetensors"}
    with pytest.raises(InputError, match="18 questions are trained on and held out"):
        training.head.train_head(HeadSettings.model_validate(again))
    with pytest.raises(ValidationError, match="widht"):
        HeadSettings.model_validate({**asked, "widht": 3})


def test_heads_are_trained_without_torch():
    code = """
        import sys
        import calibwrap as cw
        from calibwrap import training
        from calibwrap.questions import CLOZE
        from calibwrap.testing import ToyAdapter, toy_questions
        lm = cw.CalibratedLM(ToyAdapter())
        rows = training.record_positions(lm, toy_questions(60, template=CLOZE), top=5)
        head = training.train_catto_head(rows, rows, top=5, width=4)
        assert head.report is not None
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-P", "-c", dedent(code)], check=True)
