"""Linking played before it is done: names are taken out of a catalogue, and asked for again as mentions.

    of_documents    documents with ids: some are the past, whose names make the catalogue; a new id comes with the name
                    of its first mention, or not at all: then its mentions are none of the entries
    of_names        a catalogue alone: some entries are taken out whole, and what they were called is none of those that
                    are left; of others a name is asked for, and taken out where they have more

The first kind is what a ranker is meta-trained on, the second what it adapts to a new catalogue by, without any label:
how like one another two names are that mean different things differs from field to field.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from quickstudy.domains.kg.document import Annotated, Document
from quickstudy.domains.kg.linking.catalogue import Catalogue, Entry
from quickstudy.domains.kg.linking.link import Mention

ABSENT = 0.4
"""Share of the new ids that a catalogue made of documents doesn't have."""
TAKEN = 0.5
"""Of the names that a catalogue is asked for, the share of entries that are taken out whole."""
LARGEST = 20_000
"""Entries of a catalogue that play; of more, so many are drawn."""


class World(NamedTuple):
    """A catalogue, and mentions whose entries are known."""

    catalogue: Catalogue
    mentions: list[Mention]
    ids: list[str | None]
    """None: not in the catalogue."""
    documents: list[Document]


def linked(one: Annotated) -> Iterator[tuple[Mention, str]]:
    """The mentions of a document that have one id."""
    for number, id in one.links.items():
        if id != "-1" and "|" not in id:
            yield Mention(one.of(number), one.spans[number].type), id


def of_documents(
    past: Sequence[Annotated], new: Sequence[Annotated], *, seed: int = 0, absent: float = ABSENT
) -> World:
    """Each name of the new documents once: of ids that the past has, of new ones, and of absent ones."""
    names: dict[str, dict[str, None]] = {}
    kinds: dict[str, str] = {}
    for mention, id in (pair for one in past for pair in linked(one)):
        names.setdefault(id, {})[mention.text] = None
        kinds[id] = mention.type
    draw, known = random.Random(seed), set(names)
    coming = dict.fromkeys(id for one in new for _, id in linked(one) if id not in known)
    gone = {id for id in coming if draw.random() < absent}
    asked: dict[tuple[str, str], tuple[Mention, str | None]] = {}
    for number, one in enumerate(new):
        for mention, id in linked(one):
            if id in gone or id in names:
                where = mention._replace(document=number)
                asked.setdefault((mention.text, mention.type), (where, None if id in gone else id))
            else:
                names[id] = {mention.text: None}
                kinds[id] = mention.type
    return World(
        Catalogue(Entry(id, tuple(of), kinds[id]) for id, of in names.items()),
        [mention for mention, _ in asked.values()], [id for _, id in asked.values()],
        [one.document for one in new],
    )  # fmt: skip


def of_names(catalogue: Catalogue, most: int, *, seed: int = 0) -> World:
    """At most so many names of a catalogue, asked for in what is left of it; one of them at least has an entry."""
    draw = random.Random(seed)
    entries = list(catalogue.entries)
    if len(entries) > LARGEST:
        entries = draw.sample(entries, LARGEST)
    kept: list[Entry] = []
    mentions: list[Mention] = []
    ids: list[str | None] = []
    # At least half stay: without neighbours nothing is like anything.
    asked = set(draw.sample(range(len(entries)), min(most, len(entries) // 2)))
    for number, entry in enumerate(entries):
        if number in asked:
            name = draw.choice(entry.names)
            gone = draw.random() < TAKEN
            mentions.append(Mention(name, entry.type))
            ids.append(None if gone else entry.id)
            if gone:
                continue
            entry = replace(entry, names=tuple(n for n in entry.names if n != name) or entry.names)
        kept.append(replace(entry, same_as=()))
    if kept and not any(ids):
        mentions.append(Mention(kept[0].names[0], kept[0].type))
        ids.append(kept[0].id)
    return World(Catalogue(kept), mentions, ids, [Document("", "")])
