"""`quickstudy bench product`: core.9, how fast the help comes, and core.10, scikit-learn's estimator checks.

Writes benchmarks/runs/product.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from quickstudy.bench.runs import write_run
from quickstudy.core.errors import QuickstudyError

SUITE, COMMAND = "product", "quickstudy bench product"
RUNS = 9
# Heavy packages that the help must not load, by their import names.
HEAVY = ("torch", "sklearn", "scipy", "pandas", "transformers", "matplotlib")
_HELP = "import sys; from quickstudy.app.cli import main; sys.argv = ['quickstudy', '--help']; "
_TIMED = _HELP + "sys.exit(main())"
_LOADED = (
    _HELP
    + f"""
try:
    main()
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both, print them, write benchmarks/runs/product.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Help time and scikit-learn's checks.")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write product.json")
    given = parser.parse_args(arguments)
    console = Console()
    rows = [*help_rows(), sklearn_row()]
    for row in rows:
        console.print(f"{row['id']}: {row['value']:g} {row['unit']} · {row['note']}")
    console.print(f"Written: {write_run(SUITE, rows, given.out).name}")
    return 0


def help_rows(runs: int = RUNS) -> list[dict[str, Any]]:
    """core.9: `quickstudy --help` as a process of its own: what it imports, and its median time on the wall."""
    start = time.perf_counter()
    loaded = _python(_LOADED).stderr.strip().splitlines()[-1]
    taken = []
    for _ in range(runs):
        before = time.perf_counter()
        _python(_TIMED)
        taken.append(time.perf_counter() - before)
    shared = {"seeds": [], "command": COMMAND, "seconds": round(time.perf_counter() - start, 1)}
    bare = statistics.median(_seconds_of("pass") for _ in range(runs))
    return [
        {"id": "core.9.1", "value": float("'torch'" not in loaded), "unit": "yes/no", "n": 1, **shared,
         "note": f"heavy packages loaded by the help: {loaded.strip('[]') or 'none'}"},
        {"id": "core.9.2", "value": round(statistics.median(taken), 4), "unit": "s", "n": runs, **shared,
         "note": f"median of {runs}, from {min(taken):.3f} to {max(taken):.3f} s; a bare Python takes {bare:.3f} s"},
    ]  # fmt: skip


def sklearn_row() -> dict[str, Any]:
    """core.10: all of scikit-learn's checks pass but those listed with a reason."""
    from quickstudy.bench import sklearn_checks

    start = time.perf_counter()
    found = sklearn_checks.run()
    counts = {status: len(names) for status, names in found.on_numbers.items()}
    reasons = "; ".join(
        f"{name}: {why}" for name, why in (sklearn_checks.NOT_FOR_TEXT | sklearn_checks.NEEDS_SETUP).items()
    )
    return {
        "id": "core.10.1",
        "value": float(not found.unexplained),
        "unit": "yes/no",
        "n": sum(counts.values()) + sum(map(len, found.as_it_is.values())),
        "seeds": [],
        "command": COMMAND,
        "seconds": round(time.perf_counter() - start, 1),
        "note": (
            f"as text: {len(found.as_it_is.get('passed', ()))} of {sum(map(len, found.as_it_is.values()))} pass; "
            f"rows of numbers written as texts: {counts.get('passed', 0)} of {sum(counts.values())} pass; "
            f"unexplained: {', '.join(found.unexplained) or 'none'}; not for text: {reasons}"
        ),
    }


def _python(code: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise QuickstudyError(f"`quickstudy --help` failed:\n{done.stderr[-2000:]}")
    return done


def _seconds_of(code: str) -> float:
    start = time.perf_counter()
    _python(code)
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
