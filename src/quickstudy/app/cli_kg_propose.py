"""`quickstudy kg propose`: triples that nobody said, inferred from those that count."""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quickstudy.app import screen
from quickstudy.app.cli_options import COMMON, Common
from quickstudy.domains.kg.graph.facts import Proposal


def propose(
    store: Path,
    relation: str,
    /,
    *,
    example: Annotated[list[str] | None, Parameter(negative="")] = None,
    schema: Path | None = None,
    most: int = 100,
    least: float = 0.05,
    seed: int = 0,
    common: Common = COMMON,
) -> int:
    """Propose triples of a relation that nobody said, from one to five known ones and the rest of the graph.

    They stand apart from what was extracted, and count only once a reviewer accepts them.

    Args:
        store: file of the graph.
        relation: its name; it may be a new one.
        example: two entities that it joins, 'HEAD -> TAIL'; may be given several times. By default up to five triples
            of it that count.
        schema: .yaml or .json that declares which types the relation joins.
        most: triples.
        least: score below which nothing is proposed.
        seed: of everything drawn at random.
    """
    from quickstudy.app import kg_propose

    common.start()
    with screen.bar("propose") as move:
        found = kg_propose.propose(
            store, relation, examples=example or (), schema=schema, most=most, least=least, seed=seed,
            progress=lambda stage: move(stage, 0, 0),
        )  # fmt: skip
    common.show({"proposals": found}, lambda _: _proposed(found, store))
    return 0


def _proposed(found: list[Proposal], store: Path) -> None:
    if not found:
        screen.say("Nothing is likely enough to be proposed.")
        return
    made = screen.table("head", "relation", "tail", "score", "why", numbers=(3,))
    for one in found:
        head, tail = screen.short(one.head.name, 60), screen.short(one.tail.name, 60)
        made.add_row(head, one.relation, tail, f"{one.score:.2f}", one.why)
    screen.say(made, "Proposed, and no part of the graph until somebody accepts them.")
    screen.type_next([f"quickstudy kg review {shlex.quote(str(store))}"])
