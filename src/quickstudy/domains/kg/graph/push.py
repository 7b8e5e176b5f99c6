"""A graph to a server: Neo4j's transactional HTTP endpoint, or a SPARQL 1.1 Update endpoint.

Both merge: what the server has already isn't written twice, so a push that was interrupted is simply run again. As a
SPARQL server takes a blank node for a new one in every request, it gets an IRI instead: urn:quickstudy:blank:NAME.
"""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from quickstudy.core.errors import DataError
from quickstudy.core.untrusted import harmless
from quickstudy.domains.kg.graph.export import cypher_name
from quickstudy.domains.kg.graph.rdf import described, named
from quickstudy.domains.kg.graph.records import Triple
from quickstudy.domains.kg.graph.settle import ASSERTED

if TYPE_CHECKING:
    from quickstudy.domains.kg.graph.store import GraphStore

_ANSWER = 1_000_000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A password goes to the address that was given, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def push(
    store: "GraphStore",
    address: str,
    kind: Literal["neo4j", "sparql"],
    *,
    user: str | None = None,
    password: str = "",
    database: str = "neo4j",
    status: Iterable[str] = ASSERTED,
    batch: int = 1000,
    seconds: float = 60,
) -> int:
    """Send the triples, `batch` in a request.

    Args:
        address: of Neo4j, such as http://localhost:7474; or of the update endpoint, whole.
        user: with a password, sent as HTTP's basic authentication.
        database: of Neo4j.
        status: which triples. SPARQL only takes asserted ones.
        seconds: that a request may take.

    Returns:
        How many triples were sent.

    Raises:
        DataError: the address is none, or the server didn't take them; it says how many had been sent by then.
    """
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).netloc:
        raise DataError(f"{address!r} is no address; expected http://… or https://…")
    status = (status,) if isinstance(status, str) else tuple(status)
    if kind == "neo4j":
        target = f"{address.rstrip('/')}/db/{quote(database, safe='')}/tx/commit"
        requests = _cypher(store, status, batch)
    elif kind == "sparql":
        if not set(status) <= set(ASSERTED):
            raise DataError("in RDF every triple counts as asserted: only asserted ones are sent.")
        target, requests = address, _update(store, batch)
    else:
        raise DataError(f"kind is neo4j or sparql; this is {kind!r}.")
    headers = {}
    if user is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    sent = 0
    with store.reading():
        for count, mime, body in requests:
            try:
                _send(target, body, headers | {"Content-Type": mime}, seconds, check=kind == "neo4j")
            except DataError as error:
                raise DataError(
                    f"{error} {sent} triples had been sent; pushing again writes none of them twice."
                ) from None
            sent += count
    return sent


def _send(address: str, body: bytes, headers: dict[str, str], seconds: float, check: bool) -> None:
    request = urllib.request.Request(address, body, headers | {"Accept": "application/json"}, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds) as answer:
            said = answer.read(_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            said = harmless(error.read(500).decode(errors="replace")).strip()
        raise DataError(
            f"{address} answered {error.code} {error.reason}: {said or 'nothing more'}."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{address} can't be reached: {reason}.") from None
    if check:
        try:
            problems = json.loads(said)["errors"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{address} doesn't answer as Neo4j does.") from None
        if problems:
            raise DataError(f"{address} answered: {harmless(str(problems[0]))[:500]}.")


def _cypher(store: "GraphStore", status: tuple[str, ...], batch: int) -> Iterator[tuple[int, str, bytes]]:
    """A transaction a batch. Names are parameters; only a relation's has to stand in the text, sanitised."""
    rest = store.triples(status)
    while part := list(islice(rest, batch)):
        by_relation: dict[str, list[Triple]] = {}
        for triple in part:
            by_relation.setdefault(triple.relation, []).append(triple)
        statements = [
            {
                "statement": "UNWIND $rows AS row MERGE (a:Entity {name: row.head, type: row.head_type}) "
                "MERGE (b:Entity {name: row.tail, type: row.tail_type}) "
                f"MERGE (a)-[r:{cypher_name(relation)} {{relation: $relation}}]->(b) "
                "SET r.status = row.status, r.score = row.score, r.inferred = row.inferred",
                "parameters": {"relation": relation, "rows": [_row(triple) for triple in found]},
            }
            for relation, found in by_relation.items()
        ]
        yield len(part), "application/json", json.dumps({"statements": statements}).encode()


def _row(triple: Triple) -> dict[str, Any]:
    (head, head_type), _, (tail, tail_type), status, score, inferred = triple
    ends = {"head": head, "head_type": head_type, "tail": tail, "tail_type": tail_type}
    return ends | {"status": status, "score": score, "inferred": inferred}


def _update(store: "GraphStore", batch: int) -> Iterator[tuple[int, str, bytes]]:
    rest = described(store, ASSERTED, "none", names=False)
    while part := list(islice(rest, batch)):
        data = "\n".join(
            f"{named(triple)} ." for triple in part
        )  # pyoxigraph writes terms as SPARQL reads them
        yield len(part), "application/sparql-update", f"INSERT DATA {{\n{data}\n}}".encode()
