"""The label readout of the vLLM adapter, one request a question, beside one request for each option.

Same engine (SmolLM2-135M-Instruct, float32), same ARC-Easy questions, same plain prompt with lettered options. The
plain way sends prompt and letter as one text and reads the letter's place of `prompt_logprobs`; it sends one token
sequence an option, as harnesses do. The two take turns, a batch of questions each, and the prefix cache is emptied
before every turn, so that neither finds what the other computed.

    python benchmarks/vllm_label.py [--questions 200] [--batch 20] [--threads 1] [--json FILE]
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import calibwrap as cw
from calibwrap.data import load_questions
from calibwrap.questions import LETTER, LETTERS
from calibwrap.readouts import Label

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the model directory that the tests make
from tests.servers import matched

ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512}


@dataclass
class Turns:
    """What one way of asking took and gave, turn by turn."""

    seconds: list[float] = field(default_factory=list)
    computed: int = 0
    requests: int = 0
    probabilities: list[list[float]] = field(default_factory=list)

    def add(self, llm: Any, ask: Callable[[], list[list[float]]]) -> None:
        """Take one turn, counting what the engine computes."""
        generate = llm.generate

        def counted(*arguments: Any, **options: Any) -> Any:
            replies = generate(*arguments, **options)
            self.requests += len(replies)
            self.computed += sum(len(one.prompt_token_ids) - (one.num_cached_tokens or 0) for one in replies)
            return replies

        llm.reset_prefix_cache()
        llm.generate = counted
        began = time.perf_counter()
        self.probabilities += ask()
        self.seconds.append(time.perf_counter() - began)
        llm.generate = generate


def by_label(lm: cw.CalibratedLM, questions: Sequence[cw.Question]) -> list[list[float]]:
    """Return the options' log-probabilities, read from one position a question."""
    scores = Label(min_mass=0.0).ask(lm.adapter, questions)
    return [row[: len(question.options)].tolist() for row, question in zip(scores.logprobs, questions, strict=True)]


def by_option(lm: Any, questions: Sequence[cw.Question]) -> list[list[float]]:
    """Return the letters' log-probabilities, each read in a request of its own with the whole prompt."""
    import vllm

    params = vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
    inputs, owners = [], []
    for number, question in enumerate(questions):
        prompt = LETTER.prompt(question, LETTERS)
        for option in range(len(question.options)):
            ids, tail = lm.adapter.tokenize(prompt, " " + LETTERS[option])
            inputs.append(vllm.TokensPrompt(prompt_token_ids=[*ids, *tail]))
            owners.append((number, option, tail[-1]))
    found = [[0.0] * len(question.options) for question in questions]
    for (number, option, token), reply in zip(
        owners, lm.adapter.llm.generate(inputs, params, use_tqdm=False), strict=True
    ):
        found[number][option] = reply.prompt_logprobs[-1][token].logprob
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--batch", type=int, default=20, help="questions handed over together")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.update(
        OMP_NUM_THREADS=str(arguments.threads), VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1",
    )  # fmt: skip
    questions = load_questions("arc_easy", limit=arguments.questions, seed=0)
    lm: Any = cw.wrap(f"vllm:{matched.smollm2().directory}", **ENGINE)
    label, option = Turns(), Turns()
    batches = [questions[at : at + arguments.batch] for at in range(0, len(questions), arguments.batch)]
    for way in (by_label, by_option):
        way(lm, batches[0])  # the engine's first requests warm it up
    for part in batches:
        label.add(lm.adapter.llm, lambda part=part: by_label(lm, part))  # type: ignore[misc]
        option.add(lm.adapter.llm, lambda part=part: by_option(lm, part))  # type: ignore[misc]
    lm.adapter.close()
    report(label, option, len(questions), arguments)


def report(label: Turns, option: Turns, questions: int, arguments: argparse.Namespace) -> None:
    ratios = [slow / fast for fast, slow in zip(label.seconds, option.seconds, strict=True)]
    choices = [[int(np.argmax(row)) for row in way.probabilities] for way in (label, option)]
    results = {
        "questions": questions,
        "threads": arguments.threads,
        "label_requests": label.requests,
        "option_requests": option.requests,
        "label_prompt_tokens_computed": label.computed,
        "option_prompt_tokens_computed": option.computed,
        "label_questions_per_second_median": arguments.batch / statistics.median(label.seconds),
        "option_questions_per_second_median": arguments.batch / statistics.median(option.seconds),
        "ratio_median": statistics.median(ratios),
        "ratio_smallest": min(ratios),
        "ratio_largest": max(ratios),
        "same_choice": float(np.mean(np.equal(*choices))),
    }
    for name, value in results.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
