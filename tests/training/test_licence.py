"""The licence of a base model: where one is stated it is found, and nothing is made up."""

import json

import gguf
import pytest

from calibwrap.training.licence import licence_of_card, stated_licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: mit\n---\n# Model", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: other\nlicense_name: own\n---\n", "other: own"),
        ("---\nlicense: mit\nlicense_name: own\n---\n", "mit"),
        ("---\ntags: [x]\n---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
        ("---\nlicense: mit\n", ""),
        ("---\n- license\n---\n", ""),
        ("---\nlicense: [\n---\n", ""),
        ("", ""),
    ],
)
def test_a_card_states_it_between_its_fences(text, licence):
    assert licence_of_card(text) == licence


def test_a_folder_states_it_in_its_card_or_its_file(tmp_path):
    assert stated_licence(str(tmp_path)) == ""
    (tmp_path / "LICENSE.txt").write_text("Permission is hereby granted")
    assert stated_licence(str(tmp_path)) == "the text in its file LICENSE.txt"
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert stated_licence(str(tmp_path)) == "mit (by its card)"


def test_an_adapter_has_its_base_s(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "base")}))
    assert stated_licence(str(tmp_path)) == "mit (by its card)"


@pytest.mark.parametrize("licence", ["apache-2.0", None])
def test_a_gguf_file_states_it_in_its_metadata(tmp_path, licence):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    if licence:
        writer.add_license(licence)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert stated_licence(str(tmp_path / "m.gguf")) == (f"{licence} (by the file's metadata)" if licence else "")


def test_a_name_on_the_hub_has_its_card_s(tmp_path, monkeypatch):
    import huggingface_hub

    def absent(name, file):
        raise FileNotFoundError(name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    assert stated_licence("owner/name") == ""
    (tmp_path / "card.md").write_text("---\nlicense: gemma\n---\n")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: str(tmp_path / "card.md"))
    assert stated_licence("owner/name") == "gemma (by its card on the hub)"
