"""Every error that quickstudy raises on purpose: says what came, what was expected, and what to do.

All derive from `QuickstudyError`, so that an application catches one class and prints one line; each also
derives from the built-in that Python or scikit-learn callers expect in its place.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from os import PathLike, fspath


class QuickstudyError(Exception):
    """Base of all errors raised on purpose: the message is meant for the person, without a traceback."""


class DataError(QuickstudyError, ValueError):
    """Input that cannot be used as given.

    `file` is the path (or a name such as 'DataFrame') and `row` the row that a spreadsheet shows (the header
    is row 1), a line number, or a frame's index; either is None when it doesn't apply. Both lead the message.
    """

    def __init__(
        self, problem: str, *, file: str | PathLike[str] | None = None, row: int | str | None = None
    ) -> None:
        self.file = None if file is None else fspath(file)
        self.row = row
        where = [*([] if file is None else [self.file]), *([] if row is None else [f"row {row}"])]
        # The whole text goes to `args`, and the fields to `__dict__`: so the error survives a process boundary.
        super().__init__(f"{', '.join(map(str, where))}: {problem}" if where else problem)


class ModelError(QuickstudyError, ValueError):
    """A learner, encoder or adapted model that cannot do what was asked."""


class DivergedError(ModelError):
    """Meta-training met a loss or gradient that isn't finite: at `step` (from 1), in `tasks` of its batch (from 0)."""

    def __init__(self, problem: str, *, step: int, tasks: Sequence[int] = ()) -> None:
        super().__init__(problem)
        self.step, self.tasks = step, list(tasks)

    def __reduce__(self) -> tuple:
        return _diverged, (str(self), self.step, self.tasks)


def _diverged(problem: str, step: int, tasks: Sequence[int]) -> DivergedError:
    return DivergedError(problem, step=step, tasks=tasks)


class CheckpointError(QuickstudyError, ValueError):
    """A saved folder that is damaged, unsafe to load, of another kind, or could not be written."""


class NotFitted(QuickstudyError, AttributeError, ValueError):
    """Predict was called before fit."""


class MissingExtra(QuickstudyError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for the closest of `options` (case doesn't count), or ''."""
    by_lower = {str(option).lower(): str(option) for option in options}
    close = get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f' Did you mean "{by_lower[close[0]]}"?' if close else ""


def missing_extra(package: str, extra: str) -> MissingExtra:
    """The error to raise when importing `package`, which quickstudy's optional `extra` installs, has failed."""
    return MissingExtra(
        f"{package} is not installed. Install it with: pip install 'quickstudy[{extra}]'", name=package
    )


class CompileWarning(UserWarning):
    """A step that was to be compiled runs as it does without; the message says why. No result changes."""
