"""One tiny model, and one vLLM engine around it for the whole test session; engines take half a minute to start."""

import atexit
import functools
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import types
import warnings
from pathlib import Path

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked engine would hold the locks of this process's threads
    }
)

HOSTILE = {
    "do_sample": True,
    "temperature": 0.2,
    "top_k": 1,
    "top_p": 0.1,
    "repetition_penalty": 5.0,
    "max_new_tokens": 1,
}
"""What a repository's generation_config.json may say, and no request of ours may take over."""

OPTIONS = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 128,
    "max_num_seqs": 16,
    "max_logprobs": -1,
}


@functools.cache
def tiny():
    """The sibling module of tiny Transformers models, however this one was imported."""
    name = "vllm_hf_models"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("hf_models.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def transformers():
    """The same model and tokenizer behind Transformers: the truth."""
    models = tiny()
    tokenizer = models.byte_level(models.THINKING)
    model = models.llama(tokenizer, num_attention_heads=2, hidden_size=64, num_key_value_heads=1)
    return models.Transformers(model, tokenizer, batch_size=4)


@functools.cache
def folder():
    """A directory with the model as others publish it, gone when the session ends."""
    path = Path(tempfile.mkdtemp(prefix="calibwrap-vllm-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    own = transformers()
    own.model.save_pretrained(path)
    own.tokenizer.save_pretrained(path)
    config = path / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **HOSTILE}))
    return path


def shared_adapter():
    """The adapter that all tests share; tests leave it as it is, and it is closed when the session ends.

    This file is imported under several names, and the engine must be one: it is kept beside the modules.
    """
    session = sys.modules.setdefault("calibwrap_vllm_session", types.ModuleType("calibwrap_vllm_session"))
    if "adapter" not in vars(session):
        session.folder = folder()
        session.adapter = quietly(lambda: vllm_class().load(str(session.folder), **OPTIONS))
        atexit.register(session.adapter.close)
    return session.adapter


def vllm_class():
    from calibwrap.adapters.vllm_engine import VLLM

    return VLLM


def quietly(make):
    """Return what `make` returns; other packages' deprecations while vLLM is imported are theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
