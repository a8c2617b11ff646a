"""Drawing completions with vLLM: settings that leave nothing to a repository's defaults, and honest texts."""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from calibwrap.adapters._shared import cut_at_stop, hash_texts
from calibwrap.adapters._tokenizer import Reader
from calibwrap.adapters._vllm_reading import NEUTRAL, token_scores
from calibwrap.base import Completion, Sampling
from calibwrap.errors import ModelError

_SEED_BITS = 62
"""vLLM adds the sample's number to a request's seed, and the sum must fit 64 bits with a sign."""


def seeds(prompts: Sequence[Sequence[int]], seed: int | None) -> list[int]:
    """Return the seed of each prompt's request.

    It depends on `seed`, the prompt's tokens and how often the prompt came before in this call, so that a prompt draws
    the same alone and in company, and the same prompt twice draws twice. Of the n samples of a request vLLM gives the
    i-th seed + i; hashed seeds lie far apart, so that two requests share no draw.

    >>> seeds([[1, 2]], 5) == seeds([[3], [1, 2]], 5)[1:]
    True
    """
    seen: Counter[tuple[int, ...]] = Counter()
    made = []
    begin = secrets.token_hex(16) if seed is None else str(seed)
    for prompt in prompts:
        key = tuple(prompt)
        made.append(int(hash_texts([begin, repr(key), str(seen[key])]), 16) >> (64 - _SEED_BITS))
        seen[key] += 1
    return made


def settings_of(sampling: Sampling, seed: int | None, listed: int, ends: Sequence[int]) -> dict[str, Any]:
    """Return every setting of one request, nothing left to the engine's or the repository's defaults.

    Greedy samples are all the same, so vLLM is asked for one.
    """
    greedy = sampling.temperature == 0.0
    return {
        **NEUTRAL,
        "n": 1 if greedy else sampling.n,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "seed": None if greedy else seed,
        "stop": list(sampling.stop),
        "stop_token_ids": list(ends),
        "logprobs": listed,
        "detokenize": bool(sampling.stop),  # vLLM looks for stop texts in its own text; ours is made from the ids
    }


def completions(
    reply: Any, sampling: Sampling, settings: Mapping[str, Any], reader: Reader, ends: Sequence[int], vocabulary: int
) -> list[Completion]:
    """Return the `sampling.n` completions of one request's reply."""
    made = [_completion(one, sampling, settings, reader, ends, vocabulary) for one in reply.outputs]
    return made * sampling.n if len(made) < sampling.n else made


def _completion(
    output: Any, sampling: Sampling, settings: Mapping[str, Any], reader: Reader, ends: Sequence[int], vocabulary: int
) -> Completion:
    """Return one completion; the end token is scored, and is not part of the text."""
    if output.finish_reason not in ("stop", "length"):
        raise ModelError(
            f"vLLM ended a completion with {output.finish_reason!r}: ask again, or look at the engine's log."
        )
    ids = [int(token) for token in output.token_ids]
    ended = output.finish_reason == "stop" and ids[-1] in ends
    text, found = cut_at_stop(reader.text(ids[:-1] if ended else ids), sampling.stop)
    if found:  # vLLM holds back what may yet become a character, and so may notice a stop text a token late
        lengths = range(1, len(ids) + 1)
        ids = ids[: next(length for length in lengths if cut_at_stop(reader.text(ids[:length]), sampling.stop)[1])]
    elif isinstance(output.stop_reason, str):
        text = output.text  # the stop text begins with a space that decoding these ids alone drops
    scores = token_scores(output.logprobs[: len(ids)], ids, settings["logprobs"], vocabulary)
    finish: Literal["stop", "length"] = "stop" if found else output.finish_reason
    return Completion(text, scores, finish, settings)
