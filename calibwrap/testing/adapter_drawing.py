"""Checks of how an adapter draws completions, and of the raw scores that it reports beside them."""

from dataclasses import replace
from itertools import chain

import numpy as np

from calibwrap.base import Completion, Sampling
from calibwrap.questions import Prompt
from calibwrap.scores import Floats, log_softmax
from calibwrap.testing.adapter_probe import AdapterProbe, Only, Sharpen, chosen, texts, values
from calibwrap.testing.checks import NotApplicable, expect

GREEDY = Sampling(max_tokens=8, temperature=0.0)
"""How the likeliest text is asked for."""
RARE = 1e-6
"""Chance at which a draw from the right distribution would fail the frequency checks; the seed makes it final."""


def check_drawn_value_is_that_tokens(probe: AdapterProbe) -> None:
    """Return nothing when, with sampling on, each drawn token comes with its own value, not the likeliest token's."""
    for prompt, completion in probe.drawn():
        probe.first_matches(prompt, completion, "with sampling on")
    if probe.adapter.provides.full_vocabulary:
        for _, completion in probe.drawn(replace(probe.sampling, top=None)):
            scores = completion.scores
            own = scores.logprobs[np.arange(len(scores)), chosen(scores)]
            probe.close(values(scores), own, "Expected 'chosen_logprob' to be the row's value of 'chosen'.")


def check_temperature_leaves_scores_raw(probe: AdapterProbe) -> None:
    """Return nothing when reported scores do not move with the sampling temperature."""
    for temperature in (0.5, 2.0):
        for prompt, completion in probe.drawn(replace(probe.sampling, temperature=temperature)):
            probe.first_matches(prompt, completion, f"at sampling temperature {temperature}")


def check_steering_leaves_scores_raw(probe: AdapterProbe) -> None:
    """Return nothing when reported scores are the model's own while a calibrator steers the draw."""
    probe.require("steers")
    for prompt, completion in probe.drawn(steer=Sharpen(0.5)):
        probe.first_matches(prompt, completion, "while a calibrator steers")


def check_steering_shapes_the_draw(probe: AdapterProbe) -> None:
    """Return nothing when drawn frequencies follow the calibrated distribution, sampling temperature on top of it."""
    probe.require("steers", "full_vocabulary")
    prompt = probe.prompts[0]
    _follow(probe, log_softmax(2.0 * probe.row(prompt)), Sharpen(4.0), temperature=2.0)


def check_frequencies_follow_the_model(probe: AdapterProbe) -> None:
    """Return nothing when drawn frequencies follow the whole untruncated distribution: no top-k or top-p left on."""
    _follow(probe, probe.row(probe.prompts[0]), None, temperature=1.0)


def _follow(probe: AdapterProbe, logprobs: Floats, steer: Sharpen | None, temperature: float) -> None:
    """Compare first tokens with `logprobs` by Pearson's chi-square test, unlikely tokens pooled."""
    from scipy.stats import chi2

    sampling = Sampling(n=probe.draws, max_tokens=1, seed=5, temperature=temperature)
    (group,) = probe.adapter.generate([probe.prompts[0]], sampling, steer)
    counts = np.bincount([chosen(one.scores)[0] for one in group], minlength=len(logprobs))
    order = np.argsort(-logprobs, kind="stable")
    expected = len(group) * np.exp(logprobs[order])
    pools = np.floor(np.cumsum(expected) / 8.0).astype(int)  # neighbours share a pool until it expects about 8 draws
    _, pools = np.unique(np.minimum(pools, max(0, int(len(group) / 8.0) - 1)), return_inverse=True)
    wanted, got = np.bincount(pools, weights=expected), np.bincount(pools, weights=counts[order])
    statistic = float(((got - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum())
    limit = float(chi2.isf(RARE, max(1, len(wanted) - 1)))
    expect(
        statistic <= limit,
        f"Expected first tokens of {len(group)} draws to follow the distribution (chi-square at most {limit:.1f}). "
        f"Got {statistic:.1f}: draw at the asked temperature, without top-k, top-p or penalties.",
    )


def check_score_reproduces_generate(probe: AdapterProbe) -> None:
    """Return nothing when scoring a drawn text gives the values that came with the draw."""
    probe.require("score", "tokenize")
    compared = 0
    short = (replace(probe.sampling, max_tokens=most) for most in (1, 2, 3))  # the shorter, the surer read back
    for prompt, completion in chain.from_iterable(map(probe.drawn, (GREEDY, probe.sampling, *short))):
        if not completion.text:
            continue
        read = probe.adapter.tokenize(prompt, completion.text)[1]
        if chosen(completion.scores)[: len(read)] != read or len(chosen(completion.scores)) > len(read) + 1:
            continue  # the text is usually read as other tokens than the drawn ones; then there is nothing to compare
        ((scores,),) = probe.adapter.score([prompt], [[completion.text]])
        message = f"Expected score() of the drawn text {completion.text!r} to give generate()'s values."
        probe.close(values(scores), values(completion.scores)[: len(read)], message)
        compared += 1
    if not compared:
        raise NotApplicable("no drawn text is read back as its own tokens")


def check_seed_repeats_the_draw(probe: AdapterProbe) -> None:
    """Return nothing when one seed gives one draw."""
    there, back = _tokens(probe, probe.sampling), _tokens(probe, probe.sampling)
    expect(there == back, "Expected the same draw for the same seed. Got another: pass the seed on.")


def check_seeds_differ(probe: AdapterProbe) -> None:
    """Return nothing when another seed gives another draw."""
    there, back = _tokens(probe, probe.sampling), _tokens(probe, replace(probe.sampling, seed=12))
    expect(there != back, "Expected another draw for another seed. Got the same: pass the seed on.")


def check_n_completions(probe: AdapterProbe) -> None:
    """Return nothing when each prompt gets `n` completions that are drawn apart from each other."""
    for prompt, group in zip(probe.prompts, probe.adapter.generate(list(probe.prompts), probe.sampling), strict=True):
        expect(len(group) == probe.sampling.n, f"Expected {probe.sampling.n} completions. Got {len(group)}.")
        different = {tuple(chosen(one.scores)) for one in group}
        expect(
            len(different) > 1,
            f"Expected independent completions of {prompt!r}. Got {len(group)} equal ones: give each its own stream.",
        )


def check_greedy_is_argmax(probe: AdapterProbe) -> None:
    """Return nothing when temperature 0 draws the likeliest token, from the raw distribution."""
    probe.require("top")
    for prompt, completion in probe.drawn(GREEDY):
        best = float(probe.adapter.next_token([prompt], top=1)[0].logprobs[0, 0])
        got = float(values(completion.scores)[0])
        expect(
            got >= best - probe.tolerance,
            f"Expected temperature 0 to draw the likeliest token ({best:.6g}). Got one of {got:.6g}.",
        )
    for _, completion in probe.drawn(replace(GREEDY, top=1)):
        rows = completion.scores.logprobs.max(axis=1)
        probe.close(values(completion.scores), rows, "Expected temperature 0 to draw the likeliest token everywhere.")


def check_max_tokens(probe: AdapterProbe) -> None:
    """Return nothing when no completion has more tokens than asked, and one position for each."""
    for most in (1, 5):
        for _, completion in probe.drawn(replace(probe.sampling, max_tokens=most)):
            length = len(completion.scores)
            expect(1 <= length <= most, f"Expected 1 to {most} drawn tokens for max_tokens={most}. Got {length}.")


def check_finish_tells_the_truth(probe: AdapterProbe) -> None:
    """Return nothing when "length" goes on with more room, and "stop" does not."""
    roomy = replace(GREEDY, max_tokens=2 * GREEDY.max_tokens)
    for temperature, seed in ((0.0, 0), (1.0, 1), (1.0, 2), (1.0, 3)):
        pair = [replace(one, temperature=temperature, seed=seed) for one in (GREEDY, roomy)]
        for (_, short), (_, long) in zip(*map(probe.drawn, pair), strict=True):
            lengths = f"{len(short.scores)} tokens, {len(long.scores)} with room for {roomy.max_tokens}"
            if short.finish == "stop":
                expect(len(short.scores) == len(long.scores), f"Expected finish 'stop' to be final. Got {lengths}.")
            else:
                expect(
                    len(short.scores) == GREEDY.max_tokens < len(long.scores),
                    f"Expected finish 'length' after all {GREEDY.max_tokens} tokens only. Got {lengths}.",
                )


def check_end_token_has_no_text(probe: AdapterProbe) -> None:
    """Return nothing when a completion that the model ended has a position for the end token and no text for it."""
    compared = 0
    for seed in range(6):
        ended = replace(probe.sampling, n=1, seed=seed, max_tokens=24)
        for prompt, completion in probe.drawn(ended):
            length = len(completion.scores)
            if completion.finish != "stop" or length < 2:
                continue
            ((cut,),) = probe.adapter.generate([prompt], replace(ended, max_tokens=length - 1))
            expect(
                cut.text == completion.text and cut.finish == "length",
                f"Expected the last of {length} tokens to be the end token, and to add no text to {cut.text!r} "
                f"({cut.finish}). Got {completion.text!r}: keep special tokens out of the text, not out of scores.",
            )
            compared += 1
    if not compared:
        raise NotApplicable("the model ended none of the drawn completions")


def check_stop_texts(probe: AdapterProbe) -> None:
    """Return nothing when a stop text ends the completion and is not part of it."""
    compared = 0
    for sampling in (GREEDY, *(replace(probe.sampling, n=1, seed=seed) for seed in range(3))):
        for prompt, completion in probe.drawn(sampling):
            stop = _inner_text(completion.text)
            if not stop:
                continue
            wanted = completion.text[: completion.text.index(stop)]
            ((got,),) = probe.adapter.generate([prompt], replace(sampling, stop=("\x00never", stop)))
            expect(
                got.text == wanted and got.finish == "stop",
                f"Expected {wanted!r} (stop) with the stop text {stop!r}. Got {got.text!r} ({got.finish}).",
            )
            compared += 1
    if not compared:
        raise NotApplicable("no drawn text is long enough to stop inside")


def _inner_text(text: str) -> str:
    """Return one or two whole characters from the middle of `text` that may stop it; empty when there are none."""
    middle = text[len(text) // 2 :][:2].split("\ufffd")[0]
    return middle if len(text) > 1 else ""


def check_split_characters_survive(probe: AdapterProbe) -> None:
    """Return nothing when a character whose bytes are drawn as several tokens comes out whole."""
    probe.require("steers", "tokenize")
    prompt = texts(probe.prompts)[0]
    ids = probe.adapter.tokenize(prompt, "☃")[1]
    if len(ids) < 2 or len(ids) > 4:
        raise NotApplicable(f"the snowman is {len(ids)} tokens")
    sampling = Sampling(n=64, max_tokens=len(ids), seed=3)
    (group,) = probe.adapter.generate([prompt], sampling, Only(tuple(sorted(set(ids)))))
    whole = [one for one in group if chosen(one.scores) == ids]
    if not whole:
        raise NotApplicable("the draw did not hit on a snowman")
    expect(
        whole[0].text == "☃",
        f"Expected '☃' from its tokens {ids}. Got {whole[0].text!r}: decode all tokens together.",
    )


def check_settings_are_recorded(probe: AdapterProbe) -> None:
    """Return nothing when a completion names the sampling settings in force, a steering calibrator included."""
    warm, hot = (_settings(probe.drawn(replace(probe.sampling, temperature=value))) for value in (0.7, 1.3))
    expect(warm and warm != hot, f"Expected 'settings' to tell temperature 0.7 from 1.3. Got {warm} both times.")
    if probe.adapter.provides.steers:
        free, steered = _settings(probe.drawn()), _settings(probe.drawn(steer=Sharpen(2.0)))
        expect(free != steered, f"Expected 'settings' to name a steering calibrator. Got {steered} without it too.")


def _settings(drawn: list[tuple[Prompt, Completion]]) -> dict[str, object]:
    return dict(drawn[0][1].settings)


def _tokens(probe: AdapterProbe, sampling: Sampling) -> list[list[int]]:
    return [chosen(completion.scores) for _, completion in probe.drawn(sampling)]


DRAWING_CHECKS = (
    check_drawn_value_is_that_tokens,
    check_temperature_leaves_scores_raw,
    check_steering_leaves_scores_raw,
    check_steering_shapes_the_draw,
    check_frequencies_follow_the_model,
    check_score_reproduces_generate,
    check_seed_repeats_the_draw,
    check_seeds_differ,
    check_n_completions,
    check_greedy_is_argmax,
    check_max_tokens,
    check_finish_tells_the_truth,
    check_end_token_has_no_text,
    check_stop_texts,
    check_split_characters_survive,
    check_settings_are_recorded,
)
