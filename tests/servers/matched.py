"""One model in all formats: a Hugging Face directory and a 32-bit GGUF file of the very same weights.

The tiny one is random and for tests; any Llama with a byte-level tokenizer can be converted, so benchmarks use a real
one.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from calibwrap.data import cache_folder, packaged_model

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
        write_gguf(matched.directory, matched.gguf)
    return matched


def smollm2(folder: Path | None = None) -> Matched:
    """Return SmolLM2-135M-Instruct in 32-bit numbers, made once from the packaged Q4_1 file and kept in the cache."""
    source = packaged_model("smollm2-135m-instruct")
    folder = folder or cache_folder() / "float32"
    matched = Matched(folder / source.stem, folder / f"{source.stem}.gguf")
    plain_directory(source, matched.directory)
    if not matched.gguf.exists():
        write_gguf(matched.directory, matched.gguf, "smollm")
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


def plain_directory(source: Path, directory: Path) -> Path:
    """Write the weights of a GGUF file, turned into 32-bit numbers by Transformers, as a model directory; once."""
    if not (directory / "config.json").exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other packages' deprecations while they load
            model = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
        for owner, name in ((model, "hf_quantizer"), (model, "quantization_method")):
            if name in vars(owner):
                delattr(owner, name)
        del model.config.quantization_config
        tokenizer.save_pretrained(directory)
        model.save_pretrained(directory)
    return directory


def write_gguf(directory: Path, path: Path, pretokenizer: str = "gpt-2") -> Path:
    """Write the weights and the tokenizer of a Llama directory as a 32-bit GGUF file; nothing is rounded.

    `pretokenizer` is llama.cpp's name of how the tokenizer cuts words: "gpt-2", "smollm".
    """
    model = AutoModelForCausalLM.from_pretrained(str(directory), dtype=torch.float32)
    writer = gguf.GGUFWriter(str(path.with_suffix(".part")), "llama")
    _write_sizes(writer, model.config)
    _write_tokens(writer, directory, model.config.vocab_size, pretokenizer)
    for name, tensor in model.state_dict().items():
        short = _gguf_name(name, model.config.tie_word_embeddings)
        if short:
            writer.add_tensor(short, _array(name, tensor, model.config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_suffix(".part").rename(path)


def _write_sizes(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(0)


def _write_tokens(writer: gguf.GGUFWriter, directory: Path, size: int, pretokenizer: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    stored = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=ids.__getitem__)
    if len(tokens) != size:
        raise ValueError(f"The tokenizer has {len(tokens)} tokens, and the model {size}.")
    special = set(tokenizer.all_special_ids) | {entry["id"] for entry in stored["added_tokens"] if entry["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pretokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [int(gguf.TokenType.CONTROL if index in special else gguf.TokenType.NORMAL) for index in range(size)]
    )
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in stored["model"]["merges"]]
    )
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def _gguf_name(name: str, tied: bool) -> str:
    """Return llama.cpp's name of a tensor, "" for one that is another's copy."""
    if name == "lm_head.weight":
        return "" if tied else "output.weight"
    if name in _WHOLE:
        return _WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def _array(name: str, tensor: Any, config: LlamaConfig) -> np.ndarray:
    """Return the numbers; llama.cpp turns even entries with the odd ones after them, Transformers two halves."""
    array = tensor.float().numpy()
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return array
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, array.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
