"""`calibwrap ask` with drawn answers: decoders, tokens as they come, lines for machines."""

import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import calibwrap as cw
from calibwrap.cli import ask
from calibwrap.cli.console import print_rows, say
from calibwrap.cli.tokens import show
from calibwrap.streaming import StreamedToken
from calibwrap.testing import ToyAdapter, ToyModel

PROMPT = "What comes after sun"


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    """Write a template in which traces reason."""
    (tmp_path / "t.json").write_text(json.dumps({"body": "{question}\n{options}Think.", "shows_options": True}))


def chat() -> cw.Chat:
    return cw.Chat((("user", PROMPT),))


def test_a_stream_prints_the_text_once_and_its_confidence(run: Any) -> None:
    answer = cw.wrap(ToyAdapter(ToyModel.random(2)))(chat(), cw.Greedy(max_tokens=5))
    code, out, err = run("ask", "toy:2", PROMPT, "--stream", "--max-tokens", "5")
    assert code == 0, err
    assert out.startswith(answer.text + "\n")
    assert out.count(answer.text) == 1
    assert "mean probability of a token so far" in out
    assert f"{answer.confidence:.1%}  the model's own probability of exactly this text" in out


def test_a_stream_for_machines_is_a_line_a_token_and_the_answer(run: Any) -> None:
    words = ("ask", "toy:2", PROMPT, "--max-tokens", "5", "--json")
    lines = [json.loads(line) for line in run(*words, "--stream")[1].splitlines()]
    *tokens, answer = lines
    assert answer == json.loads(run(*words)[1])
    assert "".join(token["token"] for token in tokens) == answer["text"]
    mean = math.exp(sum(math.log(token["probability"]) for token in tokens) / len(tokens))
    assert tokens[-1]["confidence"] == pytest.approx(mean)
    assert set(tokens[0]) == {"token", "id", "raw_probability", "probability", "confidence", "completion"}


def test_k_texts_answer_by_their_share(run: Any) -> None:
    code, out, _ = run("ask", "toy:2", PROMPT, "--k", "8", "--max-tokens", "2", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["drawn"] == 8
    assert answer["calibrated_by"] == "none"
    wanted = cw.wrap(ToyAdapter(ToyModel.random(2)))(chat(), cw.SelfConsistency(k=8, max_tokens=2))
    assert (answer["text"], answer["confidence"]) == (wanted.text, wanted.confidence)
    assert "share of the completions" in run("ask", "toy:2", PROMPT, "--k", "8", "--max-tokens", "2")[1]


def test_k_texts_can_be_watched(run: Any) -> None:
    words = ("ask", "toy:2", PROMPT, "--k", "3", "--max-tokens", "2")
    code, out, _ = run(*words, "--stream")
    assert code == 0
    assert out.count("mean probability of a token so far") == 3
    assert out.endswith(run(*words)[1])


def test_traces_that_name_nothing_are_told(run: Any) -> None:
    """The toy model cannot write "Answer:"."""
    words = (
        "ask",
        "toy:2",
        PROMPT,
        "-o",
        "A",
        "-o",
        "B",
        "--k",
        "4",
        "--max-tokens",
        "2",
        "--template",
        "t.json",
    )
    code, out, _ = run(*words)
    assert code == 0
    assert "No answer could be read." in out
    assert "0.0%" not in out
    assert "4 of 4 completions named no answer." in out
    answer = json.loads(run(*words, "--decoder", "majority", "--json")[1])
    assert (answer["text"], answer["confidence"], answer["unparsed"], answer["drawn"]) == ("", 0.0, 4, 4)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-o", "A", "-o", "B", "--stream"), "need --k or --decoder"),
        (("-o", "A", "-o", "B", "--k", "4", "--decoder", "majority@8"), "names its K already"),
        (("-o", "A", "-o", "B", "--k", "4", "--readout", "label"), "--readout is for options"),
        (("--template", "own.json"), "give them with -o"),
        (("--k", "0"), "greater than or equal to 1"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(run: Any, words: tuple[str, ...], says: str) -> None:
    code, _, err = run("ask", "toy:0", PROMPT, *words)
    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--decoder", "majority@8"), "chooses among options"),
        (("-o", "A", "-o", "B", "--decoder", "majorty@8"), "Did you mean 'majority'?"),
        (("-o", "A", "-o", "B", "--decoder", "majority"), "needs the number of traces"),
        (("-o", "A", "-o", "B", "--decoder", "self-consistency@3"), "answers in free text, and -o gives options"),
        (("-o", "A", "-o", "B", "--k", "2", "--decoder", "greedy"), "leave --k out"),
        (("-o", "A", "--k", "2"), "at least two: give -o again"),
    ],
)
def test_a_decoder_that_does_not_fit_is_one_clear_sentence(run: Any, words: tuple[str, ...], says: str) -> None:
    code, _, err = run("ask", "toy:0", PROMPT, *words)
    assert code == 1
    assert says in " ".join(err.split())


@pytest.mark.parametrize(("template", "why"), [("letter", "ends in 'Answer:' itself"), ("cloze", "shows no options")])
def test_a_template_that_traces_can_hardly_follow_is_told(run: Any, template: str, why: str) -> None:
    words = ("ask", "toy:2", PROMPT, "-o", "A", "-o", "B", "--k", "2", "--max-tokens", "2", "--template", template)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = run(*words)
    assert (code, err.count("Warning: "), why in err) == (0, 1, True), err


def test_a_calibrator_of_tokens_acts_on_what_is_shown(run: Any) -> None:
    lm = cw.wrap(ToyAdapter(ToyModel.random(2)))
    cw.save(cw.Temperature(2.0, level="token"), "cal.json", provenance=lm.adapter.fingerprint())
    words = ("ask", "toy:2", PROMPT, "--stream", "--max-tokens", "3", "--json", "--calibrator", "cal.json")
    code, out, err = run(*words)
    assert code == 0, err
    *tokens, answer = [json.loads(line) for line in out.splitlines()]
    assert answer["calibrated_by"] == "temperature"
    assert all(token["probability"] != token["raw_probability"] for token in tokens)


DRAWN = ("--k", "2", "--max-tokens", "2", "--template", "t.json")


@pytest.mark.parametrize(
    ("readout", "words"),
    [("trace:Answer::A/B", ()), ("label:letter", DRAWN), ("trace:Answer::A/B", DRAWN)],
    ids=["of traces, without", "without traces, with", "of other traces"],
)
def test_a_calibrator_of_another_use_warns_once_and_strictly_refuses(run: Any, readout: str, words: Any) -> None:
    lm = cw.wrap(ToyAdapter(ToyModel.random(2)))
    report = cw.FitReport("temperature", 9, 9, 1.0, 0.9, readout=readout)
    cw.save(cw.Temperature(2.0, report=report), "cal.json", provenance=lm.adapter.fingerprint())
    asked = ("ask", "toy:2", PROMPT, "-o", "sun", "-o", "rain", *words, "--calibrator", "cal.json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, err = run(*asked, "--json")
    assert code == 0, out + err
    assert " ".join(err.split()).count("calibrator was fitted") == 1, err
    code, _, err = run(*asked, "--strict")
    assert code == 1
    assert "was fitted elsewhere" in " ".join(err.split())


def test_a_terminal_shows_probabilities_as_colours() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system="standard", highlight=False)
    tokens = [
        StreamedToken("sure", 1, 0.99, 0.99, 0.99, 0),
        StreamedToken(" unsure", 2, 0.1, 0.1, 0.3, 0),
        StreamedToken("next", 3, math.nan, math.nan, math.nan, 1),
    ]
    show(tokens, False, console)
    shown = file.getvalue()
    assert "\x1b[32msure" in shown
    assert "\x1b[31m unsure" in shown
    assert "30.0%" in shown
    assert "not told" in shown


CONTROLS = "un\x1b[31msure\x07\x7f\x9b2J\r"


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_text_cannot_drive_the_terminal(on_terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=on_terminal, width=80, color_system=None, highlight=False)
    tokens = [StreamedToken(f"{CONTROLS}\n\tsaid", 1, 0.1, 0.1, 0.3, 0)]
    show(tokens, False, console)
    shown = file.getvalue() + capsys.readouterr().out
    assert "un\ufffd[31msure\ufffd\ufffd\ufffd2J\ufffd" in shown
    assert not set("\x07\x7f\x9b") & set(shown)
    assert "\x1b[31m" not in shown
    assert "said" in shown
    show(tokens, True, console)
    assert json.loads(capsys.readouterr().out)["token"] == tokens[0].text


def test_no_table_and_no_line_lets_a_text_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    ask._print(cw.Answer(CONTROLS, 0.6, (0.6, 0.6), {CONTROLS: 0.6, "B": 0.4}), False)
    print_rows("Each model", ["", CONTROLS], [["question", CONTROLS]])
    say(f"They differ most on question {CONTROLS}")
    out, err = capsys.readouterr()
    assert (out.count("\ufffd[31m"), err.count("\ufffd[31m")) == (4, 1)
    assert not set("\x1b\x07\x7f\x9b\r") & set(out + err)
    ask._print(cw.Answer(CONTROLS, 0.6, (0.6, 0.6)), True)
    assert json.loads(capsys.readouterr().out)["text"] == CONTROLS


@pytest.mark.model
def test_a_real_model_answers_a_question_with_traces(run: Any) -> None:
    from calibwrap.data import packaged_model

    words = ("ask", f"llama-cpp:{packaged_model('smollm2-135m-instruct')}", "Which planet is known as the red planet?")
    options = ("-o", "Venus", "-o", "Mars", "--set", "n_threads=1", "--set", "n_threads_batch=1", "--set", "n_ctx=512")
    code, out, err = run(*words, *options, "--k", "3", "--stream", "--max-tokens", "48", "--json")
    assert code == 0, err
    *tokens, answer = [json.loads(line) for line in out.splitlines()]
    assert answer["drawn"] == 3
    assert answer["text"] in ("Venus", "Mars", "")
    assert {token["completion"] for token in tokens} == {0, 1, 2}
    text = "".join(token["token"] for token in tokens)
    assert "Answer:" in text
