"""Relations between the entities of a text, learned from a few examples each; none where none is said.

A relation is asserted when it is sure enough: below the stated precision a triple is for review. Types of head and tail
that the schema doesn't admit are never answered; a relation with a direction holds in one of the two, a symmetric one
in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.domains.kg.calibrate import check_precision
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.relations.certainty import (
    Certainty,
    evidence,
    likeness,
    nearness,
    own_certainty,
    prototypes,
)
from quickstudy.domains.kg.relations.examples import Example, turned_round
from quickstudy.domains.kg.relations.head import Head, learn_head
from quickstudy.domains.kg.relations.names import named
from quickstudy.domains.kg.relations.pairs import Candidate, Pair, PairEncoder, candidates
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.schema import Schema
from quickstudy.encoders.text import TextEncoder
from quickstudy.learners import MAML
from quickstudy.nets import MLP

MOST_NEGATIVES = 2000
"""Unrelated pairs that are kept, at most."""


class Said(NamedTuple):
    """That a text says of two spans that they are related."""

    head: int
    tail: int
    type: str
    probability: float
    sure: bool
    """Whether it reaches the stated precision; otherwise it is for review."""


@dataclass(frozen=True)
class RelationClassifier:
    """Made by `learn_relations`; it holds the features of its examples, so it can say which spoke for an answer."""

    schema: Schema
    prior: RelationPrior
    pairs: PairEncoder
    types: tuple[str, ...]
    """The relations that have examples."""
    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    examples: tuple[Example, ...]
    """What the rows of x are."""
    unrelated: Float[Tensor, "m d"]
    others: tuple[Example, ...]
    """What the rows of `unrelated` are: labelled so, or turned round."""
    certainty: Certainty
    precision: float
    maml: MAML | None = None
    """A head that follows gradients and chooses the relation in place of the nearest mean; how sure it is, the means
    say."""
    head: Head | None = None
    """Tells pairs from those that are merely named together; None where nobody labelled such."""
    names: Float[Tensor, "relations d"] | None = None
    """Vectors of what the names and descriptions of all the schema's relations make; None where the prior knows of none
    before.
    """

    @property
    def labelled(self) -> int:
        """How many pairs were labelled, as related or not; those that were turned round don't count."""
        return len(self.examples) + sum(not other.turned for other in self.others)

    def cosines(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n ways"]:
        """How alike pairs are to each relation: to the direction of its examples' mean, its name among them."""
        return x @ self._prototypes.t()

    @cached_property
    def _prototypes(self) -> Float[Tensor, "ways d"]:
        return prototypes(self.x, self.y, len(self.types), _named(self, self.types))

    @cached_property
    def _alike(self) -> Float[Tensor, " ways"]:
        return likeness(self.x, self.y, self._prototypes)

    def judge(
        self,
        pairs: Sequence[Pair],
        admitted: Bool[Tensor, "n ways"] | None = None,
        ends: Sequence[tuple[str, str]] | None = None,
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """The best relation of each pair, and the probability that the text says it.

        Args:
            admitted: which relations a pair's types allow; 0 is the probability where there is none.
            ends: types of heads and tails; without them the nearest mean answers.
        """
        if not pairs:
            return torch.empty(0, dtype=torch.long), torch.empty(0)
        return self._judged(self.prior.features(self.pairs.encode(pairs)), admitted, ends)

    def _judged(
        self,
        x: Float[Tensor, "n d"],
        admitted: Bool[Tensor, "n ways"] | None,
        ends: Sequence[tuple[str, str]] | None = None,
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        if self.head is not None and self.maml is None and ends is not None and admitted is not None:
            best = self.head.logits(x, ends, admitted)[:, :-1].argmax(-1)
            return best, self._headed(self.head, x, best, admitted, ends).sigmoid()
        cosine, chosen = self.cosines(x), None
        possible = torch.ones_like(cosine, dtype=torch.bool) if admitted is None else admitted
        cosine = torch.where(possible, cosine, -1.0)
        if self.maml is not None:
            chosen = torch.where(possible, _adapted(self.maml, self.x, self.y, x), -torch.inf).argmax(-1)
        counts = torch.bincount(self.y, minlength=len(self.types)).float()
        near = nearness(x, self.unrelated) if len(self.unrelated) else None
        phi, best = evidence(cosine, counts, near, chosen, self._alike, self.prior.usual(x))
        probability = self.certainty.logit(phi).sigmoid()
        if admitted is not None:
            probability = probability * admitted[torch.arange(len(x)), best]
        return best, probability

    def log_odds(
        self,
        x: Float[Tensor, "n d"],
        kind: str,
        admitted: Bool[Tensor, "n ways"] | None = None,
        ends: Sequence[tuple[str, str]] | None = None,
    ) -> Float[Tensor, " n"]:
        """Log-odds that pairs, given by their features, have a relation, be it their best or not; `ends` as in
        `judge`.
        """
        if self.head is not None and self.maml is None and ends is not None and admitted is not None:
            chosen = torch.full((len(x),), self.types.index(kind))
            return self._headed(self.head, x, chosen, admitted, ends)
        return self._certain(x, torch.full((len(x),), self.types.index(kind)), admitted)

    def _headed(
        self,
        head: Head,
        x: Float[Tensor, "n d"],
        chosen: Int[Tensor, " n"],
        admitted: Bool[Tensor, "n ways"],
        ends: Sequence[tuple[str, str]],
    ) -> Float[Tensor, " n"]:
        """Log-odds by the head. Where few pairs of such types were labelled as unrelated, it has seen nothing but
        related ones: then no more than what earlier relations taught of how alike these are.
        """
        p = head.logits(x, ends, admitted)[torch.arange(len(x)), chosen].exp().double()
        odds, known = torch.logit(p, 1e-6).float(), head.knows(ends)
        if not bool(known.all()):
            odds = torch.where(known, odds, torch.minimum(odds, self._certain(x, chosen, admitted)))
        return odds

    def _certain(
        self, x: Float[Tensor, "n d"], chosen: Int[Tensor, " n"], admitted: Bool[Tensor, "n ways"] | None
    ) -> Float[Tensor, " n"]:
        """Log-odds by how alike a pair is to the examples of a relation."""
        cosine = self.cosines(x)
        cosine = cosine if admitted is None else torch.where(admitted, cosine, -1.0)
        counts = torch.bincount(self.y, minlength=len(self.types)).float()
        near = nearness(x, self.unrelated) if len(self.unrelated) else None
        phi, _ = evidence(cosine, counts, near, chosen, self._alike, self.prior.usual(x))
        return self.certainty.logit(phi)

    def without(self, origin: int) -> "RelationClassifier | None":
        """What would have been learned without a labelled document: the same to the last digit, as the encoder learns
        nothing from it; but unrelated pairs beyond `MOST_NEGATIVES` stay out. None where no relation would be left.
        """
        related = [e for e in self.examples if e.origin != origin]
        if not related:
            return None
        # That this document related a pair may have kept it from being a negative.
        before = set(turned_round(self.examples, self.schema))
        freed = [e for e in turned_round(related, self.schema) if e not in before]
        kept = [*related, *(e for e in self.others if e.origin != origin), *freed]
        x, prior = torch.stack([self._vectors[e.pair] for e in kept]), self.prior
        if prior.untaught:
            own = [i for i, e in enumerate(kept) if not e.turned]
            prior = prior.recentred(x[own], [kept[i].type for i in own])
        return _learned(replace(self, prior=prior), kept, prior.features(x))

    @cached_property
    def _vectors(self) -> dict[Pair, Float[Tensor, " d"]]:
        """Vectors of all pairs that it was or might be learned from, before the prior: read once for all `without`."""
        known = (*self.examples, *self.others)
        pairs = list(dict.fromkeys(pair for e in known for pair in (e.pair, e.pair.turned())))
        return dict(zip(pairs, self.pairs.encode(pairs), strict=True))

    def extract(self, annotated: Annotated, *, across: int = 0, least: float = 0.5) -> list[Said]:
        """The relations that a document says of its spans, in the order of their heads.

        Args:
            across: how many sentence ends may lie between head and tail.
            least: probability below which nothing is said, not even for review.
        """
        return self.extract_all([annotated], across=across, least=least)[0]

    def extract_all(
        self, documents: Sequence[Annotated], *, across: int = 0, least: float = 0.5
    ) -> list[list[Said]]:
        """The same of many documents, whose sentences are read together."""
        asked: list[Pair] = []
        allowed: list[list[bool]] = []
        types: list[tuple[str, str]] = []
        places: list[list[Candidate]] = []
        for annotated in documents:
            kinds, own = [span.type for span in annotated.spans], []
            admitted = {
                ends: [self.schema.admits(t, *ends) for t in self.types]
                for ends in product(set(kinds), repeat=2)
            }
            for place, pair in candidates(annotated, across=across):
                # What no relation admits needn't be read.
                ends = kinds[place.head], kinds[place.tail]
                if any(admitted[ends]):
                    own.append(place)
                    asked.append(pair)
                    allowed.append(admitted[ends])
                    types.append(ends)
            places.append(own)
        if not asked:
            return [[] for _ in documents]
        best, probability = self.judge(asked, torch.tensor(allowed), types)
        answers = zip(best.tolist(), probability.tolist(), strict=True)
        return [self._said({place: next(answers) for place in own}, least) for own in places]

    def _said(self, answers: Mapping[Candidate, tuple[int, float]], least: float) -> list[Said]:
        said = []
        for place, (kind, p) in answers.items():
            other, there = answers.get(Candidate(place.tail, place.head), (-1, 0.0))
            if p < least or (other == kind and (there, place.tail) > (p, place.head)):
                continue  # the same relation the other way round is likelier, or is the symmetric one's first
            said.append(Said(place.head, place.tail, self.types[kind], p, p >= self.precision))
        return sorted(said)

    def nearest(self, pair: Pair, kind: str, most: int = 3) -> list[tuple[Example, float]]:
        """Which labelled examples speak for a relation of a pair: the most alike, with their cosine."""
        if kind not in self.types:
            raise DataError(f"{kind!r} has no examples.{did_you_mean(kind, self.types)}")
        [x] = self.prior.features(self.pairs.encode([pair]))
        rows = (self.y == self.types.index(kind)).nonzero().squeeze(-1)
        cosine = self.x[rows] @ x
        order = cosine.argsort(descending=True)[:most]
        return [(self.examples[int(rows[i])], float(cosine[i])) for i in order]


def learn_relations(
    examples: Sequence[Example],
    schema: Schema,
    prior: RelationPrior,
    encoder: TextEncoder,
    *,
    precision: float = 0.9,
    maml: MAML | None = None,
    seed: int = 0,
) -> RelationClassifier:
    """Learn relations from labelled pairs.

    Pairs of a relation that isn't symmetric, turned round, are learned as unrelated where no example relates them so.

    Args:
        precision: an answer at least so probable is sure.
        maml: a learner whose head replaces the nearest mean: `maml_head` gives one.
        seed: which unrelated pairs are kept where there are very many.

    Raises:
        DataError: no example of any relation, an unknown relation, or a precision outside of 0 to 1.
    """
    check_precision(precision)
    for row, example in enumerate(examples):
        if example.type is not None and example.type not in schema.relations:
            raise DataError(
                f"an example of the relation {example.type!r}, which the schema doesn't have."
                f"{did_you_mean(example.type, schema.relations)} Examples are counted from 0.",
                row=row,
            )
    related = [example for example in examples if example.type is not None]
    if not related:
        raise DataError("There is no example of any relation; label at least one.")
    unrelated = [*(e for e in examples if e.type is None), *turned_round(related, schema)]
    if len(unrelated) > MOST_NEGATIVES:
        order = torch.randperm(len(unrelated), generator=torch.Generator().manual_seed(seed))
        unrelated = [unrelated[i] for i in order[:MOST_NEGATIVES].sort().values]
    pairs = prior.pair_encoder(encoder)
    kept, none = [*related, *unrelated], torch.empty(0, dtype=torch.long)
    x = prior.features(pairs.encode([e.pair for e in kept]))
    names = None
    if prior.naming is not None:
        names = pairs.encode([named(name, kind.description) for name, kind in schema.relations.items()])
    nothing = RelationClassifier(
        schema, prior, pairs, (), x[:0], none, (), x[:0], (), prior.certainty, precision, maml, names=names
    )
    return _learned(nothing, kept, x)


def _named(by: RelationClassifier, types: Sequence[str]) -> Float[Tensor, "ways d"] | None:
    """What stands for the names of relations among their examples."""
    if by.names is None:
        return None
    known = list(by.schema.relations)
    return by.prior.names(by.names[[known.index(kind) for kind in types]])


def _learned(
    like: RelationClassifier, everything: Sequence[Example], features: Float[Tensor, "n d"]
) -> RelationClassifier:
    """All that follows from the features of the examples, those of relations first; anything else is `like`'s."""
    related = [e for e in everything if e.type is not None]
    unrelated, x, other = everything[len(related) :], features[: len(related)], features[len(related) :]
    present, said = {e.type for e in related}, {e.pair for e in related}
    types = tuple(kind for kind in like.schema.relations if kind in present)
    y = torch.tensor([types.index(e.type or "") for e in related])
    prior, cohort = like.prior, like.prior.placed
    # Related pairs turned round are like what is asked for in all but types that no relation admits: of these it is
    # never asked, and to be unsure of them would be to be unsure of the related ones.
    asked = torch.tensor(
        [like.schema.possible(e.head_type, e.tail_type) for e in unrelated], dtype=torch.bool
    )
    own = own_certainty(prior.certainty, x, y, other[asked], len(types), _named(like, types), cohort)
    maml = None if like.maml is None else maml_head(len(types), prior.dim, like.maml)
    ends = [(e.head_type, e.tail_type) for e in everything]
    head = learn_head(
        features,
        ends,
        torch.tensor([[like.schema.admits(t, *both) for t in types] for both in ends]),
        torch.cat([y, torch.full((len(other),), len(types))]),
        [str(e.origin) if e.origin >= 0 else e.pair.text for e in everything],
        [e.type is None and e.pair.turned() in said for e in everything],
    )
    return replace(
        like, types=types, x=x, y=y, examples=tuple(related), unrelated=other, others=tuple(unrelated),
        certainty=own, maml=maml, head=head,
    )  # fmt: skip


def maml_head(ways: int, dim: int, like: MAML | None = None) -> MAML:
    """MAML on one linear layer from 0, so that any number of relations starts alike (Finn et al. 2017)."""
    net = MLP(inputs=dim, outputs=ways, hidden=())
    steps, rate = (20, 2.0) if like is None else (like.steps, like.rate)
    return MAML(objective=Classify(ways=ways), net=net, steps=steps, rate=rate, zero_head=True)


def _adapted(
    maml: MetaLearner, x: Float[Tensor, "n d"], y: Int[Tensor, " n"], query: Float[Tensor, "m d"]
) -> Float[Tensor, "m ways"]:
    """Logits of the head after its steps on the examples."""
    meta = maml.init(0)
    fast = maml.adapt(meta, Labelled.of(x, y))
    with torch.no_grad():
        return maml.predict(meta, fast, query)
