"""Checks of what an adapter says: next-token distributions and scored continuations."""

import re
from dataclasses import replace

import numpy as np

from calibwrap.base import Sampling
from calibwrap.errors import InputError
from calibwrap.scores import TokenScores, logsumexp
from calibwrap.testing.adapter_probe import AdapterProbe, chosen, listed_ids, texts, values
from calibwrap.testing.checks import NotApplicable, expect


def check_next_token_is_one_position(probe: AdapterProbe) -> None:
    """Return nothing when every prompt gets exactly one position."""
    probe.require("top")
    found = probe.adapter.next_token(list(probe.prompts), top=1)
    lengths = [len(scores) for scores in found]
    wanted = [1] * len(probe.prompts)
    expect(lengths == wanted, f"Expected one position for each prompt, {wanted}. Got {lengths}.")
    expect(probe.adapter.next_token([], top=1) == [], "Expected an empty list for no prompts. Got something else.")


def check_full_rows_sum_to_one(probe: AdapterProbe) -> None:
    """Return nothing when whole rows are natural-log probabilities whose sum is 1."""
    for prompt in probe.prompts:
        total = logsumexp(probe.row(prompt))
        probe.close(total, 0.0, "Expected natural logarithms of probabilities that sum to 1 over the vocabulary.")


def check_lists_keep_their_mass(probe: AdapterProbe) -> None:
    """Return nothing when a shorter list shows the same values as a longer one, and the rest is in `log_tail`."""
    longest = probe.longest_top(4)  # short, so that something is left out of a small vocabulary too
    if longest < 2:
        raise NotApplicable("the adapter lists one token only")
    for prompt in probe.prompts:
        short, long = (probe.adapter.next_token([prompt], top=top)[0] for top in (longest - 1, longest))
        wanted = np.sort(long.logprobs[0])[::-1][: short.logprobs.shape[1]]
        probe.close(
            np.sort(short.logprobs[0])[::-1],
            wanted,
            "Expected the same values in a shorter list: never renormalise over the listed tokens.",
        )
        mass = float(np.exp(logsumexp(short.logprobs[0])) + np.exp(short.log_tail[0]))
        probe.close(mass, 1.0, "Expected listed mass and exp(log_tail) to make 1: let TokenScores work the tail out.")


def check_lists_hold_the_likeliest(probe: AdapterProbe) -> None:
    """Return nothing when a list of the most probable tokens holds just those, each with its own value."""
    wanted_length = probe.longest_top(5)
    for prompt in probe.prompts:
        row = probe.row(prompt)
        listed = probe.adapter.next_token([prompt], top=wanted_length)[0]
        ids = listed_ids(listed)[0]
        expect(len(set(ids.tolist())) == len(ids), f"Expected different tokens in a list. Got {ids.tolist()}.")
        probe.close(listed.logprobs[0], row[ids], "Expected each listed value to be that token's.")
        best = np.sort(row)[::-1][: len(ids)]
        probe.close(np.sort(listed.logprobs[0])[::-1], best, "Expected the most probable tokens in the list.")


def check_cut_bounds_what_is_not_listed(probe: AdapterProbe) -> None:
    """Return nothing when no token outside a list has more than its `log_cut`, in reading and in drawing."""
    most = probe.longest_top(4)
    if most < 2:
        raise NotApplicable("the adapter lists one token only")
    known = {prompt: _some_row(probe, index) for index, prompt in enumerate(probe.prompts)}
    for prompt, row in known.items():
        _check_cut(probe, probe.adapter.next_token([prompt], top=most - 1)[0], row)
    for prompt, completion in probe.drawn(replace(probe.sampling, top=most - 1)):
        _check_cut(probe, completion.scores, known[prompt])


def _check_cut(probe: AdapterProbe, scores: TokenScores, row: dict[int, float]) -> None:
    """Compare the first position of a list with what is known of its row."""
    listed = set(listed_ids(scores)[0].tolist())
    cut = float(scores.log_cut[0])
    above = [token for token, value in row.items() if token not in listed and value > cut + probe.tolerance]
    expect(
        not above,
        f"Expected 'log_cut' ({cut:.6g}) to bound every token that is not listed. Got tokens {above[:5]} above it: set "
        "it to the last of the most probable ones, a drawn token that was added to them left out.",
    )


def check_token_bytes_join_to_the_text(probe: AdapterProbe) -> None:
    """Return nothing when the bytes of drawn tokens make up the text, spaces and split characters included."""
    probe.require("token_bytes")
    for _, completion in probe.drawn():
        ids = chosen(completion.scores)
        parts = probe.adapter.token_bytes(ids)
        expect(
            len(parts) == len(ids) and all(isinstance(part, bytes) for part in parts),
            f"Expected bytes for each of {len(ids)} tokens. Got {parts!r}.",
        )
        got, wanted = _readable(b"".join(parts).decode(errors="replace")), _readable(completion.text)
        expect(got == wanted, f"Expected the bytes of {ids} to make up {wanted!r}. Got {got!r}: give raw bytes.")


def _readable(text: str) -> str:
    """Return `text` with unreadable bytes written alike: decoders differ in how many marks they set, and at the end."""
    return re.sub("\ufffd+", "\ufffd", text).rstrip("\ufffd")


def check_given_ids_agree(probe: AdapterProbe) -> None:
    """Return nothing when given ids come back in the order asked, with the values of the whole row or the list."""
    probe.require("given_ids")
    limit = probe.adapter.provides.given_ids
    known = {prompt: _some_row(probe, index) for index, prompt in enumerate(probe.prompts)}
    count = min(4 if limit is None else limit, *(len(row) for row in known.values()))
    asked = [list(row)[:count][:: 1 if index % 2 else -1] for index, row in enumerate(known.values())]
    found = probe.adapter.next_token(list(probe.prompts), ids=asked)
    for prompt, own, scores in zip(probe.prompts, asked, found, strict=True):
        got = listed_ids(scores)[0].tolist()
        expect(got == own, f"Expected the ids in the order asked, {own}. Got {got}.")
        probe.close(scores.logprobs[0], [known[prompt][token] for token in own], "Expected each given id's own value.")


def _some_row(probe: AdapterProbe, index: int) -> dict[int, float]:
    """Return token ids and values that the adapter itself tells in another way, the likeliest first."""
    prompt = probe.prompts[index]
    if probe.adapter.provides.full_vocabulary:
        row = probe.row(prompt)
        return {int(token): float(row[token]) for token in np.argsort(-row, kind="stable")[:6]}
    listed = probe.adapter.next_token([prompt], top=probe.longest_top(6))[0]
    return dict(zip(listed_ids(listed)[0].tolist(), listed.logprobs[0].tolist(), strict=True))


def check_score_reads_the_joint_tokens(probe: AdapterProbe) -> None:
    """Return nothing when a continuation is scored token by token as prompt and continuation are read together."""
    probe.require("score", "tokenize")
    for prompt in probe.prompts:
        for text in probe.continuations:
            ((scores,),) = probe.adapter.score([prompt], [[text]])
            wanted = probe.adapter.tokenize(prompt, text)[1]
            expect(
                chosen(scores) == wanted,
                f"Expected the tokens {wanted} that tokenize() says {text!r} adds. Got {chosen(scores)}.",
            )


def check_scored_rows_hold_the_token(probe: AdapterProbe) -> None:
    """Return nothing when scored rows are whole, normalised, and agree with `chosen_logprob`."""
    probe.require("score", "full_vocabulary")
    for prompt in probe.prompts:
        for scores in probe.adapter.score([prompt], [list(probe.continuations)], top=None)[0]:
            expect(scores.is_full, "Expected the whole vocabulary for top=None. Got a list.")
            probe.close(logsumexp(scores.logprobs), np.zeros(len(scores)), "Expected rows that sum to 1.")
            own = scores.logprobs[np.arange(len(scores)), chosen(scores)]
            probe.close(values(scores), own, "Expected 'chosen_logprob' to be the row's value of 'chosen'.")


def check_score_agrees_with_stepping(probe: AdapterProbe) -> None:
    """Return nothing when each scored value is what `next_token` says at that place of the text."""
    probe.require("score", "tokenize")
    compared = 0
    for prompt in texts(probe.prompts):
        for text in probe.continuations:
            ((scores,),) = probe.adapter.score([prompt], [[text]])
            start, added = probe.adapter.tokenize(prompt, text)
            joint = [*start, *added]
            for cut in range(len(text)):
                read = probe.adapter.tokenize(prompt + text[:cut])[0]
                at = len(read) - len(start)
                if joint[: len(read)] != read or not 0 <= at < len(added):
                    continue  # the cut lies inside a token
                wanted = probe.raw(prompt + text[:cut], added[at])
                if not np.isnan(wanted):
                    probe.close(values(scores)[at], wanted, f"Expected the value of token {at} of {text!r} as stepped.")
                    compared += 1
    if not compared:
        raise NotApplicable("no cut of a continuation falls between two tokens that the adapter lists")


def check_continuation_order_does_not_matter(probe: AdapterProbe) -> None:
    """Return nothing when a continuation's score does not depend on which others were scored before it."""
    probe.require("score")
    for prompt in probe.prompts:
        (there,) = probe.adapter.score([prompt], [list(probe.continuations)])
        (back,) = probe.adapter.score([prompt], [list(probe.continuations)[::-1]])
        for one, other in zip(there, back[::-1], strict=True):
            probe.close(values(one), values(other), "Expected one score in both orders: reset the prefix cache.")


def check_ragged_continuations(probe: AdapterProbe) -> None:
    """Return nothing when prompts may have different numbers of continuations."""
    probe.require("score")
    ragged = [list(probe.continuations)[: 1 + index % 3] for index in range(len(probe.prompts))]
    found = probe.adapter.score(list(probe.prompts), ragged)
    sizes, wanted = [len(group) for group in found], [len(group) for group in ragged]
    expect(sizes == wanted, f"Expected {wanted} scores for ragged continuations. Got {sizes}.")
    for prompt, group, scores in zip(probe.prompts, ragged, found, strict=True):
        _same(probe, probe.adapter.score([prompt], [group])[0], scores, "Expected ragged scores as one by one.")


def check_empty_continuation(probe: AdapterProbe) -> None:
    """Return nothing when an empty continuation is refused by name, or has no positions: it has no tokens to score."""
    probe.require("score")
    try:
        ((scores,),) = probe.adapter.score([probe.prompts[0]], [[""]])
    except InputError as error:
        expect(str(error), "Expected a message with the InputError for an empty continuation. Got none.")
        return
    expect(len(scores) == 0, f"Expected InputError or no positions for an empty continuation. Got {len(scores)}.")


def check_batch_equals_singles(probe: AdapterProbe) -> None:
    """Return nothing when a prompt's numbers do not depend on the prompts beside it."""
    batch, greedy = list(probe.prompts), Sampling(max_tokens=6, temperature=0.0)
    message = "Expected a batch to give what single calls give: mask the padding and set the positions."
    if probe.adapter.provides.top != 0:
        top = probe.longest_top(5)
        singles = [probe.adapter.next_token([prompt], top=top)[0] for prompt in batch]
        _same(probe, singles, probe.adapter.next_token(batch, top=top), message)
    for prompt, (together,) in zip(batch, probe.adapter.generate(batch, greedy), strict=True):
        ((alone,),) = probe.adapter.generate([prompt], greedy)
        probe.close(values(together.scores), values(alone.scores), message)
    if probe.adapter.provides.score:
        groups = [list(probe.continuations)] * len(batch)
        for prompt, together_scores in zip(batch, probe.adapter.score(batch, groups), strict=True):
            _same(probe, probe.adapter.score([prompt], groups[:1])[0], together_scores, message)


def check_prompt_order_does_not_matter(probe: AdapterProbe) -> None:
    """Return nothing when answers follow their prompts, in whatever order they come."""
    top = probe.longest_top(5)
    there = probe.adapter.next_token(list(probe.prompts), top=top)
    back = probe.adapter.next_token(list(probe.prompts)[::-1], top=top)
    _same(probe, there, back[::-1], "Expected each prompt's own answer at its own place, in both orders.")


def _same(probe: AdapterProbe, wanted: list[TokenScores], got: list[TokenScores], message: str) -> None:
    expect(len(wanted) == len(got), f"{message} Expected {len(wanted)} results, got {len(got)}.")
    for one, other in zip(wanted, got, strict=True):
        if one.chosen is None:
            probe.close(np.sort(other.logprobs), np.sort(one.logprobs), message)
        else:
            probe.close(values(other), values(one), message)


def check_non_ascii_text(probe: AdapterProbe) -> None:
    """Return nothing when text outside ASCII is read as itself, and no lookalike has its score."""
    probe.require("score", "tokenize")
    for prompt in texts(probe.prompts):
        snowman, umbrella = (probe.adapter.tokenize(prompt, text)[1] for text in (" ☃", " ☂"))
        expect(snowman != umbrella, "Expected different tokens for ☃ and ☂. Got the same: read UTF-8, drop nothing.")
        ((one, other),) = probe.adapter.score([prompt], [[" ☃", "é☃"]])
        expect(len(one) > 0 and len(other) > 0, "Expected scored tokens for text outside ASCII. Got none.")


SCORE_CHECKS = (
    check_next_token_is_one_position,
    check_full_rows_sum_to_one,
    check_lists_keep_their_mass,
    check_lists_hold_the_likeliest,
    check_cut_bounds_what_is_not_listed,
    check_token_bytes_join_to_the_text,
    check_given_ids_agree,
    check_score_reads_the_joint_tokens,
    check_scored_rows_hold_the_token,
    check_score_agrees_with_stepping,
    check_continuation_order_does_not_matter,
    check_ragged_continuations,
    check_empty_continuation,
    check_batch_equals_singles,
    check_prompt_order_does_not_matter,
    check_non_ascii_text,
)
