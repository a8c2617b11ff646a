"""Tiny random models and small real tokenizers for the tests of the Transformers adapter, and the plain truth."""

import functools

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

from calibwrap.adapters.hf import Transformers

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""A chat template that writes its own BOS, as most do."""

THINKING = TEMPLATE + "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
"""The same of a model that thinks unless told not to."""

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
CORPUS = [
    "The capital of France is Paris. The capital of Italy is Rome. Answer: A. Answer: B. New York and New Delhi.",
    "Question: which planet is red? Answer: Mars. Question: is water wet? Answer: yes, and no.",
    "Größe, naïve café, Москва, 東京 — and an umbrella ☂ on a rainy day.",
]


def _fast(tokenizer, **options):
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", **options
    )


@functools.cache
def byte_level(template=TEMPLATE):
    """Byte-level BPE without special tokens around a text, as GPT-2, Qwen and SmolLM have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIALS, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _fast(tokenizer, chat_template=template)


@functools.cache
def metaspace():
    """Unigram pieces with a dummy space in front, BOS before and EOS behind, as SentencePiece models have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=220, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False, initial_alphabet=list("abcz.")
    )
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return _fast(tokenizer, chat_template=TEMPLATE)


def build(cls, config, seed=0):
    """Return a random model whose weights depend on the seed alone, in the mode in which it is used."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(config).eval()


def _common(tokenizer, padded):
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {"vocab_size": len(tokenizer) + padded, **{f"{name}_token_id": value for name, value in ids.items()}}


def llama(tokenizer=None, padded=0, seed=0, **options):
    """Rotary positions, grouped attention."""
    settings = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.25}  # fmt: skip
    return build(
        LlamaForCausalLM, LlamaConfig(**{**_common(tokenizer or byte_level(), padded), **settings, **options}), seed
    )


def gpt2(tokenizer=None, **options):
    """Learned positions, tied head, dropout in training."""
    settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.25}
    return build(GPT2LMHeadModel, GPT2Config(**{**_common(tokenizer or byte_level(), 0), **settings, **options}))


def bloom():
    """ALiBi; forward has no position_ids."""
    settings = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.25}
    return build(BloomForCausalLM, BloomConfig(**_common(byte_level(), 0), **settings))


def gemma3(window=8, tokenizer=None):
    """Sliding and full attention in turns; the window is shorter than most prompts of the tests."""
    settings = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.25,
                "sliding_window": window, "layer_types": ["sliding_attention", "full_attention"]}  # fmt: skip
    return build(Gemma3ForCausalLM, Gemma3TextConfig(**_common(tokenizer or byte_level(), 0), **settings))


def mamba():
    """A state instead of keys and values: nothing to copy, nothing to crop."""
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "initializer_range": 0.25}
    return build(MambaForCausalLM, MambaConfig(**_common(byte_level(), 0), **settings))


FAMILIES = {
    "llama": llama,
    "gpt2": gpt2,
    "bloom": bloom,
    "gemma3": gemma3,
    "gemma3-wide": lambda: gemma3(64),
    "mamba": mamba,
}


@functools.cache
def adapter(family):
    """Return a shared adapter; tests do not change its model."""
    return Transformers(FAMILIES[family](), byte_level(), batch_size=4)


def plain_logprobs(model, ids):
    """Return log-probabilities (T, V) of one unpadded sequence read in full, no cache, softmax in float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits.double(), dim=-1).numpy()


def plain_score(model, prefix, tail):
    """Return the log-probability of each token of `tail` after `prefix`, read in full."""
    rows = plain_logprobs(model, [*prefix, *tail])[len(prefix) - 1 : -1]
    return rows[np.arange(len(tail)), tail]
