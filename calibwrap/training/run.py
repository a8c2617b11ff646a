"""One training run from its settings to weights, log and model card; it can be stopped at any time and goes on."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibwrap.errors import InputError, JournalError, need
from calibwrap.readouts import find_readout
from calibwrap.training.checkpoints import CHECKPOINTS, last_checkpoint
from calibwrap.training.checks import check_trackers
from calibwrap.training.licence import stated_licence
from calibwrap.training.log import FILE, RunLog, is_finished, open_log
from calibwrap.training.model_card import model_card
from calibwrap.training.reading import WeightSettings
from calibwrap.training.settings import AnySettings, HeadSettings
from calibwrap.training.weights import ADAPTER, WEIGHTS, load_trainable, save_weights
from calibwrap.wrap import Progress

if TYPE_CHECKING:
    from calibwrap.training.held_out import Figures

_TRAINERS = {
    "catto": "calibwrap.training.catto_trainer",
    "cft": "calibwrap.training.cft_trainer",
    "rcft": "calibwrap.training.cft_trainer",
    "rewarding-doubt": "calibwrap.training.doubt_trainer",
}
"""Where each method's function `build` lives."""


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    method: str
    """What was trained."""
    output: Path
    """The output folder; for a head, its file."""
    step: int
    """Steps done; a head, which is trained at one go, is one."""
    steps: int
    """Steps in all."""
    before: "Figures" = field(default_factory=dict)
    """Held-out figures before the first step, each a value and the ends of its 95 % interval; empty without, and while
    the run is not finished."""
    after: "Figures" = field(default_factory=dict)
    """The same of the weights that were saved, or with the head."""
    temperature: "Figures" = field(default_factory=dict)
    """The same with one temperature fitted with labels, which a head has to beat; empty for weights."""
    was_finished: bool = False
    """Whether an earlier run had done everything, and this one did nothing."""
    stopped_by: int = 0
    """Number of the signal that asked to end early, such as `signal.SIGINT`; 0 when none did."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done; a run that was stopped goes on with `resume=True`."""
        return self.step >= self.steps

    @property
    def adapter(self) -> Path | None:
        """Folder of the low-rank adapter, if there is one."""
        return _if_there(self.output / ADAPTER)

    @property
    def weights(self) -> Path | None:
        """Folder of the whole weights, if they were wanted."""
        return _if_there(self.output / WEIGHTS)


def train(settings: AnySettings, *, resume: bool = False, progress: Progress | None = None) -> Result:
    """Return what training as `settings` say came to; weights, log and model card are in the output folder.

    Ctrl-C and SIGTERM end the run after its step with a checkpoint, and the result says that it is not finished. The
    same settings with `resume` go on there, to the weights of a run that was never stopped.

    A head is one file. Its model is read once, in pieces that are kept beside it: stopped, it goes on with them.

    Args:
        settings: of any method.
        resume: whether to go on with what an earlier run left in the output folder; without one, it begins anew. The
            recording for a head always goes on; with `resume`, a head that is there already is replaced.
        progress: called with (steps done, steps in all); for a head, with (questions read, questions in all), first of
            those that are trained on, then of those that are held out.

    Raises:
        InputError: held-out questions that are trained on, or settings that do not fit together.
        QuestionError: a question without an answer.
        PromptTooLong: an example that is longer than `max_length`, by the name of its question.
        CapabilityError: CATTO cannot read the model's output head, or a head's model does not give what is recorded.
        FitError: a head's loss is no number.
        JournalError: the output folder holds another run, or one that is not to be resumed; or a head is there.
        ModelError: the model cannot be opened, or loss or gradient became NaN.
        MissingExtra: a package of the extra `train` is not installed.
    """
    if isinstance(settings, HeadSettings):
        return _train_head(settings, resume, progress)
    for package in ("torch", "transformers", "trl", "peft", "datasets", "accelerate"):
        need(package, feature="training", extra="train")
    check_trackers(settings.report_to)
    held_out = _held_out(settings)
    with ExitStack() as opened:
        log = None
        if is_main_process():
            check_log(settings.output)
            log = opened.enter_context(open_log(settings, held_out, resume))
        if is_finished(settings.output):  # every process reads it: all would wait for one that went on
            done = _result(settings, log, settings.max_steps)  # the step that was kept may be an earlier one
            return replace(done, was_finished=True)
        return _train(settings, held_out, log, progress)


def _train_head(settings: HeadSettings, resume: bool, progress: Progress | None) -> Result:
    """Return what training a head on a frozen model came to; a recording that was stopped goes on."""
    from calibwrap.training.head import train_head

    settings.output.parent.mkdir(parents=True, exist_ok=True)
    _, found = train_head(settings, progress, replace_old=resume)
    shared = (settings.method, settings.output, 1, 1)
    return Result(*shared, before=found.before, after=found.after, temperature=found.temperature)


def _held_out(settings: WeightSettings) -> Sequence[Any]:
    """Return the held-out questions; none when none are wanted."""
    from calibwrap.training.held_out import check_held_out

    if settings.held_out is None:
        return ()
    find_readout(settings.held_out.readout)  # a wrong name is told before a model is loaded
    return check_held_out(settings.held_out.load(), settings.train.load())


def _train(settings: WeightSettings, held_out: Sequence[Any], log: RunLog | None, progress: Progress | None) -> Result:
    """Return what the steps came to; after the last one, weights and model card are written."""
    import torch
    from transformers import set_seed

    from calibwrap.training.callbacks import Stop

    torch.set_num_threads(settings.threads)
    stop = Stop()
    with stop.listening():  # while the model is loaded, too: the run ends after its first step then
        model, tokenizer = load_trainable(settings.model)
        set_seed(settings.seed)  # LoRA's first weights are drawn when the trainer is built
        trainer = _build(settings, model, tokenizer, held_out)
        _check_parallel(trainer)
        _add_callbacks(trainer, settings, tokenizer, held_out, log, stop, progress)
        step = _steps(trainer, settings)
        if log is not None and step >= settings.max_steps:  # what is asked to stop now has nothing left but to save
            _finish(trainer, settings, tokenizer, held_out, log)
    return replace(_result(settings, log, step), stopped_by=stop.signal)


def _finish(trainer: Any, settings: WeightSettings, tokenizer: Any, held_out: Sequence[Any], log: RunLog) -> None:
    """Write weights and model card; what the card says was measured on the very weights that are saved."""
    from calibwrap.training.held_out import held_out_set

    kept = _best(trainer) or settings.max_steps
    asked = held_out_set(settings, held_out, tokenizer)
    if asked is not None and log.held_out(kept) is None:
        log.write_held_out(kept, asked.figures(trainer.model, lambda: False) or {})
    base = str(Path(settings.model).resolve()) if Path(settings.model).exists() else settings.model
    trained = trainer.accelerator.unwrap_model(trainer.model)
    save_weights(trained, tokenizer, settings.output, merge=settings.merge, base=base)
    licence = stated_licence(settings.model)
    card = model_card(settings, len(held_out), log.held_out(0) or {}, log.held_out(kept) or {}, kept, licence)
    (settings.output / "README.md").write_text(card, encoding="utf-8")
    log.write_finished(kept)


def _best(trainer: Any) -> int | None:
    """Return the step whose weights the trainer went back to in the end, if its method keeps the best ones."""
    return trainer.state.best_global_step if trainer.args.load_best_model_at_end else None


def _build(settings: WeightSettings, model: Any, tokenizer: Any, held_out: Sequence[Any]) -> Any:
    """Return the trainer of the settings' method.

    Only Rewarding Doubt makes use of held-out questions itself; the others would compute a loss nobody asked for.
    """
    build = import_module(_TRAINERS[settings.method]).build
    wanted = held_out if held_out and settings.method == "rewarding-doubt" else None
    return build(settings, model, tokenizer, training_arguments(settings), wanted)


def training_arguments(settings: WeightSettings) -> dict[str, Any]:
    """Return the keyword arguments of Transformers' TrainingArguments, or a subclass's, that `settings` ask for.

    >>> from calibwrap.training.settings import CftSettings
    >>> asked = CftSettings(model="m", output="out", train={"source": "arc_easy"}, max_steps=5)
    >>> found = training_arguments(asked)
    >>> found["output_dir"], found["max_steps"]
    ('out/checkpoints', 5)
    """
    import torch

    return {
        "output_dir": str(settings.output / CHECKPOINTS),
        "seed": settings.seed,
        "data_seed": settings.seed,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "learning_rate": settings.learning_rate,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": list(settings.report_to),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": settings.bf16,
        "gradient_checkpointing": False,  # TRL's default would run every layer twice
        "ddp_find_unused_parameters": False,  # every trained weight has a part in every loss
        "disable_tqdm": True,
    }


def is_main_process() -> bool:
    """Return whether this process writes files: the first of those that a launcher started, or the only one.

    >>> is_main_process()
    True
    """
    return os.environ.get("RANK", "0") == "0"


def check_log(output: Path) -> None:
    """Return nothing when checkpoints in `output` have the log of their run: else nothing says whose they are.

    Raises:
        JournalError: there are checkpoints, and no log.
    """
    if last_checkpoint(output / CHECKPOINTS) is not None and not (output / FILE).exists():
        raise JournalError(
            f"{output / CHECKPOINTS} holds checkpoints, and {FILE}, the log of their run, is missing: put it back to "
            "go on with that run, or delete the checkpoints, or choose another 'output'."
        )


def _check_parallel(trainer: Any) -> None:
    """Refuse what spreads one model over processes: its weights would be measured and saved in parts."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise InputError(
            "calibwrap trains data-parallel, with a whole model on every process. Got FSDP or DeepSpeed: launch "
            "without them, or use the trainer's class with your own saving."
        )


def _add_callbacks(
    trainer: Any,
    settings: WeightSettings,
    tokenizer: Any,
    held_out: Sequence[Any],
    log: RunLog | None,
    stop: Any,
    progress: Progress | None,
) -> None:
    """Let the run be logged, measured and stopped; held-out questions are measured before the wish to stop is seen."""
    from transformers import PrinterCallback

    from calibwrap.training.callbacks import HeldOutCallback, LogCallback, StopCallback, WholeCallback
    from calibwrap.training.held_out import held_out_set

    trainer.remove_callback(PrinterCallback)  # standard output is for results
    trainer.add_callback(LogCallback(log, progress if is_main_process() else None))
    asked = held_out_set(settings, held_out, tokenizer)
    if log is not None and asked is not None and settings.held_out is not None:
        trainer.add_callback(HeldOutCallback(asked, settings.held_out.every_steps, log, stop, trainer))
    trainer.add_callback(StopCallback(stop))
    trainer.add_callback(WholeCallback())


def _steps(trainer: Any, settings: WeightSettings) -> int:
    """Return the number of steps done, having gone on from the newest checkpoint if there is one."""
    from transformers import TrainerState

    found = last_checkpoint(settings.output / CHECKPOINTS)
    if found is None or found[1] < settings.max_steps:
        trainer.train(resume_from_checkpoint=None if found is None else str(found[0]))
        return int(trainer.state.global_step)
    # `train` would take one step more before it looks at its number
    trainer.state = TrainerState.load_from_json(str(found[0] / "trainer_state.json"))
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(best or str(found[0]))
    return found[1]


def _result(settings: WeightSettings, log: RunLog | None, step: int) -> Result:
    """Return what the log and the output folder say; on processes without a log, how far the run came."""
    shared = (settings.method, settings.output, step, settings.max_steps)
    kept = None if log is None else log.finished()
    if log is None or kept is None:
        return Result(*shared)
    return Result(*shared, before=log.held_out(0) or {}, after=log.held_out(kept) or {})


def _if_there(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None
