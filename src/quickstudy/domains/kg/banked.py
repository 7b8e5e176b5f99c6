"""A field learned with the experience of a bank, and what that was worth: with and without, on labels held out.

    model, worth = learn_with(bank, examples, schema, encoder)
    print(worth.text())            # which fields were asked, with what weight; what they gained; what was switched off

Both ways see the same examples (`worth`); entities and relations are judged apart, and what promises no gain is
switched off.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.bank.near import Neighbour
from quickstudy.bank.store import TaskBank
from quickstudy.domains.kg.document import Annotated, Document
from quickstudy.domains.kg.entities.prior import Prior
from quickstudy.domains.kg.experience import Experience, Seen, chosen, learned
from quickstudy.domains.kg.kept import ENTITIES, RELATIONS
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.relations.related import learn_related
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel, Shipped, shipped_prior
from quickstudy.domains.kg.worth import LEAST, Worth, of_entities, of_relations
from quickstudy.encoders.text import TextEncoder

EXPECTED, GIVE = 2.0, 4.0
"""What neighbours are worth before anything is measured, in points of F1, give or take: on CoNLL04's dev part single
fields of a bank moved entities by -6 to +4 points, those that were near by +2 to +4."""
LEAST_SPREAD = 0.5


@dataclass(frozen=True)
class BankWorth:
    """What a bank's fields were worth to a new one."""

    neighbours: tuple[Neighbour, ...]
    """The fields that were asked, with their weights."""
    judged: tuple[Worth, ...]
    """Of entities and of relations; empty where there was no field to ask, or too little to judge by."""

    def text(self) -> str:
        """For people to read."""
        if not self.neighbours:
            return "The bank holds no field that this one could learn from."
        lines = [
            f"{one.part:<9}  {100 * one.weight:3.0f}%  {one.name} ({one.id}): nearness {one.nearness:.2f}, "
            f"explains {100 * one.explained:.0f}%"
            for one in self.neighbours
        ]
        if not self.judged:
            lines.append(f"Used, and not judged: fewer than {LEAST} labelled documents.")
        for one in self.judged:
            said = "used" if gains(one) else "no gain to be expected, so switched off"
            said = "too little to tell, so used" if said == "used" and one.gain.mean <= 0 else said
            lines.append(
                f"{one.part}: F1 {one.experienced.f1.mean:.1f} with them, {one.frozen.f1.mean:.1f} without, on labels "
                f"held out: {one.gain.text(1, sign=True)} points; {said}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "fields": [vars(one) for one in self.neighbours],
            "parts": [
                {
                    "part": one.part,
                    "with": one.experienced.to_json(),
                    "without": one.frozen.to_json(),
                    "gain": [round(value, 2) for value in (one.gain.mean, one.gain.low, one.gain.high)],
                    "used": gains(one),
                }
                for one in self.judged
            ],
        }


def gains(worth: Worth) -> bool:
    """Whether a bank's experience is used: whether a gain is to be expected, once labels held out have spoken.

    Twenty sentences tell F1 to ten points. So the gain measured on them, of variance s², is weighed with what
    neighbours were worth before:  (gain / s² + EXPECTED / GIVE²) / (1 / s² + 1 / GIVE²) > 0.
    """
    spread = max((worth.gain.high - worth.gain.low) / 3.92, LEAST_SPREAD)
    return worth.gain.mean / spread**2 + EXPECTED / GIVE**2 > 0


def learn_with(
    bank: TaskBank,
    examples: Sequence[Annotated],
    schema: Schema,
    encoder: TextEncoder,
    *,
    prior: Prior | Shipped | None = "shipped",
    relation_prior: RelationPrior | Shipped | None = "shipped",
    documents: Sequence[Document] = (),
    precision: float = 0.9,
    across: int = 0,
    judge_documents: bool = False,
    without: str | None = None,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
    placing: Callable[[int], None] | None = None,
) -> tuple[GraphModel, BankWorth]:
    """Learn a field, starting from what a bank's fields taught, where that helps.

    Args:
        prior, relation_prior: what it is learned on top of: what comes with quickstudy; None is the frozen encoder.
        documents, judge_documents, placing: as `GraphModel.learn` takes them; what a bank taught is judged in any case.
        without: the id of an entry that isn't asked, such as this field's own.

    Raises:
        DataError: as `GraphModel.learn`.
        ModelError: the bank's fields were encoded by another encoder.
    """
    given = [one.checked(schema) for one in examples]
    base = shipped_prior(Prior, encoder) if isinstance(prior, str) else prior
    related = shipped_prior(RelationPrior, encoder) if isinstance(relation_prior, str) else relation_prior
    told, worth = judged_experience(
        bank, given, schema, encoder, base=base, relation_base=related, without=without, seed=seed
    )
    model = GraphModel.learn(
        given, schema, encoder, prior=told.entities, relation_prior=told.relations, documents=documents,
        precision=precision, across=across, judge_documents=judge_documents, seed=seed, progress=progress,
        placing=placing,
    )  # fmt: skip
    return model, worth


def judged_experience(
    bank: TaskBank,
    examples: Sequence[Annotated],
    schema: Schema,
    encoder: TextEncoder,
    *,
    base: Prior | None = None,
    relation_base: RelationPrior | None = None,
    without: str | None = None,
    seen: dict[str, Seen] | None = None,
    seed: int = 0,
) -> tuple[Experience, BankWorth]:
    """What a bank's fields teach a new one, and what that is worth; what gains nothing is `base` again.

    Args:
        seen: as `experience.learned` takes it.
    """
    near = chosen(bank, examples, schema, encoder, without=without)
    if not near:
        return Experience(base, relation_base, ()), BankWorth((), ())
    entries = {id: bank.entry(id) for id in dict.fromkeys(one.id for one in near)}
    told = learned(entries, near, encoder, base=base, relation_base=relation_base, seen=seen)
    asked = {one.part for one in near}
    entities, relations, judged = told.entities, told.relations, []
    if ENTITIES in asked:
        named = [one for one in examples if not one.partial]
        # The network isn't tuned on the examples: that takes half a minute each time, and is the same for both.
        found = of_entities(named, schema, entities, encoder, against=base, tuned=False, seed=seed)
        if found is not None:
            judged.append(found)
            entities = entities if gains(found) else base
    if RELATIONS in asked:

        def learn(some: Sequence[Annotated], given: RelationPrior | None):
            return learn_related(some, schema, encoder, given, 0.9, 0, seed)

        found = of_relations(examples, schema, relations, learn, against=relation_base, seed=seed)
        if found is not None:
            judged.append(found)
            relations = relations if gains(found) else relation_base
    return Experience(entities, relations, told.neighbours), BankWorth(tuple(near), tuple(judged))
