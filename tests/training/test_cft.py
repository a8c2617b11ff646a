"""CFT and RCFT: the losses against Transformers' own, the scores against the readouts, and runs that go on."""

import copy
import functools
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments

from calibwrap.adapters.hf import Transformers
from calibwrap.data import save_questions
from calibwrap.errors import AmbiguousOptions, CapabilityError, InputError, ModelError, PromptTooLong, QuestionError
from calibwrap.questions import Question
from calibwrap.training import CFTConfig, CFTTrainer, RCFTConfig, RCFTTrainer, ece_regulariser
from calibwrap.training.cft_trainer import _check_whole, build
from calibwrap.training.option_batches import Collator, encoded, option_logprobs, trained_readout
from calibwrap.training.settings import CftSettings, RcftSettings
from tests.adapters.hf_models import llama, metaspace

QUESTIONS = [
    Question("Red planet?", ["Mars", "Venus", "the Moon"], answer=0, id="planet"),
    Question("Is water wet?", ["yes", "no"], answer=0, id="water"),
    Question("Capital of Italy?", ["Paris", "New York", "Rome", "an umbrella"], answer=2, id="italy"),
    Question("Which is a fruit?", ["a stone", "an apple"], answer=1, id="fruit"),
    Question("What do bees make?", ["honey", "glass", "paper"], answer=0, id="bees"),
    Question("When is it dark?", ["at noon", "at night"], answer=1, id="dark"),
]


@functools.cache
def byte_level():
    """Byte-level BPE that knows the questions' words and the letters A to D, with and without a space before."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [f"Question: {q.prompt}\nAnswer: {' '.join(q.options)}" for q in QUESTIONS]
    tokenizer.train_from_iterator([*texts * 4, "Answer: A B C D" * 50], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")


def tiny(tokenizer=None):
    return llama(tokenizer or byte_level(), max_position_embeddings=512)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def arguments(folder, **own):
    shared = {"use_cpu": True, "bf16": False, "report_to": [], "per_device_train_batch_size": 2, "learning_rate": 1e-2,
              "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True,
              "dataloader_pin_memory": False, "seed": 0}  # fmt: skip
    return {**shared, "output_dir": str(folder), **own}


def rcft(folder, model=None, questions=QUESTIONS, peft_config=None, **own):
    args = RCFTConfig(**arguments(folder, **{"least_in_bin": 2, "n_bins": 4, **own}))
    options = {"train_dataset": questions, "processing_class": byte_level(), "peft_config": peft_config}
    return RCFTTrainer(model=model or tiny(), args=args, **options)


def cft(folder, model=None, questions=QUESTIONS, **own):
    options = {"train_dataset": questions, "processing_class": byte_level()}
    model = model or tiny()
    return CFTTrainer(model=model, args=CFTConfig(**arguments(folder, **own)), **options)


def batch_of(trainer, rows=(0, 1, 2)):
    return trainer.data_collator([trainer.train_dataset[row] for row in rows])


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_cft_is_masked_cross_entropy(tmp_path):
    """Transformers' own loss on the same labels, and the labels are the answer's tokens alone."""
    trainer = cft(tmp_path)
    batch = batch_of(trainer)
    texts = [trainer.processing_class.decode(row[row >= 0]) for row in batch["labels"]]
    assert texts == [" Mars", " yes", " Rome"]
    whole = [
        trainer.processing_class.decode(row[mask > 0])
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert whole[0] == "Question: Red planet?\nAnswer: Mars"
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    model = trainer.model
    torch.testing.assert_close(trainer.compute_loss(model, batch), model(**inputs).loss, atol=1e-6, rtol=1e-6)
    apart = trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(7))
    torch.testing.assert_close(apart, model(**inputs, num_items_in_batch=7).loss, atol=1e-6, rtol=1e-6)


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


def test_rcft_without_weight_is_the_likelihood_of_question_and_answer(tmp_path):
    """SFT2 exactly: Transformers' own loss with every token labelled; no E-step is taken."""
    trainer = rcft(tmp_path, ece_weight=0.0, max_steps=2)
    batch = batch_of(trainer)
    labels = torch.where(batch["attention_mask"] > 0, batch["input_ids"], -100)
    model = trainer.model
    plain = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    torch.testing.assert_close(trainer.compute_loss(model, batch), plain, atol=1e-6, rtol=1e-6)
    assert len(batch["input_ids"]) == 3
    trainer.train()
    assert not hasattr(trainer, "bins")


def test_the_options_rows_do_not_change_the_likelihood(tmp_path):
    trainer = rcft(tmp_path)
    batch = batch_of(trainer)
    assert len(batch["input_ids"]) == 3 + 2 + 4
    alone = rcft(tmp_path, model=trainer.model, ece_weight=0.0)
    trainer.model.eval()
    torch.testing.assert_close(
        trainer.compute_loss(trainer.model, batch),
        alone.compute_loss(alone.model, batch_of(alone)),
        atol=1e-6,
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", ["continuation", "continuation:token", "continuation:byte", "label"])
@pytest.mark.parametrize("tokenizer", [byte_level, metaspace], ids=["byte-level", "metaspace"])
def test_scores_in_training_are_the_readouts(name, tokenizer):
    """What the regulariser sees is what the readout says, with BOS where the tokenizer wants it."""
    readout = trained_readout(name)
    adapter = Transformers(tiny(tokenizer()), tokenizer())
    if name == "label" and tokenizer is metaspace:
        with pytest.raises(AmbiguousOptions, match="not one token"):
            encoded(QUESTIONS, readout, adapter, 512)
        return
    collate = Collator(pad=0, labels=name == "label", options=True, learns_prompt=True)
    batch = collate(encoded(QUESTIONS, readout, adapter, 512))
    with torch.no_grad():
        logits = adapter.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    found = option_logprobs(logits, torch.logsumexp(logits, -1), batch, labels=name == "label")
    wanted = readout.ask(adapter, QUESTIONS)
    np.testing.assert_array_equal(torch.isfinite(found).numpy(), wanted.mask)
    np.testing.assert_allclose(torch.softmax(found, -1).numpy(), wanted.probabilities, atol=2e-6)
    answers = [row[row >= 0] for row in batch["labels"] if (row >= 0).any()]
    assert len(answers) == len(QUESTIONS)
    bos = batch["input_ids"][:, 0] == 1
    assert bos.all() if tokenizer is metaspace else not bos.any()


def test_the_e_step_is_the_readout_on_the_training_set(tmp_path):
    trainer = rcft(tmp_path, ece_weight=0.5)
    record = trainer.e_step()
    trainer.use_bins(record)
    scores = trainer.readout.ask(trainer.adapter, QUESTIONS)
    correct = scores.choice == [question.answer for question in QUESTIONS]
    assert sum(record["rows"]) == len(QUESTIONS)
    assert np.dot(record["rows"], record["accuracy"]) == pytest.approx(correct.sum())
    np.testing.assert_array_equal(record["members"], trainer.bins.index(scores.confidence))


def test_rcft_is_likelihood_plus_weighted_regulariser(tmp_path):
    trainer = rcft(tmp_path, ece_weight=0.5)
    trainer.use_bins(trainer.e_step())
    rows = [0, 2, 4]
    batch = batch_of(trainer, rows)
    trainer.model.eval()
    likelihood = trainer.compute_loss(trainer.model, batch)
    scores = torch.tensor(trainer.readout.ask(trainer.adapter, [QUESTIONS[row] for row in rows]).logprobs).float()
    penalty = ece_regulariser(scores, trainer.bins, trainer.members[rows], sampled=True)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    both = trainer.compute_loss(trainer.model, batch)
    torch.testing.assert_close(both, likelihood + 0.5 * penalty, atol=1e-5, rtol=1e-5)
    trainer.args.likelihood = False
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), 0.5 * penalty, atol=1e-5, rtol=1e-5)


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


def test_the_evaluation_loss_is_the_likelihood(tmp_path):
    args = RCFTConfig(**arguments(tmp_path, per_device_eval_batch_size=6))
    trainer = RCFTTrainer(
        model=tiny(),
        args=args,
        train_dataset=[{"prompt": q.prompt, "options": list(q.options), "answer": q.answer} for q in QUESTIONS],
        eval_dataset=QUESTIONS,
        processing_class=byte_level(),
    )
    found = trainer.evaluate()["eval_loss"]
    batch = batch_of(trainer, range(6))
    with torch.no_grad():
        assert found == pytest.approx(trainer.compute_loss(trainer.model, batch).item(), abs=1e-5)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    trainer = cft(tmp_path, max_steps=2)
    with torch.no_grad():
        trainer.model.lm_head.weight[5] = math.nan
    with pytest.raises(ModelError, match="loss after 0 steps is nan"):
        trainer.train()


def test_questions_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(PromptTooLong, match=r"'planet' has .* tokens .* 'max_length' is 8"):
        cft(tmp_path, max_length=8)
    with pytest.raises(QuestionError, match="'open' has none"):
        cft(tmp_path, questions=[Question("Which?", ["a", "b"], id="open")])
    with pytest.raises(QuestionError, match="Row 0 of the data set has no options"):
        cft(tmp_path, questions=[{"prompt": "Which?", "answers": ["a"]}])
    with pytest.raises(InputError, match="at least one question"):
        cft(tmp_path, questions=[])
    with pytest.raises(InputError, match=r"'continuation' for training"):
        cft(tmp_path, readout="p_true")
    with pytest.raises(InputError, match=r"to be a RCFTConfig\. Got CFTConfig"):
        RCFTTrainer(model=tiny(), args=CFTConfig(**arguments(tmp_path)), train_dataset=QUESTIONS)


@pytest.mark.parametrize("own", [{"ece_weight": -1.0}, {"likelihood": False, "ece_weight": 0.0}, {"rank_break": "cap"}])
def test_settings_that_make_no_sense_are_refused(tmp_path, own):
    with pytest.raises(InputError, match=r"ece_weight|rank_break"):
        RCFTConfig(**arguments(tmp_path, **own))


def test_build_reads_the_settings(tmp_path):
    (tmp_path / "asked.jsonl").write_text('{"prompt": "Red?", "options": ["Mars", "Rome"], "answer": 0}\n', "utf-8")
    shared = {"model": "unused", "output": tmp_path, "train": {"source": str(tmp_path / "asked.jsonl")}}
    arguments_ = arguments(tmp_path)
    settings = RcftSettings(**shared, weight=0.25, n_bins=7, least_in_bin=3, readout="label", lora=None)
    trainer = build(settings, tiny(), byte_level(), arguments_, held_out=QUESTIONS[:2])
    args = trainer.args
    assert isinstance(trainer, RCFTTrainer)
    assert (args.ece_weight, args.n_bins, args.least_in_bin, args.readout) == (0.25, 7, 3, "label")
    assert len(trainer.eval_dataset) == 2
    plain = build(CftSettings(**shared, lora={"rank": 3}), tiny(), byte_level(), arguments_)
    assert type(plain) is CFTTrainer
    assert plain.model.peft_config["default"].r == 3


WORKER = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from calibwrap.data import load_questions
from calibwrap.training import RCFTConfig, RCFTTrainer

torch.set_num_threads(1)
folder = sys.argv[1]
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


def test_models_in_pieces_are_refused():
    """FSDP needs an accelerator; what the trainer looks at stands in for it."""
    whole = SimpleNamespace(args=SimpleNamespace(deepspeed_plugin=None), is_fsdp_enabled=False)
    _check_whole(whole)
    sharded = SimpleNamespace(
        args=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=3)), is_fsdp_enabled=False
    )
    for pieces in (SimpleNamespace(args=whole.args, is_fsdp_enabled=True), sharded):
        with pytest.raises(CapabilityError, match="use DDP"):
            _check_whole(pieces)
