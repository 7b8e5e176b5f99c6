"""Gaussian classes with a learned prior: Bayesian discriminant analysis in closed form. Our default.

Past tasks teach how far examples of one class scatter (Σ_w) and how far class means lie apart (Σ_b around μ):

    m_c ~ N(μ, Σ_b),   x | c ~ N(m_c, Σ_w)

In the basis where Σ_w = I and Σ_b = diag(ψ), a class with n examples of mean x̄ has the posterior and the predictive

    precision = 1/ψ + n      m̂_c = (μ/ψ + n x̄) / precision      p(x | c, support) = N(x; m̂_c, 1 + 1/precision)

The task's own examples refine Σ_w. With R their residuals [n, d] around the means of their classes, an inverse-Wishart
prior on Σ_w of strength ν has a posterior of mean ∝ I + RᵀR / ν: directions in which this task scatters count less.
This makes the closed form as sharp as logistic regression on well-told classes. Where examples scatter more loudly
than in past tasks, by a factor s, classes overlap and R says less of what tells them apart; ν grows with s⁴.

A description of a class is one more observation of its mean, d = β (m_c - μ) + δ + noise of variance τ; β, δ and τ are
learned from past tasks too. The model is probabilistic linear discriminant analysis, Ioffe 2006 (ECCV), equations 1-5;
that its covariances are estimated across tasks, shrunk, and refined within one, is ours.
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
from quickstudy.core.learner import Fast, FeatureLearner, Meta
from quickstudy.core.objective import Classify
from quickstudy.learners.scatter import class_means, fit_descriptions, in_span, joint_basis, numbered


@dataclass(frozen=True, kw_only=True)
class Gaussian(FeatureLearner):
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
    loudness: float = 4.0
    """The power of s that ν grows with; chosen on validation classes of three subjects, where 2 to 4 did alike."""
    steady: float = 10.0
    """How many residuals it takes until s is as much theirs as 1."""
    unit: bool = True
    """Whether inputs are brought to length 1 first, as the direction of sentence features says it all; False where
    length counts."""

    paper: ClassVar[str] = (
        "Ioffe 2006. Probabilistic Linear Discriminant Analysis. ECCV. doi:10.1007/11744085_41"
    )
    describes: ClassVar[bool] = True

    def init(self, seed: int = 0) -> Meta:
        return {
            "center": torch.zeros(self.dim),
            "basis": torch.eye(self.dim) * math.sqrt(self.dim),
            "mean": torch.zeros(self.dim),
            "between": torch.ones(self.dim),
            "slope": torch.ones(()),
            "shift": torch.zeros(self.dim),
            "noise": torch.ones(self.dim),
            # About what sentence features of 150 intents calibrate to; learned anew wherever there are tasks enough.
            "calibration": torch.tensor([-2.7, -0.1]),
            "own": torch.tensor(6.0),  # log ν
        }

    def trainable(self, meta: Meta) -> list[str]:
        # Covariances come in closed form (`estimate`); what weighs them follows a gradient, where no search does.
        return ["calibration", "own"]

    def estimate(self, tasks: Sequence[Labelled], names: Sequence[Tensor | None] = ()) -> Meta:
        """Learn the prior from past tasks, one vote each.

        Args:
            tasks: past data sets, x [n, dim] with class numbers from 0; every class with at least two examples.
            names: for each task, features [classes, dim] of its classes' names or descriptions (a row of NaN for a
                class without), or None.

        Raises:
            DataError: no task, or none with two classes and two examples of one.
        """
        tasks, present = numbered(tasks)
        meta = {k: v.double() for k, v in self.init().items()}
        meta["center"] = torch.stack([class_means(task.x, task.y)[0].mean(0) for task in tasks]).mean(0)
        classes = sum(len(task.y.unique()) for task in tasks)
        centred = [task._replace(x=self._centred(meta, task.x)) for task in tasks]
        meta["basis"], meta["between"] = joint_basis(
            centred, classes, self.within_strength, self.between_strength
        )
        means = [class_means(self._features(meta, task.x), task.y)[0] for task in tasks]
        meta["mean"] = torch.stack([m.mean(0) for m in means]).mean(0)
        told = zip(names, present, means, strict=False)
        meta |= fit_descriptions(
            [(self._features(meta, n[c].double()), m) for n, c, m in told if n is not None]
        )
        return {k: v.float() for k, v in meta.items()}

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        z = self._features(meta, support.x)
        examples = self.objective.one_hot(support).to(z.dtype)
        described = self.objective.one_hot(support._replace(y=support.y - self.objective.ways)).to(z.dtype)
        count, told = examples.sum(0).unsqueeze(-1), described.sum(0).unsqueeze(-1)
        sums = examples.t() @ z
        weight = meta["slope"] / meta["noise"]  # of a description beside an example
        precision = 1 / meta["between"] + count + told * weight * meta["slope"]
        position = described.t() @ z + told * (meta["slope"] * meta["mean"] - meta["shift"])
        mean = (meta["mean"] / meta["between"] + sums + weight * position) / precision
        sharp = precision / (1 + precision)  # one over the predictive variance, 1 + 1 / precision
        shown = (count > 0).to(z.dtype)
        residual = examples.sum(-1, keepdim=True) * z - examples @ (sums / count.clamp(min=1))
        degrees = count.sum() - shown.sum()
        loud = (residual.pow(2).sum() / self.dim + self.steady) / (degrees + self.steady)
        strength = (meta["own"] + self.loudness * loud.log()).exp()
        # That of the least sharp class: by more, a class of few examples would have a precision below 0 somewhere.
        present = count + told > 0
        root = torch.where(present, sharp, 1.0).amin(0).sqrt()
        seen = in_span(mean * root, residual * root, strength) * root
        # log N(z; mean, 1 / sharp) and what the task's own scatter changes, expanded in powers of z: no
        # [n, ways, dim] tensor exists, and what all classes share is left out.
        return {
            "linear": sharp * mean - seen,
            "square": sharp,
            "bias": (sharp.log() - sharp * mean * mean + seen * mean).sum(-1) / 2,
            "present": present.squeeze(-1),
            "shots": count.sum() / shown.sum().clamp(min=1),
        }

    def predict(self, meta: Meta, fast: Fast, x: Tensor) -> Float[Tensor, "n ways"]:
        z = self._features(meta, x)
        logits = z @ fast["linear"].t() - (z * z) @ fast["square"].t() / 2 + fast["bias"]
        # Real features are far from independent given the class; how far is learned, as a power law in the shots.
        scale = (meta["calibration"][0] + meta["calibration"][1] * fast["shots"].clamp(min=1).log()).exp()
        return self.objective.restrict(logits * scale, fast["present"])

    def _features(self, meta: Meta, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return self._centred(meta, x) @ meta["basis"]

    def _centred(self, meta: Meta, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        return normalize(x - meta["center"], dim=-1) if self.unit else x - meta["center"]
