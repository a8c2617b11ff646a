"""Checks of what an adapter takes and claims: bad input, tokens, lengths, identity, capabilities."""

import copy
from collections.abc import Callable

from calibwrap.base import Sampling
from calibwrap.errors import CapabilityError, InputError, PromptTooLong
from calibwrap.questions import Chat, Prompt
from calibwrap.testing.adapter_probe import AdapterProbe, Sharpen, texts
from calibwrap.testing.checks import NotApplicable, expect, expect_raises, expect_works

LONGEST_BUILT = 8192
"""Contexts longer than this are not filled by a check."""
ONE = Sampling(max_tokens=1, temperature=0.0)
"""The cheapest draw."""


def check_empty_input_is_named(probe: AdapterProbe) -> None:
    """Return nothing when an empty prompt, and a bare text in place of a list, raise InputError."""
    for what, call in _calls(probe, ""):
        expect_raises(InputError, call, f"an empty prompt in {what}")
    expect_raises(InputError, lambda: probe.adapter.generate("bare text", ONE), "a text in place of a list of prompts")


def check_non_text_input_is_named(probe: AdapterProbe) -> None:
    """Return nothing when a prompt that is neither text nor chat raises InputError."""
    for wrong in (3, None, b"bytes"):
        for what, call in _calls(probe, wrong):  # type: ignore[arg-type]  # the wrong type is the point
            expect_raises(InputError, call, f"the prompt {wrong!r} in {what}")


def check_long_input_is_named(probe: AdapterProbe) -> None:
    """Return nothing when a prompt longer than the context raises PromptTooLong, even beside one that fits."""
    length = _context(probe)
    long = "word " * (length + 1)
    for what, call in _calls(probe, long):
        expect_raises(PromptTooLong, call, f"a prompt longer than the context of {length} tokens in {what}")


def check_context_length_is_true(probe: AdapterProbe) -> None:
    """Return nothing when the longest text that `context_length` allows runs, and the next one is refused."""
    probe.require("tokenize")
    length = _context(probe)
    low, high = 1, length + 1  # words that fit with one token to spare, and words that do not
    while high - low > 1:
        middle = (low + high) // 2
        fits = len(probe.adapter.tokenize("word " * middle)[0]) < length
        low, high = (middle, high) if fits else (low, middle)
    ((completion,),) = expect_works(
        lambda: probe.adapter.generate(["word " * low], ONE), f"a prompt that fits {length} tokens with one to spare"
    )
    expect(len(completion.scores) == 1, "Expected a token after a prompt that just fits. Got none.")
    more = "word " * (high + 1)
    expect_raises(PromptTooLong, lambda: probe.adapter.generate([more], ONE), f"more than {length} tokens")


def _context(probe: AdapterProbe) -> int:
    length = probe.adapter.provides.context_length
    if length is None or length > LONGEST_BUILT:
        raise NotApplicable(f"a context of {length} tokens is not filled here")
    return length


def _calls(probe: AdapterProbe, prompt: Prompt) -> list[tuple[str, Callable[[], object]]]:
    """Return every way to hand in a prompt that the adapter provides, beside a prompt that is fine."""
    adapter, provides = probe.adapter, probe.adapter.provides
    both = [probe.prompts[0], prompt]
    calls: list[tuple[str, Callable[[], object]]] = [("generate", lambda: adapter.generate(both, ONE))]
    if provides.top != 0:
        calls.append(("next_token", lambda: adapter.next_token(both, top=1)))
    if provides.score:
        calls.append(("score", lambda: adapter.score(both, [[" sun"], [" sun"]])))
    return calls


def check_tokenize_is_joint(probe: AdapterProbe) -> None:
    """Return nothing when prompt and continuation give the tokens of their text read as one."""
    probe.require("tokenize")
    for prompt in texts(probe.prompts):
        for text in probe.continuations:
            start, added = probe.adapter.tokenize(prompt, text)
            joint = probe.adapter.tokenize(prompt + text)[0]
            expect(
                [*start, *added] == joint,
                f"Expected {joint} for {prompt + text!r} read as one. Got {start} + {added}: no second begin token, "
                "and no tokens of the parts glued together.",
            )
            expect(added, f"Expected tokens for the continuation {text!r}. Got none.")


def check_inputs_are_left_alone(probe: AdapterProbe) -> None:
    """Return nothing when the lists that were handed in are as they were."""
    provides = probe.adapter.provides
    calls: dict[str, Callable[[list[Prompt], list[list[str]]], object]] = {
        "generate": lambda prompts, _: probe.adapter.generate(prompts, ONE)
    }
    if provides.top != 0:
        calls["next_token"] = lambda prompts, _: probe.adapter.next_token(prompts, top=1)
    if provides.score:
        calls["score"] = lambda prompts, continuations: probe.adapter.score(prompts, continuations)
    for name, call in calls.items():
        prompts, continuations = list(probe.prompts), [list(probe.continuations) for _ in probe.prompts]
        before = copy.deepcopy((prompts, continuations))
        call(prompts, continuations)
        expect((prompts, continuations) == before, f"Expected {name}() to leave its lists as they were. Got others.")


def check_fingerprint(probe: AdapterProbe) -> None:
    """Return nothing when the fingerprint is stable and says which model on which runtime."""
    one, other = probe.adapter.fingerprint(), probe.adapter.fingerprint()
    expect(one == other, f"Expected one fingerprint for one model. Got {one.differences(other)}.")
    expect(one.runtime == probe.adapter.name, f"Expected runtime {probe.adapter.name!r}. Got {one.runtime!r}.")
    wanted = ["model", "semantics"]
    if probe.adapter.provides.tokenize:  # the weights are here, and so can be told apart
        wanted += ["revision", "dtype", "tokenizer"]
    if probe.adapter.provides.chat:
        wanted += ["template"]
    empty = [name for name in wanted if not getattr(one, name)]
    expect(not empty, f"Expected the fingerprint to say {', '.join(wanted)}. Got nothing for {', '.join(empty)}.")


def check_provides_tells_the_truth(probe: AdapterProbe) -> None:
    """Return nothing when each claim in `provides` works, and each denial raises CapabilityError."""
    adapter, prompt = probe.adapter, probe.prompts[0]
    trials: dict[str, Callable[[], object]] = {
        "full_vocabulary": lambda: _is_full(probe, prompt),
        "given_ids": lambda: adapter.next_token([prompt], ids=[[0]]),
        "top": lambda: adapter.next_token([prompt], top=1),
        "score": lambda: adapter.score([prompt], [[probe.continuations[0]]]),
        "tokenize": lambda: adapter.tokenize(prompt, probe.continuations[0]),
        "chat": lambda: adapter.generate([Chat((("user", "Is water wet?"),))], ONE),
        "steers": lambda: adapter.generate([prompt], ONE, Sharpen(2.0)),
        "streams": lambda: list(adapter.stream(prompt, ONE)),
    }
    for name, trial in trials.items():
        claim = getattr(adapter.provides, name)
        if claim in (False, 0):
            expect_raises(CapabilityError, trial, f"a call that needs {name}, which 'provides' denies")
            continue
        expect_works(trial, f"{name}={claim}, which 'provides' claims,")
    _check_limits(probe)


def _is_full(probe: AdapterProbe, prompt: Prompt) -> None:
    (scores,) = probe.adapter.next_token([prompt])
    expect(scores.is_full, "Expected the whole vocabulary from next_token(prompts). Got a list.")


def _check_limits(probe: AdapterProbe) -> None:
    """Numbers in `provides` are limits: so many work, one more is refused."""
    adapter, prompts, provides = probe.adapter, [probe.prompts[0]], probe.adapter.provides
    if provides.top:
        (listed,) = adapter.next_token(prompts, top=provides.top)
        length = listed.logprobs.shape[1]
        expect(length == provides.top, f"Expected a list of {provides.top}, as 'provides' claims. Got {length}.")
        more = provides.top + 1
        expect_raises(CapabilityError, lambda: adapter.next_token(prompts, top=more), f"a list of {more} tokens")
    if provides.given_ids:
        ids = list(range(provides.given_ids + 1))
        adapter.next_token(prompts, ids=[ids[:-1]])
        expect_raises(CapabilityError, lambda: adapter.next_token(prompts, ids=[ids]), f"{len(ids)} given ids")


INPUT_CHECKS = (
    check_empty_input_is_named,
    check_non_text_input_is_named,
    check_long_input_is_named,
    check_context_length_is_true,
    check_tokenize_is_joint,
    check_inputs_are_left_alone,
    check_fingerprint,
    check_provides_tells_the_truth,
)
