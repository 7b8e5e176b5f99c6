"""Entities to the entries of a catalogue by a learned ranker, where their names alone don't say it.

    ranker = Ranker(catalogue, encoder, LinkPrior.shipped(), told)
    ranker.look_up(entities, texts)        the likeliest entry of each, with its probability

The ranker that earlier fields taught is adapted to this one: to its catalogue alone (`worlds.of_names`), to labelled
links, and to what reviewers decided. Nothing is linked against what names say: it is asked of strangers only.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.encoder import Encoder
from quickstudy.core.engine import adapt
from quickstudy.core.episode import Labelled
from quickstudy.domains.kg.document import Annotated, Document
from quickstudy.domains.kg.graph import facts
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.linking import link, prior, worlds
from quickstudy.domains.kg.linking.across import ByName
from quickstudy.domains.kg.linking.catalogue import Catalogue
from quickstudy.domains.kg.linking.link import Linker, Mention
from quickstudy.domains.kg.linking.merge import read_definitions
from quickstudy.domains.kg.linking.within import entity_names
from quickstudy.domains.kg.schema import EntityType
from quickstudy.encoders.text import TextEncoder

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

PLAYED = 200
"""Names of the catalogue itself that are played with, to adapt to it."""
FEW = 20
"""With so many mentions to adapt to it takes half of its steps: a few names of a small catalogue say little."""
UNLIKE = 0.5
"""Names that are less alike by letters and by meaning, and share no word, aren't suggested."""
AROUND = 10_000
"""Characters before and after an entity's first mention that are looked at."""
AT_ONCE = 256
"""Entities looked up together."""


_FIRST = (
    "SELECT m.document, m.start FROM entities e JOIN words w ON w.number = e.type JOIN mentions m "
    "ON m.entity = e.number WHERE e.name = ? AND w.word = ? ORDER BY m.document, m.start LIMIT 1"
)
_THERE = "SELECT 1 FROM entities e JOIN words w ON w.number = e.type WHERE e.name = ? AND w.word = ?"


class Told(NamedTuple):
    """What somebody said of a link."""

    entity: Entity
    text: str
    """What stands around a mention of it."""
    id: str
    right: bool = True


class Ranker:
    """Links to a catalogue by names, and ranks candidates for those that names don't link."""

    def __init__(
        self,
        catalogue: Catalogue,
        encoder: Encoder,
        past: prior.LinkPrior,
        told: Sequence[Told] = (),
        *,
        precision: float = 0.9,
        seed: int = 0,
    ) -> None:
        """Nothing is adapted before it is asked.

        Args:
            told: links that are known to be right or wrong.
            precision: an entity is linked where its best entry is at least so probable; else it is suggested.
            seed: of what is drawn from the catalogue.
        """
        self.catalogue, self.encoder, self.past = catalogue, encoder, past
        self.told, self.precision, self.seed = tuple(told), precision, seed

    @classmethod
    def shipped(
        cls,
        catalogue: Catalogue,
        encoder: TextEncoder,
        examples: Iterable[Annotated] = (),
        store: "GraphStore | None" = None,
        *,
        precision: float = 0.9,
        seed: int = 0,
    ) -> "Ranker | None":
        """The ranker that comes with quickstudy, told what labelled examples and a graph's reviewers say of links; None
        where it was learned on another encoder.
        """
        past = prior.LinkPrior.shipped()
        if past.identity != encoder.frozen.identity:
            return None
        told = told_of(store, examples, catalogue)
        return cls(catalogue, encoder.frozen, past, told, precision=precision, seed=seed)

    @cached_property
    def names(self) -> ByName:
        return ByName(self.catalogue)

    @cached_property
    def version(self) -> str:
        """Sixteen hex digits of all that its answers follow from."""
        made = self.past.identity, self.past.learner, link.SIGNS, PLAYED, FEW, self.told, self.seed
        digest = sha256(repr(made).encode())
        for name, tensor in sorted(self.past.meta.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        for entry in self.catalogue.entries:
            digest.update(repr(entry).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def denied(self) -> Mapping[Entity, set[str]]:
        """The entries that entities were said not to be."""
        found: dict[Entity, set[str]] = defaultdict(set)
        for one in self.told:
            if not one.right:
                found[one.entity].add(self.names.ids.get(one.id, one.id))
        return found

    @cached_property
    def linker(self) -> Linker:
        """Adapted to the catalogue, and to what was told."""
        known = _Known(self.encoder, self.catalogue.names, self.catalogue.vectors(self.encoder))
        played = worlds.of_names(self.catalogue, PLAYED, seed=self.seed)
        # What isn't alike at all isn't the same: the smallest catalogue has no other no, and both answers must be seen.
        unlike = Labelled.of(torch.zeros(1, len(link.SIGNS)), torch.zeros(1, dtype=torch.long))
        rows = [unlike, prior.rows(played, known), *self._judged()]
        support = Labelled.of(torch.cat([one.x for one in rows]), torch.cat([one.y for one in rows]))
        count = len(played.mentions) + len(self.told)
        steps = max(1, round(self.past.learner.steps * count / (count + FEW)))
        learner, meta = replace(self.past.learner, steps=steps), self.past.meta
        return Linker(self.catalogue, self.encoder, learner, meta, adapt(learner, meta, support))

    def _judged(self) -> Iterator[Labelled]:
        """All candidates of the links that are right; of those that are wrong, the wrong one."""
        mentions = [Mention(*one.entity, document=number) for number, one in enumerate(self.told)]
        pairs = link.pair(
            self.catalogue, self.encoder, mentions, [Document("", one.text) for one in self.told]
        )
        entries, ids = self.catalogue.entries, self.names.ids
        for one, some, x in zip(self.told, *pairs, strict=True):
            named = torch.tensor(
                [entries[c.entry].id == ids.get(one.id, one.id) for c in some], dtype=torch.bool
            )
            keep = torch.ones_like(named) if one.right else named
            yield Labelled.of(x[keep], (named & one.right)[keep].long())

    def look_up(
        self, entities: Sequence[Entity], texts: Sequence[str], apart: bool | None = None
    ) -> list[facts.Link]:
        """The likeliest entry of each entity but for those that it was said not to be, with its probability; an id of
        "" where none is like it.

        Args:
            texts: what stands around a mention of each.
            apart: whether types part them from entries; see `link.pair`.
        """
        several = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        mentions = [
            Mention(name, kind, several[text]) for (name, kind), text in zip(entities, texts, strict=True)
        ]
        never = [self.denied.get(entity, set()) for entity in entities]
        found = self.linker.best(mentions, [Document("", text) for text in several], apart, never)
        return [
            facts.Link(entity, one.id or "", round(one.probability, 4), _why(one))
            if one.id and _alike(one.signs)
            else facts.Link(entity, "", 0.0, "nothing in the catalogue is like it")
            for entity, one in zip(entities, found, strict=True)
        ]

    def of(self, said: Annotated, types: Mapping[str, EntityType]) -> dict[int, str]:
        """The ids of a document's spans, by their number, by what that document alone says."""
        names = entity_names(said.text, said.spans, types)
        entities = [Entity(name, span.type) for name, span in zip(names, said.spans, strict=True)]
        links, strangers = self.names.sorted(entities, read_definitions([(said.document.id, said.text)]))
        known = {one.entity: one.id for one in links}
        apart = not self.names.types.isdisjoint(types)
        for one in self.look_up(strangers, [said.text[: 2 * AROUND]] * len(strangers), apart):
            if one.id and one.score >= self.precision:
                known[one.entity] = one.id
        return {i: known[entity] for i, entity in enumerate(entities) if entity in known}


class _Known:
    """An encoder whose vectors of some names are known."""

    def __init__(self, encoder: Encoder, names: Sequence[str], vectors: Float[Tensor, "n dim"]) -> None:
        self.encoder, self.vectors = encoder, vectors
        self.place = {name: i for i, name in enumerate(names)}
        self.dim, self.fingerprint = encoder.dim, encoder.fingerprint

    def encode(self, items: Sequence[str], /) -> Float[Tensor, "n dim"]:
        if any(item not in self.place for item in items):
            return self.encoder.encode(items)
        return self.vectors[torch.tensor([self.place[item] for item in items], dtype=torch.long)]


def told_of(store: "GraphStore | None", examples: Iterable[Annotated], catalogue: Catalogue) -> list[Told]:
    """What labelled examples and the reviewers of a graph say of links to a catalogue."""
    known = {id for entry in catalogue.entries for id in (entry.id, *entry.same_as)}
    told: dict[tuple[Entity, str], Told] = {}
    for one in examples:
        for number, id in one.links.items():
            entity = Entity(one.of(number), one.spans[number].type)
            told.setdefault((entity, id), Told(entity, around(one.text, one.spans[number].start), id))
    if store is not None:
        for decision in store.log():
            if decision.kind in ("identify", "deny") and not decision.undone:
                entity, id = Entity(*decision.body["entity"]), decision.body["entry"]
                told[entity, id] = Told(entity, texts_of(store, [entity])[0], id, decision.kind == "identify")
    return [one for one in told.values() if one.id in known]


def around(text: str, start: int) -> str:
    """What is looked at of a text that mentions something at `start`."""
    return text[max(0, start - AROUND) : start + AROUND]


def texts_of(store: "GraphStore", entities: Sequence[Entity]) -> list[str]:
    """What stands around the first mention of each entity; nothing where it has none."""
    places = [store.one(_FIRST, entity) for entity in entities]
    wanted: dict[int, dict[int, int]] = defaultdict(dict)
    for number, place in enumerate(places):
        if place:
            wanted[place[0]][number] = place[1]
    found = [""] * len(entities)
    for document, starts in wanted.items():  # each text is read once, however long it is
        row = store.one("SELECT text FROM texts WHERE document = ?", (document,))
        for number, start in starts.items():
            found[number] = around(row[0], start) if row else ""
    return found


def settle(
    store: "GraphStore",
    ranker: Ranker,
    strangers: Sequence[Entity],
    progress: Callable[[int, int], None] | None = None,
) -> list[facts.Link]:
    """Look up those that weren't looked up before, keep what was found, and return the best entry of each."""
    model = f"ranker {ranker.version}"
    found = {one.entity: one for one in store.suggested(model)}
    new = [entity for entity in strangers if entity not in found]
    kinds = {
        kind for (kind,) in store.rows("SELECT word FROM words WHERE number IN (SELECT type FROM entities)")
    }
    apart = not ranker.names.types.isdisjoint(kinds)
    store.suggest([], model)  # what another ranker said goes, also where nobody is new
    for start in range(0, len(new), AT_ONCE):
        if progress is not None:
            progress(start, len(new))
        part = new[start : start + AT_ONCE]
        some = ranker.look_up(part, texts_of(store, part), apart)
        with store.writing():
            # Another process may have read a document again meanwhile.
            there = [one for one in some if store.one(_THERE, one.entity)]
            store.suggest(there, model)
        found |= {one.entity: one for one in there}
    return [found[entity] for entity in strangers if entity in found and found[entity].id]


def _alike(signs: Mapping[str, float]) -> bool:
    """Whether anything at all speaks for a candidate: in a small catalogue somebody is always the likeliest."""
    near = max(
        signs["sequence"], signs["meaning"], signs["long form: letters' cosine"], signs["long form: meaning"]
    )
    return near >= UNLIKE or any(signs[one] > 0 for one in ("shared words", "initials", "long form: same"))


def _why(one: link.Link) -> str:
    signs = one.signs
    more = ", a name of the document" if signs["named in the document"] else ""
    likeness = f"by letters ({signs['sequence']:.2f}) and by meaning ({signs['meaning']:.2f})"
    return f"ranked: {one.name!r} is like it {likeness}{more}"
