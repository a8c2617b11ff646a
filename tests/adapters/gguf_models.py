"""Tiny GGUF models of random weights, and a plain numpy forward of the Llama ones: the independent truth."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, FEED_FORWARD = 64, 2, 4, 2, 128
HEAD = HIDDEN // HEADS
ROPE_BASE, EPSILON = 10_000.0, 1e-5
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6

BOS_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}{% if enable_thinking is defined and not enable_thinking %}"
    "<0>{% endif %}"
)
"""Writes BOS itself, as most templates of models with BOS do, and shows whether thinking was switched off."""
PLAIN_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
REFUSING_TEMPLATE = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}hello"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens as a GGUF file holds them."""

    model: str
    tokens: list[bytes]
    types: list[int]
    merges: tuple[str, ...] = ()
    bos: int = 1
    eos: int = 2


def byte_fallback(extra: int = 0) -> Vocabulary:
    """SentencePiece style: three specials, 256 bytes, " A".." P", "A".."P", and `extra` words nobody writes."""
    specials = [b"<unk>", b"<s>", b"</s>"]
    letters = [chr(65 + index).encode() for index in range(16)]
    words = ["\u2581".encode() + letter for letter in letters] + letters
    words += [f"~{index}~".encode() for index in range(extra)]
    tokens = [*specials, *(f"<0x{value:02X}>".encode() for value in range(256)), *words]
    return Vocabulary("llama", tokens, [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(words))


def byte_pairs() -> Vocabulary:
    """GPT-2 style: three specials, 256 bytes, and "th", "the", " A", " the" as merges; no BOS by default."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in printable]
    shown = {value: chr(value) for value in printable} | {value: chr(256 + n) for n, value in enumerate(others)}
    merges = ("t h", "th e", "\u0120 A", "\u0120 the")
    tokens = ["<pad>", "<|im_start|>", "<|im_end|>", *(shown[value] for value in range(256))]
    tokens += [merge.replace(" ", "") for merge in merges]
    types = [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3)
    return Vocabulary("gpt2", [token.encode() for token in tokens], types, merges)


@dataclass(frozen=True)
class Tiny:
    """A file and the weights in it, as (out, in) matrices by GGUF name."""

    path: Path
    weights: dict[str, np.ndarray]

    def logits(self, ids: list[int]) -> np.ndarray:
        """Return (T, V) raw logits after each of the T tokens, in float64."""
        weights = {name: array.astype(np.float64) for name, array in self.weights.items()}
        x = weights["token_embd"][ids]
        for layer in range(LAYERS):
            own = {name.split(".")[2]: array for name, array in weights.items() if name.startswith(f"blk.{layer}.")}
            x = x + attention(norm(x, own["attn_norm"]), own)
            h = norm(x, own["ffn_norm"])
            gate = h @ own["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ own["ffn_up"].T)) @ own["ffn_down"].T
        return norm(x, weights["output_norm"]) @ weights["output"].T

    def logprobs(self, ids: list[int]) -> np.ndarray:
        """Return (T, V) log-probabilities after each of the T tokens."""
        logits = self.logits(ids)
        top = logits.max(axis=1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))

    def continuation(self, ids: list[int], suffix: list[int]) -> np.ndarray:
        """Return (T,) log-probabilities of the tokens of `suffix` after `ids`."""
        rows = self.logprobs([*ids, *suffix])[len(ids) - 1 : -1]
        return rows[np.arange(len(suffix)), suffix]


def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPSILON) * weight


def rotate(x: np.ndarray) -> np.ndarray:
    """Rotary embedding of (T, heads, HEAD): each even entry and the odd one after it turn together."""
    frequencies = ROPE_BASE ** (-np.arange(0, HEAD, 2) / HEAD)
    angles = np.arange(len(x))[:, None] * frequencies
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None, :]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def attention(h: np.ndarray, own: dict[str, np.ndarray]) -> np.ndarray:
    length = len(h)
    q = rotate((h @ own["attn_q"].T).reshape(length, HEADS, HEAD))
    k = rotate((h @ own["attn_k"].T).reshape(length, KV_HEADS, HEAD)).repeat(HEADS // KV_HEADS, axis=1)
    v = (h @ own["attn_v"].T).reshape(length, KV_HEADS, HEAD).repeat(HEADS // KV_HEADS, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(HEAD)
    scores = np.where(np.tril(np.ones((length, length), dtype=bool)), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", shares, v).reshape(length, -1) @ own["attn_output"].T


def write_llama(
    path: Path,
    vocabulary: Vocabulary,
    *,
    add_bos: bool,
    template: str = "",
    context: int = 512,
    seed: int = 0,
) -> Tiny:
    """Write a Llama of random weights, spread so that probabilities differ, and return it."""
    random = np.random.default_rng(seed)

    def matrix(out: int, into: int, spread: float) -> np.ndarray:
        return random.normal(0.0, spread, (out, into)).astype(np.float32)

    size, kv = len(vocabulary.tokens), HEAD * KV_HEADS
    shapes = {
        "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (FEED_FORWARD, HIDDEN), "ffn_up": (FEED_FORWARD, HIDDEN), "ffn_down": (HIDDEN, FEED_FORWARD),
    }  # fmt: skip
    weights = {"token_embd": matrix(size, HIDDEN, 1.0), "output": matrix(size, HIDDEN, 0.25)}
    weights["output_norm"] = np.ones(HIDDEN, dtype=np.float32)
    for layer in range(LAYERS):
        weights |= {f"blk.{layer}.{name}": matrix(*shape, 0.15) for name, shape in shapes.items()}
        weights |= {f"blk.{layer}.{name}": np.ones(HIDDEN, dtype=np.float32) for name in ("attn_norm", "ffn_norm")}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(ROPE_BASE)
    _finish(writer, vocabulary, weights, add_bos, template)
    return Tiny(path, weights)


def write_mamba(path: Path, vocabulary: Vocabulary, seed: int = 0) -> Path:
    """Write a recurrent model of random weights: its memory cannot go back."""
    random = np.random.default_rng(seed)
    inner, state, rank, kernel, size = 2 * HIDDEN, 16, 4, 4, len(vocabulary.tokens)

    def matrix(*shape: int, spread: float = 0.15) -> np.ndarray:
        return random.normal(0.0, spread, shape).astype(np.float32)

    weights = {"token_embd": matrix(size, HIDDEN, spread=1.0), "output": matrix(size, HIDDEN, spread=0.25)}
    weights["output_norm"] = np.ones(HIDDEN, dtype=np.float32)
    for layer in range(LAYERS):
        own = {
            "attn_norm": np.ones(HIDDEN, dtype=np.float32), "ssm_in": matrix(2 * inner, HIDDEN),
            "ssm_conv1d": matrix(inner, kernel, spread=0.5), "ssm_conv1d.bias": matrix(inner),
            "ssm_x": matrix(rank + 2 * state, inner), "ssm_dt": matrix(inner, rank), "ssm_dt.bias": matrix(inner),
            "ssm_a.": -np.exp(matrix(inner, state)), "ssm_d.": matrix(inner), "ssm_out": matrix(HIDDEN, inner),
        }  # fmt: skip
        weights |= {f"blk.{layer}.{name}": array for name, array in own.items()}
    writer = gguf.GGUFWriter(str(path), "mamba")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    _finish(writer, vocabulary, weights, True, "")
    return path


def _finish(
    writer: gguf.GGUFWriter, vocabulary: Vocabulary, weights: dict[str, np.ndarray], add_bos: bool, template: str
) -> None:
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_file_type(0)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre("default" if vocabulary.model == "llama" else "gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    else:
        writer.add_token_scores([0.0] * len(vocabulary.tokens))
        writer.add_unk_token_id(0)
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(add_bos)
    if template:
        writer.add_chat_template(template)
    for name, array in weights.items():
        full = name[:-1] if name.endswith(".") else name if name.endswith(".bias") else f"{name}.weight"
        writer.add_tensor(full, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
