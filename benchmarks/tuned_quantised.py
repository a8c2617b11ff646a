"""What quantisation does to tuned weights: ECE and accuracy in 32 bits and as quantised GGUF files, by llama.cpp.

The LoRA adapters are those that catto_table.py trained. Each is merged and exported by `calibwrap.training.export_gguf`
in float32, and quantised from there by llama.cpp's own quantiser. Option texts are read as continuations (the same
held-out rows of the train split and the same validation questions of CommonsenseQA as catto_table.py's), each file
raw and at two temperatures: its own, refitted on the held-out rows, and the float32 file's, carried over. The key-value
cache is in float32 for all of them, so that only the weights differ.

The trained model began as the packaged Q4_1 file, dequantised: what it was before training lies on the grid of Q4_1,
and rounding to that grid again can round the training away. So each file's first choices are compared with those of
the tuned float32 file and with those from before training. A model that began in full precision may lose less.

Every score is journalled: a run that was ended goes on where it stopped. Intervals are 95 % bootstrap intervals over
questions, with all seeds of a question together; differences are paired. About 0.8 GB of files a model stay in --out.

    OMP_NUM_THREADS=1 python benchmarks/tuned_quantised.py --work FOLDER [--out FOLDER] [--json FILE]
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _tuned import RUNTIME, Pair, Tuned, cell, difference, figures, float32_gguf, parsed, say, tuned_models
from catto_table import N_BINS, questions_of

import calibwrap as cw
from calibwrap.evaluate import collect
from calibwrap.files import replacing
from calibwrap.questions import Question
from calibwrap.readouts import find_readout

TEST = "commonsense_qa"
STATES = ("raw", "refitted", "carried over")
Scores = dict[str, cw.OptionScores]
"""Raw scores by set: "choice" to fit on, and the one to test on."""


def quantised(source: Path, form: str) -> Path:
    """Return the file quantised by llama.cpp, written once; "f32" is the file itself."""
    if form == "f32":
        return source
    import llama_cpp

    target = source.with_name(source.name.replace("-f32", f"-{form}"))
    if not target.exists():
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{form.upper()}")
        settings.nthread = 1
        with replacing(target) as part:
            code = llama_cpp.llama_model_quantize(str(source).encode(), str(part).encode(), settings)
            if code:
                raise RuntimeError(f"llama.cpp could not quantise {source} to {form}: code {code}.")
    return target


def progress(title: str, done: int, total: int) -> None:
    """Say how far the reading has come."""
    if done % 100 == 0 or done == total:
        say(f"{title}: {done} of {total} questions read")


def read(model: Tuned, form: str, sets: dict[str, list[Question]], chosen: argparse.Namespace) -> Scores:
    """Return the raw scores of one file on every set; what the journals hold is not read again."""
    file = quantised(float32_gguf(model, chosen.out), form)
    scores: Scores = {}
    threads = {"n_threads": chosen.threads, "n_threads_batch": chosen.threads}
    with cw.wrap(f"llama-cpp:{file}", **RUNTIME, **threads) as lm:
        for name, asked in sets.items():
            journal = chosen.out / "scores" / f"{model.name} {form} {name}.jsonl"
            shown = partial(progress, f"{model.name} {form} {name}")
            readout = find_readout("continuation")
            scores[name] = collect(lm, asked, journal, readout=readout, resume=True, progress=shown)
    return scores


def from_transformers(model: Tuned, scores: Scores, name: str) -> float:
    """Return the largest difference of an option's probability from what Transformers gave the same weights."""
    with np.load(model.folder / "scores.npz") as stored:
        theirs = np.exp(stored[f"{name} summed"])
    return float(np.abs(scores[name].probabilities - theirs[: len(scores[name])]).max())


def same_choices(models: list[Tuned], of: list[Scores], tuned: list[Scores]) -> dict[str, float | None]:
    """Return how often one form chooses as the tuned float32 file does, and as the model did before training."""
    folders = [model.folder.parent / f"start-{model.seed}" for model in models]
    found: dict[str, float | None] = {"before_training": None}
    chosen = np.stack([one[TEST].choice for one in of])
    found["tuned"] = float((chosen == np.stack([one[TEST].choice for one in tuned])).mean())
    if all((folder / "run.json").exists() for folder in folders):
        before = np.stack([np.load(folder / "scores.npz")[f"{TEST} summed"].argmax(axis=1) for folder in folders])
        found["before_training"] = float((chosen == before[:, : chosen.shape[1]]).mean())
    return found


def points(models: list[Scores], temperatures: list[float], answers: np.ndarray) -> Pair:
    """Return confidence and correctness (N, S) of the test set, each seed at its temperature."""
    mapped = [cw.Temperature(value)(of[TEST]) for of, value in zip(models, temperatures, strict=True)]
    confidence = np.stack([of.confidence for of in mapped], axis=1)
    return confidence, np.stack([of.choice == answers for of in mapped], axis=1)


def measure_variant(
    forms: dict[str, list[Scores]], sets: dict[str, list[Question]], resamples: int
) -> dict[str, dict[str, Any]]:
    """Return by form the temperatures, the figures in every state, and the differences to float32 and to refitting."""
    answers = {name: np.array([question.answer for question in asked]) for name, asked in sets.items()}
    own = {
        form: [float(cw.fit_temperature(of["choice"], answers["choice"]).value) for of in models]
        for form, models in forms.items()
    }
    pairs: dict[tuple[str, str], Pair] = {}
    for form, models in forms.items():
        for state, values in zip(STATES, ([1.0] * len(models), own[form], own["f32"]), strict=True):
            pairs[form, state] = points(models, values, answers[TEST])
    found: dict[str, dict[str, Any]] = {}
    for form in forms:
        found[form] = {"temperatures": own[form]}
        for state in STATES:
            more = {"less_float32": difference(pairs[form, state], pairs["f32", state], resamples)}
            found[form][state] = {**figures(pairs[form, state], resamples), **more}
        compared = difference(pairs[form, "carried over"], pairs[form, "refitted"], resamples)
        found[form]["carried_over_less_refitted"] = compared["ece"]
    return found


def show(variant: str, seeds: int, questions: int, rows: dict[str, dict[str, Any]]) -> None:
    """Print one table."""
    print(f"\n{variant}: {seeds} trained seed(s), {questions} questions; ECE with {N_BINS} bins, 95 % intervals")
    heads = ("accuracy", "ECE", "accuracy less f32's", "ECE less f32's")
    print(f"{'form':<8}{'state':<14}" + "".join(f"{head:>28}" for head in heads) + "  T")
    for form, row in rows.items():
        warm = ", ".join(f"{value:.2f}" for value in row["temperatures"])
        for state in STATES if form != "f32" else STATES[:2]:
            of, less = row[state], row[state]["less_float32"]
            cells = [cell(of["accuracy"]), cell(of["ece"]), cell(less["accuracy"], True), cell(less["ece"], True)]
            print(f"{form:<8}{state:<14}" + "".join(f"{text:>28}" for text in cells) + f"  {warm}")
        if form != "f32":
            print(f"{'':<8}carried over less refitted, ECE: {cell(row['carried_over_less_refitted'], True)}")


def main() -> None:
    parser = parsed(__doc__, "tuned-quantised")
    parser.add_argument("--forms", nargs="+", default=["q8_0", "q4_1", "q4_0"], help="llama.cpp's names, beside f32")
    parser.add_argument("--choice", type=int, default=300, help="held-out rows to fit on, as catto_table.py was told")
    parser.add_argument("--tests", type=int, default=300, help="questions to test on")
    chosen = parser.parse_args()
    sets = {name: of for name, of in questions_of(chosen, chosen.regime).items() if name in ("choice", TEST)}
    results: dict[str, Any] = {}
    for variant, models in tuned_models(chosen).items():
        forms = {form: [read(model, form, sets, chosen) for model in models] for form in ["f32", *chosen.forms]}
        rows = measure_variant(forms, sets, chosen.resamples)
        apart = [from_transformers(model, of, TEST) for model, of in zip(models, forms["f32"], strict=True)]
        sizes = {form: quantised(float32_gguf(models[0], chosen.out), form).stat().st_size for form in forms}
        seeds = [model.seed for model in models]
        results[variant] = {
            "seeds": seeds,
            "questions": len(sets[TEST]),
            "fitted_on": len(sets["choice"]),
            "largest_difference_from_transformers": apart,
            "bytes": sizes,
            "forms": rows,
        }
        show(variant, len(seeds), len(sets[TEST]), rows)
        for form, of in forms.items():
            rows[form]["same_choice_as"] = same_choices(models, of, forms["f32"])
            print(f"{form}: the same choice as {rows[form]['same_choice_as']}")
        print(f"largest difference of an option's probability, f32 less Transformers: {max(apart):.1e}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
