"""`quickstudy bench choose`: every learner on several kinds of tasks, at the same budget of past tasks.

    quickstudy bench choose                              all learners; an hour or more of one core
    quickstudy bench choose --only MAML,Ridge            these alone; other rows of the file stay
    quickstudy bench choose --kinds minilm               sentences by MiniLM, where its package is there
    quickstudy bench choose --kinds omniglot --data FOLDER
    quickstudy bench choose --quick                      see that it works; nothing is written

All learners of a kind meet the same past tasks, as many of them, and are judged on the same new ones, of two numbers
of shots; past tasks have any number from the one to the other. A learner's own rate (or the layers of its embedding)
and the outer rate are chosen on validation tasks of the larger number after short runs; no test task takes part.
What is measured is written to benchmarks/runs/choose.json at once, so a run that was stopped goes on with `--only`.
"""

import argparse
import inspect
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from quickstudy.bench.runs import write_run
from quickstudy.core.errors import DataError, did_you_mean

SUITE, COMMAND = "choose", "quickstudy bench choose"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the learners asked for, write benchmarks/runs/choose.json.

    Raises DataError for an unknown learner or kind, and where images are asked for without a folder.
    """
    from quickstudy.bench.choose_cell import Job
    from quickstudy.bench.choose_tasks import PLAIN, TITLES, kind_of

    given = _parser().parse_args(arguments)
    learners = _named(given.only, _learners(), "--only")
    kinds = _named(given.kinds, list(TITLES), "--kinds", usual=list(PLAIN))
    console = Console()
    for name in learners:
        for kind in kinds:
            if not kind_of(kind, given.data).takes(_learners()[name]):
                continue
            rows = rows_of(Job(name, kind, given.data, given.seed, given.quick), _flags(given))
            for row in rows:
                said = ", ".join(f"{what} {value:g}" for what, value in row["costs"].items())
                console.print(f"{row['id']}: {row['value']:g} {row['unit']} · {said} · {row['note']}")
            if not given.quick or given.out is not None:
                write_run(SUITE, rows, given.out)
    if given.quick and given.out is None:
        console.print("Nothing was written: the figures of --quick mean nothing.")
    return 0


def rows_of(job: Any, flags: str = "") -> list[dict[str, Any]]:
    """A learner's rows of one kind, measured in a process of its own."""
    from quickstudy.bench.choose_cell import measured
    from quickstudy.bench.choose_tasks import TITLES
    from quickstudy.bench.text_play import plain

    context = get_context("forkserver")
    context.set_forkserver_preload(["quickstudy.bench.choose_cell"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        cells = pool.submit(measured, job).result()
    rows = []
    for cell in cells:
        row = plain(
            f"{SUITE}.{job.kind}.{cell.shots}.{job.learner.lower()}",
            cell.score,
            unit="MSE" if job.kind == "sinusoid" else "points",
            command=f"{COMMAND} --only {job.learner} --kinds {job.kind}{flags}",
            seconds=cell.seconds,
            seeds=[job.seed],
            baselines={name: round(value, 3) for name, value in cell.beside.items()},
            gain=None if cell.gain is None else (cell.gain, "Centroid"),
            note=f"{job.learner}, {TITLES[job.kind]}, {cell.shots}-shot"
            + (f"; {cell.chosen}" * bool(cell.chosen)),
        )
        costs = {"train": cell.train, "adapt": cell.adapt, "memory": cell.memory}
        rows.append(row | {"costs": {name: float(f"{v:.3g}") for name, v in costs.items()}})
    return rows


def _learners() -> dict[str, Any]:
    import quickstudy.learners
    from quickstudy.core.learner import MetaLearner

    every = {name: getattr(quickstudy.learners, name) for name in sorted(quickstudy.learners.__all__)}
    return {
        name: kind for name, kind in every.items() if inspect.isclass(kind) and issubclass(kind, MetaLearner)
    }


def _named(words: str | None, known: Iterable[str], option: str, usual: list[str] | None = None) -> list[str]:
    known = list(known)
    if not words:
        return known if usual is None else usual
    lower = {name.lower(): name for name in known}
    for word in (asked := [word.strip() for word in words.split(",")]):
        if word.lower() not in lower:
            raise DataError(
                f"{option} names {word!r}.{did_you_mean(word, known)} There are: {', '.join(known)}."
            )
    return [lower[word.lower()] for word in asked]


def _flags(given: argparse.Namespace) -> str:
    return (f" --seed {given.seed}" if given.seed else "") + (" --quick" if given.quick else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Every learner on several kinds of tasks: score, time and memory."
    )
    add = parser.add_argument
    add("--only", metavar="LEARNERS", help="learners, separated by commas; default: all")
    add("--kinds", metavar="KINDS", help="gaussian, text, sinusoid (the default), minilm, omniglot")
    add(
        "--data",
        metavar="FOLDER",
        help="published data sets, for omniglot; default: the variable QUICKSTUDY_DATA",
    )
    add("--quick", action="store_true", help="a few steps and tasks, to see that it works")
    add("--seed", type=int, default=0, help="of every draw (%(default)s)")
    add("--out", type=Path, metavar="FOLDER", help="where to write choose.json; default: benchmarks/runs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
