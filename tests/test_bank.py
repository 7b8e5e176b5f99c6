"""The task bank: kept by the owner's word, found again by its support, gone when forgotten, safe from strangers."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quickstudy.bank import share, tables
from quickstudy.bank.embed import Embedding, embed, nearness
from quickstudy.bank.entry import Entry, Part, fewer
from quickstudy.bank.near import Neighbour, explained, weighed
from quickstudy.bank.store import TaskBank
from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.encoders.text import load_encoder

SECRET = "a sentence nobody may find"
SUBJECTS = {
    "pets": {
        "cat": "the cat purrs on the mat",
        "dog": "the dog barks at the gate",
        "hen": "the hen lays an egg",
    },
    "money": {
        "loan": "lend me a sum until may",
        "card": "my card was lost abroad",
        "rate": "what does the credit cost",
    },
}


def text_entry(subject: str, shots: int = 4, **about: str) -> Entry:
    """Examples of a subject's labels by the tiny encoder."""
    encoder = load_encoder("tiny")
    labels = list(SUBJECTS[subject])
    texts = [f"{SUBJECTS[subject][label]} {'again ' * i}" for label in labels for i in range(shots)]
    y = torch.arange(len(labels)).repeat_interleave(shots)
    part = Part("", tuple(labels), encoder.encode(texts), y, encoder.encode(labels))
    given = {"name": subject, "consent": "asked for by the test"} | about
    made = Entry(
        domain="text",
        encoder=encoder.name,
        identity=encoder.identity,
        parts=(part,),
        material={"texts": texts},
        name=given.pop("name"),
        consent=given.pop("consent"),
    )
    return replace(made, **given)


@pytest.fixture
def bank(tmp_path):
    with TaskBank(tmp_path / "bank.sqlite") as made:
        yield made


def test_a_task_comes_back_as_it_was_kept(bank):
    entry = text_entry("pets", description="what animals do", licence="CC BY 4.0", source="a table")
    id, new = bank.add(entry)
    assert new and id == entry.id and len(bank) == 1
    back = bank.entry(id)
    assert replace(back, parts=()) == replace(entry, parts=())
    [mine], [theirs] = entry.parts, back.parts
    assert theirs.labels == mine.labels and torch.equal(theirs.y, mine.y)
    torch.testing.assert_close(theirs.x, mine.x.half().float(), rtol=0, atol=0)
    assert theirs.told is not None and theirs.told.shape == (3, 64)
    [told] = bank.summaries()
    assert (told.name, told.kept, told.parts[0].shots) == ("pets", entry.kept, 12)


def test_the_same_task_under_another_name_is_one(bank):
    id, _ = bank.add(text_entry("pets"))
    assert bank.add(text_entry("pets", name="beasts")) == (id, False)
    assert len(bank) == 1


def test_nothing_is_kept_without_consent(bank):
    with pytest.raises(DataError, match="nothing of consent"):
        bank.add(text_entry("pets", consent=" "))
    assert len(bank) == 0


def test_opening_to_read_makes_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv(tables.VARIABLE, str(tmp_path / "mine" / "bank.sqlite"))
    assert tables.default_path() == tmp_path / "mine" / "bank.sqlite"
    with pytest.raises(DataError, match="Nothing was kept yet"):
        TaskBank(create=False)
    assert not (tmp_path / "mine").exists()
    with TaskBank() as made:
        assert made.summaries() == []


def bytes_of(bank: TaskBank) -> bytes:
    return b"".join(path.read_bytes() for path in bank.path.parent.glob(bank.path.name + "*"))


def test_what_is_forgotten_is_gone_from_the_file(bank):
    bank.add(text_entry("money"))
    entry = text_entry("pets", description=SECRET)
    id, _ = bank.add(entry)
    features = entry.parts[0].x.half().numpy().tobytes()[:64]
    assert SECRET.encode() in bytes_of(bank) and features in bytes_of(bank)
    assert bank.forget("pets") == id
    left = bytes_of(bank)
    assert SECRET.encode() not in left and features not in left and b"purrs" not in left
    assert [one.name for one in bank.summaries()] == ["money"]
    assert bank.entry("money").parts[0].shots == 12


def test_an_entry_is_found_by_id_beginning_or_name(bank):
    id, _ = bank.add(text_entry("pets"))
    other, _ = bank.add(text_entry("money"))
    assert bank.find(id) == bank.find(id[:6]) == bank.find("pets") == id
    with pytest.raises(DataError, match='Did you mean "pets"'):
        bank.find("petz")
    with pytest.raises(DataError, match="Did you mean"):
        bank.forget(other[:-1] + ("0" if other[-1] != "0" else "1"))
    bank.add(text_entry("pets", shots=3))
    with pytest.raises(DataError, match="stands for 2 entries"):
        bank.entry("pets")


def test_an_entry_is_read_by_its_id_without_a_look_at_the_others(bank):
    def asked(read) -> int:
        told: list[str] = []
        bank.db.set_trace_callback(told.append)
        read()
        bank.db.set_trace_callback(None)
        return len(told)

    id, _ = bank.add(text_entry("money"))
    bank.add(text_entry("pets"))
    two, whole = asked(lambda: bank.entry(id)), asked(lambda: list(bank.entries()))
    for shots in (1, 2):
        bank.add(text_entry("pets", shots=shots))
    assert asked(lambda: bank.entry(id)) == two
    assert asked(lambda: list(bank.entries())) <= 2 * whole, "twice as many entries"


def test_an_empty_bank_says_so(bank):
    with pytest.raises(DataError, match="is empty"):
        bank.entry("pets")
    with pytest.raises(DataError, match="nothing to export"):
        bank.export(bank.path.parent / "out")
    part = text_entry("pets").parts[0]
    assert bank.nearest(part, load_encoder("tiny").identity, domain="text") == []


# What is near


def test_an_unseen_task_is_nearest_to_one_of_its_subject(bank):
    for subject in SUBJECTS:
        bank.add(text_entry(subject))
    new = text_entry("pets", shots=3)
    found = bank.nearest(new.parts[0], new.identity, domain="text")
    assert [one.name for one in found] == ["pets", "money"]
    assert found[0].nearness > found[1].nearness and found[0].explained > 0.5 > found[1].explained
    assert sum(one.weight for one in found) == pytest.approx(1)
    assert bank.nearest(new.parts[0], new.identity, domain="text", without=found[0].id)[0].name == "money"
    assert bank.nearest(new.parts[0], new.identity, domain="text", without={one.id for one in found}) == []


def test_features_of_another_encoder_are_refused(bank):
    bank.add(text_entry("pets"))
    new = text_entry("money")
    with pytest.raises(ModelError, match="encoded by tiny"):
        bank.nearest(new.parts[0], "0" * 64, domain="text")
    assert bank.nearest(new.parts[0], "0" * 64, domain="kg") == []


def test_an_embedding_follows_from_the_support_alone():
    part = text_entry("pets").parts[0]
    order = torch.randperm(len(part.y), generator=torch.Generator().manual_seed(0))
    turned = Part("", part.labels, part.x[order], part.y[order], part.told)
    renamed = Part("", ("x", "y", "z"), part.x, (part.y + 1) % 3, part.told)
    own = embed(part)
    for other in (turned, renamed):
        torch.testing.assert_close(embed(other).vector(), own.vector(), rtol=1e-4, atol=1e-5)
        assert nearness(own, embed(other)) == pytest.approx(1, abs=1e-4)
    assert torch.equal(Embedding.of(own.vector()).within, own.within)
    with pytest.raises(DataError, match="4 d"):
        Embedding.of(torch.zeros(7))


def test_rows_of_no_label_change_no_embedding():
    part = text_entry("pets").parts[0]
    more = Part(
        "",
        part.labels,
        torch.cat([part.x, part.x[:2]]),
        torch.cat([part.y, torch.tensor([-1, -1])]),
        part.told,
    )
    assert torch.equal(embed(more).vector(), embed(part).vector())
    assert more.shots == part.shots


def test_a_single_example_of_each_label_has_an_embedding():
    vector = embed(text_entry("pets", shots=1).parts[0]).vector()
    assert torch.isfinite(vector).all()


def by_hand(theta: torch.Tensor, y: list[int]) -> float:
    """LEEP with each example left out, as its definition reads."""
    n, ways, lost, base = len(y), max(y) + 1, 0.0, 0.0
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        share = [(sum(y[j] == c for j in rest) + 1 / ways) / (n - 1 + 1) for c in range(ways)]
        p = 0.0
        for z in range(theta.shape[1]):
            mass = sum(float(theta[j, z]) for j in rest)
            hit = sum(float(theta[j, z]) for j in rest if y[j] == y[i])
            p += float(theta[i, z]) * (hit + share[y[i]]) / (mass + 1)
        lost += float(torch.tensor(p).log())
        base += float(torch.tensor(share[y[i]]).log())
    return 1 - lost / base


def test_what_a_head_explains_is_leep_with_each_example_left_out():
    from quickstudy.bank import near

    stored, new = text_entry("money").parts[0], text_entry("pets", shots=3).parts[0]
    center, means, scale = near._head(stored)
    theta = (scale * torch.nn.functional.normalize(new.x - center, dim=-1) @ means.t()).softmax(-1)
    assert explained(stored, new.x, new.y) == pytest.approx(by_hand(theta, new.y.tolist()), abs=1e-5)


def test_what_a_head_explains_takes_memory_for_answers_not_for_each_label_of_each():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            for one in made if isinstance(made, tuple | list) else (made,):
                self.numbers = max(self.numbers, one.numel() if isinstance(one, torch.Tensor) else 0)
            return made

    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 8, generator=draw), torch.arange(60) % 12
    stored = Part("", tuple("abcdefghij"), torch.randn(40, 8, generator=draw), torch.arange(40) % 10)
    with Largest() as seen:
        explained(stored, x, y)
    assert 0 < seen.numbers <= 60 * 12, "examples times labels, of either task"


def test_labels_by_chance_are_not_explained():
    stored = text_entry("pets", shots=8).parts[0]
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(1))
    y = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(2))
    assert explained(stored, x, y) < 0.02
    assert explained(stored, x[:5], torch.zeros(5, dtype=torch.long)) == 0


def test_weights_favour_what_explains():
    one, other = Neighbour("a", "A", "", 0.8, 0.6), Neighbour("b", "B", "", 0.8, -0.2)
    first, second = weighed([other, one])
    assert (first.id, second.id) == ("a", "b") and first.weight == pytest.approx(0.6 / 0.65)


def test_few_examples_of_a_label_are_kept():
    part = Part("", ("a", "b"), torch.randn(100, 4), torch.tensor([0] * 60 + [1] * 30 + [-1] * 10))
    less = fewer(part, 20, 5)
    assert less.y.tolist() == [0] * 20 + [1] * 20 + [-1] * 5
    assert torch.equal(less.x[0], part.x[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": ("a", "a", "b")}, "each once"),
        ({"labels": ("a", " ", "b")}, "expected words"),
        ({"y": torch.tensor([0, 1, 3])}, "from 0 to 3 and 3 labels"),
        ({"y": torch.tensor([-1, -1, -1])}, "one example or more"),
        ({"y": torch.tensor([0.0, 1.0, 2.0])}, "whole numbers"),
        ({"x": torch.tensor([[1.0], [torch.nan], [0.0]])}, "aren't finite"),
        ({"x": torch.tensor([[1.0], [1e6], [0.0]])}, "beyond 65,504"),
        ({"told": torch.zeros(2, 1)}, "descriptions"),
        ({"name": "../x"}, "plain word"),
    ],
)
def test_what_is_no_task_is_refused(change, says):
    part = Part("", ("a", "b", "c"), torch.randn(3, 1), torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match=says):
        replace(part, **change).checked()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"material": {"x": float("nan")}}, "plain JSON"),
        ({"material": {"x": {1, 2}}}, "plain JSON"),
        ({"name": "half \ud800"}, "expected words"),
        ({"kept": "yesterday"}, "such as 2026"),
        ({"identity": "../x"}, "hex digits"),
        ({"domain": "Text!"}, "plain word"),
        ({"parts": ()}, "one part or more"),
    ],
)
def test_what_is_no_entry_is_refused(bank, change, says):
    with pytest.raises(DataError, match=says):
        bank.add(replace(text_entry("pets"), **change))
    assert len(bank) == 0


# Given away, and received


@pytest.fixture
def given(bank, tmp_path):
    for subject in SUBJECTS:
        bank.add(text_entry(subject))
    bank.export(tmp_path / "given")
    return tmp_path / "given"


def test_an_export_is_jsonl_and_safetensors(given):
    head, *lines = (given / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(head)["quickstudy_bank"] == 1
    assert [json.loads(line)["name"] for line in lines] == ["pets", "money"]
    assert load_file(given / "tensors.safetensors")["0.task.x"].shape == (12, 64)


def test_what_is_exported_can_be_imported(given, tmp_path):
    with TaskBank(tmp_path / "other.sqlite") as other:
        new, known = other.load(given, consent="a friend's")
        assert len(new) == 2 and known == []
        assert other.load(given, consent="a friend's") == ([], new)
        assert other.entry("pets").consent == "a friend's; where it comes from: asked for by the test"
        with pytest.raises(DataError, match="is there already"):
            other.export(given)
        other.export(tmp_path / "one", ["money"])
        assert len(share.read(tmp_path / "one")) == 1


def spoilt(given: Path, what: str) -> None:
    tasks, tensors = given / "tasks.jsonl", given / "tensors.safetensors"
    lines = tasks.read_text(encoding="utf-8").splitlines(keepends=True)
    head, first = json.loads(lines[0]), json.loads(lines[1])
    if what == "a byte of the tensors":
        data = bytearray(tensors.read_bytes())
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif what == "another file of tensors":
        save_file({"0.task.x": torch.zeros(1, 2)}, tensors)
    elif what == "half a line":
        tasks.write_text("".join(lines)[:-5], encoding="utf-8")
    elif what == "a newer version":
        tasks.write_text(
            json.dumps(head | {"quickstudy_bank": 7}) + "\n" + "".join(lines[1:]), encoding="utf-8"
        )
    elif what == "a label too many":
        first["parts"][0]["labels"].append("cat")
        tasks.write_text(lines[0] + json.dumps(first) + "\n" + lines[2], encoding="utf-8")
    elif what == "a field too many":
        tasks.write_text(lines[0] + json.dumps(first | {"run": "me"}) + "\n" + lines[2], encoding="utf-8")
    elif what == "an entry without tensors":
        tasks.write_text("".join(lines) + lines[1], encoding="utf-8")
    elif what == "an entry too few":
        tasks.write_text("".join(lines[:2]), encoding="utf-8")
    elif what == "a pickle":
        (given / "more.pkl").write_bytes(b"\x80\x04.")
    elif what == "a link":
        (given / "more").symlink_to("/etc/hostname")
    elif what == "a key twice":
        tasks.write_text(lines[0] + '{"name": 1, "name": 2}\n', encoding="utf-8")
    elif what == "nothing":
        tasks.write_bytes(b"")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("a byte of the tensors", "hash|SHA|differ"),
        ("another file of tensors", "given"),
        ("half a line", "cut off"),
        ("a newer version", "Update quickstudy"),
        ("a label too many", "each once"),
        ("a field too many", "fields"),
        ("an entry without tensors", "aren't there"),
        ("an entry too few", "belongs to no entry"),
        ("a pickle", "pickle"),
        ("a link", "link"),
        ("a key twice", "twice"),
        ("nothing", "no JSON|JSON is broken"),
    ],
)
def test_a_spoilt_export_is_refused_whole(given, tmp_path, what, says):
    spoilt(given, what)
    with TaskBank(tmp_path / "other.sqlite") as other:
        with pytest.raises(CheckpointError, match=says):
            other.load(given, consent="a friend's")
        assert len(other) == 0


# The file


def test_a_newer_bank_is_refused(bank):
    bank.close()
    with sqlite3.connect(bank.path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(CheckpointError, match=r"bank of version 9.*Update quickstudy"):
        TaskBank(bank.path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM parts; END", "other tables"),
        ("PRAGMA application_id = 5", "another program"),
    ],
)
def test_a_changed_file_is_refused(bank, change, says):
    bank.close()
    with sqlite3.connect(bank.path) as db:
        db.execute(change)
    with pytest.raises(CheckpointError, match=says):
        TaskBank(bank.path)


def test_another_file_is_no_bank(tmp_path):
    (tmp_path / "bank.sqlite").write_text("a letter, not a bank; long enough to have a head")
    with pytest.raises(CheckpointError, match="no SQLite file"):
        TaskBank(tmp_path / "bank.sqlite")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE parts SET x = substr(x, 3)",
        "UPDATE parts SET y = zeroblob(4)",
        "UPDATE parts SET labels = '[1, 2]'",
        "UPDATE material SET body = '{\"texts\": []}'",
        "UPDATE entries SET consent = ''",
        "DELETE FROM parts",
    ],
)
def test_an_entry_that_was_tampered_with_is_not_given_out(bank, change):
    id, _ = bank.add(text_entry("pets"))
    bank.db.execute(change)
    with pytest.raises(CheckpointError, match="damaged"):
        bank.entry(id)


ADD = """
import sys
sys.path.insert(0, {tests!r})
from test_bank import text_entry
from quickstudy.bank.store import TaskBank
with TaskBank({path!r}) as bank:
    for i in range({first}, {first} + {many}):
        print(bank.add(text_entry("pets", shots=i))[0], flush=True)
"""


def adding(path: Path, first: int, many: int) -> subprocess.Popen:
    code = ADD.format(tests=str(Path(__file__).parent), path=str(path), first=first, many=many)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_keep_tasks_at_once(tmp_path):
    both = [adding(tmp_path / "bank.sqlite", first, 15) for first in (2, 12)]
    said = {line for process in both for line in process.communicate(timeout=120)[0].split()}
    assert [process.returncode for process in both] == [0, 0]
    with TaskBank(tmp_path / "bank.sqlite", check=True) as bank:
        assert {one.id for one in bank.summaries()} == said and len(said) == 25
        assert len(list(bank.entries())) == 25


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_process_loses_nothing_that_it_had_said(tmp_path):
    process = adding(tmp_path / "bank.sqlite", 2, 400)
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(8)]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    with TaskBank(tmp_path / "bank.sqlite", check=True) as bank:
        assert set(said) <= {one.id for one in bank.summaries()}
        for entry in bank.entries():  # each is whole
            assert entry.parts[0].shots > 0
        bank.add(text_entry("money"))
