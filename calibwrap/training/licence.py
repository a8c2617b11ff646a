"""The licence that a base model states: what is trained on it is derived from it."""

from pathlib import Path
from typing import Any

from calibwrap.errors import need
from calibwrap.training.weights import base_of_adapter

_CARD = "README.md"
_FENCE = "---"
"""Line before and after the keys of a model card."""


def stated_licence(source: str) -> str:
    """Return the licence that a base model states and where it does; empty where it states none that can be found.

    Asked are, in this order: the list of packaged models; the base of a LoRA adapter; the metadata of a GGUF file; the
    card in a folder, else its file LICENSE; the card on the hub, or a copy of it on this machine.

    Args:
        source: what was trained on, as `load_trainable` takes it.

    >>> stated_licence("smollm2-135m-instruct")
    'Apache-2.0 (in the package)'
    """
    from calibwrap.data import packaged_models

    for model in packaged_models():
        if model.name == source:
            return model.licence
    base = base_of_adapter(source)
    if base is not None:
        return stated_licence(base)
    if source.endswith(".gguf"):
        return _said(_of_gguf(source), "the file's metadata")
    if Path(source).is_dir():
        return _of_folder(Path(source))
    return _said(_of_hub(source), "its card on the hub")


def licence_of_card(text: str) -> str:
    r"""Return the key `license` of a model card, with `license_name` where it is "other"; empty without.

    >>> licence_of_card("---\nlicense: other\nlicense_name: own-terms\n---\n# Model\n")
    'other: own-terms'
    """
    yaml = need("yaml", feature="reading a model card", extra="train")
    first, _, rest = text.partition("\n")
    keys, fence, _ = rest.partition(f"\n{_FENCE}")
    if first.strip() != _FENCE or not fence:
        return ""
    try:
        values = yaml.safe_load(keys)
    except yaml.YAMLError:  # a card that says nothing readable says nothing about its licence
        return ""
    found = values.get("license") if isinstance(values, dict) else None
    named = values.get("license_name") if found == "other" else None
    return ": ".join(_listed(one) for one in (found, named) if one)


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _said(licence: str, where: str) -> str:
    return f"{licence} (by {where})" if licence else ""


def _of_folder(folder: Path) -> str:
    """Return what the card in a folder says, else that there is a text of a licence."""
    card = folder / _CARD
    stated = licence_of_card(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else ""
    if stated:
        return _said(stated, "its card")
    texts = sorted(file.name for file in folder.iterdir() if file.stem.upper() in ("LICENSE", "LICENCE"))
    return f"the text in its file {texts[0]}" if texts else ""


def _of_gguf(source: str) -> str:
    """Return the key `general.license` of a GGUF file."""
    gguf = need("gguf", feature="reading the licence of a GGUF file", extra="train")
    found = gguf.GGUFReader(source).fields.get("general.license")
    return "" if found is None else str(found.contents())


def _of_hub(name: str) -> str:
    """Return what a model's card on the hub says; empty when there is none, or the hub cannot be reached."""
    hub = need("huggingface_hub", feature="reading a model card", extra="train")
    try:
        card = Path(hub.hf_hub_download(name, _CARD))
    except (OSError, ValueError):  # no card, no such name, or no network
        return ""
    return licence_of_card(card.read_text(encoding="utf-8", errors="replace"))
