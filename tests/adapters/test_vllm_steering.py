"""The plug-in against both of vLLM's interfaces, and the text by which a calibrator reaches it.

The classes are vLLM's own; the runner of Model Runner V2, which needs Triton, is a stub of what it calls.
"""

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from calibwrap.base import Calibrator
from calibwrap.calibrators import Identity, MatrixScaling, Temperature, VectorScaling, chain
from calibwrap.errors import CapabilityError, InputError
from calibwrap.scores import log_softmax
from calibwrap.testing.adapter_probe import Only, Sharpen

from .vllm_models import quietly


@pytest.fixture(scope="module")
def plug():
    """The module that vLLM imports, here and in its engine's process."""

    def load():
        import calibwrap.adapters._vllm_steering as module

        return module

    return quietly(load)


@pytest.fixture(scope="module")
def wire():
    import calibwrap.adapters._vllm_wire as module

    return module


T2 = Temperature(2.0, level="token")
LOGITS = np.array([[3.0, 1.0, 0.0], [0.0, 5.0, 1.0], [2.0, 2.0, -np.inf]], dtype=np.float32)


@dataclass(frozen=True)
class Foreign(Calibrator):
    kind: ClassVar[str] = "foreign"
    level: str = "token"

    def logits(self, logprobs):
        return logprobs


@pytest.fixture
def request_of(plug, wire):
    """Make a request's sampling parameters, with a calibrator or without."""

    def make(calibrator=None):
        return SimpleNamespace(extra_args=None if calibrator is None else {plug.EXTRA: wire.to_text(calibrator)})

    return make


def v1(plug):
    return plug.Steering(SimpleNamespace(use_v2_model_runner=False), torch.device("cpu"), False)


def v2(plug):
    return plug.Steering(SimpleNamespace(use_v2_model_runner=True), SimpleNamespace())


def test_v6_each_runner_gets_its_own_interface(plug):
    from vllm.v1.sample.logits_processor import LogitsProcessor as Batch
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as Slot

    assert isinstance(v1(plug), Batch)
    assert not isinstance(v1(plug), Slot)
    assert isinstance(v2(plug), Slot)
    assert not isinstance(v2(plug), Batch)


def test_v6_both_loaders_of_vllm_take_the_one_name(plug):
    """vLLM's own loaders find the class under the name that `load` gives, and pass it."""
    from vllm.v1.sample.logits_processor import build_logitsprocs
    from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs_by_fqcns

    from calibwrap.adapters.vllm_engine import STEERING

    config = SimpleNamespace(
        use_v2_model_runner=False, speculative_config=None, scheduler_config=SimpleNamespace(max_num_seqs=4)
    )
    made = build_logitsprocs(config, torch.device("cpu"), False, False, [STEERING])
    assert [type(one) for one in made.non_argmax_invariant][-1] is plug.BatchSteering
    assert _load_v2_logitsprocs_by_fqcns([STEERING]) == [plug.Steering]


def test_v6_versions_before_runner_v2_get_the_old_interface(plug, monkeypatch):
    monkeypatch.setattr(plug, "SlotInterface", None)
    assert isinstance(plug.Steering(SimpleNamespace(), torch.device("cpu"), False), plug.BatchSteering)


def test_v6_nothing_is_registered_for_every_vllm():
    from importlib.metadata import entry_points

    assert not [one for one in entry_points(group="vllm.logits_processors") if "calibwrap" in one.value]


def test_batch_interface_steers_the_rows_of_its_requests(plug, request_of):
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    processor = v1(plug)
    assert not processor.is_argmax_invariant()
    rows = [(0, request_of(T2), None, []), (1, request_of(), None, [])]
    processor.update_state(BatchUpdate(batch_size=2, removed=[], added=rows, moved=[]))
    got = processor.apply(torch.tensor(LOGITS[:2])).numpy()
    np.testing.assert_allclose(got[0], log_softmax(LOGITS[0] / 2), atol=1e-6)
    np.testing.assert_array_equal(got[1], LOGITS[1])
    moved = [(0, 1, MoveDirectionality.SWAP)]
    processor.update_state(BatchUpdate(batch_size=2, removed=[], added=[], moved=moved))
    got = processor.apply(torch.tensor(LOGITS[:2])).numpy()
    np.testing.assert_array_equal(got[0], LOGITS[0])
    np.testing.assert_allclose(got[1], log_softmax(LOGITS[1] / 2), atol=1e-6)


def test_slot_interface_steers_every_row_of_a_slot_and_forgets_old_requests(plug, request_of):
    processor = v2(plug)
    assert processor.add_request(7, request_of(T2))
    assert not processor.add_request(3, request_of())
    processor.apply_staged_writes()
    layout = SimpleNamespace(expanded_idx_mapping=torch.tensor([7, 3, 7]))  # a request may have several rows
    got = processor.apply(torch.tensor(LOGITS), layout).numpy()
    for row in (0, 2):
        np.testing.assert_allclose(got[row], log_softmax(LOGITS[row] / 2), atol=1e-6)
    np.testing.assert_array_equal(got[1], LOGITS[1])
    assert not processor.add_request(7, request_of())
    np.testing.assert_array_equal(processor.apply(torch.tensor(LOGITS), layout).numpy(), LOGITS)


def test_v1_steering_divides_logits_and_stays_normalised(plug):
    """log p / T is not a log-probability; the calibrated row is softmax(z / T) again."""
    got = plug.steered(T2, torch.tensor(LOGITS)).double().numpy()
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(got, log_softmax(LOGITS / 2), atol=1e-6)
    assert np.abs(got[0] - log_softmax(LOGITS[0]) / 2).max() > 0.1


@pytest.mark.parametrize("which", [v1, v2], ids=["batch", "slots"])
@pytest.mark.parametrize("text", ["nonsense", "[1]", '{"calibrator": "os:getcwd", "fields": {}}', "{}"])
def test_a_broken_text_is_refused_where_the_request_comes_in(plug, which, text):
    request = SimpleNamespace(extra_args={plug.EXTRA: text})
    for kind in (plug.Steering, type(which(plug))):
        with pytest.raises(ValueError, match="calibrator"):
            kind.validate_params(request)


@pytest.mark.parametrize(
    "calibrator",
    [
        Temperature(0.1 + 0.2, level="token"),
        Identity(level="token"),
        VectorScaling([1.5, 0.5], [0.1, 1e-17]),
        MatrixScaling(np.eye(2) + 1 / 3, [0.0, 1.0]),
        chain(Temperature(2.0), VectorScaling([1.0, 2.0], [0.0, 0.0])),
        Only((3, 5)),
    ],
    ids=lambda one: one.kind,
)
def test_numbers_arrive_bit_for_bit(wire, calibrator):
    back = wire.from_text(wire.to_text(calibrator))
    assert type(back) is type(calibrator)
    assert wire.to_text(back) == wire.to_text(calibrator)
    size = 2 if calibrator.kind != "only" else 6
    row = log_softmax(np.arange(float(size)))[None]
    np.testing.assert_array_equal(back(row), calibrator(row))


def test_a_class_that_the_engine_cannot_find_is_named(wire):
    with pytest.raises(CapabilityError, match=r"'Foreign'.*entry point"):
        wire.to_text(Foreign())


def test_numbers_that_are_none_are_refused(wire):
    with pytest.raises(InputError, match="NaN"):
        wire.to_text(Sharpen(float("nan")))


def test_fields_that_cannot_travel_are_refused(wire):
    with pytest.raises(InputError, match="is a object"):
        wire.to_text(Sharpen(object()))


@pytest.mark.parametrize("name", ["os:system", "calibwrap.errors:InputError", "unheard-of", "calibwrap.nowhere:X"])
def test_a_text_cannot_make_the_engine_import_anything_else(wire, name):
    with pytest.raises(InputError, match="must be what calibwrap wrote"):
        wire.from_text(json.dumps({"calibrator": name, "fields": {}}))
