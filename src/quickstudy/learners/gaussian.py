"""Gaussian classes with a learned prior: Bayesian discriminant analysis in closed form. Our default.

Past tasks teach how far examples of one class scatter (Σ_w) and how far class means lie apart (Σ_b around μ):

    m_c ~ N(μ, Σ_b),   x | c ~ N(m_c, Σ_w)

In the basis where Σ_w = I and Σ_b = diag(ψ), a class with n examples of mean x̄ has the posterior and the predictive

    precision = 1/ψ + n      m̂_c = (μ/ψ + n x̄) / precision      p(x | c, support) = N(x; m̂_c, 1 + 1/precision)

A description of a class is one more observation of its mean, d = β (m_c - μ) + δ + noise of variance τ; β, δ and τ are
learned from past tasks too. The model is probabilistic linear discriminant analysis, Ioffe 2006 (ECCV), equations 1-5;
that its covariances are estimated across tasks, and shrunk, is ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.learner import Fast, Meta, MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.learners.scatter import class_means, degrees, fit_descriptions, joint_basis


@dataclass(frozen=True, kw_only=True)
class Gaussian(MetaLearner):
    """Gaussian classes with a learned prior.

    A row of the support may describe a class instead of being an example of it: its y is then the class's number plus
    `objective.ways`.
    """

    objective: Classify
    dim: int
    """Number of features."""
    within_strength: float = 350.0
    """How many past classes it takes until Σ_w counts as much as the multiple of I that it is drawn to."""
    between_strength: float = 150.0
    """The same for Σ_b. Both were chosen on validation classes of two subjects; few classes teach little."""

    paper: ClassVar[str] = (
        "Ioffe 2006. Probabilistic Linear Discriminant Analysis. ECCV. doi:10.1007/11744085_41"
    )

    def init(self, seed: int = 0) -> Meta:
        one = torch.ones(())
        return {
            "center": torch.zeros(self.dim),
            "basis": torch.eye(self.dim) * math.sqrt(self.dim),
            "mean": torch.zeros(self.dim),
            "between": torch.ones(self.dim),
            "slope": one,
            "shift": torch.zeros(self.dim),
            "noise": torch.ones(self.dim),
            # About what sentence features of 150 intents calibrate to; learned anew wherever there are tasks enough.
            "calibration": torch.tensor([-2.7, -0.1]),
        }

    def trainable(self, meta: Meta) -> list[str]:
        # Covariances come in closed form (`estimate`); only the calibration follows a gradient.
        return ["calibration"]

    def estimate(self, tasks: Sequence[Labelled], names: Sequence[Tensor | None] = ()) -> Meta:
        """Learn the prior from past tasks, one vote each.

        Args:
            tasks: past data sets, x [n, dim] with class numbers from 0; every class with at least two examples.
            names: for each task, features [classes, dim] of its classes' names or descriptions, or None.

        Raises:
            DataError: no task, or none with two classes and two examples of one.
        """
        tasks = [task.trimmed() for task in tasks]
        present = [task.y.unique() for task in tasks]  # numbers may have gaps
        tasks = [task._replace(x=task.x.double(), y=task.y.unique(return_inverse=True)[1]) for task in tasks]
        if not any(degrees(task) and len(c) > 1 for task, c in zip(tasks, present, strict=True)):
            raise DataError(
                "A prior needs a past task of two classes, one with two examples or more; there is none."
            )
        meta = {k: v.double() for k, v in self.init().items()}
        meta["center"] = torch.stack([class_means(task.x, task.y)[0].mean(0) for task in tasks]).mean(0)
        classes = sum(len(task.y.unique()) for task in tasks)
        unit = [task._replace(x=normalize(task.x - meta["center"], dim=-1)) for task in tasks]
        meta["basis"], meta["between"] = joint_basis(
            unit, classes, self.within_strength, self.between_strength
        )
        means = [class_means(self._features(meta, task.x), task.y)[0] for task in tasks]
        meta["mean"] = torch.stack([m.mean(0) for m in means]).mean(0)
        told = zip(names, present, means, strict=False)
        pairs = [(self._features(meta, n[c].double()), m) for n, c, m in told if n is not None]
        if pairs:
            meta |= fit_descriptions(pairs)
        return {k: v.float() for k, v in meta.items()}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        ways = self.objective.ways
        examples = self.objective.one_hot(support)
        described = self.objective.one_hot(support._replace(y=support.y - ways))
        # Sums first, basis after: it then meets two rows a class and not one an example.
        unit = self._unit(meta, support.x)
        sums = torch.cat([examples, described], -1).to(unit.dtype).t() @ unit @ meta["basis"]
        count, told = examples.sum(0).unsqueeze(-1), described.sum(0).unsqueeze(-1)
        weight = meta["slope"] / meta["noise"]  # of a description beside an example
        precision = 1 / meta["between"] + count + told * weight * meta["slope"]
        position = sums[ways:] + told * (meta["slope"] * meta["mean"] - meta["shift"])
        total = meta["mean"] / meta["between"] + sums[:ways] + weight * position
        present = count.squeeze(-1) > 0
        shots = count.sum() / present.sum().clamp(min=1)
        return {"mean": total / precision, "variance": 1 / precision, "present": present, "shots": shots}

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        z, mean = self._features(meta, x), fast["mean"]
        weight = 1 / (1 + fast["variance"])
        # log N(z; mean, 1 + variance) without what all classes share, expanded: no [n, ways, dim] tensor exists.
        logits = z @ (weight * mean).t() - (z * z) @ weight.t() / 2
        logits = logits + ((weight.log() - weight * mean * mean).sum(-1) / 2)
        # Real features are far from independent given the class; how far is learned, as a power law in the shots.
        scale = (meta["calibration"][0] + meta["calibration"][1] * fast["shots"].clamp(min=1).log()).exp()
        return self.objective.restrict(logits * scale, fast["present"])

    def _unit(self, meta: Meta, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return normalize(x - meta["center"], dim=-1)

    def _features(self, meta: Meta, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return self._unit(meta, x) @ meta["basis"]
