"""Questions a second through the OpenAI adapter beside lm-evaluation-harness's local-completions; own cost a request.

Continuations: both sides score every option by an echo request to the same running vLLM server (SmolLM2-135M-Instruct,
float32), the same ARC-Easy questions, the same concurrency, in turns. Label readout, one request a question, has its
own line. Own cost: one chat request at a time, then several at once, to a server that computes nothing, beside the
bare `openai` client; wall time, and processor time of the client alone.

    python benchmarks/api_throughput.py [--questions 200] [--concurrency 8] [--rounds 5] [--requests 400] [--json FILE]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

import calibwrap as cw
from calibwrap.data import load_questions
from calibwrap.questions import CLOZE, Chat
from calibwrap.readouts import Label

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the servers that the tests start
from tests.servers import matched, real

Found = list[list[float]]


def ours(lm: cw.CalibratedLM, questions: Sequence[cw.Question]) -> Found:
    """Return the summed log-probability of every option, by calibwrap's adapter."""
    prompts = [CLOZE.prompt(question) for question in questions]
    options = [[CLOZE.separator + option for option in question.options] for question in questions]
    return [[float(one.chosen_logprob.sum()) for one in row] for row in lm.adapter.score(prompts, options)]


def harness(peer: LocalCompletionsAPI, questions: Sequence[cw.Question]) -> Found:
    """Return the same by the harness."""
    pairs = [(CLOZE.prompt(q), CLOZE.separator + option) for q in questions for option in q.options]
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(pairs)
    ]
    found = iter(value for value, _ in peer.loglikelihood(requests, disable_tqdm=True))
    return [[float(next(found)) for _ in question.options] for question in questions]


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    """Return seconds on the clock, seconds of this process's processor time, and the result."""
    clock, processor = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return time.perf_counter() - clock, time.process_time() - processor, result


def spread(name: str, ratios: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the largest ratio."""
    return {f"{name}_median": statistics.median(ratios), f"{name}_low": min(ratios), f"{name}_high": max(ratios)}


def throughput(questions: list[cw.Question], concurrency: int, rounds: int, directory: Path) -> dict[str, float]:
    """Return questions a second of both sides against one vLLM server, and how far their numbers are apart."""
    with real.vllm_server(directory, "--max-logprobs", "100") as server:
        options = {"base_url": server.base_url, "max_concurrency": concurrency}
        lm = cw.wrap(f"openai:{server.model}", **options)
        listing = cw.wrap(f"openai:{server.model}", top_logprobs=100, **options)
        peer = LocalCompletionsAPI(
            base_url=f"{server.base_url}/completions", model=server.model, num_concurrent=concurrency,
            tokenizer_backend="huggingface", tokenizer=str(directory), max_length=512,
        )  # fmt: skip
        warm = questions[:2]
        for warming in (lambda: ours(lm, warm), lambda: harness(peer, warm), lambda: letters(listing, warm)):
            warming()
        speeds, apart = [], []
        for turn, piece in enumerate(np.array_split(np.arange(len(questions)), rounds)):
            chosen = [questions[int(index)] for index in piece]
            sides = [(ours, lm), (harness, peer), (letters, listing)]
            sides = sides[turn % 3 :] + sides[: turn % 3]  # nobody is always first
            results = {side.__name__: timed(side, model, chosen) for side, model in sides}
            speeds.append({name: len(chosen) / seconds for name, (seconds, _, _) in results.items()})
            mine, theirs = (np.concatenate([np.array(row) for row in results[name][2]]) for name in ("ours", "harness"))
            apart.append(np.abs(mine - theirs))
    median = {name: statistics.median(speed[name] for speed in speeds) for name in speeds[0]}
    return {
        "calibwrap_questions_per_second": median["ours"],
        "harness_questions_per_second": median["harness"],
        **spread("calibwrap_to_harness", [speed["ours"] / speed["harness"] for speed in speeds]),
        "label_questions_per_second": median["letters"],
        **spread("label_to_harness", [speed["letters"] / speed["harness"] for speed in speeds]),
        "loglikelihood_difference_median": float(np.median(np.concatenate(apart))),
        "loglikelihood_difference_largest": float(np.concatenate(apart).max()),
    }


def letters(lm: cw.CalibratedLM, questions: Sequence[cw.Question]) -> cw.OptionScores:
    """Return the label readout's scores: one request a question."""
    return lm.scores(questions, readout=Label(min_mass=0.0))


def own_cost(requests: int, concurrency: int, rounds: int) -> dict[str, float]:
    """Return milliseconds a request of the adapter and of the bare client, where the server computes nothing."""
    figures: dict[str, float] = {}
    with real.fault_server() as server, openai.OpenAI(base_url=server.base_url, api_key="none") as client:

        def bare(text: str) -> int:
            reply = client.chat.completions.create(
                model=server.model, messages=[{"role": "user", "content": text}], logprobs=True, top_logprobs=20,
                max_tokens=1, temperature=1.0, top_p=1.0,
            )  # fmt: skip
            return len(reply.choices[0].logprobs.content[0].top_logprobs)

        for at_once in (1, concurrency):
            adapter = cw.wrap(client, model=server.model, max_concurrency=at_once).adapter
            with ThreadPoolExecutor(at_once) as pool:
                sides = {
                    "bare": lambda texts, pool=pool: list(pool.map(bare, texts)),
                    "adapter": lambda texts, adapter=adapter: adapter.next_token(
                        [Chat((("user", text),)) for text in texts], top=20
                    ),
                }
                rows = in_turns(sides, requests // rounds, rounds, f"{at_once} at once")
            figures |= compared(rows, at_once)
    return figures


def in_turns(
    sides: dict[str, Callable[[list[str]], Any]], requests: int, rounds: int, mark: str
) -> list[dict[str, tuple[float, float]]]:
    """Return for each round milliseconds a request (clock, processor) of each side; the first round only warms up."""
    rows = []
    for turn in range(rounds + 1):
        order = list(sides) if turn % 2 else list(sides)[::-1]
        row = {}
        for name in order:  # texts differ, so that nothing is answered twice
            seconds, processor, _ = timed(
                sides[name], [f"{mark}, round {turn}, {name}, {n}: yes?" for n in range(requests)]
            )
            row[name] = (1e3 * seconds / requests, 1e3 * processor / requests)
        rows.append(row)
    return rows[1:]


def compared(rows: list[dict[str, tuple[float, float]]], at_once: int) -> dict[str, float]:
    """Return medians of both sides and the spread of their ratio, on the clock and in processor time."""
    found: dict[str, float] = {}
    for index, kind in enumerate(("clock", "processor")):
        for side in ("adapter", "bare"):
            found[f"{side}_{kind}_ms_{at_once}_at_once"] = statistics.median(row[side][index] for row in rows)
        ratios = [row["adapter"][index] / row["bare"][index] for row in rows]
        found |= spread(f"adapter_to_bare_{kind}_{at_once}_at_once", ratios)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400, help="requests a side, one at a time and at once")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    questions = load_questions("arc_easy", limit=arguments.questions, seed=0)
    results = {
        "questions": len(questions),
        "concurrency": arguments.concurrency,
        **own_cost(arguments.requests, arguments.concurrency, arguments.rounds),
        **throughput(questions, arguments.concurrency, arguments.rounds, matched.smollm2().directory),
    }
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
