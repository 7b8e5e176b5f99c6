"""`quickstudy kg export`, `import` and `push`: a graph for other programs, and from them."""

import os
from pathlib import Path

from quickstudy.app import kg_graph, screen
from quickstudy.app.cli_options import COMMON, Common


def export(
    store: Path, file: Path, /, *, format: str | None = None, status: list[str] | None = None,
    provenance: str | None = None, common: Common = COMMON,
) -> int:  # fmt: skip
    """Write the graph to a file that others read; an older file is replaced whole or not at all.

    Args:
        store: file of the graph.
        file: .nt, .ttl, .jsonld (RDF; extra `sparql`), .graphml, .cypher, or a folder for Neo4j's bulk import.
        format: ntriples, turtle, jsonld, graphml, cypher or neo4j; by default as the file's suffix says.
        status: only triples of this status; may be given several times. By default those that count: extracted, given,
            accepted.
        provenance: of RDF: star (RDF 1.2, which reaches the sentences), reified, or none.
    """
    common.start()
    settings = {"status": tuple(status)} if status else {}
    count = kg_graph.export(store, file, format, provenance=provenance, **settings)
    waiting = 0 if status else kg_graph.status(store).counts["triples review"]
    more = f"; {waiting:,} more wait for review (--status review)" if waiting else ""
    common.show(
        {"file": str(file), "triples": count, "waiting": waiting},
        lambda _: screen.say(f"{count:,} triples: {file}{more}"),
    )
    return 0


def import_(store: Path, file: Path, /, *, format: str | None = None, common: Common = COMMON) -> int:
    """Add the triples of a file to a graph: all of them or, where the file is broken, none. They count as given.

    Args:
        store: file of the graph, which is made where it isn't there.
        file: as `kg export` writes them, but for Cypher, which is a program and isn't run.
        format: as of `kg export`.
    """
    common.start()
    count = kg_graph.load(store, file, format)
    common.show({"store": str(store), "triples": count}, lambda _: screen.say(f"{count:,} triples: {store}"))
    return 0


def push(
    store: Path, address: str, /, *, kind: str = "neo4j", user: str | None = None, database: str = "neo4j",
    common: Common = COMMON,
) -> int:  # fmt: skip
    """Send the graph to a server, which merges it: pushing again writes nothing twice.

    The password is taken from the environment variable QUICKSTUDY_PASSWORD, as a command line can be seen by others.

    Args:
        store: file of the graph.
        address: http://localhost:7474 of Neo4j; of SPARQL the whole address of its update endpoint.
        kind: neo4j or sparql.
        user: name to log in with.
        database: of Neo4j.
    """
    common.start()
    password = os.environ.get("QUICKSTUDY_PASSWORD", "")
    count = kg_graph.push(store, address, kind, user=user, password=password, database=database)
    common.show({"address": address, "triples": count}, lambda _: screen.say(f"{count:,} triples: {address}"))
    return 0
