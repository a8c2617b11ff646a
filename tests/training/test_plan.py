"""What a run needs, told before it: counts are exact, and no weights are read."""

import pytest
from transformers import GPT2Config, LlamaConfig

from calibwrap.errors import InputError, ModelError, QuestionError
from calibwrap.training import save_weights
from calibwrap.training.plan import configuration, counted, plan, rows
from calibwrap.training.settings import Lora
from tests.adapters import gguf_models, hf_models

from . import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    runs.prepare(folder)
    (folder / "model" / "weights" / "model.safetensors").unlink()  # never to be read
    return folder


def test_counts_are_those_of_the_model():
    from peft import LoraConfig, get_peft_model

    model = hf_models.llama()
    size = sum(weight.numel() for weight in model.parameters())
    assert counted(model.config, None) == (size, size)
    peft = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert counted(hf_models.llama().config, Lora(rank=3)) == (size, peft.get_nb_trainable_parameters()[0])
    tied = hf_models.gpt2()
    assert counted(tied.config, None)[0] == sum(weight.numel() for weight in tied.parameters())


def test_a_large_model_is_counted_without_its_memory():
    config = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_key_value_heads=8, vocab_size=128256)
    assert counted(config, None)[0] == 8_030_261_248  # the published size of Llama 3 8B


def test_what_a_run_of_pairs_will_do(folder):
    found = plan(runs.settings(folder, method="catto"))
    model = hf_models.llama()
    assert (found.questions, found.held_out, found.steps, found.examples) == (18, 10, 5, 20)
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert found.memory["weights"] == 4 * found.parameters
    assert found.memory["optimizer states"] == 8 * found.trainable
    assert found.memory["logits"] == 8 * 100 * model.config.vocab_size * 4
    assert found.total == sum(found.memory.values())
    assert "reference model" not in found.memory
    assert plan(runs.settings(folder, method="catto", lora=None)).memory["reference model"] == 4 * found.parameters
    assert not (folder / "run").exists()


def test_texts_in_a_step(folder):
    train = runs.questions(0, 3)
    assert rows(runs.settings(folder, method="cft"), train) == 4
    assert rows(runs.settings(folder, method="rcft"), train) == 12
    assert rows(runs.settings(folder, method="rcft", readout="label"), train) == 4  # all letters stand in one row
    assert rows(runs.settings(folder, method="rcft", weight=0), train) == 4
    with pytest.raises(InputError, match="no readout 'letters'"):
        rows(runs.settings(folder, method="rcft", readout="letters"), train)
    for algorithm, texts in (("rloo", 20), ("grpo", 20), ("exact", 4)):
        assert rows(runs.settings(folder, method="rewarding-doubt", algorithm=algorithm, draws=5), train) == texts


@pytest.mark.parametrize("method", ["catto", "cft", "rcft"])
def test_questions_without_an_answer_are_told_by_the_plan(folder, method):
    (folder / "open.jsonl").write_text('{"id": "q7", "prompt": "Is it?", "options": ["yes", "no"]}\n', encoding="utf-8")
    asked = runs.settings(folder, "open", method, train={"source": str(folder / "open.jsonl")}, held_out=None)
    with pytest.raises(QuestionError, match=r"1 of 1 questions have none \(first: q7\)"):
        plan(asked)


def test_a_head_trains_no_weights(folder):
    from calibwrap.training.reading import METHODS

    sets = {name: {"source": str(folder / f"{name.replace('_', '-')}.jsonl")} for name in ("train", "held_out")}
    found = plan(METHODS["head"].model_validate({"model": "hf:x", "output": "head.safetensors", **sets}))
    assert (found.questions, found.held_out, found.memory) == (18, 10, {})


def test_a_gguf_file_tells_enough(tmp_path):
    file = gguf_models.write_llama(tmp_path / "tiny.gguf", gguf_models.byte_pairs(), add_bos=False)
    stored = sum(array.size for array in file.weights.values())
    assert counted(configuration(str(file.path)), None)[0] == stored


def test_a_folder_with_an_adapter_has_the_configuration_of_its_base(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(hf_models.llama(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    base = str(folder / "model" / "weights")
    saved = save_weights(adapted, hf_models.byte_level(), tmp_path, merge=False, base=base)
    found = plan(runs.settings(folder, model=str(saved.adapter)))
    assert found.parameters == plan(runs.settings(folder)).parameters
    (saved.adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter configuration in .* cannot be read"):
        configuration(str(saved.adapter))


def test_what_cannot_be_planned_is_told(folder, tmp_path):
    with pytest.raises(ModelError, match="No model configuration"):
        configuration(str(tmp_path))
    with pytest.raises(InputError, match=r"'lora\.targets'"):
        counted(GPT2Config(n_layer=1), Lora(targets=["q_proj"]))
    same = {"source": str(folder / "train.jsonl")}
    with pytest.raises(InputError, match="held out"):
        plan(runs.settings(folder, held_out=same))
