"""Two processes of one run, as torchrun starts them on a CPU, but that everything is imported once.

Usage: distributed_run.py PORT CONFIG.yaml [CONFIG.yaml ...]
"""

import os
import signal
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch

from calibwrap.cli.train import left_together
from calibwrap.training import train
from calibwrap.training.callbacks import StopCallback
from calibwrap.training.reading import read_settings


def work(rank, port, paths):
    """Be process `rank` of two, and train as the files say, one after another."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    with left_together():
        for path in paths:
            with stop_after(2) if path.endswith("stopped.yaml") and rank == 1 else nullcontext():
                train(read_settings(path))
    threads = {name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")}
    assert not {"gloo_tcp_loop", "pt_gloo_runloop"} & threads, "these would outlive the interpreter"


def stop_after(step):
    """Send this process, and no other, the wish to stop after a step."""
    told = StopCallback.on_step_end

    def on_step_end(self, args, state, control, **rest):
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        told(self, args, state, control, **rest)

    return patch.object(StopCallback, "on_step_end", on_step_end)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    import peft  # noqa: F401 - before the fork

    import calibwrap.training.catto_trainer  # noqa: F401

    torch.set_num_threads(1)
    torch.multiprocessing.start_processes(work, args=(sys.argv[1], sys.argv[2:]), nprocs=2, start_method="fork")
