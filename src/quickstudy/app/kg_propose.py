"""Relation inference over a graph, as a function with plain arguments: what nobody said, apart from what was said."""

from collections.abc import Callable, Sequence
from pathlib import Path

from quickstudy.app.actions import at_least
from quickstudy.app.kg_graph import Graph, entity, opened
from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.completion.propose import propose as infer
from quickstudy.domains.kg.graph.facts import Proposal
from quickstudy.domains.kg.schema import Schema


def propose(
    store: Graph,
    relation: str,
    *,
    examples: Sequence[str] = (),
    schema: str | Path | None = None,
    most: int = 100,
    least: float = 0.05,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[Proposal]:
    """Infer triples of a relation from what counts in a graph, and keep them as proposals, which count only once a
    reviewer accepts them. They replace what was proposed of that relation before.

    Args:
        examples: "head -> tail", one to five; without any, up to five triples that count.
        schema: where the relation's types are declared.
        most: triples.
        least: score below which nothing is proposed.

    Raises:
        DataError: an example without an arrow, entities or a relation that aren't there.
    """
    at_least(1, most=most)
    at_least(0, seed=seed)
    kind = None
    if schema is not None:
        known = Schema.read(schema).relations
        if relation not in known:
            raise DataError(f"has no relation {relation!r}.{did_you_mean(relation, known)}", file=schema)
        kind = known[relation]
    with opened(store) as graph:
        support = None
        if examples:
            ends = [tuple(part.strip() for part in one.split("->")) for one in examples]
            if wrong := [
                one for one, pair in zip(examples, ends, strict=True) if len(pair) != 2 or not all(pair)
            ]:
                raise DataError(f"{wrong[0]!r} is no example; expected one such as 'Jo Ray -> Acme plc'.")
            support = [(entity(graph, head), entity(graph, tail)) for head, tail in ends]
        return infer(
            graph, relation, support, kind=kind, most=most, least=least, seed=seed, progress=progress
        )
