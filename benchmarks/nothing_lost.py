"""Is every question answered exactly once, and paid for once, whatever the server and the machine do?

1 000 questions go through `calibwrap evaluate openai:...`, a program of its own, to a server that answers 429 to one
request in five, drops one connection in twenty after it has computed the answer, and cuts one body in fifty. Half-way
the program is killed with SIGKILL, and `--resume` goes on. The server bills what it computes. Three servers: one that
honours Idempotency-Key, one that does not, and one that does not and loses no answer on the way.

    python benchmarks/nothing_lost.py [--questions 1000] [--seed 0] [--json FILE]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the server that the tests use
from tests.servers.fault import FaultServer
from tests.servers.fault_acts import OK, Act, cut, dropped, rate_limited, shares

LATENCY_SECONDS = 0.02
CONCURRENCY = 8
FAULTS = {"429": 0.2, "dropped": 0.05, "cut": 0.02}
LOSING = ((FAULTS["429"], rate_limited(0.02)), (FAULTS["dropped"], dropped("after")), (FAULTS["cut"], cut()))
SERVERS: dict[str, tuple[tuple[tuple[float, Act], ...], bool]] = {
    "honours Idempotency-Key": (LOSING, True),
    "does not honour it": (LOSING, False),
    "does not honour it, 429 only": (LOSING[:1], False),
}
"""Faults of a server, and whether a repeated key is recognised."""


@dataclass(frozen=True)
class Outcome:
    """What one run shows."""

    questions: int
    answered: int
    """Questions with an answer in predictions.jsonl."""
    answered_twice: int
    done_at_kill: int
    """Answers that the server had billed when the program was killed."""
    most_in_flight: int
    """The adapter's `max_concurrency`: most answers that can be between server and file at any moment."""
    requests: int
    """All that reached the server, both programs."""
    minimum: int
    """Different requests: one for each question, and what looks at the server before."""
    faults: int
    """Requests that the server did not answer as it should; each must be repeated."""
    billed_twice: int
    """Answers that were computed again although they had been computed before."""
    lost_on_the_way: int
    """Answers that the server computed and that its faults kept from arriving."""
    seconds: float

    @property
    def requests_per_minimum(self) -> float:
        """Requests sent beside the fewest that a server without faults would have seen."""
        return self.requests / self.minimum

    @property
    def surplus(self) -> int:
        """Requests that neither a first question nor a fault explains: those in flight when the program was killed."""
        return self.requests - self.minimum - self.faults


def write_questions(path: Path, count: int) -> None:
    """Write questions that are all different, with four options each."""
    lines = []
    for number in range(count):
        options = [str(number * 7 + step) for step in (0, 1, 10, 11)]
        record = {"id": f"q{number}", "prompt": f"What is {number} times 7?", "options": options, "answer": 0}
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def command(url: str, data: Path, out: Path) -> list[str]:
    program = str(Path(sys.executable).with_name("calibwrap"))
    server = ("--set", f"base_url={url}", "--set", "api_key=any", "--set", f"max_concurrency={CONCURRENCY}")
    return [program, "evaluate", "openai:fault", "--data", str(data), "--out", str(out), *server]


def kill_half_way(server: FaultServer, run: list[str], count: int) -> int:
    """Run until half of the questions are billed, then kill; return how many answers were billed in the end."""
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while len(server.billed) < count // 2 and process.poll() is None:
        time.sleep(0.01)
    if process.poll() is not None:
        raise SystemExit(f"The run ended before it could be killed: {process.communicate()[1].decode()}")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    while server.in_flight:
        time.sleep(0.01)
    return len(server.billed)


def measured(faults: tuple[tuple[float, Act], ...], honours_keys: bool, count: int, seed: int) -> Outcome:
    """Return the outcome of one run that is killed and resumed."""
    began = time.perf_counter()
    acts: dict[int, Act] = {}
    plan = shares(seed, faults)

    def noted(number: int) -> Act:
        return acts.setdefault(number, plan(number))

    with tempfile.TemporaryDirectory() as folder, FaultServer(
        noted, honours_keys=honours_keys, latency=LATENCY_SECONDS
    ) as server:  # fmt: skip
        data, out = Path(folder) / "questions.jsonl", Path(folder) / "out"
        write_questions(data, count)
        run = command(server.url, data, out)
        done = kill_half_way(server, run, count)
        subprocess.run([*run, "--resume"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        answers = Counter(record["id"] for record in predictions(out))
        lost = [seen for seen in server.billed if acts[seen.number].drop or acts[seen.number].cut]
        return Outcome(
            questions=count,
            answered=len(answers),
            answered_twice=sum(number > 1 for number in answers.values()),
            done_at_kill=done,
            most_in_flight=CONCURRENCY,
            requests=len(server.seen),
            minimum=len({seen.digest for seen in server.seen}),
            faults=sum(acts[seen.number] is not OK for seen in server.seen),
            billed_twice=server.billed_twice(),
            lost_on_the_way=len(lost),
            seconds=time.perf_counter() - began,
        )


def predictions(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for name, (faults, honours_keys) in SERVERS.items():
        outcome = measured(faults, honours_keys, arguments.questions, arguments.seed)
        results[name] = {
            **asdict(outcome),
            "requests_per_minimum": outcome.requests_per_minimum,
            "surplus": outcome.surplus,
        }
        print(
            f"Server {name}: {outcome.answered} of {outcome.questions} questions answered, {outcome.answered_twice} "
            f"twice; killed when {outcome.done_at_kill} were billed and at most {outcome.most_in_flight} in flight; "
            f"{outcome.billed_twice} billed twice, where {outcome.lost_on_the_way} answers were lost on the way; "
            f"{outcome.requests} requests, {outcome.requests_per_minimum:.3f} x the minimum of {outcome.minimum} "
            f"({outcome.faults} faults, {outcome.surplus} more); "
            f"{outcome.seconds:.0f} s",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
