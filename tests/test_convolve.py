"""The hybrid form of convolutional networks against torch's own layers and autograd, task by task, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_forms import batch, distance, reference
from torch import nn
from torch.func import functional_call
from toy import one, with_garbage

from quickstudy.core import convolve
from quickstudy.core.engine import adapt, evaluate, meta_gradient, outputs, predict, task_losses
from quickstudy.core.episode import Episode
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.forms import choose_form
from quickstudy.core.objective import Classify, Regress
from quickstudy.learners import ANIL, MAML, FineTune, Reptile

pytestmark = pytest.mark.usefixtures("float64")
EXACT = 1e-12


def norm_of(kind, filters, eps=1e-5):
    return {
        "none": lambda: [],
        "batch": lambda: [nn.BatchNorm2d(filters, eps=eps, track_running_stats=False)],
        "group": lambda: [nn.GroupNorm(math.gcd(filters, 2), filters, eps=eps)],
        "layer": lambda: [nn.GroupNorm(1, filters, eps=eps)],
        "instance": lambda: [nn.InstanceNorm2d(filters, eps=eps, affine=True)],
    }[kind]()


def shaken(net, seed=0):
    """Weights as after some training: no scale of one, no shift of zero, both signs."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 1:
                p.copy_(torch.randn(p.shape, generator=draw))
    return net


def small(norm="batch", channels=1, filters=4, size=8, ways=3):
    """Two usual blocks."""
    torch.manual_seed(0)

    def block(inputs):
        layers = [
            nn.Conv2d(inputs, filters, 3, padding=1),
            *norm_of(norm, filters),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        return nn.Sequential(*layers)

    head = nn.Linear(filters * (size // 4) ** 2, ways)
    return shaken(nn.Sequential(block(channels), block(filters), nn.Flatten(), head))


def tasks(shape=(1, 8, 8), rows=(6, 7), number=3, seed=0):
    return Episode(*(batch(n, shape, 3, tasks=number, seed=seed + i) for i, n in enumerate(rows)))


def check(learner, episodes, meta=None):
    """Loss, meta-gradient and answers of the hybrid form are those of the reference."""
    net, meta = learner.net, meta or learner.init(0)
    loss, gradient = reference(
        lambda params, x: functional_call(net, params, (x,)),
        meta,
        episodes,
        steps=learner.steps,
        rate=learner.rate,
        second_order=learner.second_order,
        regress=isinstance(learner.objective, Regress),
        trim=True,
    )
    ours, our_gradient = meta_gradient(learner, meta, episodes, form="hybrid")
    assert ours == pytest.approx(loss, rel=EXACT, abs=EXACT)
    assert distance(our_gradient, gradient) < EXACT
    mask = episodes.query.mask
    expected = outputs(learner, meta, episodes, form="loop")
    assert torch.allclose(
        outputs(learner, meta, episodes, form="hybrid")[mask], expected[mask], rtol=EXACT, atol=EXACT
    )


# -- Any chain of blocks


def pair(draw, least, most):
    sizes = st.integers(least, most)
    return draw(st.one_of(sizes, st.tuples(sizes, sizes)))


def out(size, kernel, stride, padding, dilation=1):
    """A convolution's output size along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def blocks(draw, channels, image):
    """A convolution and what follows; how many channels come out and of which size."""
    filters, kernel, stride = draw(st.integers(1, 5)), pair(draw, 1, 3), pair(draw, 1, 2)
    padding, dilation, bias = pair(draw, 0, 2), pair(draw, 1, 2), draw(st.booleans())
    layer = nn.Conv2d(channels, filters, kernel, stride, padding, dilation, bias=bias)
    # With the usual 1e-5, a channel that is nearly constant multiplies rounding errors, the reference's own too.
    norms = norm_of(draw(st.sampled_from(["none", "batch", "group", "layer", "instance"])), filters, eps=1e-2)
    sizes = zip(image, layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True)
    image = tuple(out(*size) for size in sizes)
    if min(image) < 2:  # too small for the kernel, or for the statistics of one image
        return None
    pools = {"none": [], "halves": [nn.MaxPool2d(2)], "overlaps": [nn.MaxPool2d(3, stride=2, padding=1)],
             "covers": [nn.MaxPool2d(2, ceil_mode=True)], "flat": [nn.MaxPool2d((1, 2), stride=1)]}  # fmt: skip
    pool = pools[draw(st.sampled_from(list(pools)))]
    after = [nn.ReLU(), *pool] if draw(st.booleans()) else [*pool, nn.ReLU()]
    image = tuple(nn.Sequential(*pool)(torch.zeros(1, 1, *image)).shape[2:])
    return nn.Sequential(layer, *norms, *after), filters, image


@st.composite
def nets(draw):
    channels, image = draw(st.integers(1, 3)), (draw(st.integers(5, 9)), draw(st.integers(5, 9)))
    shape, chain = (channels, *image), []
    torch.manual_seed(draw(st.integers(0, 1000)))
    for _ in range(draw(st.integers(1, 3))):
        drawn = draw(blocks(channels, image)) if min(image) >= 2 else None
        if drawn is not None:
            block, channels, image = drawn
            chain.append(block)
    if not chain:
        chain, channels = [nn.Sequential(nn.Conv2d(channels, 3, 3, padding=1), nn.ReLU())], 3
    mean = draw(st.booleans())
    features = channels * (1 if mean else math.prod(image))
    hidden = draw(st.lists(st.integers(2, 5), max_size=1))
    chain += [nn.AdaptiveAvgPool2d(1)] if mean else []
    chain.append(nn.Flatten())
    for width in hidden:
        chain += [nn.Linear(features, width), nn.ReLU()]
        features = width
    chain.append(nn.Linear(features, 3, bias=draw(st.booleans())))
    net = nn.Sequential(*chain)
    return shaken(net, draw(st.integers(0, 1000))), shape


@settings(max_examples=60)
@given(
    drawn=nets(),
    number=st.integers(1, 3),
    rows=st.tuples(st.integers(3, 6), st.integers(2, 5)),
    padding=st.integers(0, 2),
    regress=st.booleans(),
    steps=st.integers(0, 3),
    rate=st.sampled_from([0.01, 0.1, 0.3]),
    second_order=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_hybrid_form_is_a_loop_over_tasks(
    drawn, number, rows, padding, regress, steps, rate, second_order, seed
):
    net, shape = drawn
    episodes = tasks(shape, rows, number, seed)
    if regress:
        draw = torch.Generator().manual_seed(seed)
        parts = (part._replace(y=torch.randn(*part.y.shape, 3, generator=draw)) for part in episodes)
        episodes = Episode(*parts)
    if not any(isinstance(part, nn.BatchNorm2d) for part in net.modules()):  # which padding must not enter
        episodes = Episode(*(with_garbage(part, padding) for part in episodes))
    learner = MAML(
        objective=Regress(dim=3) if regress else Classify(ways=3), net=net, steps=steps, rate=rate,
        second_order=second_order,
    )  # fmt: skip
    assert choose_form(learner, episodes) == "hybrid"
    check(learner, episodes)


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
def test_the_usual_net(norm, channels, second_order):
    learner = MAML(
        objective=Classify(ways=3), net=small(norm, channels), steps=3, rate=0.3, second_order=second_order
    )
    check(learner, tasks((channels, 8, 8), number=5))


@pytest.mark.parametrize("limit", ["HELD", "QUERIED", "TASKS"])
def test_chunks_change_nothing(limit, monkeypatch):
    monkeypatch.setattr(convolve, limit, 1)
    check(MAML(objective=Classify(ways=3), net=small(), steps=3, rate=0.3), tasks(number=5))


def test_first_layers_take_their_images_in_pieces(monkeypatch):
    monkeypatch.setattr("quickstudy.core.layers.CACHED", 2 * 8 * 8 * 4)  # two images' outputs
    check(MAML(objective=Classify(ways=3), net=small(), steps=3, rate=0.3), tasks())


def test_a_patch_of_many_numbers_is_not_laid_out(monkeypatch):
    monkeypatch.setattr(convolve, "FEW", 1)
    check(MAML(objective=Classify(ways=3), net=small(), steps=3, rate=0.3), tasks())


# -- Ties


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("scale", [1.0, -1.0, 0.0])
def test_equal_numbers_in_a_window_are_treated_as_torch_treats_them(scale, norm):
    """Drawings in black and white: whole windows are alike, before the norm, after it, and at the ReLU's zero."""
    net = small(norm)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d | nn.GroupNorm):
                part.weight.fill_(scale)
                part.bias.copy_(torch.tensor([0.5, 0.0, -0.5, 1.0]))
    episodes = tasks()
    drawn = (part._replace(x=torch.zeros_like(part.x)) for part in episodes)
    drawn = Episode(*drawn)
    for part in drawn:
        part.x[:, :, :, 2:4, 1:7] = 1.0
        part.x[:, ::2, :, 4:7, 3] = 1.0
        part.x[:, 1::3, :, 6, :] = 1.0
    check(MAML(objective=Classify(ways=3), net=net, steps=2, rate=0.3), drawn)


def test_a_relu_before_the_pooling_is_one_after_it():
    before, after = small(), small()
    for block in after[:2]:
        block[2], block[3] = block[3], block[2]
    assert [type(part) for part in after[0]] == [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU]
    episodes, found = tasks(), []
    for net in (before, after):
        learner = MAML(objective=Classify(ways=3), net=net, steps=3, rate=0.3)
        found.append(meta_gradient(learner, learner.init(0), episodes, form="hybrid"))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


# -- What it's for


def learners(net):
    shared = {"objective": Classify(ways=3), "net": net, "steps": 3, "rate": 0.3}
    return {
        "MAML": MAML(**shared), "FOMAML": MAML(**shared, second_order=False), "Reptile": Reptile(**shared),
        "FineTune": FineTune(**shared),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["MAML", "FOMAML", "Reptile", "FineTune"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_learner_of_plain_descent_has_it(name, norm):
    learner, episodes = learners(small(norm))[name], tasks(number=9)
    meta = learner.init(0)
    assert choose_form(learner, episodes) == "hybrid"
    expected = outputs(learner, meta, episodes, form="loop")
    assert torch.allclose(outputs(learner, meta, episodes), expected, rtol=EXACT, atol=EXACT)
    scores = evaluate(learner, meta, [episodes])
    assert torch.allclose(scores.loss, evaluate(learner, meta, [episodes], form="loop").loss, rtol=EXACT)
    together = adapt(learner, meta, episodes.support)
    for task in range(2):
        support, query = one(episodes, task)
        fast, slow = adapt(learner, meta, support), learner.adapt(meta, support)
        assert fast.keys() == slow.keys() == together.keys()
        for key in slow:
            assert torch.allclose(fast[key].double(), slow[key].double(), rtol=EXACT, atol=EXACT), key
            assert torch.allclose(together[key][task].double(), slow[key].double(), rtol=EXACT, atol=EXACT), (
                key
            )
            assert not fast[key].requires_grad
        assert torch.allclose(predict(learner, meta, fast, query.x), expected[task], rtol=EXACT, atol=EXACT)
    if learner.trainable(meta):
        (loss, ours), (true, theirs) = (
            meta_gradient(learner, meta, episodes, form=f) for f in ("hybrid", "loop")
        )
        assert loss == pytest.approx(true, rel=EXACT)
        assert distance(ours, theirs) < EXACT


def test_a_bias_before_batch_norm_has_no_gradient_and_stays():
    learner, episodes = learners(small())["MAML"], tasks()
    meta = learner.init(0)
    _, gradient = meta_gradient(learner, meta, episodes)
    assert not gradient["0.0.bias"].any()
    assert torch.equal(adapt(learner, meta, one(episodes, 0).support)["net.0.0.bias"], meta["0.0.bias"])


def test_losses_weighted_by_task_have_the_gradient_weighted_likewise():
    learner, episodes, weights = learners(small())["MAML"], tasks(), torch.tensor([0.2, -1.0, 3.0])
    found = []
    for form in ("hybrid", "loop"):
        leaves = {k: v.requires_grad_() for k, v in learner.init(0).items()}
        (weights * task_losses(learner, leaves, episodes, form=form)).sum().backward()
        found.append({k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items()})
    assert distance(*found) < EXACT


def test_padding_changes_nothing_or_goes_to_the_loop():
    episodes = tasks()
    padded = Episode(with_garbage(episodes.support, 2), with_garbage(episodes.query, 1))
    by_row = MAML(objective=Classify(ways=3), net=small("group"), steps=2)
    check(by_row, padded)
    across_rows = MAML(objective=Classify(ways=3), net=small("batch"), steps=2)
    assert choose_form(across_rows, padded) == "loop"
    with pytest.raises(ModelError, match="no hybrid form"):
        meta_gradient(across_rows, across_rows.init(0), padded, form="hybrid")


def test_absent_classes_are_silent():
    episodes = Episode(*(part._replace(y=part.y.remainder(2)) for part in tasks()))
    check(MAML(objective=Classify(ways=3), net=small(), steps=2), episodes)


def test_a_class_that_only_the_query_has_is_a_constant():
    episodes = tasks()
    episodes = Episode(episodes.support._replace(y=episodes.support.y.remainder(2)), episodes.query)
    learner = MAML(objective=Classify(ways=3), net=small(), steps=2)
    meta = learner.init(0)
    (loss, found), (expected, theirs) = (
        meta_gradient(learner, meta, episodes, form=f) for f in ("hybrid", "loop")
    )
    assert episodes.query.y.max() == 2 and loss == pytest.approx(expected, rel=1e-12)
    assert all(torch.allclose(found[k], theirs[k], rtol=0, atol=1e-10) for k in theirs)


def test_one_number_a_channel_is_refused_with_advice():
    net = nn.Sequential(nn.Conv2d(1, 2, 8), *norm_of("batch", 2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3))
    learner, episodes = MAML(objective=Classify(ways=3), net=net, steps=1), tasks(rows=(4, 1))
    with pytest.raises(DataError, match="one row has none"):
        meta_gradient(learner, learner.init(0), episodes)


def hooked():
    net = small()
    net[0].register_forward_hook(lambda *_: None)
    return net


def frozen():
    net = small()
    net[0][0].requires_grad_(False)
    return net


OTHERS = {
    "another activation": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 3)),
    "dropout": lambda: nn.Sequential(*small()[:3], nn.Dropout(0.1), small()[3]),
    "grouped": lambda: nn.Sequential(
        *small()[0], nn.Conv2d(4, 4, 1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ),
    "reflecting": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    ),
    "norm without parameters": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False, track_running_stats=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(72, 3),
    ),
    "hooked": hooked,
    "frozen": frozen,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_go_the_other_ways(name):
    learner, episodes = MAML(objective=Classify(ways=3), net=OTHERS[name](), steps=1), tasks(number=2)
    meta = learner.init(0)
    assert choose_form(learner, episodes) != "hybrid"
    assert meta_gradient(learner, meta, episodes)[0] == pytest.approx(
        meta_gradient(learner, meta, episodes, form="loop")[0]
    )
    for call in (meta_gradient, outputs):
        with pytest.raises(ModelError, match="MAML has no hybrid form here"):
            call(learner, meta, episodes, form="hybrid")


def test_learners_that_descend_otherwise_have_none():
    learner = ANIL(objective=Classify(ways=3), net=small(), steps=1)
    assert choose_form(learner, tasks()) != "hybrid"


# -- Single precision


def test_smooth_images_lose_no_more_precision_than_with_autograd():
    """Slopes a thousand times as high as the noise, and filters that see the noise alone.

    Their statistics are small differences of the large numbers in the patches' Gram matrix.
    """
    second = torch.tensor([1.0, -2.0, 1.0])
    across = torch.stack([torch.zeros(3), second, torch.zeros(3)])
    corners = torch.outer(second, second)
    torch.manual_seed(0)
    filters = torch.stack([across, across.t(), across + across.t(), corners])
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        *norm_of("batch", 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 5 * 5, 3),
    )
    with torch.no_grad():
        net[0].weight.copy_(filters.unsqueeze(1))
    slope = torch.linspace(-100, 100, 12)
    episodes = tasks((1, 12, 12), rows=(6, 8))
    smooth = Episode(
        *(p._replace(x=0.1 * p.x + slope * p.x[..., :1, :1] + slope.unsqueeze(1)) for p in episodes)
    )
    learner = MAML(objective=Classify(ways=3), net=net, steps=2, rate=0.01)
    meta = learner.init(0)
    single = {k: v.float() for k, v in meta.items()}
    narrow = Episode(*(part._replace(x=part.x.float()) for part in smooth))
    wide = Episode(*(part._replace(x=part.x.double()) for part in narrow))
    exact = meta_gradient(learner, {k: v.double() for k, v in single.items()}, wide, form="loop")[1]
    error = {
        form: distance(
            {k: v.double() for k, v in meta_gradient(learner, single, narrow, form=form)[1].items()}, exact
        )
        for form in ("loop", "hybrid")
    }
    assert error["hybrid"] < 10 * error["loop"], error


@pytest.mark.parametrize("kind", [MAML, Reptile])
@pytest.mark.parametrize("size", [2, 12])
def test_images_of_another_size_than_the_head_reads(kind, size):
    learner, part = kind(objective=Classify(ways=3), net=small(), steps=1), batch(6, (1, size, size), 3)
    meta, other = learner.init(0), Episode(part, part)
    for run in (
        lambda: meta_gradient(learner, meta, other),
        lambda: evaluate(learner, meta, [other]),
        lambda: adapt(learner, meta, other.support),
    ):
        with pytest.raises(ModelError, match=rf"can't take inputs of shape \[\d+, 1, {size}, {size}\]"):
            run()
