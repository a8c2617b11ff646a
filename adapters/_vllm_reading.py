"""Requests that read log-probabilities from vLLM, and its replies as `TokenScores`.

Entries are told apart by token id alone: the texts that vLLM puts beside them collide wherever two tokens decode alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calibwrap.adapters._vllm_facts import GIVEN_IDS_A_REQUEST
from calibwrap.errors import ModelError
from calibwrap.scores import TokenScores

JITTER = 0.05
"""Largest difference in nats between two readings of one position that go together; half precision stays below it."""

NEUTRAL: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_tokens": 0,
    "ignore_eos": False,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "include_stop_str_in_output": False,
    "logit_bias": None,
    "allowed_token_ids": None,
    "bad_words": None,
    "detokenize": False,
}
"""Every setting of a request by which vLLM would change logits or cut them off, switched off and said so."""

ONE_POSITION: Mapping[str, Any] = {**NEUTRAL, "temperature": 0.0, "n": 1, "max_tokens": 1, "seed": None, "stop": None}
"""Settings of a request that reads: the drawn token is thrown away, and greedy drawing needs no generator."""

Entries = Mapping[int, Any]
"""One position of a reply: token id to vLLM's `Logprob`; the drawn or given token comes first."""


def in_chunks(ids: Sequence[int]) -> list[list[int]]:
    """Return the different ids in lists that one request takes each.

    >>> in_chunks([5, 7, 5])
    [[5, 7]]
    """
    different = list(dict.fromkeys(map(int, ids)))
    return [different[at : at + GIVEN_IDS_A_REQUEST] for at in range(0, len(different), GIVEN_IDS_A_REQUEST)]


def given_scores(ids: Sequence[int], replies: Sequence[Entries]) -> TokenScores:
    """Return the scores of `ids` from the replies to its chunks.

    Raises:
        ModelError: the replies do not agree on the likeliest token's value, so that they do not belong together.
    """
    best = [next(iter(reply.values())).logprob for reply in replies]
    if max(best) - min(best) > JITTER:
        raise ModelError(
            f"vLLM read one position {len(best)} times, and the likeliest token's log-probability moved from "
            f"{min(best):.4f} to {max(best):.4f}: set VLLM_BATCH_INVARIANT=1, or lower max_num_seqs."
        )
    found = {token: entry.logprob for reply in replies for token, entry in reply.items()}
    values = np.array([[found[int(token)] for token in ids]], dtype=np.float64)
    return TokenScores(values, ids=np.array([ids], dtype=np.int64))


def position(entries: Entries, listed: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values and ids of one position, the likeliest first; of all tokens in the order of ids for `listed` -1.

    A list is vLLM's `listed` likeliest and, if it is not among them, the drawn token; 0 lists the drawn one alone.
    """
    pairs = list(entries.items())
    if listed == 0:
        pairs = pairs[:1]
    elif 0 < listed < len(pairs):
        pairs = pairs[1:]  # the drawn token, which came first, is not one of the likeliest
    ids = np.array([token for token, _ in pairs], dtype=np.int64)
    values = np.array([entry.logprob for _, entry in pairs], dtype=np.float64)
    if listed != -1:
        order = np.argsort(-values, kind="stable")
        return values[order], ids[order]
    row = np.full(vocabulary, np.nan)
    row[ids] = values
    return row, np.arange(vocabulary)


def token_scores(
    positions: Sequence[Entries], chosen: Sequence[int] | None, listed: int, vocabulary: int
) -> TokenScores:
    """Return the scores of T positions from vLLM's entries.

    Args:
        positions: one a position.
        chosen: the tokens drawn or given there; None when they mean nothing.
        listed: entries that were asked for: 0 the chosen alone, -1 the vocabulary.
        vocabulary: size of the output head.

    Raises:
        ModelError: vLLM sent fewer entries than were asked for.
    """
    try:
        rows = [position(entries, listed, vocabulary) for entries in positions]
        logprobs, ids = (np.stack(parts) for parts in zip(*rows, strict=True))
        own = (
            None
            if chosen is None
            else [entries[token].logprob for entries, token in zip(positions, chosen, strict=True)]
        )
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"vLLM sent positions without their {abs(listed)} entries ({error}): this version answers in another way; "
            "tell calibwrap's authors which it is."
        ) from error
    if listed == -1 and np.isnan(logprobs).any():
        raise ModelError(f"vLLM was asked for all {vocabulary} tokens and left some out: load it with max_logprobs=-1.")
    return TokenScores(
        logprobs,
        ids=None if listed == -1 else ids,
        chosen=None if chosen is None else np.array(chosen, dtype=np.int64),
        chosen_logprob=None if own is None else np.array(own, dtype=np.float64),
        log_cut=logprobs.min(axis=1) if listed > 0 else None,  # type: ignore[arg-type]  # None is worked out
    )
