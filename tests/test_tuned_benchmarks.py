"""What the two commands on tuned weights work out themselves: which models, which traces, which temperatures."""

import argparse
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.stored_traces import Drawing, decoded
from tests.servers import matched

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
Command = Callable[[str], ModuleType]
QUESTIONS = [
    cw.Question("Which is red?", ["Mars", "Venus", "the moon"], answer=0, id="red"),
    cw.Question("What is wet?", ["a stone", "water"], answer=1, id="wet"),
]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Imports a file of the benchmarks as it is imported beside the others."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return matched.tiny(tmp_path_factory.mktemp("tuned")).gguf


def test_only_finished_runs_count_and_the_others_are_named(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = command("_tuned")
    for name in ("dpo-1", "dpo-0", "dpo+bce-0", "catto-0", "catto 0.3-0"):
        (tmp_path / "in" / name).mkdir(parents=True)
        if name != "catto-0":
            (tmp_path / "in" / name / "run.json").write_text("{}")
    chosen = argparse.Namespace(work=tmp_path, regime="in", variants=["dpo", "catto"])
    found = shared.tuned_models(chosen)
    assert {name: [one.seed for one in models] for name, models in found.items()} == {"dpo": [0, 1]}
    told = capsys.readouterr().err
    assert "catto-0 is not finished" in told
    assert "no finished run of 'catto'" in told
    with pytest.raises(SystemExit, match="run benchmarks/catto_table"):
        shared.tuned_models(argparse.Namespace(work=tmp_path, regime="out", variants=["dpo"]))


def test_a_trace_names_an_option_and_comes_back_from_its_journal(command: Command, tiny: Path, tmp_path: Path) -> None:
    at_k = command("tuned_confidence_at_k")
    drawing = Drawing(k=4, template=at_k.TEMPLATE, max_tokens=6, stop=("\n",))
    with cw.wrap(f"llama-cpp:{tiny}", n_ctx=512, n_threads=1) as lm:
        drawn = [at_k.draw(lm, QUESTIONS, drawing, tmp_path / "traces.jsonl", "tiny") for _ in range(2)]
        prompt, first = at_k.TEMPLATE.prompt(QUESTIONS[0]), drawn[0][0][0]
        reasoning = first.text.rpartition(at_k.ANSWER)[0]
        (read,) = lm.adapter.score([prompt + reasoning + at_k.ANSWER], [[" Mars", " Venus", " the moon"]])
    sums = np.array([of.chosen_logprob.sum() for of in read])
    assert first.labels.probabilities[0] == pytest.approx(np.exp(sums) / np.exp(sums).sum(), abs=1e-5)
    assert [[one.text for one in of] for of in drawn[0]] == [[one.text for one in of] for of in drawn[1]]
    for answer, traces in zip(decoded(cw.ConfidenceAtK(k=4), QUESTIONS, drawn[1]), drawn[1], strict=True):
        named = ["ABC".index(one.text[-1]) for one in traces]
        assert answer.unparsed == 0
        assert answer.confidence == max(
            one.labels.probabilities[0, label] for one, label in zip(traces, named, strict=True)
        )


def test_options_are_named_as_often_as_they_are_probable(command: Command) -> None:
    at_k = command("tuned_confidence_at_k")
    scores, generator = cw.OptionScores(np.log([[0.8, 0.2]]), "test"), np.random.default_rng(0)
    drawn = [at_k.named(scores, Drawing(), generator) for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(0.2, abs=0.03)
    assert at_k.named(scores, Drawing(k=1, temperature=0.0), generator) == 0


def test_llama_cpp_quantises_and_the_file_says_so(command: Command, tiny: Path, tmp_path: Path) -> None:
    quantised = command("tuned_quantised")
    source = Path(shutil.copy(tiny, tmp_path / "tiny-f32.gguf"))
    file = quantised.quantised(source, "q8_0")
    assert quantised.quantised(source, "f32") == source
    assert file.stat().st_size < 0.5 * source.stat().st_size
    with cw.wrap(f"llama-cpp:{file}", n_ctx=64, n_threads=1) as lm:
        assert lm.adapter.fingerprint().dtype.startswith("Q8_0")


def test_the_float32_temperature_is_carried_over_and_the_own_one_refitted(command: Command) -> None:
    quantised = command("tuned_quantised")
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(400, 4)) * 2.0
    answers = [int(generator.choice(4, p=np.exp(row) / np.exp(row).sum())) for row in truth]
    asked = [cw.Question(f"q{i}", ["a", "b", "c", "d"], answer=answer) for i, answer in enumerate(answers)]

    def scores(sharper: float) -> dict[str, cw.OptionScores]:
        return {name: cw.OptionScores(truth * sharper, "test") for name in ("choice", quantised.TEST)}

    sets = {"choice": asked, quantised.TEST: asked}
    found = quantised.measure_variant({"f32": [scores(2.0)], "q4_0": [scores(3.0)]}, sets, resamples=20)
    ratio = found["q4_0"]["temperatures"][0] / found["f32"]["temperatures"][0]
    assert ratio == pytest.approx(1.5, rel=1e-4)
    refitted, carried = (found["q4_0"][state]["ece"]["value"] for state in ("refitted", "carried over"))
    assert refitted == pytest.approx(found["f32"]["refitted"]["ece"]["value"], abs=1e-4)
    assert found["q4_0"]["carried_over_less_refitted"]["value"] == pytest.approx(carried - refitted)
    assert carried > refitted
    assert found["q4_0"]["raw"]["accuracy"] == found["f32"]["raw"]["accuracy"]
