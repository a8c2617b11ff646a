"""`calibwrap ask`: one question, one answer, one probability."""

from pathlib import Path

from calibwrap.base import Answer
from calibwrap.cli.console import print_json
from calibwrap.cli.parts import open_model, read_readout
from calibwrap.questions import Chat, Prompt
from calibwrap.wrap import CalibratedLM


def run(
    spec: str,
    question: str,
    options: list[str],
    context: str,
    calibrator: Path | None,
    strict: bool,
    readout: str | None,
    template: Path | None,
    settings: list[str] | None,
    as_json: bool,
) -> None:
    """Ask and print the answer."""
    with open_model(spec, settings, read_readout(readout, template), calibrator, strict) as lm:
        answer = lm.choose(question, options, context) if options else lm(_free(lm, question, context))
    if as_json:
        print_json(
            {
                "text": answer.text,
                "confidence": answer.confidence,
                "bounds": list(answer.bounds),
                "probabilities": dict(answer.probabilities),
                "calibrated_by": answer.calibrated_by,
            }
        )
    else:
        _print(answer)


def _free(lm: CalibratedLM, question: str, context: str) -> Prompt:
    """Return the question as a chat where the model has a template for one."""
    text = f"{context}\n\n{question}" if context else question
    return Chat((("user", text),)) if lm.adapter.provides.chat else text


def _print(answer: Answer) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    calibrated = answer.calibrated_by != "identity"
    kind = "calibrated probability of being right" if calibrated else "the model's own probability, not calibrated"
    if not answer.probabilities:
        kind = "the model's own probability of exactly this text, which is not the probability of being right"
    console.print(f"{answer.text}\n", markup=False, highlight=False)
    console.print(f"{answer.confidence:.1%}  {kind}" + (f" ({answer.calibrated_by})" if calibrated else ""))
    if answer.probabilities:
        table = Table(show_header=False, box=None)
        for option, probability in sorted(answer.probabilities.items(), key=lambda pair: -pair[1]):
            table.add_row(f"{probability:6.1%}", "█" * round(30 * probability), option)
        console.print(table)
