"""Meta-reinforcement learning: policies that adapt to a new environment in a few episodes.

    from quickstudy import MAML
    from quickstudy.domains.control import PointGoals, actor, adapt_policy, meta_train_policy

    family = PointGoals()
    learner = MAML(**actor(family), steps=1, rate=0.1)
    for step in meta_train_policy(learner, family, steps=100):
        print(step.before, step.after)
    policy = adapt_policy(learner, step.meta, family, task=(0.3, -0.2))

Needs Gymnasium (the extra `rl`). Importing this makes `quickstudy/PointNavigation-v0`, `quickstudy/Grid-v0` and
`quickstudy/Bandit-v0` known to it.
"""

from quickstudy.domains.control.collect import Sampling
from quickstudy.domains.control.environments import Bandit, Grid, PointNavigation, register
from quickstudy.domains.control.net import actor
from quickstudy.domains.control.tasks import Bandits, Family, GridGoals, PointGoals, SettableTasks
from quickstudy.domains.control.train import PPO, PolicyStep, meta_train_policy
from quickstudy.domains.control.trust_region import TRPO
from quickstudy.domains.control.use import AdaptedPolicy, Returns, adapt_policy, evaluate_policy

register()

__all__ = [
    "PPO", "TRPO", "AdaptedPolicy", "Bandit", "Bandits", "Family", "Grid", "GridGoals", "PointGoals", "PointNavigation",
    "PolicyStep", "Returns", "Sampling", "SettableTasks", "actor", "adapt_policy", "evaluate_policy",
    "meta_train_policy",
]  # fmt: skip
