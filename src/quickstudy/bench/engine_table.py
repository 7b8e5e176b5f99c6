"""Rows and tables from what the engine's benchmark measured.

A ratio says how many times as fast as the job's base (learn2learn, or the plain loop) a way is, by the least CPU time
of rounds taken in turns. The table of the docs is made from the rows of the run file, so it can't say anything else.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from quickstudy.bench.bars import figure
from quickstudy.bench.engine_jobs import COMPILED, JAX, JOBS, LEARN2LEARN, LOOP, OURS, STACKED, VMAP
from quickstudy.bench.engine_peers import HIGHER, PARALLEL, TORCHOPT
from quickstudy.bench.engine_run import Measured, Timing
from quickstudy.bench.runs import Row

COLUMNS = (OURS, COMPILED, JAX, PARALLEL, VMAP, STACKED, TORCHOPT, HIGHER, LEARN2LEARN, LOOP)
LIMIT, OFF = "matmul peak", "gradient off by"
WRONG = 1e-4
"""A float32 gradient that is off by more than this share of its norm isn't rounded, it is wrong."""
KINKS = {"conv-32": 1e-2, "conv-64": 1e-2}
"""Likewise where a ReLU or a maximum of many may fall on its other side by rounding. On six seeds: off by 2e-6 to
2e-3, the plain loop not less often than ours; in float64 all agree to 1e-14."""
EXACT, EXACT_ROW = 1e-12, "learners.12.1"
AHEAD_OF_JAX = {"mlp-16": "learners.2.4"}
MEMORY = {"conv-64": ("learners.5.1", LEARN2LEARN), "mlp-128": ("learners.5.2", VMAP)}
"""Of a job: the row of its peak memory, and whose it is compared with."""


def ratio(found: Measured, way: str, *, median: bool = False) -> float:
    """How many times as fast as the job's base; 0 where there is no such way."""
    base, own = found.ways.get(JOBS[found.job].base), found.ways.get(way)
    if base is None or own is None:
        return 0.0
    return base.median / own.median if median else base.least / own.least


def rows(found: Measured, command: str) -> list[Row]:
    """The rows that one job gives; none without its base."""
    job, ways = JOBS[found.job], found.ways
    if job.base not in ways or OURS not in ways:
        return []
    shared: dict[str, Any] = {
        "n": len(ways[OURS].rounds), "seeds": [0], "command": command, "seconds": round(found.seconds, 1),
    }  # fmt: skip
    made = [_speed(found, job.eager, OURS, shared)]
    if job.compiled and COMPILED in ways:
        made.append(_speed(found, job.compiled, COMPILED, shared))
    if (row := AHEAD_OF_JAX.get(found.job)) and JAX in ways:
        best = min((way for way in (OURS, COMPILED) if way in ways), key=lambda way: ways[way].least)
        note = (
            f"{JAX} {_ms(ways[JAX])}, {best} {_ms(ways[best])}, in turns; one thread, least / median CPU time"
        )
        value = round(ways[JAX].least / ways[best].least, 2)
        made.append(Row(id=row, value=value, unit="x", baselines={JAX: 1.0}, note=note, **shared))
    if found.job in MEMORY:
        made += _memory(found, *MEMORY[found.job], shared)
    return made


def _speed(found: Measured, id: str, way: str, shared: Mapping[str, Any]) -> Row:
    job = JOBS[found.job]
    others = {name: round(ratio(found, name), 2) for name in found.ways if name != way}
    others[LIMIT] = round(found.ways[job.base].least / found.limit, 1)
    others |= {
        f"{name}: {OFF}": float(f"{t.error:.1e}")
        for name, t in found.ways.items()
        if _wrong(found.job, t.error)
    }
    told = [
        f"{job.title}, {job.steps} inner steps, second order; form taken: {found.form}",
        f"CPU time on one thread, the ratio of the least of {shared['n']} interleaved rounds "
        f"({ratio(found, way, median=True):.2f} by medians)",
        "least / median, peak memory: " + ", ".join(f"{name} {_ms(t)}" for name, t in found.ways.items()),
        f"limit: {figure(found.gigaflops)} GF of products and convolutions, at the measured peak of "
        f"{found.peak_rate:.0f} GF/s {figure(found.limit)} ms, {found.limit / found.ways[way].least:.0%} of our time",
    ]
    if way == COMPILED:
        told.append(f"the first step takes {found.ways[way].first:.0f} s, compilation included")
    told += [f"not there: {name} ({reason})" for name, reason in found.absent.items()]
    told.append(", ".join(f"{name} {number}" for name, number in found.versions.items()))
    value = round(ratio(found, way), 2)
    return Row(id=id, value=value, unit="x", baselines=others, note="; ".join(filter(None, told)), **shared)


def _memory(found: Measured, id: str, rival: str, shared: Mapping[str, Any]) -> list[Row]:
    peaks = {name: t.peak for name, t in found.ways.items() if t.peak is not None}
    if not peaks.get(rival) or OURS not in peaks:
        return []
    note = f"{JOBS[found.job].title}: peak memory added by a step, each way in a process of its own: "
    note += ", ".join(f"{name} {figure(round(peak, 1))} MB" for name, peak in peaks.items())
    others = {name: round(peak / peaks[rival], 3) for name, peak in peaks.items() if name != OURS}
    value = round(peaks[OURS] / peaks[rival], 3)
    return [Row(id=id, value=value, unit="x", baselines=others, note=note, **{**shared, "n": 1})]


def _wrong(job: str, error: float) -> bool:
    return error > KINKS.get(job, WRONG)


def _ms(timing: Timing) -> str:
    memory = "" if timing.peak is None else f", + {timing.peak:.0f} MB"
    return f"{figure(timing.least)} / {figure(timing.median)} ms{memory}"


def exact_row(found: Mapping[str, Any], command: str, seconds: float) -> Row:
    """learners.12: the largest relative difference of ours; of the peers', and at which norm layer they are wrong."""
    worst = max(found["ours"], key=lambda f: f["error"])
    others: dict[str, float] = {}
    for f in found["peers"]:
        error = float(f"{f['error']:.1e}")
        others[f["who"]] = max(error, others.get(f["who"], 0.0))
        if error > EXACT:
            others[f"{f['who']} ({f['norm']})"] = error
    who, norms, forms = (len({f[key] for f in found["ours"]}) for key in ("who", "norm", "form"))
    note = (
        f"float64, {len(found['ours'])} gradients of ours: {who} learners (MAML twice: against its own loop, and "
        f"against one written out), {norms} kinds of net by norm layer, {forms} forms; the largest: {worst['who']}, "
        f"{worst['norm']}, {worst['form']}; peers: MAML, the largest of all norm layers, and each above {EXACT:g}"
    )
    note += "".join(f"; left out: {name} ({reason})" for name, reason in found["left_out"].items())
    value = float(f"{worst['error']:.2e}")
    return Row(
        id=EXACT_ROW, value=value, unit="relative", n=len(found["ours"]), seeds=[0], baselines=others,
        command=command, seconds=round(seconds, 1), note=note,
    )  # fmt: skip


def details(found: Measured) -> Table:
    """One job for the terminal: every way, all figures."""
    job = JOBS[found.job]
    table = Table(
        "", "min, ms", "median, ms", f"× {job.base} (min)", "(median)", "of the limit", "gradient off by", "peak, MB",
        title=f"{job.title}, {job.steps} steps: CPU time, {len(next(iter(found.ways.values())).rounds)} rounds",
    )  # fmt: skip
    for name, t in found.ways.items():
        own = f"{name} ({found.form})" if name == OURS else name
        off = f"[red]{t.error:.1e}[/]" if _wrong(found.job, t.error) else f"{t.error:.1e}"
        table.add_row(
            own, figure(t.least), figure(t.median), f"{ratio(found, name):.2f}",
            f"{ratio(found, name, median=True):.2f}", f"{found.limit / t.least:.0%}", off,
            "" if t.peak is None else f"{t.peak:.0f}",
        )  # fmt: skip
    return table


def cells(all_rows: Iterable[Row]) -> list[list[str]]:
    """The table of the docs, its head first: how many times as fast as the base each way is, job by job."""
    by_id = {row.id: row for row in all_rows}
    body: list[dict[str, str]] = []
    for name, job in JOBS.items():
        if (row := by_id.get(job.eager)) is None:
            continue
        known = {OURS: row.value, **row.baselines}
        if (own := by_id.get(job.compiled)) is not None:
            known[COMPILED] = own.value
        line = {"": job.title}
        for column in (*COLUMNS, LIMIT):
            if column in known:
                off = known.get(f"{column}: {OFF}")
                wrong = "" if off is None or not _wrong(name, off) else f" (wrong by {figure(off)})"
                line[column] = figure(known[column]) + wrong
        body.append(line)
    head = ["", *(column for column in (*COLUMNS, LIMIT) if any(column in line for line in body))]
    return [head, *([line.get(column, "") for column in head] for line in body)] if body else []


def as_markdown(all_rows: Sequence[Row]) -> str:
    """The table, memory and exactness, for docs/engine.md."""
    table = cells(all_rows)
    if not table:
        return "Not measured yet: `make peers`, then `python benchmarks/engine.py`."
    lines = [_line(table[0]), "|---|" + "---:|" * (len(table[0]) - 1), *map(_line, table[1:])]
    by_id = {row.id: row for row in all_rows}
    for job, (id, rival) in MEMORY.items():
        if (row := by_id.get(id)) is not None:
            lines += [
                "",
                f"Peak memory added by a step, {JOBS[job].title}: {figure(row.value)} times that of {rival}.",
            ]
    if (row := by_id.get(EXACT_ROW)) is not None:
        wrong = [
            f"{name} {figure(value)}"
            for name, value in row.baselines.items()
            if value > EXACT and name.endswith(")")
        ]
        lines += [
            "",
            f"Largest relative difference to a loop in float64 over {row.n} meta-gradients of learners, norm layers "
            f"and forms: {figure(row.value)}. Above {EXACT:g} among the others: {'; '.join(wrong) or 'none'}.",
        ]
    return "\n".join(lines)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def as_table(all_rows: Iterable[Row]) -> Table:
    """The same table for the terminal."""
    head, *body = cells(all_rows) or [["nothing measured"]]
    table = Table(
        *head, title="Times as fast as learn2learn (the last lines: as the loop), by least CPU time"
    )
    for line in body:
        table.add_row(*line)
    return table
