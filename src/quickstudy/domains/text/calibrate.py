"""How sure a prior may be: fitted on classes of past tasks that its covariances don't know.

Two things are fitted that no formula gives: the power law that scales log-densities (features are far from independent
given the class), and how much a task's own scatter counts beside that of past tasks.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core import engine
from quickstudy.core.dataset import MetaDataset, Shots
from quickstudy.core.episode import Episode
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Classify
from quickstudy.learners import Gaussian

FOLDS = 5
"""Parts that past classes are divided into."""
SHOTS, WAYS, QUERIES, EPISODES = (1, 2, 5, 10), 5, 5, 20
"""Of the episodes that the fit is judged by: so many for each fold, number of shots and past task."""
OWN = (5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 10.0)
"""Logarithms of ν that are tried; 10 is as good as none."""

Estimate = Callable[[Sequence[MetaDataset]], Meta]
"""Estimates the covariances from tasks."""


def calibration(
    tasks: Sequence[MetaDataset], estimate: Estimate, *, subject: int = 15, seed: int = 0
) -> Meta:
    """`calibration` and `own` of the Gaussian learner; nothing where no task has ten classes with examples enough.

    Each fold's classes are strangers to covariances estimated on the other four. Past tasks that span several subjects
    (clusters of about `subject` similar classes) are divided by subject, since a new task brings a new one.
    """
    folds = {i: _folds(task, subject, seed) for i, task in enumerate(tasks) if len(task.classes) >= 2 * FOLDS}
    answers: dict[float, list[tuple[Tensor, Tensor, Tensor]]] = {own: [] for own in OWN}
    for fold in range(FOLDS) if folds else ():
        known = [_only(task, folds[i] != fold) if i in folds else task for i, task in enumerate(tasks)]
        prior = estimate(known) | {"calibration": torch.zeros(2)}
        for i, own_fold in folds.items():
            for k, learner, episode in _episodes(_only(tasks[i], own_fold == fold), seed + fold):
                shots = torch.full(episode.query.y.shape, float(k)).flatten()
                for own, found in answers.items():
                    out = engine.outputs(learner, prior | {"own": torch.tensor(own)}, episode)
                    # Classes that a small fold lacks are answers that nobody gives.
                    out = torch.nn.functional.pad(
                        out.flatten(0, 1).double(), (0, WAYS - out.shape[-1]), value=-1e6
                    )
                    found.append((out, shots.log(), episode.query.y.flatten()))
    if not answers[OWN[0]]:
        return {}
    fits = {
        own: _fit(*(torch.cat(part) for part in zip(*found, strict=True))) for own, found in answers.items()
    }
    own = min(fits, key=lambda own: fits[own][1])
    return {"calibration": fits[own][0].float(), "own": torch.tensor(own)}


def _folds(task: MetaDataset, subject: int, seed: int) -> np.ndarray:
    """The fold of each class."""
    many = len(task.classes)
    if round(many / subject) < FOLDS:
        return np.random.default_rng(seed).permutation(many) % FOLDS
    cluster = np.array(clusters(np.stack([task.x[rows].mean(0).numpy() for rows in task.rows()]), subject))
    sizes = np.bincount(cluster)
    load, fold = np.zeros(FOLDS), np.zeros(len(sizes), int)
    for place in np.argsort(-sizes, kind="stable"):  # the largest first, to the fold that holds least
        fold[place] = load.argmin()
        load[fold[place]] += sizes[place]
    return fold[cluster]


def _only(task: MetaDataset, wanted: np.ndarray) -> MetaDataset:
    return task.only(np.flatnonzero(wanted).tolist())


def _episodes(task: MetaDataset, seed: int) -> Iterator[tuple[int, Gaussian, Episode]]:
    """(shots, learner, stacked episodes) for each number of shots that there are examples for."""
    for k in SHOTS:
        ways = min(WAYS, sum(len(rows) >= k + QUERIES for rows in task.rows()))
        if ways > 1:
            shape = Shots(ways=ways, shots=k, queries=QUERIES, tasks=EPISODES)
            learner = Gaussian(objective=Classify(ways=ways), dim=task.x.shape[1])
            yield k, learner, task.sampler(shape, seed)(0)


def _fit(
    out: Float[Tensor, "n ways"], log_shots: Float[Tensor, " n"], y: Tensor
) -> tuple[Float[Tensor, "2"], float]:
    """The power law of least log-loss, and that loss; convex in all but the exponential."""
    power = torch.tensor([-2.5, 0.0], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([power], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        scale = (power[0] + power[1] * log_shots).exp().unsqueeze(-1)
        return torch.nn.functional.cross_entropy(out * scale, y)

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(closure)
    return power.detach(), float(loss().detach())


def clusters(centers: np.ndarray, size: int) -> list[int]:
    """Clusters of about `size` similar classes."""
    from sklearn.cluster import AgglomerativeClustering

    count = max(1, round(len(centers) / size))
    if count == 1:
        return [0] * len(centers)
    return AgglomerativeClustering(count, linkage="ward").fit(centers).labels_.tolist()
