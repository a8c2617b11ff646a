"""`calibwrap check` on toys that stand for servers; what is compared, what is kept, and what a run costs."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.base import Prompt
from calibwrap.capabilities import Provides
from calibwrap.cli.abilities import abilities
from calibwrap.errors import BudgetExceeded, ServerError
from calibwrap.parity import parity
from calibwrap.provenance import Provenance
from calibwrap.scores import TokenScores
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

QUESTIONS = toy_questions(40, seed=2, model=ToyModel.random(seed=0))
LABEL = ("--readout", "label")


class PaidToy(ToyAdapter):
    """A toy behind a server: it lists two tokens, bills every prompt, and keeps what was paid for."""

    name: ClassVar[str] = "paid"
    caches: ClassVar[bool] = True

    @classmethod
    def load(cls, target: str, **options: Any) -> "PaidToy":
        """Return the toy of seed `target` with a budget, a cache file and a version of the server."""
        adapter = cls(ToyModel.random(int(target)))
        adapter.provides = Provides(top=options.get("top", 2), tokenize=True, token_bytes=True, context_length=1024)
        adapter.cache = None if options.get("cache") is None else Path(options["cache"])
        adapter.kept = set(json.loads(adapter.cache.read_text())) if adapter.cache and adapter.cache.exists() else set()
        adapter.budget = options.get("max_requests")
        adapter.version = options.get("version", "v1")
        adapter.failure = options.get("failure")
        adapter.spent = {"requests": 0, "cached": 0}
        return adapter

    def next_token(
        self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]] | None = None, top: int | None = None
    ) -> list[TokenScores]:
        """Bill each prompt that is not in the cache, then answer."""
        for prompt in map(str, prompts):
            if prompt in self.kept:
                self.spent["cached"] += 1
                continue
            if self.failure == "down":
                raise ServerError("The server gave no usable answer.")
            if self.budget is not None and self.spent["requests"] >= self.budget:
                raise BudgetExceeded(f"The budget of max_requests={self.budget} is used up.")
            self.spent["requests"] += 1
            self.kept.add(prompt)
            if self.cache is not None:
                self.cache.parent.mkdir(parents=True, exist_ok=True)
                self.cache.write_text(json.dumps(sorted(self.kept)))
        return super().next_token(prompts, ids, top)

    def fingerprint(self) -> Provenance:
        """Return what a server tells: its version, and neither tokenizer nor template."""
        return Provenance(runtime=self.name, model="toy", revision=self.version)

    def probe(self) -> Mapping[str, str]:
        """Return two findings."""
        return {"log-probabilities": "there", "list": "[2] tokens"}

    def usage(self) -> Mapping[str, int]:
        """Return what was billed."""
        return self.spent


@pytest.fixture(autouse=True)
def paid_runtime(toy_runtime: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opening = sys.modules["calibwrap.opening"]
    monkeypatch.setattr("calibwrap.testing.PaidToy", PaidToy, raising=False)
    monkeypatch.setattr(opening, "_BUILT_IN", {**opening._BUILT_IN, "paid": ("calibwrap.testing", "PaidToy")})
    monkeypatch.setenv("COLUMNS", "160")
    cw.save_questions(QUESTIONS, tmp_path / "qs.jsonl")


def test_a_server_is_described_in_words(run: Any) -> None:
    code, out, err = run("check", "paid:0")
    assert code == 0, err
    assert "the 2 most probable tokens" in out
    assert "not told" in out
    assert "[2] tokens" in out  # shown as it is, not read as markup
    assert "no: it needs exact probabilities of whole answers, which the model on this runtime does not give" in out
    assert "score=True" not in out
    assert "reasoned" not in out  # what is read at once cannot be read after reasoning
    assert "Spent: 1 request" in err  # of five readouts, only the one that works was asked


def test_the_same_for_machines(run: Any) -> None:
    found = json.loads(run("check", "paid:0", "--json")[1])
    assert found["probe"] == {"log-probabilities": "there", "list": "[2] tokens"}
    assert found["usage"]["requests"] == 1
    letter = found["readouts"]["label:letter"]
    assert letter["works"]
    assert letter["bounds"][0] <= letter["confidence"] <= letter["bounds"][1]
    assert letter["missing"] >= 1
    assert found["readouts"]["decision"]["works"] is False


@pytest.mark.parametrize(
    ("provides", "name", "told"),
    [
        (Provides(full_vocabulary=True), "next token", "the whole vocabulary"),
        (Provides(top=None), "next token", "as many"),
        (Provides(top=0), "next token", "nothing"),
        (Provides(given_ids=128), "named tokens", "up to 128"),
        (Provides(given_ids=None), "named tokens", "any number"),
        (Provides(given_ids=None, tokenize=True), "labels", "by token id"),
        (Provides(top=20, token_bytes=True), "labels", "in the list by their bytes"),
        (Provides(top=20), "labels", "no"),
        (Provides(score=True), "whole answers", "exact"),
        (Provides(chat=True), "prompts", "plain text and chat"),
        (Provides(plain=False, chat=True), "prompts", "chat only"),
        (Provides(context_length=32768), "context", "32,768 tokens"),
        (Provides(), "context", "not told"),
        (Provides(decides=True), "decisions", "straight from the server"),
        (Provides(steers=True), "inside decoding", "yes"),
        (Provides(streams=True), "streaming", "yes"),
    ],
)
def test_each_capability_has_words(provides: Provides, name: str, told: str) -> None:
    assert told in abilities(provides)[name]


def test_processed_log_probabilities_are_called_that() -> None:
    assert "cannot be calibrated" in abilities(Provides(), "processed")["log-probabilities"]


def test_against_tells_what_parity_tells(run: Any) -> None:
    words = ("check", "toy:0", "--against", "toy:1", "--data", "qs.jsonl", *LABEL)
    code, out, err = run(*words, "--json")
    found = json.loads(out)
    assert code == 0, err
    one, two = (cw.wrap(ToyAdapter(ToyModel.random(seed))).scores(QUESTIONS, "label") for seed in (0, 1))
    expected = parity(one, two, [question.answer for question in QUESTIONS])
    assert found["raw"]["largest"] == expected.largest
    assert found["raw"]["first"]["ece"] == expected.first.ece
    assert found["raw"]["second"]["accuracy"] == expected.second.accuracy
    assert found["furthest"]["id"] == QUESTIONS[expected.furthest].id
    assert found["verdict"]["move"] == "different"
    assert found["calibrated"] is None
    code, out, err = run(*words)
    assert code == 0
    assert f"{expected.largest:.2g}" in out
    assert "different model" in err


def test_the_same_calibrator_is_put_on_both(run: Any) -> None:
    run("fit", "toy:0", "--data", "qs.jsonl", "--out", "cal.json", *LABEL)
    words = ("check", "toy:0", "--against", "paid:0", "--data", "qs.jsonl", "--calibrator", "cal.json")
    code, out, err = run(*words, "--against-set", "top=6", "--json")
    found = json.loads(out)
    assert code == 0, err
    assert found["readout"] == "label:letter"  # that of the calibrator
    assert found["calibrator"]["model"] == "same model"
    assert "check with --against" in found["calibrator"]["against"]
    assert found["verdict"]["move"] == "check"
    assert found["usage"] == {"model": {}, "against": {"requests": 6, "cached": 34}}
    saved = cw.load("cal.json")
    one = cw.wrap(ToyAdapter(ToyModel.random(0))).scores(QUESTIONS, "label")
    alone = parity(saved(one), saved(one), [question.answer for question in QUESTIONS])
    assert found["calibrated"]["first"]["ece"] == alone.first.ece
    code, out, _ = run(*words)
    assert "ECE, temperature" in out


def test_a_decision_file_is_put_on_both_too(run: Any, tmp_path: Path) -> None:
    cw.save_decision(cw.Temperature(2.0), tmp_path / "decision.json")
    words = ("check", "toy:0", "--against", "toy:1", "--data", "qs.jsonl", *LABEL, "--calibrator", "decision.json")
    code, out, err = run(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["calibrator"]["kind"] == "temperature"
    assert found["calibrated"]["largest"] < found["raw"]["largest"]  # both flatter


def test_what_a_list_cuts_off_is_counted_and_lies_in_the_bounds(run: Any) -> None:
    found = json.loads(run("check", "toy:0", "--against", "paid:0", "--data", "qs.jsonl", *LABEL, "--json")[1])
    assert found["raw"]["first"]["missing"] == 0
    assert found["raw"]["second"]["missing"] > 0
    assert found["raw"]["largest"] > 0.01
    assert found["raw"]["beyond_bounds"] < 1e-9  # the same model: truncation explains all of the difference


def test_without_a_readout_one_that_both_can_give_is_chosen(run: Any) -> None:
    found = json.loads(run("check", "toy:0", "--against", "paid:0", "--data", "qs.jsonl", "--json")[1])
    assert found["readout"] == "label:letter"  # the toy's own would be continuations, which the server cannot score


def test_two_of_one_name_are_told_apart_and_the_verdict_does_not_ask_for_what_was_done(run: Any) -> None:
    words = ("check", "paid:0", "--against", "paid:0", "--against-set", "top=6", "--data", "qs.jsonl", *LABEL)
    code, out, err = run(*words)
    assert code == 0, err
    assert "first, paid:toy" in out
    assert "second, paid:toy" in out
    assert "Spent by first, paid:toy: " in err
    assert "Spent by second, paid:toy: " in err
    code, out, err = run("check", "toy:0", *words[2:])
    assert "the figures above say how far they differ" in err
    assert "check with --against" not in err


def test_a_difference_above_the_tolerance_is_exit_code_1(run: Any) -> None:
    words = ("check", "toy:0", "--against", "toy:1", "--data", "qs.jsonl", *LABEL)
    code, _, err = run(*words, "--tolerance", "0.001")
    assert code == 1
    assert "above the tolerance of 0.001" in err
    assert run(*words, "--tolerance", "1")[0] == 0
    code, out, _ = run(*words, "--tolerance", "0.001", "--json")
    assert (code, json.loads(out)["within_tolerance"]) == (1, False)


@pytest.mark.parametrize(
    "words",
    [
        ("--against", "toy:1"),
        ("--data", "qs.jsonl"),
        ("--tolerance", "0.1"),
        ("--readout", "label"),
        ("--against-set", "top=3"),
    ],
)
def test_halves_of_a_comparison_are_wrong_usage(run: Any, words: tuple[str, ...]) -> None:
    assert run("check", "toy:0", *words)[0] == 2


EVALUATE = ("evaluate", "paid:0", "--data", "qs.jsonl", "--out", "run", *LABEL)


def test_paid_answers_are_kept_beside_the_run_and_told(run: Any) -> None:
    code, _, err = run(*EVALUATE)
    assert code == 0, err
    assert "Spent: 6 requests, 34 cached answers" in err
    assert Path("run/responses.sqlite").exists()
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["usage"] == {"requests": 6, "cached": 34}
    page = Path("run/report.html").read_text()
    assert "6 requests, 34 cached answers" in page
    Path("run/report.html").unlink()
    assert run("report", "run")[0] == 0
    assert "6 requests, 34 cached answers" in Path("run/report.html").read_text()


def test_a_local_model_has_no_cache_and_spends_nothing(run: Any) -> None:
    code, out, err = run("evaluate", "toy:0", *EVALUATE[2:], "--json")
    assert code == 0, err
    assert json.loads(out)["usage"] == {}
    assert not Path("run/responses.sqlite").exists()


def test_a_cache_of_ones_own_and_none_at_all(run: Any) -> None:
    assert run(*EVALUATE, "--set", "cache=mine.sqlite")[0] == 0
    assert Path("mine.sqlite").exists()
    assert run("evaluate", "paid:0", "--data", "qs.jsonl", "--out", "two", *LABEL, "--set", "cache=null")[0] == 0
    assert not [*Path("run").glob("*.sqlite"), *Path("two").glob("*.sqlite")]


def test_fit_keeps_paid_answers_beside_its_file(run: Any) -> None:
    words = ("fit", "paid:0", "--data", "qs.jsonl", "--out", "cal.json", *LABEL, "--json", "--set", "top=6")
    code, out, err = run(*words)
    assert code == 0, err
    assert json.loads(out)["usage"] == {"requests": 6, "cached": 34}
    assert Path("cal.json.responses.sqlite").exists()


def test_a_budget_ends_a_run_that_can_be_resumed(run: Any) -> None:
    code, _, err = run(*EVALUATE, "--set", "max_requests=4")
    assert code == 1
    [sentence] = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert "max_requests=4" in sentence
    assert "--resume" in sentence
    code, out, err = run(*EVALUATE, "--resume", "--json")
    assert code == 0, err
    assert json.loads(out)["usage"]["requests"] == 2  # of six different prompts, four were paid for before
    whole = json.loads(run("evaluate", "paid:0", "--data", "qs.jsonl", "--out", "whole", *LABEL, "--json")[1])
    assert json.loads(out)["series"] == whole["series"]


def test_a_report_made_again_says_what_was_cut_off_too(run: Any) -> None:
    run(*EVALUATE, "--fit", "temperature")
    first = Path("run/report.html").read_text()
    assert run("report", "run")[0] == 0
    again = Path("run/report.html").read_text()
    for page in (first, again):
        assert page.count("list did not show everything") == 1
    cut = first[first.index("list did not show everything") - 60 :][:300]
    assert cut in again
    lines = [json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()]
    assert {name for line in lines for name in line["truncated"]} == {"raw", "temperature"}
    bounds = [of for line in lines for of in line["truncated"].values()]
    assert all(low <= high for of in bounds for low, high in zip(of["lower"], of["upper"], strict=True))


def test_a_server_that_is_down_says_how_to_go_on(run: Any) -> None:
    code, _, err = run(*EVALUATE, "--set", "failure=down")
    assert code == 1
    assert "no usable answer. Every finished question is in the journal" in err


def test_a_server_that_changed_between_run_and_resume_is_explained(run: Any) -> None:
    run(*EVALUATE)
    code, _, err = run(*EVALUATE, "--resume", "--set", "version=v2")
    assert code == 1
    assert "model.revision is 'v1' in the journal and 'v2' now" in err
    assert "a server that changed its model or software since" in err


def test_usage_of_one_adapter_is_counted_once() -> None:
    adapter = PaidToy.load("0", top=6)
    lm = cw.CalibratedLM(adapter, readout=cw.Label())
    from calibwrap.evaluate import evaluate

    assert evaluate(lm, QUESTIONS, fit=["daca"], reference=lm).usage == {"requests": 6, "cached": 74}


def test_beyond_bounds_does_not_hide_another_model() -> None:
    one, two = (cw.CalibratedLM(PaidToy.load(str(seed)), readout=cw.Label()).scores(QUESTIONS) for seed in (0, 1))
    found = parity(one, two)
    assert 0.0 < found.beyond_bounds < found.largest
    assert np.isclose(parity(one, replace(one)).beyond_bounds, 0.0)


@pytest.mark.filterwarnings("ignore:The labels together carry only")
def test_options_out_of_a_list_that_was_cut_off_are_shown_with_what_is_certain(run: Any) -> None:
    question = QUESTIONS[0]
    words = ("ask", "paid:0", question.prompt, *(w for o in question.options for w in ("-o", o)), *LABEL)
    found = json.loads(run(*words, "--json")[1])
    scores = cw.wrap(PaidToy.load("0")).scores([question], "label")
    expected = zip(question.options, scores.lower[0].tolist(), scores.upper[0].tolist(), strict=True)
    assert found["option_bounds"] == {option: [low, high] for option, low, high in expected}
    assert found["first_choice_certain"] is bool(scores.argmax_certified[0])
    code, out, err = run(*words)
    assert code == 0, err
    for low, high in found["option_bounds"].values():
        assert f"{low:.1%} to {high:.1%}" in out
    assert "an estimate of the model's own probability" in out
    assert "was cut off" in out
    assert ("is not certain" in out) is not found["first_choice_certain"]


@pytest.mark.filterwarnings("ignore:The labels together carry only")
def test_exact_options_are_shown_without_bounds(run: Any) -> None:
    words = ("ask", "toy:0", QUESTIONS[0].prompt, *(w for o in QUESTIONS[0].options for w in ("-o", o)), *LABEL)
    assert " to " not in run(*words)[1]
    found = json.loads(run(*words, "--json")[1])
    assert all(low == high for low, high in found["option_bounds"].values())
    assert found["first_choice_certain"] is True
