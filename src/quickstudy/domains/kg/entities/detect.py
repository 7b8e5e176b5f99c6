"""Where entities stand: each word begins one (B), goes on with it (I), or is outside (O).

    p(y | word) ∝ exp(W h)        W = argmin Σ -log p(y_i | h_i) + λ/2 ‖W - W₀‖²

W₀ is what past corpora taught (`tune`), so λ says how much the new examples may change it; it is chosen by leaving out
sentences. Scores of pairs of neighbouring labels, counted in past corpora, join in; Viterbi's path gives the spans.
The layout is that of Ramshaw & Marcus 1995, arXiv:cmp-lg/9505040; a prior mean for adaptation: Chelba & Acero 2004.

A span inside of another is found by a second detector, which is learned where the examples have such spans.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from quickstudy.domains.kg.entities.tune import B, I, O, tags, with_one

NEVER = -1e4
STRENGTHS = (1.0, 10.0, 100.0)
"""Values of λ to choose from."""
FOLDS = 4
WORDS = 2_000
"""With more words than this, λ is chosen on the first so many."""
Place = tuple[int, int]


@dataclass(frozen=True)
class Detector:
    """Scores of words, and of neighbouring labels."""

    weights: Float[Tensor, "3 dim_and_one"]
    pairs: Float[Tensor, "3 3"]
    """Added to the score of a label (column) after another (row)."""

    def find(self, states: Float[Tensor, "word dim"]) -> list[tuple[Place, float]]:
        """The spans of one sentence's best path, each with the probability that it is one, from 0 to 1."""
        return self.find_all(states.unsqueeze(0), [len(states)])[0]

    def find_all(
        self, states: Float[Tensor, "sentence word dim"], lengths: Sequence[int]
    ) -> list[list[tuple[Place, float]]]:
        """The same of many sentences, padded to the longest."""
        if not sum(lengths):
            return [[] for _ in lengths]
        scores = F.log_softmax(with_one(states) @ self.weights.t(), -1)
        size = torch.tensor(lengths)
        paths = best_paths(scores, self.pairs, size).tolist()
        places = [places_of(path[:n]) for path, n in zip(paths, lengths, strict=True)]
        chances = probabilities(scores, self.pairs, size, places)
        return [list(zip(*both, strict=True)) for both in zip(places, chances, strict=True)]


def fit(
    states: Sequence[Float[Tensor, "word dim"]],
    labels: Sequence[Int[Tensor, " word"]],
    start: Float[Tensor, "3 dim_and_one"],
    strength: float,
) -> Float[Tensor, "3 dim_and_one"]:
    """W for labelled sentences: convex, so where it starts from doesn't matter to what it finds."""
    x, y = with_one(torch.cat(list(states))), torch.cat(list(labels))
    weights = start.clone().requires_grad_(True)
    solver = torch.optim.LBFGS([weights], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weights.t(), y, reduction="sum")
        value = value + strength / 2 * (weights - start).pow(2).sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(closure)  # pyright: ignore[reportArgumentType]
    return weights.detach()


def choose_strength(
    states: Sequence[Float[Tensor, "word dim"]],
    labels: Sequence[Int[Tensor, " word"]],
    start: Float[Tensor, "3 dim_and_one"],
) -> float:
    """λ of the least loss on sentences left out in turn; the largest for fewer than two sentences."""
    kept, total = 0, 0
    while kept < len(states) and total < WORDS:
        total, kept = total + len(states[kept]), kept + 1
    states, labels = states[:kept], labels[:kept]
    if kept < 2:
        return STRENGTHS[-1]
    folds = [range(i, kept, FOLDS) for i in range(min(FOLDS, kept))]
    losses = []
    for strength in STRENGTHS:
        value = 0.0
        for out in folds:
            rest = [i for i in range(kept) if i not in out]
            weights = fit([states[i] for i in rest], [labels[i] for i in rest], start, strength)
            x, y = with_one(torch.cat([states[i] for i in out])), torch.cat([labels[i] for i in out])
            value += float(F.cross_entropy(x @ weights.t(), y, reduction="sum"))
        losses.append(value)
    return STRENGTHS[losses.index(min(losses))]


def pair_scores(labels: Sequence[Int[Tensor, " word"]], weight: float = 0.5) -> Float[Tensor, "3 3"]:
    """Scores log p(next | label) - log p(next), from counts, times `weight`; I after O never is."""
    count = torch.ones(3, 3)
    for row in labels:
        for before, after in zip(row[:-1].tolist(), row[1:].tolist(), strict=True):
            count[before, after] += 1
    after = count / count.sum(1, keepdim=True)
    scores = weight * (after.log() - (count.sum(0) / count.sum()).log())
    scores[O, I] = NEVER
    return scores


def best_paths(
    scores: Float[Tensor, "sentence word 3"], pairs: Float[Tensor, "3 3"], size: Int[Tensor, " sentence"]
) -> Int[Tensor, "sentence word"]:
    """Viterbi: the labels of the highest sum of scores. Past a sentence's last word they mean nothing."""
    best, back = _first(scores), []
    same = torch.arange(3).expand(len(scores), 3)
    for k in range(1, scores.shape[1]):
        value, came = (best.unsqueeze(2) + pairs).max(1)
        inside = (k < size).unsqueeze(1)
        best = torch.where(inside, value + scores[:, k], best)
        back.append(torch.where(inside, came, same))
    path = [best.argmax(1)]
    for came in reversed(back):
        path.append(came.gather(1, path[-1].unsqueeze(1)).squeeze(1))
    return torch.stack(path[::-1], 1)


def probabilities(
    scores: Float[Tensor, "sentence word 3"],
    pairs: Float[Tensor, "3 3"],
    size: Int[Tensor, " sentence"],
    places: Sequence[Sequence[Place]],
) -> list[list[float]]:
    """How probable it is that exactly these words are a span, over all paths (forward and backward sums)."""
    longest = scores.shape[1]
    forward, backward = [_first(scores)], [torch.zeros(len(scores), 3)]
    for k in range(1, longest):
        value = torch.logsumexp(forward[-1].unsqueeze(2) + pairs, 1) + scores[:, k]
        forward.append(torch.where((k < size).unsqueeze(1), value, forward[-1]))
    for k in range(longest - 1, 0, -1):
        value = torch.logsumexp(pairs + (scores[:, k] + backward[-1]).unsqueeze(1), 2)
        backward.append(torch.where((k < size).unsqueeze(1), value, backward[-1]))
    total = torch.logsumexp(forward[-1], 1)
    row = torch.tensor([i for i, found in enumerate(places) for _ in found], dtype=torch.long)
    first, end = (torch.tensor([p[i] for f in places for p in f], dtype=torch.long) for i in (0, 1))
    go_on = F.pad(
        (scores[..., I] + pairs[I, I]).cumsum(1), (1, 0)
    )  # over words of one label, a difference of sums
    value = torch.stack(forward, 1)[row, first, B] + go_on[row, end] - go_on[row, first + 1]
    value = value + torch.where(end - first > 1, pairs[B, I] - pairs[I, I], torch.zeros(()))
    # What follows may be anything but I; behind the last word nothing follows.
    last = torch.where(end - first > 1, I, B)
    beyond = end.clamp(max=longest - 1)
    after = pairs[last] + scores[row, beyond] + torch.stack(backward[::-1], 1)[row, beyond]
    after = torch.logsumexp(after[:, [B, O]], 1)
    value = value + torch.where(end < size[row], after, torch.zeros(()))
    found = iter((value - total[row]).exp().clamp(max=1.0).tolist())
    return [[next(found) for _ in row] for row in places]


def _first(scores: Float[Tensor, "sentence word 3"]) -> Float[Tensor, "sentence 3"]:
    """Scores of the first word, where nothing can go on."""
    never = torch.zeros(3)
    never[I] = NEVER
    return scores[:, 0] + never


def places_of(path: Sequence[int]) -> list[Place]:
    """The spans of a row of labels; an I that continues nothing begins one."""
    found, begin = [], None
    for i, label in enumerate([*path, O]):
        if begin is not None and label != I:
            found.append((begin, i))
            begin = None
        if label == B or (label == I and begin is None):
            begin = i
    return found


def levels(spans: Sequence[tuple[int, int, int]]) -> tuple[list, list]:
    """Spans that lie in no other, and those that do."""
    inner = [s for s in spans if any(o[:2] != s[:2] and o[0] <= s[0] and s[1] <= o[1] for o in spans)]
    return [s for s in spans if s not in inner], inner


def labels_of(lengths: Sequence[int], spans: Sequence[Sequence[tuple[int, int, int]]]) -> list[Tensor]:
    """B, I or O for the words of each sentence."""
    return [tags(length, found) for length, found in zip(lengths, spans, strict=True)]
