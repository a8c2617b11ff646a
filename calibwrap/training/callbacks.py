"""What happens between the steps of a run: losses are written down, held-out questions asked, and it can be stopped."""

import contextlib
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from calibwrap.errors import CalibrationWarning, ModelError
from calibwrap.training.checkpoints import mark_whole
from calibwrap.training.held_out import HeldOutSet
from calibwrap.training.log import RunLog
from calibwrap.wrap import Progress


class Stop:
    """Whether the run was asked to end after its step: by Ctrl-C, or by a SIGTERM."""

    def __init__(self) -> None:
        """Nobody has asked."""
        self.signal = 0
        """The first signal that asked; 0 while nobody has."""

    @property
    def requested(self) -> bool:
        """Whether somebody has asked."""
        return self.signal != 0

    def ask(self, number: int, *frame: Any) -> None:
        """End after this step, for the signal of that number; asked a second time by Ctrl-C, end at once.

        Raises:
            KeyboardInterrupt: it was asked before.
        """
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as the wish to stop, where this is the main thread; else nobody can send them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class StopCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Ends a run with a checkpoint after the step in which that was asked for, on all processes together."""

    def __init__(self, stop: Stop) -> None:
        """Look at `stop` after every step."""
        self.stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Save and stop if any process was asked to."""
        if args.world_size > 1:
            self.stop.signal = _largest(self.stop.signal, args.device)
        if self.stop.requested:
            control.should_save = control.should_training_stop = True


class WholeCallback(TrainerCallback):  # type: ignore[misc]
    """Marks every checkpoint that was written to its end, so that a run goes on from no other."""

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """List the files of the checkpoint of this step; one process does."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and checkpoint.is_dir():
            mark_whole(checkpoint)


class LogCallback(TrainerCallback):  # type: ignore[misc]
    """Writes what the trainer logs into the run's own log; ends a run of NaN or infinity, and warns of dead weights."""

    def __init__(self, log: RunLog | None, progress: Progress | None = None) -> None:
        """Write to `log` where there is one; tell `progress` (steps done, in all)."""
        self.log, self.progress = log, progress
        self.has_warned = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Tell how far an earlier run came."""
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Tell that a step is done."""
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Write the numbers of a step down.

        Raises:
            ModelError: loss or gradient are NaN or infinite; no checkpoint of that step is written.
        """
        if logs is None or "loss" not in logs:
            return
        numbers = {name: float(value) for name, value in logs.items() if _is_number(value)}
        broken = [name for name in ("loss", "grad_norm") if not math.isfinite(numbers.get(name, 0.0))]
        if broken:
            raise ModelError(
                f"'{broken[0]}' became {numbers[broken[0]]} in step {state.global_step}: lower 'learning_rate' or the "
                "method's 'weight'. Checkpoints of earlier steps are whole."
            )
        if self.log is not None:
            finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
            self.log.write_step(state.global_step, finite)
            self._warn_of_dead_weights(self.log, state.global_step, numbers)

    def _warn_of_dead_weights(self, log: RunLog, step: int, numbers: Mapping[str, float]) -> None:
        """Tell once, on standard error and in the log, of a gradient that is exactly 0 where the loss is not.

        With a loss of 0 it is no fault: a hinge loss is met, or all draws of a step are paid alike.
        """
        if self.has_warned or numbers.get("grad_norm") != 0.0 or numbers["loss"] == 0.0:
            return
        self.has_warned = True
        told = (
            f"The gradient of step {step} is exactly 0 while the loss is {numbers['loss']:.4g}, so nothing was learnt "
            "there. Most often an earlier step was too large and the weights are destroyed: look at the held-out "
            "figures, and begin anew with a lower 'learning_rate'."
        )
        log.write_warning(step, told)
        warnings.warn(told, CalibrationWarning, stacklevel=2)


class HeldOutCallback(TrainerCallback):  # type: ignore[misc]
    """Asks the model in training the held-out questions, before the first step, every few steps and after the last."""

    def __init__(self, questions: HeldOutSet, every: int, log: RunLog, stop: Stop, trainer: Any) -> None:
        """Ask `questions` every `every` steps; `log` and the trackers of `trainer` get the figures."""
        self.questions, self.every, self.log, self.stop, self.trainer = questions, every, log, stop, trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Measure the model as it came."""
        if state.global_step == 0:
            self.measure(0, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Measure every few steps, and after the last one."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self.measure(state.global_step, control)

    def measure(self, step: int, control: Any) -> None:
        """Write the figures of a step down, unless an earlier run of the same command has, or it is time to stop.

        Trackers are told by the base class: TRL's trainers would take the step's own figures for these.
        """
        if self.log.held_out(step) is not None:
            return
        found = self.questions.figures(self.trainer.model, lambda: self.stop.requested)
        if found is None:
            return
        self.log.write_held_out(step, found)
        shown = {
            f"eval_held_out_{name}": figure["value"] for name, figure in found.items() if figure["value"] is not None
        }
        is_waiting = control.should_log
        Trainer.log(self.trainer, shown)
        control.should_log = is_waiting  # the loss of this step is still to be logged


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _largest(mine: int, device: Any) -> int:
    """Return the largest `mine` of all processes."""
    import torch

    asked = torch.tensor([mine], device=device)
    torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
    return int(asked.item())
