"""Published relation data sets as marked pairs: FewRel's validation parts, KBP37, CoNLL04 and FewRel-80.

Where a data set writes a relation in both directions, pairs are turned so that each relation has one.
"""

import ast
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quickstudy.bench.data import Origin, read_text
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.relations.pairs import Pair

_RAW = "https://raw.githubusercontent.com"
_FEWREL = f"{_RAW}/thunlp/FewRel/278a2315d2138810a379cd8d5718914dc56e2582"
_KBP = f"{_RAW}/zhangdongxu/kbp37/7d88486ad632a9c6e9fe6adbc2468049e89bc11d"
_CONLL = f"{_RAW}/bekou/multihead_joint_entity_relation_extraction/7f40a0f7c1892821591358518c542139e88f693e"
_LIFELONG = f"{_RAW}/hongwang600/Lifelong_Relation_Detection/436c983fa71129579a0ea53b3229a4e167d90506"

FILES: dict[str, Origin] = {
    "relations/fewrel/val_wiki.json": Origin(
        f"{_FEWREL}/data/val_wiki.json", "76bb44c2485b6faed358a3ce040eadafcc8a8835245cd7e6afc1bef672d4a0bf"
    ),
    "relations/fewrel/val_nyt.json": Origin(
        f"{_FEWREL}/data/val_nyt.json", "b519adc61a2bab0f05178e33a3cd8f284338b635629493e9e09616ba81bb428e"
    ),
    "relations/fewrel/pid2name.json": Origin(
        f"{_FEWREL}/data/pid2name.json", "eeedd25512a8e4c2bc06b78009836d27de81807bcba6ed929debd5cd713c07ea"
    ),
    "relations/kbp37/train.txt": Origin(
        f"{_KBP}/train.txt", "75e12365f6e769f3cd9b186fe6632d4d4c03e0890e3baa683c115dce1f8b2d45"
    ),
    "relations/conll04/train.txt": Origin(
        f"{_CONLL}/data/CoNLL04/train.txt", "0f560fdaa150133fc4843f72e2a8e707e7f74f06a3a3095d4b9921f8d0ce3614"
    ),
    "relations/fewrel80_text/val_data.txt": Origin(
        f"{_LIFELONG}/data/val_data.txt", "95d0db13446fd04baa55d0dcde22eb73ef56564f3ccc6a9b750f14f793073d47"
    ),
    "relations/fewrel80_text/relation_name.txt": Origin(
        f"{_LIFELONG}/data/relation_name.txt",
        "045d816009664f3b49b2f883ab56f50155b8fbdc4b8aae09bf681fad15ad5bba",
    ),
}

NONE = "no_relation"
"""The label of pairs that stand in one sentence and aren't related."""


@dataclass(frozen=True)
class Related:
    """A data set: pairs, and what relates them."""

    name: str
    pairs: tuple[Pair, ...]
    labels: tuple[str, ...]

    @property
    def relations(self) -> list[str]:
        """The relations' names in order, `NONE` left out."""
        return sorted(set(self.labels) - {NONE})

    def rows(self, keep: Iterable[int]) -> "Related":
        keep = list(keep)
        return replace(
            self,
            pairs=tuple(self.pairs[i] for i in keep),
            labels=tuple(self.labels[i] for i in keep),
        )

    def without(self, relations: Collection[str]) -> "Related":
        """All but these relations."""
        return self.rows(i for i, label in enumerate(self.labels) if label not in relations)

    def only(self, relations: Collection[str]) -> "Related":
        """These relations alone."""
        return self.rows(i for i, label in enumerate(self.labels) if label in relations)

    def unlike(self, texts: Iterable[str]) -> "Related":
        """Without sentences that stand in `texts`, whatever their case and blanks."""
        known = {plain(text) for text in texts}
        return self.rows(i for i, pair in enumerate(self.pairs) if plain(pair.text) not in known)

    def most(self, each: int) -> "Related":
        """The first `each` pairs of every relation."""
        seen: dict[str, int] = {}
        keep = []
        for i, label in enumerate(self.labels):
            seen[label] = seen.get(label, 0) + 1
            if seen[label] <= each:
                keep.append(i)
        return self.rows(keep)


def plain(text: str) -> str:
    """Letters and digits alone, in lower case: what two versions of a sentence share."""
    return re.sub(r"[\W_]+", "", text.lower())


def fewrel(data: Path, part: str) -> Related:
    """FewRel's "val_wiki" (16 relations × 700) or "val_nyt" (25 × 100); labels are Wikidata's property ids."""
    content = json.loads(_text(data, f"relations/fewrel/{part}.json"))
    pairs, labels = [], []
    for relation, rows in content.items():
        for row in rows:
            pairs.append(_joined(row["tokens"], row["h"][2][0], row["t"][2][0]))
            labels.append(relation)
    return Related(f"FewRel {part}", tuple(pairs), tuple(labels))


def relation_names(data: Path, labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Name and description of each label: Wikidata's where it is a property's id or name, else its own words."""
    content = json.loads(_text(data, "relations/fewrel/pid2name.json"))
    described: dict[str, str] = dict(content.values())
    found = {}
    for label in labels:
        own = re.sub(r"^(org|per):", "", label).replace("/", " or ")
        found[label] = tuple(content[label]) if label in content else (own, described.get(label, ""))
    return found


_MARK = re.compile(r"</?e[12]>")


def kbp37(data: Path) -> Related:
    """KBP37's training part: 18 relations in both directions, turned to one, and no relation."""
    blocks = _text(data, "relations/kbp37/train.txt").replace("\r", "").split("\n\n")
    pairs, labels = [], []
    for block in (b.strip().split("\n") for b in blocks if b.strip()):
        if len(block) < 2:
            continue
        marked = block[0].split("\t", 1)[1].strip().removeprefix('"').removesuffix('"').strip()
        pair, label = _from_marks(marked), block[1].strip()
        if pair is None:
            continue
        name, _, direction = label.partition("(")
        pairs.append(pair.turned() if direction == "e2,e1)" else pair)
        labels.append(name)
    return Related("KBP37", tuple(pairs), tuple(labels))


def _from_marks(marked: str) -> Pair | None:
    text, places = "", {}
    for piece in re.split(f"({_MARK.pattern})", marked):
        if _MARK.fullmatch(piece):
            places[piece] = len(text)
            continue
        words = " ".join(piece.split())
        text += (" " if text and words else "") + words
        # A mark that opens stands before the blank that the next word brings along.
    spans = []
    for end in ("e1", "e2"):
        if f"<{end}>" not in places or f"</{end}>" not in places:
            return None
        start, stop = places[f"<{end}>"], places[f"</{end}>"]
        start += len(text[start:stop]) - len(text[start:stop].lstrip())
        if stop <= start:
            return None
        spans.append((start, stop))
    return Pair(text, spans[0], spans[1])


def conll04(data: Path) -> Related:
    """CoNLL04's training part: 5 relations, and no relation for other pairs of entities of a sentence."""
    pairs, labels = [], []
    for block in _text(data, "relations/conll04/train.txt").split("#doc ")[1:]:
        rows = [line.split("\t") for line in block.split("\n")[1:] if line.strip()]
        words = [row[1] for row in rows]
        ends = _entities([row[2] for row in rows])
        said: dict[tuple[int, int], str] = {}
        for place, row in enumerate(rows):
            for relation, other in zip(ast.literal_eval(row[3]), ast.literal_eval(row[4]), strict=True):
                if relation != "N":
                    said[place, int(other)] = relation
        for head in ends:
            for tail in ends:
                if head == tail or ((tail, head) in said and (head, tail) not in said):
                    continue
                label = said.get((head, tail), NONE)
                if label == NONE and head > tail:
                    continue
                pairs.append(_joined(words, ends[head], ends[tail]))
                labels.append(label)
    return Related("CoNLL04", tuple(pairs), tuple(labels))


def _entities(tags: Sequence[str]) -> dict[int, list[int]]:
    """The last word of each entity -> all of its words."""
    found: dict[int, list[int]] = {}
    words: list[int] = []
    for place, tag in enumerate([*tags, "O"]):
        if words and not tag.startswith("I-"):
            found[words[-1]] = words
            words = []
        if tag != "O":
            words = [*words, place]
    return found


def fewrel80(
    data: Path, *, without: Collection[str] = (), unlike: Iterable[str] = (), each: int = 1000
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences of all 80 public FewRel relations, lower-cased and without marks, and their relations' names.

    Args:
        without: relations that are left out.
        unlike: texts whose sentences are left out, whatever their case and blanks.
        each: sentences of a relation, at most.
    """
    names = [
        line.strip().strip("/")
        for line in _text(data, "relations/fewrel80_text/relation_name.txt").split("\n")
    ]
    lines = _text(data, "relations/fewrel80_text/val_data.txt").split("\n")
    known = {plain(text) for text in unlike}
    texts, labels, seen = [], [], dict[str, int]()
    for row in (line.split("\t") for line in lines if line.strip()):
        text, label = row[2].strip(), names[int(row[0]) - 1]
        if label in without or seen.get(label, 0) >= each or plain(text) in known:
            continue
        seen[label] = seen.get(label, 0) + 1
        texts.append(text)
        labels.append(label)
    return tuple(texts), tuple(labels)


def _joined(words: Sequence[str], head: Sequence[int], tail: Sequence[int]) -> Pair:
    """A pair from tokens, and the numbers of the head's and the tail's; blanks between tokens."""
    starts, text = [], ""
    for word in words:
        starts.append(len(text))
        text += word + " "
    ends = [start + len(word) for start, word in zip(starts, words, strict=True)]
    text = text.rstrip()
    spans = [(starts[own[0]], min(ends[own[-1]], len(text))) for own in (head, tail)]
    if any(start >= stop for start, stop in spans):
        raise DataError(f"an entity without letters in {text[:60]!r}")
    return Pair(text, *spans)


def _text(data: Path, name: str) -> str:
    return read_text(data, name, FILES[name])
