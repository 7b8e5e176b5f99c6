"""learners.10: what one policy-gradient step on a new task is worth, from MAML's policy and from a pre-trained one.

Points that look for a goal they don't see, as in Finn et al. 2017, arXiv:1703.03400, section 5.3; and beside them, in
the note, the bandits of Duan et al. 2016, arXiv:1611.02779, and a grid. In each, from the same seeds:

* MAML, with PPO as the outer loop: a batch takes a third of the time that it takes TRPO;
* pre-training: the same outer loop on all tasks together, without adaptation, for as many steps in environments, and
  then one policy-gradient step at the rate that is best on tasks of its own;
* a policy that acts at random, and one that knows the task.

All are judged on the same new tasks. A seed is of the weights, of the tasks met and of all that happens in them, so the
interval is over whole meta-trainings.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rich.table import Table

from quickstudy.bench.text_play import Clock, plain
from quickstudy.core.errors import ModelError
from quickstudy.core.learner import Meta
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.control import (
    PPO,
    Bandits,
    Family,
    GridGoals,
    PointGoals,
    Sampling,
    actor,
    evaluate_policy,
    meta_train_policy,
)  # fmt: skip
from quickstudy.learners import MAML

SEEDS = 5
JUDGED, TUNING = 100, 40
"""New tasks to judge by, and tasks that the rate is chosen on."""
MAML_NAME, PLAIN, RANDOM, ORACLE = "MAML", "pre-training, one step", "random actions", "knows the task"
Show = Callable[[Any], None]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A family of tasks and how it is learned."""

    name: str
    family: Family
    hidden: tuple[int, ...]
    rate: float
    """α, of the one step within a task."""
    outer: PPO
    steps: int
    """Of MAML; pre-training takes twice as many, which are as many steps in environments."""
    sampling: Sampling
    judged: int
    """Episodes to adapt to and to judge by, on a new task."""
    rates: tuple[float, ...]
    """That the pre-trained policy is adapted at; the one that is best on other tasks counts."""
    more: dict[str, float] = field(default_factory=dict)
    """What else the network is told."""

    def learner(self, rate: float, steps: int = 1) -> MAML:
        return MAML(**actor(self.family, hidden=self.hidden, **self.more), steps=steps, rate=rate)


BROADLY = tuple(10 ** (k / 2) for k in range(-2, 7))
"""From .1 to 1,000, two a decade."""
POINTS = Contest(
    name="points", family=PointGoals(), hidden=(32, 32), rate=0.1, outer=PPO(rate=3e-3), steps=50, judged=20,
    sampling=Sampling(tasks=20, trajectories=10), rates=tuple(10 ** (k / 8) for k in range(-12, 1)),
    more={"deviation": 0.3},
)  # fmt: skip
BESIDE = (
    Contest(
        name="bandits, 5 arms", family=Bandits(), hidden=(16,), rate=5.0, outer=PPO(rate=0.03), steps=20, judged=10,
        sampling=Sampling(tasks=20, trajectories=10, horizon=10), rates=BROADLY,
    ),
    Contest(
        name="grid 5×5", family=GridGoals(), hidden=(16,), rate=5.0, outer=PPO(rate=0.03), steps=20, judged=20,
        sampling=Sampling(tasks=20, trajectories=20, horizon=20), rates=BROADLY,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Mean returns over the new tasks, by what was done; and the rate that pre-training was adapted at."""

    returns: dict[str, float]
    rate: float
    env_steps: tuple[int, int]
    """Of MAML's training and of pre-training."""


def one_step(*, quick: bool, seed: int, show: Show) -> list[dict[str, Any]]:
    """learners.10: one row; the other families go into its note."""
    clock = Clock()
    seeds = list(range(seed, seed + (2 if quick else SEEDS)))
    found: dict[str, list[Outcome]] = {}
    for contest in (POINTS, *BESIDE):
        found[contest.name] = []
        for one in seeds:
            outcome = play(contest, one, quick=quick)
            found[contest.name].append(outcome)
            show(
                f"{contest.name}, seed {one}: MAML {outcome.returns[MAML_NAME]:.2f}, pre-training "
                f"{outcome.returns[PLAIN]:.2f} at rate {outcome.rate:.3g}; {clock.seconds:.0f} s"
            )
    show(_table(found))
    return [_row(found, seeds, clock.seconds, quick)]


def play(contest: Contest, seed: int, *, quick: bool = False) -> Outcome:
    """Train both, choose the rate of the one, judge both."""
    steps, judged, tuning = (1, 4, 2) if quick else (contest.steps, JUDGED, TUNING)
    learner, alone = contest.learner(contest.rate), contest.learner(contest.rate, steps=0)
    ours, taken = _trained(contest, learner, steps, seed, contest.sampling)
    joint = replace(contest.sampling, trajectories=0, judged=contest.sampling.trajectories)
    theirs, also = _trained(contest, alone, 2 * steps, seed, joint)
    # Tasks of training are drawn by (seed, step); these by numbers that no seed of a run is.
    tasks, others = (contest.family.draw(n, s) for n, s in ((judged, 1_000_003), (tuning, 1_000_033)))

    def after(rate: float, meta: Meta, on: Any) -> tuple[float, float]:
        sampling = replace(contest.sampling, trajectories=contest.judged)
        found = evaluate_policy(
            contest.learner(rate), meta, contest.family, on, sampling=sampling, seed=seed + 1
        )
        return float(found.before.mean()), float(found.after.mean())

    best = max(contest.rates, key=lambda rate: _or_worst(lambda: after(rate, theirs, others)[1]))
    before, adapted = after(contest.rate, ours, tasks)
    plain_before, plain_after = after(best, theirs, tasks)
    returns = {
        MAML_NAME: adapted,
        "MAML before the step": before,
        PLAIN: plain_after,
        "pre-training before the step": plain_before,
        RANDOM: at_random(contest, tasks, seed),
        ORACLE: knowing(contest.family, tasks),
    }
    return Outcome(returns, best, (taken, also))


def at_random(contest: Contest, tasks: Any, seed: int) -> float:
    """The mean return of actions drawn uniformly."""
    with closing(contest.family.vector(tasks, contest.judged)) as env:
        env.action_space.seed(seed)
        return _acted(env, lambda _: env.action_space.sample(), contest.sampling.horizon, seed)


def knowing(family: Family, tasks: Any) -> float:
    """The mean return of the best that can be done by who is told the task."""
    match family:
        case Bandits():
            return float(tasks.max(1).mean()) * family.horizon
        case GridGoals():
            return -float(np.abs(tasks - family.side // 2).sum(1).mean())
        case PointGoals():
            with closing(family.vector(tasks, 1)) as env:
                return _acted(env, lambda seen: tasks - seen, family.horizon, 0)
    raise ModelError(f"Nobody knows what is best in {type(family).__name__}.")


def _acted(env: Any, act: Callable[[Any], Any], horizon: int, seed: int) -> float:
    seen, _ = env.reset(seed=seed)
    total, going = np.zeros(env.num_envs), np.ones(env.num_envs, bool)
    for _ in range(horizon):
        seen, reward, terminated, truncated, _ = env.step(act(seen))
        total += np.where(going, reward, 0.0)
        going &= ~(terminated | truncated)
    return float(total.mean())


def _trained(contest: Contest, learner: MAML, steps: int, seed: int, sampling: Sampling) -> tuple[Meta, int]:
    meta, taken = {}, 0
    for step in meta_train_policy(
        learner, contest.family, steps=steps, outer=contest.outer, sampling=sampling, seed=seed
    ):
        meta, taken = step.meta, taken + step.env_steps
    return meta, taken


def _or_worst(judge: Callable[[], float]) -> float:
    """A rate that leads to numbers that are none is not the best one."""
    try:
        return judge()
    except ModelError:
        return -np.inf


def _means(found: list[Outcome]) -> dict[str, Estimate]:
    return {name: Estimate.of([one.returns[name] for one in found]) for name in found[0].returns}


def _gain(found: list[Outcome]) -> Estimate:
    return paired([one.returns[MAML_NAME] for one in found], [one.returns[PLAIN] for one in found])


def _table(found: dict[str, list[Outcome]]) -> Table:
    table = Table("", *found, title=f"Mean return of {JUDGED} new tasks, over meta-trainings")
    columns = [_means(outcomes) for outcomes in found.values()]
    for name in columns[0]:
        table.add_row(name, *(column[name].text(2) for column in columns))
    table.add_row("gain", *(_gain(outcomes).text(2, sign=True) for outcomes in found.values()))
    return table


def _row(found: dict[str, list[Outcome]], seeds: list[int], seconds: float, quick: bool) -> dict[str, Any]:
    points = found[POINTS.name]
    means = _means(points)
    sampling, (ours, theirs) = POINTS.sampling, points[0].env_steps
    told = "; ".join(_beside(contest, found[contest.name]) for contest in BESIDE)
    width = " and ".join(map(str, POINTS.hidden))
    rates = ", ".join(f"{one.rate:.3g}" for one in points)
    return plain(
        "learners.10.1",
        means[MAML_NAME],
        unit="return",
        command="",
        seconds=seconds,
        seeds=seeds,
        baselines={name: round(one.mean, 3) for name, one in means.items() if name != MAML_NAME},
        gain=(_gain(points), PLAIN),
        note=f"MAML-PPO, {1 if quick else POINTS.steps} batches of {sampling.tasks} tasks, {sampling.trajectories} "
        f"episodes before and after adaptation (the paper's 20), {sampling.horizon} steps each, α {POINTS.rate}; a net "
        f"of {width} units (the paper's 100 and 100), deviations of actions from {POINTS.more.get('deviation', 1.0)} "
        f"on; judged by {JUDGED} new goals, {POINTS.judged} episodes to adapt to; {ours:,} steps in environments, "
        f"{theirs:,} for pre-training, whose rate is the best of {len(POINTS.rates)} on other goals: {rates}; the "
        f"interval is over meta-trainings. Beside it, likewise: {told}",
    )


def _beside(contest: Contest, found: list[Outcome]) -> str:
    means = _means(found)
    said = ", ".join(
        f"{name} {means[name].text(2)}" for name in (MAML_NAME, "MAML before the step", PLAIN, RANDOM, ORACLE)
    )
    return f"{contest.name}: {said}, gain {_gain(found).text(2, sign=True)}"
