"""Rewarding Doubt on tiny models: what has a gradient, what is rewarded and counted, and that it goes on and learns."""

import copy
import itertools

import numpy as np
import pytest
import torch

import calibwrap as cw
from calibwrap.adapters.hf import Transformers
from calibwrap.data import save_questions
from calibwrap.errors import CapabilityError, InputError, ModelError, PromptTooLong
from calibwrap.readouts.verbalized import read_levels
from calibwrap.training.doubt_anchor import answer_divergence, answer_span, predicting
from calibwrap.training.doubt_answers import confidence_prompt, question_rows
from calibwrap.training.doubt_forward import last_logits, shared_length
from calibwrap.training.doubt_levels import LevelTokens, expected_reward, level_entropy
from calibwrap.training.doubt_trainer import RewardingDoubtTrainer, build
from calibwrap.training.rewards import reward_table
from calibwrap.training.settings import RewardingDoubtSettings
from tests.adapters.hf_models import byte_level, llama

QUESTIONS = [cw.Question(f"Is {n} even?", ["yes", "no"], answer=n % 2, id=f"q{n}") for n in range(12)]
ROWS = question_rows(QUESTIONS)
PROMPTS = [confidence_prompt(row, "no" * (1 + index % 2)) for index, row in enumerate(ROWS[:3])]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "even.jsonl"
    save_questions(QUESTIONS, path)
    return path


def tiny():
    return llama(max_position_embeddings=256)


@pytest.fixture
def make(source, tmp_path):
    """Return a builder of trainers, each in its own folder."""
    numbers = itertools.count()

    def made(model=None, held_out=None, steps=2, arguments=(), folder=None, **settings):
        folder = folder or tmp_path / str(next(numbers))
        asked = {"batch_size": 2, "draws": 3, "lora": None, "reward": "brier", "algorithm": "exact", **settings}
        wanted = RewardingDoubtSettings(model="tiny", output=folder, train={"source": str(source)}, **asked)
        given = {"output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": wanted.batch_size,
                 "learning_rate": 1e-2, "save_steps": 2, "logging_steps": 1, "report_to": [], "use_cpu": True,
                 "bf16": False, "gradient_checkpointing": False, "seed": 0, "disable_tqdm": True,
                 **dict(arguments)}  # fmt: skip
        return build(wanted, tiny() if model is None else model, byte_level(), given, held_out)

    return made


@pytest.fixture(scope="module")
def stating():
    """A tiny model that was taught to state levels, each as often as the others, and to end."""
    model, end = tiny(), byte_level().eos_token
    texts = [f"{confidence_prompt(ROWS[0], 'yes')} {level}{end}" for level in range(10)]
    ids = torch.tensor([byte_level()(text)["input_ids"] for text in texts])  # (10, T)
    with torch.enable_grad():
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(30):
            logits = model(ids).logits[:, -4:-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, ids[:, -3:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def test_differentiable_levels_are_those_of_the_readout(make):
    trainer = make()
    found = trainer.level_probabilities(trainer.model, PROMPTS)
    wanted = read_levels(Transformers(trainer.model, byte_level()), PROMPTS)
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-3)


def test_levels_must_be_tokens_like_digits():
    with pytest.raises(CapabilityError, match="use algorithm 'rloo'"):
        LevelTokens.of([[1, 2], [3, 4]])
    with pytest.raises(CapabilityError, match="confidence levels"):
        LevelTokens.of([[1], [1]])


def test_the_exact_gradient_is_what_draws_estimate():
    """Score-function estimate over all outcomes, each weighted by its probability, by finite differences."""
    place = LevelTokens.of([[5, level] for level in range(4)] + [[5, 1, 0]])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 6), generator=generator, dtype=torch.float32).requires_grad_()
    table = torch.tensor(np.vstack([reward_table("brier")[:5], [[-3.0, -3.0]]]))
    correct = torch.tensor([True, False])
    reward = expected_reward(place.probabilities(logits), table, correct)
    reward.sum().backward()
    step, where = 1e-2, [(0, 0, 5), (0, 1, 1), (1, 2, 0), (1, 1, 3)]
    for index in where:
        moved = []
        for sign in (1.0, -1.0):
            changed = logits.detach().clone()
            changed[index] += sign * step
            moved.append(expected_reward(place.probabilities(changed), table, correct).sum())
        assert float(moved[0] - moved[1]) / (2 * step) == pytest.approx(float(logits.grad[index]), abs=2e-3)


def test_the_entropy_is_largest_for_even_odds_and_its_gradient_is_finite_at_certainty():
    certain = torch.zeros(2, 11)
    certain[:, 3] = 1.0
    certain.requires_grad_()
    level_entropy(certain).sum().backward()
    assert torch.isfinite(certain.grad).all()
    assert level_entropy(certain).tolist() == [0.0, 0.0]
    assert float(level_entropy(torch.full((1, 11), 1 / 12))) == pytest.approx(np.log(12), rel=1e-5)


def test_rows_that_begin_alike_share_their_beginning_with_its_gradient():
    rows = [[7, 8, 9, *[5 + index] * (2 + index), 30, 31] for index in range(3)]
    assert shared_length(rows) == 3
    found = []
    for share in (True, False):
        model = tiny().eval()
        logits = last_logits(model, rows, 3, share=share)
        (logits.log_softmax(dim=-1)[:, :, 11].sum()).backward()
        found.append((logits.detach(), [weight.grad for weight in model.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rows", [[[3, 4, 5]], [[3, 4, 5]] * 2, [[3, 4], [3, 4, 5]]])
def test_what_is_read_is_never_part_of_the_shared_beginning(rows):
    model = tiny().eval()
    found = last_logits(model, rows, 2)
    for own, row in zip(found, rows, strict=True):
        alone = model(torch.tensor([row])).logits[0, -2:]
        torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)


def hidden_gradients(trainer, batch, causal=None):
    """Return the gradient norm (B, T) of the loss by the hidden state that each position's logits are made of."""
    kept = []

    def keep(_module, _inputs, output):
        if not output.last_hidden_state.requires_grad:
            return  # the first model
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    trainer.model.train()
    handle = (causal or trainer.model).model.register_forward_hook(keep)
    try:
        trainer.compute_loss(trainer.model, batch).backward()
    finally:
        handle.remove()
    assert all(shared.grad is None for shared in kept[:-1]), "no logits of what all rows begin with are read"
    return kept[-1].grad.norm(dim=-1)


def test_exact_only_confidence_tokens_have_a_gradient(make):
    trainer = make()
    trainer._answered = lambda rows: [{"prompt": prompt, "correct": True, "question": ""} for prompt in PROMPTS]
    norms = hidden_gradients(trainer, ROWS[:3])
    assert (norms[:, :-3] == 0.0).all(), "no logits of question, answer or padding are read"
    assert (norms[:, -3:] > 0.0).all(), "the space, the digit, and what may follow a 1"


def test_the_anchor_adds_a_gradient_at_the_answer_alone(make):
    trainer = make(lora={"rank": 2, "alpha": 4}, answer_kl_weight=1.0)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    answered = trainer._answered(ROWS[:3])
    trainer._answered = lambda rows: answered
    norms = hidden_gradients(trainer, ROWS[:3], trainer.model.get_base_model())
    for own, row in zip(norms, answered, strict=True):
        answer, after = (
            len(byte_level()(text, add_special_tokens=False)["input_ids"])
            for text in (f" {row['answer']}", ", Confidence: 1")
        )
        assert (own[: -after - answer - 1] == 0.0).all(), "no logits of the question or of padding"
        assert (own[-after - answer - 1 : -after - 1] > 0.0).all(), "what predicts the answer's tokens"
        assert (own[-after - 1 : -3] == 0.0).all(), "no logits of the words between"
        assert (own[-3:] > 0.0).all(), "the confidence"


def test_the_anchor_holds_the_answers(make):
    moved = {}
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        trainer = make(tiny(), lora={"rank": 2, "alpha": 4}, answer_kl_weight=weight, steps=8)
        trainer.train()
        noted = [logged["answers/kl"] for logged in trainer.state.log_history if "answers/kl" in logged]
        assert len(noted) == (8 if weight else 0)
        if weight:
            assert noted[0] == pytest.approx(0.0, abs=1e-6), "an adapter begins at nothing"
        answered = trainer._answered(ROWS)
        rows, _ = trainer._tokens([row["prompt"] for row in answered])
        spans = [answer_span(trainer._reader(), row, own) for row, own in zip(answered, rows, strict=True)]
        predicts = predicting([len(own) for own in rows], spans, at_least=3)
        with torch.no_grad():
            now = trainer._logits(trainer.model, rows, predicts.shape[1])
            first = trainer._first_logits(rows, predicts.shape[1])
            moved[weight] = float(answer_divergence(first, now, predicts))
    assert 0.0 < moved[10.0] < moved[0.0] / 2


def test_the_divergence_is_that_of_whole_answers():
    """Two tokens drawn of two, the second after the first: the chain rule, by enumeration of the first token."""
    first, now = torch.tensor([0.9, 0.1]), torch.tensor([0.6, 0.4])
    after = torch.tensor([[0.2, 0.8], [0.7, 0.3]]), torch.tensor([[0.5, 0.5], [0.4, 0.6]])
    paths = [
        torch.stack([torch.stack([a, b[token]]) for a, b in ((first, after[0]), (now, after[1]))]) for token in (0, 1)
    ]
    whole = sum(
        float(
            first[one] * after[0][one, two] * torch.log(first[one] * after[0][one, two] / now[one] / after[1][one, two])
        )
        for one in (0, 1)
        for two in (0, 1)
    )
    predicts = torch.ones((1, 2), dtype=torch.bool)
    drawn = [float(answer_divergence(path[:1].log(), path[1:].log(), predicts)) for path in paths]
    assert float(first @ torch.tensor(drawn)) == pytest.approx(whole, rel=1e-5)


def test_an_answer_that_runs_into_the_next_words_keeps_its_own_tokens():
    reader = Transformers(tiny(), byte_level())
    row = {"asked": "Q: 1?\nAnswer:", "answer": "one", "prompt": "Q: 1?\nAnswer: one, Confidence:"}
    tokens = reader.tokenize(row["prompt"], " 7")[0]
    start, end = answer_span(reader, row, tokens)
    assert byte_level().decode(tokens[start:end]) == " one"
    assert answer_span(reader, row, [*tokens[: end - 1], 0, *tokens[end:]]) == (start, end - 1)
    assert answer_span(reader, row, [0] * len(tokens)) == (start, start)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_drawn_only_confidence_tokens_have_a_gradient(make, stating, algorithm):
    trainer = make(copy.deepcopy(stating), algorithm=algorithm, draws=6)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([ROWS[0]] * 6 + [ROWS[1]] * 6)
    assert batch["advantages"].abs().sum() > 0, "draws differ in their rewards"
    prompt = batch["prompt_ids"].shape[1]
    texts = byte_level().batch_decode(batch["prompt_ids"], skip_special_tokens=True)
    assert all(text.endswith(("Answer: yes, Confidence:", "Answer: no, Confidence:")) for text in texts)
    trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
    norms = hidden_gradients(trainer, batch)
    predicts = torch.zeros_like(norms, dtype=torch.bool)
    predicts[:, prompt - 1 : -1] = batch["completion_mask"].bool()
    assert (norms[~predicts] == 0.0).all(), "no logits of question or answer are read"
    assert (norms[predicts] > 0.0).any()


def test_malformed_confidences_are_penalised_and_counted(make, stating):
    trainer = make(copy.deepcopy(stating), algorithm="rloo")
    reward, noted = trainer.reward_funcs[0], {}
    given = reward([" 7", " 7.5", "", " 10"], [True, True, False, False], noted.__setitem__)
    assert given == pytest.approx([1 - 0.09, -3.0, -3.0, -1.0])
    assert noted == {"malformed": 0.5, "stated": pytest.approx(0.85)}
    trainer.train()
    logged = trainer.state.log_history[0]
    assert 0.0 <= logged["malformed"] < 1.0
    assert 0.0 <= logged["answers/accuracy"] <= 1.0


def test_a_broken_group_is_refused(make):
    trainer = make(algorithm="rloo")
    with pytest.raises(InputError, match="whole groups of 3"):
        trainer._generate_and_score_completions([ROWS[0], ROWS[0], ROWS[1]])
    with pytest.raises(InputError, match="multiple of num_generations"):
        trainer._generate_and_score_completions([ROWS[0]] * 4)


def test_answers_are_fresh_each_round_and_judged_anew(make):
    trainer = make(answer_temperature=50.0)
    rounds = [trainer._answered(ROWS) for _ in range(2)]
    first, second = ([row["prompt"] for row in rows] for rows in rounds)
    assert first != second
    for row in rounds[0]:
        number = int(row["question"][1:])
        assert row["correct"] == (f"Answer: {'no' if number % 2 else 'yes'}, Confidence:" in row["prompt"])
    trainer.judge = lambda text, references: 1.0
    assert all(row["correct"] for row in trainer._answered(ROWS))


def test_it_learns_to_state_levels_and_keeps_the_best_checkpoint(make):
    trainer = make(held_out=QUESTIONS[:6], steps=10)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_malformed"] < 0.5 < before["eval_malformed"]
    seen = [logged["eval_reward"] for logged in trainer.state.log_history if "eval_reward" in logged]
    assert after["eval_reward"] == pytest.approx(max(seen[1:]), abs=1e-5)
    assert trainer.state.best_metric == pytest.approx(max(seen[1:-1]))


def test_resumed_is_uninterrupted(make):
    whole = make(steps=4)
    whole.train()
    folder = whole.args.output_dir
    resumed = make(steps=4, folder=folder)
    resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-2")
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_a_loss_that_is_not_finite_ends_the_run(make):
    trainer = make()
    trainer.compute_loss = lambda model, *_, **__: next(model.parameters()).sum() * float("nan")
    with pytest.raises(ModelError, match=r"nan in step 1.*lower learning_rate"):
        trainer.train()


def test_lora_trains_the_adapter_alone(make):
    trainer = make(lora={"rank": 2, "alpha": 4}, steps=1)
    trainable = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    trainer.train()


def test_what_cannot_be_trained_is_said_before_it_begins(make):
    with pytest.raises(PromptTooLong, match=r"'q\d+' needs"):
        make(max_length=20)
    with pytest.raises(InputError, match="judge 'aliases' wants questions without options"):
        make(judge="aliases")
    with pytest.raises(InputError, match="set kl_weight to 0"):
        make(kl_weight=0.05)
    with pytest.raises(InputError, match="set answer_kl_weight to 0"):
        make(answer_kl_weight=0.5)


def test_the_public_name_is_the_trainer():
    from calibwrap import training

    assert training.RewardingDoubtTrainer is RewardingDoubtTrainer
