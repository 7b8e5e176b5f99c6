"""The tables of docs/choose.md, and what follows from them, from the rows of choose.json. No torch is imported here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from quickstudy.bench.runs import Row

UNTAUGHT = ("Centroid", "Logistic", "FineTune")
"""Baselines that past tasks teach nothing."""
NOT_YET = "Not measured yet: `quickstudy bench choose`."


class Column(NamedTuple):
    """One kind of task at one number of shots."""

    kind: str
    shots: str
    title: str
    rows: Mapping[str, Row]
    """By learner."""

    @property
    def smaller(self) -> bool:
        """Whether it shows errors, of which fewer are better."""
        return next(iter(self.rows.values())).unit == "MSE"

    def ranked(self) -> list[str]:
        """Learners, the best first."""
        return sorted(self.rows, key=lambda name: self.rows[name].value, reverse=not self.smaller)

    def alike(self, one: str, other: str) -> bool:
        """Whether the intervals of two learners overlap."""
        (low, high), (under, over) = (self.rows[name].ci95 or (0.0, 0.0) for name in (one, other))
        return low <= over and under <= high


def columns(rows: Iterable[Row], *, numbers: bool) -> list[Column]:
    """The columns of classes, or of numbers, in the order in which kinds and shots first stand in the rows."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    titles: dict[str, str] = {}
    for row in rows:
        suite, kind, shots, *_ = [*row.id.split("."), "", ""]
        if suite != "choose" or (row.unit == "MSE") != numbers:
            continue
        # The note begins "MAML, Gaussian classes, 1-shot".
        name, _, rest = (row.note or "").partition(";")[0].partition(", ")
        titles[kind] = rest.rpartition(", ")[0]
        found.setdefault((kind, shots), {})[name] = row
    return [Column(kind, shots, titles[kind], by_name) for (kind, shots), by_name in found.items()]


def table(rows: Sequence[Row], *, numbers: bool, learners: Iterable[str] = ()) -> str:
    """Learners by their mean over the columns; in bold what can't be told from the best of a column.

    What it took is that of the last column.

    Args:
        learners: all that ought to be there; who isn't is named below the table.
    """
    shown = columns(rows, numbers=numbers)
    if not shown:
        return NOT_YET
    names = [name for name in shown[0].rows if all(name in column.rows for column in shown)]
    mean = {name: sum(column.rows[name].value for column in shown) / len(shown) for name in names}
    last = shown[-1]
    heads = [f"{column.title}, {column.shots}-shot" for column in shown]
    heads += ["to train, s", "to adapt, ms", "memory, MB"]
    lines = ["| learner | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for name in sorted(names, key=lambda name: mean[name], reverse=not numbers):
        cells = [_score(column, name) for column in shown]
        costs = last.rows[name].costs or {}
        cells += [_cost(costs.get(what)) for what in ("train", "adapt", "memory")]
        title = f"*`{name}`*" if name in UNTAUGHT else f"`{name}`"
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    if absent := [name for name in learners if name not in names]:
        lines += [
            "",
            f"Not measured yet: {_names(absent)} (`quickstudy bench choose --only {','.join(absent)}`).",
        ]
    return "\n".join(lines)


def findings(rows: Sequence[Row]) -> str:
    """A line for each column: who is best, and who stays below what past tasks teach nothing."""
    lines = []
    for column in [*columns(rows, numbers=False), *columns(rows, numbers=True)]:
        order = column.ranked()
        first = column.rows[order[0]]
        level = [name for name in order[1:] if column.alike(order[0], name)]
        line = f"- **{column.title}, {column.shots}-shot**: best `{order[0]}`, {_value(first)} {first.unit}"
        if bayes := first.baselines.get("Bayes"):
            line += f" (the best possible answers: {bayes:.1f})"
        line += f"; not told apart from it: {_names(level)}" if level else ""
        if untaught := [name for name in order if name in UNTAUGHT]:
            best = untaught[0]
            below = [name for name in order[order.index(best) + 1 :] if name not in UNTAUGHT]
            same = [name for name in below if column.alike(best, name)]
            lost = [name for name in below if name not in same]
            line += f". Without past tasks `{best}` has {_value(column.rows[best])}"
            line += f"; **below it stay** {_names(lost)}" if lost else "; nothing stays below it"
        lines.append(line + ".")
    return "\n".join(lines) or NOT_YET


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _value(row: Row) -> str:
    decimals = 2 if row.unit == "MSE" else 1
    half = (row.ci95[1] - row.ci95[0]) / 2 if row.ci95 else 0.0
    return f"{row.value:.{decimals}f} ± {half:.{decimals}f}"


def _score(column: Column, name: str) -> str:
    text = _value(column.rows[name])
    return f"**{text}**" if column.alike(column.ranked()[0], name) else text


def _cost(value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:.0f}"
        if value >= 10
        else f"{value:.1f}"
        if value >= 0.1
        else f"{value:.2f}"
        if value >= 0.01
        else "0"
    )
