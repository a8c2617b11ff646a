"""`wrap` and `CalibratedLM` on the exact toy model: what goes in, what comes out, what is refused."""

import sys
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

import calibwrap as cw
from calibwrap.base import Decoder, Flow
from calibwrap.capabilities import Provides
from calibwrap.errors import (
    CalibwrapError,
    CapabilityError,
    InputError,
    ProvenanceMismatch,
    ProvenanceWarning,
    QuestionError,
)
from calibwrap.opening import find_adapter
from calibwrap.questions import LETTER, Template, answers_of
from calibwrap.readouts import Label
from calibwrap.testing import ToyAdapter, ToyModel, toy_pair, toy_questions
from calibwrap.wrap import CalibratedLM

BASE = ToyModel.random(seed=1)
QUESTIONS = toy_questions(600, seed=1, model=BASE)
LABEL = Label(min_mass=0.0)


def sharp(factor: float = 3.0) -> CalibratedLM:
    return CalibratedLM(ToyAdapter(BASE.sharpened(factor)), readout=LABEL)


def unlabelled(questions: list[cw.Question]) -> list[cw.Question]:
    return [replace(question, answer=None) for question in questions]


def test_a_planted_temperature_is_found_with_labels() -> None:
    fitted = sharp(3.0).fit(QUESTIONS, method="temperature")
    assert fitted.calibrator.value == pytest.approx(3.0, rel=0.25)  # type: ignore[attr-defined]
    raw, calibrated = sharp(3.0).scores(QUESTIONS), fitted.calibrator(sharp(3.0).scores(QUESTIONS))
    correct = raw.choice == answers_of(QUESTIONS)
    assert cw.metrics.ece(calibrated.confidence, correct) < cw.metrics.ece(raw.confidence, correct)


def test_a_planted_temperature_is_found_without_labels() -> None:
    base, post = toy_pair(seed=1, sharpness=3.0)
    lm = CalibratedLM(ToyAdapter(post), readout=LABEL)
    reference = CalibratedLM(ToyAdapter(base), readout=LABEL)
    fitted = lm.fit(unlabelled(QUESTIONS), method="daca", reference=reference)
    assert fitted.calibrator.value == pytest.approx(3.0, rel=1e-6)  # type: ignore[attr-defined]
    report = fitted.calibrator.report
    assert report is not None
    assert 0 < report.agreement_rate < 1  # type: ignore[operator]
    assert report.readout == report.reference_readout == "label:letter"
    assert report.provenance == lm.adapter.fingerprint()
    assert report.reference == reference.adapter.fingerprint()


def test_a_packaged_model_has_a_name_where_its_file_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Opened(ToyAdapter):
        @classmethod
        def load(cls, target: str, **options: object) -> "Opened":
            opened.append(target)
            return cls()

    monkeypatch.setattr("calibwrap.data.packaged_model", lambda name: Path("there") / f"{name}.gguf")
    monkeypatch.setattr("calibwrap.opening.find_adapter", lambda name: Opened)
    for spec in ("hf:gemma-3-270m", "llama-cpp:gemma-3-270m", "vllm:gemma-3-270m", "hf:owner/name"):
        cw.wrap(spec)
    assert opened == ["there/gemma-3-270m.gguf"] * 2 + ["gemma-3-270m", "owner/name"]


def test_a_name_beyond_what_a_file_system_takes_is_one_sentence() -> None:
    with pytest.raises(CalibwrapError):
        cw.wrap("llama-cpp:" + "a" * 5000)


def test_without_a_named_method_a_reference_stands_in_for_labels() -> None:
    base, post = toy_pair(seed=1, sharpness=3.0)
    fitted = CalibratedLM(ToyAdapter(post), readout=LABEL).fit(unlabelled(QUESTIONS), reference=ToyAdapter(base))
    assert fitted.calibrator.report.method == "soft:platt"  # type: ignore[attr-defined]


def test_fitting_returns_a_new_model_and_leaves_the_old_one() -> None:
    lm = sharp()
    fitted = lm.fit(QUESTIONS)
    assert lm.calibrator.kind == "identity"
    assert fitted is not lm
    assert fitted.adapter is lm.adapter


def test_choose_gives_the_option_its_probability_and_who_calibrated_it() -> None:
    question = QUESTIONS[0]
    answer = sharp().fit(QUESTIONS).choose(question.prompt, question.options)
    assert answer.text in question.options
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert answer.confidence == max(answer.probabilities.values()) == answer.bounds[0] == answer.bounds[1]
    assert answer.calibrated_by == "temperature"
    assert sharp().choose(question.prompt, question.options).calibrated_by == "identity"


def test_a_batch_equals_single_questions_in_order() -> None:
    lm = sharp().fit(QUESTIONS)
    some = QUESTIONS[: lm.adapter.provides.batch_size + 3]
    assert lm.choose_batch(some) == [lm.choose(q.prompt, q.options, q.context) for q in some]


def test_progress_counts_every_question_once() -> None:
    seen: list[tuple[int, int]] = []
    size = sharp().adapter.provides.batch_size
    sharp().scores(QUESTIONS[: 2 * size + 1], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(size, 2 * size + 1), (2 * size, 2 * size + 1), (2 * size + 1, 2 * size + 1)]


def test_default_readout_is_what_the_backend_can_give() -> None:
    assert CalibratedLM(ToyAdapter()).readout.name == "continuation"
    listing = ToyAdapter(provides=Provides(given_ids=None, tokenize=True))
    assert CalibratedLM(listing).readout.name == "label"
    chats = ToyAdapter(provides=Provides(top=5, token_bytes=True, chat=True))
    assert CalibratedLM(chats).readout.label == "label:letter-chat"
    assert CalibratedLM(ToyAdapter(provides=Provides(decides=True, plain=False))).readout.name == "decision"


def test_labels_missing_names_the_question_and_the_way_out() -> None:
    with pytest.raises(QuestionError, match=r"toy-0.*daca"):
        sharp().fit(unlabelled(QUESTIONS[:5]), method="temperature")


@pytest.mark.parametrize(("method", "reference"), [("daca", None), ("temperature", ToyAdapter())])
def test_reference_missing_or_in_vain(method: str, reference: ToyAdapter | None) -> None:
    with pytest.raises(InputError, match="reference"):
        sharp().fit(QUESTIONS, method=method, reference=reference)


def test_unknown_method_readout_runtime_and_object_are_answered_with_names() -> None:
    with pytest.raises(InputError, match="temperature"):
        sharp().fit(QUESTIONS, method="temprature")
    with pytest.raises(InputError, match="Did you mean 'llama-cpp'"):
        cw.wrap("llama-ccp:model.gguf")
    with pytest.raises(InputError, match="RUNTIME:MODEL"):
        cw.wrap("model.gguf")
    with pytest.raises(InputError, match=r"builtins\.dict.*hf"):
        cw.wrap({})
    with pytest.raises(InputError, match="empty"):
        sharp().scores([])


class Loaded(ToyAdapter):
    """A toy around a loaded object, which wants a model's name, as a client of a server does."""

    def __init__(self, target: object, /, *, model: str, top: int = 3) -> None:
        super().__init__(ToyModel.random(0))


@pytest.mark.parametrize(
    ("parts", "options", "says"),
    [
        ((), {}, r"'model'.*takes: model=\.\.\. \(needed\), top=\.\.\.\."),
        ((), {"model": "small", "base_url": "http://localhost"}, "'base_url'"),
        (("small",), {"model": "small"}, "too many positional"),
    ],
)
def test_wrong_options_of_a_loaded_object_are_answered_with_the_right_ones(
    monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...], options: dict[str, str], says: str
) -> None:
    opening = sys.modules["calibwrap.opening"]
    monkeypatch.setattr(opening, "_LOADED", {"fractions": "toy"})
    monkeypatch.setattr(opening, "find_adapter", lambda name: Loaded)
    assert cw.wrap(Fraction(1), model="small").adapter.name == "toy"
    with pytest.raises(InputError, match=says):
        cw.wrap(Fraction(1), *parts, **options)


def test_a_spec_with_a_part_too_many_says_what_it_takes() -> None:
    with pytest.raises(InputError, match=r"a spec of 'openai'.*base_url"):
        cw.wrap("openai:small", "http://localhost")


@pytest.mark.parametrize("wrong", ["questions.jsonl", [{"prompt": "What?", "options": ["a", "b"]}], None, []])
def test_what_is_no_list_of_questions_is_refused_with_the_way_to_make_one(wrong: object) -> None:
    for call in (sharp().scores, sharp().fit, sharp().choose_batch):
        with pytest.raises(InputError, match="question"):
            call(wrong)


def test_wrap_takes_adapters_and_wrapped_models_as_they_are() -> None:
    adapter = ToyAdapter()
    lm = cw.wrap(adapter)
    assert lm.adapter is adapter
    assert cw.wrap(lm) is lm


@pytest.mark.parametrize("target", [ToyAdapter(), cw.wrap(ToyAdapter())], ids=["adapter", "wrapped"])
@pytest.mark.parametrize(("parts", "options"), [((), {"readout": "label"}), (("label",), {}), ((), {"batch_size": 4})])
def test_what_stands_beside_a_model_that_is_taken_as_it_is_is_refused(
    target: object, parts: tuple[str, ...], options: dict[str, object]
) -> None:
    with pytest.raises(InputError, match=rf"nothing beside it\. Got {next(iter(options), 'str')}.*readout="):
        cw.wrap(target, *parts, **options)


def test_built_in_runtimes_are_found_by_name() -> None:
    assert find_adapter("hf").name == "hf"
    assert find_adapter("llama-cpp").name == "llama-cpp"


def test_a_plug_in_is_found_by_name_and_by_the_object_it_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        """A loaded object of somebody's runtime."""

    class Plugged(ToyAdapter):
        wraps = (Engine.__module__.partition(".")[0],)

        def __init__(self, engine: object = None) -> None:
            super().__init__()

    class Entry:
        name = "plugged"

        def load(self) -> type:
            return Plugged

    monkeypatch.setattr(sys.modules["calibwrap.opening"], "_plug_ins", lambda: (Entry(),))
    assert isinstance(cw.wrap(Engine()).adapter, Plugged)
    assert find_adapter("plugged") is Plugged


def test_save_and_load_give_the_same_answers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    fitted = sharp().fit(QUESTIONS)
    fitted.save(tmp_path / "cal.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # same model, same readout: nothing to warn of
        again = sharp().with_calibrator(cw.load(tmp_path / "cal.json"), strict=True)
    assert again.choose_batch(QUESTIONS[:5]) == fitted.choose_batch(QUESTIONS[:5])


def test_another_model_warns_and_strictly_refuses(tmp_path) -> None:  # type: ignore[no-untyped-def]
    sharp().fit(QUESTIONS).save(tmp_path / "cal.json")
    calibrator = cw.load(tmp_path / "cal.json")
    other = CalibratedLM(ToyAdapter(ToyModel.random(seed=9)), readout=LABEL)
    with pytest.warns(ProvenanceWarning, match="revision"):
        other.with_calibrator(calibrator)
    with pytest.raises(ProvenanceMismatch, match="revision"):
        other.with_calibrator(calibrator, strict=True)


def test_another_template_warns(tmp_path) -> None:  # type: ignore[no-untyped-def]
    mine = Template(body="{question}\n{options}Say", shows_options=True, name="mine")
    fitted = sharp().fit(QUESTIONS, readout=Label(mine, min_mass=0.0))
    with pytest.warns(ProvenanceWarning, match="readout"):
        sharp().with_calibrator(fitted.calibrator)


def test_with_calibrator_reads_as_it_was_fitted() -> None:
    fitted = sharp().fit(QUESTIONS, readout=Label(LETTER, min_mass=0.0))
    fresh = CalibratedLM(sharp().adapter)
    assert fresh.readout.name == "continuation"
    assert fresh.with_calibrator(fitted.calibrator).readout.label == "label:letter"


def test_free_text_with_an_option_calibrator_is_refused() -> None:
    with pytest.raises(CapabilityError, match="choose"):
        sharp().fit(QUESTIONS)("What comes after sun")


def test_free_text_uses_the_greedy_decoder_and_its_sequence_probability() -> None:
    answer = CalibratedLM(ToyAdapter(BASE))("What comes after sun", cw.Greedy(max_tokens=2))
    [completion] = answer.candidates
    assert completion.scores.chosen_logprob is not None
    assert answer.confidence == pytest.approx(float(np.exp(completion.scores.chosen_logprob.sum())))


def test_a_token_calibrator_calibrates_what_a_decoder_sees() -> None:
    plain = CalibratedLM(ToyAdapter(BASE))
    hot = replace(plain, calibrator=cw.Temperature(5.0, level="token"))
    decoder = cw.Greedy(max_tokens=3)
    assert hot("sun", decoder).confidence < plain("sun", decoder).confidence
    assert hot("sun", decoder).calibrated_by == "temperature"


TRACED = cw.ConfidenceAtK(k=4, labels=("A", "B", "C"), marker="", max_tokens=2)
COOL = cw.Temperature(2.0, report=cw.FitReport("temperature", 9, 9, 0.0, 0.0, readout=TRACED.rule.readout))
"""A calibrator that says it was fitted on the labels of such traces."""


@pytest.mark.parametrize("calibrator", [COOL, cw.chain(cw.Identity(), COOL)], ids=["alone", "in a chain"])
def test_a_calibrator_of_traces_is_for_decoders_and_warns_of_another_use(calibrator: cw.Calibrator) -> None:
    lm = sharp().with_calibrator(calibrator, strict=True)
    assert lm.readout is LABEL
    assert lm("In the morning the sun", TRACED).calibrated_by == calibrator.kind
    list(lm.stream("In the morning the sun", TRACED))
    assert len(lm.scores(QUESTIONS[:2])) == 2
    other_use = r"fitted on the labels that traces end in \('trace::A/B/C'\)"
    with pytest.raises(ProvenanceMismatch, match=other_use):
        lm.choose_batch(QUESTIONS[:2])
    with pytest.warns(ProvenanceWarning, match=other_use):
        sharp().with_calibrator(calibrator).choose_batch(QUESTIONS[:2])


def test_a_calibrator_of_options_warns_when_traces_are_read_with_it() -> None:
    fitted = sharp().fit(QUESTIONS)
    prompt = "In the morning the sun"
    with pytest.warns(ProvenanceWarning, match=r"fitted on options .*'label:letter'.* traces end in"):
        answer = fitted(prompt, TRACED)
    assert answer.calibrated_by == "temperature"
    with pytest.warns(ProvenanceWarning, match="fitted on options"):
        fitted.stream(prompt, TRACED)


WARM = cw.Temperature(3.0, level="token")


def drawn_firsts(lm: CalibratedLM, n: int, *, steer: bool) -> np.ndarray:
    """How often each token (V,) came first in n draws through the public door."""

    class Draws(Decoder):
        def flow(self) -> Flow:
            completions = yield cw.Sampling(n=n, max_tokens=1, seed=5, top=None)
            return cw.Answer("-", 0.5, (0.5, 0.5), candidates=tuple(completions))

    answer = lm("In the morning the sun", Draws(), steer=steer)
    return np.bincount(
        [one.scores.chosen[0] for one in answer.candidates], minlength=len(BASE.next_logprobs(BASE.encode("sun")))
    )


def test_steer_draws_from_the_calibrated_distribution() -> None:
    lm = CalibratedLM(ToyAdapter(BASE), WARM)
    raw = BASE.next_logprobs(BASE.encode("In the morning the sun"))
    possible = raw > -np.inf
    likely = {steer: np.exp(raw[possible] / (WARM.value if steer else 1.0)) for steer in (True, False)}
    for steer in likely:
        counts = drawn_firsts(lm, 4000, steer=steer)[possible]
        p = {name: float(chisquare(counts, 4000 * of / of.sum()).pvalue) for name, of in likely.items()}
        assert p[steer] > 1e-3
        assert p[not steer] < 1e-6


def test_a_stream_and_a_batch_steer_alike_and_say_so_in_the_settings() -> None:
    lm = CalibratedLM(ToyAdapter(BASE), WARM)
    prompt, decoder = "In the morning the sun", replace(TRACED, max_tokens=6)
    steered, free = lm(prompt, decoder, steer=True), lm(prompt, decoder)
    assert [one.text for one in steered.candidates] != [one.text for one in free.candidates]
    stream = lm.stream(prompt, decoder, steer=True)
    tokens = list(stream)
    assert [token.id for token in tokens] == [int(i) for one in steered.candidates for i in one.scores.chosen]
    assert (stream.answer.text, stream.answer.confidence) == (steered.text, steered.confidence)
    assert lm.batch([prompt], decoder, steer=True)[0].text == steered.text
    assert steered.calibrated_by == "temperature"
    assert [one.settings for one in stream.answer.candidates] == [one.settings for one in steered.candidates]
    assert steered.candidates[0].settings != free.candidates[0].settings
    ((raw, *_),) = lm.adapter.generate([prompt], replace(decoder.request(0), answer=None, top=None), WARM)
    np.testing.assert_allclose(steered.candidates[0].scores.logprobs, WARM(raw.scores).logprobs)


@pytest.mark.parametrize("call", [CalibratedLM.__call__, CalibratedLM.stream], ids=["answer", "stream"])
@pytest.mark.parametrize(
    ("calibrator", "provides", "says"),
    [
        (cw.Identity(), ToyAdapter.everything, r"level 'token'.*'identity' of level 'option'.*level='token'"),
        (COOL, ToyAdapter.everything, "Got 'temperature' of level 'option'"),
        (cw.Platt(1.0, 0.0), ToyAdapter.everything, "'platt' of level 'confidence'"),
        (WARM, replace(ToyAdapter.everything, steers=False), "steers=True, and the backend 'toy'"),
    ],
)
def test_what_cannot_steer_is_named_before_any_call(call, calibrator, provides, says) -> None:  # type: ignore[no-untyped-def]
    lm = CalibratedLM(ToyAdapter(BASE, provides=provides), calibrator)
    with pytest.raises(CapabilityError, match=says):
        call(lm, "sun", TRACED, steer=True)
    assert not lm.adapter.calls


class TwoRounds(Decoder):
    """Asks once for two drawn tokens, and again when the first text is long."""

    def flow(self) -> Flow:
        first = yield cw.Sampling(max_tokens=2, seed=0)
        if len(first[0].text) > 2:
            first = yield cw.Sampling(max_tokens=1, temperature=0.0)
        return cw.Answer(first[0].text, 0.5, (0.5, 0.5))


def test_flows_run_in_lock_step_with_one_call_a_round() -> None:
    adapter = ToyAdapter(BASE)
    prompts = ["sun", " A", " B", " C", "é", "☃"]
    together = CalibratedLM(adapter).batch(prompts, TwoRounds())
    assert adapter.calls["generate"] <= 2
    assert together == [CalibratedLM(ToyAdapter(BASE))(prompt, TwoRounds()) for prompt in prompts]


def test_leaving_the_block_closes_the_model() -> None:
    closed = []

    class Closing(ToyAdapter):
        def close(self) -> None:
            closed.append(True)

    with CalibratedLM(Closing()) as lm:
        assert not closed
        assert lm.adapter.name == "toy"
    assert closed == [True]


class Counted(ToyAdapter):
    """A toy that counts how often one of its kind was closed."""

    closed = 0

    def close(self) -> None:
        """Count."""
        type(self).closed += 1


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    """Let specs of the toy open a `Counted`, none of which is closed yet."""
    monkeypatch.setattr(sys.modules["calibwrap.opening"], "find_adapter", lambda name: Counted)
    monkeypatch.setattr(Counted, "closed", 0)
    return Counted


def test_a_reference_is_closed_where_it_was_opened_here_and_only_there(counted: type[Counted]) -> None:
    for reference, closed in ((Counted(), 0), (CalibratedLM(Counted()), 0), ("toy:1", 1)):
        sharp().fit(QUESTIONS[:60], "daca", reference=reference, reference_readout=LABEL)
        assert counted.closed == closed


def test_a_reference_is_closed_when_the_fit_breaks_off(counted: type[Counted]) -> None:
    def broken(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sharp().fit(QUESTIONS[:4], "daca", reference="toy:1", progress=broken)
    assert counted.closed == 1


def test_a_reference_that_cannot_be_opened_is_told_before_the_model_is_asked() -> None:
    asked: list[int] = []
    with pytest.raises(InputError, match="A spec is RUNTIME:MODEL"):
        sharp().fit(QUESTIONS[:4], "daca", reference="toy", progress=lambda done, total: asked.append(done))
    assert not asked
