"""The bundled samples, and the command that makes them."""

import gzip
import hashlib
import importlib.util
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from quickstudy.core.errors import DataError
from quickstudy.data import SAMPLES, abstracts, sample

TOOL = Path(__file__).resolve().parent.parent / "tools" / "make_samples.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("make_samples", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def test_clinc150_has_40_sentences_of_each_of_150_intents_in_10_domains():
    rows = sample("clinc150")
    assert {tuple(row) for row in rows} == {("text", "label", "domain")}
    assert set(Counter(row["label"] for row in rows).values()) == {40}
    domain_of = {(row["label"], row["domain"]) for row in rows}
    assert len(domain_of) == 150
    assert set(Counter(domain for _, domain in domain_of).values()) == {15}


def test_banking77_has_25_sentences_to_learn_from_and_15_to_test_on_of_each_of_77_intents():
    rows = sample("banking77")
    assert {tuple(row) for row in rows} == {("text", "label", "split")}
    counts = Counter((row["label"], row["split"]) for row in rows)
    assert {label for label, split in counts if split == "train"} == {
        label for label, split in counts if split == "test"
    }
    assert {split: {n for (_, s), n in counts.items() if s == split} for split in ("train", "test")} == {
        "train": {25},
        "test": {15},
    }
    assert len(counts) == 2 * 77


def test_no_sentence_occurs_twice_in_one_or_in_both():
    sentences = [same(row["text"]) for name in SAMPLES for row in sample(name)]
    assert [text for text, n in Counter(sentences).items() if n > 1] == []
    assert "" not in sentences


def test_sentences_are_one_line_without_surrounding_blanks():
    for name in SAMPLES:
        assert [row["text"] for row in sample(name) if row["text"] != " ".join(row["text"].split())] == []


def test_the_files_are_those_that_samples_json_speaks_of():
    folder = TOOL.parent.parent / "src" / "quickstudy" / "data"
    described = json.loads((folder / "samples.json").read_text())
    assert {entry["file"] for entry in described} == {path.name for path in folder.glob("*.gz")}
    for entry in described:
        content = gzip.decompress((folder / entry["file"]).read_bytes())
        assert hashlib.sha256(content).hexdigest() == entry["sha256_unpacked"]
        assert content.count(b"\n") == entry["rows"]


def test_abstracts_are_whole_labelled_and_apart(tmp_path):
    from quickstudy.domains.kg.reading.examples import read_annotated

    found = {}
    for part, count in (("learn", 24), ("read", 60)):
        path = tmp_path / f"{part}.pubtator"
        path.write_text(abstracts(part), encoding="utf-8")
        found[part] = list(read_annotated(path))
        assert len(found[part]) == count
        assert {span.type for one in found[part] for span in one.spans} == {"Chemical", "Disease"}
        assert all(one.relations and one.links for one in found[part])
    assert not {one.document.id for one in found["learn"]} & {one.document.id for one in found["read"]}
    assert not {one.text for one in found["learn"]} & {one.text for one in found["read"]}


def test_an_unknown_sample_is_answered_with_the_known_ones():
    with pytest.raises(DataError, match=r'"clinc15".*Did you mean "clinc150"\?.*banking77'):
        sample("clinc15")


def write_source(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    entries = []
    for name, content in files.items():
        stored = gzip.compress(content) if name.endswith(".gz") else content
        (folder / name).write_bytes(stored)
        origin = {"source_repo": "r", "source_commit": "c", "source_path": name}
        entries.append({"file": name, "sha256": hashlib.sha256(stored).hexdigest(), **origin})
    meta = {"licence": "CC BY (LICENSE)", "official_url": "u", "files": entries}
    (folder / "META.json").write_text(json.dumps(meta))


@pytest.fixture
def sources(tmp_path):
    """Two small sets: 'weather' in CLINC150's form, 'card' in BANKING77's, with sentences that must be left out."""
    train = [f"card question {i}" for i in range(30)]
    test = [f"card test question {i}" for i in range(20)] + ["CARD question 3!"]
    as_csv = "text,category\n" + "".join(f'"{text}\n",card\n' for text in train)
    clinc = [[f"weather  question {i}", "weather"] for i in range(50)]
    clinc += [
        ["Card question 1?", "weather"],
        ["card test question 1", "weather"],
        ["weather question 0", "weather"],
    ]
    write_source(
        tmp_path / "text" / "banking77",
        {
            "train.csv.gz": as_csv.encode(),
            "test.csv.gz": ("text,category\n" + "".join(f"{text},card\n" for text in test)).encode(),
            "LICENSE": b"by 4",
        },
    )
    write_source(
        tmp_path / "text" / "clinc150",
        {
            "data_full.json.gz": json.dumps({"train": clinc}).encode(),
            "domains.json": json.dumps({"sky": ["weather"]}).encode(),
            "LICENSE": b"by 3",
        },
    )
    numbered = [f"{i}|t|Title {i}.\n{i}|a|Abstract.\n{i}\t0\t5\tTitle\tDisease\tD1" for i in range(200)]
    write_source(
        tmp_path / "linking" / "bc5cdr_el",
        {
            "CDR_train.PubTator.txt.gz": "\n\n".join(numbered[:100]).encode(),
            "CDR_dev.PubTator.txt.gz": "\n\n".join(numbered[100:]).encode(),
            "README_CDR.txt": b"public domain",
        },
    )
    return tmp_path


def test_making_the_samples_twice_gives_the_same_bytes_and_check_agrees(tool, sources, tmp_path):
    for out in ("one", "two"):
        assert tool.main(["--data", str(sources), "--out", str(tmp_path / out)]) == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("*") if path.is_file()}
    assert set(made) == {
        "clinc150.jsonl.gz",
        "banking77.jsonl.gz",
        "bc5cdr_learn.pubtator.gz",
        "bc5cdr_read.pubtator.gz",
        "samples.json",
        "CC-BY-3.0.txt",
        "CC-BY-4.0.txt",
        "BC5CDR-README.txt",
    }
    taken = gzip.decompress(made["bc5cdr_learn.pubtator.gz"]).decode().strip().split("\n\n")
    assert len(taken) == len(set(taken)) == 24 and all(part.count("\n") == 2 for part in taken)
    assert tool.main(["--data", str(sources), "--out", str(tmp_path / "one"), "--check"]) == 0
    (tmp_path / "one" / "clinc150.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    assert tool.main(["--data", str(sources), "--out", str(tmp_path / "one"), "--check"]) == 1


def test_what_is_in_both_sets_or_both_parts_is_left_out(tool, sources):
    files = tool.make(sources)
    rows = {
        name: [json.loads(line) for line in gzip.decompress(files[f"{name}.jsonl.gz"]).splitlines()]
        for name in SAMPLES
    }
    clinc = [row["text"] for row in rows["clinc150"]]
    assert len(clinc) == 40 and all(re.fullmatch(r"weather question \d+", text) for text in clinc)
    test = [row["text"] for row in rows["banking77"] if row["split"] == "test"]
    assert len(test) == 15 and all(text.startswith("card test") for text in test)


def test_a_source_with_another_sha256_is_refused_and_nothing_written(tool, sources, tmp_path):
    domains = sources / "text" / "clinc150" / "domains.json"
    domains.write_text(domains.read_text().replace("sky", "sea"))
    with pytest.raises(SystemExit, match=r"domains\.json: sha256 .* META\.json says"):
        tool.main(["--data", str(sources), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(
    "QUICKSTUDY_DATA" not in os.environ, reason="QUICKSTUDY_DATA names no folder with the full sets"
)
def test_the_committed_samples_are_reproduced_from_the_full_sets(tool):
    assert tool.main(["--data", os.environ["QUICKSTUDY_DATA"], "--check"]) == 0
