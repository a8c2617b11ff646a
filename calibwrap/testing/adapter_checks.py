"""The conformance checks of an adapter, chosen by what it says that it provides."""

from collections.abc import Mapping, Sequence

from calibwrap.base import Adapter
from calibwrap.questions import Prompt
from calibwrap.testing.adapter_drawing import DRAWING_CHECKS
from calibwrap.testing.adapter_inputs import INPUT_CHECKS
from calibwrap.testing.adapter_probe import CONTINUATIONS, PROMPTS, AdapterProbe
from calibwrap.testing.adapter_scores import SCORE_CHECKS
from calibwrap.testing.adapter_streaming import STREAM_CHECKS
from calibwrap.testing.checks import Check, run_checks

ADAPTER_CHECKS = (*SCORE_CHECKS, *DRAWING_CHECKS, *STREAM_CHECKS, *INPUT_CHECKS)
"""Every check of an adapter; each is a function of an `AdapterProbe`."""


def adapter_checks(
    adapter: Adapter,
    prompts: Sequence[Prompt] = PROMPTS,
    continuations: Sequence[str] = CONTINUATIONS,
    *,
    tolerance: float = 1e-4,
    draws: int = 400,
    exempt: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return what each check of the `Adapter` contract found; checks of what it does not provide are not applicable.

    Args:
        adapter: The adapter around a model, which should be small: some hundred completions are drawn.
        prompts: At least two prompts that differ in length and in what follows them.
        continuations: At least two continuations of different lengths.
        tolerance: Largest difference in nats between two readings of one log-probability.
        draws: Completions drawn where frequencies are compared.
        exempt: Names of checks known to fail, each with its reason; one that passes is a failure.

    Raises:
        CheckFailed: lists every check that failed: what was expected, what came, how to mend it.

    >>> from calibwrap.testing import ToyAdapter
    >>> {check.outcome for check in adapter_checks(ToyAdapter())}
    {'passed'}
    """
    probe = AdapterProbe(adapter, tuple(prompts), tuple(continuations), tolerance, draws)
    return run_checks(f"The adapter '{adapter.name}'", ADAPTER_CHECKS, probe, exempt)
