"""Drawing completions through `model.generate`, with every sampling setting our own and the raw distribution kept.

The library's samplers stay off. One logits processor, the only one in force, sees the raw logits, keeps what is wanted
of them, draws the token itself and hands back a new tensor that leaves only that token. So a draw depends on its seed,
sample number and prompt alone: not on its neighbours in the batch, the device, or the global random state.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, StoppingCriteria

from calibwrap.adapters._hf_forward import BUDGET, Engine, HeadRows, Rows, head_rows, keep
from calibwrap.adapters._shared import cut_at_stop, hash_texts, with_cut
from calibwrap.adapters._tokenizer import Reader
from calibwrap.base import Calibrator, Completion, Sampling
from calibwrap.errors import InputError
from calibwrap.scores import TokenScores

NEUTRAL: Mapping[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 50,  # not read while do_sample is off; any other number makes the library log a complaint
    "top_p": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "use_cache": True,
}
"""Settings of `generate` under which it changes no logits and draws nothing; the draw is the processor's."""


@dataclass(frozen=True)
class Request:
    """One row of a batch: a prompt's ids and the generator of its draws."""

    ids: list[int]
    random: np.random.Generator


Watch = Callable[[list[int], Rows], None]
"""Called with the drawn tokens of all rows, and what the logits said of them."""


class Draw(LogitsProcessor):  # type: ignore[misc]  # the library is untyped
    """Draws each row's next token, and keeps what the raw logits say of it."""

    def __init__(
        self, requests: Sequence[Request], sampling: Sampling, steer: Calibrator | None, watch: Watch | None = None
    ) -> None:
        """Take one request a row; `watch` is told of every step."""
        self.requests, self.sampling, self.steer, self.watch = requests, sampling, steer, watch
        self.steps: list[Rows] = []
        self.head: HeadRows | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return a new tensor in which only the drawn tokens are possible; `scores` is read, never written."""
        tokens = draw(drawing_logits(scores, self.steer, self.sampling.temperature), self._uniforms())
        states = None if self.head is None else self.head.hidden[:, -1]
        self.steps.append(keep(scores, range(len(tokens)), tokens, self.sampling.top, states))
        if self.watch is not None:
            self.watch(tokens, self.steps[-1])
        only = torch.full_like(scores, -torch.inf)
        only[torch.arange(len(tokens)), torch.as_tensor(tokens, device=scores.device)] = 0.0
        return only

    def _uniforms(self) -> list[float] | None:
        if self.sampling.temperature == 0.0:
            return None
        return [request.random.random() for request in self.requests]


def drawing_logits(logits: Any, steer: Calibrator | None, temperature: float) -> Any:
    """Return the logits (N, V) of the distribution that is drawn from: calibrated first, then z / temperature.

    For a temperature calibrator that is softmax(z / (T_calibrator * T_sampling)): both act, and both are on record.
    """
    values = logits.double() if steer is None else _calibrated(steer, logits)
    return values if temperature in (0.0, 1.0) else values / temperature


def _calibrated(steer: Calibrator, logits: Any) -> Any:
    """Return calibrated, unnormalised log-probabilities (N, V); what draws from them divides by their sum anyway."""
    found = steer.logits(torch.log_softmax(logits.double(), dim=-1).cpu().numpy())
    if np.isnan(found).any():
        raise InputError(f"Expected calibrated log-probabilities that are numbers. Got NaN from {steer}.")
    return torch.as_tensor(np.require(found, requirements="W"), device=logits.device)


def draw(logits: Any, uniforms: Sequence[float] | None) -> list[int]:
    """Return one token a row: the most probable, or the one at which the cumulative probability passes `uniforms`.

    >>> draw(torch.tensor([[0.0, 0.0]]), [0.75])
    [1]
    """
    if uniforms is None:
        return [int(token) for token in logits.argmax(dim=-1)]
    cumulative = torch.softmax(logits, dim=-1).cumsum(dim=-1)
    points = torch.tensor(uniforms, dtype=cumulative.dtype, device=cumulative.device)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, points, right=True).clamp(max=logits.shape[-1] - 1)
    return [int(token) for token in tokens[:, 0]]


class StopAtTexts(StoppingCriteria):  # type: ignore[misc]  # the library is untyped
    """Ends a row as soon as its new text holds one of the stop texts."""

    def __init__(self, reader: Reader, stops: Sequence[str], start: int) -> None:
        """Take the column at which new tokens begin."""
        self.reader, self.stops, self.start = reader, stops, start

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Return which rows are done."""
        done = [cut_at_stop(self.reader.text(row[self.start :].tolist()), self.stops)[1] for row in input_ids]
        return torch.tensor(done, device=input_ids.device)


def generate(
    engine: Engine,
    reader: Reader,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    steer: Calibrator | None,
) -> list[list[Completion]]:
    """Return `sampling.n` completions for each tokenised prompt."""
    settings = settings_in_force(sampling, steer)
    randoms = generators(prompts, sampling)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    done: dict[int, list[Completion]] = {}
    for part in _batches(engine, prompts, order, max(1, engine.batch_size // sampling.n)):
        done |= {index: [] for index in part}
        for piece in _pieces(engine, sampling.n):
            own = replace(sampling, n=len(piece))
            requests = [Request(prompts[index], randoms[index][number]) for index in part for number in piece]
            rows = run(engine, reader, requests, own, steer)
            made = [completion_of(reader, ids, scores, own, settings, engine) for ids, scores in rows]
            for place, index in enumerate(part):
                done[index] += made[place * own.n : (place + 1) * own.n]
    return [done[index] for index in range(len(prompts))]


def _pieces(engine: Engine, n: int) -> list[range]:
    """Return the numbers of a prompt's samples that are drawn together: as many as the budget for logits allows."""
    size = max(1, BUDGET // engine.vocabulary)
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _batches(engine: Engine, prompts: Sequence[list[int]], order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield indices of prompts that run together; of equal length where padding before a prompt might leave a trace."""
    batch: list[int] = []
    for index in order:
        pads_safely = engine.takes_positions or not batch or len(prompts[batch[0]]) == len(prompts[index])
        if batch and (len(batch) == size or not pads_safely):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def generators(prompts: Sequence[list[int]], sampling: Sampling) -> list[list[np.random.Generator]]:
    """Return a random generator for each sample of each prompt.

    It depends on the seed, the sample's number, the prompt's tokens and how often the prompt came before in this call:
    a prompt draws the same alone and in company, and the same prompt twice draws twice.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    made = []
    fresh = secrets.randbits(64) if sampling.seed is None else abs(sampling.seed)
    for prompt in prompts:
        key = tuple(prompt)
        words = [int(hash_texts([repr(key)]), 16), seen[key], int((sampling.seed or 0) < 0)]
        made.append([np.random.default_rng([fresh, sample, *words]) for sample in range(sampling.n)])
        seen[key] += 1
    return made


def settings_in_force(sampling: Sampling, steer: Calibrator | None) -> dict[str, Any]:
    """Return the sampling settings that act, the calibrator that steers included."""
    return {
        "temperature": sampling.temperature,
        "do_sample": sampling.temperature > 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "stop": sampling.stop,
        "steer": "" if steer is None else str(steer),
    }


def run(
    engine: Engine,
    reader: Reader,
    requests: Sequence[Request],
    sampling: Sampling,
    steer: Calibrator | None,
    watch: Watch | None = None,
) -> list[tuple[list[int], list[Rows]]]:
    """Return the drawn ids and what was kept of each step, for each row of one batch, not yet cut."""
    width = max(len(request.ids) for request in requests)
    ids = torch.zeros((len(requests), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, request in enumerate(requests):
        ids[row, width - len(request.ids) :] = torch.tensor(request.ids)
        mask[row, width - len(request.ids) :] = 1
    ids, mask = ids.to(engine.device), mask.to(engine.device)
    drawing = Draw(requests, sampling, steer, watch)
    stopping = [StopAtTexts(reader, sampling.stop, width)] if sampling.stop else []
    extra = {"past_key_values": _shared_prefix(engine, ids, mask, sampling.n)} if sampling.n > 1 else {}
    config = neutral_config(engine, reader, sampling.max_tokens)
    with own_config(engine.model, config), head_rows(engine) as head:
        drawing.head = head if engine.keeps_states else None
        out = engine.model.generate(
            ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=[drawing],
            stopping_criteria=stopping,
            **{name: value for name, value in extra.items() if value is not None},
        )
    drawn = out[:, width:].tolist()
    return [(drawn[row], [step.part(slice(row, row + 1)) for step in drawing.steps]) for row in range(len(requests))]


def _shared_prefix(engine: Engine, ids: Any, mask: Any, n: int) -> DynamicCache | None:
    """Return the cache of all but the last prompt token, computed once for the n samples of each prompt."""
    if not engine.can_repeat or ids.shape[1] < 2:
        return None
    cache = DynamicCache(config=engine.model.config)
    seen = mask[::n, :-1]
    inputs = {"position_ids": (seen.cumsum(-1) - 1).clamp(min=0)} if engine.takes_positions else {}
    nothing = torch.zeros(0, dtype=torch.long, device=engine.device)
    with head_rows(engine, nothing, nothing):
        engine.model(input_ids=ids[::n, :-1], attention_mask=seen, past_key_values=cache, use_cache=True, **inputs)
    cache.batch_repeat_interleave(n)
    return cache


def neutral_config(engine: Engine, reader: Reader, max_tokens: int) -> GenerationConfig:
    """Return a generation config in which nothing but the end tokens comes from the model's repository."""
    ends = sorted(end_tokens(engine, reader))
    pad = reader.tokenizer.pad_token_id
    pad = pad if pad is not None else (ends[0] if ends else 0)
    return GenerationConfig(**NEUTRAL, max_new_tokens=max_tokens, eos_token_id=ends or None, pad_token_id=pad)


def end_tokens(engine: Engine, reader: Reader) -> set[int]:
    """Return the ids that end a text: those of the model's generation config and the tokenizer's."""
    own = engine.model.generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    return {int(token) for token in (*listed, reader.tokenizer.eos_token_id) if token is not None}


@contextmanager
def own_config(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Set the model's own generation config aside, since `generate` fills every unset field from it."""
    found = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = found


def completion_of(
    reader: Reader,
    ids: list[int],
    steps: Sequence[Rows],
    sampling: Sampling,
    settings: Mapping[str, Any],
    engine: Engine,
) -> Completion:
    """Return one row, cut after its first end token or the token that completed a stop text, whichever came first."""
    ends = end_tokens(engine, reader)
    length = next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))
    finish: Literal["stop", "length"] = "stop" if ids[length - 1] in ends else "length"
    text, found = cut_at_stop(reader.text(ids[:length]), sampling.stop)
    if found:
        length = next(
            count for count in range(1, length + 1) if cut_at_stop(reader.text(ids[:count]), sampling.stop)[1]
        )
        finish = "stop"
    return Completion(text, scores_of(ids[:length], steps[:length], sampling.top), finish, settings)


def scores_of(ids: Sequence[int], steps: Sequence[Rows], top: int | None) -> TokenScores:
    """Return what was kept of the steps at which one row drew `ids`, as scores."""
    listed = [step.ids for step in steps if step.ids is not None]
    hidden = [step.hidden for step in steps if step.hidden is not None]
    scores = TokenScores(
        np.concatenate([step.logprobs for step in steps]),
        ids=np.concatenate(listed) if listed else None,
        chosen=np.array(ids, dtype=np.int64),
        chosen_logprob=np.concatenate([step.chosen_logprob for step in steps]),
        log_z=np.concatenate([step.log_z for step in steps]),
        hidden=np.concatenate(hidden) if hidden else None,
    )
    return with_cut(scores, top)
