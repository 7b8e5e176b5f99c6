"""`quickstudy bench kg`: the rows of knowledge graphs, each by the suite that measures it.

    quickstudy bench kg                          all rows, some hours on one core
    quickstudy bench kg --only kg.4,kg.7         some of them
    quickstudy bench kg --only kg.4 --seeds 2    further options are the suite's own, as of bench kg_entities

Each suite writes a run file of its own under benchmarks/runs.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module

from quickstudy.core.errors import DataError, did_you_mean

SUITES = {
    "kg_relations": ("kg.1", "kg.2", "kg.3"),
    "kg_entities": ("kg.4", "kg.5"),
    "kg_linking": ("kg.6",),
    "kg_completion": ("kg.7",),
    "kg_end_to_end": ("kg.8", "kg.9", "kg.10", "kg.12"),
    "kg_bank": ("kg.11",),
    "kg_store": ("kg.13",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites of the rows asked for; the worst of their exit codes."""
    parser = argparse.ArgumentParser(
        prog="quickstudy bench kg",
        description="Rows of knowledge graphs; options that are not listed here go to the suites.",
        epilog="; ".join(f"{suite}: {', '.join(rows)}" for suite, rows in SUITES.items()),
    )
    parser.add_argument("--only", metavar="ROWS", help="rows, separated by commas; default: all")
    given, others = parser.parse_known_args(arguments)
    worst = 0
    for suite, rows in chosen(given.only).items():
        run = import_module(f"quickstudy.bench.{suite}").main
        for row in rows:
            # A suite of one row has no other to leave out.
            only = [] if len(SUITES[suite]) == 1 else ["--only", row]
            worst = max(worst, run([*only, *others]) or 0)
    return worst


def chosen(only: str | None) -> dict[str, list[str]]:
    """The suites to run, each with its rows. Raises DataError for a row that no suite measures."""
    known = [row for rows in SUITES.values() for row in rows]
    asked = known if only is None else [word.strip().lower() for word in only.split(",")]
    for word in asked:
        if word not in known:
            raise DataError(
                f"there is no row {word!r}.{did_you_mean(word, known)} There are: {', '.join(known)}.",
                file="--only",
            )
    found = {suite: [row for row in rows if row in asked] for suite, rows in SUITES.items()}
    return {suite: rows for suite, rows in found.items() if rows}
