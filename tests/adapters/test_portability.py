"""One calibrator, fitted on Transformers and saved, gives the same answers on every runtime of the same model."""

import warnings

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.errors import ProvenanceMismatch, ProvenanceWarning
from calibwrap.questions import Template
from calibwrap.readouts import Label
from calibwrap.training import export_gguf
from tests.servers import real

from . import vllm_models
from .conftest import EXACT

LETTERS = Template(
    body="{question}\n{options}Answer: ", option="{label}. {option}\n", shows_options=True, separator="", name="short"
)
READOUT = Label(LETTERS, labels=("B", "C", "D"), min_mass=0.0)  # random weights put little mass on letters
WHOLE, SHORT = 400, 20
"""Entries of a server's list: the whole tiny vocabulary, and what most servers give."""

WORDS = ("Mars", "Venus", "France", "Rome", "Paris", "water", "rain", "Delhi", "Italy", "York", "red", "wet")
QUESTIONS = [
    cw.Question(f"Is {word} a planet?", ["Yes", "No", "Both"][: 2 + index % 2], answer=index % 2, id=f"q{index}")
    for index, word in enumerate(WORDS)
]
FIT, ASKED = QUESTIONS[:6], QUESTIONS[6:]


@pytest.fixture(scope="module")
def here():
    """The model on Transformers, with a calibrator fitted there."""
    return cw.wrap(vllm_models.transformers()).fit(FIT, readout=READOUT)


@pytest.fixture(scope="module")
def saved(here, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "calibrator.json"
    here.save(path)
    return path


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """The same weights as a 32-bit GGUF file."""
    return export_gguf(vllm_models.folder(), tmp_path_factory.mktemp("same") / "model.gguf")


@pytest.fixture(scope="module")
def server(gguf_file):
    """A real llama-server."""
    with real.llama_server(gguf_file, n_ctx=128) as running:
        yield running


@pytest.fixture(params=["hf", "vllm", "llama-cpp", "openai"])
def runtime(request):
    """A runtime's name, and the same weights on it."""
    if request.param == "hf":
        return request.param, vllm_models.transformers()
    if request.param == "vllm":
        return request.param, vllm_models.shared_adapter()
    file = request.getfixturevalue("gguf_file")
    if request.param == "llama-cpp":
        return request.param, cw.wrap(f"llama-cpp:{file}", **EXACT).adapter
    running = request.getfixturevalue("server")
    return request.param, cw.wrap(f"openai:{running.model}", base_url=running.base_url, top_logprobs=WHOLE).adapter


def wrapped(adapter, saved):
    """The adapter with the calibrator out of the file, and the warnings that joining them gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lm = cw.CalibratedLM(adapter, readout=READOUT).with_calibrator(cw.load(saved))
    return lm, [warning for warning in caught if warning.category is ProvenanceWarning]


def table(answers):
    """(N, 3) probabilities of the options, filled with 0 where a question has two."""
    return np.array([[*answer.probabilities.values(), 0.0][:3] for answer in answers])


def test_one_saved_calibrator_gives_the_same_answers_on_every_runtime(here, saved, runtime):
    name, adapter = runtime
    expected = here.choose_batch(ASKED)
    lm, warned = wrapped(adapter, saved)
    answers = lm.choose_batch(ASKED)
    assert lm.calibrator.value == here.calibrator.value
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    np.testing.assert_allclose(table(answers), table(expected), atol=1e-4)
    assert {answer.calibrated_by for answer in answers} == {"temperature"}
    if name == "hf":
        assert not warned
    else:
        assert "check with --against" in str(warned[0].message)


def test_strictly_only_the_model_itself_is_accepted(saved, runtime):
    name, adapter = runtime
    lm = cw.CalibratedLM(adapter, readout=READOUT)
    if name == "hf":
        lm.with_calibrator(cw.load(saved), strict=True)
        return
    with pytest.raises(ProvenanceMismatch, match=f"'hf' against '{name}'"):
        lm.with_calibrator(cw.load(saved), strict=True)


def test_a_short_list_keeps_the_answer_inside_its_bounds(here, saved, server):
    adapter = cw.wrap(f"openai:{server.model}", base_url=server.base_url, top_logprobs=SHORT).adapter
    lm, _ = wrapped(adapter, saved)
    exact, answers = here.choose_batch(ASKED), lm.choose_batch(ASKED)
    raw = lm.scores(ASKED, READOUT)
    assert raw.n_missing.any()
    for truth, answer in zip(exact, answers, strict=True):
        low, high = answer.bounds
        assert low - 1e-4 <= truth.probabilities[answer.text] <= high + 1e-4
