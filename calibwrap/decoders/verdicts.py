"""What a driver does for a request that reads labels at the next token in place of drawing."""

from collections.abc import Callable, Sequence

import numpy as np

from calibwrap.base import Adapter, Calibrator, Completion
from calibwrap.questions import Chat, Prompt
from calibwrap.readouts.label import label_scores
from calibwrap.scores import TokenScores

_NOTHING_DRAWN = TokenScores(np.empty((0, 1)), ids=np.empty((0, 1), dtype=np.int64))


def verdicts(
    adapter: Adapter, prompts: Sequence[Prompt], labels: tuple[str, ...], calibrator: Calibrator
) -> list[list[Completion]]:
    """Return one completion a prompt: its likeliest label as text, all of them in `labels`, and no drawn token.

    A calibrator of options maps the labels, one of tokens the whole position before they are read.

    Raises:
        CapabilityError: the backend cannot show labels, or not the whole vocabulary that a calibrator of tokens needs.
        AmbiguousOptions: a label is not one token after a prompt.
    """
    found: dict[int, Completion] = {}
    calibrate: Callable[[TokenScores], TokenScores] | None = calibrator if calibrator.level == "token" else None
    for separator in ("", " "):
        places = [index for index, prompt in enumerate(prompts) if isinstance(prompt, Chat) == (not separator)]
        if not places:
            continue
        names, readout = [f"number {index + 1}" for index in places], "verdict:" + "/".join(labels)
        asked = [prompts[index] for index in places]
        rows = label_scores(adapter, asked, [labels] * len(places), names, separator, readout, calibrate)
        rows = calibrator(rows) if calibrator.level == "option" else rows
        for row, index in enumerate(places):
            own = rows.take([row])
            found[index] = Completion(labels[int(own.choice[0])], _NOTHING_DRAWN, "stop", labels=own)
    return [[found[index]] for index in range(len(prompts))]
