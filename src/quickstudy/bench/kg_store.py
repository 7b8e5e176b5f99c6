"""The store of a graph beside pyoxigraph and ladybug: loading, look-ups, a join of two patterns, memory (row kg.13).

    make peers                                     once: an interpreter that has ladybug
    python -m quickstudy.bench.kg_store            1,000,000 triples
    python -m quickstudy.bench.kg_store --triples 100000 --dry

The graph is random with popular entities, the same for each engine, each in a process of its own (`kg_store_run`),
opened again after loading. All must give the same answers, as names. CPU time of all threads is compared, for the
answers the best of several rounds: on a shared machine what lies above it is other people's work. The first round, of
an engine that has just been opened, stands beside it.

Row kg.13.1 compares look-ups with the faster of the engines that keep the graph in a file, as ours does; pyoxigraph in
memory, which forgets it, stands beside them. Row kg.13.2 compares memory with the least of all three.
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
from quickstudy.bench.engine import peers_python
from quickstudy.bench.runs import Row, write_run
from quickstudy.core.errors import QuickstudyError, missing_extra

SUITE, COMMAND = "kg_store", "python -m quickstudy.bench.kg_store"
TRIPLES, LOOKUPS, ROUNDS = 1_000_000, 2000, 5
OURS = "quickstudy"
LADYBUG = "ladybug on disk"
KEEPING = ("pyoxigraph on disk", LADYBUG)
"""Peers that keep the graph in a file."""
PEERS = (*KEEPING, "pyoxigraph in memory")
FIGURES = {
    "load": "load, s",
    "first": "2,000 look-ups at first, ms",
    "lookups": "2,000 look-ups, ms",
    "join": "2-hop join, ms",
    "memory": "peak memory, MB",
    "file": "file, MB",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write benchmarks/runs/kg_store.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("--only", help="kg.13, which is all there is")
    parser.add_argument("--data", help="not needed: the graph is drawn")
    parser.add_argument("--triples", type=int, default=TRIPLES, help=f"default {TRIPLES:,}")
    parser.add_argument("--dry", action="store_true", help="print only, write no run file")
    given = parser.parse_args(arguments)
    if find_spec("pyoxigraph") is None:
        raise missing_extra("pyoxigraph", "sparql")
    start = time.perf_counter()
    python = ladybug_python()
    engines = [engine for engine in (OURS, *PEERS) if engine != LADYBUG or python]
    found = {
        engine: measured(engine, given.triples, python if engine == LADYBUG else None) for engine in engines
    }
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


def ladybug_python() -> str | None:
    """The interpreter that has ladybug: that of `make peers`, or this one."""
    return peers_python() or (sys.executable if find_spec("ladybug") else None)


def measured(engine: str, triples: int, python: str | None = None) -> dict[str, Any]:
    """The figures of an engine, in a process of its own, by this interpreter or another one."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"engine": engine, "triples": triples, "lookups": LOOKUPS, "rounds": ROUNDS, "seed": 0}
        return child.answer(
            python or sys.executable, ["-m", "quickstudy.bench.kg_store_run"], Path(folder), job, threads=1,
            environment=child.with_source(),
        )  # fmt: skip


def rows(found: dict[str, dict[str, Any]], triples: int, seconds: float) -> list[Row]:
    """The rows: how much longer the fastest peer with a file takes for the look-ups, how much more memory the least.

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
    note = f"{triples:,} triples. {words}." + ("" if LADYBUG in found else " ladybug: not run.")
    command = COMMAND + ("" if triples == TRIPLES else f" --triples {triples}")
    made = []
    for number, name, rivals in ((1, "lookups", KEEPING), (2, "memory", PEERS)):
        theirs = {engine: found[engine][name] for engine in PEERS if engine in found}
        best = min(theirs[engine] for engine in rivals if engine in theirs)
        made.append(Row(
            id=f"kg.13.{number}", value=best / found[OURS][name], unit="x", n=LOOKUPS, seeds=[0],
            baselines=theirs, costs={name: found[OURS][name]}, command=command, seconds=seconds, note=note,
        ))  # fmt: skip
    return made


if __name__ == "__main__":
    try:
        sys.exit(main())
    except QuickstudyError as problem:
        sys.exit(str(problem))
