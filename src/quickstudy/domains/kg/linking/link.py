"""Which entry of a catalogue a mention is: candidates by letters and meaning, ranked by a learner of the core, or none.

A pair of mention and candidate becomes a row of `SIGNS`; a learner that was meta-trained on the links of earlier fields
is adapted to the pairs of this one. An answer below the threshold is none: the entity isn't in the catalogue.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.encoder import Encoder
from quickstudy.core.engine import adapt, predict
from quickstudy.core.episode import Labelled
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.linking.abbreviations import definitions
from quickstudy.domains.kg.linking.catalogue import Candidate, Catalogue, plain

SIGNS: tuple[str, ...] = (
    "same letters", "same plain name", "letters' cosine", "sequence", "shared words", "mention within name",
    "name within mention", "initials", "meaning", "long form: same", "long form: letters' cosine", "long form: meaning",
    "same type", "rank", "behind the best", "named in the document",
)  # fmt: skip
"""What is known of a pair, each from 0 to 1."""

_BLOCK = 64
"""Names whose products with all names of the catalogue are held at a time: 40 MB of 150,000 names."""


class Mention(NamedTuple):
    """A mention in its document."""

    text: str
    type: str = ""
    document: int = 0
    """Its document's number among those given."""


class Link(NamedTuple):
    """What a mention was linked to."""

    id: str | None
    """None where nothing in the catalogue fits."""
    name: str
    """The name that speaks for it; empty where there is none."""
    probability: float
    signs: dict[str, float]
    """The evidence: see `SIGNS`."""


class Pairs(NamedTuple):
    """Mentions with their candidates."""

    candidates: list[list[Candidate]]
    rows: list[Float[Tensor, "candidates signs"]]


@dataclass(frozen=True)
class Linker:
    """Links mentions to a catalogue."""

    catalogue: Catalogue
    encoder: Encoder
    learner: MetaLearner
    """A classifier of two classes over `SIGNS`: no, yes."""
    meta: Meta
    fast: Fast
    """Adapted to the field."""
    threshold: float = 0.5
    """The probability below which the answer is none."""
    most: int = 16
    """Candidates for each mention."""
    notes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def learn(
        cls,
        catalogue: Catalogue,
        encoder: Encoder,
        learner: MetaLearner,
        meta: Meta,
        mentions: Sequence[Mention],
        ids: Sequence[str | None],
        documents: Sequence[Document],
        *,
        threshold: float = 0.5,
    ) -> "Linker":
        """Adapt to mentions whose ids are known (None: not in the catalogue)."""
        pairs = pair(catalogue, encoder, mentions, documents)
        return cls(
            catalogue,
            encoder,
            learner,
            meta,
            adapt(learner, meta, labelled(catalogue, pairs, ids)),
            threshold,
        )

    def link(self, mentions: Sequence[Mention], documents: Sequence[Document]) -> list[Link]:
        """The entry of each mention, or none."""
        return self._linked(mentions, documents, self.threshold)

    def best(
        self,
        mentions: Sequence[Mention],
        documents: Sequence[Document],
        apart: bool | None = None,
        never: Sequence[Collection[str]] | None = None,
    ) -> list[Link]:
        """As `link`, but with the id of the likeliest entry however unlikely it is; None where no entry is like it.

        Args:
            apart: see `pair`.
            never: ids that each mention isn't.
        """
        return self._linked(mentions, documents, 0.0, apart, never)

    def _linked(
        self,
        mentions: Sequence[Mention],
        documents: Sequence[Document],
        threshold: float,
        apart: bool | None = None,
        never: Sequence[Collection[str]] | None = None,
    ) -> list[Link]:
        pairs = pair(self.catalogue, self.encoder, mentions, documents, self.most, apart)
        without = never or [()] * len(mentions)
        return [self._best(*one, threshold) for one in zip(*pairs, without, strict=True)]

    def _best(self, some: list[Candidate], rows: Tensor, never: Collection[str], threshold: float) -> Link:
        entries = self.catalogue.entries
        left = [i for i, candidate in enumerate(some) if entries[candidate.entry].id not in never]
        if not left:
            return Link(None, "", 0.0, {})
        chances = predict(self.learner, self.meta, self.fast, rows).softmax(-1)[:, 1]
        best = max(left, key=chances.tolist().__getitem__)
        told: dict[str, float] = dict(zip(SIGNS, rows[best].tolist(), strict=True))
        name, entry = self.catalogue.names[some[best].name], entries[some[best].entry]
        sure = float(chances[best])
        return Link(entry.id if sure >= threshold else None, name, sure, told)


def labelled(catalogue: Catalogue, pairs: Pairs, ids: Sequence[str | None]) -> Labelled:
    """Every pair as a row, y = 1 where it is the right one."""
    right = [
        [int(catalogue.entries[c.entry].id == id) for c in some]
        for some, id in zip(pairs.candidates, ids, strict=True)
    ]
    return Labelled.of(torch.cat(pairs.rows), torch.tensor([y for row in right for y in row]))


def pair(
    catalogue: Catalogue,
    encoder: Encoder,
    mentions: Sequence[Mention],
    documents: Sequence[Document],
    most: int = 16,
    apart: bool | None = None,
) -> Pairs:
    """Candidates for each mention and its long form, and what is known of each pair.

    Args:
        apart: whether entries of another type than a mention's are no candidates; by default where the catalogue knows
            the type of any of the mentions: one with words of its own for types says nothing.
    """
    long = _long_forms(mentions, documents)
    forms = list(dict.fromkeys([m.text for m in mentions] + [form for form in long if form]))
    place = {form: i for i, form in enumerate(forms)}
    found = catalogue.candidates(forms, most)
    names = catalogue.vectors(encoder)
    meanings = torch.nn.functional.normalize(encoder.encode(forms), dim=-1)
    near = _nearest(meanings, names, catalogue, most // 2)
    if apart is None:
        apart = not {m.type for m in mentions}.isdisjoint(
            entry.type for entry in catalogue.entries if entry.type
        )
    candidates, rows = [], []
    for mention, form in zip(mentions, long, strict=True):
        own = [place[f] for f in (mention.text, form) if f]
        some = [
            candidate
            for candidate in _together([*(found[i] for i in own), *(near[i] for i in own)])
            if not apart or catalogue.entries[candidate.entry].type in ("", mention.type)
        ]
        text = documents[mention.document].text
        said = [_signs(mention, form, c, catalogue, text) for c in some]
        row = torch.tensor(said, dtype=torch.float32).reshape(len(some), len(SIGNS))
        if some:
            of = names[torch.tensor([c.name for c in some])]
            row[:, 8] = of @ meanings[own[0]]
            row[:, 11] = of @ meanings[own[-1]] if form else 0.0
            letters = row[:, [2, 10]].amax(1)
            row[:, 13] = 1.0 / (1 + torch.argsort(torch.argsort(-letters, stable=True)).float())
            row[:, 14] = letters.max() - letters
        candidates.append(some)
        rows.append(row)
    return Pairs(candidates, rows)


def _long_forms(mentions: Sequence[Mention], documents: Sequence[Document]) -> list[str]:
    """What each mention is short for in its document, or nothing."""
    known = {i: definitions(documents[i].text) for i in {m.document for m in mentions}}
    return [known[m.document].get(m.text, "") for m in mentions]


def _nearest(meanings: Tensor, names: Tensor, catalogue: Catalogue, most: int) -> list[list[Candidate]]:
    orders = [(some @ names.t()).topk(min(most, len(names)))[1] for some in meanings.split(_BLOCK)]
    return [[Candidate(catalogue.owner[i], i, 0.0) for i in row] for row in torch.cat(orders).tolist()]


def _together(lists: Sequence[list[Candidate]]) -> list[Candidate]:
    """Each entry once, by the name most like the mention."""
    best: dict[int, Candidate] = {}
    for candidate in (c for some in lists for c in some):
        if candidate.entry not in best or candidate.cosine > best[candidate.entry].cosine:
            best[candidate.entry] = candidate
    return list(best.values())


def _signs(mention: Mention, long: str, candidate: Candidate, catalogue: Catalogue, text: str) -> list[float]:
    name, entry = catalogue.names[candidate.name], catalogue.entries[candidate.entry]
    said, named, whole = plain(mention.text), plain(name), plain(long) if long else ""
    mine, theirs = set(said.split()), set(named.split())
    alike = SequenceMatcher(None, said, named, autojunk=False).ratio()
    longer = SequenceMatcher(None, whole, named, autojunk=False).ratio() if whole else 0.0
    return [
        float(mention.text == name),
        float(said == named),
        candidate.cosine,
        alike,
        len(mine & theirs) / max(1, len(mine | theirs)),
        float(bool(mine) and mine < theirs),
        float(bool(theirs) and theirs < mine),
        float(_initials(said, named) or _initials(named, said)),
        0.0,
        float(bool(whole) and whole == named),
        longer,
        0.0,
        float(bool(mention.type) and mention.type == entry.type),
        0.0,
        0.0,
        float(len(name) > 3 and name != mention.text and name.casefold() in text.casefold()),
    ]


def _initials(short: str, long: str) -> bool:
    words = long.split()
    return len(words) > 1 and short.replace(" ", "") == "".join(word[0] for word in words)


def batches(rows: Labelled, groups: Sequence[int]) -> Iterator[Labelled]:
    """The rows of each group, a task of its own: of a document, of a field."""
    number = torch.tensor(list(groups))
    for group in number.unique():
        yield rows.taken(torch.nonzero(number == group).flatten())
