"""Learners against other people's code, or against formulas worked out by hand."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from toy import blobs, one, sinusoids

from quickstudy.core.engine import adapt, meta_gradient, predict
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.objective import Classify, Regress
from quickstudy.learners import GE2E, MAML, Centroid, Gaussian, Logistic, Prototypical, Ridge
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")


def answers(learner, task, meta=None):
    meta = learner.init(0) if meta is None else meta
    return predict(learner, meta, adapt(learner, meta, task.support), task.query.x)


@pytest.mark.parametrize("shots", [2, 8], ids=["fewer rows than features", "more rows than features"])
def test_ridge_is_sklearn_s(shots):
    task = one(blobs(shots=shots, dim=8), 0)
    learner = Ridge(objective=Classify(ways=3), penalty=0.5, scale=4.0)
    # Our intercept is penalised like every weight, so it is a feature of its own there.
    with_one = [torch.cat([x, torch.ones(len(x), 1)], 1).numpy() for x in (task.support.x, task.query.x)]
    model = SklearnRidge(alpha=0.5, fit_intercept=False).fit(
        with_one[0], torch.eye(3)[task.support.y].numpy()
    )
    assert torch.allclose(
        answers(learner, task), 4.0 * torch.from_numpy(model.predict(with_one[1])), atol=1e-10
    )


def test_ridge_regression_is_sklearn_s():
    task = one(sinusoids(shots=12), 0)
    with_one = [torch.cat([x, torch.ones(len(x), 1)], 1).numpy() for x in (task.support.x, task.query.x)]
    model = SklearnRidge(alpha=2.0, fit_intercept=False).fit(with_one[0], task.support.y.numpy())
    expected = torch.from_numpy(model.predict(with_one[1])).reshape(-1, 1)
    assert torch.allclose(answers(Ridge(objective=Regress(), penalty=2.0), task), expected, atol=1e-10)


@pytest.mark.parametrize("ways", [2, 3, 5])
def test_logistic_regression_gives_sklearn_s_probabilities(ways):
    task = one(blobs(ways=ways, dim=8), 0)
    learner = Logistic(objective=Classify(ways=ways), inverse_penalty=3.0)
    model = LogisticRegression(C=3.0, max_iter=2000, tol=1e-8).fit(
        task.support.x.numpy(), task.support.y.numpy()
    )
    ours = torch.softmax(answers(learner, task), -1)
    assert torch.allclose(ours, torch.from_numpy(model.predict_proba(task.query.x.numpy())), atol=2e-3)


def test_prototypes_are_class_means_and_logits_are_negative_squared_distances():
    net = torch.nn.Identity()
    net.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    task = one(blobs(), 0)
    logits = answers(Prototypical(objective=Classify(ways=3), net=net, scale=2.0), task)
    for i, x in enumerate(task.query.x):
        for c in range(3):
            mean = torch.stack(
                [row for row, y in zip(task.support.x, task.support.y, strict=True) if y == c]
            ).mean(0)
            assert float(logits[i, c]) == pytest.approx(-2.0 * math.dist(x.tolist(), mean.tolist()) ** 2)


def test_centroids_are_compared_by_angle():
    task = one(blobs(), 0)
    logits = answers(Centroid(objective=Classify(ways=3), scale=7.0), task)
    for i, x in enumerate(task.query.x):
        for c in range(3):
            rows = [row / row.norm() for row, y in zip(task.support.x, task.support.y, strict=True) if y == c]
            mean = torch.stack(rows).mean(0)
            assert float(logits[i, c]) == pytest.approx(7.0 * float(x @ mean / (x.norm() * mean.norm())))


@pytest.mark.parametrize("described", [False, True])
def test_gaussian_is_the_posterior_predictive_computed_feature_by_feature(described):
    learner = Gaussian(objective=Classify(ways=3), dim=4)
    draw = torch.Generator().manual_seed(0)

    def random(*shape, low=0.0):
        return low + torch.rand(shape, generator=draw)

    meta = {"center": random(4), "basis": 3 * random(4, 4), "mean": random(4), "between": random(4, low=0.3),
            "slope": random(low=0.5), "shift": random(4), "noise": random(4, low=0.2),
            "calibration": torch.zeros(2), "own": torch.tensor(30.0)}  # fmt: skip
    task = one(blobs(dim=4), 0)
    support = task.support
    if described:  # class 1 is described too: a row whose number is `ways` higher
        words = random(1, 4)
        support = Labelled.of(torch.cat([support.x, words]), torch.cat([support.y, torch.tensor([4])]))
    logits = answers(learner, Episode(support, task.query), meta)

    def features(x):
        x = x - meta["center"]
        return x / x.norm(dim=-1, keepdim=True) @ meta["basis"]

    z, zq = features(support.x), features(task.query.x)
    expected = torch.zeros(len(zq), 3)
    for c in range(3):
        # One observation after the other by Bayes' rule: N(m, v) times N(seen; m, noise).
        m, v = meta["mean"].clone(), meta["between"].clone()
        for seen, y in zip(z, support.y, strict=True):
            if y == c:
                noise = torch.ones(4)
            elif y == c + 3:
                # d = slope (m - mean) + shift + noise, solved for m
                seen = (seen - meta["shift"]) / meta["slope"] + meta["mean"]
                noise = meta["noise"] / meta["slope"] ** 2
            else:
                continue
            m, v = (m * noise + seen * v) / (v + noise), v * noise / (v + noise)
        expected[:, c] = torch.distributions.Normal(m, (1 + v).sqrt()).log_prob(zq).sum(-1)
    assert torch.allclose(torch.log_softmax(logits, -1), torch.log_softmax(expected, -1), atol=1e-9)


@pytest.mark.parametrize("shots", [2, 7], ids=["fewer rows than features", "more"])
def test_gaussian_learns_how_the_task_itself_scatters(shots):
    """Against the discriminant with the posterior covariance written out, one matrix for all classes."""
    dim, ways = 9, 3
    learner = Gaussian(objective=Classify(ways=ways), dim=dim, steady=4.0)
    draw = torch.Generator().manual_seed(0)
    meta = learner.init() | {"between": 0.5 + torch.rand(dim, generator=draw), "own": torch.tensor(1.0),
                             "calibration": torch.zeros(2)}  # fmt: skip
    task = one(blobs(dim=dim, ways=ways, shots=shots), 0)
    logits = answers(learner, task, meta)
    z, zq = (3 * x / x.norm(dim=-1, keepdim=True) for x in (task.support.x, task.query.x))
    means = torch.stack([z[task.support.y == c].mean(0) for c in range(ways)])
    residual = z - means[task.support.y]
    variance = 1 / (1 / meta["between"] + shots)
    posterior = means * shots * variance
    loud = (residual.pow(2).sum() / dim + 4) / (len(z) - ways + 4)
    narrow = torch.diag((1 + variance).rsqrt())
    own = torch.eye(dim) + narrow @ residual.t() @ residual @ narrow / (torch.e * loud**4)
    precision = narrow @ own.inverse() @ narrow
    expected = torch.stack([-((zq - m) @ precision * (zq - m)).sum(-1) / 2 for m in posterior], -1)
    assert torch.allclose(torch.log_softmax(logits, -1), torch.log_softmax(expected, -1), atol=1e-5)


@pytest.mark.parametrize("described", [False, True], ids=["one example", "described only"])
def test_gaussian_gives_a_rare_class_no_more_than_its_due(described):
    """A refined covariance that took more than the rare class's own precision would hand it everything far away."""
    dim, ways, draw = 64, 30, torch.Generator().manual_seed(0)
    learner = Gaussian(objective=Classify(ways=ways), dim=dim)
    # Features of length 12.6: variance 1 within classes, 1.5 between them.
    meta = learner.init() | {"basis": 12.6 * torch.eye(dim), "between": torch.full((dim,), 1.5)}
    means = 1.5**0.5 * torch.randn(ways, dim, generator=draw)
    y = torch.cat(
        [torch.arange(ways - 1).repeat(50), torch.tensor([2 * ways - 1 if described else ways - 1])]
    )
    query = torch.arange(ways).repeat(20)
    x, xq = (means[of % ways] + torch.randn(len(of), dim, generator=draw) for of in (y, query))
    fast = adapt(learner, meta, Labelled.of(x, y))
    right = predict(learner, meta, fast, xq).argmax(-1) == query
    assert right.double().mean() > 0.95


def test_gaussian_s_prior_recovers_the_directions_that_classes_differ_in():
    """A known truth: three directions carry classes, three carry noise of four times the scale."""
    draw = torch.Generator().manual_seed(1)
    apart, spread = torch.tensor([1.0, 1, 1, 0, 0, 0]), torch.tensor([0.5, 0.5, 0.5, 2, 2, 2])
    tasks = []
    for _ in range(20):
        means = 2 * torch.randn(30, 6, generator=draw) * apart
        y = torch.arange(30).repeat(8)
        tasks.append(Labelled.of(means[y] + spread * torch.randn(240, 6, generator=draw), y))
    learner = Gaussian(objective=Classify(ways=5), dim=6)
    meta = learner.estimate(tasks)
    best = meta["basis"][:, meta["between"].argsort(descending=True)[:3]].double()
    share = best[:3].pow(2).sum() / best.pow(2).sum()
    assert share > 0.9
    assert meta["between"].max() > 5 * meta["between"].min()


def test_gaussian_s_prior_knows_classes_by_any_numbers():
    task = one(blobs(tasks=1, ways=4, shots=6, dim=6), 0).support
    names = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    learner = Gaussian(objective=Classify(ways=3), dim=6)
    number = torch.tensor([1, 4, 5, 8])
    plain = learner.estimate([task], [names[number]])
    gaps = learner.estimate([task._replace(y=number[task.y])], [names])
    assert all(torch.allclose(plain[k], gaps[k]) for k in plain)


def test_ge2e_leaves_each_row_out_of_its_own_centroid():
    net = torch.nn.Identity()
    net.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    learner = GE2E(objective=Classify(ways=3), net=net, temperature=0.5)
    task = one(blobs(shots=2, queries=2), 0)
    x, y = (torch.cat([task.support[i], task.query[i]]) for i in (0, 1))
    z = x / x.norm(dim=-1, keepdim=True)
    losses = []
    for i in range(len(z)):
        similar = []
        for c in range(3):
            centre = torch.stack([z[j] for j in range(len(z)) if y[j] == c and j != i]).mean(0)
            similar.append(z[i] @ centre / centre.norm() / 0.5)
        losses.append(-torch.log_softmax(torch.stack(similar), 0)[y[i]])
    assert float(learner.loss(learner.init(0), task)) == pytest.approx(float(torch.stack(losses).mean()))


def test_one_step_of_maml_on_a_line_by_hand():
    """f(x) = w x + b, squared error, one inner step: both gradients worked out on paper.

    Inner:  w' = w - a ∂L/∂w,  b' = b - a ∂L/∂b,  L = mean (w x + b - y)²,  with H the constant Hessian of L.
    Outer:  ∇ L_q(θ') (I - a H).
    """
    rate = 0.1
    x, y = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[2.0], [1.0], [0.0]])
    xq, yq = torch.tensor([[0.5], [3.0]]), torch.tensor([[1.0], [-1.0]])
    net = MLP(inputs=1, outputs=1, hidden=())
    theta = torch.tensor([0.3, -0.2])
    design, design_q = (torch.cat([t, torch.ones_like(t)], 1) for t in (x, xq))
    hessian = 2 * design.t() @ design / 3
    moved = theta - rate * 2 * design.t() @ (design @ theta - y[:, 0]) / 3
    slope = 2 * design_q.t() @ (design_q @ moved - yq[:, 0]) / 2
    for second_order in (True, False):
        expected = slope - rate * hessian @ slope if second_order else slope
        learner = MAML(objective=Regress(), net=net, steps=1, rate=rate, second_order=second_order)
        (weight, bias) = learner.init(0)
        meta = {weight: theta[:1].reshape(1, 1), bias: theta[1:]}
        episodes = Episode(Labelled.of(x, y), Labelled.of(xq, yq))
        batch = Episode(*(Labelled(*(t[None] for t in part)) for part in episodes))
        for form in ("dual", "stacked", "loop"):
            loss, gradient = meta_gradient(learner, meta, batch, form=form)
            assert loss == pytest.approx(float((design_q @ moved - yq[:, 0]).pow(2).mean()))
            assert [float(gradient[weight]), float(gradient[bias])] == pytest.approx(expected.tolist())
