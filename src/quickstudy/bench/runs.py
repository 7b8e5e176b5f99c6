"""Run files: what a benchmark command measured, in benchmarks/runs/<suite>.json.

    {"suite": "kg", "commit": "…", "date": "…", "machine": {"cores": 2, "torch": "2.13.0"},
     "rows": [{"id": "kg.4.1", "value": 41.2, "ci95": [39.8, 42.6], "unit": "F1", "n": 600, "seeds": [0],
               "baselines": {"token logistic regression": 24.6},
               "command": "quickstudy bench kg --only crossner", "seconds": 212}]}

Percentages are in points, a time is in the unit of its bar, a ratio is written so that bigger is better, a yes/no
is 1 or 0. A row is written by the command that measured it, never by hand. No torch is imported here.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from quickstudy.core.atomic import write_file
from quickstudy.core.errors import DataError, did_you_mean


def _interval(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]:g} is above the upper one {bounds[1]:g}")
    return bounds


def _iso(date: str) -> str:
    datetime.fromisoformat(date)  # its ValueError says what is wrong
    return date


Interval = Annotated[tuple[float, float], AfterValidator(_interval)]
Date = Annotated[str, AfterValidator(_iso)]
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Measured(_Strict):
    value: float
    ci95: Interval | None = None  # None: nothing was sampled (a time, a yes/no)

    @model_validator(mode="after")
    def _value_inside(self) -> "_Measured":
        if self.ci95 is not None and not self.ci95[0] - 1e-9 <= self.value <= self.ci95[1] + 1e-9:
            raise ValueError(f"the value {self.value:g} is outside its interval {list(self.ci95)}")
        return self


class Gain(_Measured):
    """The paired difference to a baseline: the same episodes, the same encoder."""

    over: Text


class Machine(_Strict):
    """Where it was measured."""

    cores: Annotated[int, Field(ge=1)]
    torch: Text
    python: Text | None = None


class Row(_Measured):
    """One measured figure."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_-]+)+$")]
    unit: Text
    n: Annotated[int, Field(ge=1)]  # episodes, sentences or repetitions that the value is a mean over
    seeds: list[int]
    baselines: dict[str, float] = {}
    costs: dict[str, float] | None = (
        None  # what it took: CPU-seconds to train, milliseconds to adapt, megabytes
    )
    command: Text
    seconds: Annotated[float, Field(ge=0)]
    gain: Gain | None = None
    note: Text | None = None
    # Only of a row that an earlier run measured than the one the file's head speaks of:
    commit: Text | None = None
    date: Date | None = None
    machine: Machine | None = None


class Run(_Strict):
    """A run file: the head belongs to the latest run."""

    suite: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    commit: Text
    date: Date
    machine: Machine
    rows: list[Row]

    @model_validator(mode="after")
    def _ids_once(self) -> "Run":
        ids = [row.id for row in self.rows]
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            raise ValueError(f"row {', '.join(twice)} stands there twice")
        return self


def benchmarks_folder() -> Path:
    """The folder `benchmarks` of the clone: below the current folder, or beside the source.

    Raises DataError for an installed package without a clone.
    """
    for root in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (root / "benchmarks" / "bars.toml").is_file():
            return root / "benchmarks"
    raise DataError("benchmarks/bars.toml was not found. Run this inside a clone of quickstudy.")


def load_run(path: Path) -> Run:
    """Read and validate one run file; a DataError names file and field."""
    try:
        run = Run.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(explain(error), file=path.name) from None
    if run.suite != path.stem:
        raise DataError(
            f'is of suite "{run.suite}"; expected "{path.stem}", as its name says', file=path.name
        )
    return run


def load_runs(folder: Path | None = None) -> list[Run]:
    """All run files of a folder (default benchmarks/runs), sorted by suite.

    Raises DataError for an invalid file, and for a row that two suites give.
    """
    folder = benchmarks_folder() / "runs" if folder is None else folder
    runs = [load_run(path) for path in sorted(folder.glob("*.json"))]
    suite_of: dict[str, str] = {}
    for run in runs:
        for row in run.rows:
            if row.id in suite_of:
                raise DataError(
                    f"row {row.id} is also in {suite_of[row.id]}.json. Delete the older one.",
                    file=f"{run.suite}.json",
                )
            suite_of[row.id] = run.suite
    return runs


def write_run(suite: str, rows: Iterable[Row | Mapping[str, Any]], folder: Path | None = None) -> Path:
    """Write measured rows to <folder>/<suite>.json (default benchmarks/runs), replacing rows of the same id.

    Commit, date and machine are filled in; other rows of the file are kept and marked with their own. The file is
    replaced whole or not at all. Returns its path.
    Raises DataError for an invalid row, a path of this machine in its command or note, and an invalid file.
    """
    folder = benchmarks_folder() / "runs" if folder is None else folder
    path = folder / f"{suite}.json"
    new = [_row(row, path.name) for row in rows]
    head = {"commit": _commit(), "date": _now(), "machine": _machine()}
    kept: list[Row] = []
    if path.exists():
        old = load_run(path)
        measured = {row.id for row in new}
        kept = [_marked(row, old, head) for row in old.rows if row.id not in measured]
    ordered = sorted([*kept, *new], key=lambda row: natural(row.id))
    try:
        run = Run(suite=suite, rows=ordered, **head)
    except ValidationError as error:
        raise DataError(explain(error), file=path.name) from None
    folder.mkdir(parents=True, exist_ok=True)
    lines = json.dumps(run.model_dump(mode="json", exclude_none=True), indent=1, ensure_ascii=False)
    write_file(path, lines + "\n")
    return path


def explain(error: ValidationError) -> str:
    """The first three problems, each as 'field: what is wrong', with a guess for a misspelt field."""
    fields = [*Run.model_fields, *Row.model_fields, *Gain.model_fields, *Machine.model_fields]
    problems = []
    for item in error.errors()[:3]:
        where = ".".join(map(str, item["loc"]))
        guess = did_you_mean(str(item["loc"][-1]), fields) if item["type"] == "extra_forbidden" else ""
        problems.append(f"{where}: {item['msg']}.{guess}" if where else item["msg"])
    return "; ".join(problems)


def natural(row_id: str) -> list[tuple[int, int, str]]:
    """A sorting key that puts core.10.1 after core.9.2."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in row_id.split(".")]


def _row(row: Row | Mapping[str, Any], file: str) -> Row:
    plain = row.model_dump(mode="json") if isinstance(row, Row) else dict(row)
    try:
        valid = Row.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        raise DataError(explain(error), file=file, row=plain.get("id")) from None
    if found := re.search(r"(?:^|[\s='\"])((?:/|~/|[A-Za-z]:\\)\S+)", f"{valid.command} {valid.note or ''}"):
        raise DataError(
            f'"{found[1]}" is a path of this machine. Give the folder in QUICKSTUDY_DATA instead of in the command.',
            file=file,
            row=valid.id,
        )
    return valid


def _marked(row: Row, old: Run, head: Mapping[str, Any]) -> Row:
    own = {name: getattr(row, name) or getattr(old, name) for name in ("commit", "date", "machine")}
    return row.model_copy(update={name: None if own[name] == head[name] else own[name] for name in own})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _machine() -> Machine:
    try:
        torch = version("torch").split("+")[0]
    except PackageNotFoundError:
        torch = "none"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cores=cores, torch=torch, python=".".join(map(str, sys.version_info[:3])))


def _commit() -> str:
    """The source's commit; '+changes' when src differs from it, 'unknown' without git."""
    root = Path(__file__).resolve().parents[3]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:  # installed inside somebody else's repository
            return "unknown"
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
