"""Replies of the three kinds, and what is made of their lists; pure functions, no server."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap.adapters._openai_echo import tokens_inside
from calibwrap.adapters._openai_replies import Entry, Position, first_position, read_choices, text_bytes
from calibwrap.adapters._openai_scores import SLACK, TokenNumbers, sorted_row, token_scores
from calibwrap.errors import LogprobsUnavailable, SemanticsMismatch, ServerError
from calibwrap.scores import logsumexp


def token(text, logprob, **more):
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()), **more}


def chat(*entries, content="A", finish="length", **message):
    logprobs = {"content": [{**entry, "top_logprobs": top} for entry, top in entries]}
    choice = {"index": 0, "message": {"content": content, **message}, "finish_reason": finish, "logprobs": logprobs}
    return {"choices": [choice]}


def one_position(drawn, *top):
    return read_choices("chat", chat((drawn, list(top))))[0].positions[0]


def scores(position, top, asked=None, numbers=None):
    row = sorted_row(position, len(position.listed) if asked is None else asked, "the server")
    return token_scores([row], [position.drawn], numbers or TokenNumbers(), top)


def test_o3_the_sentinel_is_missing_not_small():
    position = one_position(token("x", -9999.0), token("A", -0.5), token("B", -9999.0), token("C", None))
    found = scores(position, 5)
    assert found.logprobs.tolist() == [[-0.5]]
    assert math.isnan(found.chosen_logprob[0])
    assert np.exp(found.log_tail[0]) == pytest.approx(1 - math.exp(-0.5), abs=3e-6)


def test_o3_a_list_of_sentinels_is_no_list():
    with pytest.raises(LogprobsUnavailable, match="missing or exactly 0"):
        scores(one_position(token("x", -9999.0), token("A", -9999.0), token("B", -9999.0)), 5)


def test_o5_bytes_before_text_and_never_lower_case():
    numbers = TokenNumbers()
    position = one_position(token("A", -1.0), token("a", -2.0), token(" A", -3.0), token("A", -1.0))
    found = scores(position, 5, numbers=numbers)
    assert [numbers.bytes_of(int(number)) for number in found.ids[0]] == [b"A", b"a", b" A"]
    assert found.chosen[0] == found.ids[0, 0]


def test_o5_ids_of_the_server_win_over_text():
    numbers = TokenNumbers()
    position = one_position(token("A", -1.0, id=5), token("A", -1.0, id=5), token("A", -1.0, id=9))
    found = scores(position, 5, numbers=numbers)
    assert found.ids.tolist() == [[5, 9]]
    assert numbers.bytes_of(9) == b"A"


def test_o5_one_text_with_two_values_is_two_tokens():
    found = scores(one_position(token("A", -1.0), token("A", -1.0), token("A", -2.0)), 5)
    assert len(set(found.ids[0].tolist())) == 2
    assert float(np.exp(logsumexp(found.logprobs[0]))) == pytest.approx(math.exp(-1) + math.exp(-2))


def test_o5_parts_of_characters_have_their_bytes_or_none():
    assert text_bytes("\ufffd", b"\xe2") == b"\xe2"
    assert text_bytes("\ufffd", "\ufffd".encode()) is None  # vLLM encodes the mark itself
    assert text_bytes("", b"") is None
    numbers = TokenNumbers()
    marks = [{"token": "\ufffd", "logprob": value, "bytes": list("\ufffd".encode())} for value in (-1.0, -2.0)]
    found = scores(one_position(token("A", -3.0), *marks), 5, numbers=numbers)
    assert len(set(found.ids[0].tolist())) == 3
    assert [numbers.bytes_of(int(number)) for number in found.ids[0]] == [b"", b"", b"A"]


def test_a_drawn_token_that_pushed_the_last_one_out_is_no_bound():
    found = scores(one_position(token("Z", -6.0), token("Z", -6.0), token("A", -0.5), token("B", -2.0)), 3)
    assert found.logprobs.tolist() == [[-0.5, -2.0, -6.0]]
    assert found.log_cut[0] == -2.0


def test_a_drawn_token_outside_a_whole_list_is_listed_too():
    found = scores(one_position(token("Z", -6.0), token("A", -0.5), token("B", -2.0)), 3)
    assert found.logprobs.shape == (1, 3)
    assert found.log_cut[0] == -2.0


def test_a_shorter_list_is_bounded_by_its_own_last_entry():
    position = one_position(token("A", -0.5), token("A", -0.5), token("B", -2.0), token("C", -3.0))
    found = scores(position, 2)
    assert found.log_cut[0] == -2.0
    assert np.exp(found.log_tail[0]) == pytest.approx(1 - math.exp(-0.5) - math.exp(-2.0), abs=3e-6)


def test_top_0_lists_the_drawn_token_alone():
    found = scores(one_position(token("B", -2.0), token("A", -0.5), token("B", -2.0)), 0)
    assert found.logprobs.tolist() == [[-2.0]]
    assert found.log_cut[0] == found.log_tail[0]


def legacy(tokens, values, lists, **choice):
    logprobs = {"tokens": tokens, "token_logprobs": values, "top_logprobs": lists}
    return {
        "choices": [{"index": 0, "text": "".join(tokens), "finish_reason": "length", "logprobs": logprobs, **choice}]
    }


def test_lost_entries_of_a_text_keyed_list_leave_the_tail_as_the_only_bound():
    body = legacy(["A"], [-1.0], [{"A": -1.0, "": -0.9, "B": -3.0}])  # four were asked: two share the empty text
    position = read_choices("completions", body)[0].positions[0]
    found = scores(position, 5, asked=4)
    assert found.logprobs.tolist() == [[-1.0, -3.0]]
    assert found.log_cut[0] == found.log_tail[0]


def test_a_whole_text_keyed_list_is_bounded_by_its_last_entry():
    body = legacy(["A"], [-1.0], [{"A": -1.0, "B": -1.5, "C": -3.0}])
    assert scores(read_choices("completions", body)[0].positions[0], 5, asked=3).log_cut[0] == -3.0


def test_completions_in_the_shape_of_a_chat_are_read_as_such():
    body = {"choices": [{"text": "A", "finish_reason": "stop", "logprobs": {"content": [token("A", -1.0, id=3)]}}]}
    assert read_choices("completions", body)[0].positions[0].drawn == Entry("A", b"A", -1.0, 3)


def test_responses_are_read_part_by_part():
    part = {"type": "output_text", "text": "A", "logprobs": [{**token("A", -1.0), "top_logprobs": [token("A", -1.0)]}]}
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "content": [part, part]}]
    body = {"output": output, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    (choice,) = read_choices("responses", body)
    assert (choice.text, choice.finish, len(choice.positions)) == ("AA", "length", 2)


@pytest.mark.parametrize("body", [{}, {"choices": [{}]}, {"choices": None}, {"choices": [{"message": "x"}]}])
def test_a_reply_of_another_shape_is_named(body):
    with pytest.raises(ServerError, match="Expected a reply of the chat kind"):
        read_choices("chat", body)


def test_o2_thoughts_before_the_answer_are_named():
    choices = read_choices("chat", chat((token("<think>", -0.1), []), content="", reasoning_content="Let me see"))
    with pytest.raises(LogprobsUnavailable, match=r"thinks before it answers.*Let me see"):
        first_position(choices, "the server")


def test_o2_an_empty_list_is_named():
    with pytest.raises(LogprobsUnavailable, match="switch thinking off"):
        first_position(read_choices("chat", chat(content="")), "the server")


def test_a_filtered_answer_is_named():
    with pytest.raises(ServerError, match="content filter"):
        first_position(read_choices("chat", chat(content=None, finish="content_filter")), "the server")


def test_probabilities_in_place_of_logarithms_are_refused():
    with pytest.raises(SemanticsMismatch, match="They may be probabilities"):
        scores(one_position(token("A", 0.7), token("A", 0.7), token("B", 0.3)), 5)


def test_logarithms_to_base_10_are_refused():
    values = [math.log10(p) for p in (0.6, 0.3, 0.1)]
    entries = [token(text, value) for text, value in zip("ABC", values, strict=True)]
    with pytest.raises(SemanticsMismatch, match="logarithms to another base"):
        scores(one_position(entries[0], *entries), 5)


def test_a_low_precision_sum_just_above_1_is_taken():
    found = scores(one_position(token("A", 0.0), token("A", 0.0), token("B", -5.5)), 5)
    assert found.log_tail[0] <= math.log(math.exp(-5.5) + SLACK)


@settings(max_examples=200, deadline=None)
@given(
    weights=st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=60),
    asked=st.integers(1, 25),
    drawn=st.integers(0, 10**6),
    pushes_out=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_o4_bounds_hold_whatever_the_server_lists(weights, asked, drawn, pushes_out, order):
    """The truth of every token that is not shown is at most `log_cut`, and all of them together are `log_tail`."""
    truth = np.array(weights) / sum(weights)
    told = np.log(truth).astype(np.float32).astype(float)
    best = np.argsort(-told, kind="stable")[:asked].tolist()
    drawn %= len(weights)
    if drawn not in best:
        best = [drawn, *best[:-1]] if pushes_out else [drawn, *best]  # vLLM's chat; llama_cpp.server
    order.shuffle(best)
    entries = {index: Entry(f"t{index}", f"t{index}".encode(), float(told[index])) for index in range(len(told))}
    position = Position(entries[drawn], tuple(entries[index] for index in best), by_text=False)
    numbers = TokenNumbers()
    for top in (1, 2, 5, 30):
        found = token_scores([sorted_row(position, asked, "s")], None, numbers, top)
        shown = {int(numbers.bytes_of(int(number))[1:]) for number in found.ids[0]}
        hidden = [truth[index] for index in range(len(truth)) if index not in shown]
        assert sum(hidden) <= np.exp(found.log_tail[0]) + 1e-12
        assert max(hidden, default=0.0) <= np.exp(found.log_cut[0]) * (1 + 1e-6) + 1e-12
        assert np.exp(found.log_tail[0]) <= sum(hidden) + 2 * SLACK


@given(
    st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=8), st.integers(1, 7), st.sampled_from(["", "<s>"])
)
def test_the_end_of_a_prompt_is_found_between_tokens(tokens, cut, lead):
    cut = min(cut, len(tokens) - 1)
    prompt, text = "".join(tokens[:cut]), "".join(tokens[cut:])
    assert tokens_inside([*([lead] if lead else []), *tokens], prompt, text) == cut + bool(lead)


def test_a_token_across_the_end_of_a_prompt_is_not_inside():
    assert tokens_inside(["in", " the", "re"], "in th", "ere") == 1
    assert tokens_inside(["in", "\ufffd", "\ufffd"], "in", "☃") is None
