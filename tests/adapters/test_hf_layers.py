"""Hidden states after chosen layers: those of a plain forward pass, whatever the padding."""

import functools

import numpy as np
import pytest
import torch

from calibwrap.errors import InputError

from . import hf_models as models

PROMPTS = ["Question: which planet is red? Answer: Mars\n", "A", "東京 — and an umbrella"]
ALIKE = [f"Question: which of all the planets that we know is the one they call red? Answer: {one}\n" for one in
         ("Mars", "Venus", "the planet Saturn", "Pluto, which is none")]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "gemma3-wide", "mamba"])
def test_states_are_those_of_a_plain_forward_also_behind_a_shared_beginning(family):
    adapter, prompts = models.adapter(family), [*PROMPTS, *ALIKE]
    depth = adapter.n_layers
    found = adapter.states(prompts, (0, 1, depth))
    assert found.shape[:2] == (7, 3)
    for prompt, states in zip(prompts, found, strict=True):
        ids = torch.tensor([adapter.tokenize(prompt)[0]])
        with torch.no_grad():
            truth = adapter.model(input_ids=ids, output_hidden_states=True).hidden_states
        for layer, state in zip((0, 1, depth), states, strict=True):
            np.testing.assert_allclose(state, truth[layer][0, -1].numpy(), atol=2e-5)


def test_what_prompts_share_is_read_once(monkeypatch):
    adapter, read = models.adapter("llama"), []
    monkeypatch.setattr(adapter.model, "forward", counted(adapter.model.forward, read))
    adapter.states(ALIKE, [1])
    assert sum(read) < 0.5 * sum(len(adapter.tokenize(prompt)[0]) for prompt in ALIKE)


def counted(forward, read):
    """Return a forward that notes how many tokens it reads."""

    @functools.wraps(forward)
    def noted(*args, **inputs):
        read.append(inputs["input_ids"].numel())
        return forward(*args, **inputs)

    return noted


def test_the_last_layer_is_what_the_head_reads():
    adapter = models.adapter("llama")
    state = adapter.states(PROMPTS, [adapter.n_layers])[:, 0]
    logits = adapter.model.get_output_embeddings()(torch.tensor(state, dtype=torch.float32)).detach()
    wanted = np.stack([scores.logprobs[0] for scores in adapter.next_token(PROMPTS)])
    np.testing.assert_allclose(torch.log_softmax(logits, dim=-1).numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("layers", [(), (-1,), (99,), (True,), (1.0,)])
def test_layers_that_do_not_exist_are_named(layers):
    with pytest.raises(InputError, match="numbers from 0 to"):
        models.adapter("llama").states(PROMPTS, layers)
