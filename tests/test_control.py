"""Meta-reinforcement learning: policies as an objective, environments, trajectories, the outer loops."""

import builtins
import itertools
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from toy import one, with_garbage

from quickstudy.core.checkpoint import load_state, save_state
from quickstudy.core.engine import adapt, meta_gradient, outputs, task_losses
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import CheckpointError, DataError, DivergedError, MissingExtra, ModelError
from quickstudy.core.objective import Classify
from quickstudy.core.policy import DiscreteActions, GaussianActions
from quickstudy.core.spec import Spec
from quickstudy.learners import ANIL, CAVIA, MAML, FineTune, MetaSGD
from quickstudy.nets import MLP, GaussianPolicy

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402

from quickstudy.domains.control import (  # noqa: E402
    PPO,
    TRPO,
    Bandits,
    Family,
    GridGoals,
    PointGoals,
    Sampling,
    SettableTasks,
    actor,
    adapt_policy,
    evaluate_policy,
    meta_train_policy,
)  # fmt: skip
from quickstudy.domains.control.collect import collect, nothing, policies  # noqa: E402
from quickstudy.domains.control.rollout import Trajectories, advantages, baseline, roll_out  # noqa: E402
from quickstudy.domains.control.trust_region import trust_region_step  # noqa: E402

OBJECTIVES = {"discrete": DiscreteActions(4), "gaussian": GaussianActions(2)}
NETS = {
    "discrete": MLP(inputs=3, outputs=4, hidden=(7,), activation="tanh"),
    "gaussian": GaussianPolicy(inputs=3, actions=2, hidden=(7,), activation="tanh"),
    "deviation by observation": MLP(inputs=3, outputs=4, hidden=(7,), activation="tanh"),
}
both = pytest.mark.parametrize("kind", list(OBJECTIVES))


def draws(kind, shape, seed):
    """Actions and the outputs that they were drawn under."""
    draw = torch.Generator().manual_seed(seed)
    objective = OBJECTIVES[kind]
    acting = torch.randn(*shape, objective.outputs, generator=draw)
    return objective.sample(acting, draw), acting, draw


def experience(kind, rows=9, queries=12, tasks=3, seed=0, clip=0.2, weight=0.3):
    """Made-up steps: not of any policy that is near, so that clips bind."""

    def part(rows, seed, **how):
        action, acting, draw = draws(kind, (tasks, rows), seed)
        advantage = torch.randn(tasks, rows, generator=draw)
        mask = torch.rand(tasks, rows, generator=draw) < 0.7
        x = torch.randn(tasks, rows, 3, generator=draw)
        return Labelled(x, OBJECTIVES[kind].rows(action, advantage, acting, **how), mask)

    return Episode(part(rows, seed), part(queries, seed + 1, clip=clip, weight=weight))


def distribution(kind, z):
    if kind == "discrete":
        return torch.distributions.Categorical(logits=z)
    mean, log = z.chunk(2, -1)
    return torch.distributions.Independent(torch.distributions.Normal(mean, log.exp()), 1)


def by_hand(kind, z, y):
    """The loss of rows from the definition, by torch.distributions."""
    wide = 1 if kind == "discrete" else 2
    action, advantage, clip, weight = y[:, :wide], y[:, wide], y[:, wide + 1], y[:, wide + 2]
    action = action[:, 0] if kind == "discrete" else action
    new, old = distribution(kind, z), distribution(kind, y[:, wide + 3 :])
    ratio = (new.log_prob(action) - old.log_prob(action)).exp()
    cut = torch.stack([torch.clamp(r, 1 - e, 1 + e) for r, e in zip(ratio, clip.tolist(), strict=True)])
    gained = torch.minimum(ratio * advantage, cut * advantage)
    return (weight * torch.distributions.kl_divergence(old, new) - gained).mean()


# -- the objective


@both
@pytest.mark.usefixtures("float64")
def test_probabilities_and_divergences_are_those_of_torch(kind):
    objective = OBJECTIVES[kind]
    action, old, draw = draws(kind, (5, 6), 0)
    new = torch.randn(old.shape, generator=draw)
    said = distribution(kind, new).log_prob(action[..., 0] if kind == "discrete" else action)
    assert torch.allclose(objective.log_probability(new, action), said, atol=1e-12)
    apart = torch.distributions.kl_divergence(distribution(kind, old), distribution(kind, new))
    assert torch.allclose(objective.divergence(old, new), apart, atol=1e-12)
    assert objective.divergence(old, old).abs().max() < 1e-15


@both
def test_actions_are_drawn_from_the_policy(kind):
    objective, draw = OBJECTIVES[kind], torch.Generator().manual_seed(0)
    z = torch.tensor([0.5, -1.0, 0.2, -0.7])
    drawn = objective.sample(z.expand(40_000, -1), draw)
    if kind == "discrete":
        share = torch.bincount(drawn[:, 0].long(), minlength=4) / len(drawn)
        assert torch.allclose(share, torch.softmax(z, 0), atol=0.01)
        assert objective.likeliest(z).tolist() == [0.0]
    else:
        assert torch.allclose(drawn.mean(0), z[:2], atol=0.02)
        assert torch.allclose(drawn.std(0), z[2:].exp(), atol=0.02)
        assert torch.equal(objective.likeliest(z), z[:2])


@both
@pytest.mark.usefixtures("float64")
def test_a_row_is_judged_as_it_says(kind):
    for clip, weight in itertools.product((math.inf, 0.2), (0.0, 0.7)):
        part = experience(kind, clip=clip, weight=weight).query
        z = torch.randn(part.y.shape[1], 4, generator=torch.Generator().manual_seed(7))
        for task in range(3):
            rows = part.mask[task]
            said = OBJECTIVES[kind].loss(z, Labelled(*(p[task] for p in part)))
            assert float(said) == pytest.approx(float(by_hand(kind, z[rows], part.y[task][rows])), abs=1e-12)


@both
@pytest.mark.usefixtures("float64")
def test_at_the_acting_policy_the_surrogate_has_the_gradient_of_reinforce(kind):
    objective = OBJECTIVES[kind]
    action, acting, draw = draws(kind, (8,), 3)
    advantage = torch.randn(8, generator=draw)
    for clip in (math.inf, 0.2):
        z = acting.clone().requires_grad_()
        part = Labelled.of(torch.zeros(8, 1), objective.rows(action, advantage, acting, clip=clip))
        (said,) = torch.autograd.grad(objective.loss(z, part), z)
        # REINFORCE: minus the mean of A ∇ log π, by hand.
        if kind == "discrete":
            score = nn.functional.one_hot(action[:, 0].long(), 4) - torch.softmax(acting, -1)
        else:
            mean, deviation = acting[:, :2], acting[:, 2:].exp()
            far = (action - mean) / deviation
            score = torch.cat([far / deviation, far**2 - 1], -1)
        assert torch.allclose(said, -advantage[:, None] * score / 8, atol=1e-14)


@both
@pytest.mark.usefixtures("float64")
def test_the_slope_and_its_pull_are_what_autograd_says(kind):
    objective = OBJECTIVES[kind]
    part = experience(kind, clip=0.5, weight=0.4).query
    draw = torch.Generator().manual_seed(9)
    z = (objective.told(part.y).acting + 0.8 * torch.randn(3, 12, 4, generator=draw)).requires_grad_()
    g = torch.randn(3, 12, 4, generator=draw)
    slope = objective.slope(part, 2.5)
    (first,) = torch.autograd.grad(2.5 * objective.loss(z, part).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad((first * g).sum(), z)
    said, known = slope.of(z.detach())
    assert torch.allclose(said, first, atol=1e-13)
    assert torch.allclose(slope.pull(known, g), second, atol=1e-12)
    ratios = objective._ratio(z.detach(), objective.told(part.y))
    assert ((ratios > 1.5) | (ratios < 0.5)).any() and ((ratios < 1.5) & (ratios > 0.5)).any()


@both
def test_an_action_that_has_become_likely_beyond_measure_gives_finite_numbers(kind):
    objective = OBJECTIVES[kind]
    far = (
        torch.tensor([[200.0, 0.0, 0.0, 0.0]])
        if kind == "discrete"
        else torch.tensor([[30.0, 0.0, -3.0, 0.0]])
    )
    action = torch.zeros(1, 1) if kind == "discrete" else torch.tensor([[30.0, 0.0]])
    acting = torch.tensor([[-200.0, 0.0, 0.0, 0.0]]) if kind == "discrete" else torch.zeros(1, 4)
    for sign in (1.0, -1.0):
        part = Labelled.of(torch.zeros(1, 1), objective.rows(action, torch.full((1,), sign), acting))
        z = far.clone().requires_grad_()
        loss = objective.loss(z, part)
        (slope,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(loss) and torch.isfinite(slope).all()
        assert torch.allclose(objective.slope(part).of(far)[0], slope)


def test_objective_and_network_survive_json():
    for spec in (
        *OBJECTIVES.values(),
        *NETS.values(),
        MAML(objective=GaussianActions(2), net=NETS["gaussian"]),
    ):
        assert Spec.from_json(spec.to_json()) == spec
    with pytest.raises(DataError, match=r"DiscreteActions\.choices"):
        DiscreteActions(0)


def test_the_deviation_is_one_for_all_observations_and_begins_where_it_is_told():
    module = GaussianPolicy(inputs=3, actions=2, hidden=(4,), deviation=0.5).build()
    told = module(torch.randn(6, 3))
    assert torch.allclose(told[:, 2:].exp(), torch.tensor(0.5))
    assert "log_deviation" in dict(module.named_parameters())


# -- learners on policies


def plain_loop(learner, meta, episodes, kind):
    """MAML's loss on policies: per task, without padding, by torch.distributions and plain autograd."""
    module = learner.net.build()
    total = 0.0
    for task in range(len(episodes.support.mask)):
        support, query = one(episodes, task)
        weights = dict(meta)
        for _ in range(learner.steps):
            loss = by_hand(kind, functional_call(module, weights, (support.x,)), support.y)
            grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {k: w - learner.rate * g for (k, w), g in zip(weights.items(), grads, strict=True)}
        total = total + by_hand(kind, functional_call(module, weights, (query.x,)), query.y)
    return total / len(episodes.support.mask)


@pytest.mark.parametrize(
    ("net", "form"),
    [
        (net, form)
        for net in NETS
        for form in ("auto", "stacked", "loop", "dual")
        if (net, form) != ("gaussian", "dual")  # that form is of plain perceptrons
    ],
)
@pytest.mark.usefixtures("float64")
def test_the_meta_gradient_is_that_of_a_plain_loop(net, form):
    kind = "discrete" if net == "discrete" else "gaussian"
    learner = MAML(objective=OBJECTIVES[kind], net=NETS[net], steps=2, rate=0.3)
    meta, episodes = learner.init(1), experience(kind)
    leaves = {k: v.clone().requires_grad_() for k, v in meta.items()}
    loss = plain_loop(learner, leaves, episodes, kind)
    expected = torch.autograd.grad(loss, list(leaves.values()))
    said, gradient = meta_gradient(learner, meta, episodes, form=form)
    assert said == pytest.approx(float(loss.detach()), rel=1e-12)
    biggest = max(float(e.abs().max()) for e in expected)
    for name, e in zip(leaves, expected, strict=True):
        assert float((gradient[name] - e).abs().max()) <= 1e-12 * biggest, name


@both
@pytest.mark.parametrize("learner", [MAML, ANIL, MetaSGD, CAVIA], ids=lambda kind: kind.__name__)
@pytest.mark.usefixtures("float64")
def test_every_learner_with_an_inner_loop_runs_on_policies_and_padding_changes_nothing(kind, learner):
    net = replace(NETS[kind], inputs=5) if learner is CAVIA else NETS[kind]
    more = {"context": 2} if learner is CAVIA else {}
    learner = learner(objective=OBJECTIVES[kind], net=net, **more)
    meta, episodes = learner.init(0), experience(kind)
    loss, gradient = meta_gradient(learner, meta, episodes)
    padded = Episode(with_garbage(episodes.support, 4), with_garbage(episodes.query, 3, seed=1))
    again, same = meta_gradient(learner, meta, padded)
    assert again == pytest.approx(loss, rel=1e-12)
    for name, value in gradient.items():
        assert torch.allclose(same[name], value, atol=1e-12), name
    assert any(value.abs().max() > 0 for value in gradient.values())


def test_answers_that_are_no_steps_of_a_policy_are_refused():
    learner = MAML(objective=OBJECTIVES["discrete"], net=NETS["discrete"])
    episodes, meta = experience("discrete"), learner.init(0)
    narrow = episodes._replace(support=episodes.support._replace(y=episodes.support.y[..., 1:]))
    with pytest.raises(DataError, match=r"support's rows are float32 of shape \[3, 9, 7\].*`rows`"):
        meta_gradient(learner, meta, narrow)
    for wrong in (-1.0, 4.0):
        y = episodes.query.y.clone()
        y[0, episodes.query.mask[0].nonzero()[0], 0] = wrong
        with pytest.raises(
            DataError, match=rf"query holds action {wrong:g}; DiscreteActions\(4\) reads 0 to 3"
        ):
            meta_gradient(learner, meta, episodes._replace(query=episodes.query._replace(y=y)))


@both
def test_no_experience_leaves_the_policy_that_adaptation_begins_at(kind):
    learner = MAML(objective=OBJECTIVES[kind], net=NETS[kind], steps=3, rate=0.5)
    meta = learner.init(0)
    fast = adapt(learner, meta, nothing(learner.objective, 2, 3))
    for name, value in meta.items():
        assert torch.equal(fast[f"net.{name}"], value.expand(2, *value.shape)), name
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    act = policies(learner, meta, nothing(learner.objective, 2, 3))
    plain = functional_call(learner.net.build(), meta, (x.flatten(0, 1),)).unflatten(0, (2, 5))
    assert torch.allclose(act(x), plain, atol=1e-6)


# -- environments

IDS = ["Bandit", "Grid", "PointNavigation"]
FAMILIES = [Bandits(), GridGoals(), PointGoals(horizon=12)]
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f).__name__)


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_finds_nothing_wrong(name):
    env = gymnasium.make(f"quickstudy/{name}-v0")
    check_env(env.unwrapped, skip_render_check=True)
    vector = gymnasium.make_vec(f"quickstudy/{name}-v0", num_envs=3)
    assert vector.num_envs == 3 and type(vector.unwrapped).__name__ == f"Vector{name}"
    seen, _ = vector.reset(seed=0)
    assert seen in vector.observation_space
    assert vector.action_space.sample().shape[0] == 3


@families
def test_copies_together_are_what_each_is_alone(family):
    """Step by step, through ends of episodes, against Gymnasium's own vector of single environments."""
    tasks = family.draw(3, 5)
    ours, theirs = family.vector(tasks, 2), Family.vector(family, tasks, 2)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    seen = [env.reset(seed=1)[0] for env in (ours, theirs)]
    assert np.array_equal(*seen) and seen[0].dtype == seen[1].dtype
    ours.action_space.seed(2)
    ends = 0
    for _ in range(40):
        action = ours.action_space.sample()
        (x, r, over, cut, _), (x2, r2, over2, cut2, _) = ours.step(action), theirs.step(action)
        assert np.array_equal(x, x2) and np.array_equal(over, over2) and np.array_equal(cut, cut2)
        if not isinstance(family, Bandits):  # whose draws differ
            assert np.array_equal(r, r2)
        ends += (over | cut).sum()
    assert ends > 6


def test_a_bandit_pays_as_often_as_it_says():
    env = Bandits(horizon=4000).vector(np.array([[0.1, 0.9], [0.6, 0.3]]), 1)
    env.reset(seed=0)
    paid = np.mean([env.step(np.array([1, 0]))[1] for _ in range(3000)], 0)
    assert paid == pytest.approx([0.9, 0.6], abs=0.03)


def test_a_grid_by_hand():
    env = gymnasium.make("quickstudy/Grid-v0", goal=(2, 4), side=5).unwrapped
    assert env.reset()[0] == 12
    assert env.step(4)[:3] == (11, -1.0, False)
    assert [env.step(3)[0] for _ in range(2)] == [12, 13]
    assert env.step(3)[:4] == (14, -1.0, True, False)
    with pytest.raises(DataError, match="come to an end"):
        env.step(0)
    env.reset()
    assert [env.step(1)[0] for _ in range(3)] == [17, 22, 22]  # the wall holds
    with pytest.raises(DataError, match="from 0 to 4"):
        gymnasium.make("quickstudy/Grid-v0", goal=(5, 0))


def test_a_point_by_hand():
    env = gymnasium.make("quickstudy/PointNavigation-v0", goal=(0.3, -0.1), horizon=4).unwrapped
    env.reset()
    seen, reward, *_ = env.step(np.array([5.0, -0.05], np.float32))
    assert seen == pytest.approx([0.1, -0.05]) and reward == pytest.approx(-(0.2**2 + 0.05**2))
    env.step(np.array([0.1, -0.05], np.float32))
    *_, terminated, truncated, _ = env.step(np.array([0.1, 0.0], np.float32))
    assert terminated and not truncated
    env.reset()
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_tasks_are_drawn_as_said():
    goals = GridGoals().draw(4000, 0)
    assert len(np.unique(goals, axis=0)) == 24 and not (goals == 2).all(1).any()
    points = PointGoals().draw(4000, (1, 2))
    assert np.array_equal(points, PointGoals().draw(4000, (1, 2)))
    assert -0.5 <= points.min() < -0.49 and 0.49 < points.max() <= 0.5


# -- trajectories


class Countdown(gymnasium.Env):
    """A foreign environment: ends after as many steps as its task says, and shows how many have passed."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(2, start=3)

    def __init__(self, length=3, limit=None):
        self.length, self.limit = length, limit

    def set_task(self, task):
        self.length = task.length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.passed = 0
        return np.zeros(1), {}

    def step(self, action):
        assert action in (3, 4)
        self.passed += 1
        over, cut = self.passed >= self.length, self.passed == self.limit
        return np.full(1, float(self.passed)), float(action == 4), over, cut, {}


def always(z):
    return lambda x: torch.tensor(z).expand(*x.shape[:-1], len(z))


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_episodes_of_any_length_are_told_apart_in_every_mode_of_autoreset(mode):
    lengths, limits = (2, 5, 9), (None, 3, None)
    env = SyncVectorEnv(
        [lambda n=n, m=m: Countdown(n, m) for n, m in zip(lengths, limits, strict=True)], autoreset_mode=mode
    )
    found = roll_out(always([-50.0, 50.0]), DiscreteActions(2), env, 3, horizon=4, seed=0)
    assert found.mask.sum(-1).flatten().tolist() == [2, 3, 4]
    assert found.terminated.flatten().tolist() == [True, False, False]
    assert found.last.flatten().tolist() == [2.0, 3.0, 4.0]
    for length, x, mask in zip((2, 3, 4), found.x[:, 0, :, 0], found.mask[:, 0], strict=True):
        assert x[mask].tolist() == list(range(length))
    assert found.returns.tolist() == [2.0, 3.0, 4.0]  # not what came after the end


def made_up(tasks=2, copies=5, time=7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    length = torch.randint(2, time + 1, (tasks, copies, 1), generator=draw)
    length[:, 0] = time
    return Trajectories(
        torch.randn(tasks, copies, time, 2, generator=draw),
        torch.zeros(tasks, copies, time, 1),
        torch.zeros(tasks, copies, time, 3),
        torch.randn(tasks, copies, time, generator=draw),
        torch.arange(time) < length,
        torch.randn(tasks, copies, 2, generator=draw),
        torch.rand(tasks, copies, generator=draw) < 0.5,
    )


def by_loops(found, task, discount, smoothing, bootstrap):
    """Advantages of one task, episode by episode, the baseline by scikit-learn's ridge."""
    from sklearn.linear_model import Ridge

    def known(x, t):
        s = t / 100
        return [*x, *(x**2), s, s**2, s**3, 1.0]

    episodes = []
    for copy in range(found.x.shape[1]):
        n = int(found.mask[task, copy].sum())
        x = [*found.x[task, copy, :n].double().numpy(), found.last[task, copy].double().numpy()]
        episodes.append((x, found.reward[task, copy, :n].tolist(), bool(found.terminated[task, copy])))
    rows, targets = [], []
    for x, rewards, _ in episodes:
        for t in range(len(rewards)):
            rows.append(known(x[t], t))
            targets.append(sum(discount**k * r for k, r in enumerate(rewards[t:])))
    fit = Ridge(alpha=1e-5, fit_intercept=False).fit(rows, targets)
    out = []
    for x, rewards, over in episodes:
        value = [float(fit.predict([known(x[t], t)])[0]) for t in range(len(x))]
        if over or not bootstrap:
            value[-1] = 0.0
        delta = [r + discount * value[t + 1] - value[t] for t, r in enumerate(rewards)]
        out.append(
            [sum((discount * smoothing) ** k * d for k, d in enumerate(delta[t:])) for t in range(len(delta))]
        )
    flat = np.concatenate(out)
    return [(np.array(a) - flat.mean()) / (flat.std() + 1e-8) for a in out]


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("smoothing", [1.0, 0.9])
def test_advantages_are_those_of_plain_loops(smoothing, bootstrap):
    found = made_up()
    said = advantages(found, discount=0.95, smoothing=smoothing, bootstrap=bootstrap)
    for task in range(2):
        for copy, expected in enumerate(by_loops(found, task, 0.95, smoothing, bootstrap)):
            real = said[task, copy][found.mask[task, copy]]
            assert np.allclose(real, expected, atol=1e-6)
    assert (said[~found.mask] == 0).all()


def test_what_stands_in_padding_changes_no_advantage():
    found = made_up()
    dirty = found._replace(
        reward=torch.where(found.mask, found.reward, math.nan),
        x=torch.where(found.mask.unsqueeze(-1), found.x, 1e6),
    )
    for bootstrap in (False, True):
        clean, same = (
            advantages(f, discount=0.9, smoothing=0.9, bootstrap=bootstrap) for f in (found, dirty)
        )
        assert torch.equal(clean, same)


def test_the_baseline_finds_what_is_linear_in_its_features():
    found = made_up(copies=30)
    time = torch.arange(7) / 100
    returns = (3 * found.x[..., 0] - 2 * found.x[..., 1] ** 2 + 5 * time + 1).double()
    value = baseline(found, torch.where(found.mask, returns, 0.0))[..., :-1]
    assert torch.allclose(value[found.mask], returns[found.mask], atol=1e-3)


def test_trajectories_become_rows_that_say_who_acted():
    family = PointGoals(horizon=6)
    learner = MAML(**actor(family, hidden=(5,)), steps=1)
    tasks, meta = family.draw(3, 0), learner.init(0)
    found = collect(learner, meta, family, tasks, Sampling(trajectories=4, judged=2), seed=(0,), clip=0.1)
    support, query = found.episodes
    assert support.x.shape == (3, 24, 2) and query.x.shape == (3, 12, 2)
    told = learner.objective.told(query.y)
    assert (told.clip == pytest.approx(0.1)) and found.steps == 3 * 36
    said = outputs(learner, meta, found.episodes)
    assert torch.allclose(said, told.acting, atol=1e-5)  # the adapted policies acted, each in its task
    assert not torch.allclose(said[0], said[1], atol=1e-3)


# -- the outer loops


def gathered(kind="point", seed=0, **how):
    family = PointGoals(horizon=10) if kind == "point" else GridGoals(side=3, horizon=6)
    learner = MAML(**actor(family, hidden=(8,), activation="tanh"), steps=1, rate=0.1)
    tasks, meta = family.draw(4, seed), learner.init(seed)
    return (
        learner,
        meta,
        collect(learner, meta, family, tasks, Sampling(trajectories=6), seed=(seed,), **how).episodes,
    )


@pytest.mark.parametrize("kind", ["point", "grid"])
@pytest.mark.parametrize("bound", [0.003, 0.03])
def test_a_trust_region_step_stays_in_its_region_and_is_better(kind, bound):
    learner, meta, episodes = gathered(kind)
    taken = trust_region_step(learner, meta, episodes, TRPO(bound=bound))
    assert taken.tries > 0
    told = learner.objective.told(episodes.query.y)
    new = outputs(learner, taken.meta, episodes, form="loop")
    apart, gained = [], []
    for task, mask in enumerate(episodes.query.mask):
        old, now = (distribution("gaussian" if kind == "point" else "discrete", z[task][mask])
                    for z in (told.acting, new))  # fmt: skip
        action = told.action[task][mask]
        action = action if kind == "point" else action[:, 0]
        apart.append(torch.distributions.kl_divergence(old, now).mean())
        ratio = (now.log_prob(action) - old.log_prob(action)).exp()
        gained.append((ratio * told.advantage[task][mask]).mean() - told.advantage[task][mask].mean())
    assert bound / 4 < torch.stack(apart).mean() <= bound * 1.0001
    assert torch.stack(gained).mean() > 0


@pytest.mark.usefixtures("float64")
def test_the_direction_of_a_trust_region_step_solves_the_system():
    """Against the Hessian of the divergence, column by column, and a direct solver."""
    family = GridGoals(side=3, horizon=5)
    learner = MAML(**actor(family, hidden=(2,), activation="tanh"), steps=1, rate=0.5)
    tasks, meta = family.draw(3, 0), learner.init(0)
    episodes = collect(learner, meta, family, tasks, Sampling(trajectories=8), seed=(0,)).episodes
    names = list(meta)
    apart = episodes._replace(
        query=episodes.query._replace(y=learner.objective.only_divergence(episodes.query.y))
    )

    def unrow(row):
        parts = row.split([meta[n].numel() for n in names])
        return {n: p.view_as(meta[n]) for n, p in zip(names, parts, strict=True)}

    def divergence(row):
        return task_losses(learner, unrow(row), apart, form="stacked").mean()

    start = torch.cat([meta[n].reshape(-1) for n in names])
    hessian = torch.autograd.functional.hessian(divergence, start)
    hessian = hessian + 0.1 * torch.eye(len(start))
    _, gradient = meta_gradient(learner, meta, episodes)
    g = torch.cat([gradient[n].reshape(-1) for n in names])
    x = torch.linalg.solve(hessian, g)
    how = TRPO(bound=1e-3, damping=0.1, every=1, solver_steps=60)
    taken = trust_region_step(learner, meta, episodes, how)
    expected = -x * (2 * how.bound / (x @ hessian @ x)).sqrt() * how.shorter ** (taken.tries - 1)
    moved = torch.cat([(taken.meta[n] - meta[n]).reshape(-1) for n in names])
    assert taken.tries > 0
    assert torch.allclose(moved, expected, atol=1e-8 * float(expected.abs().max()) + 1e-12)


OUTER = {"trpo": TRPO(solver_steps=4), "ppo": PPO(epochs=3)}


@pytest.mark.parametrize("outer", OUTER.values(), ids=list(OUTER))
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(outer, tmp_path):
    family = GridGoals(side=3, horizon=6)
    learner = MAML(**actor(family, hidden=(6,)), steps=1)
    how = {"outer": outer, "sampling": Sampling(tasks=3, trajectories=4), "seed": 5}
    whole = list(meta_train_policy(learner, family, steps=4, **how))
    for step in meta_train_policy(learner, family, steps=4, **how):
        if step.number == 2:
            break
    save_state(tmp_path / "state", step.state())
    rest = list(meta_train_policy(learner, family, steps=4, resume=load_state(tmp_path / "state", {}), **how))
    assert [s.number for s in rest] == [3, 4]
    for name, value in whole[-1].meta.items():
        assert torch.equal(rest[-1].meta[name], value), name
    assert (rest[-1].before, rest[-1].after, rest[-1].loss) == (
        whole[-1].before,
        whole[-1].after,
        whole[-1].loss,
    )
    assert not torch.equal(whole[-1].meta["0.weight"], whole[0].meta["0.weight"])
    state, other = step.state(), (PPO() if isinstance(outer, TRPO) else TRPO())
    for wrong, message in (
        ({"seed": 6}, "seed 5, not 6"),
        ({"outer": other}, r"outer \w+, not"),
        ({"learner": ANIL(**actor(family, hidden=(6,)), steps=1)}, "learner MAML, not ANIL"),
    ):
        changed = how | wrong
        with pytest.raises(CheckpointError, match=message):
            next(meta_train_policy(changed.pop("learner", learner), family, steps=4, resume=state, **changed))
    with pytest.raises(ModelError, match="leave `meta` out"):
        next(meta_train_policy(learner, family, steps=4, resume=state, meta=learner.init(0), **how))


def test_ppo_takes_the_steps_of_plain_adam_on_the_clipped_loss():
    family = Bandits(arms=3)
    learner = MAML(**actor(family, hidden=(4,)), steps=1)
    sampling, outer = Sampling(tasks=3, trajectories=4), PPO(epochs=3, rate=0.01, norm=None, clip=0.1)
    first, second = meta_train_policy(learner, family, steps=2, outer=outer, sampling=sampling)
    leaves = {k: v.clone().requires_grad_() for k, v in learner.init(0).items()}
    adam = torch.optim.AdamW(leaves.values(), lr=0.01, weight_decay=0.0)
    for number, step in enumerate((first, second)):
        at = {k: v.detach().clone() for k, v in leaves.items()}
        tasks = family.draw(3, (0, number))
        episodes = collect(learner, at, family, tasks, sampling, seed=(0, number), clip=0.1).episodes
        for _ in range(3):
            adam.zero_grad()
            plain_loop(learner, leaves, episodes, "discrete").backward()
            adam.step()
        for name, leaf in leaves.items():
            assert torch.allclose(step.meta[name], leaf, atol=2e-4), name


def test_what_is_not_finite_is_named():
    class Broken(Bandits):
        def vector(self, tasks, copies):
            env = super().vector(tasks, copies)
            plain = env.move
            env.move = lambda a: (np.where(np.arange(len(a)) == 2 * copies, np.nan, plain(a)[0]), plain(a)[1])
            return env

    learner = MAML(**actor(Bandits()), steps=1)
    with pytest.raises(DivergedError, match=r"Step 1: the rewards of task 2 aren't finite") as raised:
        next(meta_train_policy(learner, Broken(), steps=1, sampling=Sampling(tasks=4, trajectories=2)))
    assert (raised.value.step, raised.value.tasks) == (1, [2])

    class Blind(gymnasium.Wrapper):
        def step(self, action):
            seen, *more = self.env.step(action)
            self.steps = getattr(self, "steps", 0) + 1
            return (seen * np.nan if self.steps == 3 else seen), *more

    class Blinding(PointGoals):
        vector = Family.vector

        def draw(self, number, seed):
            return np.arange(number)

        def make(self, task):
            env = super().make((0.3, 0.3))
            return Blind(env) if task == 1 else env

    points = MAML(**actor(PointGoals()), steps=1)
    with pytest.raises(DivergedError, match=r"the observations of task 1 aren't finite \(step 3 of an"):
        next(meta_train_policy(points, Blinding(), steps=1, sampling=Sampling(tasks=2, trajectories=2)))
    wild = replace(learner, rate=1000.0)
    meta = {name: 1e18 * value for name, value in wild.init(0).items()}
    with pytest.raises(ModelError, match=r"Step 1: .*finite.*step before is still good"):
        next(meta_train_policy(wild, Bandits(), steps=1, meta=meta, outer=PPO()))


def test_a_learner_of_classes_is_refused():
    learner = MAML(objective=Classify(ways=5), net=MLP(inputs=1, outputs=5))
    for outer in OUTER.values():
        with pytest.raises(ModelError, match="objective is a Classify"):
            next(meta_train_policy(learner, Bandits(), steps=1, outer=outer))
    maml = MAML(**actor(Bandits()))
    with pytest.raises(ModelError, match="judged="):
        next(meta_train_policy(maml, Bandits(), steps=1, sampling=Sampling(trajectories=0)))


def test_a_recurrent_policy_takes_its_tasks_one_by_one():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(2, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.head(self.cell(x))

    torch.manual_seed(0)
    family = PointGoals(horizon=5)
    learner = MAML(objective=GaussianActions(2), net=Recurrent(), steps=1)
    for outer in OUTER.values():
        [step] = meta_train_policy(
            learner, family, steps=1, outer=outer, sampling=Sampling(tasks=2, trajectories=3)
        )
        assert math.isfinite(step.loss)


def test_a_policy_that_looks_at_numbers_takes_its_tasks_one_by_one():
    class Looking(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return y if float(y.detach().sum()) < 1e9 else 0 * y

    family = PointGoals(horizon=5)
    learner = MAML(objective=GaussianActions(2), net=Looking(2, 4), steps=1)
    for outer in OUTER.values():
        [step] = meta_train_policy(
            learner, family, steps=1, outer=outer, sampling=Sampling(tasks=2, trajectories=3)
        )
        assert math.isfinite(step.loss) and step.divergence != 0


# -- foreign environments


def countdowns(lengths=(2, 3, 4)):
    return SettableTasks(
        kinds={"countdown": Countdown},
        tasks=[SimpleNamespace(env_name="countdown", length=n) for n in lengths],
    )


def test_a_foreign_environment_that_is_told_its_task_is_learned():
    family = countdowns()
    learner = MAML(**actor(family, hidden=(8,)), steps=1, rate=0.5)
    sampling = Sampling(tasks=3, trajectories=4, horizon=10)
    found = list(meta_train_policy(learner, family, steps=8, outer=PPO(rate=0.02), sampling=sampling))
    assert found[-1].after > found[0].before + 0.5
    kept = family._kept["countdown"]
    assert len(kept) == 12  # made once, told another task since
    policy = adapt_policy(learner, found[-1].meta, family, family.tasks[0], sampling=sampling)
    assert policy.act(np.zeros(1)) == 4 and policy.episodes == 4


def test_tasks_of_several_classes_are_set_on_their_own():
    class Slow(Countdown):
        pass

    tasks = [SimpleNamespace(env_name=name, length=n) for name, n in (("a", 2), ("b", 3), ("a", 4))]
    family = SettableTasks(kinds={"a": Countdown, "b": Slow}, tasks=tasks)
    for order in (tasks, tasks[::-1]):
        envs = [env.unwrapped for env in family.vector(order, 2).envs]
        assert [env.length for env in envs] == [task.length for task in order for _ in range(2)]
        assert [type(env) is Slow for env in envs] == [
            task.env_name == "b" for task in order for _ in range(2)
        ]
    assert len(family.draw(7, 0)) == 7 and sorted(t.length for t in family.draw(3, 1)) == [2, 3, 4]
    with pytest.raises(DataError, match="names 'c'"):
        family.make(SimpleNamespace(env_name="c"))


def test_a_single_environment_of_gymnasium_is_a_family_in_two_lines():
    class Poles(Family):
        def draw(self, number, seed):
            return np.random.default_rng(seed).uniform(0.3, 1.0, number)

        def make(self, task):
            env = gymnasium.make("CartPole-v1")
            env.unwrapped.length = float(task)
            return env

    family = Poles()
    learner = MAML(**actor(family, hidden=(8,)), steps=1)
    sampling = Sampling(tasks=2, trajectories=3, horizon=30)
    [step] = meta_train_policy(learner, family, steps=1, sampling=sampling, outer=OUTER["trpo"])
    assert 5 < step.before <= 30 and step.env_steps > 60
    found = evaluate_policy(learner, step.meta, family, family.draw(3, 1), sampling=sampling)
    assert found.before.shape == found.after.shape == (3,)


def test_tasks_that_one_policy_cannot_act_in_are_refused_and_bounds_may_differ():
    class Mixed(Family):
        def draw(self, number, seed):
            return (["CartPole-v1", "Acrobot-v1"] * number)[:number]

        def make(self, task):
            return gymnasium.make(task)

    class Bounded(Countdown):
        def __init__(self, high):
            super().__init__()
            self.observation_space, self.length = gymnasium.spaces.Box(0.0, high, (1,), np.float32), 3

    class Bounds(Mixed):
        def draw(self, number, seed):
            return list(range(1, number + 1))

        def make(self, task):
            return Bounded(task)

    sampling = Sampling(tasks=2, trajectories=2, horizon=5)
    learner = MAML(**actor(Mixed(), hidden=(8,)), steps=1)
    with pytest.raises(
        DataError, match=r"Tasks of Mixed differ in what is seen or done: Box.*pad what is seen"
    ):
        list(meta_train_policy(learner, Mixed(), steps=1, sampling=sampling))
    learner = MAML(**actor(Bounds(), hidden=(8,)), steps=1)
    [step] = meta_train_policy(learner, Bounds(), steps=1, sampling=sampling)
    assert step.env_steps > 0


def test_meta_world_is_learned_where_it_is_installed():
    metaworld = pytest.importorskip("metaworld")
    bench = metaworld.ML1("reach-v3", seed=1)
    family = SettableTasks(kinds=bench.train_classes, tasks=bench.train_tasks)
    sampling = Sampling(tasks=2, trajectories=2, horizon=30)
    learner = MAML(**actor(family, hidden=(8,)), steps=1, rate=0.1)
    [step] = meta_train_policy(learner, family, steps=1, sampling=sampling)
    test = SettableTasks(kinds=bench.test_classes, tasks=bench.test_tasks)
    found = evaluate_policy(learner, step.meta, test, test.draw(2, seed=9), sampling=sampling)
    assert found.before.shape == (2,) and found.before.isfinite().all() and found.after.isfinite().all()


def test_spaces_that_are_not_known_are_refused():
    class Odd(Countdown):
        observation_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})

    class Many(Countdown):
        action_space = gymnasium.spaces.MultiDiscrete([2, 2])

    for kind, word in ((Odd, "FlattenObservation"), (Many, "Actions are of")):
        family = SettableTasks(kinds={"x": kind}, tasks=[SimpleNamespace(length=2)])
        with pytest.raises(DataError, match=word):
            actor(family)


def test_without_gymnasium_the_extra_is_named(monkeypatch):
    plain = builtins.__import__

    def refuse(name, *rest, **more):
        if name.split(".")[0] == "gymnasium":
            raise ImportError(name)
        return plain(name, *rest, **more)

    for name in [m for m in sys.modules if m.startswith("quickstudy.domains.control")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"quickstudy\[rl\]"):
        import quickstudy.domains.control  # noqa: F401


# -- it learns


def test_one_step_on_a_new_bandit_is_worth_more_than_none_and_than_pretraining_s():
    family, outer = Bandits(arms=4, horizon=5), PPO(rate=0.03, epochs=3)
    sampling = Sampling(tasks=20, trajectories=10, horizon=5)
    learner = MAML(**actor(family, hidden=(8,)), steps=1, rate=5.0)
    for step in meta_train_policy(learner, family, steps=20, outer=outer, sampling=sampling):
        meta = step.meta
    alone = replace(
        sampling, trajectories=0, judged=10
    )  # arms are alike over tasks: there is little to pre-train
    for step in meta_train_policy(replace(learner, steps=0), family, steps=10, outer=outer, sampling=alone):
        plain = step.meta
    tasks, how = family.draw(100, 99), {"sampling": replace(sampling, tasks=100), "seed": 7}
    ours = evaluate_policy(learner, meta, family, tasks, **how)
    theirs = max(float(evaluate_policy(replace(learner, rate=r), plain, family, tasks, **how).after.mean())
                 for r in (1.0, 10.0))  # fmt: skip
    assert (ours.after - ours.before).mean() > 0.7
    assert ours.after.mean() > theirs + 0.5
    assert ours.after.mean() > 3.4  # a random arm gives 2.5, the best one 4


@pytest.mark.slow
def test_one_step_on_a_new_goal_is_worth_more_than_none():
    family = PointGoals(horizon=30)
    sampling = Sampling(tasks=10, trajectories=10, horizon=30)
    learner = MAML(**actor(family, hidden=(32, 32)), steps=1, rate=0.1)
    for step in meta_train_policy(learner, family, steps=20, sampling=sampling):
        meta = step.meta
    found = evaluate_policy(learner, meta, family, family.draw(40, 99), sampling=sampling)
    assert found.after.mean() > found.before.mean() + 1


class Recurrent(nn.Module):
    """A net that takes tasks one by one alone."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.recurrent, self.head = nn.GRUCell(inputs, 6), nn.Linear(6, outputs)

    def forward(self, x):
        return self.head(self.recurrent(x, x.new_zeros(len(x), 6)))


def test_discrete_actions_of_a_net_that_takes_tasks_one_by_one():
    family = GridGoals(side=3, horizon=4)
    spec = actor(family)
    learner = MAML(
        objective=spec["objective"], net=Recurrent(spec["net"].inputs, spec["objective"].outputs), steps=1
    )
    sampling = Sampling(tasks=2, trajectories=2)
    step = next(meta_train_policy(learner, family, steps=1, sampling=sampling))
    assert math.isfinite(step.after)


def test_nothing_to_adapt_to_or_to_learn():
    family = Bandits(arms=2)
    learner = MAML(**actor(family), steps=1)
    with pytest.raises(ModelError, match="leaves nothing to adapt to"):
        adapt_policy(learner, learner.init(0), family, (0.1, 0.9), sampling=Sampling(trajectories=0))
    with pytest.raises(DataError, match="no task to evaluate on"):
        evaluate_policy(learner, learner.init(0), family, [])
    with pytest.raises(ModelError, match="missing"):
        evaluate_policy(learner, {}, family, family.draw(1, 0))
    with pytest.raises(ModelError, match="FineTune learns nothing by gradient"):
        next(meta_train_policy(FineTune(**actor(family)), family, steps=1))


def test_a_trust_region_step_is_judged_without_dropout_before_and_after():
    family = Bandits(arms=3)
    learner = MAML(**actor(family, hidden=(8,), dropout=0.5), steps=1)
    meta = learner.init(0)
    found = collect(learner, meta, family, family.draw(3, 0), Sampling(tasks=3, trajectories=4), seed=(0, 0))
    # The smallest step there is: with dropout in one of the two alone it would pass for a better one by far.
    taken = trust_region_step(learner, meta, found.episodes, TRPO(bound=1e-12))
    same = evaluate_at(learner, meta, found.episodes)
    assert taken.after == pytest.approx(same, abs=1e-4) or not taken.tries


def evaluate_at(learner, meta, episodes):
    told = outputs(learner, meta, episodes)
    return float(learner.objective.loss(told, episodes.query.blanked()).mean())
