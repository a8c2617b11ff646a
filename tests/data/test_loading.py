"""The one door: which source is what, and how a part of a set is chosen."""

import pytest

from calibwrap.data import load_questions, save_questions
from calibwrap.errors import InputError
from calibwrap.questions import Question


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "many.jsonl"
    save_questions([Question(f"Number {n}?", ["yes", "no"], answer=n % 2, id=str(n)) for n in range(200)], path)
    return path


def test_a_limit_takes_the_first_ones(path):
    assert [question.id for question in load_questions(path, limit=3)] == ["0", "1", "2"]
    assert len(load_questions(path, limit=1000)) == 200


def test_a_seed_takes_others_always_the_same_and_a_larger_limit_begins_with_them(path):
    few, more = (load_questions(path, limit=limit, seed=7) for limit in (20, 50))
    assert more[:20] == few
    assert sorted(int(question.id) for question in few) != list(range(20))
    assert few != load_questions(path, limit=20, seed=8)
    assert {question.id for question in load_questions(path, seed=7)} == {str(n) for n in range(200)}


def test_the_order_of_a_seed_is_pinned(path):
    """Published figures name a seed; a change of this order would change what they were measured on."""
    assert [question.id for question in load_questions(path, limit=6, seed=0)] == PINNED


PINNED = ["148", "143", "49", "131", "177", "186"]


def test_a_seed_draws_evenly(path):
    """Each question is among the first half for about half of the seeds: 200 x 40 draws, 6 standard deviations wide."""
    drawn = [question.id for seed in range(40) for question in load_questions(path, limit=100, seed=seed)]
    counts = [drawn.count(str(n)) for n in range(200)]
    assert min(counts) > 20 - 6 * 3.2
    assert max(counts) < 20 + 6 * 3.2


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": -1}, {"limit": True}, {"limit": 2.0}, {"seed": -1}])
def test_wrong_limits_and_seeds(path, wrong):
    with pytest.raises(InputError, match="must be a whole number of at least"):
        load_questions(path, **wrong)


def test_an_unknown_name_gives_near_ones_and_the_list(tmp_path):
    with pytest.raises(InputError) as caught:
        load_questions("arc-easy")
    assert "There is no file 'arc-easy'. No packaged set is called 'arc-easy'. Did you mean 'arc_easy'" in str(
        caught.value
    )
    assert "commonsense_qa, hellaswag" in str(caught.value)
    with pytest.raises(InputError, match=r"There is no file .*missing\.jsonl"):
        load_questions(tmp_path / "missing.jsonl")


def test_an_unknown_subject_gives_near_ones():
    with pytest.raises(InputError, match="Did you mean 'mmlu/anatomy'"):
        load_questions("mmlu/anatomi")


def test_a_file_has_no_splits(path):
    with pytest.raises(InputError, match="leave it out"):
        load_questions(path, split="test")


def test_a_file_named_like_a_set_is_read_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_questions([Question("Mine?", ["yes"], id="mine")], tmp_path / "sciq")
    assert load_questions("./sciq")[0].id == "mine"
    assert load_questions(tmp_path / "sciq")[0].id == "mine"


@pytest.mark.parametrize("source", ["", None, 7, [Question("?", ["a"])]])
def test_a_source_that_is_none(source):
    with pytest.raises(InputError, match="'source' must be a path or the name of a packaged set"):
        load_questions(source)
