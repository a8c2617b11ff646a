"""The commands and their options; each does its work in a file of its own, loaded when it runs."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="calibwrap",
    help="A calibrated probability on every answer of a language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Spec = Annotated[
    str, typer.Argument(help="RUNTIME:MODEL, such as hf:FOLDER or llama-cpp:FILE.gguf.", show_default=False)
]
Data = Annotated[str, typer.Option(help="Question file (JSONL), data set folder, or packaged set such as arc_easy.")]
Split = Annotated[str, typer.Option(help="Split of a packaged set; its own default when empty.")]
Limit = Annotated[int | None, typer.Option(help="Take this many questions only, drawn with --seed.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of the draw of --limit and of the split into fit and held-out part.")]
ReadoutName = Annotated[
    str | None,
    typer.Option("--readout", help="label, continuation, continuation:token, each with :TEMPLATE at will; decision."),
]
ReferenceReadout = Annotated[str | None, typer.Option(help="How the reference is read; per token by default.")]
TemplateFile = Annotated[
    Path | None, typer.Option("--template", help="JSON file with the fields of your own template.")
]
TemplateOrName = Annotated[
    Path | None,
    typer.Option(
        "--template", help="JSON file with your own template; with drawn answers also a name, such as letter-reasoned."
    ),
]
FREE_NAMES = (
    "For free text: freetext (default), self-consistency@K, semantic-entropy@K, stated or p-true, each with :FORM and "
    "@K at will."
)
FreeDecoder = Annotated[str | None, typer.Option(help=FREE_NAMES)]
DrawnTemperature = Annotated[
    float | None, typer.Option(help="Of what is drawn: 1 by default, 0 for a single answer in free text.", min=0.0)
]
DrawnTokens = Annotated[
    int | None, typer.Option(help="Most tokens of a completion: 96 for a trace, 64 for free text.", min=1)
]
DrawnStop = Annotated[list[str] | None, typer.Option(help="Text that ends a completion; repeat it.")]
JudgeName = Annotated[
    str | None, typer.Option(help="Of free text, who is right: exact-match (default) or f1-above-half.")
]
NormaliserName = Annotated[
    str | None,
    typer.Option(help="Which answers in free text are equal: trivia-qa (default), exact, number, option-letter."),
]
Reference = Annotated[str | None, typer.Option(help="Pre-trained model for fits without labels, RUNTIME:MODEL.")]
CalibratorFile = Annotated[Path | None, typer.Option("--calibrator", help="Saved calibrator to use.")]
GuardFile = Annotated[
    Path | None, typer.Option("--guard", help="File of `fit --risk`: answer where its promise holds, else abstain.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a calibrator that was fitted on another model or readout.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Option for the runtime (and the reference on it), KEY=VALUE; repeat it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables and bars.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an earlier run of the same command ended.")]


def _told_version(asked: bool) -> None:
    if asked:
        typer.echo(f"calibwrap {version('calibwrap')}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_told_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def demo(
    runtime: Annotated[str, typer.Option(help="hf, or llama-cpp where that is installed.")] = "hf",
    out: Annotated[Path, typer.Option(help="Folder for journals, figures and the report.")] = Path("calibwrap-demo"),
    questions: Annotated[int, typer.Option(help="Questions of each set; half fit, half are held out.", min=40)] = 400,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask every question again instead of resuming.")] = False,
    as_json: Json = False,
) -> None:
    """Calibrate a real packaged model on real questions, with labels and without; needs no model hub."""
    from calibwrap.cli import demo as command

    command.run(runtime, out, questions, fresh, as_json)


@app.command()
def check(
    spec: Spec,
    settings: Settings = None,
    against: Annotated[
        str | None, typer.Option(help="Another model to compare with on the questions of --data, RUNTIME:MODEL.")
    ] = None,
    against_settings: Annotated[
        list[str] | None, typer.Option("--against-set", help="Option for the runtime of --against; repeat it.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Questions to compare on: as for evaluate.")] = None,
    split: Split = "",
    limit: Limit = None,
    seed: Seed = 0,
    readout: ReadoutName = None,
    template: TemplateFile = None,
    calibrator: CalibratorFile = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Exit with code 1 when an option's probability differs by more.", min=0.0)
    ] = None,
    conformance: Annotated[
        bool, typer.Option("--conformance", help="Also run the conformance checks of adapters; takes minutes on a CPU.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a model can give, and whether a readout works; with --against, how far two models differ."""
    if (against is None) != (data is None):
        raise typer.BadParameter("--against SPEC and --data FILE belong together.")
    if against is None or data is None:
        if readout or template or calibrator or against_settings or tolerance is not None:
            raise typer.BadParameter("Options of a comparison need --against SPEC and --data FILE.")
        from calibwrap.cli import check as command

        command.run(spec, settings, conformance, as_json)
        return
    from calibwrap.cli import against as comparison
    from calibwrap.cli.fit import Source

    pair = comparison.Pair(spec, against, settings, against_settings)
    how = comparison.How(readout, template, calibrator, tolerance)
    comparison.run(pair, Source(data, split, limit, seed), how, as_json)


@app.command()
def ask(
    spec: Spec,
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="A possible answer; repeat it.")] = None,
    context: Annotated[str, typer.Option(help="Text to read before the question.")] = "",
    calibrator: CalibratorFile = None,
    guard: GuardFile = None,
    strict: Strict = False,
    readout: ReadoutName = None,
    template: TemplateFile = None,
    k: Annotated[int | None, typer.Option("--k", help="Completions to draw and make one answer of.", min=1)] = None,
    decoder: Annotated[
        str | None,
        typer.Option(help=f"With -o: confidence, majority, weighted, posterior or best-of, each with @K. {FREE_NAMES}"),
    ] = None,
    normaliser: NormaliserName = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show tokens and confidence while they are drawn.")] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of a completion.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the completions that --k draws.", min=0)] = 0,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Ask one question; with options, the answer has a probability for each."""
    from calibwrap.cli import ask as command
    from calibwrap.questions import FreeQuestion, Question

    how = command.How(k, decoder, max_tokens, seed, stream, normaliser)
    if option and not how.draws and (stream or max_tokens is not None):
        raise typer.BadParameter("With -o alone nothing is drawn: --stream and --max-tokens need --k or --decoder too.")
    if k is not None and decoder is not None and "@" in decoder:
        raise typer.BadParameter(f"--decoder {decoder} names its K already: leave --k out.")
    if (how.draws or not option) and readout is not None:
        raise typer.BadParameter("--readout is for options without --k and --decoder, which read labels in texts.")
    if not option and template is not None and decoder is None and guard is None:
        raise typer.BadParameter("--template is for options, give them with -o, or for a --decoder of free text.")
    if normaliser is not None and (option or decoder is None):
        raise typer.BadParameter("--normaliser belongs to a --decoder of free text, without -o.")
    if guard is not None:
        if calibrator is not None or stream or k is not None:
            raise typer.BadParameter("--guard holds its calibrator, and takes no --k and no --stream.")
        if option and decoder is not None:
            raise typer.BadParameter("--guard with -o reads the options' probabilities: it takes no --decoder.")
        asked = Question(question, option, context=context) if option else FreeQuestion(question, context=context)
        command.run_guarded(spec, asked, guard, readout, template, settings, as_json, how)
        return
    command.run(spec, question, option or [], context, calibrator, strict, readout, template, settings, as_json, how)


@app.command()
def fit(
    spec: Spec,
    data: Data,
    out: Annotated[Path, typer.Option(help="File to write the calibrator to.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="temperature (default), vector, matrix, or auto, which compares them (labels); with --reference "
            "soft:platt (default), matched-mean, daca, or naive-kl. Of free text: platt (default), isotonic, or "
            "auto-confidence; with --reference soft:platt (default), soft:isotonic, or daca."
        ),
    ] = None,
    reference: Reference = None,
    readout: ReadoutName = None,
    reference_readout: ReferenceReadout = None,
    template: TemplateOrName = None,
    decoder: FreeDecoder = None,
    temperature: DrawnTemperature = None,
    max_tokens: DrawnTokens = None,
    stop: DrawnStop = None,
    judge: JudgeName = None,
    normaliser: NormaliserName = None,
    risk: Annotated[
        float | None,
        typer.Option(help="Fit a guard instead, on --calibrator: at most this share of the answers it gives is wrong."),
    ] = None,
    delta: Annotated[float, typer.Option(help="Chance, over the questions, that the promise of --risk fails.")] = 0.05,
    calibrator: Annotated[
        Path | None, typer.Option("--calibrator", help="With --risk: what was fitted before, on other questions.")
    ] = None,
    split: Split = "",
    limit: Limit = None,
    seed: Seed = 0,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Fit a calibrator on a question set and save it; of free text, on how right its answers are."""
    from calibwrap.cli import fit as command
    from calibwrap.cli.free_text import Freely
    from calibwrap.cli.parts import Job

    drawn = Freely(decoder, temperature, max_tokens, tuple(stop) if stop else None, judge, normaliser, seed)
    job = Job(spec, out, settings, resume, as_json)
    source = command.Source(data, split, limit, seed)
    if risk is not None:
        if method or reference or reference_readout:
            raise typer.BadParameter("--risk fits a guard: it takes no --method and no --reference.")
        from calibwrap.cli import guard

        guard.run(job, source, calibrator, readout, template, drawn, guard.Promise(risk, delta))
        return
    if calibrator is not None:
        raise typer.BadParameter("--calibrator goes with --risk, which fits a guard on it.")
    command.run(job, source, method, reference, readout, reference_readout, template, drawn)


@app.command()
def evaluate(
    spec: Spec,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, predictions.jsonl and report.html.")],
    calibrator: CalibratorFile = None,
    strict: Strict = False,
    fit: Annotated[
        list[str] | None, typer.Option(help="Fit on a share, measure on the rest; repeat for several.")
    ] = None,
    fit_share: Annotated[float, typer.Option(help="Share of the questions that fit.", min=0.0, max=1.0)] = 0.5,
    reference: Reference = None,
    readout: ReadoutName = None,
    reference_readout: ReferenceReadout = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="Over drawn traces: confidence@K, majority@K, weighted@K, posterior@K, best-of@K or greedy. "
            f"{FREE_NAMES}"
        ),
    ] = None,
    temperature: DrawnTemperature = None,
    max_tokens: DrawnTokens = None,
    stop: DrawnStop = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Draw traces in rounds, until the posterior of an answer is --threshold.")
    ] = False,
    threshold: Annotated[float | None, typer.Option(help="Of --adaptive, above 0 up to 1; 0.95 by default.")] = None,
    judge: JudgeName = None,
    normaliser: NormaliserName = None,
    template: TemplateOrName = None,
    split: Split = "",
    limit: Limit = None,
    seed: Seed = 0,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Run a model over a question set: figures with intervals, predictions, and a report to look at."""
    if decoder is not None and (readout or reference_readout):
        raise typer.BadParameter("--decoder reads what it draws: it takes no --readout and no --reference-readout.")
    from calibwrap.cli import evaluate as command
    from calibwrap.cli.fit import Source
    from calibwrap.cli.free_text import Freely
    from calibwrap.cli.parts import Job

    stops = tuple(stop) if stop else None
    drawn = Freely(decoder, temperature, max_tokens, stops, judge, normaliser, seed, adaptive, threshold)
    source = Source(data, split, limit, seed)
    fits = tuple(fit or ())
    plan = command.Plan(fits, fit_share, reference, readout, reference_readout, template, calibrator, strict)
    command.run(Job(spec, out, settings, resume, as_json), source, plan, drawn)


@app.command()
def train(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[METHOD] CONFIG.yaml",
            help="catto, head, cft, rcft or rewarding-doubt, which the file may name instead; and the file.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen and the memory it needs; train nothing.")
    ] = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train weights, or a head on a frozen model, that are calibrated; the settings are in a YAML file."""
    if len(words) > 2:
        raise typer.BadParameter(f"Expected [METHOD] CONFIG.yaml. Got {len(words)} words.")
    from calibwrap.cli import train as command

    method = words[0] if len(words) == 2 else None
    command.run(method, Path(words[-1]), dry_run, resume, as_json)


@app.command()
def study(
    config: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="Models and probes.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the journal and the tables.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read; open no model.")] = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Measure how calibration moves over several models: stages, sizes, checkpoints, number formats."""
    from calibwrap.cli import study as command

    command.run(config, out, dry_run, resume, as_json)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folder that `calibwrap evaluate` wrote, or several of the same questions.", show_default=False
        ),
    ],
    picture: Annotated[Path | None, typer.Option(help="Also write the reliability diagram to this PNG or SVG.")] = None,
    as_json: Json = False,
) -> None:
    """Write report.html again from the files of an evaluation, or comparison.html of several side by side."""
    from calibwrap.cli import report as command

    command.run(folders, picture, as_json)
