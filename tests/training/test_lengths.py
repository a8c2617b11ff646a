"""What a run could not use of its questions, told before any weights are read."""

import pytest

from calibwrap.data import save_questions
from calibwrap.errors import InputError, PromptTooLong
from calibwrap.questions import Question
from calibwrap.training import train
from calibwrap.training.plan import plan
from calibwrap.training.weights import load_tokenizer, load_trainable
from tests.adapters import gguf_models

from . import runs

EXACT = {"algorithm": "exact", "max_length": 300}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lengths")
    runs.prepare(folder)
    asked = runs.questions(0, 6)
    asked[4] = Question("Which " + "very " * 60 + "far town is Rome?", ["Rome", "Mars"], answer=0, id="longest")
    save_questions(asked, folder / "long.jsonl")
    asked[4] = Question("Which is far?", ["Rome", "Mars" * 60], answer=0, id="longest")
    save_questions(asked, folder / "wrong.jsonl")
    (folder / "free.jsonl").write_text('{"question": "Capital of France?", "answers": ["Paris"]}\n' * 2)
    return folder


@pytest.mark.parametrize(("method", "changed"), [("catto", {}), ("cft", {}), ("rcft", {}), ("rewarding-doubt", EXACT)])
def test_a_question_that_is_too_long_is_told_as_training_tells_it(folder, method, changed):
    asked = runs.settings(folder, f"long-{method}", method, train={"source": str(folder / "long.jsonl")}, **changed)
    with pytest.raises(PromptTooLong, match="'longest'") as told:
        train(asked)
    with pytest.raises(PromptTooLong) as planned:
        plan(asked)
    assert str(planned.value) == str(told.value)
    assert plan(asked.model_copy(update={"max_length": 900})).questions == 6


def test_which_wrong_answer_is_the_hardest_is_not_known_to_a_plan(folder):
    source = {"train": {"source": str(folder / "wrong.jsonl")}}
    with pytest.raises(PromptTooLong, match="'longest' with its rejected answer"):
        plan(runs.settings(folder, "wrong", "catto", **source))
    plan(runs.settings(folder, "wrong", "catto", rejected="hardest", **source))
    with pytest.raises(PromptTooLong, match="with its chosen answer"):
        plan(runs.settings(folder, "wrong", "catto", rejected="hardest", max_length=20))


def test_questions_that_the_judge_does_not_know_are_told(folder):
    asked = runs.settings(folder, "judge", "rewarding-doubt", judge="aliases", **EXACT)
    with pytest.raises(InputError, match="judge 'aliases' wants questions without options"):
        plan(asked)
    free = runs.settings(folder, "judge", "rewarding-doubt", train={"source": str(folder / "free.jsonl")}, **EXACT)
    with pytest.raises(InputError, match="judge 'options' wants questions with options"):
        plan(free)


def test_readouts_and_trackers_that_are_not_there_are_told(folder):
    held_out = {"source": str(folder / "held-out.jsonl"), "readout": "letters"}
    with pytest.raises(InputError, match="There is no readout 'letters'"):
        plan(runs.settings(folder, held_out=held_out))
    with pytest.raises(InputError, match="must be 'label' or 'continuation'"):
        plan(runs.settings(folder, readout="p_true"))
    with pytest.raises(InputError, match=r"'report_to' must name trackers.*\['nope'\]"):
        plan(runs.settings(folder, report_to=["nope"]))


def test_the_tokenizer_of_a_plan_is_that_of_training(folder, tmp_path):
    file = str(gguf_models.write_llama(tmp_path / "tiny.gguf", gguf_models.byte_pairs(), add_bos=True).path)
    for source in (str(folder / "model" / "weights"), file):
        alone, whole = load_tokenizer(source), load_trainable(source)[1]
        assert alone("Which town?")["input_ids"] == whole("Which town?")["input_ids"]
        assert (alone.eos_token_id, alone.pad_token_id) == (whole.eos_token_id, whole.pad_token_id)
