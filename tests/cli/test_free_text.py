"""Free text on the command line: evaluate, fit and ask, on the exact toy model and on a small real one."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.cli.free_text import FREE_DECODERS, Freely
from calibwrap.data import packaged_model
from calibwrap.decoders import PTrue, SemanticEntropy, Stated
from calibwrap.errors import InputError
from calibwrap.questions import SHORT, SHORT_CHAT
from calibwrap.summary import FIGURES

pytestmark = pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")  # a few rows make no good fit

ENDS = ("A", "B", "C", "sun")
SHORTLY = ("--max-tokens", "1")


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    """Write one file of each kind of question."""
    free = [
        {"id": f"q{n}", "prompt": f"What comes after {ENDS[n % 4]}", "answers": [ENDS[n % 3], "nothing"]}
        for n in range(40)
    ]
    (tmp_path / "free.jsonl").write_text("\n".join(map(json.dumps, free)))
    options = [{"id": f"q{n}", "prompt": "Red?", "options": ["Mars", "Venus"], "answer": n % 2} for n in range(4)]
    (tmp_path / "options.jsonl").write_text("\n".join(map(json.dumps, options)))


def evaluate(run: Any, *more: str, data: str = "free.jsonl") -> tuple[int, str, str]:
    found: tuple[int, str, str] = run("evaluate", "toy:0", "--data", data, "--out", "e", *more)
    return found


@pytest.mark.parametrize("decoder", [None, "self-consistency@4", "semantic-entropy@4", "freetext:sum"])
def test_every_decoder_has_figures_files_and_a_report(run: Any, tmp_path: Path, decoder: str | None) -> None:
    named = () if decoder is None else ("--decoder", decoder)
    code, out, err = evaluate(run, *named, *SHORTLY, "--fit", "platt", "--fit", "isotonic", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert list(said["series"]) == ["raw", "platt", "isotonic"]
    assert set(said["series"]["raw"]) == set(FIGURES)
    assert 0.0 < said["series"]["raw"]["accuracy"]["value"] < 1.0
    assert said["decoder"]["judge"] == "exact-match"
    lines = [json.loads(line) for line in (tmp_path / "e" / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    for line in lines:
        assert line["correct"] == (line["answer"] in line["references"])
        assert line["calibrated"] == line["confidences"]["isotonic"]
    names = {path.name for path in (tmp_path / "e").iterdir()}
    assert {"answers.jsonl", "metrics.json", "report.html", "calibrator-platt.json"} <= names


def test_answers_that_nobody_can_read_are_a_caution_and_no_perfect_figures(run: Any) -> None:
    code, out, err = evaluate(run, "--decoder", "stated", *SHORTLY)
    assert code == 0, err
    assert "Caution: 40 of 40 held-out questions have no answer that could be read" in err
    assert out.count("not defined") == 3
    page = Path("e/report.html").read_text()
    assert "Caution: 40 of 40 held-out questions" in page
    assert run("report", "e")[0] == 0
    assert "Caution: 40 of 40 held-out questions" in Path("e/report.html").read_text()
    code, _, err = evaluate(run, *SHORTLY, "--out", "f")
    assert (code, "Caution" in err) == (0, False), err


def test_report_is_read_back_and_speaks_of_free_text(run: Any, tmp_path: Path) -> None:
    evaluate(run, "--decoder", "self-consistency@4", *SHORTLY, "--fit", "platt")
    first = (tmp_path / "e" / "report.html").read_text()
    code, _, err = run("report", "e")
    assert code == 0, err
    again = (tmp_path / "e" / "report.html").read_text()
    for part in (r'<div class="lead">.*?</div>', r'<ol class="mistakes">.*?</ol>', r"<table.*?</table>"):
        assert re.findall(part, first, re.DOTALL) == re.findall(part, again, re.DOTALL) != []
    assert "160 completions of" in again
    assert "20 questions in free text, answered by SelfConsistency(k=4)" in again
    assert "mean squared difference" in again
    assert "2 options each" not in again


def test_resume_asks_nothing_again_and_other_judges_are_free(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(run, *SHORTLY)
    assert evaluate(run, *SHORTLY)[0] == 1  # without --resume the journal stays as it is
    monkeypatch.setattr("calibwrap.testing.ToyAdapter.generate", None)
    code, out, err = evaluate(run, *SHORTLY, "--resume", "--judge", "f1-above-half", "--json")
    assert code == 0, err
    assert json.loads(out)["decoder"]["judge"] == "f1-above-half"


def test_fit_saves_what_ask_and_evaluate_use(run: Any) -> None:
    code, out, err = run("fit", "toy:0", "--data", "free.jsonl", *SHORTLY, "--out", "cal.json", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["kind"], said["rows"]) == ("platt", 40)
    assert said["readout"].endswith(" on short-chat")
    saved = cw.load("cal.json")
    asked = ("ask", "toy:0", "What comes after A", "--decoder", "freetext", *SHORTLY, "--json")
    raw = json.loads(run(*asked)[1])
    code, out, err = run(*asked, "--calibrator", "cal.json", "--strict")
    assert (code, "Warning" in err) == (0, False), err
    mapped = json.loads(out)
    assert mapped["text"] == raw["text"]
    assert mapped["calibrated_by"] == "platt"
    assert mapped["confidence"] == pytest.approx(float(saved([raw["confidence"]])[0]), abs=1e-12)
    code, out, err = evaluate(run, *SHORTLY, "--calibrator", "cal.json", "--strict", "--json")
    assert code == 0, err
    assert list(json.loads(out)["series"]) == ["raw", "platt"]
    code, _, err = evaluate(run, "--decoder", "p-true", *SHORTLY, "--calibrator", "cal.json", "--strict", "--resume")
    assert (code, "use that decoder" in err) == (1, True)


def test_a_calibrator_knows_the_template_and_the_decoder_it_was_fitted_on(run: Any) -> None:
    run("fit", "toy:0", "--data", "free.jsonl", *SHORTLY, "--out", "c.json", "--decoder", "self-consistency@2")
    Path("t.json").write_text(json.dumps({"body": "{question}", "style": "chat"}))
    used = ("--calibrator", "c.json", *SHORTLY)
    voted = ("--decoder", "self-consistency@2", *used)
    ask, template = ("ask", "toy:0", "What comes after A"), "asked with the template 'short-chat'"
    run_evaluate = ("evaluate", "toy:0", "--data", "free.jsonl", "--out", "e")
    for words, said in (
        ((*ask, "--k", "2", *used), template),
        ((*ask, *voted, "--template", "t.json"), template),
        ((*run_evaluate, *voted, "--template", "t.json"), template),
        ((*ask, *voted, "--normaliser", "exact"), "<function exact>"),
        ((*run_evaluate, *voted, "--normaliser", "exact"), "<function exact>"),
    ):
        code, out, err = run(*words, "--strict")
        assert (code, out, said in err) == (1, "", True), (words, err)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = run(*ask, "--k", "2", *used)
    assert (code, err.count("Warning: "), template in err) == (0, 1, True), err
    assert run(*run_evaluate, *voted, "--strict")[0] == 0


def test_a_saved_calibrator_is_a_series_beside_the_fits(run: Any) -> None:
    run("fit", "toy:0", "--data", "free.jsonl", *SHORTLY, "--out", "c.json", "--method", "isotonic")
    code, out, err = evaluate(run, *SHORTLY, "--calibrator", "c.json", "--fit", "platt", "--fit", "isotonic", "--json")
    assert code == 0, err
    assert list(json.loads(out)["series"]) == ["raw", "saved-isotonic", "platt", "isotonic"]
    saved = cw.load("c.json")
    for line in Path("e/predictions.jsonl").read_text().splitlines():
        said = json.loads(line)["confidences"]
        assert said["saved-isotonic"] == pytest.approx(float(saved([said["raw"]])[0]), abs=1e-12)
    assert run("report", "e")[0] == 0
    assert "(saved before)" in Path("e/report.html").read_text()


def test_fit_resumes_with_another_method(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("fit", "toy:0", "--data", "free.jsonl", *SHORTLY, "--out", "cal.json", "--decoder", "self-consistency@4")
    assert run(*words)[0] == 0
    monkeypatch.setattr("calibwrap.testing.ToyAdapter.generate", None)
    code, out, err = run(*words, "--method", "isotonic", "--resume", "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "isotonic"


def test_ask_draws_what_fit_drew_where_no_decoder_is_named(run: Any) -> None:
    assert run("fit", "toy:0", "--data", "free.jsonl", *SHORTLY, "--out", "cal.json")[0] == 0
    words = ("ask", "toy:0", "What comes after A", "--calibrator", "cal.json", *SHORTLY, "--json")
    by_itself, named = run(*words), run(*words, "--decoder", "freetext")
    assert by_itself[0] == 0, by_itself[2]
    assert by_itself[1] == named[1]
    assert "warning" not in by_itself[2].lower()


def test_ask_says_what_a_raw_confidence_is(run: Any) -> None:
    told = {
        "freetext": "geometric mean",
        "freetext:least": "most surprising token",
        "self-consistency@4": "share of the completions",
        "semantic-entropy@4": "how much the completions agree",
    }
    for decoder, said in told.items():
        code, out, err = run("ask", "toy:0", "What comes after A", "--decoder", decoder, *SHORTLY)
        assert code == 0, err
        assert said in " ".join(out.split())
        assert "not the probability of being right" in " ".join(out.split())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--decoder", "confidence@4"), "none for free text"),
        (("--decoder", "freetxt"), "Did you mean 'freetext'?"),
        (("--decoder", "freetext:least@0"), "There is no decoder"),
        (("--decoder", "freetext:most"), "freetext:least"),
        (("--decoder", "p-true:x"), "p-true alone"),
        (("--fit", "temperature"), "isotonic or platt"),
        (("--readout", "label"), "are for options"),
        (("--template", "letter"), "shows options"),
        (("--judge", "f1"), "exact-match, f1-above-half"),
        (("--normaliser", "none"), "trivia-qa"),
        (("--decoder", "freetext@4", "--temperature", "0"), "all the same"),
    ],
)
def test_wrong_words_for_free_text_are_told_before_a_model_is_loaded(
    run: Any, more: tuple[str, ...], said: str
) -> None:
    code, _, err = evaluate(run, *more)
    assert (code, "loading" in err) == (1, False)
    assert said in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--decoder", "self-consistency"), "have options: use confidence@8"),
        (("--fit", "platt"), "add --decoder"),
        (("--judge", "exact-match"), "have options"),
        (("--temperature", "0"), "belong to what --decoder draws"),
    ],
)
def test_wrong_words_for_options_are_told_before_a_model_is_loaded(run: Any, more: tuple[str, ...], said: str) -> None:
    code, _, err = evaluate(run, *more, data="options.jsonl")
    assert (code, "loading" in err) == (1, False)
    assert said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "options.jsonl", "--method", "platt"), "evaluate --decoder confidence@8"),
        (("--data", "options.jsonl", "--decoder", "confidence@4"), "draws answers in free text only"),
        (("--data", "free.jsonl", "--method", "temperature"), "isotonic or platt"),
        (("--data", "free.jsonl", "--readout", "label"), "are for options"),
        (("--data", "bare.jsonl"), "add 'answers'"),
    ],
)
def test_fit_refuses_what_does_not_go_together(run: Any, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "bare.jsonl").write_text('{"prompt": "Red?", "answers": []}')
    code, _, err = run("fit", "toy:0", "--out", "cal.json", *words)
    assert (code, "loading" in err) == (1, False)
    assert said in err


def test_other_commands_say_that_they_are_for_options(run: Any) -> None:
    code, _, err = run("check", "toy:0", "--against", "toy:1", "--data", "free.jsonl")
    assert (code, "in free text" in err) == (1, True)
    code, _, err = run("fit", "toy:0", "--data", "free.jsonl", "--out", "decision.json")
    assert (code, "one temperature" in err) == (1, True)
    assert run("ask", "toy:0", "Red?", "--normaliser", "exact")[0] == 2


def test_names_make_the_decoders_that_they_say() -> None:
    assert set(FREE_DECODERS) == {"freetext", "p-true", "self-consistency", "semantic-entropy", "stated"}
    stated = Freely("stated:top-4").made(SHORT_CHAT)
    assert isinstance(stated, Stated)
    assert (stated.elicitation.name, stated.k, stated.temperature, stated.max_tokens) == ("top-4", 1, 0.0, 128)
    entropy = Freely("semantic-entropy:probability@3", temperature=0.7, seed=5).made(SHORT)
    assert isinstance(entropy, SemanticEntropy)
    assert (entropy.weights, entropy.k, entropy.temperature, entropy.seed) == ("probability", 3, 0.7, 5)
    assert (entropy.stop, Freely("p-true", stop=("x",)).made(SHORT).stop) == (("\n",), ("x",))
    assert isinstance(Freely("p-true@2").made(SHORT), PTrue)
    with pytest.raises(InputError, match="normaliser"):
        Freely(normaliser="none").made(SHORT)


def test_a_real_model_answers_in_free_text(run: Any, tmp_path: Path) -> None:
    capitals = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Peru": "Lima", "Chad": "Zzz"}
    lines = [{"prompt": f"What is the capital of {of}?", "answers": [is_]} for of, is_ in capitals.items()]
    (tmp_path / "capitals.jsonl").write_text("\n".join(map(json.dumps, lines)))
    spec = f"llama-cpp:{packaged_model('smollm2-135m-instruct')}"
    words = (spec, "--set", "n_threads=1", "--set", "n_threads_batch=1", "--max-tokens", "16")
    asked = (*words, "--template", "short", "--data", "capitals.jsonl")
    for decoder, out in (("freetext", "greedy"), ("p-true", "judged")):
        code, shown, err = run("evaluate", *asked, "--decoder", decoder, "--out", out, "--json")
        assert code == 0, err
        assert json.loads(shown)["decoder"]["completions"] == 6
        rows = [json.loads(line) for line in (tmp_path / out / "predictions.jsonl").read_text().splitlines()]
        assert all(0.0 < row["confidence"] < 1.0 and row["answer"] for row in rows)
        assert rows[-1]["correct"] is False
    code, shown, err = run(
        "ask", words[0], "What is the capital of France?", *words[1:5], "--decoder", "stated", "--json"
    )
    assert code == 0, err
    assert json.loads(shown)["drawn"] == 1
