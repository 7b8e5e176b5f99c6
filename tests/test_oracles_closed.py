"""Closed-form and amortised heads against other people's solvers, and their meta-gradients against plain loops.

The loops take one task at a time, without padding and without vmap, and differentiate through every step of a solver
written anew; the embedding has a layer norm, and tasks are ragged.
"""

import math

import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.svm import LinearSVC
from torch.distributions import MultivariateNormal, Normal
from torch.nn.functional import cross_entropy, one_hot
from toy import blobs, one, sinusoids

from quickstudy.core.engine import adapt, meta_gradient, outputs, predict
from quickstudy.core.episode import Episode, Labelled, stack, unstack
from quickstudy.core.errors import DataError
from quickstudy.core.net import apply
from quickstudy.core.objective import Classify, Regress
from quickstudy.learners import DeepKernel, LogisticHead, MetaOptNet, NeuralProcess, Pretrained
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
THREE = Classify(ways=3)


def normed(inputs=6, outputs=4):
    return MLP(inputs=inputs, outputs=outputs, hidden=(7,), activation="tanh", norm="layer")


def ragged(noise=0.6):
    """Tasks of three, two and one classes, and of many and few rows."""
    shapes = [(3, 2, 4), (3, 5, 2), (2, 4, 3), (1, 2, 2)]
    return stack([one(blobs(ways=w, shots=k, queries=q, noise=noise, seed=w + k), 0) for w, k, q in shapes])


def ragged_numbers():
    return stack([one(sinusoids(shots=k, queries=q, seed=k), 0) for k, q in [(3, 4), (9, 2), (1, 6)]])


def real(episodes):
    """The tasks one by one, without their padding."""
    return [Episode(*(part.trimmed() for part in episode)) for episode in unstack(episodes)]


def bare(meta, name="net"):
    return {key.removeprefix(f"{name}."): value for key, value in meta.items() if key.startswith(f"{name}.")}


def by_loop(learner, meta, episodes, loss):
    """The meta-gradient as the mean over tasks of autograd's, from a loss of one task that is written out."""
    leaves = {key: value.detach().clone().requires_grad_() for key, value in meta.items()}
    total = torch.stack([loss(leaves, task) for task in real(episodes)]).mean()
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return total.item(), {
        key: torch.zeros_like(leaves[key]) if g is None else g for key, g in zip(leaves, grads, strict=True)
    }


def far(found, expected):
    """The largest relative difference of any entry's gradient."""
    assert found.keys() == expected.keys()
    return max(float((found[k] - expected[k]).norm() / expected[k].norm().clamp(min=1e-3)) for k in expected)


def assert_meta_gradient(learner, meta, episodes, loss, tolerance):
    true, expected = by_loop(learner, meta, episodes, loss)
    # Each entry is tested, but for a last bias, which a kernel of distances can't see.
    assert sum(bool(g.norm() > 1e-8) for g in expected.values()) >= len(expected) - 1
    for form in ("stacked", "loop"):
        value, gradient = meta_gradient(learner, meta, episodes, form=form)
        assert value == pytest.approx(true, rel=tolerance)
        assert far(gradient, expected) < tolerance


def assert_slope(learner, meta, episodes, *, tolerance, step=1e-5):
    """Central differences along one direction in all of `meta`."""
    draw = torch.Generator().manual_seed(0)
    way = {key: torch.randn(value.shape, generator=draw) for key, value in meta.items()}
    ends = [
        meta_gradient(learner, {k: v + sign * step * way[k] for k, v in meta.items()}, episodes)[0]
        for sign in (1, -1)
    ]
    _, gradient = meta_gradient(learner, meta, episodes)
    along = sum((gradient[k] * way[k]).sum() for k in gradient)
    assert float(along) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=tolerance)


def ones_beside(x):
    return torch.cat([x, torch.ones(len(x), 1)], 1)


# -- MetaOptNet


@pytest.mark.parametrize(
    ("ways", "shots", "dim", "cost"), [(3, 4, 6, 0.1), (5, 1, 20, 0.1), (3, 30, 4, 0.7), (4, 6, 3, 20.0)]
)
def test_the_machine_is_sklearn_s(ways, shots, dim, cost):
    task = one(blobs(ways=ways, shots=shots, dim=dim, noise=0.8), 0)
    learner = MetaOptNet(objective=Classify(ways=ways), cost=cost, scale=3.0, steps=40)
    meta = learner.init(0)
    found = predict(learner, meta, adapt(learner, meta, task.support), task.query.x)
    model = LinearSVC(
        multi_class="crammer_singer", C=cost, fit_intercept=False, tol=1e-12, max_iter=10**7, random_state=0
    ).fit(task.support.x.numpy(), task.support.y.numpy())
    assert torch.allclose(
        found, 3.0 * torch.from_numpy(model.decision_function(task.query.x.numpy())), atol=1e-8
    )


@pytest.mark.parametrize("ways", [2, 3, 6])
@pytest.mark.parametrize("size", [0.03, 1.0, 40.0])
def test_the_machine_meets_a_bound_that_no_other_weights_beat(ways, size):
    """Weak duality: whatever b in the simplex, the dual's value is at most any weights' loss; here they meet."""
    task = one(blobs(ways=ways, shots=6, noise=0.9, dim=8), 0)
    x, y, cost = size * task.support.x, one_hot(task.support.y, ways).double(), 0.3
    learner = MetaOptNet(objective=Classify(ways=ways), cost=cost, steps=40)
    weights = adapt(learner, learner.init(0), task.support._replace(x=x))["weights"]
    margins = x @ weights
    loss = weights.pow(2).sum() / 2 + cost * ((margins + 1 - y).amax(1) - (margins * y).sum(1)).sum()
    # The dual's variables, found anew: weights = C Xᵀ (y - b), with b ≥ 0 only where the maximum is attained.
    slack = (margins + 1 - y).amax(1, keepdim=True) - (margins + 1 - y)
    held = torch.cat(
        [
            (x.t() * cost).repeat_interleave(ways, 1) * torch.eye(ways).repeat(1, len(x))[k]
            for k in range(ways)
        ]
        + [torch.eye(len(x)).repeat_interleave(ways, 1)]
    )
    right = torch.cat([(cost * x.t() @ y - weights).t().flatten(), torch.ones(len(x))])
    touched = slack.flatten() < 1e-7
    b = torch.zeros(len(x) * ways)
    b[touched] = torch.linalg.lstsq(held[:, touched], right, driver="gelsd").solution
    b = b.reshape(len(x), ways)
    assert torch.allclose(held @ b.flatten(), right, atol=1e-8)
    assert b.min() > -1e-7
    dual = cost * ((1 - b) * y).sum() - (cost * x.t() @ (y - b)).pow(2).sum() / 2
    assert float(loss) == pytest.approx(float(dual), rel=1e-7)


def machine_by_its_conditions(z, y, cost):
    """The weights from the optimality conditions, which sklearn's solution tells: who is at a margin, and at whose."""
    model = LinearSVC(
        multi_class="crammer_singer", C=cost, fit_intercept=False, tol=1e-13, max_iter=10**7, random_state=0
    ).fit(z.detach().numpy(), y.argmax(1).numpy())
    level = z.detach() @ torch.from_numpy(model.coef_).t() + 1 - y
    touched = level > level.amax(1, keepdim=True) - 1e-7
    free = [
        (i, k) for i in range(len(z)) for k in range(y.shape[1]) if touched[i, k] and touched[i].sum() > 1
    ]
    rows = sorted({i for i, _ in free})
    b = (touched & (touched.sum(1, keepdim=True) == 1)).double()  # beyond the margin of one class alone
    kernel = cost * z @ z.t()
    size = len(free) + len(rows)
    left, right = z.new_zeros(size, size), z.new_zeros(size)
    constant = kernel @ (b - y) + y
    for p, (i, k) in enumerate(free):
        for q, (j, c) in enumerate(free):
            if k == c:
                left[p, q] = kernel[i, j]
        left[p, len(free) + rows.index(i)] = left[len(free) + rows.index(i), p] = 1
        right[p] = -constant[i, k]
    right[len(free) :] = 1
    solved = torch.linalg.solve(left, right)
    for p, (i, k) in enumerate(free):
        where = torch.zeros_like(b)
        where[i, k] = 1
        b = b + solved[p] * where
    return cost * z.t() @ (y - b)


def test_meta_opt_net_s_gradient_is_that_of_the_optimality_conditions():
    # sklearn's machine knows no single class, and stores two as one: here all have three.
    shapes = [(2, 4), (5, 2), (1, 3)]
    episodes = stack([one(blobs(shots=k, queries=q, noise=0.6, seed=k), 0) for k, q in shapes])
    learner = MetaOptNet(objective=THREE, net=normed(), cost=0.5, scale=2.0)

    def loss(meta, task):
        z, zq = (apply(learner.net, bare(meta), part.x) for part in task)
        weights = machine_by_its_conditions(z, one_hot(task.support.y, 3).double(), 0.5)
        return cross_entropy(meta["log_scale"].exp() * zq @ weights, task.query.y)

    assert_meta_gradient(learner, learner.init(0), episodes, loss, 1e-12)


def test_meta_opt_net_s_gradient_is_the_slope():
    learner = MetaOptNet(objective=THREE, net=normed(), cost=0.5)
    assert_slope(learner, learner.init(1), ragged(), tolerance=1e-6)


def test_equal_rows_have_a_gradient_too():
    """Their dual has no unique solution, their weights have; the support's double then is one row that costs twice."""
    episodes = blobs(shots=2, tasks=2)
    twice = Episode(Labelled(*(torch.cat([t, t], 1) for t in episodes.support)), episodes.query)
    cost = 0.05
    learner = MetaOptNet(objective=THREE, net=normed(), cost=cost)
    meta = learner.init(0)
    loss, gradient = meta_gradient(learner, meta, twice)
    once = MetaOptNet(objective=THREE, net=learner.net, cost=2 * cost)
    expected_loss, expected = meta_gradient(once, meta, episodes)
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    assert far(gradient, expected) < 1e-6


# -- Logistic head


@pytest.mark.parametrize(("ways", "shots", "penalty"), [(3, 4, 1.0), (5, 1, 0.05), (4, 30, 3.0)])
def test_the_logistic_head_is_sklearn_s(ways, shots, penalty):
    task = one(blobs(ways=ways, shots=shots, noise=0.8), 0)
    learner = LogisticHead(objective=Classify(ways=ways), penalty=penalty)
    meta = learner.init(0)
    found = predict(learner, meta, adapt(learner, meta, task.support), task.query.x)
    # Our intercept is penalised like every weight, so it is a feature of its own there.
    x, xq = (ones_beside(part.x).numpy() for part in task)
    model = LogisticRegression(
        C=1 / penalty, fit_intercept=False, solver="newton-cg", tol=1e-12, max_iter=1000
    )
    model.fit(x, task.support.y.numpy())
    assert torch.allclose(found, torch.from_numpy(model.decision_function(xq)), atol=1e-8)


def logistic_by_newton(z, y, penalty, steps=12):
    """Newton's method on the weights, with the whole Hessian, differentiated through every step."""
    weights = torch.zeros(z.shape[1], y.shape[1])
    shown = y.sum(0) > 0
    for _ in range(steps):
        p = torch.where(shown, z @ weights, -1e9).softmax(1)
        slope = z.t() @ (p - y) + penalty * weights
        curved = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        hessian = torch.einsum("na,nb,nkl->akbl", z, z, curved).reshape(weights.numel(), -1)
        hessian = hessian + penalty * torch.eye(len(hessian))
        weights = weights - torch.linalg.solve(hessian, slope.flatten()).reshape(weights.shape)
    return weights


def test_the_logistic_head_s_gradient_is_that_of_a_solver_unrolled():
    learner = LogisticHead(objective=THREE, net=normed(), penalty=0.2)

    def loss(meta, task):
        z, zq = (ones_beside(apply(learner.net, bare(meta), part.x)) for part in task)
        y = one_hot(task.support.y, 3).double()
        weights = logistic_by_newton(z, y, meta["log_penalty"].exp())
        return cross_entropy(torch.where(y.sum(0) > 0, zq @ weights, -1e9), task.query.y)

    assert_meta_gradient(learner, learner.init(0), ragged(), loss, 1e-12)


def test_the_logistic_head_s_gradient_is_the_slope():
    learner = LogisticHead(objective=THREE, net=normed(), penalty=0.2)
    assert_slope(learner, learner.init(1), ragged(), tolerance=1e-7)


@pytest.mark.parametrize(("size", "penalty"), [(100.0, 1e-3), (1e-3, 1e3), (3.0, 1e-4)])
def test_the_logistic_head_converges_from_far(size, penalty):
    task = one(blobs(shots=5, noise=0.8), 0)
    learner = LogisticHead(objective=THREE, penalty=penalty, steps=60)
    weights = adapt(learner, learner.init(0), task.support._replace(x=size * task.support.x))["weights"]
    x = ones_beside(size * task.support.x)
    slope = x.t() @ ((x @ weights).softmax(1) - one_hot(task.support.y, 3)) + penalty * weights
    assert slope.abs().max() < 1e-8 * x.abs().max()


# -- Deep kernel

KERNELS = ["rbf", "cosine", "linear"]


def sklearn_kernel(kind, amplitude, noise, lengthscale):
    shape = RBF(lengthscale) if kind == "rbf" else DotProduct(0.0, sigma_0_bounds="fixed")
    return ConstantKernel(amplitude**2) * shape + WhiteKernel(noise**2)


def seen_by(kind, x):
    return x / x.norm(dim=1, keepdim=True) if kind == "cosine" else x


@pytest.mark.parametrize("kind", KERNELS)
def test_the_process_is_sklearn_s(kind):
    task = one(blobs(shots=5, dim=4), 0)
    x, xq = (seen_by(kind, part.x).numpy() for part in task)
    y = torch.stack([task.support.x[:, 0].sin(), task.support.x[:, 1] ** 2], 1)
    learner = DeepKernel(objective=Regress(dim=2), kernel=kind, amplitude=1.7, noise=0.4, lengthscale=0.9)
    meta = learner.init(0) | {"mean": torch.tensor(0.3)}
    support = task.support._replace(y=y)
    mean, variance = learner.posterior(meta, adapt(learner, meta, support), task.query.x)
    model = GaussianProcessRegressor(sklearn_kernel(kind, 1.7, 0.4, 0.9), alpha=1e-4, optimizer=None)
    model.fit(x, y.numpy() - 0.3)
    expected, spread = (torch.from_numpy(part) for part in model.predict(xq, return_std=True))
    assert torch.allclose(mean, expected + 0.3, atol=1e-10)
    # sklearn's α is noise of the support alone; ours is of every answer.
    assert torch.allclose(variance, spread[:, 0] ** 2 + 1e-4, atol=1e-10)
    assert torch.equal(predict(learner, meta, adapt(learner, meta, support), task.query.x), mean)
    # The likelihood of support and query together, and its slope by the three parameters.
    whole = Episode(Labelled(*(t[:6] for t in support)), Labelled(*(t[6:] for t in support)))
    batch = Episode(*(Labelled(*(t[None] for t in part)) for part in whole))
    loss, gradient = meta_gradient(learner, meta, batch)
    each = [model.fit(x, y[:, i].numpy() - 0.3).log_marginal_likelihood(model.kernel_.theta, eval_gradient=True)
            for i in range(2)]  # fmt: skip
    assert loss == pytest.approx(-sum(value for value, _ in each) / (2 * len(x)), rel=1e-10)
    slopes = -2 * sum(slope for _, slope in each) / (2 * len(x))  # theirs are by the logarithms of squares
    names = (
        ["log_amplitude", "log_lengthscale", "log_noise"] if kind == "rbf" else ["log_amplitude", "log_noise"]
    )
    for name, slope in zip(names, slopes, strict=True):
        slope = slope / 2 if name == "log_lengthscale" else slope
        assert float(gradient[name]) == pytest.approx(slope, rel=1e-9)


def test_classes_are_regressed_each_against_the_rest():
    task = one(blobs(shots=4, noise=0.8), 0)
    learner = DeepKernel(objective=THREE, noise=0.6, scale=2.0)
    meta = learner.init(0)
    logits = predict(learner, meta, adapt(learner, meta, task.support), task.query.x)
    for k in range(3):
        model = GaussianProcessRegressor(sklearn_kernel("rbf", 1.0, 0.6, 1.0), alpha=1e-4, optimizer=None)
        model.fit(task.support.x.numpy(), torch.where(task.support.y == k, 1.0, -1.0).numpy())
        expected = 2.0 * torch.from_numpy(model.predict(task.query.x.numpy()))
        assert torch.allclose(logits[:, k], expected, atol=1e-10)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("classes", [True, False], ids=["classes", "numbers"])
def test_the_deep_kernel_s_gradient_is_that_of_the_density(kind, classes):
    episodes = ragged() if classes else ragged_numbers()
    net = normed(inputs=6 if classes else 1)
    learner = DeepKernel(objective=THREE if classes else Regress(), net=net, kernel=kind, noise=0.5)

    def loss(meta, task):
        x, y = (torch.cat(pair) for pair in list(zip(*task, strict=True))[:2])
        z = apply(net, bare(meta), x)
        if kind == "cosine":
            z = z / z.norm(dim=1, keepdim=True)
        shape = z @ z.t()
        if kind == "rbf":
            shape = ((z[:, None] - z[None]).pow(2).sum(2) / (-2 * meta["log_lengthscale"].exp() ** 2)).exp()
        noise = meta["log_noise"].exp() ** 2 + 1e-4
        covariance = meta["log_amplitude"].exp() ** 2 * shape + noise * torch.eye(len(x))
        density = MultivariateNormal(meta["mean"].expand(len(x)), covariance)
        answers = [2.0 * (y == k) - 1 for k in range(3) if (y == k).any()] if classes else [y[:, 0]]
        return -torch.stack([density.log_prob(answer) for answer in answers]).mean() / len(x)

    assert_meta_gradient(learner, learner.init(0), episodes, loss, 1e-12)


# -- Neural process


def a_process(objective):
    k, inputs = objective.outputs, 6 if isinstance(objective, Classify) else 1
    read, told, asked = (0, 5 * k, k) if isinstance(objective, Classify) else (k, 5, 2 * k)
    encoder, decoder = normed(inputs + read, 5), normed(inputs + told, asked)
    return NeuralProcess(objective=objective, encoder=encoder, decoder=decoder)


def test_a_neural_process_of_numbers_is_its_definition():
    learner = a_process(Regress())

    def loss(meta, task):
        rows = [apply(learner.encoder, bare(meta, "encoder"), torch.cat([x, y])[None])
                for x, y in zip(task.support.x, task.support.y, strict=True)]  # fmt: skip
        r = torch.stack(rows).mean(0)[0]
        losses = []
        for x, y in zip(task.query.x, task.query.y, strict=True):
            mu, raw = apply(learner.decoder, bare(meta, "decoder"), torch.cat([x, r])[None])[0]
            losses.append(-Normal(mu, 0.1 + (1 + raw.exp()).log()).log_prob(y[0]))
        return torch.stack(losses).mean()

    meta, episodes = learner.init(0), ragged_numbers()
    assert_meta_gradient(learner, meta, episodes, loss, 1e-12)
    task = real(episodes)[1]
    fast = adapt(learner, meta, task.support)
    mean, variance = learner.posterior(meta, fast, task.query.x)
    assert torch.equal(mean, predict(learner, meta, fast, task.query.x))
    density = Normal(mean, variance.sqrt()).log_prob(task.query.y).mean()
    assert float(learner.loss(meta, task)) == pytest.approx(-float(density))


def test_a_neural_process_of_classes_is_its_definition():
    learner = a_process(THREE)

    def loss(meta, task):
        shown = [bool((task.support.y == k).any()) for k in range(3)]
        r = []
        for k in range(3):
            rows = apply(learner.encoder, bare(meta, "encoder"), task.support.x[task.support.y == k])
            r.append(rows.mean(0) if shown[k] else torch.zeros(5))
        x = torch.stack([torch.cat([x, *r]) for x in task.query.x])
        logits = apply(learner.decoder, bare(meta, "decoder"), x)
        return cross_entropy(torch.where(torch.tensor(shown), logits, -1e9), task.query.y)

    assert_meta_gradient(learner, learner.init(0), ragged(), loss, 1e-12)


def test_batch_norm_in_either_network_sees_no_padding():
    plain = a_process(THREE)
    normed_by_batch = MLP(inputs=6, outputs=5, hidden=(7,), norm="batch")
    learner = NeuralProcess(objective=THREE, encoder=normed_by_batch, decoder=plain.decoder)
    meta, tasks = learner.init(0), real(ragged())
    together = outputs(learner, meta, stack(tasks))
    for row, task in zip(together, tasks, strict=True):
        alone = predict(learner, meta, adapt(learner, meta, task.support), task.query.x)
        assert torch.allclose(row[: len(alone)], alone, atol=1e-12)


def test_a_neural_process_wants_vectors():
    learner = a_process(Regress())
    with pytest.raises(DataError, match=r"x has shape \[2, 3, 1\]"):
        adapt(learner, learner.init(0), Labelled.of(torch.zeros(2, 3, 1), torch.zeros(2, 1)))


# -- Pre-training


def test_a_logistic_probe_is_sklearn_s():
    task = one(blobs(shots=4, noise=0.8), 0)
    learner = Pretrained(objective=THREE, net=normed(), penalty=0.5)
    meta = learner.init(0)
    found = predict(learner, meta, adapt(learner, meta, task.support), task.query.x)
    z, zq = (ones_beside(apply(learner.net, bare(meta), part.x)).detach().numpy() for part in task)
    model = LogisticRegression(C=2.0, fit_intercept=False, solver="newton-cg", tol=1e-12, max_iter=1000)
    model.fit(z, task.support.y.numpy())
    assert torch.allclose(found, torch.from_numpy(model.decision_function(zq)), atol=1e-8)


def test_pre_training_lowers_what_the_best_heads_leave():
    """The loss is a minimum over heads, and its gradient that of the minimum: through every step of finding them."""
    learner = Pretrained(objective=THREE, net=normed(), penalty=0.3, steps=20)

    def loss(meta, task):
        x, labels, _ = (torch.cat(pair) for pair in zip(*task, strict=True))
        z, y = ones_beside(apply(learner.net, bare(meta), x)), one_hot(labels, 3).double()
        weights = logistic_by_newton(z, y, 0.3)
        logits = torch.where(y.sum(0) > 0, z @ weights, -1e9)
        return cross_entropy(logits, labels) + 0.3 / 2 * weights.pow(2).sum() / len(x)

    assert_meta_gradient(learner, learner.init(0), ragged(), loss, 1e-12)


def test_pre_training_on_functions_lowers_what_the_best_heads_leave():
    learner = Pretrained(objective=Regress(), net=normed(inputs=1), penalty=0.3)

    def loss(meta, task):
        x, y, _ = (torch.cat(pair) for pair in zip(*task, strict=True))
        z = ones_beside(apply(learner.net, bare(meta), x))
        weights = torch.linalg.solve(z.t() @ z + 0.3 * torch.eye(5), z.t() @ y)
        return ((z @ weights - y).pow(2).sum() + 0.3 * weights.pow(2).sum()) / len(x)

    meta, episodes = learner.init(0), ragged_numbers()
    assert_meta_gradient(learner, meta, episodes, loss, 1e-12)
    task = real(episodes)[1]
    z, zq = (ones_beside(apply(learner.net, bare(meta), part.x)).detach().numpy() for part in task)
    model = SklearnRidge(alpha=0.3, fit_intercept=False).fit(z, task.support.y.numpy())
    found = predict(learner, meta, adapt(learner, meta, task.support), task.query.x)
    assert torch.allclose(found, torch.from_numpy(model.predict(zq)).reshape(found.shape), atol=1e-10)


def test_a_shared_head_is_plain_training_over_the_classes_of_all_tasks():
    """Seven past classes, numbered across tasks; new tasks have three."""
    past = one(blobs(tasks=1, ways=7, shots=5, queries=5), 0)
    head = MLP(inputs=4, outputs=7, hidden=())
    learner = Pretrained(objective=THREE, net=normed(), head=head)

    def loss(meta, task):
        x, y, _ = (torch.cat(pair) for pair in zip(*task, strict=True))
        z = apply(learner.net, bare(meta), x)
        return cross_entropy(z @ meta["head.0.weight"].t() + meta["head.0.bias"], y)

    meta = learner.init(0)
    assert_meta_gradient(learner, meta, stack([past]), loss, 1e-12)
    # The head is of no use to a new task, which has a probe of its own.
    other = meta | {key: value + 1 for key, value in meta.items() if key.startswith("head.")}
    assert torch.equal(outputs(learner, other, ragged()), outputs(learner, meta, ragged()))


def test_one_network_for_all_functions_learns_their_mean():
    """What a head shared by sinusoids of any phase can know; a head of its own for each knows more."""
    head = MLP(inputs=4, outputs=1, hidden=())
    learner = Pretrained(objective=Regress(), net=normed(inputs=1), head=head)
    opposite = torch.linspace(-2, 2, 9)[:, None]
    tasks = [Labelled.of(opposite, sign * opposite.sin()) for sign in (1, -1)]
    batch = stack([Episode(task, task) for task in tasks])
    meta = learner.init(0)
    moved = meta | {"head.0.weight": torch.zeros(1, 4), "head.0.bias": torch.zeros(1)}
    _, gradient = meta_gradient(learner, moved, batch)
    assert all(float(g.abs().max()) < 1e-12 for g in gradient.values())  # 0, their mean, is where it rests
    own = Pretrained(objective=Regress(), net=learner.net)
    assert meta_gradient(own, {k: v for k, v in meta.items() if k.startswith("net.")}, batch)[
        0
    ] < 0.5 * float(opposite.sin().pow(2).mean())


# -- All


@pytest.mark.parametrize("learner", [
    MetaOptNet(objective=THREE, net=normed()),
    LogisticHead(objective=THREE, net=normed()),
    DeepKernel(objective=THREE, net=normed()),
    Pretrained(objective=THREE, net=normed()),
], ids=lambda learner: type(learner).__name__)  # fmt: skip
def test_a_loss_that_is_not_a_number_says_so_and_nothing_breaks(learner):
    episodes = blobs()
    episodes.support.x[1, 2] = math.nan
    loss, _ = meta_gradient(learner, learner.init(0), episodes)
    assert math.isnan(loss)
    fine = stack([one(episodes, 0), one(episodes, 2)])
    assert math.isfinite(meta_gradient(learner, learner.init(0), fine)[0])
