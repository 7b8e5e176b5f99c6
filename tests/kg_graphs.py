"""Small graphs for the tests of the store."""

from pathlib import Path

from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.graph.claims import Mention, Statement
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.store import GraphStore

ADA, LOVELACE = Entity("Ada Lovelace", "person"), Entity("Lovelace", "person")
LONDON, ACME = Entity("London", "place"), Entity("Acme", "firm")
Spoken = tuple[Entity, str, Entity]

BORN = "Ada Lovelace was born in London."
WORKS = "Lovelace worked for Acme, based in London."


def put(
    store: GraphStore,
    id: str,
    text: str,
    *spoken: Spoken,
    model: str = "m1",
    certain: bool = True,
    score: float = 0.9,
) -> None:
    """Put a document and write what is said in it, each name where it first stands, in one sentence."""
    store.put(Document(id, text))
    claims = {claim.document.id: claim for claim in store.claim(1000)}
    claim = claims.pop(id)
    store.release([*claims.values()])
    mentions: list[Mention] = []
    statements = []
    for head, relation, tail in spoken:
        for name, kind in (head, tail):
            start = text.index(name)
            mentions.append(Mention(start, start + len(name), kind, 0.8))
        statements.append(
            Statement(len(mentions) - 2, relation, len(mentions) - 1, (0, len(text)), score, certain)
        )
    assert store.finish(claim, mentions, statements, model)


def small(path: Path) -> GraphStore:
    """Ada Lovelace born in London; Lovelace works for Acme, which is based in London."""
    store = GraphStore(path)
    put(store, "a", BORN, (ADA, "born_in", LONDON))
    put(store, "b", WORKS, (LOVELACE, "works_for", ACME), (ACME, "based_in", LONDON))
    return store


def said(store: GraphStore, **options) -> set[tuple[str, str, str]]:
    """The triples by names."""
    return {(t.head.name, t.relation, t.tail.name) for t in store.triples(**options)}


def dump(store: GraphStore) -> dict[str, list]:
    """All that the graph says, without the numbers by which the file knows it."""
    everything = ("rejected", "proposed", "review", "extracted", "given", "accepted")
    return {
        "triples": list(store.triples(status=everything)),
        "said": [(t[:3], store.said(t)) for t in store.triples(status=everything)],
        "mentions": [
            (id, store.mentions(id)) for (id,) in store.rows("SELECT id FROM documents ORDER BY id")
        ],
        "entities": store.rows(
            "SELECT e.name, w.word, c.name FROM entities e JOIN words w ON w.number = e.type "
            "LEFT JOIN entities c ON c.number = e.merged_into ORDER BY 1, 2"
        ),
    }
