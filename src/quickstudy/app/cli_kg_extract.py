"""`quickstudy kg add`, `extract`, `withdraw` and `status`: documents into a graph, and what became of them."""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quickstudy.app import kg_graph, kg_results, screen
from quickstudy.app.actions import at_least
from quickstudy.app.cli_options import COMMON, Common


def add(
    store: Path, /, *documents: Path, text: str | None = None, id: str | None = None, skip_bad: bool = False,
    common: Common = COMMON,
) -> int:  # fmt: skip
    """Put documents into a graph, to be read by `kg extract`; those that are there and didn't change stay as they are.

    Args:
        store: file of the graph, which is made where it isn't there.
        documents: files and folders: .txt, .md, .html, .pdf; .csv, .tsv, .jsonl, .json, .parquet with a text a row.
        text: name of the column with the texts.
        id: name of the column with the ids.
        skip_bad: leave out what can't be read, and say so, instead of stopping.
    """
    common.start()
    with screen.bar("add", plain=False) as move:
        result = kg_graph.add(
            store, documents, text=text, id=id, bad="warn" if skip_bad else "raise",
            progress=lambda count: move(f"{count:,} documents", 0, 0),
        )  # fmt: skip
    common.show(result, _added)
    return 0


def _added(result: kg_results.Added) -> None:
    for odd in result.notes:
        screen.note(f"note: {odd}")
    screen.say(
        f"{result.new:,} new, {result.changed:,} changed, {result.same:,} as before; "
        f"{result.waiting:,} wait to be read: {result.store}"
    )
    screen.type_next(result.next if result.waiting else [])


def extract(
    store: Path,
    /,
    *documents: Path,
    model: Annotated[Path, Parameter(name=["--model", "-m"])],
    text: str | None = None,
    id: str | None = None,
    skip_bad: bool = False,
    catalogue: Path | None = None,
    rank: bool = True,
    merge: bool = True,
    again: Annotated[bool, Parameter(negative="")] = False,
    jobs: Annotated[int | None, Parameter(name=["--jobs", "-j"])] = None,
    batch: int = 16,
    common: Common = COMMON,
) -> int:
    """Read documents into a graph: those given, and those that wait in it. Goes on where it was stopped.

    Whatever was read is in the file at once. Ctrl-C, a crash or kill -9 lose nothing of it: the same command goes on.

    Args:
        store: file of the graph, which is made where it isn't there.
        documents: files and folders, as for `kg add`; without any, those that wait are read.
        model: folder that `kg learn` wrote.
        text: name of the column with the texts, of tables.
        id: name of the column with the ids.
        skip_bad: leave out documents that can't be read, and say so, instead of stopping.
        catalogue: entities that you know, with ids, to link those of the graph to: a table with the columns id, name
            and, if wanted, type, aliases and same_as (several separated by |), or RDF. What fits none stays without id.
        rank: where names don't say which entry an entity is, ask the learned ranker: what it is sure of is linked, what
            may be is for `kg review`. It reads each name of the catalogue once.
        merge: say that entities are one whose names differ by case, plural or legal form, or that are abbreviations.
        again: read documents again that another model has read, and those that failed; decisions stay.
        jobs: processes. By default as many as cores are free; one for fewer than 40 documents.
        batch: documents that a process reads together.
    """
    from quickstudy.app import kg_extract

    common.start()
    at_least(1, batch=batch, jobs=jobs)
    try:
        with screen.bar("extract") as move:
            result = kg_extract.extract(
                store, model, documents, text=text, id=id, bad="warn" if skip_bad else "raise", catalogue=catalogue,
                rank=rank, merge=merge, again=again, jobs=jobs, batch=batch, progress=move,
            )  # fmt: skip
    except KeyboardInterrupt:
        counts = kg_graph.status(store).counts if store.is_file() else {}
        done, waiting = (f"{counts.get(f'documents {state}', 0):,}" for state in ("done", "waiting"))
        command = ["quickstudy", "kg", "extract", str(store), "--model", str(model)]
        command += [] if catalogue is None else ["--catalogue", str(catalogue)]
        command += [] if rank else ["--no-rank"]
        screen.note(
            f"stopped; what was found in {done} documents is in {store}, {waiting} wait. Go on with:\n"
            f"  {shlex.join(command)}"
        )
        return 130
    common.show(result, _extracted)
    return 0


def _extracted(result: kg_results.Extracted) -> None:
    for odd in result.notes:
        screen.note(f"note: {odd}")
    failed = f", {result.failed:,} couldn't be" if result.failed else ""
    screen.say(f"{result.done:,} documents were read{failed}  ({result.seconds:.1f} s)")
    if result.merged:
        merged = f"{_names(result.merged)} another entity's"
        screen.say(f"{merged}; `kg show` says why, `kg split` parts them.")
    if result.linked or result.strangers:
        may = f"; {result.suggested:,} of them may be, `kg review` asks" if result.suggested else ""
        screen.say(f"{_names(result.linked)} in the catalogue, {result.strangers:,} not{may}.")
    _counts(result.counts)
    screen.type_next(result.next)


def _names(count: int) -> str:
    return f"{count:,} name{'s are' if count != 1 else ' is'}"


def withdraw(store: Path, /, *ids: str, common: Common = COMMON) -> int:
    """Take documents out of a graph, with what follows from them alone; triples that others say too stay.

    Args:
        store: file of the graph.
        ids: of the documents; where one isn't there, none is taken out.
    """
    common.start()
    common.show(kg_graph.withdraw(store, ids), _state)
    return 0


def status(store: Path, /, *, common: Common = COMMON) -> int:
    """Say what a graph holds, which documents wait, and why others couldn't be read.

    Args:
        store: file of the graph.
    """
    common.start()
    common.show(kg_graph.status(store), _state)
    return 0


def _state(result: kg_results.State) -> None:
    _counts(result.counts)
    for version, documents in result.models.items():
        screen.say(f"{documents:,} documents were read by the model {version}.")
    for document, problem in list(result.failed.items())[:20]:
        screen.say(f"Couldn't be read: {document}: {problem}")
    if len(result.failed) > 20:
        screen.say(f"… and {len(result.failed) - 20} more; --json lists them.")


def _counts(counts: dict[str, int]) -> None:
    made = screen.table("", "", numbers=(1,))
    made.show_header = False
    for what, count in counts.items():
        if count or what in ("documents done", "mentions", "entities", "triples extracted"):
            made.add_row(what, f"{count:,}")
    screen.say(made)
