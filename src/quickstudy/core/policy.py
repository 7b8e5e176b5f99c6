"""Policies: outputs say how likely each action is, and a row says how one action that was taken is to be judged.

With r = π(a | x) / π_acting(a | x), the advantage A, a clip ε and a weight κ, each row's own, the loss of a row is

    - min(r A, clip(r, 1 - ε, 1 + ε) A) + κ KL(π_acting(· | x) ‖ π(· | x))

At ε = ∞ this is the surrogate whose gradient at the acting policy is the policy gradient (REINFORCE, Williams 1992,
doi:10.1007/BF00992696; Schulman et al. 2015, arXiv:1502.05477, section 2); a finite ε makes it the one of PPO (Schulman
et al. 2017, arXiv:1707.06347, equation 7); A = 0 and κ = 1 leave the divergence that TRPO bounds. What a row is for
stands in the row, so one objective serves an inner loop that takes policy gradients and an outer loop that clips, and
every learner with an inner loop runs on policies as it stands.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.objective import Objective, Slope, count
from quickstudy.core.spec import Size

# Of log r: e²⁰ is finite in every format, and no policy that was meant to stay near another gets there.
LARGEST = 20.0


class Judgement(NamedTuple):
    """What a row of y says, part by part."""

    action: Float[Tensor, "... a"]
    advantage: Float[Tensor, "..."]
    clip: Float[Tensor, "..."]
    """ε."""
    weight: Float[Tensor, "..."]
    """κ."""
    acting: Float[Tensor, "... k"]
    """The outputs under which the action was drawn."""


class Local(NamedTuple):
    """Derivatives by outputs z, at one z: of log π(a), and of the divergence from the acting policy."""

    likelier: Float[Tensor, "... k"]
    """∇ log π(a)."""
    away: Float[Tensor, "... k"]
    """∇ KL."""
    bent: Float[Tensor, "... k"]
    """The Hessian of log π(a), times what was asked."""
    curved: Float[Tensor, "... k"]
    """The Hessian of KL, times what was asked."""


@dataclass(frozen=True)
class PolicyGradient(Objective):
    """What a policy does and how it is judged. Rows of y are made by `rows`."""

    needs_rows: ClassVar[bool] = False  # before anything was tried, a policy acts all the same

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers an action is."""

    @property
    def columns(self) -> int:
        """How many numbers a row of y is."""
        return self.width + 3 + self.outputs

    @abstractmethod
    def log_probability(
        self, outputs: Float[Tensor, "*b k"], action: Float[Tensor, "*b a"]
    ) -> Float[Tensor, "*b"]:
        """Log π(a); for continuous actions that of the density."""

    @abstractmethod
    def divergence(self, old: Float[Tensor, "*b k"], new: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """KL(old ‖ new) in nats."""

    @abstractmethod
    def sample(self, outputs: Float[Tensor, "*b k"], generator: torch.Generator) -> Float[Tensor, "*b a"]:
        """An action for each row of outputs."""

    @abstractmethod
    def likeliest(self, outputs: Float[Tensor, "*b k"]) -> Float[Tensor, "*b a"]:
        """The most probable action for each row of outputs."""

    @abstractmethod
    def local(
        self,
        outputs: Float[Tensor, "*b k"],
        action: Float[Tensor, "*b a"],
        acting: Float[Tensor, "*b k"],
        g: Float[Tensor, "*b k"],
    ) -> Local:
        """Derivatives at `outputs`, second ones times `g`."""

    def rows(
        self,
        action: Float[Tensor, "*b a"],
        advantage: Float[Tensor, "*b"],
        acting: Float[Tensor, "*b k"],
        *,
        clip: float = math.inf,
        weight: float = 0.0,
    ) -> Float[Tensor, "*b w"]:
        """Answers y for steps of trajectories: the action taken, how much better it was than usual, and who acted."""
        how = [advantage, torch.full_like(advantage, clip), torch.full_like(advantage, weight)]
        return torch.cat([action, torch.stack(how, -1), acting], -1)

    def check(self, labelled: Labelled, name: str, described: bool = False) -> None:
        expected = (*labelled.mask.shape, self.columns)
        if not labelled.y.is_floating_point() or labelled.y.shape != expected:
            kind = str(labelled.y.dtype).removeprefix("torch.")
            raise DataError(
                f"The {name}'s rows are {kind} of shape {list(labelled.y.shape)}; {self} reads those that its `rows` "
                f"makes, real numbers of shape {list(expected)}."
            )

    def only_divergence(self, y: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        """The same rows, judged by nothing but how far the policy went from the acting one."""
        told = self.told(y)
        return self.rows(told.action, torch.zeros_like(told.advantage), told.acting, weight=1.0)

    def told(self, y: Float[Tensor, "*b w"]) -> Judgement:
        """The parts of rows."""
        action, how, acting = y.split([self.width, 3, self.outputs], -1)
        advantage, clip, weight = how.unbind(-1)
        return Judgement(action, advantage, clip, weight, acting)

    def row_losses(
        self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "*t n w"]
    ) -> Float[Tensor, "*t n"]:
        told = self.told(y)
        ratio = self._ratio(outputs, told)
        kept = torch.maximum(torch.minimum(ratio, 1 + told.clip), 1 - told.clip)
        gained = torch.minimum(ratio * told.advantage, kept * told.advantage)
        return told.weight * self.divergence(told.acting, outputs) - gained

    def slope(self, labelled: Labelled, scale: float = 1.0) -> Slope:
        told, size = self.told(labelled.y), count(labelled.mask).to(labelled.y.dtype)
        share = (labelled.mask * (scale / size)).unsqueeze(-1)

        def pressure(outputs: Tensor) -> Tensor:
            """The derivative of the first term by log π(a), -r A, where the clip doesn't hold it."""
            ratio = self._ratio(outputs, told)
            past = torch.where(told.advantage > 0, ratio > 1 + told.clip, ratio < 1 - told.clip)
            far = ratio >= math.exp(LARGEST)
            return torch.where(past | far, 0.0, -ratio * told.advantage).unsqueeze(-1)

        def of(outputs: Tensor) -> tuple[Tensor, Tensor]:
            here = self.local(outputs, told.action, told.acting, outputs)
            return share * (
                pressure(outputs) * here.likelier + told.weight.unsqueeze(-1) * here.away
            ), outputs

        def pull(outputs: Tensor, g: Tensor) -> Tensor:
            here = self.local(outputs, told.action, told.acting, g)
            along = (here.likelier * g).sum(-1, keepdim=True)
            first = pressure(outputs) * (here.likelier * along + here.bent)
            return share * (first + told.weight.unsqueeze(-1) * here.curved)

        return Slope(of, pull)

    def row_scores(
        self, outputs: Float[Tensor, "*t n k"], y: Shaped[Tensor, "*t n w"]
    ) -> Float[Tensor, "*t n"]:
        return -self.row_losses(outputs, y)

    def _ratio(self, outputs: Tensor, told: Judgement) -> Tensor:
        before = self.log_probability(told.acting, told.action)
        return (self.log_probability(outputs, told.action) - before).clamp(max=LARGEST).exp()


@dataclass(frozen=True)
class DiscreteActions(PolicyGradient):
    """One of `choices` actions, numbered from 0; outputs are logits."""

    choices: Size

    @property
    def outputs(self) -> int:
        return self.choices

    @property
    def width(self) -> int:
        return 1

    def check(self, labelled: Labelled, name: str, described: bool = False) -> None:
        super().check(labelled, name, described)
        if not labelled.mask.numel():  # nothing was tried yet
            return
        least, most = torch.aminmax(torch.where(labelled.mask, labelled.y[..., 0], 0.0))
        if not (float(least) >= 0 and float(most) <= self.choices - 1):
            wrong = float(least) if float(least) < 0 else float(most)
            raise DataError(
                f"The {name} holds action {wrong:g}; DiscreteActions({self.choices}) reads 0 to {self.choices - 1}."
            )

    def log_probability(
        self, outputs: Float[Tensor, "*b k"], action: Float[Tensor, "*b a"]
    ) -> Float[Tensor, "*b"]:
        return torch.log_softmax(outputs, -1).gather(-1, action.long()).squeeze(-1)

    def divergence(self, old: Float[Tensor, "*b k"], new: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        before, after = torch.log_softmax(old, -1), torch.log_softmax(new, -1)
        return (before.exp() * (before - after)).sum(-1)

    def sample(self, outputs: Float[Tensor, "*b k"], generator: torch.Generator) -> Float[Tensor, "*b a"]:
        below = torch.softmax(outputs, -1).cumsum(-1)[..., :-1]
        drawn = torch.rand(outputs.shape[:-1], generator=generator, dtype=outputs.dtype).unsqueeze(-1)
        return (drawn > below).sum(-1, keepdim=True).to(outputs.dtype)

    def likeliest(self, outputs: Float[Tensor, "*b k"]) -> Float[Tensor, "*b a"]:
        return outputs.argmax(-1, keepdim=True).to(outputs.dtype)

    def local(
        self,
        outputs: Float[Tensor, "*b k"],
        action: Float[Tensor, "*b a"],
        acting: Float[Tensor, "*b k"],
        g: Float[Tensor, "*b k"],
    ) -> Local:
        p, q = torch.softmax(outputs, -1), torch.softmax(acting, -1)
        taken = (action == torch.arange(self.choices, device=action.device)).to(p.dtype)
        pg = p * g
        curved = pg - p * pg.sum(-1, keepdim=True)
        return Local(taken - p, p - q, -curved, curved)


@dataclass(frozen=True)
class GaussianActions(PolicyGradient):
    """`dim` numbers, drawn independently; outputs are their means and then the logarithms of their deviations."""

    dim: Size

    @property
    def outputs(self) -> int:
        return 2 * self.dim

    @property
    def width(self) -> int:
        return self.dim

    def log_probability(
        self, outputs: Float[Tensor, "*b k"], action: Float[Tensor, "*b a"]
    ) -> Float[Tensor, "*b"]:
        mean, log = outputs.chunk(2, -1)
        far = (action - mean) * (-log).exp()
        return -(0.5 * far * far + log).sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)

    def divergence(self, old: Float[Tensor, "*b k"], new: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        (m0, s0), (m1, s1) = old.chunk(2, -1), new.chunk(2, -1)
        apart = (m1 - m0) * (-s1).exp()
        return (s1 - s0 + 0.5 * ((2 * (s0 - s1)).exp() + apart * apart - 1)).sum(-1)

    def sample(self, outputs: Float[Tensor, "*b k"], generator: torch.Generator) -> Float[Tensor, "*b a"]:
        mean, log = outputs.chunk(2, -1)
        return mean + log.exp() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)

    def likeliest(self, outputs: Float[Tensor, "*b k"]) -> Float[Tensor, "*b a"]:
        return outputs.chunk(2, -1)[0]

    def local(
        self,
        outputs: Float[Tensor, "*b k"],
        action: Float[Tensor, "*b a"],
        acting: Float[Tensor, "*b k"],
        g: Float[Tensor, "*b k"],
    ) -> Local:
        (m, s), (m0, s0), (gm, gs) = outputs.chunk(2, -1), acting.chunk(2, -1), g.chunk(2, -1)
        sharp = (-2 * s).exp()
        missed, moved = (action - m) * sharp, (m - m0) * sharp
        spread, old = missed * (action - m), (2 * s0).exp() * sharp + moved * (m - m0)
        return Local(
            torch.cat([missed, spread - 1], -1),
            torch.cat([moved, 1 - old], -1),
            torch.cat([-sharp * gm - 2 * missed * gs, -2 * missed * gm - 2 * spread * gs], -1),
            torch.cat([sharp * gm - 2 * moved * gs, -2 * moved * gm + 2 * old * gs], -1),
        )
