"""GGUF files written here: llama.cpp and Transformers read the same model out of them."""

import json

import numpy as np
import pytest
from tokenizers import Regex, pre_tokenizers

import calibwrap as cw
from calibwrap.errors import InputError, ModelError
from calibwrap.training import export_gguf, save_weights
from calibwrap.training.gguf_tokenizer import splitting
from calibwrap.training.weights import load_trainable
from tests.adapters import hf_models
from tests.adapters.conftest import EXACT

TEXTS = ["The capital of France is Paris.", "Question: 12 naïve   cafés?\nAnswer:", "東京 — ☂"]
VARIANTS = {
    "tied": {"tie_word_embeddings": True},
    "grouped": {},
    "biased": {"attention_bias": True, "mlp_bias": True, "head_dim": 16},
    "padded": {"padded": 5},
}


def saved(folder, tokenizer=None, **options):
    """Return a folder with a tiny Llama whose every weight, biases and norms included, differs from its neighbours."""
    import torch

    model = hf_models.llama(**options)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight), alpha=0.2)
    return save_weights(model, tokenizer or hf_models.byte_level(), folder).weights


def llama_logprobs(path, text):
    """Return the ids of a text and the log-probabilities (V,) after it by llama.cpp, with a 32-bit cache."""
    from calibwrap.adapters.llamacpp import LlamaCpp

    adapter = LlamaCpp.load(str(path), **EXACT)
    try:
        ids = adapter.tokenize(text)[0]
        return ids, adapter.next_token([text])[0].logprobs[0]
    finally:
        adapter.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_llama_cpp_and_transformers_agree(tmp_path, variant):
    folder = saved(tmp_path, **VARIANTS[variant])
    model, tokenizer = load_trainable(str(folder))
    path = export_gguf(folder, tmp_path / "tiny.gguf")
    for text in TEXTS:
        ids, last = llama_logprobs(path, text)
        assert ids == tokenizer(text).input_ids
        np.testing.assert_allclose(last, hf_models.plain_logprobs(model, ids)[-1], atol=1e-4)


def test_back_through_transformers_the_weights_are_the_same(tmp_path):
    folder = saved(tmp_path)
    model, tokenizer = load_trainable(str(folder))
    again, its_tokenizer = load_trainable(str(export_gguf(folder, tmp_path / "tiny.gguf")))
    for text in TEXTS:
        assert its_tokenizer(text).input_ids == tokenizer(text).input_ids
    assert its_tokenizer.chat_template == tokenizer.chat_template
    theirs = again.state_dict()
    for name, weight in model.state_dict().items():
        np.testing.assert_array_equal(theirs[name].numpy(), weight.numpy(), err_msg=name)


def test_trained_weights_answer_questions_through_llama_cpp(tmp_path):
    folder = saved(tmp_path)
    questions = [
        cw.Question("Which planet is red?", ["Mars", "New York", "Rome"], answer=0),
        cw.Question("Is water wet?", ["yes", "no"], answer=0, context="It rained."),
    ]
    path = export_gguf(folder, tmp_path / "tiny.gguf")
    with cw.wrap(f"hf:{folder}") as plain, cw.wrap(f"llama-cpp:{path}", **EXACT) as served:
        np.testing.assert_allclose(served.scores(questions).logprobs, plain.scores(questions).logprobs, atol=1e-4)


@pytest.mark.parametrize(("outtype", "bound"), [("f16", 0.02), ("q8_0", 0.5)])
def test_smaller_formats_lose_a_little(tmp_path, outtype, bound):
    folder = saved(tmp_path)
    exact = export_gguf(folder, tmp_path / "f32.gguf")
    small = export_gguf(folder, tmp_path / "small.gguf", outtype=outtype)
    assert small.stat().st_size < exact.stat().st_size
    difference = np.abs(llama_logprobs(small, TEXTS[0])[1] - llama_logprobs(exact, TEXTS[0])[1]).max()
    assert 0 < difference < bound


def test_a_tokenizer_that_writes_its_begin_token_does_so_in_llama_cpp(tmp_path):
    from tokenizers import processors

    tokenizer = hf_models.byte_level.__wrapped__()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    folder = saved(tmp_path, tokenizer=tokenizer)
    path = export_gguf(folder, tmp_path / "tiny.gguf")
    ids, _ = llama_logprobs(path, "Paris")
    assert ids == tokenizer("Paris").input_ids
    assert ids[0] == 1
    assert load_trainable(str(path))[1]("Paris").input_ids == ids


def test_what_cannot_be_written_is_refused_by_name(tmp_path):
    other = save_weights(hf_models.gpt2(), hf_models.byte_level(), tmp_path / "gpt2").weights
    with pytest.raises(InputError, match=r"Got 'gpt2'.*convert_hf_to_gguf"):
        export_gguf(other, tmp_path / "x.gguf")
    pieces = save_weights(hf_models.llama(hf_models.metaspace()), hf_models.metaspace(), tmp_path / "pieces").weights
    with pytest.raises(InputError, match="Got Unigram"):
        export_gguf(pieces, tmp_path / "x.gguf")
    folder = saved(tmp_path)
    with pytest.raises(InputError, match=r"must be one of f32, f16, q8_0\. Got 'q4'"):
        export_gguf(folder, tmp_path / "x.gguf", outtype="q4")
    with pytest.raises(InputError, match="does not exist: make it first"):
        export_gguf(folder, tmp_path / "nowhere" / "x.gguf")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"rotary scaling 'default'\. Got 'linear'"):
        export_gguf(folder, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_a_folder_is_no_file_to_write_to(tmp_path):
    with pytest.raises(InputError, match="is a folder: give the path of a file"):
        export_gguf(tmp_path, tmp_path)


def test_folders_without_whole_weights_are_told(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        export_gguf(tmp_path, tmp_path / "x.gguf")
    folder = saved(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read"):
        export_gguf(folder, tmp_path / "x.gguf")
    weights.unlink()
    with pytest.raises(ModelError, match="no safetensors"):
        export_gguf(folder, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_splits_are_known_by_their_steps():
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    assert _split_as(digits) == "smollm"
    from calibwrap.training.gguf_tokenizer import _LLAMA_3

    split = pre_tokenizers.Split(Regex(_LLAMA_3), "isolated")
    assert _split_as(pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)]), True) == (
        "llama-bpe"
    )
    with pytest.raises(InputError, match="Got"):
        _split_as(pre_tokenizers.ByteLevel(True))
    with pytest.raises(InputError, match="Got"):
        _split_as(pre_tokenizers.Whitespace())


def _split_as(pre_tokenizer, ignore_merges=False):
    tokenizer = hf_models.byte_level.__wrapped__().backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.model.ignore_merges = ignore_merges
    return splitting(json.loads(tokenizer.to_str()))
