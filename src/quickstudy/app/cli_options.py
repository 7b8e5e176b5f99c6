"""What all commands share: their common options, and how a result is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from quickstudy.app import results, threads
from quickstudy.core.errors import DataError
from quickstudy.domains import find


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    json: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Write the result as one JSON object to stdout, everything else to stderr."""
    threads: Annotated[int | None, Parameter(show_default=False)] = None
    """Threads to compute with. Default: OMP_NUM_THREADS, or the physical cores that are free."""

    def start(self) -> None:
        """Set the threads; called before torch is imported."""
        if self.threads is not None and self.threads < 1:
            raise DataError(f"--threads is {self.threads}; expected 1 or more.")
        threads.use_threads(self.threads)

    def show(self, result: Any, as_table: Callable[[Any], None]) -> None:
        """Print a result as JSON, or as `as_table` shows it."""
        if self.json:
            print(results.as_json(result), flush=True)
        else:
            as_table(result)


@Parameter(name="*")
@dataclass(frozen=True)
class OfDomain(Common):
    """Options of commands that work on a domain's data."""

    domain: str = find().name
    """What kind of data it is; a package can add one."""


COMMON = Common()
OF_DOMAIN = OfDomain()
