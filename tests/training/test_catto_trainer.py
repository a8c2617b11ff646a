"""CATTO's trainer against TRL's own, and against the loss of the whole logits written out."""

import math
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM
from trl import DPOConfig, DPOTrainer

from calibwrap.adapters.hf import Transformers
from calibwrap.errors import CapabilityError, InputError, ModelError, PromptTooLong
from calibwrap.questions import CLOZE
from calibwrap.training import CATTOConfig, CATTOTrainer, catto_loss
from calibwrap.training.catto_trainer import build
from calibwrap.training.output_head import OutputHead
from calibwrap.training.settings import CattoSettings
from tests.adapters import hf_models as models

LOSSES = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
          "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]  # fmt: skip
COMMON = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "use_cpu": True, "bf16": False,
          "report_to": [], "logging_steps": 1, "learning_rate": 1e-3, "save_strategy": "no", "disable_tqdm": True,
          "max_steps": 3}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pairs(count=12):
    return Dataset.from_list(
        [
            {"prompt": f"Question: is {n} red? Answer:", "chosen": " yes" + ", and" * (n % 3), "rejected": " no Rome"}
            for n in range(count)
        ]
    )


def trainer(tmp_path, cls=CATTOTrainer, model=None, peft=False, **options):
    model = models.llama() if model is None else model
    config = {CATTOTrainer: CATTOConfig, DPOTrainer: DPOConfig}[cls]
    return cls(
        model=model,
        ref_model=None if peft else deepcopy(model),
        args=config(output_dir=str(tmp_path), **{**COMMON, **options}),
        train_dataset=pairs(),
        eval_dataset=pairs(4),
        processing_class=models.byte_level(),
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if peft else None,
    )


def batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


def whole_logits_loss(model, inputs, *, weight, invert_rejected=False, **options):
    """Return the weighted sum of both sides' losses from the model's own full logits, shifted here."""
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    sides = zip(
        logits.chunk(2),
        inputs["input_ids"][:, 1:].chunk(2),
        inputs["completion_mask"][:, 1:].chunk(2),
        (False, invert_rejected),
        strict=True,
    )
    return weight * sum(catto_loss(z, y, m, invert=invert, **options) for z, y, m, invert in sides)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check_loss_and_gradient(ours, inputs, theirs):
    wanted = gradients(ours.model, theirs)
    loss = ours.compute_loss(ours.model, inputs)
    assert loss.item() == pytest.approx(theirs.item(), rel=5e-6)
    found = gradients(ours.model, loss)
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-6, rtol=1e-4)


def as_loss(options):
    """Return the configuration's options by the names of `catto_loss`."""
    names = {"catto_loss": "loss", "catto_target": "target"}
    return {names.get(name, name): value for name, value in options.items()}


def gemma2():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 330, "initializer_range": 0.5,
             "final_logit_softcapping": 2.0, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    return models.build(Gemma2ForCausalLM, Gemma2Config(**sizes))


def granite():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 330, "initializer_range": 0.5, "logits_scaling": 0.25,
             "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    return models.build(GraniteForCausalLM, GraniteConfig(**sizes))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (models.llama, {}),
        (models.llama, {"catto_loss": "bce", "margin_scale": 3.0, "invert_rejected": True}),
        (models.llama, {"catto_target": "hard"}),
        (models.llama, {"catto_loss": "l2", "detach_target": True}),
        (models.gpt2, {}),
        (gemma2, {}),
        (granite, {}),
    ],
)
def test_loss_and_gradient_are_those_of_the_whole_logits(tmp_path, family, options):
    ours = trainer(tmp_path, model=family(), catto_weight=0.5, **options)
    inputs = batch(ours)
    preference = DPOTrainer._compute_loss(ours, ours.model, inputs, False)
    theirs = preference + whole_logits_loss(ours.model, inputs, weight=0.5, **as_loss(options))
    check_loss_and_gradient(ours, inputs, theirs)


@pytest.mark.parametrize("options", [{}, {"catto_loss": "bce", "catto_target": "hard"}, {"margin_scale": 4.0}])
def test_a_pair_is_a_choice_of_two_answers(tmp_path, options):
    """The loss is that of one token in a vocabulary of two, whose logits are the answers' log-probabilities."""
    ours = trainer(tmp_path, catto_weight=0.5, catto_over="pair", **options)
    inputs = batch(ours)
    logits = ours.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    each = logits.log_softmax(-1).gather(2, inputs["input_ids"][:, 1:, None])[..., 0]
    both = torch.stack((each * inputs["completion_mask"][:, 1:]).sum(dim=1).chunk(2), dim=1)[:, None]
    first = torch.zeros(len(both), 1, dtype=torch.long)
    choice = catto_loss(both, first, first + 1, **as_loss(options))
    theirs = DPOTrainer._compute_loss(ours, ours.model, inputs, False) + 0.5 * choice
    check_loss_and_gradient(ours, inputs, theirs)
    logged = ours._metrics["train" if ours.model.training else "eval"]
    assert logged["catto/confidence"][-1] == pytest.approx(both.softmax(-1).amax(-1).mean().item(), rel=1e-5)
    assert "catto/chosen" not in logged


def test_lora_needs_no_reference_and_equals_the_whole_logits(tmp_path):
    ours = trainer(tmp_path, peft=True, catto_weight=0.5, gradient_checkpointing=False)
    ours.train()  # away from B = 0, so that A has a gradient too
    assert ours.ref_model is None
    inputs = batch(ours)
    ours.model.train()
    theirs = DPOTrainer._compute_loss(ours, ours.model, inputs, False)
    wanted = gradients(ours.model, theirs + whole_logits_loss(ours.model, inputs, weight=0.5))
    found = gradients(ours.model, ours.compute_loss(ours.model, inputs))
    assert set(found) == set(wanted) != set()
    for name, gradient in wanted.items():
        assert "lora" in name
        torch.testing.assert_close(found[name], gradient, atol=2e-6, rtol=1e-4)


def test_weight_zero_is_trl_step_by_step(tmp_path):
    runs = [trainer(tmp_path, cls, **more) for cls, more in ((DPOTrainer, {}), (CATTOTrainer, {"catto_weight": 0.0}))]
    for run in runs:
        run.train()
    theirs, ours = ([row for row in run.state.log_history if "loss" in row] for run in runs)
    assert len(ours) == 3
    assert ours[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    for mine, its in zip(ours, theirs, strict=True):
        assert {k: v for k, v in mine.items() if "_time" not in k} == pytest.approx(its, abs=1e-6)
    for (name, p), q in zip(runs[0].model.named_parameters(), runs[1].model.parameters(), strict=True):
        assert (p - q).abs().max() <= 1e-6, name


def test_what_is_logged_adds_up(tmp_path):
    run = trainer(tmp_path, catto_weight=0.3)
    run.train()
    rows = [row for row in run.state.log_history if "loss" in row]
    assert rows[0]["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)
    for row in rows:
        assert row["catto_loss"] == pytest.approx(row["catto/chosen"] + row["catto/rejected"])
        assert row["loss"] == pytest.approx(row["preference_loss"] + 0.3 * row["catto_loss"], abs=1e-6)
        assert 0 < row["catto/confidence"] < 1
    evaluated = run.evaluate()
    assert evaluated["eval_loss"] == pytest.approx(
        evaluated["eval_preference_loss"] + 0.3 * evaluated["eval_catto_loss"], abs=1e-6
    )


def test_these_are_all_preference_losses_of_trl(tmp_path):
    run = trainer(tmp_path, catto_weight=0.0)
    run.loss_types = ["none such"]
    with pytest.raises(ValueError, match="none such") as caught:
        run.compute_loss(run.model, batch(run))
    assert re.findall(r"'(\w+)'", str(caught.value)) == LOSSES


@pytest.mark.parametrize("name", LOSSES)
def test_every_preference_loss_of_trl(tmp_path, name):
    run = trainer(tmp_path, loss_type=[name], label_smoothing=0.1 if name in ("exo_pair", "robust") else 0.0)
    inputs = batch(run)
    preference = DPOTrainer._compute_loss(run, run.model, inputs, False)
    loss = run.compute_loss(run.model, inputs)
    added = whole_logits_loss(run.model, inputs, weight=0.1)
    assert loss.item() == pytest.approx(preference.item() + added.item(), abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
        {"use_weighting": True},
        {"ld_alpha": 0.5},
        {"f_divergence_type": "js_divergence"},
        {"gradient_checkpointing": False},
        {"padding_free": True},  # TRL 1.16 says that it pads all the same
        {"pad_to_multiple_of": 16},
        {"max_length": 12},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_ways_of_trl(tmp_path, options):
    run = trainer(tmp_path, **options)
    inputs = batch(run)
    preference = DPOTrainer._compute_loss(run, run.model, inputs, False)
    added = whole_logits_loss(run.model, inputs, weight=0.1)
    assert run.compute_loss(run.model, inputs).item() == pytest.approx((preference + added).item(), abs=1e-6)


def test_reference_worked_out_before_and_gradients_added_up_are_the_same_run(tmp_path):
    weights = []
    for options in (
        {},
        {"precompute_ref_log_probs": True},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    ):
        run = trainer(tmp_path, catto_weight=0.5, **options)
        run.train()
        weights.append(torch.cat([p.detach().flatten() for p in run.model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], atol=1e-6, rtol=0.0)
    torch.testing.assert_close(weights[2], weights[0], atol=2e-5, rtol=0.0)


def test_nothing_runs_twice_in_the_model(tmp_path):
    calls = []
    for weight in (0.0, 0.1):
        run = trainer(tmp_path, catto_weight=weight, gradient_checkpointing=False)
        count = [0]
        for module in run.model.modules():
            module.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        inputs = batch(run)
        gradients(run.model, run.compute_loss(run.model, inputs))
        calls.append(count[0])
    assert calls[0] == calls[1] > 0


def test_the_head_is_not_asked_again(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    inputs = batch(run)
    shown = run.compute_loss(run.model, inputs).item()
    asked = []
    best_others = OutputHead.best_others
    monkeypatch.setattr(OutputHead, "best_others", lambda *call: asked.append(1) or best_others(*call))
    run.compute_loss(run.model, inputs)
    assert not asked
    run._tiles = False  # as in a TRL that shows no tiles: slower, and the same
    assert run.compute_loss(run.model, inputs).item() == shown
    assert asked


@pytest.mark.parametrize("width", [7, 64, 512])
def test_tiles_of_any_width(tmp_path, monkeypatch, width):
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", width)
    monkeypatch.setattr("trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE", 5)
    run = trainer(tmp_path)
    inputs = batch(run)
    preference = DPOTrainer._compute_loss(run, run.model, inputs, False)
    added = whole_logits_loss(run.model, inputs, weight=0.1)
    assert run.compute_loss(run.model, inputs).item() == pytest.approx((preference + added).item(), abs=1e-6)


def test_a_16_bit_model(tmp_path):
    run = trainer(tmp_path, model=models.llama().to(torch.bfloat16))
    inputs = batch(run)
    preference = DPOTrainer._compute_loss(run, run.model, inputs, False)
    added = whole_logits_loss(run.model, inputs, weight=1.0)
    calibration = 10 * (run.compute_loss(run.model, inputs) - preference).float()
    assert calibration.item() == pytest.approx(added.item(), abs=2e-2)


def test_nan_ends_the_run_with_a_named_error(tmp_path):
    for weight in (0.0, 0.1):
        run = trainer(tmp_path, catto_weight=weight)
        with torch.no_grad():
            run.model.model.norm.weight[0] = torch.nan
        with pytest.raises(ModelError, match="after 0 steps is nan"):
            run.train()


def test_an_unusual_head_is_refused():
    model = models.llama()
    model.config.logit_scale = 3.0  # which Llama's forward does not read
    with pytest.raises(CapabilityError, match="LlamaForCausalLM"):
        OutputHead.of(model)


def test_single_logits_leave_no_gradient_as_large_as_the_head():
    model = models.llama()
    head, weight = OutputHead.of(model), model.get_output_embeddings().weight
    hidden, ids = torch.randn(3, weight.shape[1]), torch.tensor([5, 9, 5])
    head.logits_at(hidden, ids).sum().backward()
    assert weight.grad.is_sparse
    wanted = torch.zeros_like(weight).index_add_(0, ids, hidden)
    torch.testing.assert_close(weight.grad.to_dense(), wanted)


def test_whole_logits_for_whoever_asks_trl_for_them(tmp_path):
    run = trainer(tmp_path)
    inputs = batch(run)
    with pytest.warns(FutureWarning, match="return_outputs"):  # TRL means to drop them
        loss, outputs = run.compute_loss(run.model, inputs, return_outputs=True)
    assert loss.item() == run.compute_loss(run.model, inputs).item()
    assert outputs.logits.shape == (*inputs["input_ids"].shape, 330)


def test_configuration_is_checked(tmp_path):
    for options, says in (
        ({"catto_weight": -1.0}, "at least 0"),
        ({"catto_loss": "l3"}, "'l1', 'l2', 'bce'"),
        ({"catto_over": "letters"}, "'tokens' or 'pair'"),
        ({"catto_over": "pair", "invert_rejected": True}, "there are none"),
    ):
        with pytest.raises(InputError, match=says):
            CATTOConfig(output_dir=str(tmp_path), **COMMON, **options)
    with pytest.raises(InputError, match="CATTOConfig"):
        CATTOTrainer(
            model=models.llama(),
            ref_model=models.llama(),
            args=DPOConfig(output_dir=str(tmp_path), **COMMON),
            train_dataset=pairs(),
            processing_class=models.byte_level(),
        )


def settings(tmp_path, questions, **options):
    file = tmp_path / "questions.jsonl"
    file.write_text(questions, encoding="utf-8")
    return CattoSettings(model="tiny", output=tmp_path / "out", train={"source": str(file)}, **options)


def arguments(tmp_path):
    return {"output_dir": str(tmp_path / "out"), "seed": 0, **COMMON}


QUESTIONS = "\n".join(
    f'{{"id": "q{n}", "prompt": "Is {n} red?", "options": ["yes", "no, Mars", "New York"], "answer": {n % 3}}}'
    for n in range(8)
)


@pytest.mark.parametrize("tokenizer", [models.byte_level, models.metaspace], ids=["byte level", "metaspace"])
def test_build_reads_as_the_continuation_readout_reads(tmp_path, tokenizer):
    words = tokenizer()
    wanted = settings(tmp_path, QUESTIONS, weight=0.3, preference_loss=["ipo"], lora=None, margin_scale=2.0)
    model = models.llama(words)
    run = build(wanted, model, words, arguments(tmp_path))
    assert (run.args.catto_weight, run.loss_types, run.beta, run.args.margin_scale) == (0.3, ["ipo"], 0.1, 2.0)
    assert run.ref_model is not None
    reader = Transformers(model, words)
    for row in run.train_dataset:
        before, after = reader.tokenize(row["prompt"], row["chosen"].removesuffix("</s>"))
        assert row["prompt_ids"] == before
        assert row["chosen_ids"][: len(after)] == after
        assert set(row["chosen_ids"][len(after) :]) == {words.eos_token_id}
    run.train()


def test_build_with_lora_held_out_and_hard_negatives(tmp_path):
    from calibwrap.data import load_questions
    from calibwrap.wrap import wrap

    wanted = settings(tmp_path, QUESTIONS, rejected="hardest")
    model = models.llama()
    held_out = load_questions(tmp_path / "questions.jsonl")[:4]
    scores = wrap(model, models.byte_level()).scores(held_out, f"continuation:{CLOZE.name}").logprobs.copy()
    scores[np.arange(4), [question.answer for question in held_out]] = -np.inf
    run = build(wanted, model, models.byte_level(), arguments(tmp_path), held_out)
    texts = [f" {question.options[row.argmax()]}</s>" for question, row in zip(held_out, scores, strict=True)]
    assert run.eval_dataset["rejected"][:] == texts
    assert all(("lora" in name) == p.requires_grad for name, p in run.model.named_parameters())
    assert "eval_catto_loss" in run.evaluate()


def test_build_never_cuts(tmp_path):
    wanted = settings(tmp_path, QUESTIONS, max_length=12)
    with pytest.raises(PromptTooLong, match="'q"):
        build(wanted, models.llama(), models.byte_level(), arguments(tmp_path))
