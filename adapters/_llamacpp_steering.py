"""A calibrator inside llama-cpp-python's own sampler, with the two traps of its hook closed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibwrap.adapters._llamacpp_scores import log_partition
from calibwrap.base import Calibrator
from calibwrap.errors import CapabilityError, InputError, ModelError, need

UNTRUNCATED = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""Arguments of `create_completion` under which its sampler draws from the whole distribution."""


def calibrated_logits(calibrator: Calibrator, row: NDArray[np.float32]) -> NDArray[Any]:
    """Return the calibrated, unnormalised log-probabilities (V,) of one position from its raw logits (V,).

    What draws from them divides by their sum anyway, so that is not done here too. The calibrator gets 32 bits, as the
    logits have them: this runs for every token, and twice the memory costs twice the time.

    Raises:
        InputError: the calibrator gives NaN.
    """
    logprobs: Any = row - np.float32(log_partition(row))
    logits: NDArray[Any] = calibrator.logits(logprobs[None])[0]
    if np.isnan(logits.max()):
        raise InputError(f"Expected calibrated log-probabilities that are numbers. Got NaN from {calibrator}.")
    return logits


def check_token_level(calibrator: Calibrator) -> None:
    """Return nothing when the calibrator maps tokens.

    Raises:
        CapabilityError: it maps options or confidences, and the next token is neither.
    """
    if calibrator.level != "token" and calibrator.kind != "identity":
        raise CapabilityError(
            f"Inside decoding a calibrator of level 'token' is needed. Got {calibrator.kind!r} of level "
            f"{calibrator.level!r}: fit one on tokens, or calibrate the answer after decoding."
        )


class Steering:
    """The processor that `logits_processor` returns, and the guard around it."""

    def __init__(self, calibrator: Calibrator, bias: Mapping[int, float]) -> None:
        """Hold what acts on the logits."""
        self._calibrator = calibrator
        self._bias = dict(bias)
        self._error: BaseException | None = None
        self._calls = 0

    def __call__(self, ids: Any, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return calibrated logits for the sampler; a failure is kept, since here it would be lost."""
        self._calls += 1
        try:
            changed = calibrated_logits(self._calibrator, logits).copy()
            for token, added in self._bias.items():
                changed[token] += added
            return changed.astype(np.float32)
        except BaseException as error:  # ctypes prints what a callback raises, and sampling goes on uncalibrated
            self._error = self._error or error
            return logits

    def _stop(self, ids: Any, logits: Any) -> bool:
        """Return False, or raise what the last step kept: unlike the processor this runs outside the callback."""
        if self._error is not None:
            raise self._error
        return False

    def __enter__(self) -> dict[str, Any]:
        """Return the arguments for `create_completion` or `create_chat_completion`."""
        api = need("llama_cpp", feature="steering llama.cpp", extra="llama-cpp")
        lists = {
            "logits_processor": api.LogitsProcessorList([self]),
            "stopping_criteria": api.StoppingCriteriaList([self._stop]),
        }
        return {**UNTRUNCATED, **lists}

    def __exit__(self, kind: object, *rest: object) -> None:
        """Raise what went wrong inside, unless something else is already on its way out."""
        if kind is not None:
            return
        if self._error is not None:
            raise self._error
        if not self._calls:
            raise ModelError(
                "The calibrator was never asked. llama-cpp-python drops every processor when 'logit_bias' is given "
                "too: pass the bias as logits_processor(calibrator, bias={token: added})."
            )


def logits_processor(calibrator: Calibrator, bias: Mapping[int, float] | None = None) -> Steering:
    """Return a context manager whose value are the arguments that put `calibrator` into llama-cpp-python's sampler.

    The arguments also switch off every truncation and penalty, which llama-cpp-python has on by default; override
    what you want, such as ``{**arguments, "temperature": 0.7}``: it then divides after the calibrator has. An error
    inside the calibrator surfaces as itself after the step; llama-cpp-python alone would print it and sample on.

    Args:
        calibrator: of level "token".
        bias: added to the calibrated log-probabilities of these token ids. Do not pass `logit_bias` beside.

    Raises:
        CapabilityError: the calibrator is not of level "token".
        ModelError: on leaving the block, when the runtime never asked the calibrator.

    >>> with logits_processor(calibrator) as arguments:  # doctest: +SKIP
    ...     reply = llama.create_completion("Question: ...", max_tokens=8, seed=1, **arguments)
    """
    check_token_level(calibrator)
    return Steering(calibrator, {} if bias is None else bias)
