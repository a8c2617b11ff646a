"""Where a trace names its answer: in its text, and in the bytes of its tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.errors import InputError
from calibwrap.traces import AnswerRule, Named

RULE = AnswerRule(("A", "B", "C"))
PIECES = ("Answer:", " ", "A", "B", "C", "é", "☃", "pple", ".", "\n", "**", "(", ")", " so", "'s")
PIECES += ("answer", ":", r"\boxed{", "}", r"\text{")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Answer: B", 1),
        ("Answer:B", 1),
        ("Answer:\n\nB", 1),
        ("**Answer:** B", 1),
        ("Answer: **B**", 1),
        ("Answer: (B) because of that", 1),
        ('Answer: "B".', 1),
        ("Answer: $B$", 1),
        ("Answer: B, not A", 1),
        ("Answer: A? No, wait. Answer: C", 2),
        ("Answer: A\nAnswer: none of them", 0),
        ("Answer: Apple", None),
        ("Answer: A's", None),
        ("Answer: A-level", None),
        ("Answer: A/B", None),
        ("Answer: A / no", 0),
        ("Answer: Aé", None),
        ("Answer: b", None),
        ("answer: b", None),
        ("Answer B", None),
        ("Answer: the second, B", None),
        ("B", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_the_last_label_after_a_marker_is_the_answer(text, label):
    assert RULE.named_in(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("**Answer**: B", 1),
        ("__Answer__ : B", 1),
        ("### Final answer: B", 1),
        ("ANSWER: B", 1),
        ("So the answer: **B. Mars**", 1),
        (r"\boxed{B}", 1),
        (r"Answer: $\boxed{B}$.", 1),
        (r"\[ \boxed{\text{B}} \]", 1),
        (r"\boxed {\textbf{(B)}}", 1),
        (r"Answer: \(B\)", 1),
        (r"\boxed{B. Mars}", 1),
        (r"\boxed{A} is wrong. Answer: B", 1),
        (r"Answer: A? No: \boxed{B}", 1),
        ("answer: A\n\n**Answer**: B", 1),
        ("**Answer**: A\nanswer: the other one", 0),
        (r"Answer: A, since \boxed{B + C} = \boxed{42}", 0),
        (r"\boxed{B + C}", None),
        (r"\boxed{B, C}", None),
        (r"\boxed{Banana}", None),
        (r"\boxed B", None),
        ("boxed{B}", None),
        ("The answer is B", None),
        ("Answers: B", None),
    ],
)
def test_the_default_marker_is_read_as_models_write_it(text, label):
    assert RULE.named_in(text) == label


@pytest.mark.parametrize("text", ["so: B", "**So**: B", r"\boxed{B}", "Answer: B"])
def test_a_marker_of_ones_own_is_read_as_it_is_given(text):
    assert AnswerRule(("A", "B"), "So:").named_in(text) is None


def test_the_position_in_a_box_is_that_of_the_label():
    tokens = [b"so ", b"\\boxed", b"{", b"B", b"}"]
    assert RULE.named_by(tokens, r"so \boxed{B}") == Named(1, 3, 3, b"", b"")
    assert RULE.named_by([b"**", b"Answer", b"**:", b" B"], "**Answer**: B") == Named(1, 3, 3, b" ", b"")


@pytest.mark.parametrize(
    ("text", "label"), [("B", 1), (" (B) then A", 1), ("Banana", None), ("so B", None), ("", None)]
)
def test_without_a_marker_the_trace_begins_with_its_answer(text, label):
    assert AnswerRule(("A", "B"), marker="").named_in(text) == label


def test_markers_and_labels_are_texts_and_not_patterns():
    assert AnswerRule(("A+", "A"), marker=r"\boxed{").named_in(r"so \boxed{A+}") == 0
    assert AnswerRule(("A+", "A"), marker=r"\boxed{").named_in("oxed{A") is None
    assert AnswerRule(("AB", "A")).named_in("Answer: AB") == 0


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        ([b"Answer", b":", b" B", b"."], Named(1, 2, 2, b" ", b"")),
        ([b"Answer:", b" ", b"B.\n"], Named(1, 2, 2, b"", b".\n")),
        ([b"Answer: B"], Named(1, 0, 0, b"Answer: ", b"")),
        ([b"Answer:", b" (", b"", b"B", b")"], Named(1, 3, 3, b"", b"")),
        ([b"Answer: A.", b" Answer:", b" B"], Named(1, 2, 2, b" ", b"")),
        (["☃".encode()[:1], "☃".encode()[1:], b" Answer:", b" B"], Named(1, 3, 3, b" ", b"")),
        ([b"\xff\xfe", b"Answer:", b" B", b""], Named(1, 2, 2, b" ", b"")),
        ([b"Answer:", b" B", b"anana"], None),
        ([], None),
    ],
)
def test_positions_are_counted_in_bytes(tokens, named):
    text = b"".join(tokens).decode("utf-8", "replace")
    assert RULE.named_by(tokens, text) == named


def test_a_label_of_several_tokens_has_a_first_and_a_last():
    rule = AnswerRule(("neutral", "entailment"))
    named = rule.named_by([b"Answer:", b" entail", b"ment", b"."], "Answer: entailment.")
    assert named == Named(1, 1, 2, b" ", b"")


def test_a_label_outside_ascii_is_found_in_its_bytes():
    rule = AnswerRule(("是", "否"))
    assert rule.named_by([b"Answer:", "否".encode()], "Answer:否") == Named(1, 1, 1, b"", b"")


def test_what_a_stop_text_has_cut_off_names_nothing():
    tokens = [b"Answer:", b" A", b"\n\nAnswer:", b" B"]
    assert RULE.named_by(tokens, "Answer: A") == Named(0, 1, 1, b" ", b"")
    assert RULE.named_by(tokens, "") is None


def test_tokens_that_are_not_those_of_the_text_name_nothing():
    assert RULE.named_by([b"Answer:", b" A"], "Answer: B") is None
    assert RULE.named_by([b"so"], "Answer: B") is None


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.data())
def test_the_position_does_not_depend_on_how_the_bytes_are_cut_into_tokens(pieces, data):
    text = "".join(pieces)
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    tokens = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    named = RULE.named_by(tokens, text)
    assert (None if named is None else named.label) == RULE.named_in(text)
    if named is not None:
        covered = b"".join(tokens[named.first : named.last + 1])
        assert covered == named.before + RULE.labels[named.label].encode() + named.after


@pytest.mark.parametrize(
    "labels", [("A",), (), "AB", ("A", "A"), ("A", "A."), ("A", ""), ("A", " B"), ("A", "."), ("A", 1)]
)
def test_labels_that_cannot_be_told_apart_are_refused(labels):
    with pytest.raises(InputError, match="labels"):
        AnswerRule(labels)


def test_a_marker_that_is_no_text_is_refused():
    with pytest.raises(InputError, match="marker"):
        AnswerRule(marker=None)


def test_a_rule_is_a_value():
    assert AnswerRule(["A", "B"]) == AnswerRule(("A", "B"))
    assert len({AnswerRule(["A", "B"]), AnswerRule(("A", "B"))}) == 1
    assert AnswerRule(("A", "B")).readout == "trace:Answer::A/B"


@pytest.mark.parametrize(("text", "label"), [("1,000", None), ("1.5", None), ("1/2", None), ("1, 000", 0), ("1.", 0)])
def test_a_label_that_begins_a_longer_number_does_not_count(text, label):
    assert AnswerRule(("1", "2")).named_in(f"Answer: {text}") == label
