"""`quickstudy bench classic`: what the field measures learners on, beside what papers report.

    quickstudy bench classic                            sinusoids and Gaussian classes; a quarter of an hour
    quickstudy bench classic --only learners.8          one row
    quickstudy bench classic --only prototypical --data FOLDER --keep STATES
    quickstudy bench classic --quick                    see that it works; nothing is written

Omniglot takes the folder of published data and hours for the papers' numbers of steps, so it runs only when named.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from quickstudy.bench import data as published
from quickstudy.bench.runs import write_run
from quickstudy.core.errors import DataError, did_you_mean

SUITE, COMMAND = "classic", "quickstudy bench classic"
ROWS = {
    "learners.6": "Omniglot 5- and 20-way 1-shot with Conv4: the next three",
    "prototypical": "learners.6.1 and .2, Prototypical",
    "maml5": "learners.6.3, MAML, 5-way",
    "maml20": "learners.6.4, MAML, 20-way",
    "learners.7": "sinusoid, 5-shot, MAML after 1, 5 and 10 steps",
    "learners.8": "Gaussian families: excess risk over Bayes of each learner",
}
IMAGES = ("prototypical", "maml5", "maml20")
Rows = list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows asked for, print their tables, write benchmarks/runs/classic.json.

    Raises DataError for an unknown row, and where images are asked for without a folder.
    """
    given = _parser().parse_args(arguments)
    wanted = chosen(given.only)
    import torch  # here, so that a wrong option is told at once

    torch.set_num_threads(given.threads)
    console, rows = Console(), []
    for name in wanted:
        console.rule(name)
        found = _suites(given, console)[name]()
        if not given.quick or given.out is not None:  # each as soon as it is there: the next may take hours
            for row in found:
                row["command"] = f"{COMMAND} --only {name}{_flags(given)}"
            console.print(f"Written: {write_run(SUITE, found, given.out).name}")
        rows += found
    for row in rows:
        console.print(f"{row['id']}: {row['value']:g} {row['unit']} · {row.get('note', '')}")
    if given.quick and given.out is None:
        console.print("Nothing was written: the figures of --quick mean nothing.")
    return 0


def chosen(only: str | None) -> list[str]:
    """What `--only` names, in the order of ROWS; by default what needs no data. Raises DataError for another word."""
    words = ["learners.7", "learners.8"] if not only else [w.strip().lower() for w in only.split(",")]
    for word in words:
        if word not in ROWS:
            raise DataError(f"--only names {word!r}.{did_you_mean(word, ROWS)} There are: {', '.join(ROWS)}.")
    if "learners.6" in words:
        words += IMAGES
    return [name for name in ROWS if name in words and name != "learners.6"]


def _suites(given: argparse.Namespace, console: Console) -> dict[str, Callable[[], Rows]]:
    from quickstudy.bench import classic_gaussian, classic_images, classic_sinusoid
    from quickstudy.bench.classic_train import Run

    def split() -> Any:
        return published.omniglot(published.folder(given.data))

    run = Run(steps=given.steps, quick=given.quick, seed=given.seed, keep=given.keep, show=console.print)

    return {
        "prototypical": lambda: classic_images.prototypical(split(), run),
        "maml5": lambda: classic_images.maml(split(), run, 5),
        "maml20": lambda: classic_images.maml(split(), run, 20),
        "learners.7": lambda: classic_sinusoid.sinusoids(run),
        "learners.8": lambda: classic_gaussian.excess(run),
    }


def _flags(given: argparse.Namespace) -> str:
    """The options that change figures, as they are typed."""
    said = {"seed": 0, "steps": None, "threads": 1}
    text = "".join(
        f" --{name} {getattr(given, name)}" for name, usual in said.items() if getattr(given, name) != usual
    )
    return text + (" --quick" if given.quick else "")


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:13} {about}" for name, about in ROWS.items())
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Classic tasks of the field.",
        epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="ROWS", help="rows, separated by commas; default: learners.7,learners.8")
    add("--data", metavar="FOLDER", help=f"published data sets; default: the variable {published.VARIABLE}")
    add("--steps", type=int, metavar="N", help="steps of meta-training; default: each row's own")
    add("--keep", type=Path, metavar="FOLDER", help="keep the state of long trainings, and go on from it")
    add("--quick", action="store_true", help="a few steps and tasks, to see that it works")
    add("--seed", type=int, default=0, help="of every draw (%(default)s)")
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    add("--out", type=Path, metavar="FOLDER", help="where to write classic.json; default: benchmarks/runs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
