"""`quickstudy kg show`, `path` and `query`: questions to a graph."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from quickstudy.app import kg_graph, kg_results, screen
from quickstudy.app.actions import at_least
from quickstudy.app.cli_options import COMMON, Common
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.graph.records import Entity, Said, Triple
from quickstudy.domains.kg.graph.settle import ASSERTED, STATUSES

AROUND = 60
"""Characters shown before and after the two mentions of a sentence."""
Word = Annotated[str, Parameter(allow_leading_hyphen=True)]


def show(
    store: Path,
    name: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    relation: str | None = None,
    direction: str = "both",
    status: list[str] | None = None,
    n: Annotated[int, Parameter(name="-n")] = 20,
    sentences: int = 1,
    common: Common = COMMON,
) -> int:
    """Show an entity's triples with the sentences that say them; without a name, the entities that have most.

    Args:
        store: file of the graph.
        name: the entity's name; "name (type)" where several types have it. Upper and lower case don't count. Words of
            it will do where one entity alone has them; where several do, they are named.
        relation: only triples of this relation.
        direction: out (triples that start from it), in (that lead to it), or both.
        status: only triples of this status: rejected, proposed, review, extracted, given or accepted; may be given
            several times. By default the last three, and those for review under a heading of their own.
        n: how many.
        sentences: how many sentences of each triple.
    """
    common.start()
    at_least(1, n=n)
    at_least(0, sentences=sentences)
    if name is None:
        common.show(kg_graph.main_entities(store, n), _main)
        return 0
    _known(status)
    found = kg_graph.show(
        store, name, relation=relation, direction=direction,  # pyright: ignore[reportArgumentType]
        status=status or ASSERTED, most=n, sentences=sentences,
    )  # fmt: skip
    common.show(found, lambda one: _shown(one, store))
    return 0


def _known(status: list[str] | None) -> None:
    for one in status or ():
        if one not in STATUSES:
            raise DataError(f"{one!r} is no status; there are {', '.join(STATUSES)}.", file="--status")


def _main(result: kg_results.Main) -> None:
    if not result.entities:
        screen.say("No triple counts yet. What the graph holds: quickstudy kg status")
        _waiting(result.review)
        return
    made = screen.table("entity", "type", "triples", numbers=(2,))
    for one in result.entities:
        made.add_row(screen.short(one["name"], 80), one["type"], str(one["triples"]))
    screen.say(made)
    _waiting(result.review)


def _waiting(count: int) -> None:
    if count:
        screen.say(
            f"{count:,} triples wait for a reviewer: they are less sure than the model was told to be, and don't"
        )
        screen.say("count yet. `kg review` asks about them; `kg show STORE NAME` lists an entity's.")


def _shown(result: kg_results.Shown, store: Path) -> None:
    others = [name for name in result.names["names"] if name != result.entity.name]
    ids = result.names["catalogue"]
    screen.say(f"{result.entity.name} ({result.entity.type})")
    if others:
        screen.say(f"Also called: {', '.join(others[:20])}{', …' if len(others) > 20 else ''}")
    if ids:
        screen.say(f"In the catalogue: {', '.join(ids)}")
    if result.triples:
        screen.say(_triples(result.triples, result.entity))
    else:
        screen.say("No triple of this kind counts." if result.waiting else "No triple of this kind.")
    if result.more:
        screen.say(f"{result.more} more; -n shows more of them.")
    if result.waiting:
        screen.say(
            "For review, as they are less sure than the model was told to be; they don't count until you accept"
        )
        screen.say(f"them: quickstudy kg review {shlex.quote(str(store))}")
        screen.say(_triples(result.waiting, result.entity))


def _triples(told: list[kg_results.Told], here: Entity) -> Any:
    made = screen.table("head", "relation", "tail", "how sure", "where it is said")
    for one in told:
        head, tail = (
            "·" if end == here else screen.short(end.name, 60) for end in (one.triple.head, one.triple.tail)
        )
        where = "\n".join(f"{quoted(said)}  ({said.document})" for said in one.said) or one.triple.status
        made.add_row(head, one.triple.relation, tail, sure(one.triple), where)
    return made


def sure(triple: Triple) -> str:
    """The status of a triple, where it isn't plainly extracted, and its probability."""
    score = "" if triple.score is None else f"{triple.score:.2f}"
    status = "" if triple.status in ("extracted", "review") else triple.status
    return " ".join(part for part in (status, score) if part)


def quoted(said: Said) -> str:
    """The sentence of a triple around its two mentions, which stand in brackets."""
    text, start = said.sentence.text, said.sentence.start
    marks = sorted((end.start - start, end.end - start) for end in (said.head, said.tail))
    first, last = marks[0][0], max(b for _, b in marks)
    begin, stop = max(0, first - AROUND), min(len(text), last + AROUND)
    begin = text.find(" ", begin, first) + 1 if begin else 0
    if stop < len(text):
        stop = max(last, text.rfind(" ", last, stop))
    parts, at = [], begin
    for a, b in marks:
        if a >= at:  # a mention may stand within the other
            parts += [text[at:a], "[", text[a:b], "]"]
            at = b
    parts.append(text[at:stop])
    words = " ".join("".join(parts).split())
    return f"{'…' if begin else ''}{words}{'…' if stop < len(text) else ''}"


def path(
    store: Path, start: Word, end: Word, /, *, longest: int = 3, directed: bool = False,
    n: Annotated[int, Parameter(name="-n")] = 10, common: Common = COMMON,
) -> int:  # fmt: skip
    """Show how two entities hang together: paths of triples between them, the shortest first.

    Args:
        store: file of the graph.
        start: name of the one.
        end: name of the other.
        longest: triples in a path, 1 to 6.
        directed: only go from head to tail.
        n: how many paths.
    """
    common.start()
    at_least(1, n=n)
    found = kg_graph.path(store, start, end, longest=longest, directed=directed, most=n)

    def lines(_: Any) -> None:
        for steps in found:
            screen.say(walked(start, steps))
        if not found:
            screen.say(f"No path of {longest} triples or fewer.")
            _waiting(kg_graph.status(store).counts["triples review"])

    common.show({"paths": found}, lines)
    return 0


def walked(start: str, steps: Sequence[Triple]) -> str:
    """A path as a line: A —works_for→ B ←acquired— C."""
    ends = [{one.head, one.tail} for one in steps]
    first = next((e for e in ends[0] if e.name.casefold() == start.casefold()), None)
    if len(steps) > 1:  # the end that the next step hasn't
        first = next(iter(ends[0] - ends[1]), first)
    at: Entity = first or steps[0].head
    line = at.name
    for one in steps:
        out = one.head == at
        at = one.tail if out else one.head
        line += f" —{one.relation}→ {at.name}" if out else f" ←{one.relation}— {at.name}"
    return line


def query(
    store: Path,
    /,
    *pattern: Word,
    sparql: str | None = None,
    n: Annotated[int, Parameter(name="-n")] = 1000,
    common: Common = COMMON,
) -> int:
    """Ask with variables: they are filled in all ways in which every pattern is a triple of the graph.

    An example of two patterns: `'?who' works_for '?firm' '?firm' based_in Paris`

    Args:
        store: file of the graph.
        pattern: head, relation and tail, three words a pattern; what begins with ? is a variable.
        sparql: ask in SPARQL instead. Prefixes known: e: (entities), r: (relations), t: (types), rdf:.
        n: answers, at most.
    """
    common.start()
    at_least(1, n=n)
    if (sparql is None) == (not pattern):
        raise DataError("give either patterns or --sparql, and not both.", file="query")
    found = kg_graph.match(store, pattern, most=n) if sparql is None else kg_graph.sparql(store, sparql)
    common.show(found, lambda result: _answers(result, store))
    return 0


def _answers(result: kg_results.Answers, store: Path) -> None:
    if result.truth is not None:
        screen.say("yes" if result.truth else "no")
        return
    if not result.rows:
        screen.say("No answer.")
        _waiting(kg_graph.status(store).counts["triples review"])
        return
    made = screen.table(*result.columns)
    for row in result.rows:
        made.add_row(*(_cell(value) for value in row))
    screen.say(made)


def _cell(value: Any) -> str:
    return "" if value is None else screen.short(value.name if isinstance(value, Entity) else str(value), 80)
