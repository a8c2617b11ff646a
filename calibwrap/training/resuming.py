"""Where a training run would begin, told without beginning it: the output folder is only read."""

from collections.abc import Sequence

from calibwrap.errors import JournalError
from calibwrap.questions import Question
from calibwrap.training.checkpoints import CHECKPOINTS, last_checkpoint
from calibwrap.training.log import FILE, check_same_run, has_begun, is_finished, run_header
from calibwrap.training.reading import WeightSettings
from calibwrap.training.run import check_log
from calibwrap.training.settings import HeadSettings

START = "from the beginning"
"""Where a run begins that has nothing to go on with."""


def beginning(settings: WeightSettings, held_out: Sequence[Question], resume: bool) -> str:
    """Return in words where `train(settings, resume=resume)` would begin.

    Raises:
        JournalError: it would not begin: there is a log and `resume` is false, or it is that of other settings.

    >>> from calibwrap.training.settings import CftSettings
    >>> beginning(CftSettings(model="m", output="nowhere", train={"source": "arc_easy"}), (), resume=True)
    'from the beginning: there is nothing to resume'
    """
    path = settings.output / FILE
    check_log(settings.output)
    if not has_begun(path):
        check_same_run(path, run_header(settings, held_out))
        return f"{START}: there is nothing to resume" if resume else START
    if not resume:
        raise JournalError(
            f"{path} is the log of an earlier run. Pass --resume to go on with it, or choose another 'output'."
        )
    check_same_run(path, run_header(settings, held_out))
    if is_finished(settings.output):
        return f"not at all: the run is finished, and its results are in {settings.output}"
    found = last_checkpoint(settings.output / CHECKPOINTS)
    if found is None:
        return f"{START}: the earlier run left no whole checkpoint"
    folder, step = found
    rest = ": weights and model card are to be written" if step >= settings.max_steps else ""
    return f"after step {step} of {settings.max_steps}, with {folder}{rest}"


def beginning_of_head(settings: HeadSettings, resume: bool) -> str:
    """Return in words where the training of a head would begin; it always goes on with what was recorded.

    Raises:
        JournalError: there is a head, which `resume` alone replaces.
    """
    if settings.output.exists() and not resume:
        raise JournalError(f"{settings.output} is there already. Pass --resume to replace it, or choose another one.")
    folder = settings.output.with_suffix(".positions")
    if not folder.is_dir():
        return START
    return f"with what was recorded in {folder}; refused if that is of another model, or of other questions"
