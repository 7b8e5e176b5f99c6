"""What a bank's fields teach a new one, on top of what the encoder or a shipped prior knows. All in closed form.

1. Where entities stand: detectors of all fields at once, W shared and Δ_f of each field drawn to zero,
   W = argmin Σ_f v_f [loss_f(W + Δ_f) + γ ‖Δ_f‖²] + ρ ‖W - W₀‖²,   convex; W₀ is the shipped detector, or 0.
2. How the spans of a type scatter, and types from each other: the Gaussian learner's prior, from the fields' features.
3. How pairs of a relation scatter, where they are centred, and how sure to be: a `RelationPrior` of the fields' pairs.

v_f are the fields' weights: how near they are, and what their heads explain of the new one's examples (`bank.near`).
Which fields were asked, with what weight, and what it was worth on labels held out stands in the `Worth` of a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from quickstudy.bank.entry import MOST_EACH, Entry
from quickstudy.bank.near import Neighbour
from quickstudy.bank.store import TaskBank
from quickstudy.core.episode import Labelled as Rows
from quickstudy.core.objective import Classify
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.entities.detect import labels_of, pair_scores
from quickstudy.domains.kg.entities.prior import LONGEST, Prior, labelled
from quickstudy.domains.kg.entities.tune import Labelled, features, with_one
from quickstudy.domains.kg.entities.words import states
from quickstudy.domains.kg.kept import ENTITIES, RELATIONS, entity_part, field_of, relation_part
from quickstudy.domains.kg.relations.certainty import Certainty
from quickstudy.domains.kg.relations.pairs import PairEncoder
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.encoders.text import TextEncoder
from quickstudy.learners import Gaussian
from quickstudy.learners.scatter import joined

OWN = 0.1
"""γ: how strongly Δ_f is drawn to zero."""
HOLD = 1e-3
"""ρ where there is no shipped detector."""
HOLD_SHIPPED = 0.3
"""ρ where there is one."""
FEWEST = 0.5
"""A field whose weight is below this part of an equal share isn't asked."""
MOST = 8
"""So many fields are asked, at most."""
WORDS = 8_000
"""So many words of a field, at most, say where its entities stand."""


@dataclass(frozen=True)
class Experience:
    """What fields of a bank taught, for one encoder."""

    entities: Prior | None
    relations: RelationPrior | None
    neighbours: tuple[Neighbour, ...]
    """The fields that were asked, of entities and of relations, with their weights."""


def chosen(
    bank: TaskBank,
    examples: Sequence[Annotated],
    schema: Schema,
    encoder: TextEncoder,
    *,
    without: str | None = None,
) -> list[Neighbour]:
    """The fields of a bank to learn from, with their weights, for entities and for relations; the heaviest first.

    A field that holds one of the examples isn't asked: it would be judged on what it has seen.

    Raises:
        ModelError: all fields of the bank were encoded by other encoders.
    """
    found: list[Neighbour] = []
    texts = {one.text for one in examples}
    apart = {without} if without else set()
    apart |= {
        entry.id
        for entry in bank.entries("kg")
        if any(one.text in texts for one in field_of(entry)[0].documents)
    }
    for part in (entity_part(examples, schema, encoder), relation_part(examples, encoder)):
        if part is None:
            continue
        near = bank.nearest(part, encoder.frozen.identity, domain="kg", most=MOST, without=apart)
        kept = [one for one in near if one.weight * len(near) >= FEWEST]
        total = sum(one.weight for one in kept)
        found += [replace(one, weight=one.weight / total) for one in kept]
    return found


def learned(
    entries: Mapping[str, Entry],
    neighbours: Sequence[Neighbour],
    encoder: TextEncoder,
    *,
    base: Prior | None = None,
    relation_base: RelationPrior | None = None,
    seen: dict[str, "Seen"] | None = None,
) -> Experience:
    """What the chosen fields teach.

    Args:
        entries: the neighbours' entries by id.
        base, relation_base: what they are learned on top of; None is the frozen encoder.
        seen: fields by id, as `read_field` made them for this `base`; what is missing is added.
    """
    told = [(entries[one.id], one.weight) for one in neighbours if one.part == ENTITIES]
    said = [(entries[one.id], one.weight) for one in neighbours if one.part == RELATIONS]
    return Experience(
        entity_prior(told, encoder, base, {} if seen is None else seen) if told else base,
        relation_prior(said, encoder, relation_base) if said else relation_base,
        tuple(neighbours),
    )


class Seen(NamedTuple):
    """What a network makes of a field."""

    states: list[Tensor]
    """Of the words of each sentence; empty where not all entities are marked."""
    labels: list[Tensor]
    """B, I or O for each word."""
    typed: Rows | None
    """Features of spans, of types with two examples or more."""


def read_field(entry: Entry, start: Prior, encoder: TextEncoder, *, stored: bool) -> Seen:
    """Read a field's documents by a network.

    Args:
        stored: whether the entry's own features are those of this network.
    """
    source, schema = field_of(entry)
    whole = [one for one in source.documents if not one.partial]
    task = _short(labelled(whole, list(schema.entities), encoder))
    part = entry.part(ENTITIES)
    own = _often(part.x, part.y) if part is not None and stored else None
    if source.partial and stored:
        return Seen([], [], own)
    net, _ = start.network(encoder)
    found = states(net, task.sentences)
    if not stored:
        spans = [(s, held) for s, held in zip(found, task.spans, strict=True) if held]
        if spans:
            x = torch.cat([features(s, [f[:2] for f in held]) for s, held in spans])
            own = _often(x, torch.tensor([f[2] for _, held in spans for f in held]))
    if source.partial:
        return Seen([], [], own)
    return Seen(found, labels_of([len(s) for s in task.sentences], task.spans), own)


def entity_prior(
    fields: Sequence[tuple[Entry, float]],
    encoder: TextEncoder,
    base: Prior | None = None,
    seen: dict[str, Seen] | None = None,
) -> Prior | None:
    """What fields teach about where entities stand and how types scatter, on top of `base`; None for nothing."""
    start, known = base or Prior.blank(encoder), {} if seen is None else seen
    for entry, _ in fields:
        if entry.id not in known:
            known[entry.id] = read_field(entry, start, encoder, stored=base is None)
    read = [(known[entry.id], weight) for entry, weight in fields]
    whole = [(one, weight) for one, weight in read if one.states]
    if base is None and not whole:
        return (
            None  # types alone: not worth the scores of neighbouring labels that the examples themselves give
        )
    detector, pairs = start.detector, start.pairs
    if whole:
        hold = HOLD if base is None else HOLD_SHIPPED
        states, labels = [one.states for one, _ in whole], [one.labels for one, _ in whole]
        detector = shared_detector(states, labels, [weight for _, weight in whole], detector, hold)
        pairs = pair_scores([row for rows in labels for row in rows])
    kinds, tasks = start.typing, [one.typed for one, _ in read if one.typed is not None]
    if tasks:
        learner = Gaussian(objective=Classify(ways=2), dim=encoder.dim)
        own = learner.estimate(tasks)
        if kinds is not None:
            here = sum(len(task.y.unique()) for task in tasks)
            before = sum(int(source.get("types", 0)) for source in start.sources)
            learner, own = kinds[0], joined(kinds[1], own, here / max(1, here + before))
        kinds = learner, own
    told = tuple(
        {"name": e.name, "bank": e.id, "weight": round(w, 4), "licence": e.licence} for e, w in fields
    )
    return replace(start, detector=detector, pairs=pairs, typing=kinds, sources=(*start.sources, *told))


def shared_detector(
    seen: Sequence[Sequence[Float[Tensor, "word dim"]]],
    labels: Sequence[Sequence[Int[Tensor, " word"]]],
    weights: Sequence[float],
    start: Float[Tensor, "3 dim_and_one"],
    hold: float,
) -> Float[Tensor, "3 dim_and_one"]:
    """W of the module's docstring, from states and labels of each field's words."""
    own = [torch.zeros_like(start, requires_grad=True) for _ in seen]
    shared = start.clone().requires_grad_(True)
    x = [with_one(torch.cat(list(rows)))[:WORDS] for rows in seen]
    y = [torch.cat(list(rows))[:WORDS] for rows in labels]
    solver = torch.optim.LBFGS([shared, *own], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = hold * (shared - start).pow(2).sum()
        for rows, truth, delta, weight in zip(x, y, own, weights, strict=True):
            loss = F.cross_entropy(rows @ (shared + delta).t(), truth) + OWN * delta.pow(2).sum()
            value = value + weight / sum(weights) * len(weights) * loss
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(closure)  # pyright: ignore[reportArgumentType]
    return shared.detach()


def relation_prior(
    fields: Sequence[tuple[Entry, float]], encoder: TextEncoder, base: RelationPrior | None = None
) -> RelationPrior | None:
    """What fields teach about pairs, on top of `base`; that where no field has two relations with two examples."""
    pairs = base.pair_encoder(encoder) if base is not None else PairEncoder(encoder.frozen)
    tasks, strangers = [], []
    for entry, _ in fields:
        part = entry.part(RELATIONS)
        if part is None:
            continue
        x, y = part.x, part.y
        if base is not None and base.adapter is not None:
            source, _ = field_of(entry)
            part = relation_part(source.documents, encoder, pairs) or part
            x, y = part.x, part.y
        rows = Rows.of(x[y >= 0], y[y >= 0])
        if len(rows.y.unique()) > 1 and len(rows.y) > len(rows.y.unique()):
            tasks.append(rows)
            strangers.append(x[y < 0])
    if not tasks:
        return base
    told = {"bank": [entry.id for entry, _ in fields]}
    own = RelationPrior.estimate(pairs, tasks, strangers, record=told)
    if base is None:
        return own
    known = base.record.get("relations", [])
    count = sum(known) if isinstance(known, list) else 0
    here = sum(len(task.y.unique()) for task in tasks)
    return _joined(base, own, here / max(1, here + count)).with_record({**base.record, **told})


def _joined(base: RelationPrior, own: RelationPrior, share: float) -> RelationPrior:
    """Centres, scatters and certainty averaged, with `share` of our own; both see the same encoder's vectors.

    A base that is placed in a field stays there: its centre is the cohort's, and its certainty one with a cohort. A
    prior keeps the scatter of a direction as damping alone, 1 - √(λ / (v + λ)); so scatters are added in units of λ.
    """
    roots = []
    for prior, weight in ((base, 1 - share), (own, share)):
        ratio = (1 - prior.damping.double()).clamp(min=1e-6).pow(-2) - 1  # v / λ
        roots.append(prior.directions.double() * (weight * ratio).sqrt())
    stacked = torch.cat(roots, 1)
    left, root, _ = torch.linalg.svd(stacked, full_matrices=False)
    kept = slice(0, base.directions.shape[1] or own.directions.shape[1])

    def between(one: Certainty, other: Certainty) -> Certainty:
        return Certainty(torch.lerp(one.weights, other.weights, share))

    told = own.in_field if base.cohort is not None and own.in_field else own.certainty
    return replace(
        base,
        center=base.center if base.cohort is not None else torch.lerp(base.center, own.center, share),
        directions=left[:, kept].half().float().contiguous(),
        damping=(1 - (1 + root[kept].pow(2)).rsqrt()).float(),
        certainty=between(base.certainty, told),
        in_field=between(base.in_field, own.in_field) if base.in_field and own.in_field else base.in_field,
    )


def _short(task: Labelled) -> Labelled:
    kept = [i for i, sentence in enumerate(task.sentences) if len(sentence.ids) <= LONGEST]
    return replace(task, sentences=[task.sentences[i] for i in kept], spans=[task.spans[i] for i in kept])


def _often(x: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> Rows | None:
    """Some rows of each type that has two or more; None for fewer than two such types."""
    rows: list[int] = []
    for kind in y.unique():
        places = (y == kind).nonzero().squeeze(-1)[:MOST_EACH]
        rows += places.tolist() if len(places) > 1 and int(kind) >= 0 else []
    kept = torch.tensor(sorted(rows), dtype=torch.long)
    return Rows.of(x[kept], y[kept]) if len(y[kept].unique()) > 1 else None
