"""How long a step of meta-training takes: second-order MAML against the libraries that others use, and a plain loop.

    make peers                                     once: an interpreter that has the other libraries
    python benchmarks/engine.py                    all jobs, about ten minutes on one core
    python benchmarks/engine.py --only conv-32     some of them

Rows learners.1 to 5, 12 and 13 (against learn2learn) and core.7 (against a loop of autograd, which needs no peer). All
ways of a job run in one process on one thread, in turns; CPU time is compared, and of that the minimum, since on a
shared machine what lies above it is other people's work. Every gradient is checked against a loop in float64 first.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from quickstudy.bench import child
from quickstudy.bench.engine_jax import ONE_THREAD
from quickstudy.bench.engine_jobs import JOBS, LEARN2LEARN
from quickstudy.bench.engine_run import Measured
from quickstudy.bench.engine_table import AHEAD_OF_JAX, EXACT_ROW, MEMORY, as_table, details, exact_row, rows
from quickstudy.bench.runs import Row, benchmarks_folder, write_run
from quickstudy.core.errors import DataError, did_you_mean

SUITE, COMMAND = "engine", "python benchmarks/engine.py"
PYTHON, FOLDER = "QUICKSTUDY_PEERS_PYTHON", ".venv-peers"
EXACT = "exact"
SECONDS, ROUNDS = 30, 60
MISSING = (
    "The libraries to compare with are not there. `make peers` makes an interpreter that has them, in "
    f"{FOLDER}; or name one that has: --peers PYTHON, or {PYTHON}."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write benchmarks/runs/engine.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument(
        "--only", metavar="JOBS", help=f"of {', '.join([*JOBS, EXACT])}, or rows, with commas"
    )
    parser.add_argument(
        "--peers", metavar="PYTHON", help=f"an interpreter with the peers (default: {FOLDER})"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of computing for a job's rounds (default {SECONDS})"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"a job's, at most (default {ROUNDS})")
    parser.add_argument("--dry", action="store_true", help="print only, write no run file")
    given = parser.parse_args(arguments)
    python, jobs = peers_python(given.peers), chosen(given.only)
    # Wide where nobody looks at it on a screen: tables of ten columns don't fit in eighty letters.
    console = Console(width=None if sys.stdout.isatty() else 200)
    if python is None:
        if given.only and any(name in JOBS and JOBS[name].peers for name in jobs):
            raise DataError(MISSING)
        console.print(MISSING, "Only what needs none of them is measured.")
        jobs = [name for name in jobs if name == EXACT or not JOBS[name].peers]
    command = _command(given.only, given.seconds, given.rounds)
    measured: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in jobs:
            asked = (
                {"job": name}
                if name == EXACT
                else {"job": name, "seconds": given.seconds, "rounds": given.rounds}
            )
            start = time.perf_counter()
            answer = child.answer(
                python or sys.executable, ["-m", "quickstudy.bench.engine_run"], Path(scratch), asked, threads=1,
                environment=child.with_source() | {"XLA_FLAGS": ONE_THREAD},
            )  # fmt: skip
            if name == EXACT:
                row = exact_row(answer, command, time.perf_counter() - start)
                console.print(f"{row.id}: {row.value:.1e}; {row.baselines}\n{row.note}\n")
                made = [row]
            else:
                found = Measured.of(answer)
                console.print(
                    details(found), *(f"Not there: {w}, {why}." for w, why in found.absent.items()), sep="\n"
                )
                console.print()
                made = rows(found, command)
                if not made:
                    console.print(f"No row: {JOBS[name].base} isn't there to be compared with.\n")
            measured += made
            if made and not given.dry:  # at once: what follows may be stopped
                write_run(SUITE, made)
    console.print(as_table(measured))
    return 0


def peers_python(named: str | None = None) -> str | None:
    """The interpreter that has the peers: the one named, that of `make peers`, or this one; None if there is none.

    Raises DataError for a named one that isn't there.
    """
    named = named or os.environ.get(PYTHON)
    if named:
        if not Path(named).exists():
            raise DataError(f"there is no {named}. {MISSING}", file="--peers")
        return named
    made = benchmarks_folder().parent / FOLDER / "bin" / "python"
    if made.exists():
        return str(made)
    return None if find_spec(LEARN2LEARN) is None else sys.executable


def chosen(only: str | None) -> list[str]:
    """Jobs by their names, or by the rows that they give, such as 'conv-32,learners.2'.

    Raises DataError for what is neither.
    """
    if not only:
        return [*JOBS, EXACT]
    given = {name: [job.eager, job.compiled] for name, job in JOBS.items()} | {EXACT: [EXACT_ROW]}
    for name, row in [*AHEAD_OF_JAX.items(), *((name, row) for name, (row, _) in MEMORY.items())]:
        given[name].append(row)
    found: set[str] = set()
    for word in only.split(","):
        hit = {
            name
            for name, ids in given.items()
            if word == name or any(id == word or id.startswith(word + ".") for id in ids)
        }
        if not hit:
            raise DataError(
                f"there is no job or row {word!r}.{did_you_mean(word, given)} Jobs: {', '.join(given)}.",
                file="--only",
            )
        found |= hit
    return [name for name in given if name in found]


def _command(only: str | None, seconds: float, rounds: int) -> str:
    parts = [COMMAND]
    parts += [f"--only {only}"] if only else []
    parts += [f"--seconds {seconds:g}"] if seconds != SECONDS else []
    parts += [f"--rounds {rounds}"] if rounds != ROUNDS else []
    return " ".join(parts)
