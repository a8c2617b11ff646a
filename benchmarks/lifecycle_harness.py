"""The understanding probe beside EleutherAI's lm-evaluation-harness: the same model, task and prompts.

Subjects of MMLU, five examples before each question, letters as answers. The harness runs a task of its own kind,
written here as its MMLU tasks are (the same header, prompt, examples and targets), on the packaged questions;
calibwrap asks what `calibwrap study` asks with the settings of docs/lifecycle.md. Compared are the log-likelihood of
every letter, the first choices and the accuracy. Questions that repeat
an option are left out, and ours are asked without blanks at their ends, which the harness's template takes away.

    OMP_NUM_THREADS=1 python benchmarks/lifecycle_harness.py [--subjects anatomy ...] [--questions 20] [--json FILE]
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import calibwrap as cw
from calibwrap.adapters.hf import Transformers
from calibwrap.data import load_questions, packaged_model
from calibwrap.lifecycle.probes import with_shots
from calibwrap.lifecycle.run import readout_of
from calibwrap.lifecycle.settings import UnderstandingProbe
from calibwrap.questions import Question

SHOTS = 5
LETTERS = 4
"""Options of a question; one that repeats an option has fewer here, and is left out."""
HEADER = "The following are multiple choice questions (with answers) about {group}."
PROBE = UnderstandingProbe(
    source="mmlu",
    readout="label",
    shots=SHOTS,
    header=HEADER,
    template={"body": "{question}\n{options}Answer:", "option": "{label}. {option}\n", "shows_options": True},
)
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{name}-test.jsonl, dev: {folder}/{name}-dev.jsonl}}}}
test_split: test
fewshot_split: dev
fewshot_config: {{sampler: first_n}}
output_type: multiple_choice
description: "{header}\\n\\n"
doc_to_text: "{question}\\n{options}Answer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def written(folder: Path, name: str, asked: list[Question], examples: list[Question]) -> None:
    """Write a task of the harness and its questions."""
    for split, questions in (("test", asked), ("dev", examples)):
        rows = [{"question": one.prompt, "choices": list(one.options), "answer": one.answer} for one in questions]
        (folder / f"{name}-{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    header = HEADER.format(group=name.replace("_", " "))
    lines = "".join(f"{letter}. {{{{choices[{at}]}}}}\\n" for at, letter in enumerate("ABCD"))
    fields = {"name": name, "folder": folder, "header": header, "question": "{{question.strip()}}", "options": lines}
    (folder / f"{name}.yaml").write_text(TASK.format(**fields), encoding="utf-8")


def of_harness(model: HFLM, folder: Path, name: str) -> np.ndarray:
    """Return (N, 4) log-likelihoods of the letters, by the harness."""
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=model, tasks=[name], num_fewshot=SHOTS, log_samples=True, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )  # fmt: skip
    samples = sorted(found["samples"][name], key=lambda one: one["doc_id"])
    return np.array([[one[0] for one in sample["filtered_resps"]] for sample in samples])


def of_calibwrap(adapter: Transformers, asked: list[Question], examples: list[Question]) -> np.ndarray:
    """Return the same by the letters' own tokens in the probe's prompts."""
    readout: Any = readout_of(PROBE)
    questions = with_shots(asked, examples, readout, SHOTS, HEADER)
    prompts = [readout.template.prompt(one, readout.labels) for one in questions]
    scored = adapter.score(prompts, [[f" {letter}" for letter in "ABCD"]] * len(prompts))
    return np.array([[float(one.chosen_logprob.sum()) for one in row] for row in scored])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", default=["anatomy", "astronomy", "business_ethics", "virology"])
    parser.add_argument("--questions", type=int, default=20, help="of each subject")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    adapter = Transformers.load(str(packaged_model("smollm2-135m-instruct")), batch_size=4)
    model = HFLM(pretrained=adapter.model, tokenizer=adapter.tokenizer, batch_size=4, max_length=2048)
    theirs, ours, right = list[np.ndarray](), list[np.ndarray](), list[int]()
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.subjects:
            whole = [one for one in load_questions(f"mmlu/{name}", split="test") if len(one.options) == LETTERS]
            asked = [replace(one, prompt=one.prompt.strip()) for one in whole[: chosen.questions]]
            examples = load_questions(f"mmlu/{name}", split="dev")
            written(Path(folder), name, asked, examples)
            theirs.append(of_harness(model, Path(folder), name))
            ours.append(of_calibwrap(adapter, asked, examples))
            right += [one.answer for one in asked]
    them, us, answers = np.concatenate(theirs), np.concatenate(ours), np.array(right)
    lm = cw.CalibratedLM(adapter, readout=readout_of(PROBE))
    found = {
        "questions": len(answers),
        "largest_difference_of_a_log_likelihood": float(np.abs(them - us).max()),
        "other_first_choices": int((them.argmax(axis=1) != us.argmax(axis=1)).sum()),
        "accuracy_harness": float((them.argmax(axis=1) == answers).mean()),
        "accuracy_calibwrap": float((us.argmax(axis=1) == answers).mean()),
        "readout": lm.readout.label,
    }
    for key, value in found.items():
        print(f"{key}: {value}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
