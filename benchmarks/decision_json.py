"""Does a temperature in decision.json do in Transformers what it does here?

    python benchmarks/decision_json.py --transformers FOLDER

FOLDER holds an unpacked Transformers of 5.23 or later, which need not be installed: `pip download --no-deps
transformers==5.23.0`, then unzip. A tiny random chat model answers questions of each type in Transformers' own decision
pipeline, first without the file, then with temperatures that `save_decision` wrote; what the pipeline says then is
compared with `Temperature` on what it said before. Choice questions are then asked once more of `transformers serve`,
by readout "decision".
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import calibwrap as cw

OPTIONS = ["calm", "angry", "sad", "glad"]
QUESTIONS = {
    "choice": {"type": "choice", "instructions": "Which tone?", "criteria": dict.fromkeys(OPTIONS)},
    "score": {"type": "score", "instructions": "How urgent?", "criteria": ["not", "a little", "very"]},
    "noul": {"type": "noul", "instructions": "Is it spam?"},
}
TEMPERATURES = {"choice": 1.7, "score": 0.4, "noul": 12.5}
PIPELINE = """
import json, sys
from transformers import pipeline
states, questions = json.load(sys.stdin)
decide = pipeline("decision", model=sys.argv[1], dtype="float32", device="cpu")
print(json.dumps([decide({"state": state, "questions": questions}) for state in states]))
"""
MODEL = """
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
words = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["Yes", "No"]
own = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\\n{% endfor %}[assistant]"
tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, chat_template=template, unk_token="<unk>")
tokenizer.add_tokens(["Yes", "No"])
torch.manual_seed(0)
config = LlamaConfig(vocab_size=len(tokenizer) + 2, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                     num_attention_heads=2, initializer_range=0.3)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformers", type=Path, help="folder of an unpacked Transformers of 5.23 or later")
    chosen = parser.parse_args()
    if chosen.transformers is None and importlib.util.find_spec("transformers.decision") is None:
        print("skipped: the installed Transformers has no decision pipeline; name one with --transformers FOLDER")
        return
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    if chosen.transformers is not None:
        environment["PYTHONPATH"] = str(chosen.transformers.resolve())
    states = [f"Letter {number}: where is my money?" for number in range(20)]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        python(MODEL, model, "", environment)
        asked = json.dumps([states, QUESTIONS])
        before = json.loads(python(PIPELINE, model, asked, environment))
        for kind, value in TEMPERATURES.items():
            cw.save_decision(cw.Temperature(value), model, question_type=kind)
        after = json.loads(python(PIPELINE, model, asked, environment))
        served = ask_server(model, environment, states)
    print("type     temperature   largest change of a probability   largest difference to Temperature")
    for kind, value in TEMPERATURES.items():
        raw, told = (np.array([probabilities(reply[kind]) for reply in replies]) for replies in (before, after))
        ours = np.exp(cw.Temperature(value)(np.log(raw)))
        show(kind, value, raw, told, ours)
        if kind == "choice":
            show("served", value, raw, served, ours)


def show(kind: str, value: float, raw: np.ndarray, told: np.ndarray, ours: np.ndarray) -> None:
    print(f"{kind:8} {value:<13} {np.abs(told - raw).max():<33.3f} {np.abs(told - ours).max():.1e}")


def probabilities(answer: dict) -> list[float]:
    """Return the probabilities of an answer's options, in order."""
    return [answer["noul"], 1 - answer["noul"]] if answer["type"] == "noul" else list(answer["probabilities"].values())


def ask_server(model: Path, environment: dict[str, str], states: list[str]) -> np.ndarray:
    """Return the probabilities that readout "decision" reads from `transformers serve`."""
    questions = [cw.Question("Which tone?", OPTIONS, context=state) for state in states]
    with serving(model, environment) as url, cw.wrap(f"openai:{model}", base_url=url) as lm:
        return lm.scores(questions, readout="decision").probabilities


@contextlib.contextmanager
def serving(model: Path, environment: dict[str, str]) -> Iterator[str]:
    """Start the server on a free port of the loopback address, give its base URL, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    environment = {**environment, "HF_HUB_CACHE": str(model.parent), "HF_HUB_OFFLINE": "1"}
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the server answers."""
    for _ in range(300):
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        if server.poll() is not None:
            break
        time.sleep(0.4)
    raise SystemExit(f"transformers serve does not answer at {url}")


def python(code: str, model: Path, text: str, environment: dict[str, str]) -> str:
    """Return what a Python with that environment prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], input=text, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip().rpartition("\n")[2]


if __name__ == "__main__":
    main()
