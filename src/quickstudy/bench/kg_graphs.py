"""Published graphs for relation inference, and which of their relations are held out.

CoDEx-S and CoDEx-M: Safavi & Koutra 2020, arXiv:2009.07810, with the types of their entities. FB15k-237: Toutanova &
Chen 2015, doi:10.18653/v1/W15-4007; nobody gives types for it. Triples of all published parts are taken together, as it
is relations that are held out.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.completion.embedding import Training
from quickstudy.domains.kg.completion.graph import Graph, Plain

FOLDER = "kgc"
GRAPHS = {
    "codex_s": Training(epochs=25, batch=1000),
    "codex_m": Training(epochs=14, batch=2000),
    "fb15k237": Training(epochs=14, batch=2000),
}
"""The graphs, and how their vectors are trained."""
_PARTS = ("train", "valid", "test")
LEAST, MOST = 50, 2500
"""Triples of a relation that can be held out."""


class Held(NamedTuple):
    """Relations held out of a graph, by number."""

    test: list[int]
    """Judged by."""
    validation: list[int]
    """Choices are made on these."""
    played: list[int]
    """Known, but not to the embedding: played as new ones to learn from."""


def read(data: Path, name: str) -> Graph:
    """A published graph. Raises DataError for one that isn't there or can't be read."""
    folder = data / FOLDER / name
    if not folder.is_dir():
        raise DataError(f"there is no folder {FOLDER}/{name}. Get the graph, or leave it out by --only.")
    if name != "fb15k237":
        triples = [tuple(line.split("\t")) for part in _PARTS for line in _lines(folder / f"{part}.txt")]
        types = json.loads("\n".join(_lines(data / FOLDER / "codex_s" / "entity2types.json")))
        return Graph.of(triples, types)  # pyright: ignore[reportArgumentType]
    entities, relations = (_numbers(folder / f"{what}2id.txt") for what in ("entity", "relation"))
    rows = (line.split() for part in _PARTS for line in list(_lines(folder / f"{part}2id.txt"))[1:])
    return Graph.of([_named(row, entities, relations) for row in rows])


def held_out(graph: Graph, name: str) -> Held:
    """Of the relations with 50 to 2,500 triples, in the order of a hash of their names, two fifths to be judged by (40
    at most), a fifth to choose by (20 at most), of the rest up to 60 to learn from.
    """
    sizes = graph.sizes[: len(graph.relations)]
    fit = [r for r in range(len(sizes)) if LEAST <= sizes[r] <= MOST]
    fit.sort(key=lambda r: hashlib.sha256(f"{name}:{graph.relations[r]}".encode()).hexdigest())
    test, validation = min(40, round(0.4 * len(fit))), min(20, round(0.2 * len(fit)))
    rest = fit[test + validation :]
    return Held(fit[:test], fit[test : test + validation], rest[:60])


def _numbers(path: Path) -> dict[str, str]:
    """The name of each number."""
    rows = (line.rsplit(None, 1) for line in list(_lines(path))[1:])
    return {number: name for name, number in rows}


def _named(row: list[str], entities: dict[str, str], relations: dict[str, str]) -> Plain:
    head, tail, relation = row
    return entities[head], relations[relation], entities[tail]


def _lines(path: Path) -> Iterator[str]:
    packed = path.with_name(path.name + ".gz")
    if packed.is_file():
        with gzip.open(packed, "rt", encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in file)
    elif path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in file)
    else:
        raise DataError(f"there is no {path.name} or {packed.name} in {path.parent.name}.")
