"""CATTO heads beside labelled temperature and DACA: held-out ECE of tokens and of answers, on each runtime.

Rows of SmolLM2-135M-Instruct are recorded once a runtime: every token of every option's text of ARC-Easy. Heads and
temperatures are fitted on questions of the train split; which epoch of a head is kept is decided on other questions of
it; figures are of the validation split. A seed draws which questions fit and which decide, and a head's first layer.
Intervals resample test questions, all tokens of one together; differences are paired.

The API case cuts the recorded rows to the 20 most probable tokens. A head's temperature is then the same; what the
unlisted tokens have together is an interval, so that a confidence is one too.

Recording can be ended at any time and goes on where it stopped.

    OMP_NUM_THREADS=1 python benchmarks/catto_head.py [--work FOLDER] [--seeds 3] [--json FILE]
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

import calibwrap as cw
from calibwrap.calibrators._catto_features import score_features
from calibwrap.calibrators._token_tail import log_partition_bounds
from calibwrap.data import load_questions, packaged_model
from calibwrap.files import replacing
from calibwrap.metrics import ece
from calibwrap.questions import Question
from calibwrap.scores import OptionScores, TokenScores
from calibwrap.training.head import Positions, head_powers, record_positions, train_catto_head
from calibwrap.training.head_loss import tempered
from calibwrap.training.head_positions import positions_of_options

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the float32 form of the packaged model
N_BINS = 15
LOSSES = list(itertools.product(("hard", "surrogate"), ("l1", "l2", "bce")))
REFERENCE = "gemma-3-270m"


@dataclass(frozen=True)
class Data:
    """What is recorded on one runtime."""

    train: Positions
    test: Positions
    vocabulary: int


@dataclass(frozen=True)
class Said:
    """Confidence and correctness of N events, a column a seed, and the question that each belongs to."""

    confidence: np.ndarray
    correct: np.ndarray
    question: np.ndarray


def opened(runtime: str) -> cw.CalibratedLM:
    """Return the model on a runtime."""
    if runtime == "hf":
        from tests.servers import matched

        return cw.wrap(f"hf:{matched.smollm2().directory}", hidden=True)
    return cw.wrap(f"llama-cpp:{packaged_model('smollm2-135m-instruct')}", n_threads=1, n_threads_batch=1)


def tell(what: str, done: int, total: int) -> None:
    """Print how far a recording is, now and then."""
    if done % 50 == 0 or done == total:
        print(f"{what} {done}/{total}", file=sys.stderr, flush=True)


def recorded(chosen: argparse.Namespace, runtime: str, questions: dict[str, list[Question]]) -> Data:
    """Return all rows of a runtime; what the folder holds is not read anew."""
    with opened(runtime) as lm:
        found = {
            side: record_positions(
                lm, asked, wrong="all", hidden=runtime == "hf", folder=chosen.work / runtime / side,
                progress=lambda done, total, side=side: tell(f"{runtime} {side}", done, total),
            )
            for side, asked in questions.items()
        }  # fmt: skip
    return Data(found["train"], found["test"], found["train"].listed)


def reference_scores(chosen: argparse.Namespace, questions: Sequence[Question], size: int = 50) -> OptionScores:
    """Return the reference's scores per token, as DACA reads them; pieces are kept."""
    folder = chosen.work / REFERENCE
    folder.mkdir(parents=True, exist_ok=True)
    lm, rows = None, []
    for start in range(0, len(questions), size):
        path = folder / f"{len(questions)}-{start}.npz"
        if not path.exists():
            lm = lm or cw.wrap(f"llama-cpp:{packaged_model(REFERENCE)}", n_threads=1, n_threads_batch=1)
            scores = lm.scores(questions[start : start + size], readout="continuation:token")
            with replacing(path) as part, part.open("wb") as file:
                np.savez(file, logprobs=scores.logprobs)
        rows += [list(row[np.isfinite(row)]) for row in np.load(path)["logprobs"]]
    return OptionScores.from_rows(rows, "continuation:token:cloze")


def options_of(rows: Positions, powers: np.ndarray, log_partition: np.ndarray | None = None) -> OptionScores:
    """Return the options' scores: each option's summed log-probabilities, every position at its own temperature."""
    partition = tempered(rows, powers).log_partition if log_partition is None else log_partition
    own = powers * rows.chosen_logprob - partition
    numbers, at = np.unique(rows.question, return_inverse=True)
    sums = np.zeros((len(numbers), int(rows.option.max()) + 1))
    exists = np.zeros(sums.shape, dtype=bool)
    np.add.at(sums, (at, rows.option), own)
    exists[at, rows.option] = True
    return OptionScores(np.where(exists, sums, -np.inf), "continuation:sum:cloze")


def answers_in(rows: Positions) -> np.ndarray:
    """Return the right option of each question."""
    right = rows.take(rows.is_right)
    _, first = np.unique(right.question, return_index=True)
    return right.option[first]


def token_temperature(rows: Positions) -> float:
    """Return the temperature of greatest likelihood of the right answers' tokens."""

    def nll(log_temperature: float) -> float:
        powers = np.full(len(rows), np.exp(-log_temperature))
        return float((tempered(rows, powers).log_partition - powers * rows.chosen_logprob).mean())

    return float(np.exp(minimize_scalar(nll, bounds=(-3.0, 3.0), method="bounded").x))


Powers = Callable[[Positions], np.ndarray]


def token_methods(fit: Positions, choice: Positions, seed: int) -> dict[str, Powers]:
    """Return for each method the power of every row."""
    right = fit.take(fit.is_right)
    pair = fit.take(fit.is_right | (fit.option == (seed + fit.question) % 4))
    warm = token_temperature(right)
    methods: dict[str, Powers] = {
        "as it is": lambda rows: np.ones(len(rows)),
        "labelled temperature": lambda rows: np.full(len(rows), 1.0 / warm),
    }
    for target, loss in LOSSES:
        head = train_catto_head(right, choice, target=target, loss=loss, seed=seed)
        methods[f"head, {target}, {loss}"] = lambda rows, head=head: head_powers(head, rows)
    steep = train_catto_head(right, choice, target="surrogate", loss="l1", margin_scale=8.0, seed=seed)
    methods["head, surrogate of slope 8, l1"] = lambda rows: head_powers(steep, rows)
    both = train_catto_head(pair, choice, target="hard", loss="bce", seed=seed)
    methods["head, hard, bce, wrong answers too"] = lambda rows: head_powers(both, rows)
    if fit.hidden is not None:
        states = train_catto_head(right, choice, features="hidden", ridge=0.1, seed=seed)
        methods["head on hidden states, hard, bce"] = lambda rows: head_powers(states, rows)
    return methods


def logistic(fit: Positions, test: Positions) -> np.ndarray:
    """Return confidences of test rows from a logistic regression on a head's features: what any bias could reach."""
    inputs, others = (score_features(rows.logprobs, 20) for rows in (fit, test))
    center, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
    model = LogisticRegression().fit((inputs - center) / scale, fit.is_top)
    return model.predict_proba((others - center) / scale)[:, 1]


def seeded(chosen: argparse.Namespace, data: Data, reference: OptionScores, seed: int) -> dict[str, dict[str, Any]]:
    """Return confidence and correctness of every method for one seed: of tokens, of answers, and of a top-20 list."""
    numbers = np.random.default_rng(seed).permutation(int(data.train.question.max()) + 1)
    inside = np.isin(data.train.question, numbers[: chosen.fit])
    fit, choice, test = data.train.take(inside), data.train.take(~inside), data.test
    right, shown = test.take(test.is_right), answers_in(test)
    found: dict[str, dict[str, Any]] = {"token": {}, "answer": {}, "top-20 token": {}, "top-20 answer": {}}
    for name, powers in token_methods(fit, choice, seed).items():
        confidence = np.minimum(tempered(right, powers(right)).confidence, 1.0)
        found["token"][name] = (confidence, right.is_top)
        found["answer"][f"tokens: {name}"] = of_answers(options_of(test, powers(test)), shown)
    found["token"]["logistic regression on the features"] = (logistic(fit.take(fit.is_right), right), right.is_top)
    sides = [positions_of_options(options_of(r, np.ones(len(r))), answers_in(r)) for r in (fit, choice)]
    raw_fit, raw = (options_of(rows, np.ones(len(rows))) for rows in (fit, test))
    warm = cw.fit_temperature(raw_fit, answers_in(fit))
    daca = cw.fit_daca(raw_fit, reference.take(np.unique(fit.question)))
    found["answer"]["options: labelled temperature"] = of_answers(warm(raw), shown)
    found["answer"]["options: DACA"] = of_answers(daca(raw), shown)
    for target, loss in LOSSES:
        head = train_catto_head(*sides, target=target, loss=loss, seed=seed)
        found["answer"][f"options: head, {target}, {loss}"] = of_answers(head(raw), shown)
    cut_off(data, fit, choice, seed, found)
    return found


def cut_off(data: Data, fit: Positions, choice: Positions, seed: int, found: dict[str, dict[str, Any]]) -> None:
    """Add what a list of the 20 most probable tokens leaves known: both ends of the confidence, and its middle."""
    test, shown = data.test, answers_in(data.test)
    lists = TokenScores(test.logprobs[:, :20], ids=np.tile(np.arange(20), (len(test), 1)), log_cut=test.logprobs[:, 19])
    warm = token_temperature(fit.take(fit.is_right))
    head = train_catto_head(fit.take(fit.is_right), choice, seed=seed)
    each = {"labelled temperature": np.full(len(test), 1.0 / warm), "head, hard, bce": 1.0 / head.temperatures(lists)}
    for name, powers in each.items():
        for size, title in ((data.vocabulary, "vocabulary known"), (None, "vocabulary not known")):
            low, high = log_partition_bounds(lists, powers, size)
            first = powers * lists.logprobs[:, 0]
            ends = [np.minimum(np.exp(first - end), 1.0)[test.is_right] for end in (high, low)]
            values = {"least": ends[0], "middle": (ends[0] + ends[1]) / 2.0, "most": ends[1]}
            for end, confidence in values.items():
                found["top-20 token"][f"{name}, {title}, {end}"] = (confidence, test.is_top[test.is_right])
            if size is not None:
                scores = options_of(test, powers, (low + high) / 2.0)
                found["top-20 answer"][f"tokens: {name}, {title}, middle"] = of_answers(scores, shown)


def of_answers(scores: OptionScores, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness of N answers."""
    return scores.confidence, scores.choice == answers


def draws(said: Said, counts: np.ndarray) -> np.ndarray:
    """Return (D,) the ECE, mean over seeds, of D samples of questions; `counts` (D, Q) says how often each is in."""
    bins = np.minimum((said.confidence * N_BINS).astype(int), N_BINS - 1)
    numbers, at = np.unique(said.question, return_inverse=True)
    found = np.zeros(len(counts))
    for seed in range(said.confidence.shape[1]):
        gaps, rows = np.zeros((2, len(numbers), N_BINS))
        np.add.at(gaps, (at, bins[:, seed]), said.confidence[:, seed] - said.correct[:, seed])
        np.add.at(rows, (at, bins[:, seed]), 1.0)
        found += np.abs(counts @ gaps).sum(axis=1) / (counts @ rows).sum(axis=1)
    return found / said.confidence.shape[1]


def table(title: str, methods: dict[str, Said], base: str, resamples: int) -> dict[str, Any]:
    """Print and return ECE with intervals, differences from a base method, and Brier scores."""
    size = len(np.unique(next(iter(methods.values())).question))
    counts = np.random.default_rng(0).multinomial(size, np.full(size, 1.0 / size), resamples)
    print(f"\n{title}: {size} questions, {len(next(iter(methods.values())).question)} events; less than '{base}' by")
    print(f"{'':<52}{'ECE':>22}{'less by':>26}{'Brier':>9}{'accuracy':>10}")
    results = {}
    for name, said in methods.items():
        columns = range(said.confidence.shape[1])
        value = float(np.mean([ece(said.confidence[:, s], said.correct[:, s], n_bins=N_BINS) for s in columns]))
        own, other = draws(said, counts), draws(methods[base], counts)
        whole = np.ones((1, size))
        gain = float(draws(methods[base], whole)[0] - draws(said, whole)[0])
        (low, high), (least, most) = (np.quantile(values, (0.025, 0.975)) for values in (own, other - own))
        brier, right = float(((said.confidence - said.correct) ** 2).mean()), float(said.correct.mean())
        print(
            f"{name:<52}{value:>8.3f} {low:>6.3f}–{high:<6.3f}{gain:>+10.3f} {least:>+7.3f}–{most:<+7.3f}"
            f"{brier:>9.4f}{right:>10.3f}"
        )
        results[name] = {"ece": value, "interval": [low, high], "less_than_base": gain, "less": [least, most]}
        results[name] |= {"brier": brier, "accuracy": right}
    return results


def measured(chosen: argparse.Namespace, runtime: str, data: Data, reference: OptionScores) -> dict[str, Any]:
    """Return all tables of one runtime."""
    each = [seeded(chosen, data, reference, seed) for seed in range(chosen.seeds)]
    right = data.test.question[data.test.is_right]
    questions = np.unique(data.test.question)
    results = {}
    bases = {
        "token": "labelled temperature",
        "answer": "options: labelled temperature",
        "top-20 token": "labelled temperature, vocabulary known, middle",
    }
    for event in each[0]:
        said = {
            name: Said(*(np.stack([one[event][name][k] for one in each], axis=1) for k in (0, 1)),
                       right if "token" in event else questions)
            for name in each[0][event]
        }  # fmt: skip
        base = bases.get(event, next(iter(said)))
        results[event] = table(f"{runtime}, {event}", said, base, chosen.resamples)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("catto-head"), help="folder of recordings; it goes on there")
    parser.add_argument("--runtimes", nargs="+", default=["hf", "llama-cpp"], choices=["hf", "llama-cpp"])
    parser.add_argument("--fit", type=int, default=200, help="questions to fit on")
    parser.add_argument("--choice", type=int, default=100, help="questions that decide when a head's training stops")
    parser.add_argument("--tests", type=int, default=250, help="test questions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    questions = {
        "train": load_questions("arc_easy", split="train", limit=chosen.fit + chosen.choice, seed=0),
        "test": load_questions("arc_easy", split="validation", limit=chosen.tests, seed=0),
    }
    reference = reference_scores(chosen, questions["train"])
    results = {}
    for runtime in chosen.runtimes:
        data = recorded(chosen, runtime, questions)
        results[runtime] = measured(chosen, runtime, data, reference)
    if chosen.json:
        with replacing(chosen.json) as part:
            part.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
