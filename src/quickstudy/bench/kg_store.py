"""The store of a graph against pyoxigraph: loading, look-ups, a join of two patterns, memory and size (row kg.13).

    python -m quickstudy.bench.kg_store                        1,000,000 triples
    python -m quickstudy.bench.kg_store --triples 100000 --dry

The graph is random with popular entities, the same for each engine, each in a process of its own (`kg_store_run`),
opened again after loading. All must give the same answers, as names. CPU time is compared, for the answers the best of
several rounds: on a shared machine what lies above it is other people's work. Each of our figures is compared with the
better of pyoxigraph's two stores, on disk and in memory.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from quickstudy.bench import child
from quickstudy.bench.runs import Row, write_run
from quickstudy.core.errors import QuickstudyError, missing_extra

SUITE, COMMAND = "kg_store", "python -m quickstudy.bench.kg_store"
TRIPLES, LOOKUPS, ROUNDS = 1_000_000, 2000, 5
OURS = "quickstudy"
PEERS = ("pyoxigraph on disk", "pyoxigraph in memory")
FIGURES = {
    "load": "load, s",
    "lookups": "2,000 look-ups, ms",
    "join": "2-hop join, ms",
    "memory": "peak memory, MB",
    "file": "file, MB",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write benchmarks/runs/kg_store.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("--triples", type=int, default=TRIPLES, help=f"default {TRIPLES:,}")
    parser.add_argument("--dry", action="store_true", help="print only, write no run file")
    given = parser.parse_args(arguments)
    if find_spec("pyoxigraph") is None:
        raise missing_extra("pyoxigraph", "sparql")
    start = time.perf_counter()
    found = {engine: measured(engine, given.triples) for engine in (OURS, *PEERS)}
    made = rows(found, given.triples, time.perf_counter() - start)
    table = Table("engine", *FIGURES.values(), "answers")
    for engine, figures in found.items():
        table.add_row(engine, *(f"{figures[name]:,.1f}" for name in FIGURES), str(figures["answers"]))
    Console(width=None if sys.stdout.isatty() else 160).print(
        table, *(f"{r.id}: {r.value:.2f} {r.unit}" for r in made)
    )
    if not given.dry:
        write_run(SUITE, made)
    return 0


def measured(engine: str, triples: int) -> dict[str, Any]:
    """The figures of an engine, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"engine": engine, "triples": triples, "lookups": LOOKUPS, "rounds": ROUNDS, "seed": 0}
        return child.answer(
            sys.executable, ["-m", "quickstudy.bench.kg_store_run"], Path(folder), job, threads=1,
            environment=child.with_source(),
        )  # fmt: skip


def rows(found: dict[str, dict[str, Any]], triples: int, seconds: float) -> list[Row]:
    """The rows: how much longer pyoxigraph takes on disk for the look-ups, and how much more memory.

    Raises:
        QuickstudyError: the engines' answers differ.
    """
    answers = {engine: figures["answers"] for engine, figures in found.items()}
    if len({tuple(answer) for answer in answers.values()}) > 1:
        raise QuickstudyError(f"the engines don't give the same answers: {answers}")
    words = "; ".join(
        f"{engine}: " + ", ".join(f"{what} {figures[name]:.1f}" for name, what in FIGURES.items())
        for engine, figures in found.items()
    )
    note = f"{triples:,} triples. {words}. ladybug: not run."
    command = COMMAND + ("" if triples == TRIPLES else f" --triples {triples}")
    made = []
    for number, name in ((1, "lookups"), (2, "memory")):
        theirs = {engine: found[engine][name] for engine in PEERS}
        made.append(Row(
            id=f"kg.13.{number}", value=theirs[PEERS[0]] / found[OURS][name], unit="x", n=LOOKUPS, seeds=[0],
            baselines=theirs, costs={name: found[OURS][name]}, command=command, seconds=seconds, note=note,
        ))  # fmt: skip
    return made


if __name__ == "__main__":
    try:
        sys.exit(main())
    except QuickstudyError as problem:
        sys.exit(str(problem))
