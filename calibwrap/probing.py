"""Hidden-state probes on a model: what is read for each option, and the model that answers through a probe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from calibwrap import saving
from calibwrap.base import Adapter, Readout
from calibwrap.calibrators import check_options, options_of
from calibwrap.calibrators.probe import Probe, fit_probe
from calibwrap.capabilities import Needs
from calibwrap.errors import CapabilityError, InputError
from calibwrap.questions import CLOZE, Prompt, Question, Template, answers_of, check_questions
from calibwrap.scores import Bools, Floats, OptionScores

if TYPE_CHECKING:
    from calibwrap.wrap import CalibratedLM, Progress

END = "\n"
"""Stands after an option, so that the state at its last token has read the option to its end."""

DEPTHS = (1 / 2, 2 / 3, 5 / 6, 1.0)
"""Layers that are tried by default, as parts of the model's depth."""


@runtime_checkable
class StateSource(Protocol):
    """An adapter that gives hidden states; of calibwrap's own the Transformers one."""

    @property
    def n_layers(self) -> int:
        """Number of layers."""

    def states(self, prompts: Sequence[Prompt], layers: Sequence[int]) -> Floats:
        """Return the hidden states (N, L, D) at the last token of each prompt, after each of L layers."""


@dataclass(frozen=True)
class ProbeReadout(Readout):
    """Reads questions through a probe: one forward pass over each option in its prompt, and an inner product."""

    name: ClassVar[str] = "probe"
    needs = Needs(plain=True)
    probe: Probe
    """The fitted head."""
    template: Template = CLOZE
    """How a question is written before each option."""

    def __post_init__(self) -> None:
        """Check that the template is the one that the probe was fitted with."""
        if self.template.label != self.probe.template:
            raise InputError(
                f"This probe was fitted with template {self.probe.template!r}. Got {self.template.label!r}: pass the "
                "template that it was fitted with, with_probe(lm, probe, template)."
            )

    @property
    def label(self) -> str:
        """Name of the probe's scores: layer, template and a hash of its numbers."""
        return self.probe.readout

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return the probe's log-probabilities of all options.

        Raises:
            CapabilityError: the backend gives no hidden states.
            InputError: the states are not as wide as those that the probe was fitted on.
        """
        states, mask = option_states(adapter, questions, (self.probe.layer,), self.template)
        logits = self.probe.of_states(states[:, :, 0])
        return OptionScores(np.where(mask, logits, -np.inf), self.label, mask)


def option_states(
    adapter: Adapter, questions: Sequence[Question], layers: Sequence[int], template: Template = CLOZE
) -> tuple[Floats, Bools]:
    """Return the states (N, K, L, D) at the end of each option after each of `layers`, and the mask (N, K).

    Raises:
        CapabilityError: the backend gives no hidden states.
        InputError: a template that is not plain text or shows the options, or a layer that does not exist.
    """
    source = _source(adapter)
    check_questions(questions)
    if template.style != "plain" or template.shows_options:
        raise InputError(f"A probe reads plain text, one option at a time. Got template {template.name!r}: use CLOZE.")
    prompts = [
        f"{template.prompt(question)}{template.separator}{option}{END}"
        for question in questions
        for option in question.options
    ]
    found = source.states(prompts, layers)
    mask = np.arange(max(len(q.options) for q in questions)) < np.array([len(q.options) for q in questions])[:, None]
    states = np.zeros((*mask.shape, *found.shape[1:]))
    states[mask] = found
    return states, mask


def fit_probe_on(
    lm: "CalibratedLM",
    questions: Sequence[Question],
    *,
    layers: Sequence[int] | None = None,
    template: Template = CLOZE,
    progress: "Progress | None" = None,
    **options: Any,
) -> "CalibratedLM":
    """Return `lm` answering through a probe that is fitted on `questions`, which need answers.

    Args:
        lm: a model whose adapter gives hidden states: "hf:..." of calibwrap's own.
        questions: some hundreds, with answers.
        layers: layers to choose from; by default those at 1/2, 2/3, 5/6 and the whole of the depth.
        template: how a question is written before each option.
        progress: called with (questions done, questions in all).
        options: passed to `fit_probe`, such as `strengths=` or `seed=`.

    Raises:
        CapabilityError: the backend gives no hidden states.
        QuestionError: a question has no answer.
        InputError: an option that `fit_probe` does not take.
        FitError: too few questions.
    """
    check_options("Method 'probe'", options, {*options_of(fit_probe, 4)} - {"provenance"})
    source, answers = _source(lm.adapter), answers_of(questions)
    depth = source.n_layers
    chosen = tuple(sorted({round(part * depth) for part in DEPTHS})) if layers is None else tuple(layers)
    parts: list[tuple[Floats, Bools]] = []
    size = lm.adapter.provides.batch_size
    for start in range(0, len(questions), size):
        parts.append(option_states(lm.adapter, questions[start : start + size], chosen, template))
        if progress is not None:
            progress(min(start + size, len(questions)), len(questions))
    width = max(mask.shape[1] for _, mask in parts)
    states = np.concatenate([_wider(table, width) for table, _ in parts])
    mask = np.concatenate([_wider(table, width) for _, table in parts])
    by_layer = {layer: states[:, :, at] for at, layer in enumerate(chosen)}
    origin = lm.adapter.fingerprint()
    probe = fit_probe(by_layer, answers, mask, template.label, provenance=origin, **options)
    return with_probe(lm, probe, template, strict=lm.strict)


def probed(
    lm: "CalibratedLM",
    questions: Sequence[Question],
    progress: "Progress | None",
    options: Mapping[str, Any],
    *scores: object,
) -> "CalibratedLM":
    """Return `fit_probe_on` for `lm.fit(questions, "probe", ...)`; `scores` are its reference and readouts, all None.

    Raises:
        InputError: a reference or readout; and as there.
    """
    if any(one is not None for one in scores):
        raise InputError(
            "Method 'probe' reads hidden states: it takes no 'reference=', 'readout=' or 'reference_readout='."
        )
    return fit_probe_on(lm, questions, progress=progress, **options)


def with_probe(lm: "CalibratedLM", probe: Probe, template: Template = CLOZE, *, strict: bool = False) -> "CalibratedLM":
    """Return `lm` answering through `probe`, such as a loaded one.

    Raises:
        CapabilityError: the backend gives no hidden states.
        InputError: another template than the probe was fitted with.
        ProvenanceMismatch: `strict`, and it was fitted on another model; else a warning.
    """
    _source(lm.adapter)
    readout = ProbeReadout(probe, template)
    saving.check_provenance(probe, lm.adapter.fingerprint(), readout.label, strict=strict)
    return replace(lm, calibrator=probe, readout=readout, strict=strict)


def _wider(table: Any, width: int) -> Any:
    """Return `table` (N, K, ...) with K padded to `width`."""
    return np.pad(table, [(0, 0), (0, width - table.shape[1]), *[(0, 0)] * (table.ndim - 2)])


def _source(adapter: Adapter) -> StateSource:
    if not isinstance(adapter, StateSource):
        raise CapabilityError(
            f"A probe needs hidden states, and the backend '{adapter.name}' gives none: use hf, or a calibrator of "
            "scores."
        )
    return adapter
