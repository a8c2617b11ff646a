"""Studies of toy models: the table by hand, killed and resumed, and a model that fails beside others that do not."""

import csv
import json
import sys
from typing import ClassVar

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.errors import CapabilityError, InputError, JournalError
from calibwrap.lifecycle import run as study_run
from calibwrap.lifecycle.settings import checked_study, read_study, stages_of
from calibwrap.testing import ToyAdapter, ToyModel
from tests.lifecycle.worlds import world, written

WORLD = world()
MODELS = {"own": WORLD, "sharp": WORLD.sharpened(3.0), "flat": WORLD.sharpened(0.4), "letters": ToyModel.random(0)}


class Worlds(ToyAdapter):
    """Toys by name: toy:sharp and its like."""

    opened: ClassVar[list[str]] = []

    @classmethod
    def load(cls, target, **options):
        """Return the toy of that name; one cannot be opened."""
        cls.opened.append(target)
        if target == "broken":
            raise RuntimeError("the weights are torn")
        return cls(MODELS[target])


@pytest.fixture
def asked(tmp_path, monkeypatch):
    opening = sys.modules["calibwrap.opening"]
    monkeypatch.setattr(opening, "_BUILT_IN", {**opening._BUILT_IN, "toy": (__name__, "Worlds")})
    monkeypatch.setattr(Worlds, "opened", [])
    files = written(tmp_path, WORLD)
    text = {"source": str(files["corpus"]), "least_context": 16}
    return {
        "models": [
            {"stage": "pre-training", "name": "own", "spec": "toy:own", "axes": {"size": 10}},
            {"stage": "tuning", "name": "sharp", "spec": "toy:sharp", "axes": {"epoch": 1}},
            {"stage": "tuning", "name": "flat", "spec": "toy:flat"},
        ],
        "probes": {
            "generation": {**text, "events": 1000, "positions": 25},
            "factuality": {**text, "events": 400},
            "understanding": {"source": str(files["questions"]), "questions": 90, "readout": "label"},
        },
    }


pytestmark = pytest.mark.filterwarnings("ignore:The labels together carry")


def test_the_table(asked, tmp_path):
    told = []
    found = cw.study(asked, tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    assert (found.base, found.failures) == ("own", {})
    rows = {(row["model"], row["probe"]): row for row in found.rows()}
    assert len(rows) == 9
    assert rows["own", "generation"]["ece"] < 0.06
    for probe in ("generation", "factuality"):
        assert rows["sharp", probe]["gap"] > 0.1 > -0.05 > rows["flat", probe]["gap"]
        assert rows["sharp", probe]["ece_change_low"] > 0.05
    for row in rows.values():
        assert row["ece_low"] <= row["ece_high"]
        assert row["comparable"]
        assert row["ece_change"] == pytest.approx(row["ece"] - rows["own", row["probe"]]["ece"])
    assert rows["own", "generation"]["n"] == 1000
    assert rows["own", "understanding"]["n"] == 90
    assert (rows["own", "generation"]["size"], rows["sharp", "generation"]["size"]) == (10, None)
    assert rows["sharp", "generation"]["epoch"] == 1
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)
    with (tmp_path / "out" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert (
        [float(line["ece"]) for line in lines] == [row["ece"] for row in table] == [row["ece"] for row in rows.values()]
    )
    kept = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [row["ece"] for row in kept["rows"]] == [row["ece"] for row in table]
    groups = kept["reliability"][2]["groups"]
    assert sorted(groups) == ["g0", "g1", "g2"]
    assert sum(one["n"] for one in groups.values()) == 90


class Killed(BaseException):
    """The process ends here."""


def test_killed_and_resumed_gives_the_same(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(study_run, "PIECE", 10)
    whole = cw.study(asked)

    def stop(done, total):
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        cw.study(asked, tmp_path / "out", progress=stop)
    Worlds.opened.clear()
    with pytest.raises(JournalError, match="--resume"):
        cw.study(asked, tmp_path / "out")
    seen = []
    again = cw.study(asked, tmp_path / "out", resume=True, progress=lambda done, total: seen.append(done))
    assert again.rows() == whole.rows()
    assert 0 < seen[0] <= 7
    Worlds.opened.clear()
    assert cw.study(asked, tmp_path / "out", resume=True).rows() == whole.rows()
    assert Worlds.opened == []  # all is in the journal: nothing is opened
    more = {**asked, "models": [*asked["models"], {"stage": "DPO", "name": "own again", "spec": "toy:own"}]}
    assert len(cw.study(more, tmp_path / "out", resume=True).rows()) == 12
    assert Worlds.opened == ["own"]
    other = {**asked, "seed": 1}
    with pytest.raises(JournalError, match="seed"):
        cw.study(other, tmp_path / "out", resume=True)


def test_a_model_that_fails_is_told_and_the_others_go_on(asked, tmp_path):
    asked["models"].insert(1, {"stage": "tuning", "name": "torn", "spec": "toy:broken"})
    found = cw.study(asked, tmp_path / "out")
    assert found.failures == {"torn": "RuntimeError: the weights are torn"}
    assert {row["model"] for row in found.rows()} == {"own", "sharp", "flat"}
    assert json.loads((tmp_path / "out" / "study.json").read_text())["failures"] == found.failures
    Worlds.opened.clear()
    cw.study(asked, tmp_path / "out", resume=True)
    assert Worlds.opened == ["broken"]  # tried again


def test_a_probe_without_events_is_told_and_no_other_one_suffers(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(study_run, "_TOKEN", 1)  # the texts look long enough, and no model finds them so
    asked["probes"]["generation"]["least_context"] = 122
    found = cw.study(asked, tmp_path / "out")
    assert [(row["model"], row["probe"]) for row in found.rows()] == [
        (name, probe) for name in ("own", "sharp", "flat") for probe in ("factuality", "understanding")
    ]
    assert found.failures["own"].startswith("probe 'generation': InputError: it saw no events")


def test_a_probe_that_a_model_cannot_answer_leaves_the_others_be(asked, tmp_path, monkeypatch):
    real = Worlds.score

    def torn(self, *arguments, **options):
        if self.model is MODELS["sharp"]:
            raise CapabilityError("no log-probabilities of a text here")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Worlds, "score", torn)
    done = []
    found = cw.study(asked, tmp_path / "out", progress=lambda *now: done.append(now))
    assert [row["probe"] for row in found.rows() if row["model"] == "sharp"] == ["understanding"]
    assert found.failures == {
        "sharp": "; ".join(
            f"probe '{name}': CapabilityError: no log-probabilities of a text here"
            for name in ("generation", "factuality")
        )
    }
    assert done[-1][0] == done[-1][1]
    monkeypatch.setattr(Worlds, "score", real)
    assert len(cw.study(asked, tmp_path / "out", resume=True).rows()) == 9  # what failed is tried again


def test_another_model_in_the_place_of_one_that_was_begun_is_refused(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(study_run, "PIECE", 10)

    def stop(done, total):
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        cw.study(asked, tmp_path / "out", progress=stop)
    asked["models"][0]["spec"] = "toy:flat"
    found = cw.study(asked, tmp_path / "out", resume=True)
    assert "not the model that the journal was begun with" in found.failures["own"]


def test_another_model_under_the_name_of_one_that_is_done_is_refused_too(asked, tmp_path):
    cw.study(asked, tmp_path / "out")
    asked["models"][1]["spec"] = "toy:flat"
    found = cw.study(asked, tmp_path / "out", resume=True)
    assert "(spec differ)" in found.failures["sharp"]
    assert {row["model"] for row in found.rows()} == {"own", "flat"}


def test_weights_that_changed_in_place_are_not_passed_for_those_that_were_read(asked, tmp_path, monkeypatch):
    weights = tmp_path / "own.bin"
    weights.write_bytes(b"first")
    monkeypatch.setitem(MODELS, str(weights), WORLD)
    asked["models"] = [{"stage": "a", "spec": f"toy:{weights}"}]
    assert not cw.study(asked, tmp_path / "out").failures
    assert not cw.study(asked, tmp_path / "out", resume=True).failures
    weights.write_bytes(b"second")
    found = cw.study(asked, tmp_path / "out", resume=True)
    assert "(files differ)" in found.failures["a"]
    assert not (tmp_path / "out" / "table.csv").exists()  # no old table beside a report without figures
    assert not (tmp_path / "out" / "table.parquet").exists()


def test_other_tokens_of_the_same_vocabulary_are_other_events(asked, monkeypatch):
    real = Worlds.score

    def shifted(self, prompts, continuations, **options):
        found = real(self, prompts, continuations, **options)
        if self.model is not MODELS["flat"] or len(continuations[0]) > 1:
            return found
        return [[cw.base.replace(one, chosen=np.roll(one.chosen, 1)) for one in row] for row in found]

    monkeypatch.setattr(Worlds, "score", shifted)
    del asked["probes"]["factuality"]
    rows = {(row["model"], row["probe"]): row for row in cw.study(asked).rows()}
    assert rows["flat", "generation"]["n"] == rows["own", "generation"]["n"]
    assert not rows["flat", "generation"]["comparable"]
    assert rows["sharp", "generation"]["comparable"]
    assert rows["flat", "understanding"]["comparable"]


def test_a_changed_tokenizer_has_no_differences_in_texts(asked, monkeypatch):
    real = Worlds.fingerprint

    def renamed(self):
        return cw.base.replace(real(self), tokenizer="another" if self.model is MODELS["flat"] else "toy")

    monkeypatch.setattr(Worlds, "fingerprint", renamed)
    rows = {(row["model"], row["probe"]): row for row in cw.study(asked).rows()}
    for probe, comparable in (("generation", False), ("factuality", False), ("understanding", True)):
        assert rows["flat", probe]["comparable"] is comparable
        assert (rows["flat", probe]["ece_change"] is not None) is comparable
        assert rows["sharp", probe]["comparable"]


def test_weights_beyond_the_limit_are_not_opened(asked, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"x" * 3_000_000)
    asked["models"].append({"stage": "big", "name": "big", "spec": f"llama-cpp:{tmp_path / 'model.gguf'}"})
    asked["memory_gb"] = 0.001
    found = cw.study(asked)
    assert "0.003 GB" in found.failures["big"]
    assert {row["model"] for row in found.rows()} == {"own", "sharp", "flat"}


def test_folders_of_checkpoints_and_revisions_become_models(tmp_path):
    for step in (1000, 200):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "config.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    probes = {"understanding": {"source": "arc_easy"}}
    models = [
        {"stage": "pre-training", "folder": str(tmp_path), "axes": {"size": 5}},
        {"stage": "hub", "spec": "EleutherAI/pythia-70m", "revisions": ["step2000", "main", "step300"]},
    ]
    found = stages_of(checked_study({"models": models, "probes": probes}))
    assert [one.name for one in found] == [
        "pre-training checkpoint-200",
        "pre-training checkpoint-1000",
        "hub step300",
        "hub step2000",
        "hub main",
    ]
    assert [one.axes.get("step") for one in found] == [200, 1000, 300, 2000, None]
    assert found[1].spec == f"hf:{tmp_path / 'checkpoint-1000'}"
    assert (found[2].spec, found[2].settings) == ("hf:EleutherAI/pythia-70m", {"revision": "step300"})


ONE = {"stage": "a", "spec": "toy:own"}
ASK = {"understanding": {"source": "arc_easy"}}


def asking(**fields):
    """Return a study whose one probe asks SciQ in some way."""
    return {"models": [ONE], "probes": {"understanding": {"source": "sciq", **fields}}}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"models": [ONE], "probe": ASK}, "'probes' is missing"),
        ({"models": [ONE], "probes": {}}, "at least one of generation"),
        ({"models": [ONE], "probes": {"reading": {}}}, "'probes.reading' is unknown"),
        ({"models": [], "probes": ASK}, "at least 1"),
        ({"models": [{**ONE, "folder": "x"}], "probes": ASK}, "either 'spec' or 'folder'"),
        ({"models": [{"stage": "a"}], "probes": ASK}, "either 'spec' or 'folder'"),
        ({"models": [ONE, ONE], "probes": ASK}, "'a' twice"),
        ({"models": [ONE], "probes": ASK, "base": "b"}, "'base' must be one of a"),
        ({"models": [{"stage": "a", "folder": "nowhere"}], "probes": ASK}, "no folder of checkpoints"),
        ({"models": [ONE], "probes": {"generation": {"source": "nowhere.txt"}}}, "no file 'nowhere.txt'"),
        (asking(readout="p_true", header="x"), "go with a label"),
        (asking(template={"bod": ""}), "Got bod"),
        (asking(template={"body": 3}), "'body' of 'template' must be str. Got 3"),
        ({"models": [ONE], "probes": {"generation": {"source": "boolq", "least_context": 5000}}}, "goes on behind"),
        ({"models": [{**ONE, "axes": {"ece": 3}}], "probes": ASK}, "no column of the table has. Got 'ece'"),
        (
            {
                "models": [{**ONE, "axes": {"epoch": 1}}, {**ONE, "stage": "b", "axes": {"epoch": "last"}}],
                "probes": ASK,
            },
            "numbers or texts, not both. Got 'last' for 'epoch' of 'b'",
        ),
        ({"models": [{"stage": "a", "spec": f"hf:{__file__}", "revisions": ["x"]}], "probes": ASK}, "lies on the disk"),
        (asking(readout="lable"), "lable"),
        (asking(source="triviaqa"), "those of triviaqa have none"),
        ({"models": [ONE], "probes": {"factuality": {"source": "boolq"}}}, "names an entity or an answer"),
    ],
)
def test_what_is_no_study_is_told(values, says):
    with pytest.raises(InputError, match=says):
        cw.study(values)


def test_yaml_files_are_read_strictly(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("models:\n- {stage: a, spec: 'toy:own'}\nprobes: {understanding: {source: arc_easy}}\nbins: 15\n")
    assert read_study(path).bins == 15
    path.write_text(path.read_text() + "binz: 3\n")
    with pytest.raises(InputError, match=r"'binz' is unknown \(did you mean 'bins'\?\)"):
        read_study(path)


def test_the_journal_of_another_form_is_told(asked, tmp_path):
    cw.study(asked, tmp_path / "out")
    path = tmp_path / "out" / study_run.JOURNAL
    path.write_text(path.read_text().replace('"squared_error"', '"squared"'))
    with pytest.raises(JournalError, match="not complete"):
        cw.study(asked, tmp_path / "out", resume=True)
