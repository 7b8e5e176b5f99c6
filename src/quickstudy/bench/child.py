"""Run a program in a process of its own, perhaps under another Python: a job goes in as JSON, a result comes out."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quickstudy.core.errors import QuickstudyError

SOURCE = Path(__file__).resolve().parents[2]


def with_source() -> dict[str, str]:
    """The environment in which another Python finds this very quickstudy."""
    paths = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    return {"PYTHONPATH": paths}


def answer(
    python: str,
    program: Sequence[str],
    folder: Path,
    job: Mapping[str, Any],
    *,
    threads: int,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `python program job.json result.json` writes, both files in `folder`.

    Args:
        environment: variables that differ from ours.

    Raises:
        QuickstudyError: it failed; with the end of what it said.
    """
    given, result = folder / "job.json", folder / "result.json"
    given.write_text(json.dumps(job))
    result.unlink(missing_ok=True)
    own = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} | dict(environment or {})
    try:
        done = subprocess.run(
            [python, *program, str(given), str(result)], env=os.environ | own, capture_output=True, text=True
        )
    except OSError as problem:
        raise QuickstudyError(f"{python} can't be run: {problem.strerror}.") from problem
    if done.returncode or not result.exists():
        raise QuickstudyError(f"The process of {program[-1]} failed:\n{done.stderr[-2000:]}")
    return json.loads(result.read_text())
