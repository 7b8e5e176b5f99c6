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

    def emissions(self, states: Float[Tensor, "word dim"]) -> Float[Tensor, "word 3"]:
        return F.log_softmax(with_one(states) @ self.weights.t(), -1)

    def find(self, states: Float[Tensor, "word dim"]) -> list[tuple[Place, float]]:
        """The spans of the best path, each with the probability that it is one, from 0 to 1."""
        if not len(states):
            return []
        scores = self.emissions(states)
        places = places_of(best_path(scores, self.pairs))
        return list(zip(places, probabilities(scores, self.pairs, places), strict=True))


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


def best_path(scores: Float[Tensor, "word 3"], pairs: Float[Tensor, "3 3"]) -> list[int]:
    """Viterbi: the labels of the highest sum of scores."""
    best, back = scores[0].clone(), []
    best[I] += NEVER
    for row in scores[1:]:
        value, came = (best.unsqueeze(1) + pairs).max(0)
        back.append(came.tolist())
        best = value + row
    path = [int(best.argmax())]
    for came in reversed(back):
        path.append(came[path[-1]])
    return path[::-1]


def probabilities(
    scores: Float[Tensor, "word 3"], pairs: Float[Tensor, "3 3"], places: Sequence[Place]
) -> list[float]:
    """How probable it is that exactly these words are a span, over all paths (forward and backward sums)."""
    start = scores[0].clone()
    start[I] += NEVER
    forward, backward = [start], [torch.zeros(3)]
    for row in scores[1:]:
        forward.append(torch.logsumexp(forward[-1].unsqueeze(1) + pairs, 0) + row)
    for row in scores.flip(0)[:-1]:
        backward.append(torch.logsumexp(pairs + row + backward[-1], 1))
    backward.reverse()
    total = torch.logsumexp(forward[-1], 0)
    found = []
    for first, end in places:
        value = forward[first][B]
        label = B
        for k in range(first + 1, end):
            value = value + pairs[label, I] + scores[k, I]
            label = I
        if end < len(scores):
            after = pairs[label] + scores[end] + backward[end]
            value = value + torch.logsumexp(after[[B, O]], 0)
        found.append(min(1.0, float((value - total).exp())))
    return found


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
