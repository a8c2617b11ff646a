"""Models for the llama.cpp tests: tiny random ones, written once a session, and one real one."""

import pytest

from . import gguf_models as models

EXACT = {"n_threads": 1, "n_threads_batch": 1, "type_k": 0, "type_v": 0, "flash_attn": False}
"""One thread and a 32-bit cache, so that results can be compared tightly."""


@pytest.fixture(scope="session")
def gguf_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="session")
def tiny_bos(gguf_folder):
    """SentencePiece vocabulary with byte fallback, BOS in front, a template that writes BOS itself."""
    vocabulary = models.byte_fallback()
    return models.write_llama(gguf_folder / "bos.gguf", vocabulary, add_bos=True, template=models.BOS_TEMPLATE)


@pytest.fixture(scope="session")
def tiny_no_bos(gguf_folder):
    """Byte-pair vocabulary, no BOS, no template."""
    return models.write_llama(gguf_folder / "no-bos.gguf", models.byte_pairs(), add_bos=False, seed=1)


@pytest.fixture(params=["bos", "no-bos"])
def tiny(request, tiny_bos, tiny_no_bos):
    return {"bos": tiny_bos, "no-bos": tiny_no_bos}[request.param]


@pytest.fixture
def load():
    """Load a file with one thread and a 32-bit cache; everything is closed in the end."""
    from calibwrap.adapters.llamacpp import LlamaCpp

    loaded = []

    def open_model(path, **options):
        loaded.append(LlamaCpp.load(str(path), **{**EXACT, **options}))
        return loaded[-1]

    yield open_model
    for adapter in loaded:
        adapter.close()


@pytest.fixture(scope="session")
def smollm_gguf():
    """SmolLM2-135M-Instruct, a real model of 98 MB."""
    from calibwrap.data import packaged_model

    return packaged_model("smollm2-135m-instruct")
