"""What can be done with a bank, as functions with plain arguments and results; they print nothing."""

from dataclasses import dataclass
from pathlib import Path

from quickstudy.bank.entry import Entry, Keeper
from quickstudy.bank.near import Neighbour
from quickstudy.bank.store import Summary, TaskBank
from quickstudy.core.errors import DataError
from quickstudy.domains import keepers

ADDED = "asked for by `quickstudy bank add`"
KEPT = "asked for by --keep"
IMPORTED = "asked for by `quickstudy bank import`"


@dataclass(frozen=True)
class Listed:
    """What a bank holds."""

    bank: str
    entries: list[Summary]


@dataclass(frozen=True)
class Shown:
    """All that is kept of a task but its numbers."""

    entry: Summary
    material: dict
    """What the domain needs to learn from it again: texts and labels."""


@dataclass(frozen=True)
class Changed:
    """What was done to a bank."""

    bank: str
    done: list[str]
    """Ids of the entries that were added, written or removed."""
    known: list[str]
    """Ids of those that were there already."""


@dataclass(frozen=True)
class Near:
    """Kept tasks beside one, the heaviest first."""

    name: str
    neighbours: list[Neighbour]


def listed(bank: Path | None = None, *, domain: str | None = None) -> Listed:
    """What a bank holds; nothing where there is no bank yet, and none is made."""
    try:
        with TaskBank(bank, create=False) as opened:
            return Listed(str(opened.path), opened.summaries(domain))
    except DataError:
        if bank is not None:
            raise
        return Listed("", [])


def shown(name: str, *, bank: Path | None = None) -> Shown:
    """All that is kept of an entry. Raises DataError for an unknown one."""
    with TaskBank(bank, create=False) as opened:
        id = opened.find(name)
        [summary] = [one for one in opened.summaries() if one.id == id]
        return Shown(summary, opened.entry(id).material)


def add(
    model: Path,
    *,
    bank: Path | None = None,
    name: str | None = None,
    description: str = "",
    source: str = "",
    licence: str = "",
    domain: str | None = None,
    consent: str = ADDED,
) -> Changed:
    """Keep what a saved model was learned from, under its folder's name unless another is given.

    Raises:
        DataError: no folder of a model, or a domain that keeps nothing.
        CheckpointError: the model or the bank is damaged.
    """
    about = {"description": description, "source": source, "licence": licence}
    entry = entry_of(model, name=name, domain=domain, consent=consent, **about)
    with TaskBank(bank) as opened:
        id, new = opened.add(entry)
        return Changed(str(opened.path), [id] if new else [], [] if new else [id])


def entry_of(model: Path, *, name: str | None, domain: str | None, consent: str, **about: str) -> Entry:
    """What a bank would keep of a saved model."""
    folder = Path(model)
    if not folder.is_dir():
        raise DataError("isn't a folder; expected that of a saved model.", file=folder)
    return _keeper(folder, domain).entry(folder, name=name or folder.resolve().name, consent=consent, **about)


def nearest(which: str, *, bank: Path | None = None, n: int = 5, domain: str | None = None) -> Near:
    """Kept tasks that are near a kept one, or near a model's that isn't kept.

    Raises:
        DataError: neither an entry nor a model's folder.
        ModelError: the kept tasks are of another encoder.
    """
    with TaskBank(bank, create=False) as opened:
        if Path(which).is_dir():
            entry = entry_of(Path(which), name=None, domain=domain, consent="asked about, not kept")
        else:
            entry = opened.entry(which)
        found = [
            near
            for part in entry.parts
            for near in opened.nearest(part, entry.identity, domain=entry.domain, most=n, without=entry.id)
        ]
        return Near(entry.name, found)


def export(folder: Path, names: list[str] | None = None, *, bank: Path | None = None) -> Changed:
    """Write entries, all or those named, to a new folder."""
    with TaskBank(bank, create=False) as opened:
        return Changed(str(opened.path), opened.export(folder, names), [])


def import_(folder: Path, *, bank: Path | None = None) -> Changed:
    """Keep the entries of an exported folder, all or none."""
    if not Path(folder).is_dir():
        raise DataError("isn't a folder; `quickstudy bank export` writes one.", file=folder)
    with TaskBank(bank) as opened:
        new, known = opened.load(folder, consent=IMPORTED)
        return Changed(str(opened.path), new, known)


def forget(names: list[str], *, bank: Path | None = None) -> Changed:
    """Remove entries, to the last byte; all are found before the first is removed."""
    with TaskBank(bank, create=False) as opened:
        ids = list(dict.fromkeys(opened.find(name) for name in names))
        return Changed(str(opened.path), [opened.forget(id) for id in ids], [])


def _keeper(folder: Path, domain: str | None) -> Keeper:
    known = keepers()
    if domain is not None:
        if domain not in known:
            raise DataError(
                f"the domain {domain!r} keeps nothing in a bank; {', '.join(known)} do.", file="--domain"
            )
        return known[domain]()
    for load in reversed(known.values()):
        if (keeper := load()).knows(folder):
            return keeper
    raise DataError(
        "holds no model whose task could be kept; `quickstudy adapt` and `quickstudy kg learn` write such folders.",
        file=folder,
    )
