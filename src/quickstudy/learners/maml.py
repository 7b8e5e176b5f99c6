"""Model-agnostic meta-learning: an initialisation from which a few gradient steps solve a new task.

    θ'_i = θ - α ∇_θ L_i(θ; support)      θ ← θ - β ∇_θ Σ_i L_i(θ'_i; query)

Finn, Abbeel & Levine 2017, arXiv:1703.03400, equation 1 and algorithm 2. With `zero_head`, θ's last layer is 0 before
every task: Kao, Chiu & Chen 2022, arXiv:2106.15367, section 3.3.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import nn

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.head import last_linear
from quickstudy.core.learner import Fast, Meta, NetLearner, PlainSGD, descend
from quickstudy.core.net import parameters_of
from quickstudy.core.spec import Rate, Steps


@dataclass(frozen=True, kw_only=True)
class MAML(NetLearner):
    """MAML; with `second_order=False` its first-order approximation (FOMAML, section 5.2)."""

    steps: Steps = 5
    """Inner steps; the paper uses 1 (sinusoids, Omniglot) to 5 (miniImagenet)."""
    rate: Rate = 0.1
    """Inner learning rate α; the paper's .01 to .4."""
    second_order: bool = True
    """Differentiate through the inner steps."""
    zero_head: bool = False
    """The last linear layer is 0 before every task and the outer loop leaves it so: no class is another's better by its
    number. It wants a larger rate, as the first step moves the head alone; meant for many classes."""

    paper: ClassVar[str] = "Finn, Abbeel & Levine 2017. Model-Agnostic Meta-Learning. arXiv:1703.03400"
    inner_loop: ClassVar[bool] = True
    symmetric: ClassVar[frozenset[str]] = frozenset({"order"})

    def init(self, seed: int = 0) -> Meta:
        weights = super().init(seed)
        return weights | {name: torch.zeros_like(weights[name]) for name in self._zeros(weights)}

    def trainable(self, meta: Meta) -> list[str]:
        zeros = self._zeros(meta)
        return [name for name in super().trainable(meta) if name not in zeros]

    def check(self, meta: Meta) -> None:
        super().check(meta)
        if moved := [name for name in self._zeros(meta) if meta[name].any()]:
            raise ModelError(
                f"MAML(zero_head=True) begins every task with a last layer of 0, and {moved[0]!r} isn't. Set it to 0, "
                "or take zero_head=False."
            )

    def adapt(self, meta: Meta, support: Labelled) -> Fast:
        fast = descend(
            self.support_loss, meta, support, steps=self.steps, rate=self.rate, second_order=self.second_order
        )
        return self.adapted(fast, support)

    def _zeros(self, meta: Meta) -> list[str]:
        """The entries that stay at 0 between tasks."""
        if not self.zero_head:
            return []
        head, own = self._head
        if missing := sorted(own - meta.keys()):
            raise ModelError(
                f"MAML(zero_head=True) puts the last linear layer to 0, and its {missing[0]!r} is frozen, shared with "
                "another layer or made of others. Give the network a plain layer for a head, or take zero_head=False."
            )
        return [name for name in meta if name.startswith(head)]

    def plain_sgd(self) -> PlainSGD:
        return PlainSGD(self.net, self.steps, self.rate, self.second_order)

    @cached_property
    def _head(self) -> tuple[str, frozenset[str]]:
        """What names of the last linear layer begin with, and the names of what it owns."""
        head = last_linear(self.net)
        owned = {name for name in parameters_of(self.net, nn.Linear) if name.startswith(head)}
        return head, frozenset({f"{head}weight"} | owned)
