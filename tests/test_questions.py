import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.errors import InputError, QuestionError
from calibwrap.questions import (
    CLOZE,
    LETTER,
    LETTER_CHAT,
    LETTERS,
    TEMPLATES,
    Chat,
    FreeQuestion,
    Question,
    Template,
    answers_of,
    groups_of,
)

words = st.text(min_size=1, max_size=8).filter(str.strip)


@given(words, st.lists(words, min_size=1, max_size=6, unique_by=str.strip), words)
def test_every_template_shows_question_and_context(prompt, options, context):
    question = Question(prompt, options, context=context)
    for template in TEMPLATES.values():
        read = template.prompt(question, LETTERS)
        text = read if isinstance(read, str) else read.messages[-1][1]
        assert prompt in text
        assert context in text
        assert all(option in text for option in options) or not template.shows_options


@given(words, st.lists(words, min_size=1, max_size=6, unique_by=str.strip))
def test_options_are_kept_in_order_and_frozen(prompt, options):
    question = Question(prompt, options)
    assert list(question.options) == options
    assert isinstance(question.options, tuple)


def test_letter_prompt_by_hand():
    text = LETTER.prompt(Question("Red planet?", ["Mars", "Venus"], context="Planets."), LETTERS)
    assert text.startswith("Planets.\n\nThe following")
    assert text.endswith("Question: Red planet?\nA. Mars\nB. Venus\nAnswer:")


def test_cloze_prompt_by_hand():
    assert CLOZE.prompt(Question("Red planet?", ["Mars"])) == "Question: Red planet?\nAnswer:"


def test_braces_in_a_question_are_text():
    assert "{x}" in CLOZE.prompt(Question("What is {x}?", ["{option}"]))
    assert "A. {label}" in LETTER.prompt(Question("Which?", ["{label}"]), LETTERS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " "}, "'prompt'"),
        ({"prompt": 3}, "'prompt'"),
        ({"options": []}, "'options'"),
        ({"options": "Mars"}, "'options'"),
        ({"options": {"Mars"}}, "'options'"),
        ({"options": ["Mars", ""]}, r"options\[1\]"),
        ({"options": ["Mars", None]}, r"options\[1\]"),
        ({"options": ["Mars", "Mars "]}, "different"),
        ({"answer": 2}, "0 to 1"),
        ({"answer": -1}, "0 to 1"),
        ({"answer": True}, "0 to 1"),
        ({"answer": "Mars"}, "0 to 1"),
    ],
)
def test_malformed_questions_are_refused_by_name(fields, message):
    with pytest.raises(QuestionError, match=message):
        Question(**{"prompt": "Which?", "options": ["Mars", "Venus"]} | fields)


def test_the_answers_text():
    assert Question("Which?", ["Mars", "Venus"], answer=1).answer_text == "Venus"
    assert Question("Which?", ["Mars"]).answer_text is None


def test_a_chat_template_gives_messages():
    chat = Template(body="{question}", style="chat", system="Be brief.", prefix="I say", name="own").prompt(
        Question("Which?", ["Mars"])
    )
    assert chat == Chat((("system", "Be brief."), ("user", "Which?")), prefix="I say")
    assert [role for role, _ in LETTER_CHAT.prompt(Question("Which?", ["Mars"]), LETTERS).messages] == ["user"]


@pytest.mark.parametrize("messages", [(), (("user", " "),)])
def test_a_chat_without_text_is_refused(messages):
    with pytest.raises(InputError, match="messages"):
        Chat(messages)


def test_too_few_labels_are_refused():
    with pytest.raises(InputError, match=r"2 options of question 'q7'. Got 1 labels"):
        LETTER.prompt(Question("Which?", ["Mars", "Venus"], id="q7"), ("A",))


@pytest.mark.parametrize("body", ["{prompt}", "{0}"])
def test_an_unknown_field_is_named(body):
    with pytest.raises(InputError, match="unknown field"):
        Template(body=body).prompt(Question("Which?", ["Mars"]))


def test_labels_tell_templates_apart():
    assert LETTER.label == "letter"
    assert Template(name="letter").label != "letter"
    assert Template(body="A {question}").label != Template(body="B {question}").label
    assert Template(body="A {question}").label == Template(body="A {question}").label


def test_free_questions_check_their_fields():
    assert FreeQuestion("Who?", ["Ann"]).answers == ("Ann",)
    for wrong, said in (
        ({"prompt": " "}, "'prompt'"),
        ({"answers": "Ann"}, "'answers' must be a list"),
        ({"answers": [1]}, r"'answers\[0\]'"),
    ):
        with pytest.raises(QuestionError, match=said):
            FreeQuestion(**{"prompt": "Who?", "answers": ["Ann"]} | wrong)
    with pytest.raises(InputError, match=r"Got FreeQuestion\(.*; for free text there are"):
        answers_of([FreeQuestion("Who?", ["Ann"])])


def test_groups_are_told_and_a_missing_one_is_named():
    asked = [Question("Red?", ["yes", "no"], group="sky"), Question("Wet?", ["yes", "no"], id="q2")]
    assert groups_of(asked[:1]) == ["sky"]
    with pytest.raises(QuestionError, match=r"1 of 2 questions have none \(first: q2\)"):
        groups_of(asked)
    with pytest.raises(QuestionError, match="'group'"):
        Question("Red?", ["yes", "no"], group=3)
