"""One small model on every runtime: how far apart are option probabilities, accuracy and calibration error?

SmolLM2-135M-Instruct with 32-bit weights, in one directory and in one GGUF file, on Transformers (what the others are
compared with), vLLM, vLLM's server, llama.cpp and llama-server; and the packaged Q4_1 file, where llama.cpp also
rounds activations to 8 bits. Real questions (ARC-Easy), label readout with plain prompts, and continuation readout
where a runtime scores continuations. One temperature, fitted on Transformers on other questions, is used on all.

    python benchmarks/parity_table.py [--questions 200] [--fit 200] [--listed 1000] [--json FILE]
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import calibwrap as cw
from calibwrap.data import load_questions, packaged_model
from calibwrap.errors import CapabilityError
from calibwrap.parity import parity
from calibwrap.readouts import Continuation, Label

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the servers that the tests start
from tests.servers import matched, real

READOUTS = {"label": Label(min_mass=0.0), "continuation": Continuation()}  # SmolLM2 puts little mass on letters: shown
LLAMA = {"n_ctx": 1024, "n_threads": 1, "n_threads_batch": 1}
EXACT = {"type_k": 0, "type_v": 0, "flash_attn": False}
"""A cache of 32-bit numbers."""

Opener = Callable[[], AbstractContextManager[cw.CalibratedLM]]


@contextlib.contextmanager
def served(server: AbstractContextManager[real.Server], listed: int) -> Iterator[cw.CalibratedLM]:
    """Start a server and talk to it as to any OpenAI-compatible one."""
    with server as running, cw.wrap(
        f"openai:{running.model}", base_url=running.base_url, top_logprobs=listed
    ) as lm:  # fmt: skip
        yield lm


def runtimes(model: matched.Matched, listed: int) -> dict[str, Opener]:
    """Return how to open the model on each runtime; nothing is started yet."""
    directory, file, quantised = model.directory, model.gguf, packaged_model("smollm2-135m-instruct")
    vllm = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True}
    return {
        "Transformers": lambda: cw.wrap(f"hf:{directory}"),
        "vLLM": lambda: cw.wrap(f"vllm:{directory}", **vllm),
        "vLLM server": lambda: served(real.vllm_server(directory, "--max-logprobs", str(listed)), listed),
        "llama.cpp": lambda: cw.wrap(f"llama-cpp:{file}", **LLAMA, **EXACT),
        "llama-server": lambda: served(real.llama_server(file, n_ctx=1024), listed),
        "llama.cpp Q4_1": lambda: cw.wrap(f"llama-cpp:{quantised}", **LLAMA),
    }


def read(lm: cw.CalibratedLM, questions: list[cw.Question]) -> dict[str, dict[str, Any]]:
    """Return what each readout gives: scores and seconds, or why there are none."""
    found: dict[str, dict[str, Any]] = {}
    for name, readout in READOUTS.items():
        began = time.perf_counter()
        try:
            scores = lm.scores(questions, readout=readout)
        except CapabilityError as error:
            found[name] = {"refused": str(error)}
        else:
            found[name] = {"scores": scores, "seconds": time.perf_counter() - began}
    return found


def row(
    result: dict[str, Any], reference: cw.OptionScores, answers: list[int | None], calibrator: Any
) -> dict[str, Any]:
    """Return the figures of one runtime and one readout."""
    if "refused" in result:
        return result
    scores = result["scores"]
    raw = parity(reference, scores, answers)
    return {
        "difference_largest": raw.largest,
        "difference_mean": raw.mean,
        "beyond_bounds": raw.beyond_bounds,
        "same_choice": raw.same_choice,
        "accuracy": raw.second.accuracy,
        "confidence": raw.second.mean_confidence,
        "ece": raw.second.ece,
        "ece_calibrated": parity(calibrator(reference), calibrator(scores), answers).second.ece,
        "outside_list": raw.second.missing,
        "label_mass": raw.second.label_mass,
        "seconds": result["seconds"],
    }


def show(name: str, rows: dict[str, dict[str, Any]], calibrator: Any, options: int) -> None:
    """Print one readout's table."""
    print(f"\n{name}: temperature {calibrator.value:.3f} fitted on Transformers; {options} options")
    print(
        f"{'runtime':<16}{'largest':>10}{'mean':>10}{'same':>7}{'accuracy':>10}{'ECE':>7}{'calibr.':>9}"
        f"{'cut off':>9}{'seconds':>9}"
    )
    for runtime, one in rows.items():
        if "refused" in one:
            print(f"{runtime:<16}  {one['refused']}")
            continue
        print(
            f"{runtime:<16}{one['difference_largest']:>10.1e}{one['difference_mean']:>10.1e}{one['same_choice']:>7.3f}"
            f"{one['accuracy']:>10.3f}{one['ece']:>7.3f}{one['ece_calibrated']:>9.3f}{one['outside_list']:>9}"
            f"{one['seconds']:>9.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--fit", type=int, default=200, help="other questions, to fit the temperature on")
    parser.add_argument("--listed", type=int, default=1000, help="entries asked of a server's list")
    parser.add_argument("--only", nargs="*", help="runtimes besides Transformers; all by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.update(real.ENVIRONMENT)
    every = load_questions("arc_easy", limit=arguments.questions + arguments.fit, seed=0)
    questions, others = every[: arguments.questions], every[arguments.questions :]
    answers = [question.answer for question in questions]
    results, calibrators = {}, {}
    for name, opener in runtimes(matched.smollm2(), arguments.listed).items():
        if name != "Transformers" and arguments.only is not None and name not in arguments.only:
            continue
        with opener() as lm:
            results[name] = read(lm, questions)
            if name == "Transformers":
                calibrators = {one: lm.fit(others, readout=readout).calibrator for one, readout in READOUTS.items()}
    tables = {}
    for readout, calibrator in calibrators.items():
        reference = results["Transformers"][readout]["scores"]
        rows = {name: row(found[readout], reference, answers, calibrator) for name, found in results.items()}
        show(readout, rows, calibrator, int(reference.mask.sum()))
        tables[readout] = {"temperature": calibrator.value, "options": int(reference.mask.sum()), "rows": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(tables, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
