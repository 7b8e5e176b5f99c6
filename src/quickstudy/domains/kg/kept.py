"""What a bank keeps of a field: its labelled documents and schema, and features of what they label.

Two parts: the types of its entities, by the mean states of spans; and its relations, by vectors of pairs, with those of
pairs that aren't related. Both are made by the frozen encoder, whatever the field's own model was tuned to.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.bank.entry import MOST_EACH, MOST_UNLABELLED, Entry, Keeper, Part, fewer
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.entities import types as typing
from quickstudy.domains.kg.entities.prior import LONGEST, Source, labelled
from quickstudy.domains.kg.entities.tune import features
from quickstudy.domains.kg.entities.words import network, states
from quickstudy.domains.kg.labelled import as_record, from_record
from quickstudy.domains.kg.relations.examples import labelled_pairs
from quickstudy.domains.kg.relations.pairs import PairEncoder
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import EXAMPLES, GraphModel
from quickstudy.encoders.text import TextEncoder

ENTITIES, RELATIONS = "entities", "relations"


def field_entry(
    examples: Sequence[Annotated],
    schema: Schema,
    encoder: TextEncoder,
    *,
    name: str,
    consent: str,
    description: str = "",
    source: str = "",
    licence: str = "",
    partial: bool = False,
) -> Entry:
    """A labelled field as an entry.

    Args:
        partial: whether only some entities are marked: then it teaches types and relations, not where entities stand.

    Raises:
        DataError: no consent, no labelled span, or offsets and types that can't be.
    """
    given = [one.checked(schema) for one in examples]
    parts = [part for part in (entity_part(given, schema, encoder), relation_part(given, encoder)) if part]
    if not parts:
        raise DataError(f"none of the {len(given)} examples has a span; there is nothing to keep.")
    material = {
        "schema": schema.to_json(),
        "partial": partial,
        "examples": [as_record(one) for one in given],
    }
    return Entry(
        domain="kg", name=name, consent=consent, encoder=encoder.frozen.name, identity=encoder.frozen.identity,
        parts=tuple(parts), material=material, description=description, source=source, licence=licence,
    ).checked()  # fmt: skip


def entity_part(examples: Sequence[Annotated], schema: Schema, encoder: TextEncoder) -> Part | None:
    """The types of entities as a task: features of spans, and of the types' names; None without a span.

    Those of `partial` documents teach no entities.
    """
    examples = [one for one in examples if not one.partial]
    names = [name for name in schema.entities if any(s.type == name for one in examples for s in one.spans)]
    task = labelled(examples, names, encoder)
    kept = [i for i, sentence in enumerate(task.sentences) if len(sentence.ids) <= LONGEST and task.spans[i]]
    if not kept:
        return None
    net, _ = network(encoder.frozen)
    seen = states(net, [task.sentences[i] for i in kept])
    x = torch.cat([features(s, [f[:2] for f in task.spans[i]]) for s, i in zip(seen, kept, strict=True)])
    y = torch.tensor([f[2] for i in kept for f in task.spans[i]])
    return fewer(Part(ENTITIES, tuple(names), x, y, _told(names, schema, net, encoder)))


def relation_part(
    examples: Sequence[Annotated], encoder: TextEncoder, reader: PairEncoder | None = None
) -> Part | None:
    """Relations as a task: vectors of pairs, -1 for those that aren't related; None without a relation.

    Args:
        reader: what makes the vectors; by default the frozen encoder does.
    """
    pairs = [pair for one in examples for pair in labelled_pairs(one)]
    names = sorted({pair.type for pair in pairs if pair.type is not None})
    if not names:
        return None
    number = {name: i for i, name in enumerate(names)}
    kept, count = [], dict.fromkeys([None, *names], 0)
    for pair in pairs:  # chosen before they are encoded: of pairs that aren't related there may be very many
        count[pair.type] += 1
        if count[pair.type] <= (MOST_UNLABELLED if pair.type is None else MOST_EACH):
            kept.append(pair)
    x = (reader or PairEncoder(encoder.frozen)).encode([pair.pair for pair in kept])
    y = torch.tensor([-1 if pair.type is None else number[pair.type] for pair in kept])
    return Part(RELATIONS, tuple(names), x, y)


def field_of(entry: Entry) -> tuple[Source, Schema]:
    """The labelled documents of an entry, to learn from again. Raises CheckpointError for material that isn't."""
    material = entry.material
    try:
        schema = Schema.of(material["schema"])
        documents = [from_record(one).checked(schema) for one in material["examples"]]
        partial = material["partial"] is True
    except (KeyError, TypeError, ValueError, AttributeError) as problem:  # DataError is a ValueError
        raise CheckpointError(
            f"the entry {entry.id} ({entry.name!r}) holds no labelled field: {problem}"
        ) from None
    return Source(entry.name, documents, partial=partial, licence=entry.licence), schema


def saved_entry(folder: Path | str, **about: Any) -> Entry:
    """The field that a saved graph model was learned from; `about` as `field_entry` takes it."""
    model = GraphModel.load(folder)
    return field_entry(model.examples, model.schema, model.recogniser.encoder, **about)


KEEPER = Keeper("kg", lambda folder: (folder / EXAMPLES).is_file(), saved_entry)


def _told(names: Sequence[str], schema: Schema, net: Any, encoder: TextEncoder) -> Tensor | None:
    """Features of what says what a type is; None where one says nothing that can be read."""
    texts = [" . ".join(typing.told(name, schema.entities[name])) for name in names]
    known = [row for row in typing.read(net, texts, encoder) if row is not None]
    return torch.stack(known) if len(known) == len(texts) else None
