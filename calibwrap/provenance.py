"""Where numbers come from: which model exactly, how a calibrator was fitted, and whether it may move elsewhere."""

import re
from dataclasses import dataclass
from typing import Literal

MEASURE = "`calibwrap check SPEC --against SPEC --data FILE`"
"""The command that measures how far two models differ."""


@dataclass(frozen=True)
class Verdict:
    """Whether a calibrator may move from the model that it was fitted on to another one."""

    move: Literal["same", "check", "different"]
    """The same model; nothing known speaks against it, to be measured; or something that matters differs."""
    summary: str
    """The verdict in a few words."""
    reasons: tuple[str, ...] = ()
    """What differs, or cannot be compared, one text each."""

    @property
    def advice(self) -> str:
        """What to do about it; empty when nothing needs to be done."""
        if self.move == "same":
            return ""
        first = "" if self.move == "check" else "fit it again there, or "
        return f"{first}measure how far the two differ: {MEASURE}"


@dataclass(frozen=True)
class Provenance:
    """Which model, exactly. A calibrator is good for one of these, and says so when it meets another."""

    runtime: str = ""
    """Adapter name."""
    model: str = ""
    """Model id, or file or folder name."""
    revision: str = ""
    """Hash of the weights' file, or the hub's commit."""
    dtype: str = ""
    """Number format or quantisation of the weights."""
    tokenizer: str = ""
    """Hash of the tokenizer's vocabulary."""
    template: str = ""
    """Hash of the chat template; empty when the model has none."""
    semantics: str = "raw"
    """What log-probabilities mean: raw (temperature 1, no penalties) or processed."""

    def differences(self, other: "Provenance") -> list[str]:
        """Return one text for each field that differs, both sides named."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return [f"{name}: {mine!r} against {theirs!r}" for name, mine, theirs in pairs if mine != theirs]

    def verdict(self, other: "Provenance") -> Verdict:
        """Return whether a calibrator that was fitted on this model may be used on `other`.

        Weights are the same where one content hash stands for both. Names and hashes of different runtimes say nothing
        about each other, since each runtime has files of its own; number formats, tokenizers and templates do. What a
        side does not tell is no difference, and no proof either.

        >>> from dataclasses import replace
        >>> here = Provenance("hf", "tiny", "a" * 64, "float32", "1" * 16, "2" * 16)
        >>> there = replace(here, runtime="llama-cpp", model="tiny.gguf", revision="b" * 64, dtype="F32, kv F16/F16")
        >>> here.verdict(there).summary
        'same tokenizer and template on another runtime: check with --against'
        >>> here.verdict(replace(there, dtype="Q4_1, kv F16/F16")).summary
        'different quantisation'
        """
        found = [*_weights(self, other), *_readings(self, other)]
        if not found:
            return Verdict("same", "same model")
        different = [aspect for aspect, _ in found if aspect]
        if different:
            known = tuple(reason for aspect, reason in found if aspect)
            return Verdict("different", "different " + ", ".join(dict.fromkeys(different)), known)
        where = "on the same runtime" if self.runtime == other.runtime else "on another runtime"
        told = self.tokenizer and self.tokenizer == other.tokenizer and self.template == other.template
        alike = "same tokenizer and template" if told else "nothing that is known differs"
        return Verdict("check", f"{alike} {where}: check with --against", tuple(reason for _, reason in found))


Finding = tuple[str, str]
"""What differs ("" where it cannot be compared, or need not matter), and the reason."""

_FORMATS = {"f32": "float32", "all_f32": "float32", "f16": "float16", "bf16": "bfloat16", "gguf": "", "guessed": ""}
"""Number formats under the names of other runtimes; "" where the text does not tell how the weights are stored."""


def _weights(mine: Provenance, theirs: Provenance) -> list[Finding]:
    """Return what differs about runtime, weights and number format."""
    found: list[Finding] = []
    is_same_runtime = mine.runtime == theirs.runtime
    if not is_same_runtime:
        found.append(("", _reason("runtime", mine.runtime, theirs.runtime)))
    if mine.revision != theirs.revision or not _is_content_hash(mine.revision):
        found += _names(mine, theirs)
    if _lora(mine.dtype) != _lora(theirs.dtype):
        found.append(("model", f"LoRA: {_lora(mine.dtype) or 'none'} against {_lora(theirs.dtype) or 'none'}"))
    if mine.dtype != theirs.dtype:
        one, two = _number_format(mine.dtype), _number_format(theirs.dtype)
        aspect = "quantisation" if one and two and one != two else ""
        found.append((aspect, _reason("dtype", mine.dtype, theirs.dtype)))
    return found


def _names(mine: Provenance, theirs: Provenance) -> list[Finding]:
    """Return what differs about the names and revisions of weights that no content hash stands for.

    A server's revision tells of its build and of the full name behind an alias: another one may have moved the numbers.
    """
    found: list[Finding] = []
    if mine.model != theirs.model:
        is_known = mine.runtime == theirs.runtime and bool(mine.model and theirs.model)
        found.append(("model" if is_known else "", _reason("model", mine.model, theirs.model)))
    if mine.revision != theirs.revision:
        reason = _reason("revision", mine.revision, theirs.revision)
        is_known = mine.runtime == theirs.runtime and bool(mine.revision and theirs.revision)
        if is_known and mine.runtime == "openai" and mine.model == theirs.model:
            found.append(("", f"{reason}: a changed build may have moved the numbers"))
        else:
            found.append(("model" if is_known else "", reason))
    return found


def _readings(mine: Provenance, theirs: Provenance) -> list[Finding]:
    """Return what differs about how text is read, and about what log-probabilities mean."""
    found: list[Finding] = []
    for name in ("tokenizer", "template"):
        one, two = getattr(mine, name), getattr(theirs, name)
        if one != two:
            are_hashes = _is_content_hash(one) and _is_content_hash(two)
            is_told = are_hashes or (mine.runtime == theirs.runtime and bool((one and two) or name == "template"))
            found.append((name if is_told else "", _reason(name, one, two)))
    if mine.semantics != theirs.semantics:
        is_raw = mine.semantics.startswith("raw") and theirs.semantics.startswith("raw")  # at the temperature read at
        found.append(("" if is_raw else "semantics", _reason("semantics", mine.semantics, theirs.semantics)))
    return found


def _reason(name: str, one: str, two: str) -> str:
    """Return both sides of a field for people; of a long hash its beginning says enough."""
    shown = [text[:16] if _is_content_hash(text) else text or "not told" for text in (one, two)]
    return f"{name}: {shown[0]} against {shown[1]}"


def _is_content_hash(text: str) -> bool:
    """Return whether a text is a hash of contents, unlike a server's version or its word for what it keeps."""
    return re.fullmatch(r"(sampled:)?[0-9a-f]{16,}", text) is not None


def _number_format(dtype: str) -> str:
    """Return how weights are stored, the first word of a dtype, under one name for all runtimes; "" if not told."""
    word = re.split(r"[,\s]", dtype.lower(), maxsplit=1)[0]
    return _FORMATS.get(word, word)


def _lora(dtype: str) -> str:
    """Return which LoRA adapter is on top of the weights; empty when there is none."""
    found = re.search(r"lora (\S+ x [^\s,]+)", dtype)
    return found.group(1) if found else ""


@dataclass(frozen=True)
class Candidate:
    """One method that a choice among several looked at."""

    method: str
    """Its name."""
    rows_needed: int
    """Rows that each fit on all folds but one must have."""
    log_loss: float | None = None
    """Mean cross-validated log loss in nats; None where it was not tried, failed, or is infinite."""
    difference: tuple[float, float] | None = None
    """Interval of its log loss minus the baseline's, nats; below 0 throughout speaks for it."""
    chosen: bool = False
    """Whether it is the one that was fitted in the end."""
    note: str = ""
    """Why it was not tried, or why it failed."""


@dataclass(frozen=True)
class FitReport:
    """How a calibrator was fitted, and how far to trust it."""

    method: str
    """Name of the fit: "temperature", "daca", "naive-kl", ..."""
    rows: int
    """Rows that came in."""
    rows_used: int
    """Rows that the objective saw."""
    objective_before: float
    """Mean objective in nats on the rows used, at the identity."""
    objective_after: float
    """The same at the fitted numbers."""
    agreement_rate: float | None = None
    """Share of rows where both models choose the same option; None for fits with labels."""
    at_bound: str = ""
    """"lower" or "upper" when the optimum lies outside the search interval; else empty."""
    interval: tuple[float, float] | None = None
    """Bootstrap interval of the temperature, 95 %."""
    converged: bool = True
    """Whether the optimum carries a certificate: the derivative vanishes, or points out of a bound."""
    notes: tuple[str, ...] = ()
    """What a reader should know, one sentence each."""
    readout: str = ""
    """Readout and template of the scores that were fitted."""
    reference_readout: str = ""
    """The reference's, for fits without labels."""
    provenance: Provenance | None = None
    """The model whose scores were fitted."""
    reference: Provenance | None = None
    """The reference model, for fits without labels."""
    date: str = ""
    """Day of the fit, ISO 8601."""
    candidates: tuple[Candidate, ...] = ()
    """What method "auto" compared, in the order tried; empty for a method that was asked for by name."""
