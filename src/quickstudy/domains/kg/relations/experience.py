"""From earlier relations to a prior: tune the encoder, learn the scatter, and how sure to be on relations not met."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.domains.kg.relations.pairs import PairEncoder
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.relations.strangers import strangers
from quickstudy.domains.kg.relations.tune import Earlier, Progress, RelationTuning, tune_relations
from quickstudy.encoders.text import TextEncoder

FOUND = 300
"""So many unrelated pairs of a data set, at most; they are looked for where it marks none."""
HELD, LEAST = 7, 14
"""So many relations of a data set with at least `LEAST` are kept from the tuning that certainty is learned after."""


def learn_relation_prior(
    earlier: Sequence[Earlier],
    encoder: TextEncoder,
    tuning: RelationTuning | None = None,
    *,
    tune_encoder: bool = True,
    each: int = 40,
    seeds: Sequence[int] = (0,),
    progress: Progress | None = None,
) -> RelationPrior:
    """Learn a prior from earlier relations.

    A tuned encoder knows the relations that it was tuned on too well to say how sure one can be of others. So it is
    tuned twice: on all of them, to be used; and without some, on which certainty is then learned.

    Args:
        earlier: data sets of earlier relations; labels of None are pairs that aren't related.
        tuning: how the encoder is tuned.
        tune_encoder: otherwise it stays frozen, and all is closed form.
        each: pairs of a relation, at most, that scatter and certainty are learned from.
        seeds: of tuning; the adapters of several are averaged.

    Raises:
        DataError: no data set with two relations and pairs enough.
    """
    begin, base = time.process_time(), encoder.frozen
    made: dict[str, Any] = {"seeds": list(seeds), "relations": [len(_relations(one)) for one in earlier]}
    if not tune_encoder:
        pairs = PairEncoder(base)
        known = encoded(pairs, earlier, each)
        return RelationPrior.estimate(pairs, *known, encoded_names(pairs, earlier), record=made)
    tuning = tuning or RelationTuning()
    adapter = tune_relations(earlier, base, tuning, seeds=seeds, progress=progress)
    pairs = PairEncoder(base.with_adapter(adapter))
    prior = RelationPrior.estimate(pairs, *encoded(pairs, earlier, each), encoded_names(pairs, earlier))
    seen, unseen = _held_out(earlier, seeds[0])
    if unseen:
        other = tune_relations(seen, base, tuning, seeds=seeds[:1], progress=progress)
        pairs = PairEncoder(base.with_adapter(other))
        judge = RelationPrior.estimate(pairs, *encoded(pairs, seen, each), encoded_names(pairs, seen))
        apart = *encoded(pairs, unseen, each), encoded_names(pairs, unseen)
        prior = prior.with_certainty(judge.calibrated(*apart))
    made |= {"steps": tuning.steps, "CPU-s": round(time.process_time() - begin)}
    return prior.with_record(made)


def encoded(pairs: PairEncoder, earlier: Sequence[Earlier], each: int) -> tuple[list[Labelled], list[Tensor]]:
    """Of each data set, vectors of pairs by relation, and of those that aren't related."""
    tasks, unrelated = [], []
    for one in earlier:
        number = {name: i for i, name in enumerate(_relations(one))}
        rows: dict[str | None, list[int]] = {}
        for row, label in enumerate(one.labels):
            if len(rows.setdefault(label, [])) < (FOUND if label is None else each):
                rows[label].append(row)
        chosen = [row for own in rows.values() for row in own]
        x = pairs.encode([one.pairs[row] for row in chosen])
        y = torch.tensor([number.get(one.labels[row] or "", -1) for row in chosen], dtype=torch.long)
        tasks.append(Labelled.of(x[y >= 0], y[y >= 0]))
        if bool((y < 0).any()):
            unrelated.append(x[y < 0])
            continue
        rng = np.random.default_rng(0)
        others = [other for row in rng.permutation(chosen)[:FOUND] for other in strangers(one.pairs[row])]
        unrelated.append(pairs.encode(others[:FOUND]))
    return tasks, unrelated


def encoded_names(pairs: PairEncoder, earlier: Sequence[Earlier]) -> list[Tensor | None]:
    """Of each data set, vectors of what its relations' names make, in their order; None where they have none."""
    known = [one.names(_relations(one)) for one in earlier]
    return [pairs.encode(names) if names else None for names in known]


def _relations(one: Earlier) -> list[str]:
    return sorted({label for label in one.labels if label is not None})


def _held_out(earlier: Sequence[Earlier], seed: int) -> tuple[list[Earlier], list[Earlier]]:
    """Data sets without some of their relations, and these."""
    rng, seen, unseen = np.random.default_rng(seed), [], []
    for one in earlier:
        names = _relations(one)
        out = set(rng.permutation(names)[:HELD].tolist()) if len(names) >= LEAST else set()
        seen.append(_part(one, [row for row, label in enumerate(one.labels) if label not in out]))
        if out:
            rows = [row for row, label in enumerate(one.labels) if label is None or label in out]
            unseen.append(_part(one, rows))
    return seen, unseen


def _part(one: Earlier, rows: Sequence[int]) -> Earlier:
    return Earlier([one.pairs[row] for row in rows], [one.labels[row] for row in rows], one.weight, one.named)
