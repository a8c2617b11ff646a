"""Real OpenAI-compatible servers on the loopback address: vLLM's, llama-cpp-python's, and llama.cpp's own.

    with llama_server("model.gguf") as server:
        lm = cw.wrap(f"openai:{server.model}", base_url=server.base_url)

Each is a process group of its own, on a free port, and is ended by its own number. llama.cpp's server is the one inside
the `xllamacpp` package, which this file starts by running itself as a script.
"""

import contextlib
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "small-model"
"""Under this name every server offers its model, so that no path of a machine shows up in a result."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""One thread, no network, a small cache: for servers and for an engine in the own process."""


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    kind: str
    """"vllm", "llama_cpp.server" or "llama-server"."""
    base_url: str
    """Ends in /v1."""
    model: str
    pid: int
    log: Path
    """What it wrote on standard output and standard error."""


@contextlib.contextmanager
def vllm_server(directory: str | Path, *arguments: str, timeout: float = 240.0) -> Iterator[Server]:
    """Start vLLM's server on a model directory; `arguments` go to its command line."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory)]
    command += ["--served-model-name", MODEL, "--host", HOST, "--port", str(port), "--enforce-eager"]
    defaults = {"--dtype": "float32", "--max-model-len": "512", "--generation-config": "vllm"}
    command += [word for pair in defaults.items() if pair[0] not in arguments for word in pair]
    with _running("vllm", [*command, *arguments], port, "/health", timeout) as server:
        yield server


@contextlib.contextmanager
def llama_cpp_server(gguf: str | Path, *arguments: str, timeout: float = 120.0) -> Iterator[Server]:
    """Start llama-cpp-python's server on a GGUF file; `arguments` go to its command line."""
    port = free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--model_alias", MODEL, "--host", HOST]
    command += ["--port", str(port), "--logits_all", "true"]
    defaults = {"--n_ctx": "512", "--n_threads": "1", "--n_threads_batch": "1", "--flash_attn": "false"}
    defaults |= {"--type_k": "0", "--type_v": "0"}
    command += [word for pair in defaults.items() if pair[0] not in arguments for word in pair]
    with _running("llama_cpp.server", [*command, *arguments], port, "/v1/models", timeout) as server:
        yield server


@contextlib.contextmanager
def llama_server(gguf: str | Path, *, timeout: float = 120.0, **settings: int | str | bool) -> Iterator[Server]:
    """Start llama.cpp's own server on a GGUF file; `settings` are fields of xllamacpp.CommonParams."""
    port = free_port()
    chosen = {"n_ctx": 512, "n_parallel": 1, "warmup": False, **settings}
    command = [sys.executable, str(Path(__file__).resolve()), str(gguf), str(port), json.dumps(chosen)]
    with _running("llama-server", command, port, "/health", timeout) as server:
        yield server


@contextlib.contextmanager
def fault_server(*arguments: str, timeout: float = 30.0) -> Iterator[Server]:
    """Start the small fault server in a process of its own; without arguments it makes no faults and costs little."""
    port = free_port()
    command = [sys.executable, "-m", "tests.servers.fault", "--port", str(port), *arguments]
    with _running("fault", command, port, "/v1/models", timeout, cwd=ROOT) as server:
        yield server


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(
    kind: str, command: Sequence[str], port: int, ready: str, timeout: float, cwd: Path | None = None
) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="server-") as folder:
        log = Path(folder) / "log.txt"
        with log.open("wb") as file:
            environment: Mapping[str, str] = {**os.environ, **ENVIRONMENT}
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=cwd or folder, env=environment,
                start_new_session=True,
            )  # fmt: skip
        try:
            _wait(process, f"http://{HOST}:{port}{ready}", timeout, log)
            yield Server(kind, f"http://{HOST}:{port}/v1", MODEL, process.pid, log)
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], url: str, timeout: float, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    state = f"did not answer within {timeout:.0f} s" if process.poll() is None else f"ended with {process.returncode}"
    tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-30:])
    raise RuntimeError(f"The server {state}: {' '.join(map(str, process.args))}\n{tail}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: vLLM's engine is a child of its server."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    process.wait(10.0)


def _serve_llama(gguf: str, port: int, settings: Mapping[str, int | str | bool]) -> None:
    """Run llama.cpp's server until a signal comes; one thread and a 32-bit cache, so that numbers compare tightly."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = gguf
    parameters.model_alias = {MODEL}
    parameters.hostnames = [HOST]
    parameters.port = port
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    for name, value in settings.items():
        setattr(parameters, name, value)
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    _serve_llama(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
