"""CFT and RCFT: the losses against Transformers' own, the scores against the readouts, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from calibwrap.adapters.hf import Transformers
from calibwrap.errors import AmbiguousOptions, InputError, PromptTooLong, QuestionError
from calibwrap.questions import Question
from calibwrap.training import CFTConfig, CFTTrainer, RCFTConfig, RCFTTrainer, ece_regulariser
from calibwrap.training.cft_trainer import build
from calibwrap.training.option_batches import Collator, encoded, option_logprobs, trained_readout
from calibwrap.training.packing import can_pack
from calibwrap.training.settings import CftSettings, RcftSettings
from tests.adapters import hf_models
from tests.adapters.hf_models import metaspace
from tests.training.cft_models import QUESTIONS, arguments, batch_of, byte_level, cft, rcft, tiny


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def texts(batch):
    """Return what the model is given of a batch."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}


def options(question):
    """Return how many options a question has."""
    return len(question.options)


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
    assert len(batch["input_ids"]) == 3
    alone = rcft(tmp_path, model=trainer.model, ece_weight=0.0)
    trainer.model.eval()
    torch.testing.assert_close(
        trainer.compute_loss(trainer.model, batch),
        alone.compute_loss(alone.model, batch_of(alone)),
        atol=1e-6,
        rtol=1e-6,
    )


@pytest.mark.parametrize("packs", [False, True], ids=["apart", "packed"])
@pytest.mark.parametrize("name", ["continuation", "continuation:token", "continuation:byte", "label"])
@pytest.mark.parametrize("tokenizer", [byte_level, metaspace], ids=["byte-level", "metaspace"])
def test_scores_in_training_are_the_readouts(name, tokenizer, packs):
    """What the regulariser sees is what the readout says, with BOS where the tokenizer wants it."""
    readout = trained_readout(name)
    adapter = Transformers(tiny(tokenizer()), tokenizer())
    if name == "label" and tokenizer is metaspace:
        with pytest.raises(AmbiguousOptions, match="not one token"):
            encoded(QUESTIONS, readout, adapter, 512)
        return
    collate = Collator(pad=0, labels=name == "label", options=True, learns_prompt=True, packs=packs)
    batch = collate(encoded(QUESTIONS, readout, adapter, 512))
    assert len(batch["input_ids"]) == (len(QUESTIONS) if packs or name == "label" else sum(map(options, QUESTIONS)))
    with torch.no_grad():
        logits = adapter.model(**texts(batch)).logits
    found = option_logprobs(logits, torch.logsumexp(logits, -1), batch, labels=name == "label")
    wanted = readout.ask(adapter, QUESTIONS)
    np.testing.assert_array_equal(torch.isfinite(found).numpy(), wanted.mask)
    np.testing.assert_allclose(torch.softmax(found, -1).numpy(), wanted.probabilities, atol=2e-6)
    answers = [row[row >= 0] for row in batch["labels"] if (row >= 0).any()]
    assert len(answers) == len(QUESTIONS)
    bos = batch["input_ids"][:, 0] == 1
    assert bos.all() if tokenizer is metaspace else not bos.any()


@pytest.mark.parametrize(
    "model",
    [
        tiny,
        lambda: hf_models.gpt2(byte_level(), n_positions=512, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0),
        lambda: hf_models.gemma3(512, byte_level()),
    ],
    ids=["llama", "gpt2", "gemma3"],
)
def test_a_packed_row_has_loss_and_gradient_of_rows_apart(tmp_path, model):
    """Rows apart read every question once an option; the gradient is that of the same loss."""
    found = []
    for packs in (False, True):
        trainer = rcft(tmp_path, model=model())
        assert trainer.data_collator.packs
        trainer.data_collator = replace(trainer.data_collator, packs=packs)
        trainer.use_bins(trainer.e_step())
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, batch_of(trainer, [0, 2, 4]))
        loss.backward()
        found.append((loss.detach(), [weight.grad for weight in trainer.model.parameters()]))
    torch.testing.assert_close(found[1], found[0], atol=2e-6, rtol=1e-4)


def test_models_that_read_no_packed_rows_read_them_apart(tmp_path):
    """One takes no mask of pairs, one no positions, one keeps a state, and one forgets what a mask would show it."""
    eager = tiny()
    eager.set_attn_implementation("eager")
    assert not rcft(tmp_path, model=eager).data_collator.packs
    for model in (eager, hf_models.bloom(), hf_models.mamba()):
        assert not can_pack(model, 16)
    assert [can_pack(hf_models.gemma3(window=64), longest) for longest in (64, 65)] == [True, False]


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
