"""Triples of a new relation proposed to a store, apart from what was extracted: a reviewer accepts or rejects them."""

from collections.abc import Callable, Sequence
from itertools import chain

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.completion.completion import Completion
from quickstudy.domains.kg.completion.embedding import TRAINING, Training
from quickstudy.domains.kg.completion.graph import BETWEEN, Graph, shown
from quickstudy.domains.kg.completion.scorer import Scorer
from quickstudy.domains.kg.graph import query
from quickstudy.domains.kg.graph.facts import Proposal
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.schema import RelationType

Pair = tuple[str | tuple[str, str], str | tuple[str, str]]
"""Head and tail, each by its name or by name and type."""
SHOTS = 5
"""Examples that are taken of the store where none are given."""


def key_of(entity: tuple[str, str]) -> str:
    """What an entity of a store is called in a `Graph`: names alone may be those of several."""
    return BETWEEN.join(entity)


def entity_of(key: str) -> Entity:
    """The entity that a key stands for."""
    name, _, kind = key.partition(BETWEEN)
    return Entity(name, kind)


def graph_of(store: GraphStore, without: Sequence[str] = ()) -> Graph:
    """The asserted triples of a store as relation inference reads them, entities by `key_of`, each with its type.

    Args:
        without: relations that are left out.

    Raises:
        DataError: there is no other triple.
    """
    found = [
        (key_of(t.head), t.relation, key_of(t.tail)) for t in store.triples() if t.relation not in without
    ]
    keys = dict.fromkeys(chain.from_iterable((head, tail) for head, _, tail in found))
    return Graph.of(found, {key: (entity_of(key).type,) for key in keys})


def examples_of(store: GraphStore, relation: str) -> list[tuple[str, str]]:
    """The asserted pairs of a relation by key, the surest first: what was given before what was extracted.

    Raises:
        DataError: the store has no such triple.
    """
    asserted = list(store.triples())
    there = [triple for triple in asserted if triple.relation == relation]
    if not there:
        meant = did_you_mean(relation, {triple.relation for triple in asserted})
        raise DataError(
            f"no triple of {relation!r} is asserted.{meant} Accept one to five, or give examples of it."
        )
    there.sort(key=lambda triple: -1.0 if triple.score is None else -triple.score)
    return [(key_of(triple.head), key_of(triple.tail)) for triple in there]


def propose(
    store: GraphStore,
    relation: str,
    support: Sequence[Pair] | None = None,
    *,
    kind: RelationType | None = None,
    most: int = 100,
    least: float = 0.05,
    training: Training = TRAINING,
    scorer: Scorer | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[Proposal]:
    """Infer triples of a relation and write them to the store as proposals, in place of what was proposed of it before.

    Args:
        support: pairs that it holds between; None takes up to `SHOTS` that the store asserts. Those of which an end
            takes part in no other relation are left out: nothing is known of it to infer from.
        kind: the types that the schema lets it join, and whether it is symmetric: then what holds, was rejected or
            is proposed one way isn't proposed the other way.
        most: triples, at most one a head.
        least: score below which nothing is proposed.
        scorer: of an earlier graph; None learns one here.

    Returns:
        What was proposed, the surest first. Triples that the store asserts or a reviewer rejected aren't among it.

    Raises:
        DataError: see `Completion`; an entity that the store doesn't have; no example is left.
    """
    if support is None:
        examples = examples_of(store, relation)
    else:
        examples = [(_key(store, head), _key(store, tail)) for head, tail in support]
    graph = graph_of(store, without=[relation])
    examples = _within(graph, relation, examples)
    examples = examples[:SHOTS] if support is None else examples
    completion = Completion.learn(graph, training=training, scorer=scorer, seed=seed, progress=progress)
    # Of triples that are there already as many more are asked for as are left out again.
    settled = {
        (triple.head, triple.tail)
        for triple in store.triples(("rejected", "review", "extracted", "given", "accepted"))
        if triple.relation == relation
    }
    both_ways = kind is not None and kind.symmetric
    if both_ways:
        settled |= {(tail, head) for head, tail in settled}
    found = [
        Proposal(entity_of(one.head), relation, entity_of(one.tail), one.score, one.why)
        for one in completion.adapt(relation, examples, kind).propose(
            most=most * (1 + both_ways) + len(settled), least=least
        )
    ]
    new: list[Proposal] = []
    for one in found:  # the surest first
        if (one.head, one.tail) not in settled and len(new) < most:
            new.append(one)
            settled |= {(one.tail, one.head)} if both_ways else set()
    store.propose(new, model=f"completion of {relation}")
    return new


def _within(graph: Graph, relation: str, examples: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The examples whose both ends the graph has. Raises DataError if there are some, and none of them is such."""
    found = [pair for pair in examples if all(end in graph.place for end in pair)]
    if examples and not found:
        first = " → ".join(shown(end) for end in examples[0])
        raise DataError(
            f"all {len(examples)} examples of {relation!r} were left out, such as {first}: an end of each takes part "
            "in no other relation of the graph, so nothing can be inferred from it. Give examples between entities of "
            "which other triples speak, or add such triples."
        )
    return found


def _key(store: GraphStore, entity: str | tuple[str, str]) -> str:
    """The key of an entity as it is now called. Raises DataError for one that the store doesn't have."""
    return key_of(query.entity_of(store, query.resolve(store, entity)))
