"""One engine's part of `kg_store`, in a process of its own.

python -m quickstudy.bench.kg_store_run job.json result.json
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.bench.memory import peak_added

RELATIONS, TYPES, CHUNK = 50, 5, 10_000
Ends = tuple[int, int, int]
Loaded = tuple[Callable[[int], int], Callable[[], int], Path | None]
"""How many neighbours an entity has, how many answers the join, and the file or folder of the graph."""


def graph(triples: int, seed: int) -> Iterator[Ends]:
    """Head, relation and tail by number, a fifth as many entities as triples; some are named far more often.

    A triple may come twice.
    """
    draw = np.random.default_rng(seed)
    entities = max(10, triples // 5)
    for start in range(0, triples, CHUNK):
        size = min(CHUNK, triples - start)
        heads = (entities * draw.random(size) ** 2).astype(int).tolist()
        tails = (entities * draw.random(size) ** 3).astype(int).tolist()
        yield from zip(heads, draw.integers(RELATIONS, size=size).tolist(), tails, strict=True)


def asked(triples: int, count: int, seed: int) -> list[int]:
    """Entities whose neighbours are asked for: heads of the graph's first triples, in another order."""
    heads = sorted({head for head, *_ in graph(min(triples, 10 * count), seed)})
    return np.random.default_rng(seed + 1).permutation(heads)[:count].tolist()


def ours(triples: Iterator[Ends], folder: Path) -> Loaded:
    """Load into our store."""
    from quickstudy.domains.kg.graph.store import GraphStore

    path = folder / "graph.db"

    def entity(number: int) -> tuple[str, str]:
        return f"entity {number}", f"type {number % TYPES}"

    with GraphStore(path) as store:
        store.add((entity(a), f"relation {r}", entity(b)) for a, r, b in triples)
    store = GraphStore(path)

    def neighbours(number: int) -> int:
        return len(
            {
                (t.head.name, t.relation, t.tail.name)
                for t in store.neighbours(f"entity {number}", limit=10**9)
            }
        )

    def join() -> int:
        return len(
            store.match([("?a", "relation 1", "?b"), ("?b", "relation 2", "?c")], limit=10**9, seconds=600)
        )

    return neighbours, join, path


def oxigraph(triples: Iterator[Ends], folder: Path | None) -> Loaded:
    """The same in pyoxigraph, on disk or, without a folder, in memory."""
    import pyoxigraph as ox

    base = "http://example.org/"

    def node(kind: str, number: int) -> Any:
        return ox.NamedNode(f"{base}{kind}{number}")

    path = None if folder is None else folder / "oxigraph"
    store = ox.Store() if path is None else ox.Store(str(path))
    store.bulk_extend(
        ox.Quad(node("entity", a), node("relation", r), node("entity", b)) for a, r, b in triples
    )
    if path is not None:
        store.flush()
        del store
        store = ox.Store(str(path))

    def neighbours(number: int) -> int:
        here = node("entity", number)
        found = set()
        for pattern in ((here, None, None), (None, None, here)):
            quads: Iterator[Any] = store.quads_for_pattern(*pattern, None)
            for quad in quads:
                found.add((quad.subject.value, quad.predicate.value, quad.object.value))
        return len(found)

    def join() -> int:
        query = f"SELECT ?a ?b ?c {{ ?a <{base}relation1> ?b . ?b <{base}relation2> ?c }}"
        return len([(row["a"].value, row["b"].value, row["c"].value) for row in store.query(query)])  # pyright: ignore

    return neighbours, join, path


def ladybug(triples: Iterator[Ends], folder: Path) -> Loaded:
    """The same in ladybug, by its way for many: COPY from CSV, whose writing counts as loading. One thread."""
    lb: Any = import_module("ladybug")

    path, nodes, edges = (folder / name for name in ("ladybug", "nodes.csv", "edges.csv"))
    entities: set[int] = set()
    with open(edges, "w") as file:
        for a, r, b in triples:
            entities |= {a, b}
            file.write(f"entity {a},entity {b},relation {r}\n")
    nodes.write_text("".join(f"entity {number},type {number % TYPES}\n" for number in entities))

    def opened() -> Any:
        return lb.Connection(lb.Database(str(path), max_num_threads=1), num_threads=1)

    connection = opened()
    for statement in (
        "CREATE NODE TABLE Entity (name STRING PRIMARY KEY, type STRING)",
        "CREATE REL TABLE Related (FROM Entity TO Entity, relation STRING)",
        f"COPY Entity FROM '{nodes}' (HEADER=false)",
        f"COPY Related FROM '{edges}' (HEADER=false)",
        "CHECKPOINT",
    ):
        connection.execute(statement)
    del connection
    connection = opened()
    out, into = (
        connection.prepare(f"MATCH {pattern} RETURN h.name, r.relation, t.name")
        for pattern in (
            "(h:Entity {name: $name})-[r:Related]->(t:Entity)",
            "(t:Entity {name: $name})<-[r:Related]-(h:Entity)",
        )
    )

    def neighbours(number: int) -> int:
        here = {"name": f"entity {number}"}
        return len({tuple(row) for query in (out, into) for row in connection.execute(query, here).get_all()})

    def join() -> int:
        return len(connection.execute(
            "MATCH (a:Entity)-[r:Related {relation: 'relation 1'}]->(b:Entity)-[s:Related {relation: 'relation 2'}]->"
            "(c:Entity) RETURN DISTINCT a.name, b.name, c.name"
        ).get_all())  # fmt: skip

    return neighbours, join, path


ENGINES: dict[str, Callable[[Iterator[Ends], Path], Loaded]] = {
    "quickstudy": ours,
    "pyoxigraph on disk": oxigraph,
    "pyoxigraph in memory": lambda triples, _: oxigraph(triples, None),
    "ladybug on disk": ladybug,
}
_MODULES = {
    "quickstudy": "quickstudy.domains.kg.graph.store",
    "pyoxigraph": "pyoxigraph",
    "ladybug": "ladybug",
}


def measure(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All figures of an engine: CPU seconds to load, CPU milliseconds to answer (all threads), megabytes."""
    engine, numbers = job["engine"], asked(job["triples"], job["lookups"], job["seed"])
    figures: dict[str, Any] = {"lookups": float("inf"), "join": float("inf")}

    def run() -> None:
        triples = graph(job["triples"], job["seed"])
        start = time.process_time()
        neighbours, join, path = ENGINES[engine](triples, folder)
        figures["load"] = time.process_time() - start
        for turn in range(job["rounds"]):
            start = time.process_time()
            found = sum(map(neighbours, numbers))
            between = time.process_time()
            joined = join()
            figures["join"] = min(figures["join"], 1000 * (time.process_time() - between))
            figures["lookups"] = min(figures["lookups"], 1000 * (between - start))
            if not turn:
                figures["first"] = figures["lookups"]
        figures["answers"] = [found, joined]
        files = [] if path is None else [path, *path.rglob("*")] if path.is_dir() else [path]
        figures["file"] = sum(file.stat().st_size for file in files if file.is_file()) / 1e6

    # What a program has loaded before it opens a graph is no part of the graph's memory.
    import_module(_MODULES[engine.split()[0]])
    figures["memory"] = peak_added(run)
    return figures


if __name__ == "__main__":
    job_file, result = map(Path, sys.argv[1:3])
    result.write_text(json.dumps(measure(json.loads(job_file.read_text()), result.parent)))
