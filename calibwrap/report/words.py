"""How numbers are written for people."""

from calibwrap.summary import Figure

MINUS = "\N{MINUS SIGN}"
"""A real minus sign: a hyphen would break the line after it."""

PERCENT = frozenset({"accuracy", "mean_confidence"})
"""Figures that are shares of questions, written in per cent; all others are plain numbers."""

LABELS = {
    "accuracy": "Accuracy",
    "mean_confidence": "Mean confidence",
    "ece": "Calibration error (ECE)",
    "smooth_ece": "Smooth calibration error",
    "brier": "Brier score",
    "nll": "Negative log-likelihood (nats)",
    "auroc": "AUROC of the confidence",
    "aurc": "Area under risk-coverage (AURC)",
}
"""What the figures are called in tables."""

BETTER = {
    "accuracy": "higher",
    "mean_confidence": "near accuracy",
    "ece": "lower",
    "smooth_ece": "lower",
    "brier": "lower",
    "nll": "lower",
    "auroc": "higher",
    "aurc": "lower",
}
"""Which direction is better."""


def written(name: str, value: float, *, signed: bool = False) -> str:
    """Return the figure `name` as people read it: per cent for shares, else three decimals.

    >>> written("accuracy", 0.4921), written("ece", -0.25, signed=True)
    ('49.2%', '−0.250')
    """
    text = f"{100 * abs(value):.1f}%" if name in PERCENT else f"{abs(value):.3f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return (MINUS if value < 0 else "+" if signed else "") + text


def interval(name: str, figure: Figure, *, signed: bool = False) -> str:
    """Return the 95 % interval of a figure, or why there is none.

    >>> interval("ece", Figure(0.2, 0.1, 0.3))
    '0.100 to 0.300'
    """
    if figure.value is None:
        return figure.reason
    if figure.low is None or figure.high is None:
        return f"no interval: {figure.reason}"
    return f"{written(name, figure.low, signed=signed)} to {written(name, figure.high, signed=signed)}"


def share(value: float) -> str:
    """Return a share in whole per cent; one that would be rounded to all or nothing says so.

    >>> share(0.494), share(0.997), share(1.0)
    ('49%', 'over 99%', '100%')
    """
    if 0.0 < value < 0.01:
        return "under 1%"
    if 0.99 < value < 1.0:
        return "over 99%"
    return f"{100 * value:.0f}%"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where there is not exactly one.

    >>> counted(1, "question"), counted(12000, "question")
    ('1 question', '12,000 questions')
    """
    return f"{number:,}" + f" {noun}" + ("" if number == 1 else "s")


def names(items: list[str]) -> str:
    """Return a list as people say it.

    >>> names(["a", "b", "c"])
    'a, b and c'
    """
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
