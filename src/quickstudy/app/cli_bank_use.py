"""`quickstudy bank list`, `show`, `add`, `nearest`, `export`, `import` and `forget`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quickstudy.app import bank_actions, screen
from quickstudy.app.actions import at_least
from quickstudy.app.cli_options import Common
from quickstudy.core.errors import DataError


@Parameter(name="*")
@dataclass(frozen=True)
class OfBank(Common):
    """Options of all these commands."""

    bank: Path | None = None
    """The bank's file. Default: $QUICKSTUDY_BANK, or bank.sqlite in the user's data folder."""


OF_BANK = OfBank()


def list_(*, domain: str | None = None, common: OfBank = OF_BANK) -> int:
    """List the tasks that are kept on this machine.

    Args:
        domain: only those of this domain, such as text or kg.
    """
    common.start()
    common.show(bank_actions.listed(common.bank, domain=domain), _listed)
    return 0


def _listed(result: bank_actions.Listed) -> None:
    if not result.entries:
        screen.say("Nothing is kept. `quickstudy bank add MODEL`, or --keep when you learn, keeps a task.")
        return
    made = screen.table("id", "domain", "name", "labels", "examples", "encoder", "kept", numbers=(3, 4))
    for one in result.entries:
        labels = " + ".join(str(len(part.labels)) for part in one.parts)
        examples = " + ".join(str(part.shots) for part in one.parts)
        made.add_row(one.id, one.domain, screen.short(one.name, 60), labels, examples, one.encoder, one.kept)
    screen.say(made, f"{len(result.entries)} in {result.bank}")


def show(name: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, common: OfBank = OF_BANK) -> int:
    """Show all that is kept of a task, and by whose word; --json shows its texts too.

    Args:
        name: its id, the beginning of that, or its name.
    """
    common.start()
    common.show(bank_actions.shown(name, bank=common.bank), _shown)
    return 0


def _shown(result: bank_actions.Shown) -> None:
    one = result.entry
    screen.say(f"{one.name} ({one.domain}, {one.id})")
    about = {
        "description": one.description, "source": one.source, "licence": one.licence, "kept": one.kept,
        "by": one.consent, "encoder": f"{one.encoder} ({one.identity[:12]}…)",
    }  # fmt: skip
    for key, value in about.items():
        if value:
            screen.say(f"  {key:<12} {value}")
    for part in one.parts:
        labels = screen.short(", ".join(part.labels), 300)
        screen.say(f"  {part.name or 'labels':<12} {labels}; {part.shots} examples with features")


def add(
    model: Path, /, *, name: str | None = None, description: str = "", source: str = "", licence: str = "",
    domain: str | None = None, common: OfBank = OF_BANK,
) -> int:  # fmt: skip
    """Keep what a saved model was learned from: its examples with their labels, and features of them.

    Args:
        model: folder that `quickstudy adapt` or `quickstudy kg learn` wrote.
        name: what to call it; by default as the folder.
        description: what the task is, in words.
        source: where its examples came from.
        licence: under which they stand.
        domain: the model's domain, where it can't be told by the folder.
    """
    common.start()
    result = bank_actions.add(
        model,
        bank=common.bank,
        name=name,
        description=description,
        source=source,
        licence=licence,
        domain=domain,
    )
    common.show(result, _added)
    return 0


def _added(result: bank_actions.Changed) -> None:
    for id in result.done:
        screen.say(f"Kept as {id} in {result.bank}", f"Forgotten by: quickstudy bank forget {id}")
    for id in result.known:
        screen.say(f"{id} is kept already, in {result.bank}")


def nearest(
    which: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, n: Annotated[int, Parameter(name="-n")] = 5,
    domain: str | None = None, common: OfBank = OF_BANK,
) -> int:  # fmt: skip
    """Show which kept tasks are near one, and how much their heads explain of its examples.

    Args:
        which: id or name of a kept task, or the folder of a model, which isn't kept by this.
        n: so many for each part.
        domain: the model's domain, where it can't be told by the folder.
    """
    common.start()
    at_least(1, n=n)
    common.show(bank_actions.nearest(which, bank=common.bank, n=n, domain=domain), _near)
    return 0


def _near(result: bank_actions.Near) -> None:
    if not result.neighbours:
        screen.say(f"The bank holds no other task of the kind of {result.name}.")
        return
    parts = len({one.part for one in result.neighbours}) > 1
    made = screen.table("task", "id", *(["part"] if parts else []), "nearness", "explains", "weight",
                        numbers=(3, 4, 5) if parts else (2, 3, 4))  # fmt: skip
    for one in result.neighbours:
        figures = (f"{one.nearness:.2f}", f"{100 * one.explained:.0f}%", f"{100 * one.weight:.0f}%")
        made.add_row(screen.short(one.name, 60), one.id, *([one.part] if parts else []), *figures)
    screen.say(made)


def export(folder: Path, /, *names: str, common: OfBank = OF_BANK) -> int:
    """Write kept tasks to a new folder that can be given away, with all of their texts.

    Args:
        folder: a folder that isn't there yet; tasks.jsonl and tensors.safetensors go into it.
        names: ids or names; by default all tasks.
    """
    common.start()
    result = bank_actions.export(folder, list(names) or None, bank=common.bank)
    common.show(result, lambda _: screen.say(f"{len(result.done)} written to {folder}"))
    return 0


def import_(folder: Path, /, *, common: OfBank = OF_BANK) -> int:
    """Keep the tasks of a folder that `quickstudy bank export` wrote: all, or none if anything in it is odd.

    Args:
        folder: that folder.
    """
    common.start()
    result = bank_actions.import_(folder, bank=common.bank)
    known = f", {len(result.known)} were there" if result.known else ""
    common.show(result, lambda _: screen.say(f"{len(result.done)} kept{known}, in {result.bank}"))
    return 0


def forget(*names: str, common: OfBank = OF_BANK) -> int:
    """Remove kept tasks: their texts and numbers are written over, not only marked as free.

    Args:
        names: ids, beginnings of ids, or names.
    """
    common.start()
    if not names:
        raise DataError("names no task; `quickstudy bank list` shows them.", file="forget")
    result = bank_actions.forget(list(names), bank=common.bank)
    common.show(result, lambda _: screen.say(*(f"Forgotten: {id}" for id in result.done)))
    return 0
