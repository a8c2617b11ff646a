"""Preference pairs: TRL's formats, the readouts' texts, and choices that depend on nothing but seed and id."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from calibwrap.base import Completion
from calibwrap.errors import CalibrationWarning, InputError, PromptTooLong, QuestionError
from calibwrap.questions import CLOZE_CHAT, LETTER, LETTER_CHAT, Question
from calibwrap.readouts import Continuation
from calibwrap.scores import TokenScores
from calibwrap.stored_traces import Drawing
from calibwrap.training import preference_pairs
from calibwrap.training.pairs import check_lengths, traced_pairs
from calibwrap.wrap import wrap
from tests.adapters import hf_models as models

QUESTIONS = [
    Question("Which planet is red?", ["Venus", "Mars", "Rome"], answer=1, id="red", context="Mars has rust."),
    Question("Is water wet?", ["yes", "no"], answer=0, id="wet"),
]
MANY = [f"option {number}" for number in range(27)]


def test_texts_are_those_of_the_continuation_readout():
    rows = list(preference_pairs(QUESTIONS))
    assert rows[0]["id"] == "red"
    assert rows[0]["prompt"] == "Mars has rust.\n\nQuestion: Which planet is red?\nAnswer:"
    assert rows[0]["chosen"] == " Mars"
    assert rows[0]["rejected"] in (" Venus", " Rome")
    assert rows[1] == {"id": "wet", "prompt": "Question: Is water wet?\nAnswer:", "chosen": " yes", "rejected": " no"}


def test_letters_and_chats():
    row = preference_pairs(QUESTIONS[1:], template=LETTER)[0]
    assert row["prompt"].endswith("A. yes\nB. no\nAnswer:")
    assert (row["chosen"], row["rejected"]) == (" A", " B")
    row = preference_pairs(QUESTIONS[1:], template=CLOZE_CHAT)[0]
    assert row["prompt"] == [{"role": "user", "content": "Is water wet?"}]
    assert row["chosen"] == [{"role": "assistant", "content": "yes"}]
    row = preference_pairs(QUESTIONS[1:], template=LETTER_CHAT)[0]
    assert row["rejected"] == [{"role": "assistant", "content": "B"}]


def test_a_text_as_the_answer_needs_no_letter():
    assert preference_pairs([Question("Q?", MANY, answer=26)])["chosen"][:] == [" option 26"]


def test_random_choice_depends_on_seed_and_id_alone():
    many = [Question("Which?", ["a", "b", "c", "d"], answer=2, id=f"q{number}") for number in range(300)]
    first = preference_pairs(many)["rejected"]
    assert preference_pairs(many[::-1])["rejected"][:] == first[::-1]
    assert preference_pairs(many[:7])["rejected"][:] == first[:7]
    assert preference_pairs(many, seed=1)["rejected"][:] != first[:]
    counts = Counter(first)
    assert set(counts) == {" a", " b", " d"}
    assert min(counts.values()) > 70  # 100 each, four standard deviations


def test_hardest_is_the_most_probable_wrong_option():
    lm = wrap(models.llama(), models.byte_level())
    scores = lm.scores(QUESTIONS, Continuation()).logprobs.copy()
    scores[[0, 1], [1, 0]] = -np.inf
    wanted = [" " + question.options[row.argmax()] for question, row in zip(QUESTIONS, scores, strict=True)]
    assert preference_pairs(QUESTIONS, rejected="hardest", lm=lm)["rejected"][:] == wanted
    one_token = replace(LETTER, body=LETTER.body + "\n", separator="")
    with pytest.warns(CalibrationWarning, match="labels together carry only"):  # it is random
        lettered = preference_pairs(QUESTIONS, rejected="hardest", lm=lm, template=one_token)
    assert lettered[1]["rejected"] == "B"


@pytest.mark.parametrize(
    ("questions", "options", "error", "says"),
    [
        ([Question("Q?", ["a", "b"], id="x")], {}, QuestionError, "first: x"),
        ([Question("Q?", ["a"], answer=0, id="x")], {}, QuestionError, "'x' has one option"),
        (
            [Question("Q?", MANY, answer=26, id="x")],
            {"template": LETTER},
            QuestionError,
            "26 letters, and question 'x'",
        ),
        (QUESTIONS, {"rejected": "hardest"}, InputError, "lm="),
        (QUESTIONS, {"rejected": "worst"}, InputError, "'random' or 'hardest'"),
        ([], {}, InputError, "empty"),
    ],
)
def test_named_errors(questions, options, error, says):
    with pytest.raises(error, match=says):
        preference_pairs(questions, **options)


def drawn(*texts):
    nothing = TokenScores(np.zeros((0, 0)), ids=np.zeros((0, 0)), chosen=np.zeros(0))
    return tuple(Completion(text, nothing, "stop") for text in texts)


def test_traces_with_the_right_label_against_wrong_ones():
    traces = [
        drawn(" Rust. Answer: B", " Hot. Answer: A", " no idea", " Pope. Answer: C", " Iron. Answer: B"),
        drawn(" Answer: A", " Answer: A", " Answer: A", " Answer: A", " no idea"),  # never wrong: no pair
    ]
    pairs = traced_pairs(QUESTIONS, traces, Drawing(k=5))
    assert pairs["id"][:] == ["red"]
    assert pairs[0]["prompt"].endswith("A. Venus\nB. Mars\nC. Rome\nReasoning:")
    assert pairs[0]["chosen"] in (" Rust. Answer: B", " Iron. Answer: B")
    assert pairs[0]["rejected"] in (" Hot. Answer: A", " Pope. Answer: C")
    seen = {tuple(traced_pairs(QUESTIONS, traces, Drawing(k=5), seed=seed)[0].values())[2:] for seed in range(40)}
    assert len(seen) == 4
    with pytest.raises(InputError, match="None of the 1 questions"):
        traced_pairs(QUESTIONS[1:], traces[1:], Drawing(k=5))


def test_too_long_names_the_question():
    tokenizer = models.byte_level()
    for template in (None, CLOZE_CHAT):
        pairs = preference_pairs(QUESTIONS, **({} if template is None else {"template": template}))
        check_lengths(pairs, tokenizer, 128)
        with pytest.raises(PromptTooLong, match=r"'(red|wet)' with its (chosen|rejected) answer has \d+ tokens"):
            check_lengths(pairs, tokenizer, 10)
