"""The README of an output folder: what was trained, on what, and the calibration that was measured. Nothing beyond."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from calibwrap.training.reading import WeightSettings
from calibwrap.training.settings import QuestionSet

_METHODS = {
    "catto": "CATTO (preference optimisation with a calibration loss; Parikh et al., 2026)",
    "cft": "CFT (calibration-aware fine-tuning; Xiao et al., 2025)",
    "rcft": "RCFT (fine-tuning with an ECE regulariser; Xiao et al., 2025)",
    "rewarding-doubt": "Rewarding Doubt (confidence said in words, by reinforcement learning; Stangel et al., 2025)",
}
_FIGURES = {
    "accuracy": "accuracy",
    "mean_confidence": "mean confidence",
    "ece": "ECE, 15 bins",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}
_STATED = {
    "accuracy": "accuracy of the likeliest answers",
    "mean_confidence": "mean stated confidence",
    "ece": "ECE of stated confidence, 15 bins",
    "ece_drawn": "ECE of a drawn level, 11 bins",
    "auroc": "AUROC of stated confidence",
    "brier": "Brier score of stated confidence",
    "malformed": "share of malformed statements",
}
_HEAD = {
    "ece_tokens": "ECE of tokens",
    "ece_answers": "ECE of answers",
    "accuracy_answers": "accuracy of answers",
}
_ABOUT_STATED = (
    " The stated confidence is the expected level / 10 among well-formed statements after the model's likeliest "
    "answer; its Brier score is the mean squared difference from right (1) or wrong (0)."
)


def figure_names(method: str) -> dict[str, str]:
    """Return the held-out figures that a method is told by, in their order, and what people call them.

    >>> figure_names("rewarding-doubt")["malformed"], figure_names("cft")["ece"]
    ('share of malformed statements', 'ECE, 15 bins')
    """
    return {"rewarding-doubt": _STATED, "head": _HEAD}.get(method, _FIGURES)


def model_card(
    settings: WeightSettings,
    n_held_out: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    kept: int | None = None,
    licence: str = "",
) -> str:
    """Return the text of a model card in Markdown.

    Args:
        settings: of the run.
        n_held_out: number of held-out questions.
        before: held-out figures of the model as it came, each with `value`, `low` and `high`; empty when not measured.
        after: the same of the weights that are saved.
        kept: the step whose weights are saved, where a method keeps the best ones; the last by default.
        licence: what the base model states; empty when that is not known.

    >>> from calibwrap.training.settings import CftSettings
    >>> asked = CftSettings(model="m", output="out", train={"source": "arc_easy"})
    >>> print(model_card(asked, 0, {}, {}).splitlines()[0])
    # m, trained by CFT
    """
    name = _METHODS[settings.method].partition(" (")[0]
    parts = [
        f"# {_shown(settings.model)}, trained by {name}",
        f"Method: {_METHODS[settings.method]}, with calibwrap {version('calibwrap')}.",
        _licence(licence),
        _data(settings, n_held_out, kept or settings.max_steps),
        "## Calibration measured on the held-out questions",
        _table(settings, n_held_out, before, after),
        "## How it was trained",
        f"`calibwrap train {settings.method} CONFIG.yaml` with these settings, seed {settings.seed}:",
        f"```yaml\n{_yaml(settings)}```",
        "## What is in this folder",
        _contents(settings),
    ]
    return "\n\n".join(parts) + "\n"


def _licence(stated: str) -> str:
    """Return what is known of the terms that these weights stand under."""
    if not stated:
        return "Licence of the base model: not known. Look it up where the model comes from before passing this on."
    return f"Licence of the base model: {stated}. These weights are derived from it."


def _data(settings: WeightSettings, n_held_out: int, kept: int) -> str:
    """Return what was trained on and what was held out."""
    seen = settings.max_steps * settings.batch_size * settings.gradient_accumulation
    lines = [
        f"- Trained on: {_set(settings.train)}; {settings.max_steps} steps, {seen} examples a process (repeats counted)"
    ]
    if kept != settings.max_steps:
        lines[0] += f"; the weights are those after step {kept}, which held-out questions chose"
    if settings.held_out is not None:
        lines.append(f"- Held out: {_set(settings.held_out)}; {n_held_out} questions, none of them trained on")
    return "\n".join(lines)


def _table(settings: WeightSettings, n: int, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the figures before and after, or that there are none."""
    if settings.held_out is None or not after:
        return "Nothing was measured: the settings hold out no questions. Nothing is claimed about this model."
    rows = [f"| {n} questions, readout `{settings.held_out.readout}` | before | after |", "|---|---|---|"]
    names = figure_names(settings.method)
    rows += [f"| {said} | {_cell(before.get(name))} | {_cell(after.get(name))} |" for name, said in names.items()]
    rows.append(
        "\nIn brackets: 95 % bootstrap intervals over the questions. One run with one seed, measured on questions of "
        "one set: other questions, other prompts, another readout or a quantised copy may behave otherwise."
        + (_ABOUT_STATED if settings.method == "rewarding-doubt" else "")
    )
    return "\n".join(rows)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "not measured"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _set(source: QuestionSet) -> str:
    """Return which questions a set is."""
    parts = [f"`{_shown(source.source)}`"]
    if source.split:
        parts.append(f"split {source.split}")
    if source.limit is not None:
        parts.append(f"at most {source.limit} questions")
    if source.seed is not None:
        parts.append(f"order drawn with seed {source.seed}")
    return ", ".join(parts)


def _yaml(settings: WeightSettings) -> str:
    """Return the settings as YAML; folders of the machine that they were used on stay there."""
    import yaml

    values = settings.model_dump(mode="json")
    values |= {"model": _shown(settings.model), "output": "FOLDER"}
    for name in ("train", "held_out"):
        if values[name] is not None:
            values[name]["source"] = _shown(values[name]["source"])
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _shown(source: str) -> str:
    """Return a source without the folders that lead to it.

    >>> _shown("/home/me/models/small.gguf"), _shown("owner/name")
    ('small.gguf', 'owner/name')
    """
    is_path = source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).exists()
    return Path(source).name if is_path else source


def _contents(settings: WeightSettings) -> str:
    """Return what lies where."""
    lines = ["- `training.jsonl`: loss of every step and all held-out figures"]
    if settings.lora is not None:
        lines.append("- `adapter/`: the LoRA adapter alone")
    if settings.lora is None or settings.merge:
        lines.append('- `weights/`: whole weights; `calibwrap.wrap("hf:FOLDER/weights")`, and vLLM alike')
    lines.append("- `checkpoints/`: what a stopped run goes on from; of no use once the run is finished")
    return "\n".join(lines)
