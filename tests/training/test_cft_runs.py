"""Runs of CFT and RCFT: step by step Transformers' own, resumed, shared by processes, and what they teach."""

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import Trainer, TrainingArguments

from calibwrap.data import save_questions
from calibwrap.errors import ModelError
from calibwrap.questions import Question
from tests.training.cft_models import QUESTIONS, arguments, byte_level, cft, losses, rcft, weights


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_the_whole_cft_run_is_transformers_own(tmp_path):
    """Step by step with gradient accumulation: the same losses and the same weights as the plain trainer's."""
    ours = cft(tmp_path, max_steps=4, gradient_accumulation_steps=2)
    plain_model = copy.deepcopy(ours.model)
    pad = ours.data_collator

    def collate(examples):
        batch = pad(examples)
        return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}

    args = TrainingArguments(
        **arguments(tmp_path, max_steps=4, gradient_accumulation_steps=2, remove_unused_columns=False)
    )
    plain = Trainer(model=plain_model, args=args, train_dataset=ours.train_dataset, data_collator=collate)
    ours.train()
    plain.train()
    np.testing.assert_allclose(losses(ours), losses(plain), atol=1e-5)
    for name, value in weights(plain.model).items():
        torch.testing.assert_close(weights(ours.model)[name], value, atol=1e-5, rtol=1e-5)


def test_the_e_step_is_taken_anew_each_epoch(tmp_path):
    """Three steps an epoch, not epochs squared (a defect of the released code)."""
    trainer = rcft(tmp_path, num_train_epochs=3)
    trainer.train()
    history = trainer.state.log_history
    assert [entry["step"] for entry in history if "e_step_ece" in entry] == [0, 3, 6]
    assert trainer.state.global_step == 9
    assert all(entry["ece_loss"] >= 0 and entry["likelihood"] > 0 for entry in history if "loss" in entry)
    first = next(entry for entry in history if "loss" in entry)
    assert first["loss"] == pytest.approx(first["likelihood"] + first["ece_loss"], abs=2e-3)


def test_accumulated_batches_are_one_batch(tmp_path):
    """Two batches of three questions teach what one of six does."""
    trained = []
    for size, accumulated in ((6, 1), (3, 2)):
        trainer = rcft(tmp_path, max_steps=1, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated)
        trainer.train()
        trained.append((weights(trainer.model), trainer.state.log_history[1]))
    for name, value in trained[0][0].items():
        torch.testing.assert_close(trained[1][0][name], value, atol=2e-4, rtol=1e-3)
    assert trained[1][1]["loss"] == pytest.approx(trained[0][1]["loss"], abs=2e-3)
    assert trained[1][1]["ece_loss"] == pytest.approx(trained[0][1]["ece_loss"], rel=1e-4)


@pytest.mark.parametrize("stop", [2, 3], ids=["within an epoch", "between epochs"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, stop):
    """Within an epoch the E-step's finding comes out of the checkpoint: its model is gone."""
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": stop}
    whole = rcft(tmp_path / "whole", **options)
    whole.train()
    checkpoint = tmp_path / "whole" / f"checkpoint-{stop}"
    resumed = rcft(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for name, value in weights(whole.model).items():
        torch.testing.assert_close(weights(resumed.model)[name], value, atol=1e-7, rtol=0)
    np.testing.assert_array_equal(resumed.members, whole.members)
    assert losses(resumed) == losses(whole)


def test_lora_learns_and_leaves_the_rest(tmp_path):
    trainer = rcft(
        tmp_path, max_steps=3, peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    before = weights(trainer.model)
    first = trainer.readout.ask(trainer.adapter, QUESTIONS).logprobs
    trainer.train()
    changed = {name for name, value in weights(trainer.model).items() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert not np.allclose(trainer.readout.ask(trainer.adapter, QUESTIONS).logprobs, first)


def test_cft_learns_the_answers(tmp_path):
    trainer = cft(tmp_path, readout="label", max_steps=30)
    trainer.train()
    scores = trainer.readout.ask(trainer.adapter, QUESTIONS)
    assert scores.choice.tolist() == [question.answer for question in QUESTIONS]
    assert scores.label_mass.min() > 0.5


def test_the_regulariser_alone_brings_confidence_to_accuracy(tmp_path):
    """On 36 questions with random answers: near the chance level in confidence, whatever the start."""
    random = np.random.default_rng(0)
    asked = [
        Question(f"Number {n}?", ["Mars", "Rome", "yes", "no"], answer=int(random.integers(4)), id=str(n))
        for n in range(36)
    ]
    trainer = rcft(tmp_path, questions=asked, likelihood=False, num_train_epochs=6, per_device_train_batch_size=12)
    gap = []
    for _ in range(2):
        scores = trainer.readout.ask(trainer.adapter, asked)
        correct = scores.choice == [question.answer for question in asked]
        gap.append(abs(scores.confidence.mean() - correct.mean()))
        if len(gap) == 1:
            trainer.train()
    assert gap[1] < gap[0] / 2


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    trainer = cft(tmp_path, max_steps=2)
    with torch.no_grad():
        trainer.model.lm_head.weight[5] = math.nan
    with pytest.raises(ModelError, match="loss after 0 steps is nan"):
        trainer.train()


WORKER = """
import gc
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from calibwrap.data import load_questions
from calibwrap.training import RCFTConfig, RCFTTrainer

def work(folder):
    trainer = RCFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        args=RCFTConfig(
            folder + "/out", use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, max_steps=3, seed=0,
            optim="sgd", per_device_train_batch_size=3, learning_rate=1e-3, max_grad_norm=0, logging_steps=1,
            least_in_bin=2, n_bins=4, lr_scheduler_type="constant",
        ),
        train_dataset=load_questions(folder + "/asked.jsonl"),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.train()
    if trainer.accelerator.is_main_process:
        trained = trainer.accelerator.unwrap_model(trainer.model).state_dict()
        torch.save([trained, trainer.state.log_history], folder + "/two.pt")

torch.set_num_threads(1)
work(sys.argv[1])
gc.collect()  # a trainer keeps the threads of its process group, which must not outlive the interpreter
torch.distributed.destroy_process_group()
"""


def test_two_processes_are_one(tmp_path):
    """Two CPU processes with three questions each teach what one with six does, and share the E-step."""
    one = rcft(tmp_path, max_steps=3, per_device_train_batch_size=6, optim="sgd", learning_rate=1e-3, max_grad_norm=0)
    one.model.save_pretrained(tmp_path)
    byte_level().save_pretrained(tmp_path)
    save_questions(QUESTIONS, tmp_path / "asked.jsonl")
    (tmp_path / "worker.py").write_text(WORKER, "utf-8")
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, tmp_path / "worker.py", tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    trained, history = torch.load(tmp_path / "two.pt")
    one.train()
    for name, value in weights(one.model).items():
        torch.testing.assert_close(trained[name], value, atol=1e-6, rtol=1e-6)
    for theirs, ours in zip(history[:-1], one.state.log_history[:-1], strict=True):
        assert theirs.keys() == ours.keys()
        for name in {"loss", "ece_loss", "likelihood", "e_step_ece"} & ours.keys():
            assert theirs[name] == pytest.approx(ours[name], abs=1e-4)
