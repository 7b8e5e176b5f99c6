"""Conv4: its shapes, pooling before the ReLU, stored statistics, and an exact meta-gradient through it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from quickstudy.core.engine import evaluate, meta_gradient, outputs, task_losses
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.forms import choose_form
from quickstudy.core.net import apply, initial
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Spec
from quickstudy.learners import MAML, Prototypical
from quickstudy.nets import Conv4

pytestmark = pytest.mark.usefixtures("float64")
NORMS = ["batch", "group", "layer", "none"]
HALVES = ["pool", "stride"]
SIZE = 20  # pixels, 2 by 2 of which are left in the last block: of one value, a norm would leave rounding errors only
of_every_kind = [pytest.mark.parametrize("norm", NORMS), pytest.mark.parametrize("halve", HALVES)]


def every_kind(test):
    for mark in of_every_kind:
        test = mark(test)
    return test


def small(**fields):
    return Conv4(**({"image": (SIZE, SIZE), "filters": 4, "groups": 2} | fields))


def images(rows, *, size=SIZE, seed=0, tasks=None):
    draw = torch.Generator().manual_seed(seed)
    leading = (rows,) if tasks is None else (tasks, rows)
    return torch.rand(*leading, 1, size, size, generator=draw)


def episodes(tasks=2, ways=3, shots=2, queries=2):
    def part(each, seed):
        y = torch.arange(ways).repeat(each).expand(tasks, -1).clone()
        x = images(ways * each, seed=seed, tasks=tasks) + y[..., None, None, None] / 5
        return Labelled(x, y, torch.ones(y.shape, dtype=torch.bool))

    return Episode(part(shots, 1), part(queries, 2))


def written_out(spec, params, x, *, classic=True):
    """The network by hand: convolution, norm, ReLU and then the pooling, as papers draw it."""
    for i in range(4):
        x = F.conv2d(x, params[f"{i}.0.weight"], params[f"{i}.0.bias"], 2 if spec.halve == "stride" else 1, 1)
        if spec.norm != "none":
            n, k, h, w = x.shape
            if spec.norm == "batch":
                centred = x - x.mean((0, 2, 3), keepdim=True)
                x = centred / (centred.pow(2).mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
            else:
                grouped = x.reshape(n, 1 if spec.norm == "layer" else spec.groups, -1)
                centred = grouped - grouped.mean(-1, keepdim=True)
                x = (centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()).reshape(n, k, h, w)
            x = x * params[f"{i}.1.weight"][:, None, None] + params[f"{i}.1.bias"][:, None, None]
        if spec.halve == "stride":
            x = x.relu()
        else:
            x = F.max_pool2d(x.relu(), 2) if classic else F.max_pool2d(x, 2).relu()
    x = x.mean((2, 3)) if spec.halve == "stride" else x.flatten(1)
    head = [name for name in params if name.count(".") == 1]
    return x @ params[head[0]].t() + params[head[1]] if head else x


def starting(spec, seed=0):
    """Parameters to start from, norms' scales included, a few of them below 0."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: p + (torch.randn(p.shape, generator=draw) if ".1." in name else 0)
        for name, p in initial(spec, seed).items()
    }


@pytest.mark.parametrize(
    ("fields", "features"),
    [
        ({}, 64),
        ({"filters": 32, "image": (84, 84), "channels": 3}, 800),
        ({"image": (17, 40)}, 128),
        ({"halve": "stride"}, 64),
        ({"halve": "stride", "image": (5, 9)}, 64),
    ],
)
def test_shapes(fields, features):
    spec = Conv4(**fields)
    assert spec.features == features
    x = torch.rand(3, spec.channels, *spec.image)
    assert apply(spec, initial(spec, 0), x).shape == (3, features)
    headed = Conv4(**fields, outputs=7)
    assert apply(headed, initial(headed, 0), x).shape == (3, 7)
    assert Spec.from_json(headed.to_json()) == headed


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image": (28, 15)}, r"leaves nothing of 28×15 pixels.*16 pixels or more"),
        ({"norm": "group", "filters": 6, "groups": 4}, "6 filters can't have 4 groups"),
        ({"filters": 0}, r"Conv4\.filters"),
        ({"outputs": 0}, r"Conv4\.outputs"),
        ({"image": (28, 10**7)}, r"Conv4\.image\.1"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, says):
    with pytest.raises(DataError, match=says):
        Conv4(**fields)


@every_kind
def test_pooling_before_the_relu_is_the_classic_network(norm, halve):
    spec = small(norm=norm, halve=halve, outputs=3)
    params = starting(spec)
    assert (norm == "none") or any((p < 0).any() for name, p in params.items() if ".1.weight" in name)
    x = images(6).requires_grad_()
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    weight = torch.randn(6, 3, generator=torch.Generator().manual_seed(5))

    def values_and_gradients(y):
        first = torch.autograd.grad((y * weight).sum(), [x, *leaves.values()], create_graph=True)
        total = sum(g.pow(2).sum() for g in first)
        second = torch.autograd.grad(total, [x, *leaves.values()], allow_unused=True)
        return [y], first, [torch.zeros(()) if g is None else g for g in second]

    def norm_of(parts):
        return math.sqrt(sum(float(part.detach().pow(2).sum()) for part in parts))

    ours = values_and_gradients(apply(spec, leaves, x))
    classic = values_and_gradients(written_out(spec, leaves, x))
    for a, b in zip(ours, classic, strict=True):  # the values; first derivatives; second ones
        assert norm_of([s - t for s, t in zip(a, b, strict=True)]) <= 1e-12 * norm_of(b)


def reference(spec, meta, tasks, *, steps, rate):
    """MAML by a loop over tasks: autograd through gradient descent on the network written out."""
    start = {name: p.clone().requires_grad_() for name, p in meta.items()}
    total = torch.zeros(())
    for i in range(len(tasks.support.mask)):
        fast = dict(start)
        for _ in range(steps):
            loss = F.cross_entropy(written_out(spec, fast, tasks.support.x[i]), tasks.support.y[i])
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            fast = {k: p - rate * g for (k, p), g in zip(fast.items(), grads, strict=True)}
        loss = F.cross_entropy(written_out(spec, fast, tasks.query.x[i]), tasks.query.y[i])
        total = total + loss / len(tasks.support.mask)
    return dict(zip(start, torch.autograd.grad(total, list(start.values())), strict=True))


@every_kind
def test_the_meta_gradient_through_it_is_exact(norm, halve):
    spec = small(norm=norm, halve=halve, outputs=3)
    learner = MAML(objective=Classify(ways=3), net=spec, steps=2, rate=0.2)
    meta, tasks = starting(spec), episodes()
    expected = reference(spec, meta, tasks, steps=2, rate=0.2)
    size = math.sqrt(sum(float(g.pow(2).sum()) for g in expected.values()))
    forms = {"loop", "stacked", choose_form(learner, tasks)}
    assert "hybrid" in forms
    for form in forms:
        found = meta_gradient(learner, meta, tasks, form=form)[1]
        off = math.sqrt(sum(float((found[k] - g).pow(2).sum()) for k, g in expected.items()))
        assert off < 1e-12 * size, form


def test_convolutions_run_few_at_a_time_on_a_cpu():
    tasks = episodes()
    for learner, expected in (
        (Prototypical(objective=Classify(ways=3), net=small()), "loop"),
        (MAML(objective=Classify(ways=3), net=small(outputs=3)), "hybrid"),
        (
            Prototypical(objective=Classify(ways=3), net=nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())),
            "loop",
        ),
    ):
        assert choose_form(learner, tasks) == expected
        meta = learner.init(0)
        alone, together = (task_losses(learner, meta, tasks, form=form) for form in ("auto", "stacked"))
        assert torch.allclose(alone, together, atol=1e-12)


@pytest.mark.parametrize("halve", HALVES)
def test_stored_statistics_answer_as_batch_norm_did_on_those_images(halve):
    spec = small(halve=halve, outputs=3)
    params, x = starting(spec), images(40, seed=3)
    plain, folded = spec.stored(params, x)
    assert plain == small(halve=halve, outputs=3, norm="none")
    assert folded.keys() == initial(plain, 0).keys()
    assert torch.allclose(apply(plain, folded, x), apply(spec, params, x), atol=1e-10)
    # And on others as torch's own batch norm does with running statistics.
    module = spec.build()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats, part.momentum = True, 1.0
            part.running_mean, part.running_var = torch.zeros(4), torch.ones(4)
            part.num_batches_tracked = torch.tensor(0)
    functional_call(module, params, (x,))
    few = images(2, seed=4)
    # Running variances divide by n - 1; with 40 images of 1 to 64 positions that is all that differs.
    kept = functional_call(module.eval(), params, (few,))
    assert torch.allclose(apply(plain, folded, few), kept, atol=0.03)
    # An answer depends on no other image, where batch norm's does.
    assert torch.allclose(apply(plain, folded, few)[:1], apply(plain, folded, few[:1]), atol=1e-12)


def test_a_learner_goes_on_with_stored_statistics():
    spec, tasks = small(), episodes(tasks=6, queries=4)
    learner = Prototypical(objective=Classify(ways=3), net=spec)
    plain, meta = spec.stored(starting(spec), tasks.support.x.flatten(0, 1))
    fixed = Prototypical(objective=Classify(ways=3), net=plain)
    fixed.check(meta)
    assert evaluate(fixed, meta, [tasks]).score.shape == (6,)
    assert not torch.allclose(outputs(fixed, meta, tasks), outputs(learner, starting(spec), tasks))


def test_only_batch_norm_has_statistics_to_store():
    spec = small(norm="group")
    with pytest.raises(ModelError, match='norm="group"'):
        spec.stored(initial(spec, 0), images(4))
