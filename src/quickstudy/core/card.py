"""A report as text: the table for a terminal and the Markdown card."""

import json
from typing import TYPE_CHECKING, Any

from quickstudy.core.untrusted import harmless

if TYPE_CHECKING:
    from rich.table import Table

    from quickstudy.core.report import Report


def table(report: "Report") -> "Table":
    """The table for a terminal: the winner bold, baselines dim, the verdict below."""
    from rich import box
    from rich.table import Table
    from rich.text import Text  # not str: a row named '[bold]' is a name

    header, lines = _cells(report)
    main = next(iter(report.metrics), "")
    caption = "\n".join([report.verdict(), *([_legend(report)] if report.rows else [])])
    made = Table(
        title=Text(harmless(report.title), style="bold"), caption=Text(harmless(caption)), box=box.SIMPLE_HEAD,
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    for index, name in enumerate(header):
        words = index == 0 or name == "note"
        made.add_column(Text(harmless(name)), justify="left" if words else "right", no_wrap=not words)
    for row, line in zip(report.rows, lines, strict=True):
        style = "bold" if report.wins(row, main) else "dim" if row.baseline else ""
        made.add_row(*[Text(harmless(cell)) for cell in line], style=style)
    return made


def markdown(report: "Report") -> str:
    """The card: the verdict, the table, and what is needed to repeat it."""
    parts = [f"# {_inline(report.title)}", _inline(report.verdict())]
    if report.rows:
        header, lines = _cells(report)
        parts += [_grid(header, lines), _inline(_legend(report))]
    settings = {"seeds": ", ".join(map(str, report.seeds)), **report.settings}
    for title, facts in (("Settings", settings), ("Environment", report.environment)):
        parts += [
            f"## {title}",
            _grid(["what", "value"], [[key, _value(fact)] for key, fact in facts.items()]),
        ]
    return "\n\n".join(parts) + "\n"


def _cells(report: "Report") -> tuple[list[str], list[list[str]]]:
    """The header and the rows, with the gain over the best baseline beside the main metric."""
    header, columns = (
        ["method"],
        [[row.name + (" (baseline)" if row.baseline else "") for row in report.rows]],
    )
    for index, metric in enumerate(report.metrics):
        digits = report.digits(metric)
        estimates = {
            metric: [row.metrics.get(metric) for row in report.rows],
            "over splits": [row.splits.get(metric) for row in report.rows],
            "gain": [report.gain(row, metric) if index == 0 else None for row in report.rows],
        }
        for name, column in estimates.items():
            if any(column):
                header.append(name)
                columns.append([e.text(digits, sign=name == "gain") if e else "" for e in column])
    if any(row.note for row in report.rows):
        header.append("note")
        columns.append([row.note for row in report.rows])
    return header, [list(line) for line in zip(*columns, strict=True)]


def _legend(report: "Report") -> str:
    main = report.metrics[0] if report.metrics else ""
    counts = sorted({estimate.n for row in report.rows for estimate in row.metrics.values()})
    over = f"over {' / '.join(f'{n:,}' for n in counts)} {report.counted}."
    said = f"±: half of the 95% interval (Student's t) {over}"
    if report.shares:
        said = f"(… to …): the 95% interval (Wilson's; of differences, Tango's) {over}"
    if groups := {estimate.n for row in report.rows for estimate in row.splits.values()}:
        said += (
            f" Over splits: the same over the means of {' / '.join(map(str, sorted(groups)))} class splits."
        )
    baseline = report.best_baseline(main)
    if baseline and any(report.gain(row, main) for row in report.rows):
        said += f" Gain: {main} minus that of {baseline.name} on the same {report.counted}."
    if lower := [metric for metric in report.metrics if metric in report.lower_is_better]:
        said += f" Lower is better: {', '.join(lower)}."
    return said


def _grid(header: list[str], lines: list[list[str]]) -> str:
    sides = ["---" if i == 0 or name in ("note", "value") else "---:" for i, name in enumerate(header)]
    rows = [[_inline(name) for name in header], sides, *[[_inline(cell) for cell in line] for line in lines]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _inline(text: str) -> str:
    for character, escaped in (
        ("\\", "\\\\"),
        ("|", "\\|"),
        ("<", "&lt;"),
        ("*", "\\*"),
        ("`", "\\`"),
        ("[", "\\["),
    ):
        text = text.replace(character, escaped)
    return " ".join(text.split())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
