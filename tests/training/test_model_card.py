"""The model card says what was measured, and nothing else."""

from pathlib import Path

import yaml

from calibwrap.training.model_card import model_card
from calibwrap.training.reading import METHODS

FIGURE = {"value": 0.25, "low": 0.2, "high": 0.3125, "reason": ""}
ABSENT = {"value": None, "low": None, "high": None, "reason": "all right"}
AFTER = {"accuracy": FIGURE, "mean_confidence": FIGURE, "ece": FIGURE, "brier": FIGURE, "nll": ABSENT}


def settings(method="catto", **changed):
    values = {
        "model": "/home/someone/models/base",
        "output": "/home/someone/runs/tuned",
        "train": {"source": "commonsense_qa", "split": "train", "limit": 360},
        "held_out": {"source": "/home/someone/mine.jsonl", "seed": None},
    }
    return METHODS[method].model_validate({**values, **changed})


def test_figures_stand_with_their_intervals():
    card = model_card(settings(), 300, {}, AFTER)
    assert "# base, trained by CATTO" in card
    assert "| ECE, 15 bins | not measured | 0.250 [0.200, 0.312] |" in card
    assert "| negative log-likelihood | not measured | not measured |" in card
    assert "300 questions, none of them trained on" in card
    assert (
        "`commonsense_qa`, split train, at most 360 questions, order drawn with seed 0; 60 steps, 360 examples" in card
    )
    assert "`calibwrap train catto CONFIG.yaml`" in card


def test_no_folder_of_the_machine_is_in_it_and_the_settings_train_again():
    card = model_card(settings("rcft", lora=None), 300, AFTER, AFTER)
    assert "someone" not in card
    written = yaml.safe_load(card.partition("```yaml\n")[2].partition("```")[0])
    again = METHODS["rcft"].model_validate(written)
    assert again.output == Path("FOLDER")
    assert again.model == "base"
    assert "adapter/" not in card


def test_a_relative_folder_is_no_name_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "mine" / "base").mkdir(parents=True)
    asked = settings(model="mine/base", output="mine/tuned")
    assert "# mine/base," in model_card(asked, 300, {}, AFTER)  # nothing there: the hub has names of two parts
    monkeypatch.chdir(tmp_path)
    card = model_card(asked, 300, {}, AFTER)
    assert "mine" not in card.replace("mine.jsonl", "")
    assert card.startswith("# base,")


def test_the_licence_of_the_base_is_told_or_said_to_be_unknown():
    assert "Licence of the base model: not known." in model_card(settings(), 300, {}, AFTER)
    card = model_card(settings(), 300, {}, AFTER, licence="apache-2.0 (by its card)")
    assert "Licence of the base model: apache-2.0 (by its card). These weights are derived from it." in card


def test_what_rewarding_doubt_trains_is_what_its_card_shows():
    stated = {name: FIGURE for name in ("accuracy", "mean_confidence", "ece", "ece_drawn", "auroc", "brier")}
    asked = settings("rewarding-doubt", held_out={"source": "mine.jsonl"})
    card = model_card(asked, 300, {}, {**stated, "malformed": ABSENT})
    assert "| 300 questions, readout `verbalized` | before | after |" in card
    assert "| mean stated confidence | not measured | 0.250 [0.200, 0.312] |" in card
    assert "| share of malformed statements | not measured | not measured |" in card
    assert "The stated confidence is the expected level / 10" in card
    assert "log-likelihood" not in card
    assert "stated" not in model_card(settings(), 300, {}, AFTER)


def test_the_best_step_is_named_where_it_is_not_the_last():
    assert "those after step 40, which held-out questions chose" in model_card(settings(), 300, {}, AFTER, 40)
    assert "chose" not in model_card(settings(), 300, {}, AFTER, 60)


def test_without_held_out_questions_nothing_is_claimed():
    card = model_card(settings(held_out=None), 0, {}, {})
    assert "Nothing is claimed" in card
    assert "ECE, 15 bins" not in card
    assert "`weights/`" not in model_card(settings(held_out=None, merge=False), 0, {}, {})
