"""Where entities stand and what they are, decided together: the best path through labels that carry a type.

    score(path) = Σ_k e(y_k) + pairs(y_k-1, y_k) + [y_k isn't O] log p(t_k | word k) - [y_k is I] ALIKE log p(t_k)

with y in {O, B of each type t, I of each type t}, e the detector's log-probabilities, and I going on with its own type
alone. So "Cape Town Supreme Court Judge Berman" is a place, an institution and a person, where a path without types
takes a run of capitals for one name. With ALIKE = 1 this is Bayes' rule for words that say independently of which type
they are: where they say nothing, types change nothing; but words of one name aren't independent. Viterbi 1967; sums
over all paths: Rabiner 1989.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from quickstudy.domains.kg.entities.tune import B, I, O

NEVER = -1e4
ALIKE = 0.7
"""Chosen on the dev parts of CoNLL04, BC5CDR and CrossNER's politics and AI, one seed: 1.2 to 1.4 points of F1 over
paths without types on the first three, .3 on the last. At 1, CoNLL04 gains .5 less; at .5, BC5CDR gains .6 less."""
Place = tuple[int, int]


class Marks(NamedTuple):
    """What labels score in padded sentences."""

    begin: Float[Tensor, "sentence word type"]
    inside: Float[Tensor, "sentence word type"]
    outside: Float[Tensor, "sentence word"]
    pairs: Float[Tensor, "3 3"]
    size: Int[Tensor, " sentence"]


def marks(
    scores: Float[Tensor, "sentence word 3"],
    kinds: Float[Tensor, "sentence word type"],
    often: Float[Tensor, " type"],
    pairs: Float[Tensor, "3 3"],
    size: Int[Tensor, " sentence"],
) -> Marks:
    """From the detector's log-probabilities and those of types, of a word of an entity and of all such words."""
    begin, inside = scores[..., B : B + 1] + kinds, scores[..., I : I + 1] + kinds - ALIKE * often
    return Marks(begin, inside, scores[..., O], pairs, size)


def best_places(given: Marks) -> list[list[Place]]:
    """The spans of each sentence's best path."""
    sentences, longest, ways = given.begin.shape
    pairs = given.pairs
    begun, on, out = given.begin[:, 0], torch.full_like(given.begin[:, 0], NEVER), given.outside[:, 0]
    came = []
    for k in range(1, longest):
        # The labels before, as rows: B of each type, I of each type, O.
        before = torch.cat([begun, on, out.unsqueeze(1)], 1)
        follow = torch.cat([pairs[B].expand(ways, 3), pairs[I].expand(ways, 3), pairs[O].unsqueeze(0)])
        enter, enters = (before + follow[:, B]).max(1)
        leave, leaves = (before + follow[:, O]).max(1)
        stays = on + pairs[I, I] > begun + pairs[B, I]
        keep = torch.where(stays, on + pairs[I, I], begun + pairs[B, I])
        own = torch.arange(ways).expand(sentences, ways)
        came.append((enters, torch.where(stays, own + ways, own), leaves))
        inside = (k < given.size).unsqueeze(1)
        begun = torch.where(inside, enter.unsqueeze(1) + given.begin[:, k], begun)
        on = torch.where(inside, keep + given.inside[:, k], on)
        out = torch.where(inside.squeeze(1), leave + given.outside[:, k], out)
    last = torch.cat([begun, on, out.unsqueeze(1)], 1).argmax(1).tolist()
    back = [[part.tolist() for part in step] for step in came]
    found = []
    for row, size in enumerate(given.size.tolist()):
        path = [last[row]]
        for enters, stays, leaves in reversed(back[: size - 1]):
            label = path[-1]
            path.append(
                enters[row]
                if label < ways
                else leaves[row]
                if label == 2 * ways
                else stays[row][label - ways]
            )
        found.append(_places(path[::-1][:size], ways))
    return found


def _places(path: Sequence[int], ways: int) -> list[Place]:
    found, begin = [], None
    for k, label in enumerate([*path, 2 * ways]):
        if begin is not None and not ways <= label < 2 * ways:
            found.append((begin, k))
            begin = None
        if label < ways:
            begin = k
    return found


def chances(given: Marks, places: Sequence[Sequence[Place]]) -> list[list[float]]:
    """How probable it is that exactly these words are a span, of whichever type, over all paths."""
    forward, backward, total = _sums(given)
    row = torch.tensor([i for i, found in enumerate(places) for _ in found], dtype=torch.long)
    if not len(row):
        return [[] for _ in places]
    first, end = (torch.tensor([p[i] for found in places for p in found], dtype=torch.long) for i in (0, 1))
    pairs = given.pairs
    # Of words that go on with one type, a difference of sums.
    go_on = F.pad((given.inside + pairs[I, I]).cumsum(1), (0, 0, 1, 0))
    value = forward.begin[row, first] + go_on[row, end] - go_on[row, first + 1]
    long = end - first > 1
    value = value + torch.where(long, pairs[B, I] - pairs[I, I], torch.zeros(())).unsqueeze(1)
    value = value.logsumexp(1)
    # What follows may be anything but a going on; behind the last word nothing follows.
    last = torch.where(long, I, B)
    beyond = end.clamp(max=given.begin.shape[1] - 1)
    begins = (given.begin + backward.begin)[row, beyond].logsumexp(1) + pairs[last, B]
    outside = (given.outside + backward.outside)[row, beyond] + pairs[last, O]
    after = torch.logaddexp(begins, outside)
    value = value + torch.where(end < given.size[row], after, torch.zeros(()))
    found = iter((value - total[row]).exp().clamp(max=1.0).tolist())
    return [[next(found) for _ in own] for own in places]


class _Sums(NamedTuple):
    begin: Float[Tensor, "sentence word type"]
    outside: Float[Tensor, "sentence word"]


def _sums(given: Marks) -> tuple[_Sums, _Sums, Float[Tensor, " sentence"]]:
    """Logs of the sums over all paths up to each word, over those from each word on, and over whole ones."""
    pairs, longest = given.pairs, given.begin.shape[1]
    begun, on, out = given.begin[:, 0], torch.full_like(given.begin[:, 0], NEVER), given.outside[:, 0]
    begins, outs = [begun], [out]
    for k in range(1, longest):
        inside = (k < given.size).unsqueeze(1)
        before = begun.logsumexp(1), on.logsumexp(1), out
        enter, leave = (
            torch.stack([value + pairs[label, to] for label, value in enumerate(before)]).logsumexp(0)
            for to in (B, O)
        )
        keep = torch.logaddexp(begun + pairs[B, I], on + pairs[I, I])
        begun = torch.where(inside, enter.unsqueeze(1) + given.begin[:, k], begun)
        on = torch.where(inside, keep + given.inside[:, k], on)
        out = torch.where(inside.squeeze(1), leave + given.outside[:, k], out)
        begins.append(begun)
        outs.append(out)
    total = torch.stack([begun.logsumexp(1), on.logsumexp(1), out]).logsumexp(0)
    ahead, further, away = torch.zeros_like(begun), torch.zeros_like(on), torch.zeros_like(out)
    aheads, aways = [ahead], [away]
    for k in range(longest - 1, 0, -1):
        inside = (k < given.size).unsqueeze(1)
        enter, leave = (given.begin[:, k] + ahead).logsumexp(1), given.outside[:, k] + away
        keep = given.inside[:, k] + further
        after = [torch.logaddexp(enter + pairs[label, B], leave + pairs[label, O]) for label in (B, I, O)]
        ahead = torch.where(inside, torch.logaddexp(after[B].unsqueeze(1), keep + pairs[B, I]), ahead)
        further = torch.where(inside, torch.logaddexp(after[I].unsqueeze(1), keep + pairs[I, I]), further)
        away = torch.where(inside.squeeze(1), after[O], away)
        aheads.append(ahead)
        aways.append(away)
    until = _Sums(torch.stack(begins, 1), torch.stack(outs, 1))
    return until, _Sums(torch.stack(aheads[::-1], 1), torch.stack(aways[::-1], 1)), total
