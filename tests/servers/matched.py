"""One model in all formats: a Hugging Face directory and a 32-bit GGUF file of the very same weights.

The tiny one is random and for tests; benchmarks use a real one. Both are written by the package's own exporter, which
tests/training/test_gguf.py compares with Transformers.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from calibwrap.data import cache_folder, packaged_model
from calibwrap.training import export_gguf
from calibwrap.training.weights import load_trainable

VOCABULARY = 340
"""Tokens of the tiny model. A list of so many is complete; vLLM's engine dies of being asked for more."""
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CORPUS = [
    "Question: which planet is red?\nA. Mars\nB. Venus\nC. Saturn\nD. Jupiter\nAnswer: A\n",
    "Question: what is the capital of France?\nA. Rome\nB. Paris\nC. Berlin\nD. Madrid\nAnswer: B\n",
    "Question: is water wet? Answer: C. Answer: D. Größe, naïve café, Москва, 東京 ☂\n",
]


@dataclass(frozen=True)
class Matched:
    """Where the two forms of one model are."""

    directory: Path
    gguf: Path


def tiny(folder: Path, seed: int = 0) -> Matched:
    """Write a random Llama whose heads are wide enough for vLLM's CPU kernels, once a folder."""
    matched = Matched(folder / "tiny", folder / "tiny.gguf")
    if not matched.gguf.exists():
        tokenizer = byte_level()
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.2,
            bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config).eval()
            _prefer(model, tokenizer)
        model.save_pretrained(matched.directory)
        tokenizer.save_pretrained(matched.directory)
        export_gguf(matched.directory, matched.gguf)
    return matched


def smollm2(folder: Path | None = None) -> Matched:
    """Return SmolLM2-135M-Instruct in 32-bit numbers, made once from the packaged Q4_1 file and kept in the cache."""
    source = packaged_model("smollm2-135m-instruct")
    folder = folder or cache_folder() / "float32"
    matched = Matched(folder / source.stem, folder / f"{source.stem}.gguf")
    if not (matched.directory / "config.json").exists():
        model, tokenizer = load_trainable(str(source))
        tokenizer.save_pretrained(matched.directory)
        model.save_pretrained(matched.directory)
    if not matched.gguf.exists():
        export_gguf(matched.directory, matched.gguf)
    return matched


def _prefer(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let letters be likely; special tokens and pieces of characters never come, as in a model that can write.

    The first number of every embedding is the same, and no layer reads or writes it; the output head's column for it
    is then a bias of each token.
    """
    texts = [tokenizer.decode([index]) for index in range(len(tokenizer))]
    never, often = ("<pad>", "<s>", "<unk>"), (" A", " B", " C", " D")
    bias = [-20.0 if "\ufffd" in text or text in never else 3.0 if text in often else 0.0 for text in texts]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 4.0
        model.lm_head.weight[:, 0] = torch.tensor(bias)
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight[0] = 0.0
            for written in (layer.self_attn.o_proj, layer.mlp.down_proj):
                written.weight[0] = 0.0


def byte_level() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of 340 tokens that puts nothing around a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        chat_template=TEMPLATE,
    )  # fmt: skip
