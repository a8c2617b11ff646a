"""The calibrator inside vLLM: one plug-in for both of its interfaces, named when the engine is made.

vLLM has two: one of Model Runner V1, which hands over a row for each request, and one of Model Runner V2, whose rows
are steps of requests in slots. `Steering` is the one name for `logits_processors=[...]`; the runner that makes it gets
the class of its own interface. Nothing is registered as an entry point, which would load into every vLLM of an
environment. Requests without a calibrator are left alone, so one engine serves many calibrators and plain requests.

Both interfaces act on float32 logits before temperature and truncation, and after the raw log-probabilities of the
reply were taken.
"""

from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor
from vllm.v1.sample.logits_processor import LogitsProcessor as BatchInterface

from calibwrap.adapters._vllm_wire import from_text
from calibwrap.base import Calibrator

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotInterface
except ModuleNotFoundError:  # a vLLM from before Model Runner V2 took processors: there is no such interface to meet
    SlotInterface = None

EXTRA = "calibwrap_calibrator"
"""Name under which a request's `extra_args` carry the calibrator."""


def carried(sampling: Any) -> Calibrator | None:
    """Return the calibrator that a request's sampling parameters carry; None without one.

    Raises:
        InputError: something else is there; vLLM then refuses the request.
    """
    text = (sampling.extra_args or {}).get(EXTRA)
    return None if text is None else from_text(text)


def steered(calibrator: Calibrator, logits: Any) -> Any:
    """Return calibrated log-probabilities (N, V) for a tensor of logits (N, V), on its device and in its format."""
    rows = calibrator(logits.detach().cpu().numpy().astype(np.float64))
    return torch.as_tensor(rows, dtype=logits.dtype, device=logits.device)


class BatchSteering(AdapterLogitsProcessor):  # type: ignore[misc]  # vLLM is untyped here
    """The plug-in of Model Runner V1: vLLM itself keeps track of which row is which request."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Return nothing when the request carries a calibrator or none; raised where the request comes in."""
        carried(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """Return False: vLLM would else act after the temperature, and not at all on greedy requests."""
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        """Return what acts on one request's row; None for a request without a calibrator."""
        calibrator = carried(params)
        if calibrator is None:
            return None

        def act(output_ids: Any, row: Any) -> Any:
            return steered(calibrator, row[None])[0]

        return act


class SlotSteering(SlotInterface or object):  # type: ignore[misc]  # vLLM is untyped here
    """The plug-in of Model Runner V2: calibrators by slot; a slot is used again by later requests."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        """Begin with empty slots."""
        self._slots: dict[int, Calibrator] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Return nothing when the request carries a calibrator or none; raised where the request comes in."""
        carried(sampling_params)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Return whether the request that enters a slot is steered; what the slot held before is forgotten."""
        calibrator = carried(sampling_params)
        self._slots.pop(req_idx, None)
        if calibrator is not None:
            self._slots[req_idx] = calibrator
        return calibrator is not None

    def apply_staged_writes(self) -> None:
        """Return nothing: there is nothing on the device."""

    def apply(self, logits: Any, ctx: Any) -> Any:
        """Return `logits` (rows, V) with the rows of steered requests calibrated; several rows may be one request's."""
        for row, slot in enumerate(ctx.expanded_idx_mapping.tolist()):
            if slot in self._slots:
                logits[row] = steered(self._slots[slot], logits[row][None])[0]
        return logits


class Steering:
    """The one name for both interfaces: making it gives the class that the engine's runner works with."""

    def __new__(cls, vllm_config: Any, *arguments: Any) -> Any:
        """Return the plug-in for the runner of `vllm_config`; `arguments` are that interface's own."""
        slots = SlotInterface is not None and vllm_config.use_v2_model_runner
        return (SlotSteering if slots else BatchSteering)(vllm_config, *arguments)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Return nothing when the request carries a calibrator or none."""
        carried(sampling_params)


for interface in (BatchInterface, SlotInterface):
    if interface is not None:
        interface.register(Steering)  # vLLM asks for a subclass before it makes one
