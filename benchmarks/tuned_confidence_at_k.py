"""Confidence@k with CATTO's weights beside DPO's: greedy, majority and Confidence@k on CommonsenseQA, by llama.cpp.

The LoRA adapters are those that catto_table.py trained, merged and exported in float32. They were trained on the texts
of options, and so the answers are texts here too: every trace is a sentence of reasoning that the model draws, after
which it reads the probability of each option's text as its answer and draws one of them. `confidence_at_k.py` measures
traces that write a letter, with which a model of this size is at chance.

Traces are drawn once for each model and journalled (a run that was ended goes on where it stopped); every decoder at
every k is worked out from them. Raw, and at one temperature for every trace's probabilities, fitted on the traces of
the other half of the questions. Intervals are 95 % bootstrap intervals over questions, with all seeds of a question
together; differences are paired: the same questions and training seeds, the same seeds of drawing.

    OMP_NUM_THREADS=1 python benchmarks/tuned_confidence_at_k.py --work FOLDER [--out FOLDER] [--json FILE]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Any

import numpy as np
from _tuned import (
    RUNTIME,
    Pair,
    Tuned,
    cell,
    difference,
    figures,
    float32_gguf,
    parsed,
    say,
    tuned_models,
)
from catto_table import N_BINS, listed
from confidence_at_k import by_halves, temperatures

import calibwrap as cw
from calibwrap.base import Completion, Sampling
from calibwrap.calibrators import Identity
from calibwrap.data import load_questions
from calibwrap.decoders.named import find_decoder
from calibwrap.decoders.trace import TraceDecoder
from calibwrap.evaluate import content_hash, question_keys
from calibwrap.journal import Journal
from calibwrap.questions import Question, Template
from calibwrap.scores import OptionScores
from calibwrap.stored_traces import Drawing, labels_of, traces_from, traces_record

TEST = "commonsense_qa"
STATES = ("raw", "temperature")
ANSWER = "\nAnswer:"
"""What stands between a trace's reasoning and the option that is read after it."""
EXAMPLES = (
    "Question: Which fruit is yellow?\nReasoning: Bananas are yellow when they are ripe.\nAnswer: banana\n\n"
    "Question: What do bees make?\nReasoning: Bees turn nectar into honey.\nAnswer: honey\n\n"
    "Question: When are stars seen?\nReasoning: The sky is dark enough only after sunset.\nAnswer: at night\n\n"
)
TEMPLATE = Template(body=EXAMPLES + "Question: {question}\nReasoning:", name="reasoned-text")
"""A sentence of reasoning, then the answer in words; no options are shown, as in training."""
Traces = list[tuple[Completion, ...]]
Points = dict[tuple[str, str], Pair]
"""Confidence and correctness by decoder and state."""


def drawings(chosen: argparse.Namespace) -> dict[str, Drawing]:
    """Return how traces are drawn, by the name of their journal: one greedy trace, and the largest k of each seed."""
    shared: dict[str, Any] = {"template": TEMPLATE, "max_tokens": chosen.max_tokens, "stop": ("\n",)}
    sampled = {
        f"seed {seed}": Drawing(k=max(chosen.k), temperature=chosen.temperature, seed=seed, **shared)
        for seed in range(chosen.draws)
    }
    return {"greedy": Drawing(k=1, temperature=0.0, **shared), **sampled}


def named(scores: OptionScores, drawing: Drawing, generator: np.random.Generator) -> int:
    """Return the option that a trace names: the likeliest of a greedy one, else one drawn with its probability.

    >>> named(OptionScores([[0.0, -1.0]], "test"), Drawing(k=1, temperature=0.0), np.random.default_rng(0))
    0
    """
    if drawing.temperature == 0.0:
        return int(scores.choice[0])
    probabilities = cw.Temperature(drawing.temperature)(scores).probabilities[0]
    return int(generator.choice(len(probabilities), p=probabilities / probabilities.sum()))


def draw_question(lm: cw.CalibratedLM, question: Question, drawing: Drawing, seed: int) -> tuple[Completion, ...]:
    """Return the traces of one question: reasoning, the letter of the option named after it, all options' scores."""
    prompt = str(drawing.template.prompt(question))
    sampling = Sampling(drawing.k, drawing.max_tokens, drawing.temperature, seed, drawing.stop)
    (drawn,) = lm.adapter.generate([prompt], sampling)
    options = [" " + option for option in question.options]
    labels, generator = labels_of(question), np.random.default_rng(seed)
    traces = []
    for one in drawn:
        (read,) = lm.adapter.score([prompt + one.text.rstrip() + ANSWER], [options])
        sums = [float(of.chosen_logprob.sum()) for of in read if of.chosen_logprob is not None]
        scores = OptionScores.from_rows([sums], drawing.label)
        text = f"{one.text.rstrip()}{ANSWER} {labels[named(scores, drawing, generator)]}"
        traces.append(replace(one, text=text, labels=scores))
    return tuple(traces)


def decoder_of(drawing: Drawing, question: Question, seed: int) -> TraceDecoder:
    """Return the decoder whose settings a journal line tells."""
    settings = {**drawing.decoder_settings(), "seed": seed}
    return find_decoder(f"confidence@{drawing.k}", labels=labels_of(question), **settings)


def draw(lm: cw.CalibratedLM, questions: Sequence[Question], drawing: Drawing, journal: Any, title: str) -> Traces:
    """Return the traces of all questions; what the journal holds is not drawn again."""
    keys = question_keys(questions)
    header = {"model": asdict(lm.adapter.fingerprint()), "traces": drawing.header(), "answer": ANSWER}
    with Journal.open(journal, {**header, "content": content_hash(questions)}, resume=True) as written:
        for number, (key, question) in enumerate(zip(keys, questions, strict=True), start=1):
            if key not in written.done:
                seed = drawing.seed_of(key)
                traces = draw_question(lm, question, drawing, seed)
                written.append([traces_record(key, decoder_of(drawing, question, seed), traces)])
                if number % 10 == 0 or number == len(questions):
                    say(f"{title}: {number} of {len(questions)} questions drawn")
        return [traces_from(written.done[key], drawing.label) for key in keys]


def drawn_by(model: Tuned, questions: Sequence[Question], chosen: argparse.Namespace) -> dict[str, Traces]:
    """Return the traces of one model by drawing."""
    file = float32_gguf(model, chosen.out)
    threads = {"n_threads": chosen.threads, "n_threads_batch": chosen.threads}
    with cw.wrap(f"llama-cpp:{file}", **RUNTIME, **threads) as lm:
        return {
            name: draw(lm, questions, drawing, chosen.out / "traces" / f"{model.name} {name}.jsonl", model.name)
            for name, drawing in drawings(chosen).items()
        }


def without_trace(model: Tuned, questions: Sequence[Question], draws: int) -> Points:
    """Return the same of options read without any trace, as catto_table.py stored them; no draw changes those."""
    with np.load(model.folder / "scores.npz") as stored:
        logprobs, answers = (stored[f"{TEST} {of}"][: len(questions)] for of in ("summed", "answers"))
        fitted = cw.fit_temperature(stored["choice summed"], stored["choice answers"])
    if answers.tolist() != [question.answer for question in questions]:
        sys.exit(f"{model.folder} was tested on other questions than these {len(questions)}: give fewer --questions.")
    raw = OptionScores(logprobs, "continuation")
    return {
        ("no trace", state): tuple(np.tile(of[:, None], draws) for of in (scores.confidence, scores.choice == answers))
        for state, scores in zip(STATES, (raw, fitted(raw)), strict=True)
    }


def points(by_drawing: dict[str, Traces], questions: Sequence[Question], chosen: argparse.Namespace) -> Points:
    """Return confidence and correctness (N, draws) of one model by decoder and state."""
    found: Points = {}
    halves = np.random.default_rng(0).permutation(len(questions)) % 2
    sampled = [traces for name, traces in by_drawing.items() if name != "greedy"]
    fitted = temperatures(questions, sampled, halves)
    right = np.array([question.answer for question in questions])
    for name in ("greedy", *(f"{kind}@{k}" for k, kind in product(chosen.k, ("majority", "confidence")))):
        drawn = [by_drawing["greedy"]] * len(sampled) if name == "greedy" else sampled
        settings = {} if name == "greedy" else {"temperature": chosen.temperature}
        decoder = find_decoder(name, **settings)
        for state, calibrators in zip(STATES, ([Identity()] * 2, fitted), strict=True):
            if name.startswith("majority") and state == "temperature":
                continue  # a majority reads no probability
            columns = [by_halves(decoder, questions, traces, calibrators, halves) for traces in drawn]
            confidence = np.array([[answer.confidence for answer in answers] for answers in columns]).T
            letters = [[labels_of(q).index(a.text) for q, a in zip(questions, of, strict=True)] for of in columns]
            found[name, state] = confidence, right[:, None] == np.array(letters).T
    return found


def joined(models: Sequence[Points]) -> Points:
    """Return the points of several training seeds as columns beside each other."""
    return {
        key: (np.hstack([of[key][0] for of in models]), np.hstack([of[key][1] for of in models])) for key in models[0]
    }


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print one table; `rows` are by "decoder state"."""
    print(f"\n{title}; ECE with {N_BINS} bins, 95 % intervals")
    print(f"{'':<26}{'accuracy':>28}{'ECE':>28}{'confidence':>12}")
    for name, row in rows.items():
        told = f"{row['confidence']:>12.3f}" if "confidence" in row else ""
        signed = "confidence" not in row
        print(f"{name:<26}{cell(row['accuracy'], signed):>28}{cell(row['ece'], signed):>28}{told}")


def measured(model: Tuned, questions: Sequence[Question], chosen: argparse.Namespace) -> Points:
    """Return the points of one model: without any trace, and by every decoder."""
    without = without_trace(model, questions, chosen.draws)
    return {**without, **points(drawn_by(model, questions, chosen), questions, chosen)}


def told(variant: str, by_seed: dict[int, Points], chosen: argparse.Namespace) -> dict[str, Any]:
    """Return and print one variant's figures, and what Confidence@k has over a majority of the same traces."""
    every = joined(list(by_seed.values()))
    rows = {f"{name} {state}": figures(pair, chosen.resamples) for (name, state), pair in every.items()}
    for k, state in product(chosen.k, STATES):
        gain = difference(every[f"confidence@{k}", state], every[f"majority@{k}", "raw"], chosen.resamples)
        rows[f"@{k} {state} less majority"] = gain
    show(f"{variant}: {len(by_seed)} trained seed(s), {chosen.questions} questions", rows)
    return {"seeds": list(by_seed), **rows}


def compared(variant: str, found: dict[str, dict[int, Points]], chosen: argparse.Namespace) -> dict[str, Any]:
    """Return and print how far one variant lies from the base, with the training seeds that both have."""
    seeds = sorted(set(found[variant]) & set(found[chosen.base]))
    if not seeds:
        say(f"{variant} and {chosen.base} share no training seed: not compared")
        return {"seeds": seeds}
    own, base = (joined([found[name][seed] for seed in seeds]) for name in (variant, chosen.base))
    rows = {" ".join(key): difference(own[key], base[key], chosen.resamples) for key in own}
    show(f"{variant} less {chosen.base}: {len(seeds)} trained seed(s), {chosen.questions} questions", rows)
    return {"seeds": seeds, **rows}


def main() -> None:
    parser = parsed(__doc__, "tuned-confidence-at-k")
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--k", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--draws", type=int, default=1, help="seeds of drawing for each trained model")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=24, help="of the reasoning")
    parser.add_argument("--base", default="dpo", help="the variant that others are compared with")
    chosen = parser.parse_args()
    questions = load_questions(TEST, split="validation", limit=chosen.questions, seed=0)
    if chosen.regime != "unlisted":
        questions = [listed(question) for question in questions]
    found: dict[str, dict[int, Points]] = {}
    for variant, models in tuned_models(chosen).items():
        found[variant] = {model.seed: measured(model, questions, chosen) for model in models}
    names = ("questions", "k", "draws", "temperature", "max_tokens", "base")
    results: dict[str, Any] = {name: getattr(chosen, name) for name in names}
    results["variants"] = {variant: told(variant, by_seed, chosen) for variant, by_seed in found.items()}
    others = [name for name in found if name != chosen.base] if chosen.base in found else []
    results["less_base"] = {variant: compared(variant, found, chosen) for variant in others}
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
