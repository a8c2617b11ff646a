"""Packaged models: the smallest one for real."""

import pytest

from calibwrap.data import fetching, packaged_model, packaged_models
from calibwrap.errors import InputError


def test_the_smallest_model_is_there_verified_and_found_again_without_reading(monkeypatch):
    model = next(model for model in packaged_models() if model.name == "smollm2-135m-instruct")
    path = packaged_model(model.name)
    assert fetching.checksum(path) == model.sha256
    assert path.stat().st_size == model.size
    assert path.read_bytes()[:4] == b"GGUF"
    monkeypatch.setattr(fetching, "checksum", None)
    assert packaged_model(model.name) == path


def test_every_model_says_what_it_is():
    models = packaged_models()
    assert [model.name for model in models] == sorted(model.name for model in models)
    pins = [wheel.sha256 for model in models for wheel in model.wheels] + [model.sha256 for model in models]
    assert len(set(pins)) == len(pins) == 1 + 4 + 6 + 22 + 4
    assert all(len(pin) == 64 for pin in pins)
    assert all(model.licence and model.origin for model in models)


def test_an_unknown_model_gives_near_names():
    with pytest.raises(InputError, match=r"Did you mean 'smollm2-135m-instruct'\?"):
        packaged_model("SmolLM2-135M")
