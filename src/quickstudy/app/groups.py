"""What a group of commands is, such as `quickstudy kg`; of the standard library alone, as what `--help` needs."""

from typing import NamedTuple


class Group(NamedTuple):
    """Commands that stand behind one word."""

    name: str
    """The word; '' for `quickstudy` itself."""
    about: str
    """What they are for, in a line."""
    commands: dict[str, tuple[str, str]]
    """Name -> ("module:function", what it does). Functions are those that cyclopts takes."""
    first_steps: tuple[str, ...]
    """Commands to begin with."""
