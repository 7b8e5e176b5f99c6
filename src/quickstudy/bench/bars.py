"""What the benchmarks must show (benchmarks/bars.toml) against what they showed (benchmarks/runs).

    checks = check(load_bars(), load_runs())
    print(as_table(checks)); print(summary(checks))

A bar is a row of an issue's table: a value to reach ('at least'), a gain over a baseline to reach, and an aim.
No torch is imported here.
"""

import json
import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.table import Table

from quickstudy.bench.runs import Row, Run, benchmarks_folder, explain, load_runs, natural, write_run
from quickstudy.core.errors import DataError

__all__ = [
    "Bar", "Check", "as_json", "as_markdown", "as_table", "check", "load_bars", "load_runs", "summary", "write_run",
]  # fmt: skip

SURVEYS = ("choose",)
"""Suites that compare learners and ask for nothing; the docs show them in tables of their own."""
Status = Literal["aim met", "bar met", "short", "not run", "no bar"]
_COLOURS = {"aim met": "green", "bar met": "cyan", "short": "red", "not run": "yellow", "no bar": "dim"}


class Bar(BaseModel):
    """One row of bars.toml; the file's head explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.\d+\.\d+$")]
    what: Annotated[str, Field(min_length=1)]
    unit: Annotated[str, Field(min_length=1)]
    better: Literal["bigger", "smaller"]
    at_least: float | None = None
    gain_at_least: float | None = None
    aim: float | None = None
    above_aim: bool = False

    @model_validator(mode="after")
    def _asks_something(self) -> "Bar":
        if self.at_least is None and self.gain_at_least is None and self.aim is None:
            raise ValueError("give at_least, gain_at_least or aim")
        return self

    def reached(self, value: float, bar: float, *, beyond: bool = False) -> bool:
        """Whether `value` meets `bar`: at or above it, or below it when smaller is better."""
        if self.better == "smaller":
            return value < bar
        return value > bar if beyond else value >= bar

    @property
    def asked(self) -> str:
        """The bar in words, such as 'gain ≥ 0.5' or '< 5'."""
        parts = (
            []
            if self.at_least is None
            else [f"{'≥' if self.better == 'bigger' else '<'} {figure(self.at_least)}"]
        )
        parts += [] if self.gain_at_least is None else [f"gain ≥ {figure(self.gain_at_least)}"]
        return ", ".join(parts)

    @property
    def wanted(self) -> str:
        """The aim in words, such as '≥ 90' or '< 1'."""
        if self.aim is None:
            return ""
        sign = "<" if self.better == "smaller" else ">" if self.above_aim else "≥"
        return f"{sign} {figure(self.aim)}"


@dataclass(frozen=True)
class Check:
    """A bar beside its figure."""

    id: str
    what: str
    unit: str
    bar: str
    aim: str
    value: float | None
    ci95: tuple[float, float] | None
    gain: float | None
    gain_ci95: tuple[float, float] | None
    gain_over: str
    status: Status
    reason: str  # why it is short, '' otherwise
    suite: str
    command: str

    @property
    def shown(self) -> str:
        """The figure in words: '87.4 ± 0.6, gain +0.5 ± 0.2 over frozen centroid'."""
        if self.value is None:
            return ""
        text = _with_interval(self.value, self.ci95)
        if self.gain is not None:
            text += f", gain {_with_interval(self.gain, self.gain_ci95, sign='+')} over {self.gain_over}"
        return text


def load_bars(path: Path | None = None) -> list[Bar]:
    """The bars of a TOML file (default benchmarks/bars.toml), in its order.

    Raises DataError, naming file and row, for a file that isn't valid and for an id given twice.
    """
    path = benchmarks_folder() / "bars.toml" if path is None else path
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("bar", [])
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"is no valid TOML: {error}", file=path.name) from None
    bars: dict[str, Bar] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            bar = Bar.model_validate(entry)
        except ValidationError as error:
            raise DataError(explain(error), file=path.name, row=entry.get("id", number)) from None
        if bar.id in bars:
            raise DataError("this id stands there twice", file=path.name, row=bar.id)
        bars[bar.id] = bar
    return list(bars.values())


def check(bars: Iterable[Bar], runs: Iterable[Run]) -> list[Check]:
    """Every bar with its figure and status, in the bars' order, then figures that have no bar, surveys left out.

    A gain is judged by its mean; its interval is shown beside it.
    """
    found = {row.id: (run, row) for run in runs if run.suite not in SURVEYS for row in run.rows}
    checks = []
    for bar in bars:
        run, row = found.pop(bar.id, (None, None))
        checks.append(_check(bar, run, row))
    checks += [
        _check(None, run, row) for run, row in sorted(found.values(), key=lambda pair: natural(pair[1].id))
    ]
    return checks


def summary(checks: Sequence[Check]) -> str:
    """One line: how many bars and aims are met, and which rows are short or not run."""
    asked = [c for c in checks if c.status != "no bar"]
    met = [c for c in asked if c.status in ("aim met", "bar met")]
    parts = [
        f"{len(met)} of {len(asked)} bars met, {sum(c.status == 'aim met' for c in asked)} of them with the aim"
    ]
    for status in ("short", "not run"):
        if ids := [c.id for c in asked if c.status == status]:
            parts.append(f"{status}: {', '.join(ids)}")
    return "; ".join(parts)


def as_table(checks: Sequence[Check]) -> Table:
    """A table for the terminal."""
    table = Table("row", "what", "at least", "aim", "measured", "", caption=summary(checks))
    for c in checks:
        state = f"[{_COLOURS[c.status]}]{c.status}[/]" + (f"\n{c.reason}" if c.reason else "")
        table.add_row(c.id, c.what, c.bar, c.aim, f"{c.shown} {c.unit}" if c.shown else "", state)
    return table


def as_json(checks: Sequence[Check]) -> str:
    """A JSON list, one object a row."""
    return json.dumps([asdict(c) for c in checks], indent=1, ensure_ascii=False)


def as_markdown(checks: Sequence[Check]) -> str:
    """A Markdown table, for README and docs."""
    lines = ["| row | what | at least | aim | measured | |", "|---|---|---|---|---|---|"]
    for c in checks:
        cells = (c.id, c.what, c.bar, c.aim, f"{c.shown} {c.unit}" if c.shown else "", c.status)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def figure(value: float) -> str:
    """A number as short as it can be with two decimals, or two digits when it is small: 87.4, 0.032, 1,250, 2e-16."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.2g}"
    decimals = 2 if abs(value) >= 0.1 else 1 - math.floor(math.log10(abs(value)))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".")


def _check(bar: Bar | None, run: Run | None, row: Row | None) -> Check:
    status, reason = _judge(bar, row)
    gain = None if row is None else row.gain
    return Check(
        id=bar.id if bar else row.id if row else "",
        what=bar.what if bar else "",
        unit=row.unit if row else bar.unit if bar else "",
        bar=bar.asked if bar else "",
        aim=bar.wanted if bar else "",
        value=row.value if row else None,
        ci95=row.ci95 if row else None,
        gain=gain.value if gain else None,
        gain_ci95=gain.ci95 if gain else None,
        gain_over=gain.over if gain else "",
        status=status,
        reason=reason,
        suite=run.suite if run else "",
        command=row.command if row else "",
    )


def _judge(bar: Bar | None, row: Row | None) -> tuple[Status, str]:
    if bar is None:
        return "no bar", ""
    if row is None:
        return "not run", ""
    if row.unit != bar.unit:
        return "short", f'measured in "{row.unit}", the bar is in "{bar.unit}"'
    if bar.at_least is not None and not bar.reached(row.value, bar.at_least):
        return "short", f"{figure(row.value)} is not {bar.asked.split(',')[0]}"
    if bar.gain_at_least is not None:
        if row.gain is None:
            return "short", "the run gives no paired gain"
        if row.gain.value < bar.gain_at_least:
            return "short", f"gain {figure(row.gain.value)} is not ≥ {figure(bar.gain_at_least)}"
    if bar.aim is not None and bar.reached(row.value, bar.aim, beyond=bar.above_aim):
        return "aim met", ""
    return "bar met", ""


def _with_interval(value: float, ci95: tuple[float, float] | None, sign: str = "") -> str:
    text = f"{sign if value > 0 else ''}{figure(value)}"
    if ci95 is None:
        return text
    below, above = value - ci95[0], ci95[1] - value
    if math.isclose(below, above, rel_tol=0.05, abs_tol=1e-9):
        return f"{text} ± {figure((below + above) / 2)}"
    return f"{text} [{figure(ci95[0])}, {figure(ci95[1])}]"
