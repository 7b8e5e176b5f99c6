"""`quickstudy bank` as people type it: each command once, and each bad input by its message."""

import json
import sqlite3

import pytest

from quickstudy.app import cli
from quickstudy.bank.store import TaskBank
from quickstudy.bank.tables import VARIABLE
from quickstudy.domains import keepers

POST = {
    "delivery": ["Where is my parcel?", "The courier left it with a neighbour", "Deliver it on Saturday"],
    "refund": ["I want my money back", "How long until the refund?", "You refunded only half"],
}
SHOP = {
    "shipping": ["When does my parcel arrive?", "Deliver it to my office"],
    "return": ["Refund it", "My money back"],
}


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """Run `quickstudy …` here, with a bank of its own; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "bank.sqlite"))
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    for name, task in (("post", POST), ("shop", SHOP)):
        rows = [f"{text},{label}" for label, texts in task.items() for text in texts]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(list(words))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def kept(say, tmp_path):
    """A kept task and a model that isn't kept. Gives the id."""
    for name, keep in (("post", ("--keep",)), ("shop", ())):
        code, out, _ = say(
            "adapt", f"{name}.csv", "--out", name, "--encoder", "tiny", "--prior", "none", "--json", *keep
        )
        assert code == 0
        if keep:
            id = json.loads(out)["kept"]
        else:
            assert json.loads(out)["kept"] is None
    return id


def test_nothing_is_kept_unless_it_is_asked(say, tmp_path):
    assert say("adapt", "post.csv", "--out", "post", "--encoder", "tiny", "--prior", "none")[0] == 0
    assert not (tmp_path / "bank.sqlite").exists()
    code, out, _ = say("bank", "list")
    assert code == 0 and "Nothing is kept" in out and not (tmp_path / "bank.sqlite").exists()


def test_list_show_and_json(say, kept):
    code, out, _ = say("bank", "list")
    assert code == 0 and kept in out and "post" in out
    assert say("bank", "list", "--domain", "kg")[1].startswith("Nothing is kept")
    code, out, _ = say("bank", "show", "post")
    assert code == 0 and "asked for by --keep" in out and "delivery, refund; 6 examples" in out
    shown = json.loads(say("bank", "show", kept[:5], "--json")[1])
    assert shown["material"]["texts"][:3] == POST["delivery"] and shown["entry"]["id"] == kept


def test_a_model_that_is_there_is_added_once(say, kept):
    code, out, _ = say("bank", "add", "shop", "--name", "a shop", "--licence", "CC0", "--description", "mail")
    assert code == 0 and "Kept as" in out
    assert "kept already" in say("bank", "add", "shop")[1]
    assert "CC0" in say("bank", "show", "a shop")[1]


def test_a_kept_task_is_near_a_model_that_is_not(say, kept):
    found = json.loads(say("bank", "nearest", "shop", "--json")[1])
    [near] = found["neighbours"]
    assert near["id"] == kept and near["weight"] == 1 and near["explained"] > 0.2
    assert "post" in say("bank", "nearest", "shop")[1]
    assert "no other task" in say("bank", "nearest", "post")[1]


def test_tasks_are_given_away_received_and_forgotten(say, kept, tmp_path):
    assert "1 written" in say("bank", "export", "given", "post")[1]
    other = ("--bank", "other.sqlite")
    assert "1 kept, in" in say("bank", "import", "given", *other)[1]
    assert "0 kept, 1 were there" in say("bank", "import", "given", *other)[1]
    assert say("bank", "forget", kept, *other)[1] == f"Forgotten: {kept}\n"
    assert say("bank", "list", *other)[1].startswith("Nothing is kept")
    with TaskBank(tmp_path / "bank.sqlite") as bank:
        assert len(bank) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("bank", "show", "pots"), 'Did you mean "post"'),
        (("bank", "forget", "post", "nobody"), "has no entry 'nobody'"),
        (("bank", "forget"), "names no task"),
        (("bank", "add", "nowhere"), "isn't a folder"),
        (("bank", "add", "."), "holds no model"),
        (("bank", "add", "shop", "--domain", "cooking"), "keeps nothing in a bank"),
        (("bank", "add", "shop", "--name", " "), "its name is"),
        (("bank", "nearest", "shop", "-n", "0"), "expected 1 or more"),
        (("bank", "import", "shop"), "shop has no tasks.jsonl"),
        (("bank", "import", "nowhere"), "isn't a folder"),
        (("bank", "export", "shop"), "is there already"),
        (("bank", "list", "--bank", "nowhere.sqlite"), "Nothing was kept yet"),
        (("bank", "lst"), 'Did you mean "list"'),
    ],
)
def test_bad_input_is_said_in_a_line(say, kept, words, says):
    code, out, err = say(*words)
    assert code == 2 and says in err and "Traceback" not in err and out == ""
    with TaskBank() as bank:
        assert len(bank) == 1  # what was wrong changed nothing


def test_a_bank_of_another_encoder_is_refused(say, kept, tmp_path):
    with sqlite3.connect(tmp_path / "bank.sqlite") as db:
        db.execute("UPDATE entries SET identity = 'abcdef0123456789', encoder = 'other'")
    code, _, err = say("bank", "nearest", "shop")
    assert code == 2 and "encoded by other" in err and "can't be compared" in err


@pytest.mark.parametrize(
    ("change", "says"), [("PRAGMA user_version = 3", "Update quickstudy"), ("", "damaged")]
)
def test_a_newer_or_damaged_file_is_said(say, kept, tmp_path, change, says):
    with sqlite3.connect(tmp_path / "bank.sqlite") as db:
        db.execute(change or "UPDATE parts SET x = zeroblob(3)")
    code, _, err = say("bank", "show", "post")
    assert code == 2 and says in err


def test_every_keeper_is_of_its_domain():
    found = keepers()
    assert {"text", "kg"} <= set(found)
    assert {name: load().domain for name, load in found.items()} == {name: name for name in found}
