"""A graph from documents, as functions with plain arguments and results: begin, learn, extract. They print nothing.

The command line calls them, and so do service and studio. What can be asked of a graph: `kg_graph`.
"""

import shlex
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from quickstudy.app.kg_results import Begun, Judged, KgLearned
from quickstudy.bank.store import TaskBank
from quickstudy.bank.tables import default_path
from quickstudy.core.atomic import folder_for
from quickstudy.core.errors import DataError
from quickstudy.domains.kg.banked import learn_with
from quickstudy.domains.kg.document import Annotated, Document
from quickstudy.domains.kg.field import some_pieces
from quickstudy.domains.kg.reading.documents import read_documents
from quickstudy.domains.kg.reading.examples import read_annotated
from quickstudy.domains.kg.reading.format import format_of
from quickstudy.domains.kg.reading.judged import FORMATS, judged
from quickstudy.domains.kg.reading.odd import once
from quickstudy.domains.kg.relations.certainty import FEWEST
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.starter import write_starter, write_starter_examples
from quickstudy.domains.kg.use import EXAMPLES, GraphModel
from quickstudy.domains.kg.worth import DOCUMENTS, LEAST
from quickstudy.encoders.text import TextEncoder, load_encoder
from quickstudy.files.source import existing

MOST_READ = 2_000
"""Documents of a file or folder that a model may be placed by; some of them are read."""
FEW = 5
"""A type with fewer examples than this is named in the report."""


def new(path: str | Path) -> Begun:
    """Write a commented schema, and beside it a file of labelled sentences for it, to change into one's own.

    Raises:
        DataError: one of the two is there already, or can't be written.
    """
    schema = Path(path)
    examples = schema.with_name(f"{schema.stem}-examples.txt")
    if examples.exists():
        raise DataError("there is one already, and it stays as it is: choose another name.", file=examples)
    write_starter(schema)
    write_starter_examples(examples, schema.stem)
    a, b, c = (shlex.quote(str(one)) for one in (schema, examples, schema.with_name(f"{schema.stem}-model")))
    return Begun(str(schema), str(examples), [f"quickstudy kg learn --schema {a} --examples {b} --to {c}"])


def learn(
    schema: str | Path,
    examples: Sequence[str | Path],
    to: str | Path,
    *,
    documents: Sequence[str | Path] = (),
    encoder: str = "minilm",
    experience: bool = True,
    judge: bool = True,
    bank: bool = False,
    precision: float = 0.9,
    across: int = 0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> KgLearned:
    """Learn a schema's entities and relations from labelled files, and save the model to a folder.

    Args:
        documents: of the field, without labels, as `kg extract` takes them: what earlier relations taught is placed by
            the names that stand together in some of them.
        experience: start from what past corpora and relations taught; else from the frozen encoder.
        judge: see what that was worth on examples held out, and leave it out where it does harm.
        bank: start from the fields of the user's bank too, where that helps on examples held out.
        precision: a triple at least so probable goes into the graph; below it, it waits for review.
        across: how many sentence ends may lie between the two ends of a relation.
        progress: is told a stage, how many steps are done, and of how many (0: not known).

    Raises:
        DataError: what is wrong with schema or examples, naming file and row.
        ModelError: no such encoder.
    """
    began = time.perf_counter()
    move = progress or (lambda *_: None)
    if not examples:
        raise DataError("no examples were given; name files with labelled sentences.")
    folder_for(to, EXAMPLES)
    types = Schema.read(schema)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts = [(path, read_annotated(path, types)) for path in examples]
    said = [str(one.message) for one in caught]
    labelled, odd = once(_together(parts, said))
    said += odd
    if (Path(to) / EXAMPLES).exists():
        said.append(f"the model that was in {to} gives way to this one.")
    loaded = load_encoder(encoder)
    if not isinstance(loaded, TextEncoder):
        raise DataError(
            f"the encoder {encoder!r} has no word states, which finding entities needs; minilm has."
        )
    unlabelled, read = [], 0
    for path in documents:
        pieces, count = _some(path, labelled, said, seed)
        unlabelled += pieces
        read += count
    move("learning entities and relations", 0, 0)

    def seen(done: int, of: int) -> None:
        move("seeing what experience is worth", done, of)

    def step(number: int, _: float) -> None:
        move("learning entities and relations", number, 0)

    def placed(pieces: int) -> None:
        move("reading documents", pieces, 0)

    past, asked = "shipped" if experience else None, None
    if bank and not default_path().exists():
        bank = False
        said.append(
            f"there is no bank yet ({default_path()}), so no earlier field was asked; --keep begins one."
        )
    if bank:
        with TaskBank(create=False) as opened:
            model, asked = learn_with(
                opened, labelled, types, loaded, prior=past, relation_prior=past, documents=unlabelled,
                precision=precision, across=across, judge_documents=judge, seed=seed, progress=step, placing=placed,
            )  # fmt: skip
    else:
        model = GraphModel.learn(
            labelled, types, loaded, prior=past, relation_prior=past, documents=unlabelled, precision=precision,
            across=across, judge=judge and experience, seed=seed, judging=seen, progress=step,
            placing=placed,
        )  # fmt: skip
    if read:
        said.append(_placed(model, read))
    model.save(to)
    place = shlex.quote(str(to))
    return KgLearned(
        str(to), model.version, encoder, len(labelled), *counted(model.examples, types),
        [
            Judged(one.part, one.experienced.f1, one.frozen.f1, one.gain, one.keeps)
            for one in model.worth
            if one.part != DOCUMENTS
        ],
        _notes(labelled, types, model, said), time.perf_counter() - began,
        [f"quickstudy kg extract graph.db DOCUMENTS --model {place}"],
        asked.to_json() if asked else None, asked.text() if asked else "",
    )  # fmt: skip


def _together(parts: Sequence[tuple[str | Path, list[Annotated]]], said: list[str]) -> list[Annotated]:
    """The examples of all files; where one has relations, those of others that could have some are judged, too."""
    may: list[Annotated] = []
    rest: list[Annotated] = []
    for path, found in parts:
        (may if format_of(existing(path)) in FORMATS else rest).extend(found)
    known = judged(may)
    silent = sum(bool(one.unrelated) and not one.relations for one in known)
    if silent:
        said.append(
            f"texts with several names and no relation: {silent}. Their names are taken to be unrelated; leave out "
            "those whose relations nobody labelled."
        )
    return [*known, *rest]


def _some(
    path: str | Path, labelled: Sequence[Annotated], said: list[str], seed: int
) -> tuple[list[Document], int]:
    """Pieces of some documents, and how many these were: one that can't be read says nothing, and `said` is told."""
    count = 0

    def told(read: Iterator[Document]) -> Iterator[Document]:
        nonlocal count
        for one in islice(read, MOST_READ):
            count += 1
            yield one

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pieces = some_pieces(told(read_documents(path, bad="warn")), labelled, seed=seed)
    said += [str(one.message) for one in caught]
    return pieces, count


def _placed(model: GraphModel, read: int) -> str:
    """What came of documents."""
    prior, judged = model.relation_prior, next((one for one in model.worth if one.part == DOCUMENTS), None)
    texts = "1 document" if read == 1 else f"{read:,} documents"
    if model.relations is None:
        return f"no example has a relation, so the {texts} say nothing."
    if prior is None:
        return f"relations start from the frozen encoder, so the {texts} say nothing: they add to experience alone."
    worth = ""
    if judged is not None:
        worth = (
            f" (F1 of relations on labels held out: {judged.experienced.f1.text(1)}, without them "
            f"{judged.frozen.f1.text(1)}; gain {judged.gain.text(1, sign=True)})"
        )
        if not judged.keeps:
            return f"the {texts} do harm here{worth}; left out."
    if prior.cohort is None:
        return (
            f"in the {texts} stand fewer than {FEWEST} pairs of names, in one sentence, that a relation may join, so "
            "they say nothing. Give more documents, or more examples of names."
        )
    return f"relations are placed by {len(prior.cohort)} pairs of names in the {texts}{worth}."


def _notes(
    labelled: Sequence[Annotated], schema: Schema, model: GraphModel, said: Sequence[str]
) -> list[str]:
    """What a person should know about their examples: what was left out of the files, and which types are too few."""
    notes = [*said]
    for part, counts in zip(("entities", "relations"), counted(model.examples, schema), strict=True):
        none = [kind for kind, count in counts.items() if not count]
        few = [f"{kind} ({count})" for kind, count in counts.items() if 0 < count < FEW]
        if none:
            found = "never found" if part == "relations" else "found by name and description alone"
            notes.append(f"no example of {', '.join(none)}: {found}.")
        if few:
            notes.append(f"fewer than {FEW} examples of {', '.join(few)}: a few more help most there.")
    if not model.worth and len(labelled) < LEAST:
        notes.append(f"{len(labelled)} labelled texts are too few to hold some out and say how good this is.")
    return notes


def counted(labelled: Sequence[Annotated], schema: Schema) -> tuple[dict[str, int], dict[str, int]]:
    """How many examples of each entity type and of each relation there are; the schema's own of relations too."""
    spans = Counter(span.type for one in labelled if not one.partial for span in one.spans)
    said = Counter(relation.type for one in labelled for relation in one.relations)
    return {kind: spans[kind] for kind in schema.entities}, {kind: said[kind] for kind in schema.relations}
