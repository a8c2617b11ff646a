"""Where numbers come from: which model exactly, and how a calibrator was fitted."""

from dataclasses import dataclass


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
