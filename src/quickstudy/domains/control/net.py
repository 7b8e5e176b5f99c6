"""The network and the objective that fit a family of environments."""

from typing import Any, TypedDict

from quickstudy.core.net import Net
from quickstudy.core.policy import GaussianActions, PolicyGradient
from quickstudy.domains.control.encode import objective_for, width_of
from quickstudy.domains.control.tasks import Family
from quickstudy.nets import MLP, GaussianPolicy


class Actor(TypedDict):
    """What every learner of policies needs."""

    objective: PolicyGradient
    net: Net


def actor(family: Family, *, hidden: tuple[int, ...] = (64, 64), **more: Any) -> Actor:
    """Objective and network for a family, as arguments of a learner: `MAML(**actor(family), steps=1)`.

    Args:
        family: what tasks are drawn from; one is made, to see its spaces.
        hidden: sizes of hidden layers.
        more: what else `MLP` (discrete actions) or `GaussianPolicy` takes.
    """
    env = family.made(family.draw(1, 0)[0])
    inputs, objective = width_of(env.observation_space), objective_for(env.action_space)
    env.close()
    if isinstance(objective, GaussianActions):
        return Actor(
            objective=objective,
            net=GaussianPolicy(inputs=inputs, actions=objective.dim, hidden=hidden, **more),
        )
    return Actor(
        objective=objective, net=MLP(inputs=inputs, outputs=objective.outputs, hidden=hidden, **more)
    )
