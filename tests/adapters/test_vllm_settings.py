"""What follows from an engine's configuration; configurations that this machine has no engine for are stubs.

The numbers in test names are those of vLLM's known pitfalls (docs/vllm.md).
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from calibwrap.adapters._vllm_drawing import seeds, settings_of
from calibwrap.adapters._vllm_facts import STEERING, check_drawing, facts_of, list_length, provides_of
from calibwrap.adapters._vllm_opening import ends_of, number_format, options_of, tokenizer_of
from calibwrap.adapters._vllm_reading import GIVEN_IDS_A_REQUEST, given_scores, in_chunks, token_scores
from calibwrap.base import Sampling
from calibwrap.calibrators import Temperature
from calibwrap.errors import CapabilityError, InputError, ModelError, SemanticsMismatch

FIELDS = ("n", "logprobs", "logprob_token_ids")


def config(device="cuda", chunked=True, v2=False, speculative=None, sharing=False, **model):
    """A `VllmConfig` as far as it is read."""
    settings = {"logprobs_mode": "raw_logprobs", "max_logprobs": 20, "max_model_len": 512, "runner_type": "generate",
                "logits_processors": [STEERING], "get_vocab_size": lambda: 1000}  # fmt: skip
    return SimpleNamespace(
        model_config=SimpleNamespace(**{**settings, **model}),
        scheduler_config=SimpleNamespace(max_num_seqs=256, enable_chunked_prefill=chunked),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=sharing),
        device_config=SimpleNamespace(device_type=device),
        speculative_config=speculative,
        use_v2_model_runner=v2,
    )


def facts(fields=FIELDS, **options):
    return facts_of(config(**options), fields)


def provides(**options):
    return provides_of(facts(**options), chat=False, token_bytes=True)


def entry(value):
    return SimpleNamespace(logprob=value)


@pytest.mark.parametrize(
    ("max_logprobs", "asked", "sent"),
    [(20, 20, 20), (20, 0, 0), (5, 5, 5), (-1, 7, 7), (-1, None, -1), (-1, 5000, 1000), (0, 0, 0)],
)
def test_v4_lists_up_to_max_logprobs(max_logprobs, asked, sent):
    assert list_length(facts(max_logprobs=max_logprobs), asked, least=0) == sent


@pytest.mark.parametrize(("max_logprobs", "asked"), [(20, 21), (20, None), (0, 1)])
def test_v4_a_longer_list_is_refused_with_the_option_to_change(max_logprobs, asked):
    with pytest.raises(CapabilityError, match=r"load it with max_logprobs=.*ids="):
        list_length(facts(max_logprobs=max_logprobs), asked, least=0)


@pytest.mark.parametrize("asked", [0, -1, True])
def test_a_list_of_nothing_is_refused(asked):
    with pytest.raises(InputError, match="at least 1"):
        list_length(facts(), asked, least=1)


def test_v4_provides_follows_max_logprobs():
    assert (provides().top, provides().full_vocabulary) == (20, False)
    assert (provides(max_logprobs=-1).top, provides(max_logprobs=-1).full_vocabulary) == (None, True)


def test_v3_versions_without_given_ids_say_so():
    old = facts_of(config(), ("n", "logprobs"))
    assert provides_of(old, chat=True, token_bytes=True).given_ids == 0
    assert provides_of(old, chat=True, token_bytes=True).labels  # by lists, with bounds
    assert provides().given_ids is None


def test_v5_many_ids_go_in_chunks():
    chunks = in_chunks([*range(300), 5, 5])
    assert [len(chunk) for chunk in chunks] == [128, 128, 44]
    assert sorted(token for chunk in chunks for token in chunk) == list(range(300))
    assert max(map(len, chunks)) <= GIVEN_IDS_A_REQUEST


def test_v5_chunks_that_agree_are_one_reading():
    replies = [{9: entry(-0.5), 1: entry(-3.0)}, {9: entry(-0.51), 2: entry(-4.0)}]
    scores = given_scores([2, 1, 2], replies)
    assert scores.ids.tolist() == [[2, 1, 2]]
    assert scores.logprobs.tolist() == [[-4.0, -3.0, -4.0]]


def test_v5_chunks_that_do_not_agree_are_refused():
    with pytest.raises(ModelError, match="VLLM_BATCH_INVARIANT"):
        given_scores([1, 2], [{9: entry(-0.5), 1: entry(-3.0)}, {8: entry(-0.7), 2: entry(-4.0)}])


def test_v3_the_drawn_token_is_no_part_of_the_list():
    listed = {7: entry(-5.0), 1: entry(-1.0), 2: entry(-2.5)}
    scores = token_scores([listed, dict(list(listed.items())[1:])], [7, 1], listed=2, vocabulary=10)
    assert scores.ids.tolist() == [[1, 2], [1, 2]]
    assert scores.chosen_logprob.tolist() == [-5.0, -1.0]
    assert scores.log_cut.tolist() == [-2.5, -2.5]  # token 7 has less, and so has every other
    assert scores.log_tail[0] == pytest.approx(np.log1p(-np.exp(-1.0) - np.exp(-2.5)))


def test_a_reply_with_too_little_is_named():
    with pytest.raises(ModelError, match="without their 2 entries"):
        token_scores([{1: entry(-0.5)}, {1: entry(-0.5), 2: entry(-1.0)}], [1, 1], listed=2, vocabulary=10)
    with pytest.raises(ModelError, match="left some out"):
        token_scores([{1: entry(-0.5)}], None, listed=-1, vocabulary=10)


@pytest.mark.parametrize("mode", ["raw_logits", "processed_logits"])
def test_v2_logits_are_refused_with_the_option_to_change(mode):
    with pytest.raises(SemanticsMismatch, match=r"logprobs_mode='raw_logprobs'"):
        provides(logprobs_mode=mode)


def test_v2_processed_values_are_used_where_they_are_raw_and_refused_elsewhere():
    processed = facts(logprobs_mode="processed_logprobs")
    assert processed.semantics == "processed"
    for fine in (0.0, 1.0):
        check_drawing(processed, Sampling(temperature=fine), steered=False)
    for temperature, steered in ((0.5, False), (1.0, True), (0.0, True)):
        with pytest.raises(SemanticsMismatch, match="raw_logprobs"):
            check_drawing(processed, Sampling(temperature=temperature), steered)
        check_drawing(facts(), Sampling(temperature=temperature), steered)


@pytest.mark.parametrize("temperature", [2.1, 0.005])
def test_temperatures_that_vllm_refuses_or_changes_are_refused(temperature):
    with pytest.raises(CapabilityError, match=r"from 0.01 to 2"):
        check_drawing(facts(), Sampling(temperature=temperature), steered=False)


def test_v8_speculative_decoding_cannot_be_steered():
    drafted = {"speculative": object()}
    assert provides().steers
    assert not provides(**drafted).steers
    with pytest.raises(CapabilityError, match="speculative_config"):
        check_drawing(facts(**drafted), Sampling(), steered=True)


def test_v8_no_request_sets_what_speculative_decoding_refuses():
    settings = settings_of(Sampling(stop=(".",)), seed=1, listed=0, ends=[2])
    assert settings["min_p"] == 0.0
    assert settings["logit_bias"] is None


def test_v6_an_engine_without_the_plug_in_is_not_steered():
    assert not provides(logits_processors=None).steers
    with pytest.raises(CapabilityError, match=r"logits_processors=\['calibwrap"):
        check_drawing(facts(logits_processors=[]), Sampling(), steered=True)


def test_v6_the_plug_in_may_be_given_as_a_class():
    kind = type("Steering", (), {"__module__": STEERING.partition(":")[0]})
    assert provides(logits_processors=[Temperature, kind]).steers


@pytest.mark.parametrize(("v2", "runner"), [(False, "V1"), (True, "V2")])
def test_v6_the_runner_is_told(v2, runner):
    assert facts(v2=v2).runner == runner


def test_prompt_scores_are_denied_where_vllm_computes_them_wrongly():
    assert not provides(sharing=True).score


def test_an_engine_for_embeddings_is_refused():
    with pytest.raises(CapabilityError, match="runner='generate'"):
        provides(runner_type="pooling")


def test_seeded_draws_that_would_end_the_engine_are_refused():
    chunked = facts(device="cpu")
    with pytest.raises(CapabilityError, match="enable_chunked_prefill=False"):
        check_drawing(chunked, Sampling(seed=1), steered=False)
    check_drawing(chunked, Sampling(seed=1, temperature=0.0), steered=False)
    check_drawing(chunked, Sampling(), steered=False)
    for fine in (facts(device="cpu", chunked=False), facts(), facts(device="cpu", v2=True)):
        check_drawing(fine, Sampling(seed=1), steered=False)


def test_v9_every_setting_is_sent():
    """All fields of vLLM's own record that change a draw are named, whatever a repository says."""
    settings = settings_of(Sampling(n=3, max_tokens=7, temperature=0.5, seed=4, stop=("x",)), 11, listed=5, ends=[2])
    drawing = (
        "n temperature top_p top_k min_p seed stop stop_token_ids ignore_eos max_tokens min_tokens logprobs "
        "presence_penalty frequency_penalty repetition_penalty bad_words logit_bias allowed_token_ids "
        "skip_special_tokens"
    )
    assert set(drawing.split()) <= set(settings)
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "presence_penalty": 0.0, "repetition_penalty": 1.0}
    asked = {"n": 3, "max_tokens": 7, "temperature": 0.5, "seed": 11, "stop": ["x"], "logprobs": 5, "ignore_eos": False}
    assert {**settings, **neutral, **asked} == settings


def test_greedy_samples_are_one_request():
    assert settings_of(Sampling(n=3, temperature=0.0), 11, 0, [])["n"] == 1


def test_seeds_depend_on_seed_prompt_and_place_alone():
    first, again, other = seeds([[1, 2], [1, 2], [3]], 5)
    assert len({first, again, other}) == 3
    assert seeds([[3], [1, 2]], 5) == [other, first]
    assert seeds([[1, 2]], 6) != [first]
    assert seeds([[1, 2]], None) != seeds([[1, 2]], None)
    assert all(0 <= seed < 2**62 for seed in seeds([[token] for token in range(100)], 1))


def test_facts_are_a_record():
    assert replace(facts(), runner="V2") == facts(v2=True)


def test_v8_options_go_to_vllm_untouched_but_for_the_plug_in():
    own = {"tensor_parallel_size": 4, "quantization": "awq", "logits_processors": ["mine:One"], "max_logprobs": 7}
    assert options_of(own, on_cpu=False) == {**own, "logits_processors": ["mine:One", STEERING]}
    assert options_of({"logits_processors": [STEERING]}, on_cpu=False) == {"logits_processors": [STEERING]}
    assert options_of({"speculative_config": {"method": "ngram"}}, on_cpu=False).keys() == {"speculative_config"}


def test_on_a_cpu_prompts_are_read_whole_unless_asked_otherwise():
    assert options_of({}, on_cpu=True)["enable_chunked_prefill"] is False
    assert options_of({"enable_chunked_prefill": True}, on_cpu=True)["enable_chunked_prefill"] is True


@pytest.mark.parametrize(
    ("quantization", "cache", "shards", "wanted"),
    [(None, "auto", 1, "bfloat16"), ("awq", "fp8", 4, "awq bfloat16 kv=fp8 tensor-parallel=4")],
)
def test_the_number_format_names_what_moves_logits(quantization, cache, shards, wanted):
    engine = SimpleNamespace(
        model_config=SimpleNamespace(quantization=quantization, dtype="torch.bfloat16"),
        cache_config=SimpleNamespace(cache_dtype=cache),
        parallel_config=SimpleNamespace(tensor_parallel_size=shards),
    )
    assert number_format(engine) == wanted


@pytest.mark.parametrize(("listed", "wanted"), [(2, [2]), ([2, 7], [2, 7]), (None, [2])])
def test_end_tokens_are_those_of_model_and_tokenizer(listed, wanted):
    model = SimpleNamespace(try_get_generation_config=lambda: {"eos_token_id": listed, "temperature": 0.1})
    assert ends_of(model, SimpleNamespace(eos_token_id=2)) == wanted


@pytest.mark.parametrize("skipped", [True, False])
def test_an_engine_without_a_transformers_tokenizer_is_refused(skipped):
    llm = SimpleNamespace(model_config=SimpleNamespace(skip_tokenizer_init=skipped), get_tokenizer=lambda: "mistral")
    with pytest.raises(InputError, match=r"skip_tokenizer_init|tokenizer_mode='hf'"):
        tokenizer_of(llm)


def test_the_engine_s_own_chat_template_counts():
    from . import hf_models

    tokenizer = hf_models.byte_level()
    llm = SimpleNamespace(
        model_config=SimpleNamespace(skip_tokenizer_init=False),
        get_tokenizer=lambda: tokenizer,
        chat_template="{{ 1 }}",
    )
    assert tokenizer_of(llm).chat_template == "{{ 1 }}"
    assert tokenizer.chat_template != "{{ 1 }}"
