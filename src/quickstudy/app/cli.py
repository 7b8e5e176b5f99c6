"""The command line: which commands there are, and how they end.

Each command lives in a module that is imported only when it is called; `quickstudy --help` imports nothing but the
standard library. A command may be a group of commands, such as `quickstudy kg`: a `Group` in a module that imports
nothing either. Exit codes: 0 done, 1 a bar was missed (`bench check`), 2 something is wrong with what was given, 130
stopped by Ctrl-C, 141 the reader of our output went away.
"""

import errno
import inspect
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import quickstudy
from quickstudy.app import screen
from quickstudy.app.groups import Group
from quickstudy.core.errors import DataError, QuickstudyError, did_you_mean

COMMANDS = {  # name -> (where the command, or the group, lives; what it does)
    "demo": ("quickstudy.app.cli_more:demo", "learn from bundled data, adapt to intents never seen, explain"),
    "adapt": ("quickstudy.app.cli_learn:adapt", "learn a classifier from a few labelled examples"),
    "predict": ("quickstudy.app.cli_use:predict", "sort texts with it"),
    "explain": ("quickstudy.app.cli_use:explain", "which examples spoke for an answer, and against it"),
    "evaluate": ("quickstudy.app.cli_use:evaluate", "judge it on labelled texts, beside frozen baselines"),
    "suggest": ("quickstudy.app.cli_use:suggest", "which texts to label next"),
    "learn": ("quickstudy.app.cli_learn:learn", "meta-train: make a prior from a folder of past tasks"),
    "bank": ("quickstudy.app.cli_bank:GROUP", "tasks that you keep, so that the next one starts from them"),
    "kg": ("quickstudy.app.cli_kg:GROUP", "a knowledge graph of your field: from documents to triples"),
    "encoders": ("quickstudy.app.cli_more:encoders", "list the encoders known by name"),
    "bench": ("quickstudy.app.cli_more:bench", "run a benchmark suite; `bench check` lists bars and figures"),
}
ABOUT = "Learns from many small tasks, so that a new task needs only a few examples."
FIRST_STEPS = (
    "quickstudy demo",
    "quickstudy adapt examples.csv --out my-model     a table with the columns text and label",
    'quickstudy predict my-model --text "…"',
)
ROOT = Group("", ABOUT, COMMANDS, FIRST_STEPS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. Expected errors are one message on stderr, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # a terminal that isn't UTF-8 shows '?' instead of an error
        if (stream.encoding or "").lower().replace("-", "") != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    debug = os.environ.get("QUICKSTUDY_DEBUG", "") not in ("", "0")
    if not debug:
        warnings.showwarning = lambda message, *_, **__: screen.note(f"note: {as_typed(str(message), given)}")
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except QuickstudyError as error:
        if debug:
            raise
        screen.note(f"error: {as_typed(str(error), given)}")
        return 2
    except KeyboardInterrupt:
        screen.note("stopped")
        return 130
    except BrokenPipeError:
        # As `head` does with those before it. Python would complain when it flushes at exit: give it another stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        screen.note(f"error: no room to write {error.filename or 'the output'}: {error.strerror}.")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def _run(given: list[str]) -> int:
    group, rest = _group(given)
    if not rest or (rest[0] in HELP and len(rest) == 1):
        print(overview(group))
        return 0
    if rest[0] in ("--version", "-V") and group is ROOT:
        print(quickstudy.__version__)
        return 0
    if rest[0] in HELP:
        return _run([*given[: len(given) - len(rest)], *rest[1:], "--help"])
    if rest[0] not in group.commands:
        what = "option" if rest[0].startswith("-") else "command"
        screen.note(
            f"error: there is no {what} {rest[0]!r}{f' of {group.name}' if group.name else ''}."
            f"{did_you_mean(rest[0], group.commands)}\n\n{overview(group)}"
        )
        return 2
    if group is ROOT and rest[0] == "bench" and len(rest) > 1 and not rest[1].startswith("-"):
        from quickstudy.app.cli_more import run_suite  # a suite reads its own arguments, --help included

        return run_suite(rest[1], rest[2:])
    return _call(group, rest)


HELP = ("--help", "-h", "help")


def _group(given: list[str]) -> tuple[Group, list[str]]:
    """The group that a command line names, and what comes after its name."""
    group, rest = ROOT, given
    while rest and (target := group.commands.get(rest[0], ("",))[0]).endswith(":GROUP"):
        group, rest = _load(target), rest[1:]
    return group, rest


def words_of_all(group: Group = ROOT, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command; those of a group stand after the group's own."""
    found: list[tuple[str, ...]] = []
    for name, (target, _) in group.commands.items():
        found.append((*before, name))
        if target.endswith(":GROUP"):
            found += words_of_all(_load(target), (*before, name))
    return found


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _call(group: Group, given: list[str]) -> int:
    """Let cyclopts read the arguments and call the command."""
    from cyclopts import App, CycloptsError
    from cyclopts.exceptions import UnusedCliTokensError

    for before, value in pairwise(given):
        if value == "" and before != "--text":
            raise DataError(
                "an empty argument; expected a name. Is a variable of the shell empty?", file=before
            )
    target, _ = group.commands[given[0]]
    words = " ".join(["quickstudy", *group.name.split()])
    app = App(name=words, help=group.about, version=quickstudy.__version__, help_format="markdown",
              suppress_keyboard_interrupt=False)  # fmt: skip  # it would end without a word; we say what was kept
    app.command(target, name=given[0], help_format="markdown")
    try:
        code = app(
            given,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
            console=screen.console(),
        )
    except UnusedCliTokensError as error:
        many = ", ".join(error.unused_tokens or ())
        screen.note(f"error: more arguments than {given[0]} takes: {many}\nHelp: {words} {given[0]} --help")
        return 2
    except CycloptsError as error:
        screen.note(f"error: {error}\nHelp: {words} {given[0]} --help")
        return 2
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return code if isinstance(code, int) else 0


_SETTING = re.compile(r"""`(?P<word>\w+)`|(?<![\w"'`-])(?P<name>\w+)=(?P<value>"[^"]*"|'[^']*'|\w+)""")
_OTHER_NAMES = {"use_names": "names", "random_state": "seed"}


def as_typed(message: str, given: Sequence[str]) -> str:
    """A message with its settings as the command line has them: `tune` is --tune, encoder='x' is --encoder 'x'.

    What isn't an option of the command that was given stays as it is.
    """
    group, rest = _group(list(given))
    if not rest or rest[0] not in group.commands:
        return message
    parameters = inspect.signature(_load(group.commands[rest[0]][0])).parameters.values()
    options = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "common"}

    def typed(found: re.Match[str]) -> str:
        name = found["word"] or found["name"]
        name = _OTHER_NAMES.get(name, name)
        if name == "text" and "text_column" in options:  # of `predict`, whose --text is a text
            name = "text_column"
        if name not in options:
            return found[0]
        option, value = f"{'-' if len(name) == 1 else '--'}{name.replace('_', '-')}", found["value"]
        if value == "False":
            return option.replace("--", "--no-", 1)
        return option if value in (None, "True") else f"{option} {value}"

    return _SETTING.sub(typed, message)


def overview(group: Group = ROOT) -> str:
    """The help of `quickstudy` itself, or of a group of its commands, made without importing anything."""
    bold, plain = (
        ("\033[1m", "\033[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    )
    words = " ".join(["quickstudy", *group.name.split()])
    width = max(9, *map(len, group.commands))
    lines = [f"  {bold}{name:<{width}}{plain} {about}" for name, (_, about) in group.commands.items()]
    more = "      quickstudy --version" if group is ROOT else ""
    return "\n".join(
        [
            group.about,
            "",
            f"Usage: {bold}{words} COMMAND{plain} …      {words} COMMAND --help{more}",
            "",
            *lines,
            "",
            "First steps:",
            *(f"  {step}" for step in group.first_steps),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
