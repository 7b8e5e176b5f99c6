"""Functions to regress: a task is one function, its support and query are points of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.dataset import Shots
from quickstudy.core.engine import Sample
from quickstudy.core.episode import Episode, Labelled


class Points(NamedTuple):
    """Inputs [tasks, rows, …] and what the functions truly are there, without noise."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Functions(ABC):
    """A family of functions."""

    noise: float = 0.0
    """Standard deviation of what is added to each y, query included."""

    @abstractmethod
    def points(self, rng: np.random.Generator, tasks: int, rows: int) -> Points:
        """Draw `tasks` functions, and `rows` points of each."""

    def sampler(self, shots: Shots, seed: int = 0) -> Sample:
        """Draw tasks: batch number `step` is a pure function of (seed, step). `shots.ways` has no meaning here."""
        most, dtype = shots.most_shots, torch.get_default_dtype()

        def sample(step: int) -> Episode:
            rng = np.random.default_rng([seed, step])
            x, y = self.points(rng, shots.tasks, most + shots.queries)
            if self.noise:
                y = y + self.noise * rng.standard_normal(y.shape)
            real = np.ones(x.shape[:2], bool)
            if not isinstance(shots.shots, int):
                own = rng.integers(shots.shots[0], most + 1, (shots.tasks, 1))
                real[:, :most] = np.arange(most) < own

            def part(rows: slice) -> Labelled:
                return Labelled(
                    torch.from_numpy(x[:, rows]).to(dtype),
                    torch.from_numpy(y[:, rows]).to(dtype),
                    torch.from_numpy(real[:, rows]),
                )

            return Episode(part(slice(0, most)), part(slice(most, None)))

        return sample


@dataclass(frozen=True, kw_only=True)
class Sinusoids(Functions):
    """y = a sin(x - b), drawn as in Finn et al. 2017, arXiv:1703.03400, section 5.1."""

    amplitude: tuple[float, float] = (0.1, 5.0)
    """Of a, uniform."""
    phase: tuple[float, float] = (0.0, float(np.pi))
    """Of b, uniform."""
    domain: tuple[float, float] = (-5.0, 5.0)
    """Of x, uniform."""
    told: bool = False
    """Whether a and b stand beside x, which makes inputs of three numbers: the paper's oracle sees them so."""

    def points(self, rng: np.random.Generator, tasks: int, rows: int) -> Points:
        a = rng.uniform(*self.amplitude, (tasks, 1, 1))
        b = rng.uniform(*self.phase, (tasks, 1, 1))
        x = rng.uniform(*self.domain, (tasks, rows, 1))
        y = a * np.sin(x - b)
        if self.told:
            x = np.concatenate([x, a.repeat(rows, 1), b.repeat(rows, 1)], -1)
        return Points(x, y)


@dataclass(frozen=True, kw_only=True)
class Harmonics(Functions):
    """y = a sin(ωx + b) + a' sin(2ωx + b'), seen in one place only, as in Lacoste et al. 2018, arXiv:1806.07528.

    Amplitudes are standard normal, phases uniform over the circle, and x ~ N(m, 1) with the task's own m.
    """

    frequency: tuple[float, float] = (5.0, 7.0)
    """Of ω, uniform."""
    place: tuple[float, float] = (-4.0, 4.0)
    """Of m, uniform."""

    def points(self, rng: np.random.Generator, tasks: int, rows: int) -> Points:
        frequency = rng.uniform(*self.frequency, (tasks, 1, 1)) * np.array([1.0, 2.0])
        amplitude = rng.standard_normal((tasks, 1, 2))
        phase = rng.uniform(0.0, 2 * np.pi, (tasks, 1, 2))
        x = rng.uniform(*self.place, (tasks, 1, 1)) + rng.standard_normal((tasks, rows, 1))
        return Points(x, (amplitude * np.sin(frequency * x + phase)).sum(-1, keepdims=True))


@dataclass(frozen=True, kw_only=True)
class LinearSystems(Functions):
    """y = A x + noise: the next state of a linear system, seen from random states x ~ N(0, I).

    Systems are alike: A = M + S with one M for the family, and entries of S ~ N(0, spread² / states). So the best
    possible answer is known, see `bayes`.
    """

    noise: float = 0.1
    states: int = 4
    """How many numbers a state has."""
    spread: float = 0.3
    """How far systems are apart; M itself is as large as a spread of 1."""
    family: int = 0
    """Seed of M."""

    @cached_property
    def typical(self) -> Float[Tensor, "s s"]:
        """M."""
        rng = np.random.default_rng(self.family)
        return torch.from_numpy(rng.standard_normal((self.states, self.states)) / self.states**0.5)

    def points(self, rng: np.random.Generator, tasks: int, rows: int) -> Points:
        apart = rng.standard_normal((tasks, self.states, self.states)) * self.spread / self.states**0.5
        x = rng.standard_normal((tasks, rows, self.states))
        return Points(x, x @ (self.typical.numpy() + apart).swapaxes(-1, -2))

    def bayes(self, support: Labelled, x: Float[Tensor, "*t n s"]) -> Float[Tensor, "*t n s"]:
        """The posterior mean of y at x: ridge regression of what M leaves, with the penalty states · (noise / spread)².

        No predictor has a smaller expected squared error. With leading dimensions of tasks or none.
        """
        real = support.mask.unsqueeze(-1)
        seen = torch.where(real, support.x, 0.0).double()
        typical = self.typical.t()
        left = torch.where(real, support.y, 0.0).double() - seen @ typical
        penalty = self.states * (self.noise / self.spread) ** 2 * torch.eye(self.states, dtype=seen.dtype)
        apart = torch.linalg.solve(seen.mT @ seen + penalty, seen.mT @ left)
        return (x.double() @ (typical + apart)).to(x.dtype)
