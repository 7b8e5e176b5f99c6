"""What commands write: results to stdout, everything else to stderr; bars and colours only on a terminal.

Texts and labels come from anybody: whatever is written here is made harmless for a terminal first.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quickstudy.core.untrusted import harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 110  # columns where there is no terminal to ask


def note(text: str) -> None:
    """A line for the person, on stderr."""
    print(harmless(text), file=sys.stderr, flush=True)


def console(*, stderr: bool = False, markup: bool = False) -> "Console":
    """A console that, without `markup`, takes brackets as they are. Rich honours NO_COLOR by itself."""
    from rich.console import Console
    from rich.text import Text

    class Careful(Console):
        def render_str(self, text: str, **options: Any) -> Text:  # every line and every cell comes by here
            return super().render_str(harmless(text), **options)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Careful(file=stream, width=width, markup=markup, highlight=False, emoji=False)


def table(*columns: str, numbers: tuple[int, ...] = ()) -> "Table":
    """An empty table; the columns in `numbers` are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", pad_edge=False)
    for i, name in enumerate(columns):
        made.add_column(name, justify="right" if i in numbers else "left", no_wrap=i in numbers)
    return made


def say(*lines: Any) -> None:
    """Lines and tables to stdout."""
    printer = console()
    for line in lines:
        printer.print(line)


def type_next(commands: list[str]) -> None:
    """The commands that make sense now; never broken into lines, so that they can be copied."""
    lines = (f"  {harmless(command)}" for command in commands)
    print("\nNext:" if commands else "", *lines, sep="\n", flush=True)


def short(text: str, most: int = 300) -> str:
    """A text for a cell of a table: its beginning, if it is very long."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


@contextmanager
def bar(title: str, *, plain: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr while it works: call with what is being done, steps done, and steps in all.

    Where stderr is no terminal, each new stage is one line, or nothing if not `plain`.
    """
    if not sys.stderr.isatty():
        stages: set[str] = set()

        def line(stage: str, done: int, total: int) -> None:
            if plain and stage not in stages:
                stages.add(stage)
                note(f"{title}: {stage} …")

        yield line
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)

        def move(stage: str, done: int, total: int) -> None:
            progress.update(task, description=stage, completed=done, total=total or None)

        yield move
