"""Cut real next-token distributions to their top 20: do the bounds hold, and how wide are they?

Every position of real multiple-choice prompts is read with the whole vocabulary, cut to its 20 most probable tokens,
and asked for the probabilities of options that are sets of tokens. The truth is known from the whole row. Options:

- letters, answer: A to D with and without a space, where the letter is due;
- letters, text: the same at every other position, where they are improbable;
- ranks: 2 to 6 options of 1 to 3 tokens, the rank of each drawn log-uniformly from the whole vocabulary;
- one likely: 2 to 6 options of one token, one of them among the 5 most probable, the others anywhere.

Beside the bounds: cci-sdk 0.1.1 (`letter_probabilities`, which shares the rest out evenly among missing options and
gives one value, no interval) and plain renormalisation over what the list shows. A value is impossible where it lies
outside the exact bounds. Positions that show no option are counted apart; they have the bounds 0 and 1.

    python benchmarks/truncation.py [--questions 300] [--top 20] [--threads 1] [--json FILE]
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from cli_sdk.evidence._prompts import letter_probabilities

import calibwrap as cw
from calibwrap.data import load_questions, packaged_model
from calibwrap.questions import LETTER
from calibwrap.scores import TokenScores

SETS = ("arc_easy", "sciq", "openbookqa")
TEMPERATURES = (1.0, 0.5, 0.8, 1.5, 3.0)
WIDTH = 6
"""Most options of one case; fewer are padded."""
FORMS = ("{}", " {}", "{}.")
"""How cci-sdk reads the same letter written in three ways."""
KINDS = ("float64", "float32")
"""Types of the listed values: as computed, and as servers send them."""
TOLERANCE = 1e-12
GUESSES = (0.5, 0.25, 0.1, 0.05, 0.02)
"""Other point values of an option that is not shown, as shares of the most that it can have."""
PROMPT, REST = LETTER.body.split("{question}", 1)


@dataclass
class Cases:
    """What is kept of each position for one way to choose options."""

    truth: list[np.ndarray] = field(default_factory=list)
    shown: list[np.ndarray] = field(default_factory=list)
    unlisted: list[np.ndarray] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    cut: list[float] = field(default_factory=list)
    cci: list[np.ndarray] = field(default_factory=list)

    def add(self, row: np.ndarray, listed: TokenScores, options: list[list[int]]) -> None:
        """Cut one full distribution (V,) to the list and look the options up in it."""
        known = dict(zip(listed.ids[0].tolist(), np.exp(listed.logprobs[0]).tolist(), strict=True))
        padded = options + [[]] * (WIDTH - len(options))
        self.truth.append(np.array([np.exp(row[option]).sum() for option in padded]))
        self.shown.append(np.array([sum(known.get(token, 0.0) for token in option) for option in padded]))
        self.unlisted.append(np.array([sum(token not in known for token in option) for option in padded]))
        self.tail.append(float(np.exp(listed.log_tail[0])))
        self.cut.append(float(np.exp(listed.log_cut[0])))
        self.cci.append(_cci(listed, options))

    def scores(self) -> cw.OptionScores:
        """Return the scores of all cases, with bounds."""
        mask = np.array(self.truth) > 0.0
        return cw.OptionScores.from_lists(self.shown, self.unlisted, self.tail, self.cut, "benchmark", mask)

    def guessed(self, share: float) -> np.ndarray:
        """Return what is shown, and `share` of the most that it can have where nothing is."""
        shown, exists = np.array(self.shown), np.array(self.truth) > 0.0
        tail, cut = np.array(self.tail)[:, None], np.array(self.cut)[:, None]
        missing = exists & (shown == 0.0)
        most = np.minimum(
            share * np.minimum(tail, np.array(self.unlisted) * cut), tail / np.fmax(missing.sum(1), 1)[:, None]
        )
        return np.where(missing, most, shown)


def _cci(listed: TokenScores, options: list[list[int]]) -> np.ndarray:
    """Return what cci-sdk makes of the same list, its tokens written as the letters that stand for the options."""
    names = {
        token: FORMS[form].format("ABCDEF"[index])
        for index, option in enumerate(options)
        for form, token in enumerate(option)
    }
    pairs = [(names.get(token, "?"), value) for token, value in zip(listed.ids[0], listed.logprobs[0], strict=True)]
    letters = {letter: letter for letter in "ABCDEF"[: len(options)]}
    found = letter_probabilities(pairs, letters)
    return np.array([found.get(letter, 0.0) for letter in "ABCDEF"])


def rows_of(adapter: cw.Adapter, questions: list[cw.Question]) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield the whole distribution (V,) at each position after the instruction, and whether a letter is due there."""
    for question in questions:
        text = LETTER.prompt(question, "ABCDE")[len(PROMPT) :] + " " + "ABCDE"[question.answer]
        ((scores,),) = adapter.score([PROMPT], [[text]], top=None)
        for at, row in enumerate(scores.logprobs):
            yield row, at == len(scores) - 1


def ranks(order: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Return 2 to 6 options of 1 to 3 tokens each, of log-uniform rank."""
    sizes = rng.integers(1, 4, rng.integers(2, WIDTH + 1))
    places = np.unique((len(order) ** rng.random(100)).astype(int) - 1)
    tokens = order[rng.permutation(places)[: sizes.sum()]]
    return [part.tolist() for part in np.split(tokens, np.cumsum(sizes)[:-1])]


def one_likely(order: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Return one of the 5 most probable tokens and 1 to 5 of any rank, as options of one token."""
    others = rng.choice(len(order) - 5, rng.integers(1, WIDTH), replace=False) + 5
    return [[int(token)] for token in (order[rng.integers(5)], *order[others])]


def collect(adapter: cw.Adapter, questions: list[cw.Question], top: int) -> dict[str, dict[str, Cases]]:
    """Return the cases of all positions, by the type of the listed values and by the way to choose options."""
    rng = np.random.default_rng(0)
    cases: dict[str, dict[str, Cases]] = {kind: defaultdict(Cases) for kind in KINDS}
    prompt = LETTER.prompt(questions[0], "ABCDE")
    letters = [[adapter.tokenize(prompt, form + letter)[1][0] for form in (" ", "")] for letter in "ABCD"]
    for row, is_answer in rows_of(adapter, questions):
        order = np.argsort(-row)
        asked = {
            "letters, answer" if is_answer else "letters, text": letters,
            "ranks": ranks(order, rng),
            "one likely": one_likely(order, rng),
        }
        for kind, of in cases.items():
            values = row[order[:top]].astype(kind).astype(np.float64)
            listed = TokenScores(values[None], ids=order[None, :top], log_cut=values[-1:])
            for name, options in asked.items():
                of[name].add(row, listed, options)
    return cases


def tempered(values: np.ndarray, temperature: float) -> np.ndarray:
    """Return each row of values to the power of 1 / temperature, normalised."""
    weights = values ** (1.0 / temperature)
    return weights / weights.sum(axis=1, keepdims=True)


def measured(cases: Cases, temperature: float) -> dict[str, float]:
    """Return how the bounds, cci-sdk and renormalisation do at one temperature."""
    scores = cases.scores()
    calibrated = cw.Temperature(temperature)(scores)
    known = scores.label_mass > 0.0
    mask = scores.mask & known[:, None]
    truth = tempered(np.array(cases.truth), temperature)
    over = np.maximum(calibrated.lower - truth, truth - calibrated.upper)
    width = calibrated.upper - calibrated.lower
    certain = scores.argmax_certified
    result = {
        "positions": len(scores),
        "positions that show no option": int((~known).sum()),
        "options": int(scores.mask.sum()),
        "violations": int((over > TOLERANCE)[scores.mask].sum()),
        "largest overshoot": float(max(0.0, over[scores.mask].max())),
        "width, mean": float(width[mask].mean()),
        "width, median": float(np.median(width[mask])),
        "first choice certain": float(certain.mean()),
        "first choice certain and wrong": int((certain & (truth.argmax(axis=1) != scores.choice)).sum()),
        "point value, mean error": float(np.abs(calibrated.probabilities - truth)[mask].mean()),
    }
    for share in GUESSES:
        guessed = tempered(cases.guessed(share)[known], temperature)
        result[f"with {share:g} of the bound, mean error"] = float(np.abs(guessed - truth[known])[mask[known]].mean())
    for name, values in (("cci", np.array(cases.cci)), ("renormalised", np.array(cases.shown))):
        other = tempered(values[known], temperature)
        error = np.abs(other - truth[known])[mask[known]]
        below, above = calibrated.lower[known] - TOLERANCE, calibrated.upper[known] + TOLERANCE
        outside = ((other < below) | (other > above))[mask[known]]
        result |= {
            f"{name}, mean error": float(error.mean()),
            f"{name}, largest error": float(error.max()),
            f"{name}, impossible": float(outside.mean()),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    share = -(-arguments.questions // len(SETS))
    questions = [question for name in SETS for question in load_questions(name, limit=share, seed=0)]
    with cw.wrap(f"hf:{packaged_model('smollm2-135m-instruct')}") as lm:
        cases = collect(lm.adapter, questions[: arguments.questions], arguments.top)
    results = {
        kind: {name: {f"{t:g}": measured(one, t) for t in TEMPERATURES} for name, one in of.items()}
        for kind, of in cases.items()
    }
    for kind, by_name in results.items():
        for name, by_temperature in by_name.items():
            print(f"{name} ({kind} values), T = {', '.join(f'{t:g}' for t in TEMPERATURES)}")
            for key in next(iter(by_temperature.values())):
                numbers = "".join(f"{result[key]:>12.4g}" for result in by_temperature.values())
                print(f"  {key:<34}{numbers}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
