"""Every plug-in of calibwrap, by name: a new one is one line here, and every check that applies to it is run.

An entry is a factory, so that nothing is loaded before its test; `options` go to the checks.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from calibwrap.calibrators import (
    Beta,
    CattoHead,
    ClassWise,
    GroupTemperature,
    HistogramBinning,
    Identity,
    Isotonic,
    MatrixScaling,
    Platt,
    Temperature,
    TopLabel,
    VectorScaling,
    VennAbers,
    chain,
    fit_auto,
    fit_auto_confidence,
    fit_beta,
    fit_class_wise,
    fit_daca,
    fit_dirichlet,
    fit_group_temperature,
    fit_histogram_binning,
    fit_isotonic,
    fit_matched_mean,
    fit_matrix_scaling,
    fit_naive_kl,
    fit_platt,
    fit_temperature,
    fit_top_label,
    fit_vector_scaling,
    fit_venn_abers,
    fit_without_labels,
)
from calibwrap.calibrators._confidence_fits import CONFIDENCE_MAPS
from calibwrap.capabilities import Provides
from calibwrap.decoders import (
    BestOfN,
    ConfidenceAtK,
    ConfidenceWeightedVote,
    FreeText,
    Greedy,
    MajorityVote,
    MeanPosterior,
    PTrue,
    SelfConsistency,
    SemanticEntropy,
    Stated,
    label_confidence,
    least_logprob,
    mean_logprob,
)
from calibwrap.freetext import TWO_STEP, Elicitation, Statement, exact
from calibwrap.testing import ToyAdapter, ToyModel


@dataclass(frozen=True)
class Entry:
    """One plug-in under test."""

    name: str
    make: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed on to adapter_checks, calibrator_checks, fit_checks or decoder_checks."""


TESTS = Path(__file__).resolve().parent.parent
SINGLE_THREAD = {"n_threads": 1, "n_threads_batch": 1, "type_k": 0, "type_v": 0, "flash_attn": False}
"""llama.cpp on one thread with a 32-bit cache, so that results can be compared tightly."""


def tiny(name):
    """The module of tiny models that an adapter's own tests use."""
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", TESTS / "adapters" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def transformers(family):
    """The Transformers adapter around a tiny random model."""
    models = tiny("hf_models")
    return models.Transformers(models.FAMILIES[family](), models.byte_level(), batch_size=4)


def llamacpp(folder, vocabulary, **options):
    """The llama.cpp adapter around a tiny random GGUF file."""
    from calibwrap.adapters.llamacpp import LlamaCpp

    models = tiny("gguf_models")
    file = models.write_llama(folder / "tiny.gguf", getattr(models, vocabulary)(), **options)
    return LlamaCpp.load(str(file.path), **SINGLE_THREAD)


def vllm():
    """The vLLM adapter around the engine that all tests share; handed in, it stays open."""
    shared = tiny("vllm_models").shared_adapter()
    return type(shared)(shared.llm)


def openai(kind):
    """The OpenAI adapter in front of the session's real server of a kind, around one tiny model."""
    from calibwrap.adapters.openai_api import OpenAI
    from tests.servers import shared

    server = shared.server(kind)
    return OpenAI.load(server.model, base_url=server.base_url)


ADAPTERS = [
    Entry("toy", lambda _: ToyAdapter()),
    Entry("toy-sharp", lambda _: ToyAdapter(ToyModel.random(3).sharpened(2.0))),
    Entry("toy-top-5", lambda _: ToyAdapter(provides=Provides(top=5))),
    Entry("toy-scores-only", lambda _: ToyAdapter(provides=Provides(score=True, tokenize=True, context_length=400))),
    Entry("toy-three-ids", lambda _: ToyAdapter(provides=Provides(given_ids=3, top=3, steers=True))),
    Entry("hf-llama", lambda _: transformers("llama"), {"draws": 200}),
    Entry("hf-gpt2", lambda _: transformers("gpt2"), {"draws": 200}),
    Entry("hf-gemma3", lambda _: transformers("gemma3"), {"draws": 200}),
    Entry("hf-mamba", lambda _: transformers("mamba"), {"draws": 200}),
    Entry("llama-cpp-bos", lambda folder: llamacpp(folder, "byte_fallback", add_bos=True)),
    Entry("llama-cpp-no-bos", lambda folder: llamacpp(folder, "byte_pairs", add_bos=False, seed=1)),
    Entry("vllm", lambda _: vllm(), {"draws": 200}),
    Entry("openai-llama-server", lambda _: openai("llama-server")),
    Entry("openai-vllm", lambda _: openai("vllm")),
]
"""Made with a folder for files."""

WEIGHTS = np.array([1.5, 0.7, 1.0, 0.4])
BIAS = np.array([0.1, -0.3, 0.2, 0.0])
TOKENS_ONLY = dict.fromkeys(
    ("check_masked_options_stay_masked", "check_array_equals_scores"),
    "it was trained on positions and refuses rows of options",
)


def catto_head(level):
    """A head with weights of every sign, on rows that are longer than its list."""
    first, last = np.linspace(-0.3, 0.3, 14).reshape(7, 2), np.array([0.5, -0.2])
    return CattoHead(np.full(7, 0.5), np.ones(7), first, np.zeros(2), last, 0.3, top=3, level=level)


FALLS = {"exempt": {"check_confidence_goes_one_way": "bins that are not pooled may fall: `is_one_way` says so"}}

CALIBRATORS = [
    Entry("identity", Identity),
    Entry("identity-token", lambda: Identity(level="token")),
    Entry("temperature-2", lambda: Temperature(2.0)),
    Entry("temperature-0.3", lambda: Temperature(0.3)),
    Entry("temperature-token", lambda: Temperature(1.7, level="token")),
    Entry("vector-scaling", lambda: VectorScaling(WEIGHTS, BIAS)),
    Entry("matrix-scaling", lambda: MatrixScaling(np.diag(WEIGHTS) + 0.1, BIAS)),
    Entry("chain", lambda: chain(Temperature(2.0), Temperature(0.8))),
    Entry("chain-vector", lambda: chain(Temperature(2.0), VectorScaling(WEIGHTS, BIAS))),
    Entry("catto-head-option", lambda: catto_head("option")),
    Entry("catto-head-token", lambda: catto_head("token"), {"exempt": TOKENS_ONLY}),
    Entry("platt", lambda: Platt(0.5, -0.3)),
    Entry("platt-falling", lambda: Platt(-0.5, 0.3, clip=0.01)),
    Entry("isotonic", lambda: Isotonic([0.2, 0.5, 0.9], [0.1, 0.4, 0.7])),
    Entry("isotonic-one-knot", lambda: Isotonic([0.5], [0.25])),
    Entry("beta", lambda: Beta(0.7, 0.4, -0.3)),
    Entry("beta-one-end", lambda: Beta(0.0, 1.4, -0.3, clip=0.01)),
    Entry("histogram-binning", lambda: HistogramBinning([0.0, 0.3, 0.6, 1.0], [0.2, 0.2, 0.7])),
    Entry("histogram-binning-as-it-falls", lambda: HistogramBinning([0.0, 0.3, 0.6, 1.0], [0.4, 0.2, 0.7]), FALLS),
    Entry("venn-abers", lambda: VennAbers([0.3, 0.6], [0.0, 0.4, 0.7], [0.2], [0.5, 1.0])),
    Entry("group-temperature", lambda: GroupTemperature(1.7, ("law",), (0.6,))),
    Entry("top-label", lambda: TopLabel(Beta(0.7, 0.4, -0.3))),
    Entry("top-label-binned", lambda: TopLabel(HistogramBinning([0.0, 0.3, 0.6, 1.0], [0.1, 0.2, 0.7]))),
    Entry("top-label-free", lambda: TopLabel(Platt(0.5, -0.9), keeps_choice=False)),
    Entry("class-wise", lambda: ClassWise((Platt(0.5, -0.3), Isotonic([0.2, 0.9], [0.0, 0.7])) * 2)),
    Entry("chain-of-confidences", lambda: chain(Platt(0.5, -0.3), Isotonic([0.2, 0.9], [0.1, 0.7]))),
]


BINNED = {
    "check_fit_recovers_the_temperature": "ten values are a rough map",
    "check_fit_never_worsens": "it asks for more rows than the eight of this check",
}


def binned_exempt(method):
    return BINNED if method == "histogram" else {}


def top_label_exempt(method):
    return binned_exempt(method) | {"check_fit_recovers_the_temperature": "all but the first keep their proportions"}


def in_one_group(logprobs, answers):
    """The temperatures of groups on rows that are all of one: the checks know of no groups."""
    return fit_group_temperature(logprobs, answers, groups=["all"] * len(np.asarray(answers)))


FITS = [
    Entry("auto", lambda: partial(fit_auto, methods=("matrix", "vector"))),
    Entry("temperature", lambda: fit_temperature),
    Entry("vector-scaling", lambda: fit_vector_scaling),
    Entry("matrix-scaling", lambda: fit_matrix_scaling),
    Entry("daca-temperature", lambda: fit_daca, {"second": "reference"}),
    Entry("daca-vector", lambda: partial(fit_daca, calibrator="vector"), {"second": "reference"}),
    Entry("daca-matrix", lambda: partial(fit_daca, calibrator="matrix"), {"second": "reference"}),
    Entry("matched-mean", lambda: fit_matched_mean, {"second": "reference"}),
    Entry("naive-kl", lambda: fit_naive_kl, {"second": "reference"}),
    Entry("soft-platt", lambda: partial(fit_without_labels, method="platt"), {"second": "reference"}),
    Entry("soft-isotonic", lambda: partial(fit_without_labels, method="isotonic"), {"second": "reference"}),
    Entry("dirichlet", lambda: fit_dirichlet),
    Entry("group-temperature", lambda: in_one_group),
    *(
        Entry(f"top-label-{one}", lambda one=one: partial(fit_top_label, method=one), {"exempt": top_label_exempt(one)})
        for one in CONFIDENCE_MAPS
    ),
    *(
        Entry(f"class-wise-{one}", lambda one=one: partial(fit_class_wise, method=one), {"exempt": binned_exempt(one)})
        for one in CONFIDENCE_MAPS
    ),
]

CONFIDENCE_FITS = [
    Entry("auto-confidence", lambda: fit_auto_confidence),
    Entry("beta", lambda: fit_beta),
    Entry("histogram-binning", lambda: fit_histogram_binning),
    Entry("histogram-binning-as-it-falls", lambda: partial(fit_histogram_binning, n_bins=15, monotone=False)),
    Entry("venn-abers", lambda: fit_venn_abers),
    Entry("platt", lambda: fit_platt),
    Entry("platt-smoothed", lambda: partial(fit_platt, smoothing=True)),
    Entry("isotonic", lambda: fit_isotonic),
]

TRACES = {"k": 8, "labels": ("A", "B", "C"), "marker": "", "max_tokens": 2}
"""Settings under which most traces of the toy model name a label."""
TEXTS = {"k": 8, "max_tokens": 2, "normalise": exact}
"""Settings under which the toy model's free texts repeat each other."""


def halves(text):
    """Every text states itself, the sun at one half and all else at a quarter; what begins with B is malformed."""
    text = text.strip()
    return () if text.startswith("B") or not text else (Statement(text, 0.5 if "sun" in text else 0.25),)


ROUNDS = TRACES | {"k": 16, "adaptive": True, "threshold": 0.9}

DECODERS = [
    Entry("greedy", Greedy),
    Entry("greedy-short", lambda: Greedy(max_tokens=1, stop=(" A",))),
    Entry("confidence-at-k", lambda: ConfidenceAtK(**TRACES)),
    Entry("confidence-at-1", lambda: ConfidenceAtK(**TRACES | {"k": 1})),
    Entry("confidence-at-k-selected", lambda: ConfidenceAtK(**TRACES, selected=Temperature(1.5))),
    Entry("confidence-at-k-adaptive", lambda: ConfidenceAtK(**ROUNDS)),
    Entry("confidence-at-k-marker", lambda: ConfidenceAtK(**TRACES | {"marker": " sun", "max_tokens": 8})),
    Entry("majority-vote", lambda: MajorityVote(**TRACES)),
    Entry("majority-vote-adaptive", lambda: MajorityVote(**ROUNDS)),
    Entry("confidence-weighted-vote", lambda: ConfidenceWeightedVote(**TRACES)),
    Entry("mean-posterior", lambda: MeanPosterior(**TRACES)),
    Entry("mean-posterior-adaptive", lambda: MeanPosterior(**ROUNDS)),
    Entry("best-of-n", lambda: BestOfN(**TRACES)),
    Entry("best-of-n-mean", lambda: BestOfN(**TRACES, score=mean_logprob)),
    Entry("best-of-n-least", lambda: BestOfN(**TRACES, score=least_logprob)),
    Entry("best-of-n-label", lambda: BestOfN(**TRACES, score=label_confidence)),
    Entry("free-text", FreeText),
    Entry("free-text-least", lambda: FreeText(confidence="least", temperature=0.7, **TEXTS)),
    Entry("free-text-sum", lambda: FreeText(confidence="sum", temperature=1.0, **TEXTS)),
    Entry("self-consistency", lambda: SelfConsistency(**TEXTS)),
    Entry("semantic-entropy", lambda: SemanticEntropy(**TEXTS)),
    Entry("semantic-entropy-probability", lambda: SemanticEntropy(weights="probability", **TEXTS)),
    Entry("stated", Stated),
    Entry(
        "stated-k", lambda: Stated(elicitation=Elicitation("halves", halves, before="Say."), temperature=1.0, **TEXTS)
    ),
    Entry("stated-two-step", lambda: Stated(elicitation=TWO_STEP, temperature=1.0, **TEXTS)),
    Entry("p-true", lambda: PTrue(labels=("A", "B"), normalise=exact)),
    Entry("p-true-k", lambda: PTrue(labels=("A", "B"), temperature=1.0, **TEXTS)),
]
