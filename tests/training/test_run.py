"""Whole runs: what they leave behind, that they go on exactly where they stopped, and what ends them."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import TrainerState

import calibwrap as cw
from calibwrap.data import save_questions
from calibwrap.errors import CalibrationWarning, InputError, JournalError, ModelError, PromptTooLong, QuestionError
from calibwrap.readouts.verbalized import confidence_of
from calibwrap.training import run as module
from calibwrap.training import train
from calibwrap.training.callbacks import LogCallback, Stop
from calibwrap.training.checkpoints import last_checkpoint, mark_whole
from calibwrap.training.doubt_answers import question_rows
from calibwrap.training.doubt_measures import read_stated
from calibwrap.training.log import open_log
from calibwrap.training.resuming import beginning

from . import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    runs.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """Return the result of a run that was never stopped."""
    seen = []
    result = train(runs.settings(folder, "whole"), progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 5)
    assert seen[-1] == (5, 5)
    return result


def records(output):
    lines = [json.loads(line) for line in (output / "training.jsonl").read_text().splitlines()]
    return {record["id"]: record for record in lines[1:]}


def same_weights(one, other):
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        np.testing.assert_array_equal(weight, theirs[name], err_msg=name)


def test_a_run_leaves_weights_adapter_log_and_card(whole, folder):
    assert whole.finished
    assert (whole.adapter, whole.weights) == (whole.output / "adapter", whole.output / "weights")
    written = records(whole.output)
    assert [name for name in written if name.startswith("held-out")] == [f"held-out-{step}" for step in (0, 2, 4, 5)]
    losses = [written[f"step-{step}"]["loss"] for step in range(1, 6)]
    assert losses[-1] < losses[0]
    assert whole.after == written["held-out-5"]["held_out"]
    assert whole.before["ece"]["low"] <= whole.before["ece"]["value"]
    with cw.wrap(f"hf:{whole.weights}") as lm:
        scores = lm.scores(runs.questions(100, 10), readout="continuation")
    correct = scores.choice == np.array([one.answer for one in runs.questions(100, 10)])
    assert whole.after["accuracy"]["value"] == pytest.approx(correct.mean())
    assert whole.after["ece"]["value"] == pytest.approx(cw.metrics.ece(scores.confidence, correct), abs=1e-5)
    card = (whole.output / "README.md").read_text()
    assert f"{whole.after['ece']['value']:.3f}" in card
    assert str(folder) not in card
    adapter = json.loads((whole.adapter / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(folder / "model" / "weights")


def test_where_the_best_checkpoint_is_kept_the_figures_are_its_own(folder):
    asked = runs.settings(
        folder, "best", "rewarding-doubt", algorithm="exact", max_steps=3, batch_size=2, max_length=300, save_steps=1,
        held_out={"source": str(folder / "held-out.jsonl"), "limit": 4, "every_steps": 10},
    )  # fmt: skip
    result = train(asked)
    held_out = cw.load_questions(folder / "held-out.jsonl", limit=4, seed=0)
    with cw.wrap(f"hf:{result.weights}") as lm:
        levels, correct = read_stated(lm.adapter, question_rows(held_out))
    assert result.after["mean_confidence"]["value"] == pytest.approx(confidence_of(levels).mean(), abs=1e-5)
    assert result.after["accuracy"]["value"] == correct.mean()
    assert result.before.keys() == result.after.keys() == records(result.output)["held-out-0"]["held_out"].keys()
    assert "| share of malformed statements | " in (result.output / "README.md").read_text()
    again = runs.settings(
        folder, "best-again", **asked.model_dump(exclude={"output"}, exclude_unset=True), method="rewarding-doubt"
    )
    shutil.copytree(asked.output, again.output)
    shutil.rmtree(again.output / "weights")
    log = again.output / "training.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"finished"' not in line))
    for state in again.output.glob("checkpoints/*/trainer_state.json"):
        state.write_text(state.read_text().replace("run0/best/", "run0/best-again/"))
        mark_whole(state.parent)
    same_weights(result.weights, train(again, resume=True).weights)


@pytest.mark.parametrize("hurt", [Path.unlink, lambda file: os.truncate(file, 100)], ids=["gone", "cut off"])
@pytest.mark.parametrize("file", ["optimizer.pt", "adapter_model.safetensors", "scheduler.pt", "whole.json"])
def test_a_hurt_checkpoint_is_passed_over(whole, tmp_path, file, hurt):
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole.output / "checkpoints", folder)
    assert last_checkpoint(folder) == (folder / "checkpoint-5", 5)
    hurt(folder / "checkpoint-5" / file)
    assert last_checkpoint(folder) == (folder / "checkpoint-4", 4)


def test_a_run_goes_on_before_a_hurt_checkpoint_to_the_same_weights(folder, whole):
    asked = runs.settings(folder, "hurt")
    shutil.copytree(whole.output, asked.output)
    shutil.rmtree(asked.output / "weights")
    os.truncate(asked.output / "checkpoints" / "checkpoint-5" / "optimizer.pt", 100)
    log = asked.output / "training.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"finished"' not in line))
    assert beginning(asked, asked.held_out.load(), resume=True).startswith("after step 4 of 5")
    same_weights(whole.weights, train(asked, resume=True).weights)


def test_asked_to_stop_while_the_model_is_loaded_a_run_ends_after_its_first_step(folder, monkeypatch):
    real = module.load_trainable

    def interrupted(source):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(source)

    monkeypatch.setattr(module, "load_trainable", interrupted)
    result = train(runs.settings(folder, "early"))
    assert (result.step, result.stopped_by) == (1, signal.SIGTERM)
    assert last_checkpoint(result.output / "checkpoints")[1] == 1


def test_a_run_that_was_killed_before_it_did_anything_begins_anew(folder, whole):
    asked = runs.settings(folder, "killed-early")
    asked.output.mkdir()
    first = (whole.output / "training.jsonl").read_text().splitlines(keepends=True)[0]
    (asked.output / "training.jsonl").write_text(first)
    assert beginning(asked, asked.held_out.load(), resume=False) == "from the beginning"
    with open_log(asked, asked.held_out.load(), resume=False) as log:
        log.write_step(1, {"loss": 1.0})
    with pytest.raises(JournalError, match="--resume"), open_log(asked, asked.held_out.load(), resume=False):
        pass


def test_a_stopped_run_goes_on_to_the_same_weights(folder, whole):
    asked = runs.settings(folder, "stopped")

    def interrupt(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    first = train(asked, progress=interrupt)
    assert (first.step, first.finished, first.weights) == (3, False, None)
    assert first.stopped_by == signal.SIGTERM
    assert last_checkpoint(asked.output / "checkpoints")[1] == 3
    with pytest.raises(JournalError, match="--resume"):
        train(asked)
    again = train(asked, resume=True)
    assert again.finished
    assert (again.was_finished, again.stopped_by) == (False, 0)
    same_weights(whole.weights, again.weights)
    mine, theirs = records(asked.output), records(whole.output)
    assert mine.keys() == theirs.keys()
    for name in theirs:
        assert mine[name].get("loss") == theirs[name].get("loss")
        assert mine[name].get("held_out") == theirs[name].get("held_out")


def test_all_weights_trained_resume_alike_after_a_kill(folder):
    """A kill leaves a checkpoint half written; the run goes on from the whole one before it."""
    changed = {"lora": None, "learning_rate": 1e-3, "held_out": None, "gradient_accumulation": 2}
    straight = train(runs.settings(folder, "full", **changed))
    asked = runs.settings(folder, "full-killed", **changed)
    shutil.copytree(straight.output, asked.output)
    newest, step = last_checkpoint(asked.output / "checkpoints")
    assert step == 5
    (newest / "trainer_state.json").write_text('{"global_step": 5, "epo')
    shutil.rmtree(asked.output / "weights")
    log = asked.output / "training.jsonl"
    kept = [line for line in log.read_text().splitlines(keepends=True) if '"finished"' not in line]
    log.write_text("".join(kept) + '{"id": "step')
    again = train(asked, resume=True)
    assert (again.adapter, again.step) == (None, 5)
    same_weights(straight.weights, again.weights)
    assert "Nothing was measured" in (again.output / "README.md").read_text()


def test_a_run_killed_while_its_weights_were_written_takes_no_step_more(folder, whole):
    asked = runs.settings(folder, "unsaved")
    shutil.copytree(whole.output, asked.output)
    shutil.rmtree(asked.output / "weights")
    log = asked.output / "training.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"finished"' not in line))
    again = train(asked, resume=True)
    same_weights(whole.weights, again.weights)
    assert records(asked.output).keys() == records(whole.output).keys()


def test_a_finished_run_resumed_does_nothing(whole, folder, monkeypatch):
    monkeypatch.setattr(module, "load_trainable", None)
    again = train(runs.settings(folder, "whole"), resume=True)
    assert (again.after, again.finished, again.weights) == (whole.after, True, whole.weights)
    assert again.was_finished
    monkeypatch.setenv("RANK", "1")  # as a launcher numbers a second process, which has no log
    assert train(runs.settings(folder, "whole"), resume=True).finished


def test_a_run_that_kept_an_earlier_step_is_finished_too(whole, folder):
    asked = runs.settings(folder, "kept")
    shutil.copytree(whole.output, asked.output)
    log = asked.output / "training.jsonl"
    log.write_text(log.read_text().replace('"id": "finished", "step": 5', '"id": "finished", "step": 2'))
    again = train(asked, resume=True)
    assert (again.finished, again.step, again.steps) == (True, 5, 5)
    assert again.after == records(whole.output)["held-out-2"]["held_out"]


@pytest.mark.parametrize("method", ["catto", "cft", "rewarding-doubt"])
def test_no_layer_runs_twice_in_a_step(folder, method):
    asked = runs.settings(folder, "once", method, max_length=300)
    model, tokenizer = module.load_trainable(asked.model)
    trainer = module._build(asked, model, tokenizer, ())
    assert not trainer.args.gradient_checkpointing
    assert not trainer.model.is_gradient_checkpointing


@pytest.mark.parametrize("method", ["catto", "cft", "rcft"])
def test_in_bfloat16_the_weights_stay_in_float32(folder, method):
    more = {"held_out": None, "max_steps": 2}
    half, full = (train(runs.settings(folder, f"{method}-{bf16}", method, bf16=bf16, **more)) for bf16 in (True, False))
    mine, theirs = (load_file(result.weights / "model.safetensors") for result in (half, full))
    assert {weight.dtype for weight in mine.values()} == {np.dtype(np.float32)}
    moved = max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)
    assert 0.0 < moved < 0.05  # another rounding, the same training


@pytest.mark.parametrize("resume", [False, True])
def test_checkpoints_whose_log_is_gone_are_not_taken(whole, folder, resume):
    asked = runs.settings(folder, f"no-log-{resume}", learning_rate=1e-4)
    shutil.copytree(whole.output / "checkpoints", asked.output / "checkpoints")
    with pytest.raises(JournalError, match=r"training\.jsonl, the log of their run, is missing"):
        train(asked, resume=resume)
    assert not (asked.output / "training.jsonl").exists()


def test_other_settings_do_not_resume(whole, folder):
    with pytest.raises(JournalError, match="learning_rate"):
        train(runs.settings(folder, "whole", learning_rate=0.5), resume=True)
    assert train(runs.settings(folder, "whole", threads=2, save_steps=1), resume=True).finished


def test_where_the_best_checkpoint_is_kept_other_save_steps_do_not_resume(folder):
    """They say which steps can be kept."""
    asked = runs.questions(100, 10)
    for name, method, changed in (("bests", "rewarding-doubt", {}), ("lasts", "rewarding-doubt", {"held_out": None})):
        with open_log(runs.settings(folder, name, method, **changed), asked, resume=False):
            pass
    with (
        pytest.raises(JournalError, match="save_steps"),
        open_log(runs.settings(folder, "bests", "rewarding-doubt", save_steps=1), asked, resume=True),
    ):
        pass
    with open_log(runs.settings(folder, "lasts", "rewarding-doubt", held_out=None, save_steps=1), asked, resume=True):
        pass


def test_a_loss_that_is_no_number_ends_the_run(folder):
    asked = runs.settings(folder, "broken", learning_rate=1e30, held_out=None, lora=None)
    with pytest.raises(ModelError, match=r"nan|inf"):
        train(asked)
    assert not (asked.output / "weights").exists()


def test_no_number_is_told_before_the_checkpoint_is_written():
    callback = LogCallback(None)
    callback.on_log(None, TrainerState(global_step=1), None, {"loss": 0.5, "grad_norm": 1.0})
    callback.on_log(None, TrainerState(global_step=1), None, {"eval_loss": float("nan")})
    with pytest.raises(ModelError, match="'loss' became nan in step 2: lower 'learning_rate'"):
        callback.on_log(None, TrainerState(global_step=2), None, {"loss": float("nan")})
    with pytest.raises(ModelError, match="'grad_norm' became inf"):
        callback.on_log(None, TrainerState(global_step=2), None, {"loss": 0.5, "grad_norm": float("inf")})


def test_a_gradient_of_exactly_0_is_told_once_unless_the_loss_is_0_too(folder):
    with open_log(runs.settings(folder, "dead"), (), resume=False) as log:
        callback = LogCallback(log)
        for step, loss, gradient in ((1, 0.0, 0.0), (2, 10.8, 1e-19)):  # a hinge loss that is met; a small gradient
            callback.on_log(None, TrainerState(global_step=step), None, {"loss": loss, "grad_norm": gradient})
        with pytest.warns(CalibrationWarning, match=r"step 3 is exactly 0 while the loss is 10\.8.*learning_rate"):
            callback.on_log(None, TrainerState(global_step=3), None, {"loss": 10.8, "grad_norm": 0.0})
        callback.on_log(None, TrainerState(global_step=4), None, {"loss": 10.8, "grad_norm": 0.0})
    told = records(folder / "dead")
    assert [record["step"] for record in told.values() if "warning" in record] == [3]
    assert "lower 'learning_rate'" in told["warning"]["warning"]


def test_a_run_that_destroyed_its_model_says_so(folder):
    """Its model states no confidence that could be read any more, and no step changes that."""
    asked = runs.settings(
        folder, "destroyed", "rewarding-doubt", algorithm="exact", learning_rate=1.0, lora=None, held_out=None,
        max_steps=4, max_length=300, merge=False,
    )  # fmt: skip
    with pytest.warns(CalibrationWarning, match="gradient of step"):
        assert train(asked).finished
    written = records(asked.output)
    assert written[f"step-{written['warning']['step']}"]["grad_norm"] == 0.0


def test_a_wish_to_stop_while_weights_are_written_lets_them_be_written(folder, monkeypatch):
    saves = module.save_weights

    def save(*parts, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return saves(*parts, **options)

    monkeypatch.setattr(module, "save_weights", save)
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("ended"))  # what the process would have died of
    try:
        result = train(runs.settings(folder, "late", max_steps=1, held_out=None))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (result.finished, seen) == (True, [])
    assert (result.weights / "model.safetensors").exists()


def test_a_start_that_failed_leaves_nothing_in_the_way_of_the_next(folder):
    asked = runs.settings(folder, "failed", max_length=8)
    with pytest.raises(PromptTooLong):
        module.train(asked)
    assert not (asked.output / "training.jsonl").exists()
    with pytest.raises(PromptTooLong):  # and not that there is a log of an earlier run
        module.train(asked)


def test_an_unknown_tracker_is_refused_before_anything_is_loaded(folder):
    asked = runs.settings(folder, "tracked", model="no such model", report_to=["nope"])
    with pytest.raises(InputError, match=r"'report_to' must name trackers.*\['nope'\]"):
        module.train(asked)
    assert not asked.output.exists()


def test_held_out_questions_that_are_trained_on_are_refused(folder):
    same = {"source": str(folder / "train.jsonl")}
    with pytest.raises(InputError, match="18 questions are trained on and held out"):
        train(runs.settings(folder, "leaky", held_out=same))
    few = folder / "few.jsonl"
    save_questions(runs.questions(200, 1), few)
    with pytest.raises(InputError, match="at least 2"):
        train(runs.settings(folder, "few", held_out={"source": str(few)}))
    with pytest.raises(InputError, match="There is no readout 'letters'"):
        train(runs.settings(folder, "few", held_out={**same, "readout": "letters"}))
    open_answers = folder / "open.jsonl"
    open_answers.write_text('{"question": "Capital of France?", "answers": ["Paris"]}\n' * 2)
    with pytest.raises(InputError, match="must have options"):
        train(runs.settings(folder, "open", held_out={"source": str(open_answers)}))
    unanswered = folder / "unanswered.jsonl"
    save_questions([cw.Question(f"{n}?", ["a", "b"], id=str(n)) for n in range(3)], unanswered)
    with pytest.raises(QuestionError):
        train(runs.settings(folder, "unanswered", held_out={"source": str(unanswered)}))
    assert not any((folder / name).exists() for name in ("leaky", "few", "open", "unanswered"))


def test_a_second_ctrl_c_ends_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    stop = Stop()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.ask(signal.SIGINT)
        stop.ask(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_nobody_listens():
    before, seen = signal.getsignal(signal.SIGINT), []

    def listen():
        with Stop().listening():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]
