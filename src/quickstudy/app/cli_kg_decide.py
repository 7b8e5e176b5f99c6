"""`quickstudy kg merges`, `merge`, `split`, `link`, `unlink`, `undo` and `decisions`: which names are one thing, which
entry of a catalogue that is, and what people decided.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quickstudy.app import kg_decide, kg_results, screen
from quickstudy.app.cli_options import COMMON, Common
from quickstudy.domains.kg.graph.decisions import Decision
from quickstudy.files.source import shortened

Word = Annotated[str, Parameter(allow_leading_hyphen=True)]


def merges(store: Path, name: Word, /, *, common: Common = COMMON) -> int:
    """Say why the names of an entity are taken for one thing.

    Args:
        store: file of the graph.
        name: one of the entity's names.
    """
    common.start()
    common.show({"merges": kg_decide.merges(store, name)}, lambda found: _merges(found["merges"]))
    return 0


def _merges(found: list[kg_results.Merge]) -> None:
    if not found:
        screen.say("It has one name, and no id of a catalogue.")
        return
    made = screen.table("name", "", "is", "score", "why", numbers=(3,))
    for one in found:
        why = f"decision {one.decision}" if one.decision else one.why
        made.add_row(one.one, "" if one.together else "not", one.other, f"{one.score:.2f}", why)
    screen.say(made)


def merge(
    store: Path, one: Word, into: Word, /, *, by: str = "", note: str = "", common: Common = COMMON
) -> int:
    """Decide that two entities are one, under the name of the second. It is kept, and done again on every rebuild.

    Args:
        store: file of the graph.
        one: name of the one.
        into: name of the other.
        by: who decides.
        note: why.
    """
    common.start()
    _decided(kg_decide.merge(store, one, into, by=by, note=note), store, common)
    return 0


def split(
    store: Path, one: Word, other: Word, /, *, document: str | None = None, by: str = "", note: str = "",
    common: Common = COMMON,
) -> int:  # fmt: skip
    """Decide that two names are not the same thing, whatever a model says.

    Args:
        store: file of the graph.
        one: the one name.
        other: the other name.
        document: id of a document whose ONE is another of that name: what it says is said of OTHER from now on, which
            may be a new name, such as "Jo Ray (of Leeds)".
        by: who decides.
        note: why.
    """
    common.start()
    _decided(kg_decide.split(store, one, other, document=document, by=by, note=note), store, common)
    return 0


def link(
    store: Path, name: Word, id: Word, /, *, by: str = "", note: str = "", common: Common = COMMON
) -> int:
    """Decide that an entity is an entry of the catalogue; what else is that entry is the same thing then.

    Args:
        store: file of the graph.
        name: the entity's.
        id: of the entry.
        by: who decides.
        note: why.
    """
    common.start()
    _decided(kg_decide.link(store, name, id, by=by, note=note), store, common)
    return 0


def unlink(
    store: Path, name: Word, id: Word, /, *, by: str = "", note: str = "", common: Common = COMMON
) -> int:
    """Decide that an entity is not an entry of the catalogue, whatever a model says.

    Args:
        store: file of the graph.
        name: the entity's.
        id: of the entry.
        by: who decides.
        note: why.
    """
    common.start()
    _decided(kg_decide.link(store, name, id, apart=True, by=by, note=note), store, common)
    return 0


def undo(
    store: Path, number: int | None = None, /, *, by: str = "", note: str = "", common: Common = COMMON
) -> int:
    """Take back a decision of whatever kind; taking back can be taken back.

    Args:
        store: file of the graph.
        number: of the decision, as `kg decisions` lists them; by default the last that stands.
        by: who decides.
        note: why.
    """
    common.start()
    _decided(kg_decide.undo(store, number, by=by, note=note), store, common)
    return 0


def _decided(number: int, store: Path, common: Common) -> None:
    common.show(
        {"store": str(store), "decision": number},
        lambda _: screen.say(f"Decision {number}; `quickstudy kg undo {store} {number}` takes it back."),
    )


def decisions(store: Path, /, *, common: Common = COMMON) -> int:
    """List what people decided, the oldest first.

    Args:
        store: file of the graph.
    """
    common.start()
    common.show({"decisions": kg_decide.decisions(store)}, lambda found: _decisions(found["decisions"]))
    return 0


def _decisions(found: list[Decision]) -> None:
    if not found:
        screen.say("Nobody has decided anything yet.")
        return
    made = screen.table("no.", "when", "who", "what", "of what", "note", numbers=(0,))
    for one in found:
        what = f"{one.kind}{' (undone)' if one.undone else ''}"
        made.add_row(str(one.number), one.at, one.who, what, _body(one), one.note)
    screen.say(made)


def _body(one: Decision) -> str:
    """What a decision is about, in a line."""
    body = one.body
    places = ("one", "entity", "mention", "name", "sentence", "head", "other", "tail")
    apart = [part["mention"] for part in body.get("mentions", ())[:1]] if one.kind == "split" else []
    ends = [*(body.get(key) for key in places), *apart, body.get("into")]
    words = [
        end[0] if isinstance(end, list) else shortened(end.get("text", ""))
        for end in ends
        if isinstance(end, list | dict)
    ]
    if "decision" in body:
        return f"decision {body['decision']}"
    said = body.get("relation") or body.get("found") or body.get("entry") or ""
    return " · ".join(str(part) for part in (*words[:1], said, *words[1:]) if part)
