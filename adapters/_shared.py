"""What all adapters decide alike: valid prompts, token boundaries, stop texts, hashes."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from calibwrap.errors import InputError, PromptTooLong
from calibwrap.questions import Chat, Prompt
from calibwrap.scores import TokenScores


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Return nothing when every prompt is text or chat with something in it.

    Raises:
        InputError: names the first prompt that is not.
    """
    if isinstance(prompts, (str, Chat)):
        raise InputError("'prompts' must be a list of prompts. Got a single one: put it in a list.")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, (str, Chat)):
            raise InputError(f"'prompts[{index}]' must be a text or a Chat. Got {type(prompt).__name__}.")
        if isinstance(prompt, str) and not prompt:
            raise InputError(f"'prompts[{index}]' is empty; a model needs at least one character to go on from.")


def check_top(top: int | None, least: int) -> None:
    """Return nothing when `top` is None, for the whole vocabulary, or at least `least`.

    Raises:
        InputError: it is something else.
    """
    if top is not None and (isinstance(top, bool) or top < least):
        raise InputError(f"'top' must be at least {least}, or None for the whole vocabulary. Got {top!r}.")


def check_ids(ids: Sequence[Sequence[int]], prompts: int, vocabulary: int) -> None:
    """Return nothing when `ids` holds one list of known token ids a prompt, none empty.

    Raises:
        InputError: names the first list that is not.
    """
    if len(ids) != prompts:
        raise InputError(f"'ids' must hold one list of token ids a prompt: {prompts}. Got {len(ids)}.")
    for index, own in enumerate(ids):
        if not len(own) or not all(0 <= token < vocabulary for token in own):
            raise InputError(
                f"'ids[{index}]' must be a list of token ids from 0 to {vocabulary - 1}, not empty. Got {list(own)}."
            )


def check_continuations(prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> None:
    """Return nothing when `continuations` holds one list of texts a prompt, none empty.

    Raises:
        InputError: names the first list that is not.
    """
    if isinstance(continuations, str) or len(continuations) != len(prompts):
        raise InputError(
            f"'continuations' must hold one list of texts a prompt: {len(prompts)}. Got {len(continuations)}."
        )
    for index, texts in enumerate(continuations):
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise InputError(f"'continuations[{index}]' must be a list of texts, none empty. Got {texts!r}.")


def split_joint(prompt_ids: Sequence[int], joints: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all `joints` share with the prompt read alone: where scoring may begin.

    Tokenizers merge across the boundary, so tokens(prompt) need not be the beginning of tokens(prompt + answer). What
    follows the shared part is scored in every joint, so the answers stay comparable. At least one token is left to
    score in each.

    Raises:
        InputError: nothing is shared, so that there is no context to score from.

    >>> split_joint([5, 6, 7], [[5, 6, 8, 9], [5, 6, 7, 9]])
    2
    """
    shared = min(len(prompt_ids), *(len(joint) - 1 for joint in joints))
    for joint in joints:
        while shared > 0 and list(joint[:shared]) != list(prompt_ids[:shared]):
            shared -= 1
    if shared < 1:
        raise InputError(
            "Prompt and answer share no leading token, so that nothing is left to condition on: make the prompt longer."
        )
    return shared


def check_length(tokens: int, context_length: int | None, what: str) -> None:
    """Return nothing when `tokens` fit the context.

    Raises:
        PromptTooLong: says how many tokens came and how many fit.
    """
    if context_length is not None and tokens > context_length:
        raise PromptTooLong(
            f"{what} has {tokens} tokens, and the model's context holds {context_length}: shorten it, or load the "
            "model with a larger context. Nothing is cut off in silence."
        )


def with_cut(scores: TokenScores, top: int | None) -> TokenScores:
    """Return `scores`; in lists of the `top` most probable tokens the last one bounds each of those not listed.

    >>> with_cut(TokenScores([[-1.0, -2.0]], ids=[[5, 3]]), top=2).log_cut.tolist()
    [-2.0]
    """
    return replace(scores, log_cut=scores.logprobs.min(axis=1)) if top else scores


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return `text` up to the first stop text, and whether there was one.

    >>> cut_at_stop("Paris. Next", (".",))
    ('Paris', True)
    """
    found = [position for position in (text.find(stop) for stop in stops) if position >= 0]
    return (text[: min(found)], True) if found else (text, False)


def hash_texts(texts: Iterable[str | bytes]) -> str:
    """Return the first 16 hex digits of the SHA-256 of the texts, order and boundaries included."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
