"""No API key is shown, journalled or reported, whichever way it came in."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.cli import main
from calibwrap.cli.masking import masked, shown_command
from calibwrap.errors import ServerError
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

KEY = "sk-proj-0123456789abcdef"


class TalkativeToy(ToyAdapter):
    """A toy that takes a key, and that repeats it in its errors as some servers do."""

    @classmethod
    def load(cls, target: str, **options: Any) -> "TalkativeToy":
        """Return the toy, or fail with the key in the message."""
        if target == "refused":
            raise ServerError(f"The server refused the key {options['api_key']}: pass another one.")
        return cls(ToyModel.random(int(target)))


@pytest.fixture(autouse=True)
def talkative_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opening = sys.modules["calibwrap.opening"]
    monkeypatch.setattr("calibwrap.testing.TalkativeToy", TalkativeToy, raising=False)
    runtimes = {**opening._BUILT_IN, "talkative": ("calibwrap.testing", "TalkativeToy")}
    monkeypatch.setattr(opening, "_BUILT_IN", runtimes)
    monkeypatch.chdir(tmp_path)
    cw.save_questions(toy_questions(20, seed=2, model=ToyModel.random(seed=0)), "qs.jsonl")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["calibwrap", *words])
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("set_key", [("--set", f"api_key={KEY}"), (f"--set=api_key={KEY}",)], ids=["two", "one"])
def test_no_file_and_no_output_of_an_evaluation_holds_the_key(
    set_key: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", "talkative:0", "--data", "qs.jsonl", "--out", "run", "--readout", "label", *set_key)
    assert run(monkeypatch, *words, "--fit", "temperature") == 0
    assert run(monkeypatch, "fit", *words[1:4], "--out", "cal.json", "--readout", "label", *set_key) == 0
    assert run(monkeypatch, "check", "talkative:0", *set_key) == 0
    told = capsys.readouterr()
    assert KEY not in told.out + told.err
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert {"report.html", "metrics.json", "journal.jsonl", "cal.json"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert "api_key=***" in Path("run/report.html").read_text()


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_an_error_that_repeats_the_key_does_not_show_it(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "ask", "talkative:refused", "What?", "--set", f"api_key={KEY}", *words) == 1
    told = capsys.readouterr()
    assert "refused the key ***" in told.out + told.err
    assert KEY not in told.out + told.err


def test_a_key_without_its_name_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "ask", "talkative:0", "What?", "--set", KEY) == 1
    assert KEY not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        (f"api_key={KEY}", "api_key=***"),
        (f"azure_ad_token={KEY}", "azure_ad_token=***"),
        (f'default_headers={{"api-key": "{KEY}"}}', "default_headers=***"),
        ("base_url=https://me:secret@host/v1", "base_url=https://***@host/v1"),
        ("base_url=https://host/v1?sig=abc&x=1", "base_url=https://host/v1?***"),
        ("max_tokens=100", "max_tokens=100"),
        ("What is 2?x=3", "What is 2?x=3"),
    ],
)
def test_what_is_shown_of_a_setting(word: str, shown: str) -> None:
    import shlex

    assert shlex.split(shown_command(["check", word])) == ["calibwrap", "check", shown]


def test_secrets_of_headers_and_of_the_environment_are_taken_out_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    headers = json.dumps({"Authorization": f"Bearer {KEY}"})
    text = masked(f"{KEY} and from-the-environment", ["--set", f"default_headers={headers}"])
    assert text == "*** and ***"
    assert masked("none of them", ["--set", "api_key=none"]) == "none of them"
