"""Published corpora of labelled entities, read from the benchmarks' data folder into documents with spans.

One sentence is one document; words are joined by blanks, as the files hold no others.
"""

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Document, Span


@dataclass(frozen=True)
class Corpus:
    """Sentences with all entities of its types marked."""

    name: str
    documents: tuple[Annotated, ...]
    types: tuple[str, ...]
    group: str = ""
    """Corpora of one group are about the same things, so none is held out while another is trained on."""
    partial: bool = False
    """Only some entities are marked: what isn't marked may be one all the same."""
    licence: str = ""
    """Under which its sentences may be passed on, as its folder states it."""


RUN = 10
"""Sentences that share so many words in a row count as one text."""
_OPEN = {
    "wikigold": "CC BY 4.0", "WNUT17": "CC BY 4.0", "BTC": "CC BY 4.0", "SEC filings": "CC BY 3.0",
    "AnEM": "CC BY-SA 3.0", "SNIPS": "CC0 1.0", "FewRel val_wiki": "MIT", "FewRel val_nyt": "MIT",
}  # fmt: skip


def sentence(name: str, words: list[str], tags: list[str]) -> Annotated:
    """A sentence from its words and IOB tags; a tag that continues nothing begins an entity."""
    text, starts = "", []
    for word in words:
        starts.append(len(text) + bool(text))
        text += (" " if text else "") + word
    spans, begin, kind = [], None, ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, of = tag.partition("-")
        if begin is not None and (prefix != "I" or of != kind):
            spans.append(Span(starts[begin], starts[i - 1] + len(words[i - 1]), kind))
            begin = None
        if begin is None and prefix in ("B", "I"):
            begin, kind = i, of
    return Annotated(Document(name, text), tuple(spans), complete=True)


def crossner(data: Path, domain: str, part: str) -> Corpus:
    """A part (train, dev, test) of CrossNER's politics, science or ai; Liu et al. 2021, arXiv:2012.04373."""
    return _corpus(f"CrossNER {domain} {part}", _columns(data / f"ner/crossner/{domain}/{part}.txt"), domain)


def sources(data: Path, *, everything: bool = False) -> list[Corpus]:
    """The corpora to learn from, openly licensed; with `everything`, those that may only be used to measure, too."""
    ner, bio = data / "ner", data / "ner" / "biomedical_ner"
    news = [ner / f"btc/{part}.conll" for part in "abefgh"]
    web = [
        ner / f"wnut17/{part}"
        for part in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    ]
    filings = [ner / f"sec_filings/{part}.txt" for part in ("FIN3", "FIN5")]
    found = [
        _corpus("wikigold", _columns(ner / "wikigold/wikigold.conll.txt"), "general"),
        _corpus("WNUT17", _columns(*web), "general"),
        _corpus("BTC", _columns(*news), "general"),
        _corpus("SEC filings", _columns(*filings), "general"),
        _corpus("AnEM", _columns(ner / "anem/AnEM.train", ner / "anem/AnEM.test"), "anatomy"),
    ]
    for name, group in (
        ("BC5CDR-IOB", "disease"), ("BioNLP13CG-IOB", "cancer"), ("BioNLP11ID-IOB", "infection"),
        ("BioNLP13PC-IOB", "pathway"), ("JNLPBA", "genes"), ("AnatEM-IOB", "anatomy"),
    ):  # fmt: skip
        parts = [
            bio / name / f"{part}.tsv" for part in ("train", "devel") if (name, part) != ("JNLPBA", "train")
        ]
        found.append(_corpus(name, _columns(*parts), group))
    found.append(_corpus("SNIPS", _snips(ner / "snips_slots"), "commands"))
    for part in ("val_wiki", "val_nyt"):
        found.append(
            _corpus(
                f"FewRel {part}", _fewrel(data / f"relations/fewrel/{part}.json"), "general", partial=True
            )
        )
    if everything:
        rows = _columns(data / "relations/conll04/train.txt", words=1, tags=2)
        found.append(_corpus("CoNLL04", rows, "general"))
    return found


def reported(data: Path) -> list[str]:
    """All sentences that rows of entities and of whole graphs are measured on: CrossNER, BC5CDR, CoNLL04."""
    parts = ("train", "dev", "test")
    found = [
        crossner(data, field, part).documents for field in ("politics", "science", "ai") for part in parts
    ]
    bio, news = data / "ner/biomedical_ner/BC5CDR-IOB", data / "relations/conll04"
    found.append(tuple(_columns(*(bio / f"{part}.tsv" for part in ("train", "devel", "test")))))
    found.append(tuple(_columns(*(news / f"{part}.txt" for part in parts), words=1, tags=2)))
    return [document.text for part in found for document in part]


def apart(corpora: Sequence[Corpus], texts: Iterable[str]) -> tuple[list[Corpus], dict[str, int]]:
    """The corpora without sentences that share a run of `RUN` words with any of the texts; how many went from each.

    A sentence of fewer words must be the whole text; of fewer than five, it is a heading and says nothing.
    """
    known = {run for text in texts for run in _runs(text)}
    kept, dropped = [], {}
    for corpus in corpora:
        documents = tuple(d for d in corpus.documents if known.isdisjoint(_runs(d.text)))
        dropped[corpus.name] = len(corpus.documents) - len(documents)
        kept.append(replace(corpus, documents=documents))
    return kept, dropped


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[^\W_]+", text.lower())
    if len(words) < 5:
        return set()
    return {tuple(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))}


def _corpus(name: str, rows: Iterable[Annotated], group: str, partial: bool = False) -> Corpus:
    documents = tuple(rows)
    types = tuple(sorted({s.type for d in documents for s in d.spans}))
    licence = "" if name.startswith("CrossNER") else _OPEN.get(name, "CC BY 4.0")
    return Corpus(name, documents, types, group, partial, licence)


def _columns(*paths: Path, words: int = 0, tags: int = -1) -> Iterator[Annotated]:
    for path in paths:
        row: list[tuple[str, str]] = []
        for number, line in enumerate([*text_of(path).split("\n"), ""]):
            parts = line.split("\t") if "\t" in line else line.split()
            if (
                len(parts) > 1
                and parts[0] != "-DOCSTART-"
                and not line.startswith("#doc")
                and parts[words].strip()
            ):
                row.append((parts[words].strip(), parts[tags].strip()))
            elif row:
                yield sentence(f"{path.name} {number}", [w for w, _ in row], [t for _, t in row])
                row = []


def _snips(folder: Path) -> Iterator[Annotated]:
    for path in sorted(folder.glob("*/train_*_full.json*")):
        name = path.name.removesuffix(".gz")
        [rows] = json.loads(text_of(path.parent / name, encoding="latin-1")).values()
        for number, row in enumerate(rows):
            text, spans = "", []
            for part in row["data"]:
                if "entity" in part and part["text"].strip():
                    spans.append(Span(len(text), len(text) + len(part["text"].rstrip()), part["entity"]))
                text += part["text"]
            if text.strip():
                yield Annotated(Document(f"{name} {number}", text), tuple(spans), complete=True)


def _fewrel(path: Path) -> Iterator[Annotated]:
    for relation, rows in json.loads(text_of(path)).items():
        for number, row in enumerate(rows):
            tags = ["O"] * len(row["tokens"])
            for end, kind in (("h", "head"), ("t", "tail")):
                places = row[end][2][0]
                tags[places[0] : places[-1] + 1] = [
                    f"{'I' if i else 'B'}-{relation} {kind}" for i in range(places[-1] + 1 - places[0])
                ]
            kept = [(w.strip(), t) for w, t in zip(row["tokens"], tags, strict=True) if w.strip()]
            yield sentence(f"{path.name} {relation} {number}", [w for w, _ in kept], [t for _, t in kept])


def text_of(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file, plain or with .gz. Raises DataError for one that isn't there."""
    packed = path.with_name(path.name + ".gz")
    if path.is_file():
        return path.read_bytes().decode(encoding)
    if packed.is_file():
        return gzip.decompress(packed.read_bytes()).decode(encoding)
    raise DataError(f"the data folder holds neither {path.name} nor {path.name}.gz there.", file=path)
