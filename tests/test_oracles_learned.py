"""Learners that learn how to descend, against loops over tasks written from the papers' pseudo-code, in float64.

The references share no code with the learners: one task after the other, padding cut away, absent classes cut away,
torch's own LSTM cells, and autograd or closed forms in place of conjugate gradients.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from test_engine_forms import distance, task_loss
from torch import nn
from torch.func import functional_call
from toy import blobs, one, sinusoids, with_garbage

from quickstudy.core.engine import meta_gradient, meta_train, task_losses
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.errors import DivergedError
from quickstudy.core.implicit import solve
from quickstudy.core.learner import inner_gradient, per_task
from quickstudy.core.net import training
from quickstudy.core.objective import Classify, Regress
from quickstudy.learners import IMAML, LEO, MAML, LearnedMomentum, LearnedOptimiser, MetaLSTM
from quickstudy.learners.cells import lstm, scaled
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
EXACT = 1e-12
NORMS = ("none", "layer", "batch", "group", "rms")
both_kinds = pytest.mark.parametrize("regress", [False, True], ids=["classes", "numbers"])


def ragged(regress):
    """Three tasks of different sizes in one batch, the second without class 2, with padding that holds garbage."""
    if regress:
        tasks = [one(sinusoids(shots=n, seed=n), 0) for n in (5, 8, 6)]
    else:
        tasks = [one(blobs(ways=w, shots=k, dim=4, seed=w + k), 0) for w, k in ((3, 2), (2, 4), (3, 3))]
    return Episode(*(with_garbage(part, 2) for part in stack(tasks)))


def whole_batch(regress):
    """Three tasks of one size: padding would enter batch norm's statistics."""
    return sinusoids(tasks=3, shots=6) if regress else blobs(tasks=3, dim=4)


def setting(kind, regress, norm="none", **fields):
    objective = Regress(dim=1) if regress else Classify(ways=3)
    net = MLP(
        inputs=1 if regress else 4, outputs=objective.outputs, hidden=(6,), activation="tanh", norm=norm
    )
    return kind(objective=objective, net=net, **fields), net.build().eval()


def some(learner, seed=1):
    """Meta-parameters away from where they start, so that each of them matters."""
    draw = torch.Generator().manual_seed(seed)
    return {k: v + 0.3 * torch.randn(v.shape, generator=draw) for k, v in learner.init(0).items()}


def by_loop(adapt, module, meta, episodes, regress):
    """(loss, gradient) of `adapt(start, loss)` -> weights, one task after the other."""
    leaves = {name: value.clone().requires_grad_() for name, value in meta.items()}
    total = torch.zeros(())
    for i in range(len(episodes.support.mask)):
        support, query = (Labelled(*(t[i][part.mask[i]] for t in part)) for part in episodes)
        weights = adapt(leaves, lambda at, part=support: loss_at(module, at, part, part, regress))
        total = total + loss_at(module, weights, query, support, regress) / len(episodes.support.mask)
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return float(total.detach()), {
        name: torch.zeros_like(value) if grad is None else grad
        for (name, value), grad in zip(leaves.items(), grads, strict=True)
    }


def loss_at(module, weights, part, support, regress):
    return task_loss(functional_call(module, weights, (part.x,)), part, support, regress)


def net_of(meta):
    return {name.removeprefix("net."): value for name, value in meta.items() if name.startswith("net.")}


def of(meta, prefix):
    return {name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)}


def slopes(loss, weights, *, create_graph):
    grads = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=create_graph)
    return dict(zip(weights, grads, strict=True))


def constant(loss, weights):
    """(the loss, its gradient), neither of them differentiable."""
    at = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    return loss(at).detach(), slopes(loss, at, create_graph=False)


def check(learner, adapt, module, meta, episodes, regress):
    agree(learner, meta, episodes, *by_loop(adapt, module, meta, episodes, regress))


def agree(learner, meta, episodes, expected_loss, expected):
    assert min(float(g.norm()) for g in expected.values()) > 0, "each meta-parameter matters"
    for form in ("stacked", "loop"):
        loss, gradient = meta_gradient(learner, meta, episodes, form=form)
        assert loss == pytest.approx(expected_loss, rel=EXACT)
        assert distance(gradient, expected) < EXACT


# -- The pieces


def test_the_cell_is_torch_s_for_one_task_and_for_many():
    cells = [nn.LSTMCell(3, 5) for _ in range(2)]
    x, h, c = torch.randn(2, 7, 3), torch.randn(2, 7, 5), torch.randn(2, 7, 5)
    expected = [cell(x[i], (h[i], c[i])) for i, cell in enumerate(cells)]
    for i, cell in enumerate(cells):
        for ours, theirs in zip(
            lstm(dict(cell.named_parameters()), x[i], (h[i], c[i])), expected[i], strict=True
        ):
            assert torch.allclose(ours, theirs, rtol=EXACT, atol=1e-15)
    stacked = {
        k: torch.stack([dict(cell.named_parameters())[k] for cell in cells]) for k in cells[0].state_dict()
    }
    for ours, theirs in zip(lstm(stacked, x, (h, c)), zip(*expected, strict=True), strict=True):
        assert torch.allclose(ours, torch.stack(theirs), rtol=EXACT, atol=1e-15)


def preprocessed(x, p=10):
    return (math.log(abs(x)) / p, math.copysign(1, x)) if abs(x) >= math.exp(-p) else (-1.0, math.exp(p) * x)


@pytest.mark.parametrize("x", [3.0, -2e5, 1e-3, -1e-4, 4e-5, -4e-5, 1e-9, 0.0, math.exp(-10)])
def test_numbers_are_scaled_as_the_paper_writes(x):
    assert scaled(torch.tensor([x]))[0].tolist() == pytest.approx(preprocessed(x), rel=EXACT, abs=1e-15)


# -- Learned optimisers


@both_kinds
@pytest.mark.parametrize("norm", NORMS)
def test_the_learned_optimiser(norm, regress):
    learner, module = setting(LearnedOptimiser, regress, norm, steps=4, hidden=5, scale=0.2)
    first, second, output = nn.LSTMCell(2, 5), nn.LSTMCell(5, 5), nn.Linear(5, 1)

    def adapt(meta, loss):
        weights, states = net_of(meta), {}
        for _ in range(4):
            _, gradient = constant(loss, weights)
            new = {}
            for name, weight in weights.items():
                # Each tensor's coordinates are a batch of their own: the optimiser never sees where one stands.
                seen = torch.tensor([preprocessed(g) for g in gradient[name].flatten().tolist()])
                one_, two = states.get(name, (None, None))
                one_ = functional_call(first, of(meta, "first."), (seen, one_))
                two = functional_call(second, of(meta, "second."), (one_[0], two))
                states[name] = (one_, two)
                update = functional_call(output, of(meta, "output."), (two[0],))
                new[name] = weight + 0.2 * update.reshape(weight.shape)
            weights = new
        return weights

    episodes = whole_batch(regress) if norm == "batch" else ragged(regress)
    check(learner, adapt, module, some(learner), episodes, regress)


def test_a_start_that_is_not_learned_stays():
    learner, _ = setting(LearnedOptimiser, False, learn_start=False)
    before = learner.init(0)
    for step in meta_train(learner, lambda k: blobs(dim=4, seed=k), steps=2):
        after = step.meta
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("net."), name


@both_kinds
@pytest.mark.parametrize("norm", NORMS)
def test_the_meta_lstm(norm, regress):
    learner, module = setting(MetaLSTM, regress, norm, steps=4, hidden=5)
    cell = nn.LSTMCell(4, 5)

    def gate(meta, name, h, theta, before):
        total = (
            meta[f"{name}.bias"]
            + meta[f"{name}.weight"][0, 5] * theta
            + meta[f"{name}.weight"][0, 6] * before
        )
        return torch.sigmoid(total + h @ meta[f"{name}.weight"][0, :5])

    def adapt(meta, loss):
        weights, states = net_of(meta), {}
        for _ in range(4):
            value, gradient = constant(loss, weights)
            new = {}
            for name, weight in weights.items():
                g, theta = gradient[name].flatten(), weight.flatten()
                seen = torch.tensor([(*preprocessed(x), *preprocessed(value.item())) for x in g.tolist()])
                state, i, f = states.get(name, (None, torch.zeros_like(g), torch.zeros_like(g)))
                state = functional_call(cell, of(meta, "lstm."), (seen, state))
                i = gate(meta, "write", state[0], theta, i)
                f = gate(meta, "keep", state[0], theta, f)
                states[name] = (state, i, f)
                new[name] = (f * theta - i * g).reshape(weight.shape)
            weights = new
        return weights

    episodes = whole_batch(regress) if norm == "batch" else ragged(regress)
    check(learner, adapt, module, some(learner), episodes, regress)


def test_an_untrained_meta_lstm_descends_at_its_rate():
    """Its gates start at `rate` and `keep`, but for what small weights add."""
    learner, module = setting(MetaLSTM, False, steps=1, rate=0.2, keep=0.99)
    meta = learner.init(0)
    meta |= {name: torch.zeros_like(meta[name]) for name in ("write.weight", "keep.weight")}
    task = one(blobs(dim=4), 0)
    at = {name: weight.requires_grad_() for name, weight in net_of(meta).items()}
    gradient = slopes(lambda w: loss_at(module, w, task.support, task.support, False), at, create_graph=False)
    fast = learner.adapt(meta, task.support)
    for name, weight in at.items():
        assert torch.allclose(fast[f"net.{name}"], 0.99 * weight - 0.2 * gradient[name], rtol=1e-12)


@both_kinds
@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_learned_momentum(norm, second_order, regress):
    learner, module = setting(LearnedMomentum, regress, norm, steps=3, rate=0.2, second_order=second_order)

    def adapt(meta, loss):
        weights = net_of(meta)
        velocity = dict.fromkeys(weights, 0.0)
        for _ in range(3):
            gradient = (
                slopes(loss, weights, create_graph=True) if second_order else constant(loss, weights)[1]
            )
            for name in weights:
                kept = 1 / (1 + torch.exp(-meta[f"momentum.{name}"]))
                velocity[name] = kept * velocity[name] - (1 - kept) * gradient[name]
            weights = {
                name: weight + torch.exp(meta[f"log_rate.{name}"]) * velocity[name]
                for name, weight in weights.items()
            }
        return weights

    episodes = whole_batch(regress) if norm == "batch" else ragged(regress)
    check(learner, adapt, module, some(learner), episodes, regress)


# -- Implicit MAML

SOLVED = {"steps": 150, "rate": 0.15, "strength": 2.0, "solver_steps": 10}
"""Enough for the inner problem of a linear model and for conjugate gradients to converge."""


def test_implicit_maml_on_a_linear_model_is_the_closed_form():
    """Both the solution of the proximal problem and its derivative are linear algebra."""
    episodes = sinusoids(tasks=4, shots=5)
    episodes = Episode(*(part._replace(x=part.x / 3) for part in episodes))
    learner = IMAML(objective=Regress(dim=1), net=MLP(inputs=1, outputs=1, hidden=()), **SOLVED)
    (weight, bias) = learner.init(0)
    theta = torch.tensor([0.7, -0.4])
    meta = {weight: theta[:1].reshape(1, 1), bias: theta[1:]}
    loss, gradient = 0.0, torch.zeros(2)
    for i in range(4):
        support, query = (one(episodes, i)[j] for j in (0, 1))
        design, design_q = (torch.cat([part.x, torch.ones_like(part.x)], 1) for part in (support, query))
        hessian = 2 * design.t() @ design / len(design)
        pull = hessian + 2.0 * torch.eye(2)
        phi = torch.linalg.solve(pull, 2 * design.t() @ support.y[:, 0] / len(design) + 2.0 * theta)
        wrong = design_q @ phi - query.y[:, 0]
        loss += float(wrong.pow(2).mean()) / 4
        slope = 2 * design_q.t() @ wrong / len(design_q)
        gradient += torch.linalg.solve(torch.eye(2) + hessian / 2.0, slope) / 4
    agree(learner, meta, episodes, loss, {weight: gradient[:1].reshape(1, 1), bias: gradient[1:]})


@both_kinds
@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
def test_implicit_maml_is_the_derivative_of_a_solver_run_to_convergence(norm, regress):
    """Autograd through every step of gradient descent on the proximal problem, kept in one long graph."""
    # Norm layers bend the loss downwards; λ has to outweigh that, or there is no minimum to find.
    learner, module = setting(IMAML, regress, norm, steps=90, rate=0.07, strength=10.0, solver_steps=60)

    def adapt(meta, loss):
        weights = dict(meta)
        for _ in range(90):
            gradient = slopes(loss, weights, create_graph=True)
            weights = {k: w - 0.07 * (gradient[k] + 10.0 * (w - meta[k])) for k, w in weights.items()}
        return weights

    check(learner, adapt, module, learner.init(0), ragged(regress), regress)


def test_implicit_maml_without_conjugate_gradients_is_first_order():
    learner, module = setting(IMAML, False, **SOLVED | {"solver_steps": 0, "steps": 3})

    def adapt(meta, loss):
        weights = dict(meta)
        for _ in range(3):
            _, gradient = constant(loss, weights)
            weights = {
                k: w.detach() - 0.15 * (gradient[k] + 2.0 * (w - meta[k]).detach())
                for k, w in weights.items()
            }
        # Its value is the solution, its derivative by the start the identity.
        return {k: w + (meta[k] - meta[k].detach()) for k, w in weights.items()}

    check(learner, adapt, module, learner.init(0), ragged(False), False)


def test_implicit_maml_never_steps_uphill():
    """A rate that overshoots comes to the minimum all the same, each task by a rate of its own."""
    support = sinusoids(tasks=2).support
    support = support._replace(x=support.x * torch.tensor([0.1, 3.0])[:, None, None])
    net = MLP(inputs=1, outputs=1, hidden=())
    theta = {name: value + 0.5 for name, value in MAML(objective=Regress(dim=1), net=net).init(0).items()}

    def found(steps, rate, tasks=slice(2)):
        learner = IMAML(objective=Regress(dim=1), net=net, steps=steps, rate=rate, strength=2.0)
        some = support.taken(tasks)
        at = {name: value.expand(len(some.mask), *value.shape) for name, value in theta.items()}
        return torch.cat([learner.adapt(at, some)[f"net.{name}"].flatten(1) for name in theta], 1)

    # Of weight and bias: closed form, and the loss that steps descend on.
    start = torch.cat([value.flatten() for value in theta.values()])
    design = torch.cat([support.x, torch.ones_like(support.x)], -1)
    hessian = 2 * design.mT @ design / design.shape[1] + 2 * torch.eye(2)
    pulled = 2 * (design.mT @ support.y)[..., 0] / design.shape[1] + 2 * start
    exact = torch.linalg.solve(hessian, pulled)
    fastest = torch.linalg.eigvalsh(hessian)[:, -1]
    assert 2 / fastest[1] < 0.4 < 2 / fastest[0], "it overshoots in the second task alone"
    assert (found(200, 0.4) - exact).abs().max() < 1e-12
    assert (found(200, 7.0) - exact).abs().max() < 1e-12
    assert torch.allclose(found(3, 0.4)[0], found(3, 0.4, slice(1))[0], rtol=0, atol=1e-14)

    def losses(row):
        wrong = (design @ row[..., None] - support.y).pow(2).mean((1, 2))
        return wrong + (row - start).pow(2).sum(-1)

    each = torch.stack([losses(found(steps, 7.0)) for steps in range(1, 12)])
    assert (each.diff(dim=0) <= 1e-12).all()
    assert (each[-1] < losses(start.expand(2, 2)) - 0.01).all()


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_implicit_maml_descends_through_dropout(norm):
    """A step's two losses are of one mask: what comes is plain descent, as by two masks it isn't."""
    net = MLP(inputs=4, outputs=3, hidden=(32,), norm=norm, dropout=0.5)
    support, meta = blobs(tasks=2, dim=4).support, MAML(objective=Classify(ways=3), net=net).init(0)
    learner = IMAML(objective=Classify(ways=3), net=net, steps=30, rate=0.05, strength=0.1)
    tiled = {name: value.expand(2, *value.shape) for name, value in meta.items()}
    with training():
        torch.manual_seed(0)
        found = learner.adapt(tiled, support)
        torch.manual_seed(0)
        weights = tiled
        for _ in range(30):
            with torch.random.fork_rng([]):
                slope = inner_gradient(learner.support_loss, weights, support, second_order=False)
            per_task(learner.support_loss, support, weights, support)  # draws as much as a look ahead
            weights = {k: w - 0.05 * (slope[k] + 0.1 * (w - tiled[k])) for k, w in weights.items()}
    assert all(torch.allclose(found[f"net.{name}"], w, atol=1e-9) for name, w in weights.items())


@pytest.mark.parametrize("where", ["input", "loss", "slope"])
def test_implicit_maml_hides_nothing_that_is_no_number(where):
    class Spoilt(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            marked = (x[:, :1] > 900).to(x)
            if where == "slope":  # the root's derivative at 0 is infinite, times 0
                return self.layer(x.clamp(max=1)) + marked * (0 * self.layer.weight.sum()).sqrt()
            return self.layer(x) + (marked * float("nan") if bool(where == "loss") else 0)

    episodes = blobs(tasks=3, dim=4)
    x = episodes.support.x.clone()
    x[1, 2] = float("nan") if where == "input" else 1000.0
    spoilt = episodes._replace(support=episodes.support._replace(x=x))
    net = MLP(inputs=4, outputs=3, hidden=()) if where == "input" else Spoilt()
    learner = IMAML(objective=Classify(ways=3), net=net, steps=3)
    with pytest.raises(DivergedError, match="step 1"):
        list(meta_train(learner, lambda _: spoilt, steps=2))


def test_implicit_maml_keeps_no_graph_of_its_inner_loop():
    def nodes(steps):
        learner, _ = setting(IMAML, False, **SOLVED | {"steps": steps})
        meta = {name: value.requires_grad_() for name, value in learner.init(0).items()}
        waiting, seen = [task_losses(learner, meta, blobs(dim=4)).sum().grad_fn], set()
        while waiting:
            node = waiting.pop()
            if node is not None and node not in seen:
                seen.add(node)
                waiting += [before for before, _ in node.next_functions]
        return len(seen)

    assert nodes(1) == nodes(40)


def test_conjugate_gradients_solve_each_task_s_own_system():
    draw = torch.Generator().manual_seed(0)
    roots = torch.randn(3, 8, 8, generator=draw)
    matrices = roots @ roots.transpose(-1, -2) + torch.eye(8)
    b = torch.randn(3, 8, generator=draw)
    b[2] = 0  # nothing to solve; must not give 0 / 0
    expected = torch.linalg.solve(matrices, b)

    def product(v):
        return (matrices @ v.unsqueeze(-1)).squeeze(-1)

    for steps in (12, 100):  # after convergence further steps do no harm
        assert torch.allclose(solve(product, b, steps), expected, rtol=1e-9, atol=1e-12)
    alone = solve(lambda v: matrices[1] @ v, b[1], 12)
    assert torch.allclose(alone, expected[1], rtol=1e-9, atol=1e-12)


def test_conjugate_gradients_stop_where_the_system_is_not_positive_definite():
    matrices = torch.stack(
        [torch.diag(torch.tensor([1.0, 2.0, -3.0])), torch.diag(torch.tensor([1.0, 2.0, 3.0]))]
    )
    b = torch.ones(2, 3)
    x = solve(lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1), b, 30)
    assert torch.isfinite(x).all() and x.abs().max() < 10
    assert torch.allclose(x[1], torch.tensor([1.0, 1 / 2, 1 / 3]))


def test_conjugate_gradients_are_shorter_than_the_solution_however_few():
    """From 0; the meta-gradient of a task that is curved a thousandfold must not outgrow what it is made of."""
    scale = torch.logspace(0, 4, 12)
    b = torch.ones(12)
    found = torch.stack([solve(lambda v: scale * v, b, steps) for steps in range(1, 13)])
    lengths = found.norm(dim=-1)
    assert (lengths.diff() >= -1e-9).all() and (lengths <= (b / scale).norm() + 1e-9).all()
    assert torch.equal(solve(lambda v: scale * v, b, 0), b)


def test_conjugate_gradients_stop_along_what_is_too_flat():
    scale = torch.tensor([[4.0, 2.0, 0.1], [4.0, 2.0, 1.0], [0.1, 0.1, 0.2]])
    b = torch.tensor([[1.0, 1.0, 1e-3], [1.0, 1.0, 1e-3], [1.0, 1.0, 1.0]])
    free, held = (solve(lambda v: scale * v, b, 30, least=least) for least in (0.0, 0.5))
    assert torch.allclose(free, b / scale)
    assert torch.allclose(held[1], free[1]) and torch.equal(held[2], b[2])
    assert held[0, 2].abs() < free[0, 2] / 2, "the flat direction isn't followed to its end"
    assert torch.allclose(held[0, :2], free[0, :2], rtol=1e-2)


# -- Latent embedding optimisation


def test_leo():
    learner = LEO(objective=Classify(ways=3), dim=4, latent=5, steps=3, rate=0.7, tuning_steps=2, tuning_rate=0.3,
                  encoder_penalty=0.5)  # fmt: skip
    episodes, meta = ragged(False), some(learner)
    leaves = {name: value.clone().requires_grad_() for name, value in meta.items()}
    total = torch.zeros(())
    for i in range(3):
        support, query = (Labelled(*(t[i][part.mask[i]] for t in part)) for part in episodes)
        classes = support.y.unique().tolist()

        def loss(weights, part, classes=classes):
            y = torch.tensor([classes.index(c) for c in part.y.tolist()])
            return F.cross_entropy(part.x @ weights.t(), y)

        encoded = support.x @ leaves["encoder.weight"].t()
        start = []
        for c in classes:
            pairs = [
                torch.cat([encoded[k], other])
                for k in range(len(encoded))
                if support.y[k] == c
                for other in encoded
            ]
            related = []
            for pair in pairs:
                hidden = (leaves["relation1.weight"] @ pair).clamp(min=0)
                hidden = (leaves["relation2.weight"] @ hidden).clamp(min=0)
                related.append(leaves["relation3.weight"] @ hidden)
            start.append(torch.stack(related).mean(0))
        codes = start = torch.stack(start)
        for _ in range(3):
            (g,) = torch.autograd.grad(
                loss(codes @ leaves["decoder.weight"].t(), support), [codes], create_graph=True
            )
            codes = codes - leaves["log_rate"].exp() * g
        weights = codes @ leaves["decoder.weight"].t()
        for _ in range(2):
            (g,) = torch.autograd.grad(loss(weights, support), [weights], create_graph=True)
            weights = weights - leaves["log_tuning_rate"].exp() * g
        # Codes of absent classes are 0 and stay there; the mean is over all three classes.
        unforeseen = (start - codes.detach()).pow(2).sum() / (3 * 5)
        total = total + (loss(weights, query) + 0.5 * unforeseen) / 3
    expected = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
    agree(learner, meta, episodes, float(total.detach()), expected)
