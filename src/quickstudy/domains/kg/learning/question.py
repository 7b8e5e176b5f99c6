"""How a question looks: the sentence with its names marked, what is asked, and what can be answered."""

from collections.abc import Iterable, Sequence

from quickstudy.core.untrusted import harmless
from quickstudy.domains.kg.graph.records import Entity, Found, Said, Slice, Triple
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.queue import Doubtful, Item, Kind, Linked, Pair, Together

KEYS: dict[Kind, str] = {
    "statement": "y n  r RELATION  t(urned)  1/2 TYPE | = WORDS | -  + TYPE WORDS  w(hole)  e u s q ?",
    "pair": "n(othing)  r RELATION  t RELATION  1/2 TYPE | = WORDS | -  + TYPE WORDS  w(hole)  u s q ?",
    "merge": "y(es, one thing)  n(o, two)  u s q ?",
    "link": "y(es, it is that)  n(o)  u s q ?",
    "mention": "y n  1 TYPE | = WORDS | -  + TYPE WORDS  w(hole)  u s q ?",
    "proposal": "y n  e u s q ?",
}


def question(store: GraphStore, item: Item, number: int = 1) -> list[str]:
    """What is asked, in lines. Signs that would steer a terminal are shown, not obeyed."""
    what = item.what
    if isinstance(what, Together):
        asked = [
            f"One thing?  {_entity(what.one)}  =  {_entity(what.other)}",
            f"  because: {what.why or 'no reason given'}",
        ]
    elif isinstance(what, Linked):
        asked = [
            f"Is it?  {_entity(what.entity)}  =  {what.name} [{what.id}]",
            f"  {' '.join(what.sentence.text.split())}",
            f"  ({what.document})",
            f"  because: {what.why or 'no reason given'}",
        ]
    elif isinstance(what, Triple):
        asked = [f"True?  {_entity(what.head)}  —{what.relation}→  {_entity(what.tail)}"]
    else:
        document, ends, sentence = ends_of(store, item)
        asked = [f"  {marked(sentence, ends, store.mentions(document))}", f"  ({document})"]
        if isinstance(what, Said):
            asked.insert(0, f"Does it say:  {_found(ends[0])}  —{what.relation}→  {_found(ends[1])}  ?")
        elif isinstance(what, Pair):
            asked.insert(0, f"How are these related, if at all?  {_found(ends[0])}  …  {_found(ends[1])}")
        else:
            asked.insert(0, f"A name?  {_found(ends[0])}")
    return [
        harmless(line) for line in (f"[{number}] {item.kind}: {item.why}", *asked, f"  {KEYS[item.kind]}")
    ]


def marked(sentence: Slice, ends: Sequence[Found], others: Iterable[Found] = ()) -> str:
    """A sentence with the two names in question as 1[…] and 2[…], and what else was found in ⟨…⟩."""
    own = {(end.start, end.end): number for number, end in enumerate(ends, 1)}
    marks: list[tuple[int, int, str, str]] = [(s, e, f"{n}[", "]") for (s, e), n in own.items()]
    marks += [
        (m.start, m.end, "⟨", "⟩")
        for m in others
        if sentence.start <= m.start and m.end <= sentence.end and not any(_crosses(m, end) for end in ends)
    ]
    parts, at = [], sentence.start
    for start, end, left, right in sorted(marks):
        if start < at:  # it crosses one before it
            continue
        parts += [sentence.text[at - sentence.start : start - sentence.start], left]
        parts += [sentence.text[start - sentence.start : end - sentence.start], right]
        at = end
    return " ".join("".join([*parts, sentence.text[at - sentence.start :]]).split())


def ends_of(store: GraphStore, item: Item) -> tuple[str, list[Found], Slice]:
    """The document of a question, its one or two mentions, and the sentence."""
    what = item.what
    if isinstance(what, Said):
        at = {(m.start, m.end): m for m in store.mentions(what.document)}
        ends = [at[end.start, end.end] for end in (what.head, what.tail) if (end.start, end.end) in at]
        return what.document, ends, what.sentence
    if isinstance(what, Pair):
        return what.document, [what.head, what.tail], what.sentence
    assert isinstance(what, Doubtful)
    return what.document, [what.found], what.sentence


def _crosses(one: Found, other: Found) -> bool:
    return one.start < other.end and other.start < one.end


def _found(found: Found) -> str:
    return f"{' '.join(found.text.split())} ({found.type})"


def _entity(entity: Entity) -> str:
    return f"{entity.name} ({entity.type})"
