"""Learners with an inner loop against their papers' pseudo-code: task after task, in float64, by plain autograd.

The references share no code with the library: the network is written out, padded rows are cut away instead of being
masked, absent classes are cut away instead of being silenced.
"""

import math
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import blob_sampler, blobs, whole, with_garbage

from quickstudy.core.engine import adapt, meta_gradient, meta_train, outputs, predict, task_losses
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.head import last_linear
from quickstudy.core.learner import inner_gradient, part
from quickstudy.core.net import parameters_of
from quickstudy.core.objective import Classify, Regress
from quickstudy.core.spec import Spec
from quickstudy.learners import (
    BOIL,
    CAVIA,
    MAML,
    MAMLPlusPlus,
    MetaCurvature,
    MetaSGD,
    ProtoMAML,
    Prototypical,
)
from quickstudy.learners.meta_curvature import curved
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
EXACT = 1e-12
DIM, WAYS, STEPS = 4, 3, 3

kinds = pytest.mark.parametrize("regress", [False, True], ids=["classify", "regress"])
orders = pytest.mark.parametrize("second_order", [True, False], ids=["second order", "first order"])


# -- Tasks, network and loss, written out


def tasks(regress: bool) -> Episode:
    """Ragged tasks: each has rows and classes of its own, and padding between them that holds large numbers."""
    draw = torch.Generator().manual_seed(3)
    episodes = []
    for rows, queries, classes in [(7, 4, [0, 1, 2]), (5, 6, [0, 2]), (9, 3, [1, 2])]:
        parts = []
        for size in (rows, queries):
            y = torch.tensor(classes)[torch.arange(size) % len(classes)]
            y = torch.randn(size, WAYS, generator=draw) if regress else y
            parts.append(Labelled.of(torch.randn(size, DIM, generator=draw), y))
        episodes.append(Episode(*parts))
    support, query = (with_garbage(part, 2) for part in stack(episodes))
    order = torch.randperm(support.mask.shape[1], generator=draw)
    return Episode(Labelled(*(t[:, order] for t in support)), query)


def mlp(p, x):
    """Linear, layer norm, tanh, linear; the names are those of `spec`'s layers."""
    h = x @ p["0.weight"].t() + p["0.bias"]
    centred = h - h.mean(-1, keepdim=True)
    h = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return torch.tanh(h * p["1.weight"] + p["1.bias"]) @ p["3.weight"].t() + p["3.bias"]


def spec(inputs=DIM, outputs=WAYS, norm="layer"):
    return MLP(inputs=inputs, outputs=outputs, hidden=(5,), norm=norm, activation="tanh")


def error(outputs, rows, support):
    if outputs.shape[-1] == rows[1].shape[-1] and rows[1].is_floating_point():
        return (outputs - rows[1]).pow(2).mean()
    classes = support[1].unique()
    return F.cross_entropy(outputs[:, classes], torch.searchsorted(classes, rows[1]))


def slopes(loss, params, second_order):
    found = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    return {k: g if second_order else g.detach() for k, g in zip(params, found, strict=True)}


def sub(params, prefix):
    return {k[len(prefix) :]: v for k, v in params.items() if k.startswith(prefix)}


def check(learner, meta, episodes, one_task):
    """The engine's loss and meta-gradient are those of `one_task(meta, support, query)`, averaged over tasks."""
    leaves = {k: v.clone().requires_grad_() for k, v in meta.items()}
    losses = []
    for t in range(len(episodes.support.mask)):
        rows = [(part.x[t][part.mask[t]], part.y[t][part.mask[t]]) for part in episodes]
        losses.append(one_task(leaves, *rows))
    total = torch.stack(losses).mean()
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    theirs = {
        k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), grads, strict=True)
    }
    for form in ("loop", "stacked"):
        loss, ours = meta_gradient(learner, meta, episodes, form=form)
        assert loss == pytest.approx(float(total.detach()), rel=EXACT)
        assert distance(ours, theirs) < EXACT


def distance(ours, theirs):
    """The largest relative difference of any entry's gradient, in norm; none of them may be all zero by chance."""
    assert ours.keys() == theirs.keys()
    scale = math.sqrt(sum(float(g.pow(2).sum()) for g in theirs.values()))
    assert scale > 1e-3
    return max(float((ours[k] - g).norm() / max(float(g.norm()), 1e-3 * scale)) for k, g in theirs.items())


def shaken(meta, size=0.1, seed=0):
    """Meta-parameters off the special point that they start at."""
    draw = torch.Generator().manual_seed(seed)
    return {k: v + size * torch.randn(v.shape, generator=draw) for k, v in meta.items()}


def objective(regress):
    return Regress(dim=WAYS) if regress else Classify(ways=WAYS)


# -- The pseudo-codes


@orders
def test_maml_with_a_zero_head_is_maml_from_there_and_the_head_stays(second_order):
    shared = {"objective": Classify(ways=WAYS), "net": spec(), "rate": 0.5, "second_order": second_order}
    learner, plain = MAML(**shared, zero_head=True), MAML(**shared)
    meta, episodes = learner.init(1), tasks(regress=False)
    head = {"3.weight", "3.bias"}
    assert {name for name, value in meta.items() if not value.any()} >= head
    loss, ours = meta_gradient(learner, meta, episodes)
    same_loss, theirs = meta_gradient(plain, meta, episodes)
    assert loss == pytest.approx(same_loss, rel=EXACT)
    assert distance(ours, {k: v for k, v in theirs.items() if k not in head}) < EXACT
    for step in meta_train(learner, blob_sampler(tasks=2, ways=WAYS, dim=DIM), steps=3):
        meta = step.meta
    assert not any(meta[name].any() for name in head)
    assert any(not torch.equal(meta[name], value) for name, value in learner.init(0).items())


def test_with_a_zero_head_answers_go_with_their_classes_however_these_are_numbered():
    episodes = blobs(tasks=2, ways=WAYS, dim=DIM, seed=4)
    turned = Episode(*(part._replace(y=(part.y + 1) % WAYS) for part in episodes))
    for zero_head in (True, False):
        learner = MAML(objective=Classify(ways=WAYS), net=spec(), rate=0.5, zero_head=zero_head)
        meta = learner.init(2)
        here, there = outputs(learner, meta, episodes), outputs(learner, meta, turned)
        assert torch.allclose(here.roll(1, -1), there, atol=1e-12) == zero_head


def test_a_head_that_is_not_zero_is_refused_where_it_should_be():
    plain = MAML(objective=Classify(ways=WAYS), net=spec())
    learner, sample = replace(plain, zero_head=True), blob_sampler(ways=WAYS, dim=DIM)
    told = r"last layer of 0, and '3\.weight' isn't\. Set it to 0, or take zero_head=False"
    with pytest.raises(ModelError, match=told):
        list(meta_train(learner, sample, steps=1, meta=plain.init(0)))


def test_a_head_that_cannot_be_put_to_zero_is_refused():
    def learner(change):
        head = nn.Linear(5, WAYS)
        change(head)
        return MAML(
            objective=Classify(ways=WAYS),
            net=nn.Sequential(nn.Linear(DIM, 5), nn.ReLU(), head),
            zero_head=True,
        )

    for change in (
        lambda head: head.requires_grad_(False),
        lambda head: head.weight.requires_grad_(False),
        nn.utils.parametrizations.weight_norm,
    ):
        with pytest.raises(
            ModelError, match=r"its '2\.\w+' is frozen, shared with another layer or made of others"
        ):
            learner(change).init(0)


class Moved(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("by", torch.full((DIM,), 0.5))

    def forward(self, x):
        return x + self.by


@dataclass(frozen=True, kw_only=True)
class WithBuffer(Spec):
    def build(self):
        return nn.Sequential(Moved(), nn.Linear(DIM, 5), nn.ReLU(), nn.Linear(5, WAYS))


def test_a_network_with_a_buffer_may_be_checked_before_it_is_run():
    shared = {"objective": Classify(ways=WAYS), "net": WithBuffer(), "rate": 0.5}
    learner, episodes = MAML(**shared, zero_head=True), tasks(regress=False)
    meta = {k: torch.zeros_like(v) if k.startswith("3.") else v for k, v in MAML(**shared).init(0).items()}
    learner.check(meta)  # builds it for its shapes alone
    assert torch.equal(outputs(learner, meta, episodes), outputs(MAML(**shared), meta, episodes))


@kinds
@orders
def test_meta_sgd_multiplies_the_gradient_by_a_rate_for_each_weight(regress, second_order):
    learner = MetaSGD(objective=objective(regress), net=spec(), steps=STEPS, second_order=second_order)

    def one_task(meta, support, query):
        theta, alpha = sub(meta, "net."), sub(meta, "rate.")
        for _ in range(STEPS):
            g = slopes(error(mlp(theta, support[0]), support, support), theta, second_order)
            theta = {k: theta[k] - alpha[k] * g[k] for k in theta}
        return error(mlp(theta, query[0]), query, support)

    check(learner, shaken(learner.init(1)), tasks(regress), one_task)


@kinds
@orders
def test_meta_curvature_is_one_large_matrix_on_the_whole_gradient(regress, second_order):
    learner = MetaCurvature(
        objective=objective(regress), net=spec(), steps=STEPS, rate=0.2, second_order=second_order
    )

    def one_task(meta, support, query):
        theta = sub(meta, "net.")
        for _ in range(STEPS):
            g = slopes(error(mlp(theta, support[0]), support, support), theta, second_order)
            for k, weight in theta.items():
                matrix = meta[f"mode0.{k}"]
                if weight.ndim == 2:
                    matrix = torch.kron(matrix.contiguous(), meta[f"mode1.{k}"])
                theta = theta | {k: weight - 0.2 * (matrix @ g[k].flatten()).reshape(weight.shape)}
        return error(mlp(theta, query[0]), query, support)

    check(learner, shaken(learner.init(1)), tasks(regress), one_task)


@kinds
@orders
def test_boil_steps_the_body_alone(regress, second_order):
    learner = BOIL(objective=objective(regress), net=spec(), steps=STEPS, rate=0.3, second_order=second_order)

    def one_task(meta, support, query):
        head = {k: meta[k] for k in ("3.weight", "3.bias")}
        body = {k: meta[k] for k in ("0.weight", "0.bias", "1.weight", "1.bias")}
        for _ in range(STEPS):
            g = slopes(error(mlp(body | head, support[0]), support, support), body, second_order)
            body = {k: body[k] - 0.3 * g[k] for k in body}
        return error(mlp(body | head, query[0]), query, support)

    check(learner, learner.init(1), tasks(regress), one_task)


@kinds
@orders
def test_cavia_steps_the_context_alone(regress, second_order):
    learner = CAVIA(
        objective=objective(regress), net=spec(DIM + 2), context=2, steps=STEPS, rate=1.5,
        second_order=second_order,
    )  # fmt: skip

    def one_task(meta, support, query):
        theta = sub(meta, "net.")
        context = {"phi": torch.zeros(2, requires_grad=True)}

        def answers(x):
            return mlp(theta, torch.stack([torch.cat([row, context["phi"]]) for row in x]))

        for _ in range(STEPS):
            g = slopes(error(answers(support[0]), support, support), context, second_order)
            context = {"phi": context["phi"] - 1.5 * g["phi"]}
        return error(answers(query[0]), query, support)

    check(learner, learner.init(1), tasks(regress), one_task)


@orders
def test_proto_maml_starts_its_head_at_the_prototypes(second_order):
    learner = ProtoMAML(
        objective=Classify(ways=WAYS), net=spec(outputs=6), steps=STEPS, rate=0.2, second_order=second_order
    )

    def one_task(meta, support, query):
        x, y = support
        classes = y.unique().tolist()
        z = mlp(meta, x)
        means = [torch.stack([z[i] for i in range(len(y)) if y[i] == c]).mean(0) for c in classes]
        moving = dict(meta) | {
            "W": torch.stack([2 * c for c in means]), "b": torch.stack([-(c @ c) for c in means])
        }  # fmt: skip

        def loss(p, rows):
            logits = [[p["W"][k] @ z + p["b"][k] for k in range(len(classes))] for z in mlp(p, rows[0])]
            table = torch.stack([torch.stack(row) for row in logits])
            return -torch.stack(
                [torch.log_softmax(table[i], 0)[classes.index(int(c))] for i, c in enumerate(rows[1])]
            ).mean()

        for _ in range(STEPS):
            # The slope in each part with the others held, although W and b came from the weights.
            copies = {k: v.clone() for k, v in moving.items()}
            g = slopes(loss(copies, support), copies, second_order)
            moving = {k: moving[k] - 0.2 * g[k] for k in moving}
        return loss(moving, query)

    check(learner, learner.init(1), tasks(False), one_task)


@kinds
@orders
@pytest.mark.parametrize("importance", [1.0, 0.4, 0.0])
def test_maml_plus_plus_has_rates_and_norms_for_each_step_and_a_loss_after_each(
    regress, second_order, importance
):
    learner = MAMLPlusPlus(
        objective=objective(regress),
        net=spec(),
        steps=STEPS,
        importance=importance,
        second_order=second_order,
    )

    def one_task(meta, support, query):
        theta = sub(meta, "net.")
        assert theta.keys() == {"0.weight", "0.bias", "3.weight", "3.bias"}
        losses = []
        for step in range(STEPS):
            before, after = (
                {k: meta[f"norm.{k}"][i] for k in ("1.weight", "1.bias")} for i in (step, step + 1)
            )
            g = slopes(error(mlp(theta | before, support[0]), support, support), theta, second_order)
            theta = {k: theta[k] - meta[f"rate.{k}"][step] * g[k] for k in theta}
            losses.append(error(mlp(theta | after, query[0]), query, support))
        shares = [(1 - importance) / (STEPS - 1)] * (STEPS - 1) + [importance]
        return sum(share * loss for share, loss in zip(shares, losses, strict=True))

    check(learner, shaken(learner.init(1)), tasks(regress), one_task)


def everyone(regress, **changes):
    shared = {"objective": objective(regress), "steps": 2} | changes
    learners = [
        BOIL(net=spec(), rate=0.3, **shared),
        CAVIA(net=spec(DIM + 2), context=2, **shared),
        MAMLPlusPlus(net=spec(), importance=0.5, **shared),
        MetaCurvature(net=spec(), **shared),
        MetaSGD(net=spec(), **shared),
    ]
    return learners if regress else [*learners, ProtoMAML(net=spec(), **shared)]


@pytest.mark.parametrize(
    "learner",
    [*everyone(False), *everyone(True)],
    ids=lambda x: f"{type(x).__name__}-{type(x.objective).__name__}",
)
def test_the_meta_gradient_is_what_finite_differences_say(learner):
    episodes, meta = tasks(isinstance(learner.objective, Regress)), shaken(learner.init(2))
    _, gradient = meta_gradient(learner, meta, episodes)
    direction = shaken({k: torch.zeros_like(v) for k, v in meta.items()}, 1.0, seed=9)

    def moved(far):
        there = {k: v + far * direction[k] for k, v in meta.items()}
        return float(task_losses(learner, there, episodes).mean())

    # Four points: the error is of the fourth order.
    found = (8 * (moved(2e-4) - moved(-2e-4)) - (moved(4e-4) - moved(-4e-4))) / 24e-4
    assert found == pytest.approx(sum(float((gradient[k] * direction[k]).sum()) for k in meta), rel=1e-6)


@pytest.mark.parametrize("norm", ["batch", "group", "rms"])
def test_all_tasks_at_once_are_one_at_a_time_through_other_norms_and_dropout(norm):
    draw = torch.Generator().manual_seed(1)
    y = torch.arange(8).remainder(WAYS).expand(3, -1)
    episodes = Episode(*(whole(torch.randn(3, 8, DIM, generator=draw), y) for _ in range(2)))
    for learner in everyone(False):
        learner = replace(learner, net=replace(learner.net, norm=norm, dropout=0.3))
        meta = shaken(learner.init(0))
        (loss, ours), (expected, theirs) = (
            meta_gradient(learner, meta, episodes, form=form, seed=5) for form in ("stacked", "loop")
        )
        assert loss == pytest.approx(expected, rel=EXACT)
        assert (
            distance(ours, theirs) < 10 * EXACT
        )  # entry by entry; batch statistics of few rows magnify rounding


# -- What they are at special points


def adapted_and_gradient(learner, meta, episodes):
    fast = adapt(learner, meta, episodes.support)
    return part(fast, "net."), meta_gradient(learner, meta, episodes, form="stacked")[1]


def same_as_maml(learner, episodes, rate):
    maml = MAML(objective=learner.objective, net=learner.net, steps=learner.steps, rate=rate)
    weights, gradient = adapted_and_gradient(learner, learner.init(4), episodes)
    true_weights, true_gradient = adapted_and_gradient(maml, maml.init(4), episodes)
    assert weights.keys() == true_weights.keys()
    for name, weight in true_weights.items():
        assert torch.allclose(weights[name], weight, rtol=EXACT, atol=EXACT)
        assert torch.allclose(gradient[f"net.{name}"], true_gradient[name], rtol=EXACT, atol=EXACT)


@kinds
def test_meta_sgd_with_one_rate_is_maml(regress):
    learner = MetaSGD(objective=objective(regress), net=spec(), steps=STEPS, least=0.15, most=0.15)
    same_as_maml(learner, tasks(regress), 0.15)


@kinds
def test_meta_curvature_of_identities_is_maml(regress):
    learner = MetaCurvature(objective=objective(regress), net=spec(), steps=STEPS, rate=0.15)
    same_as_maml(learner, tasks(regress), 0.15)


@kinds
@pytest.mark.parametrize("norm", ["layer", "none"])
def test_maml_plus_plus_with_one_rate_and_the_last_loss_is_maml(regress, norm):
    learner = MAMLPlusPlus(
        objective=objective(regress), net=spec(norm=norm), steps=STEPS, rate=0.15, step_norms=norm == "none"
    )
    same_as_maml(learner, tasks(regress), 0.15)


@kinds
def test_boil_never_moves_its_head_and_cavia_nothing_but_its_context(regress):
    episodes = tasks(regress)
    boil = BOIL(objective=objective(regress), net=spec(), steps=STEPS)
    meta = boil.init(0)
    fast = part(adapt(boil, meta, episodes.support), "net.")
    for name, weight in meta.items():
        unmoved = [torch.equal(one, weight) for one in fast[name].expand(3, *weight.shape)]
        assert unmoved == [name.startswith("3.")] * 3
    cavia = CAVIA(objective=objective(regress), net=spec(DIM + 2), context=2)
    fast = adapt(cavia, cavia.init(0), episodes.support)
    assert fast.keys() == {"context", "present"}
    assert fast["context"].shape == (3, 2)
    assert (fast["context"].abs() > 1e-6).all()
    still = adapt(replace(cavia, steps=0), cavia.init(0), episodes.support)
    assert not still["context"].any()


def test_proto_maml_without_a_step_is_the_prototypical_network():
    episodes, net = tasks(False), spec(outputs=6)
    answers = [
        outputs(learner, learner.init(5), episodes).log_softmax(-1)
        for learner in (
            ProtoMAML(objective=Classify(ways=WAYS), net=net, steps=0),
            Prototypical(objective=Classify(ways=WAYS), net=net),
        )
    ]
    known = answers[1] > -1e3  # absent classes are silenced, by a number of no meaning
    assert torch.equal(known, answers[0] > -1e3)
    assert torch.allclose(answers[0][known], answers[1][known], atol=1e-10)


def test_proto_maml_serves_any_number_of_classes_from_one_meta():
    net = spec(outputs=6)
    meta = ProtoMAML(objective=Classify(ways=3), net=net).init(0)
    y = torch.arange(5).repeat(2)
    support = Labelled.of(torch.randn(10, DIM, generator=torch.Generator().manual_seed(0)), y)
    wider = ProtoMAML(objective=Classify(ways=5), net=net)
    assert predict(wider, meta, adapt(wider, meta, support), support.x).shape == (10, 5)


# -- Parts


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 5)], ids=str)
@pytest.mark.parametrize("stacked", [False, True])
def test_curvature_of_a_filter_is_a_kronecker_product(shape, stacked):
    draw = torch.Generator().manual_seed(0)
    sizes = [*shape[:2], *([math.prod(shape[2:])] if len(shape) > 2 else [])]
    leading = (2,) if stacked else ()
    gradient = torch.randn(*leading, *shape, generator=draw)
    matrices = [torch.randn(*leading, size, size, generator=draw) for size in sizes]
    found = curved(gradient, matrices, len(leading))
    for t in range(2) if stacked else [...]:
        whole = torch.ones(1, 1)
        for matrix in matrices:
            whole = torch.kron(whole, matrix[t].contiguous())
        assert torch.allclose(found[t].flatten(), whole @ gradient[t].flatten())


def test_a_convolution_adapts_with_a_matrix_for_its_filter():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(8, WAYS)
    )
    learner = MetaCurvature(objective=Classify(ways=WAYS), net=net, steps=2)
    meta = shaken(learner.init(0))
    assert meta["mode2.0.weight"].shape == (9, 9)
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(6).remainder(WAYS).expand(2, -1)
    episodes = Episode(*(whole(torch.randn(2, 6, 1, 4, 4, generator=draw), y) for _ in range(2)))
    _, stacked = meta_gradient(learner, meta, episodes, form="stacked")
    _, loop = meta_gradient(learner, meta, episodes, form="loop")
    assert distance(stacked, loop) < EXACT
    assert float(loop["mode2.0.weight"].abs().max()) > 1e-6


def test_the_context_of_an_image_is_a_constant_channel():
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            seen.append(x.detach())
            return self.scale * x.mean((2, 3))

    learner = CAVIA(objective=Regress(dim=3), net=Spy(), context=2, steps=1)
    x = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    fast = adapt(learner, learner.init(0), Labelled.of(x, torch.ones(5, 3)))
    predict(learner, learner.init(0), fast, x)
    assert torch.equal(seen[-1][:, :1], x)
    for channel, value in enumerate(fast["context"]):
        assert (seen[-1][:, 1 + channel] == value).all()


def test_maml_plus_plus_goes_from_all_steps_to_the_last_and_from_first_order_to_second():
    learner = MAMLPlusPlus(objective=Classify(ways=2), net=spec(outputs=2), steps=4)
    assert [learner.at(epoch).importance for epoch in (0, 5, 15, 99)] == pytest.approx([0.25, 0.5, 1, 1])
    assert [learner.at(epoch).second_order for epoch in (0, 49, 50)] == [False, False, True]
    assert not replace(learner, second_order=False).at(99).second_order
    assert learner.at(0, last_only=0, second_order=0) == learner
    assert replace(learner, steps=0).at(3).importance == 1


def test_maml_plus_plus_meta_trains_epoch_by_epoch_as_one_run():
    learner = MAMLPlusPlus(
        objective=Classify(ways=3), net=MLP(inputs=6, outputs=3, hidden=(8,), norm="layer"), steps=2
    )
    sample, state, numbers = blob_sampler(tasks=4), None, []
    for epoch in range(3):
        now = learner.at(epoch, last_only=2, second_order=1)
        for step in meta_train(now, sample, steps=2 * (epoch + 1), rate=0.01, resume=state):
            numbers.append(step.number)
        state = step.state()
    assert numbers == [1, 2, 3, 4, 5, 6]
    moved = {k: not torch.equal(v, learner.init(0)[k]) for k, v in step.meta.items()}
    assert all(moved.values())


@pytest.mark.parametrize("steps", [0, 1])
def test_maml_plus_plus_of_few_steps_has_only_the_last_loss(steps):
    learner = MAMLPlusPlus(objective=Classify(ways=WAYS), net=spec(), steps=steps, importance=0.3)
    meta, episodes = learner.init(0), tasks(False)
    losses = [task_losses(one, meta, episodes) for one in (learner, replace(learner, importance=1.0))]
    assert torch.equal(*losses)


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_an_importance_outside_its_range_is_refused(wrong):
    with pytest.raises(DataError, match=r"MAMLPlusPlus\.importance"):
        MAMLPlusPlus(objective=Classify(ways=2), net=spec(), importance=wrong)


def test_a_network_without_body_or_head_is_refused():
    support = Labelled.of(torch.randn(4, DIM), torch.arange(4) % 2)
    line = BOIL(objective=Classify(ways=2), net=MLP(inputs=DIM, outputs=2, hidden=()))
    # A net of one layer is a sequence of one here; a bare linear layer has names without a dot.
    for learner in (line, replace(line, net=torch.nn.Linear(DIM, 2))):
        with pytest.raises(ModelError, match=r"BOIL adapts the layers below the last linear one.*use MAML"):
            adapt(learner, learner.init(0), support)
    with pytest.raises(ModelError, match="has none; add one"):
        last_linear(torch.nn.Conv1d(1, 1, 1))


def test_the_names_of_norm_layers_cost_no_memory_and_no_randomness():
    huge = MLP(inputs=10**6, outputs=10**6, hidden=(10**6,), norm="layer")  # 8 TB
    before = torch.random.get_rng_state()
    assert parameters_of(huge, torch.nn.LayerNorm) == {"1.weight", "1.bias"}
    assert torch.equal(torch.random.get_rng_state(), before)
    assert parameters_of(torch.nn.LayerNorm(3), torch.nn.LayerNorm) == {"weight", "bias"}


@orders
def test_an_inner_gradient_is_partial_where_one_entry_was_made_from_another(second_order):
    a = torch.tensor(3.0, requires_grad=True)
    support = Labelled.of(torch.zeros(1, 1), torch.zeros(1, 1))
    slope = inner_gradient(
        lambda fast, _: fast["a"] * fast["b"], {"a": a, "b": a**2}, support, second_order=second_order
    )
    assert float(slope["a"].detach()) == 9  # b, and not the 27 of a³
    assert float(slope["b"].detach()) == 3
    if second_order:
        assert float(torch.autograd.grad(slope["a"], a)[0]) == 6


def test_a_first_order_step_still_learns_its_rates():
    """d θ' / d α is the slope itself, whatever the order."""
    learner = MetaSGD(objective=Classify(ways=WAYS), net=spec(), steps=1, second_order=False)
    meta = learner.init(0)
    support, query = (Labelled(*(t[0] for t in part)).trimmed() for part in tasks(False))
    weights = part(meta, "net.")
    slope = inner_gradient(learner.support_loss, weights, support)
    moved = {k: (w - meta[f"rate.{k}"] * slope[k]).detach() for k, w in weights.items()}
    outer = inner_gradient(lambda fast, _: learner.objective.loss(mlp(fast, query.x), query), moved, query)
    batch = Episode(*(Labelled(*(t[None] for t in part)) for part in (support, query)))
    _, gradient = meta_gradient(learner, meta, batch)
    for k in weights:
        assert torch.allclose(gradient[f"rate.{k}"], -outer[k] * slope[k], rtol=1e-9, atol=EXACT)
