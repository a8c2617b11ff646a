"""What a study's generation probe costs beside a plain Transformers forward over the same texts, and its memory.

Time: the same batches of packaged text, by turns, one thread: `generation` at every place, and a plain forward that
gives the logits of every place and nothing else. A ratio of processor seconds is taken within each round, so that it
does not matter what else the machine does. Memory: peak resident size of a process of its own that carries out a whole
study, journal and report included, of so many positions of packaged text (BoolQ's train passages, again and again under
other names), by a tiny Llama that says random things, so that what is seen is what the study keeps.

    OMP_NUM_THREADS=1 python benchmarks/lifecycle_speed.py [--texts 24] [--rounds 5] [--positions 100000 1000000]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import calibwrap as cw
from calibwrap.data.passages import packaged_passages
from calibwrap.lifecycle.corpora import Document, load_documents

LEAST = 32
CHARACTERS = 6
"""Characters of text for each position: more than a token has, with the context that does not count."""


def plain(adapter: Any, texts: list[Document]) -> int:
    """Read the texts by a plain forward, batch by batch, and return the number of places."""
    import torch

    count, size = 0, adapter.provides.batch_size
    with torch.no_grad():
        for start in range(0, len(texts), size):
            batch = adapter.tokenizer(
                [one.text for one in texts[start : start + size]], return_tensors="pt", padding=True
            )
            logits = adapter.model(**batch, use_cache=False).logits
            count += int(batch["attention_mask"].sum()) - LEAST * len(logits)
    return count


def ours(adapter: Any, texts: list[Document]) -> int:
    """Read the same texts by the probe, into a tally, and return the number of events."""
    from calibwrap.lifecycle.probes import generation
    from calibwrap.lifecycle.tally import Tally

    tally = Tally.empty()
    for seen in generation(adapter, texts, least_context=LEAST, positions=None, seed=0):
        tally = tally.update(seen.name, seen.confidence, seen.correct, seen.logprob)
    return tally.n


def speed(texts: int, rounds: int, batch_size: int) -> dict[str, float]:
    """Return positions a second of both, and the ratio with its spread."""
    import torch

    from calibwrap.adapters.hf import Transformers
    from calibwrap.data import packaged_model

    torch.set_num_threads(1)
    adapter = Transformers.load(str(packaged_model("smollm2-135m-instruct")), batch_size=batch_size)
    documents = sorted(load_documents("boolq")[:texts], key=lambda one: len(one.text))
    for function in (plain, ours):
        function(adapter, documents[:batch_size])
    ratios, rates = [], {plain: list[float](), ours: list[float]()}
    for _ in range(rounds):
        for function in (plain, ours):
            began = time.process_time()
            count = function(adapter, documents)
            rates[function].append(count / (time.process_time() - began))
        ratios.append(rates[ours][-1] / rates[plain][-1])
    return {
        "plain_positions_a_second": statistics.median(rates[plain]),
        "calibwrap_positions_a_second": statistics.median(rates[ours]),
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_greatest": max(ratios),
    }


def prepared(folder: Path, positions: int) -> None:
    """Write a tiny model, and a corpus with tokens enough."""
    from lifecycle_ladder import tokenizer_of
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = [one.text for one in packaged_passages("boolq", "train")]
    tokenizer = tokenizer_of(folder / "model", texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        characters, number = 0, 0
        while characters < CHARACTERS * positions:
            text = texts[number % len(texts)]
            file.write(json.dumps({"id": f"text-{number}", "text": text}) + "\n")
            characters, number = characters + len(text), number + 1


def grown(folder: Path, positions: int) -> None:
    """Carry a study of at least so many positions out, and print the peak resident size in MiB."""
    import torch

    torch.set_num_threads(1)
    probe = {"source": str(folder / "corpus.jsonl"), "events": positions * 6 // 5, "positions": None}
    model = {"stage": "random", "spec": f"hf:{folder / 'model'}", "settings": {"batch_size": 16}}
    study = cw.study({"models": [model], "probes": {"generation": probe}}, folder / f"study-{positions}")
    (row,) = study.rows()
    print(json.dumps({"n": row["n"], "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def child(name: str, folder: str, count: int) -> str:
    """Return what a process of its own prints that carries out one of the two."""
    command = [sys.executable, __file__, "--child", name, folder, str(count)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--positions", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.child:
        name, folder, count = chosen.child
        {"prepared": prepared, "grown": grown}[name](Path(folder), int(count))
        return
    # all before this process loads a model: a child's peak begins with the size of the process that started it
    with tempfile.TemporaryDirectory() as folder:
        child("prepared", folder, max(chosen.positions))
        found: dict[str, Any] = {"memory": [json.loads(child("grown", folder, count)) for count in chosen.positions]}
    found["speed"] = speed(chosen.texts, chosen.rounds, chosen.batch_size)
    for key, value in found["speed"].items():
        print(f"{key}: {value:.3f}")
    for one in found["memory"]:
        print(f"{one['n']} positions: peak {one['peak_mib']:.0f} MiB")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
