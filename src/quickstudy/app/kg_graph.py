"""What can be done with the file of a graph, as functions with plain arguments and results; they print nothing.

The command line calls them, and so do service and studio. A graph is a path, or a store that is open already.
"""

import re
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from quickstudy.app.kg_results import Added, Answers, Main, Shown, State, Told
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.graph.load import triples_of
from quickstudy.domains.kg.graph.query import resolve
from quickstudy.domains.kg.graph.records import Direction, Entity, Name, Triple
from quickstudy.domains.kg.graph.settle import ASSERTED
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.reading.documents import TEXTS, read_documents
from quickstudy.files.source import suffix_of

Graph = str | Path | GraphStore
_PIECE = re.compile(r"#[0-9]+$")


@contextmanager
def opened(store: Graph, *, create: bool = False) -> Iterator[GraphStore]:
    """A store: the one given, or the one in that file, closed afterwards. Raises DataError where there is none."""
    if isinstance(store, GraphStore):
        yield store
        return
    with GraphStore(store, create=create) as found:
        yield found


def add(
    store: Graph,
    documents: Sequence[str | Path],
    *,
    text: str | None = None,
    id: str | None = None,
    bad: Literal["raise", "warn"] = "raise",
    progress: Callable[[int], None] | None = None,
) -> Added:
    """Put documents into a graph, which is made where it isn't there; they wait to be read.

    Args:
        documents: files and folders.
        text, id: names of the columns of tables.
        bad: 'warn' leaves out what can't be read, and says so in the notes.
        progress: is told how many documents have come so far.

    Raises:
        DataError: a file that can't be read, an id twice. Documents that came before it are in the graph by then.
    """
    if not documents:
        raise DataError("no documents were given; name files or folders.")
    with warnings.catch_warnings(record=True) as said, ExitStack() as stack:
        warnings.simplefilter("always")
        coming = (one for path in documents for one in read_documents(path, text=text, id=id, bad=bad))
        first = list(islice(coming, 1))  # no graph is made for what can't be read at all
        graph = stack.enter_context(opened(store, create=True))
        sources = _sources(graph)
        moved: list[str] = []
        texts: dict[str, set[str]] = {}
        done = graph.put_all(_watched(graph, chain(first, coming), sources, moved, texts, progress))
        gone = _outdated(sources, texts)
        for one in gone:
            graph.withdraw(one)
        waiting = graph.waiting()
        notes = [str(one.message) for one in said]
        if moved:
            notes.append(
                f"{len(moved)} of these had come from another place before, and now count as from here: {moved[0]}. "
                "Were they other documents of the same name? Then give each an id of its own, by a table."
            )
        if gone:
            notes.append(
                f"{len(gone)} pieces of files that are cut otherwise now were withdrawn, such as {gone[0]}."
            )
        place = shlex.quote(str(graph.path))
    return Added(
        str(graph.path), done["new"], done["changed"], done["same"], waiting, notes,
        [f"quickstudy kg extract {place} --model MODEL"],
    )  # fmt: skip


def _outdated(before: dict[str, str], texts: dict[str, set[str]]) -> list[str]:
    """What a file gave when it was read last, whole or in pieces, and doesn't give any more."""
    wholes = {source: {_PIECE.sub("", id) for id in ids} for source, ids in texts.items()}
    return [
        id
        for id, source in before.items()
        if source in texts and id not in texts[source] and _PIECE.sub("", id) in wholes[source]
    ]


def _sources(graph: GraphStore) -> dict[str, str]:
    return dict(graph.rows("SELECT id, source FROM documents"))


def _watched(
    graph: GraphStore,
    documents: Iterable[Document],
    sources: dict[str, str],
    moved: list[str],
    texts: dict[str, set[str]],
    progress: Callable[[int], None] | None,
) -> Iterator[Document]:
    """The documents, while it is noted what had come from another place, and what files of one text gave.

    Raises:
        DataError: one would replace another whose file is there still.
    """
    for count, document in enumerate(documents, 1):
        before = sources.get(document.id, document.source)
        if before != document.source:
            if _another(before, document.source) and graph.document(document.id).text != document.text:
                raise DataError(
                    f"the graph has another document called {document.id!r}, from {before}, which is there still; it "
                    "stays. Give the folder that holds both, so that each is called by its path, or give each an id of "
                    "its own, by a table.",
                    file=document.source,
                )
            moved.append(f"{document.id!r}, from {before}, now from {document.source}")
        if document.source and suffix_of(Path(document.source)) in TEXTS:
            texts.setdefault(document.source, set()).add(document.id)
        if progress is not None:
            progress(count)
        yield document


def _another(before: str, now: str) -> bool:
    """Whether both are files that are there, and not one and the same."""
    old, new = Path(before), Path(now)
    return old.is_file() and new.is_file() and not old.samefile(new)


def withdraw(store: Graph, ids: Sequence[str]) -> State:
    """Take documents out of a graph, with what follows from them alone: all of them or, where one isn't there, none.

    Args:
        ids: of documents, or of files that came in pieces.
    """
    with opened(store) as graph:
        with graph.writing():
            for id in ids:
                for one in _pieces(graph, id) or [id]:
                    graph.withdraw(one)
        return status(graph)


def _pieces(graph: GraphStore, id: str) -> list[str]:
    """The pieces that a file came in, where no document is called as it is."""
    found = [
        one
        for (one,) in graph.rows("SELECT id FROM documents WHERE id >= ? AND id < ?", (f"{id}#", f"{id}$"))
    ]
    whole = graph.rows("SELECT 1 FROM documents WHERE id = ?", (id,))
    return [] if whole else [one for one in found if _PIECE.sub("", one) == id]


def status(store: Graph) -> State:
    """What a graph holds, which models read its documents, what failed."""
    with opened(store) as graph, graph.reading():
        models = graph.rows(
            "SELECT word, count(*) FROM documents JOIN words ON words.number = model WHERE state = 1 GROUP BY word"
        )
        return State(str(graph.path), graph.counts(), dict(models), graph.failed())


def entity(graph: GraphStore, words: str) -> Name:
    """The entity that a person means: by its name, by "name (type)", by a name that differs in case alone, or by
    words that one name alone has in it.

    Raises:
        DataError: none, or several; it says which are close.
    """
    known = _kinds(graph, words)
    if len(known) == 1:
        return words
    if len(known) > 1:
        ways = " or ".join(f'"{words} ({kind})"' for kind in sorted(known))
        raise DataError(f"several entities are called {words!r}: write {ways}.")
    typed = re.fullmatch(r"(.+) \((.+)\)", words)
    if typed and typed[2] in _kinds(graph, typed[1]):
        return Entity(typed[1], typed[2])
    found = graph.search(words, limit=5)
    same = [one for one in found if one.name.casefold() == words.strip().casefold()]
    if (
        len(same) == 1 or len(found) == 1
    ):  # one that differs in case alone, or the only one with these words in it
        return (same or found)[0]
    if found:
        near = ", ".join(f'"{one.name}"' for one in found)
        raise DataError(f"the graph has no entity {words!r}. With these words in it there are: {near}.")
    return words  # the store's own error knows which names are alike


def _kinds(graph: GraphStore, name: str) -> set[str]:
    rows = graph.rows(
        "SELECT DISTINCT coalesce(nullif(e.merged_into, 0), e.number), w.word FROM entities e "
        "JOIN words w ON w.number = e.type WHERE e.name = ?",
        (name,),
    )
    return {kind for _, kind in rows} if len({number for number, _ in rows}) > 1 else {k for _, k in rows[:1]}


def main_entities(store: Graph, most: int = 20) -> Main:
    """The entities that have most asserted triples."""
    with opened(store) as graph:
        counted: Counter[Entity] = Counter()
        for triple in graph.triples():
            counted.update({triple.head, triple.tail})
        order = sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:most]
        rows = [{**one._asdict(), "triples": count} for one, count in order]
        return Main(str(graph.path), rows, graph.counts()["triples review"])


def show(
    store: Graph,
    name: str,
    *,
    relation: str | None = None,
    direction: Direction = "both",
    status: Iterable[str] = ASSERTED,
    most: int = 50,
    sentences: int = 1,
) -> Shown:
    """An entity's triples, each with up to `sentences` sentences that say it; and those that wait for a reviewer.

    Raises:
        DataError: no such entity, relation, direction or status.
    """
    with opened(store) as graph:
        here = entity(graph, name)
        status = tuple(status)
        found = graph.neighbours(here, relation, direction, status=status, limit=most, surest=True)
        found.sort(key=lambda t: (t.relation, -(t.score if t.score is not None else 1.0)))
        told = [Told(t, graph.said(t)[:sentences] if sentences else []) for t in found]
        asked = () if status != ASSERTED else ("review",)
        surest = (
            graph.neighbours(here, relation, direction, status=asked, limit=most, surest=True)
            if asked
            else []
        )
        waiting = [Told(t, graph.said(t)[:sentences] if sentences else []) for t in surest]
        more = graph.degree(here, relation, direction, status=status) - len(told)
        return Shown(center(graph, here), graph.names(here), told, more, waiting)


def center(graph: GraphStore, name: Name) -> Entity:
    """What a name counts for, after merging. Raises DataError where the graph has no such entity."""
    resolve(graph, name)
    given, kind = (name, None) if isinstance(name, str) else name
    rows = graph.rows(
        "SELECT c.name, w.word, o.word FROM entities e JOIN entities c ON c.number = "
        "coalesce(nullif(e.merged_into, 0), e.number) JOIN words w ON w.number = c.type "
        "JOIN words o ON o.number = e.type WHERE e.name = ?",
        (given,),
    )
    return next(Entity(name, of) for name, of, own in rows if kind in (None, own))


def path(
    store: Graph, start: str, end: str, *, longest: int = 3, directed: bool = False, most: int = 10
) -> list[tuple[Triple, ...]]:
    """Paths of asserted triples between two entities, the shortest first. Raises DataError as `GraphStore.paths`."""
    with opened(store) as graph:
        return graph.paths(entity(graph, start), entity(graph, end), longest, directed=directed, limit=most)


def match(store: Graph, words: Sequence[str], *, most: int = 1000) -> Answers:
    """Fill variables so that all patterns hold. `words` are head, relation and tail of each, one after the other.

    Raises:
        DataError: as `GraphStore.match`, or words that are no multiple of three.
    """
    if not words or len(words) % 3:
        raise DataError(
            f"a pattern has three parts, head, relation and tail, such as '?who' works_for 'Acme plc'; {len(words)} "
            "words came. Names of several words need quotes, and so do variables."
        )
    with opened(store) as graph:
        patterns = [
            (
                *(part if part.startswith("?") else entity(graph, part) for part in (words[i], words[i + 2])),
                words[i + 1],
            )
            for i in range(0, len(words), 3)
        ]
        found = graph.match([(head, relation, tail) for head, tail, relation in patterns], limit=most)
    variables = list(dict.fromkeys(word for word in words if word.startswith("?")))
    if not variables:
        return Answers([], truth=bool(found))
    return Answers(variables, [[answer.get(one) for one in variables] for answer in found])


def sparql(store: Graph, question: str) -> Answers:
    """What a SPARQL question gives. Raises DataError, and MissingExtra without pyoxigraph."""
    with opened(store) as graph:
        found = graph.sparql(question)
    if isinstance(found, bool):
        return Answers([], truth=found)
    if any(isinstance(row, tuple) for row in found):
        return Answers(["head", "relation", "tail"], [list(row) for row in found])
    columns = list(dict.fromkeys(name for row in found for name in row))
    return Answers(columns, [[row.get(name) for name in columns] for row in found])


def export(store: Graph, file: str | Path, form: str | None = None, **settings: Any) -> int:
    """Write the graph to a file; see `GraphStore.export`. Returns how many triples."""
    with opened(store) as graph:
        return graph.export(file, form, **settings)  # pyright: ignore[reportArgumentType]


def load(store: Graph, file: str | Path, form: str | None = None) -> int:
    """Add the triples of a file to a graph, made where it isn't there; see `GraphStore.load`.

    Raises:
        DataError: as it does; and for a file without triples.
    """
    found = triples_of(file, form)  # pyright: ignore[reportArgumentType]
    first = list(islice(found, 1))  # no graph is made for what can't be read at all
    if not first:
        raise DataError("it holds no triple, so nothing was added.", file=file)
    with opened(store, create=True) as graph, graph.writing():
        return graph.add(chain(first, found))


def push(store: Graph, address: str, kind: str, **settings: Any) -> int:
    """Send the graph to a server; see `GraphStore.push`."""
    with opened(store) as graph:
        return graph.push(address, kind, **settings)  # pyright: ignore[reportArgumentType]
