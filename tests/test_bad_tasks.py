"""Tasks, networks and memory that can't be: every error names what came and what to do, and harms nothing."""

import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from toy import Words, blobs, sentences

from quickstudy.core import engine
from quickstudy.core.adapted import Adapted
from quickstudy.core.dataset import MetaDataset, Shots, TaskDataset
from quickstudy.core.engine import adapt, evaluate, meta_gradient, meta_train, outputs, predict
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError, DivergedError, ModelError
from quickstudy.core.forms import choose_form
from quickstudy.core.objective import Classify, Regress
from quickstudy.learners import (
    ANIL,
    BOIL,
    GE2E,
    LEO,
    MAML,
    Centroid,
    DeepKernel,
    Gaussian,
    Logistic,
    LogisticHead,
    Matching,
    MatchingFCE,
    MetaOptNet,
    NeuralProcess,
    Pool,
    Pretrained,
    ProtoMAML,
    Prototypical,
    Ridge,
    Siamese,
    SimpleShot,
    SoftKMeans,
)  # fmt: skip
from quickstudy.nets import MLP

THREE = Classify(ways=3)


def tasks(number=4, rows=6, queries=6, ways=3, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def part(n):
        y = torch.arange(n).remainder(ways).expand(number, n).clone()
        return Labelled.of(torch.randn(number, n, 5, generator=draw), y)

    return Episode(part(rows), part(queries))


def both(episode, change):
    return Episode(*(change(part) for part in episode))


def maml(net=None, **fields):
    return MAML(objective=THREE, net=net or nn.Linear(5, 3), **fields)


def step(learner, episodes=None, **options):
    return meta_gradient(learner, learner.init(0), episodes or tasks(), **options)


# -- Tasks


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        (tasks(rows=0), r"Task 0 \(of 4, from 0\) has no support rows.*one example or more"),
        (tasks(queries=0), r"Task 0 .* has no query rows, so there is nothing to be judged by"),
        (tasks(ways=4, rows=8), r"support holds class number 3; Classify\(ways=3\) reads 0 to 2"),
        (both(tasks(), lambda p: p._replace(y=p.y - 1)), "class number -1"),
        (both(tasks(), lambda p: p._replace(y=p.y.float())), r"answers are float32.*y\.long\(\)"),
        (both(tasks(), lambda p: p._replace(x=p.x.double())), "inputs are float64 but the parameters float32"),
        (both(tasks(), lambda p: Labelled(*(t[0] for t in p))), r"shape \[6\]; expected \[tasks, rows\].*stack"),
        (Episode(tasks().support, tasks(3).query), "4 supports but 3 queries"),
        (both(tasks(), lambda p: p._replace(y=p.y.unsqueeze(-1))), r"shape \[4, 6, 1\].*one class number a row"),
        (both(tasks(), lambda p: p._replace(mask=p.mask.float())), r"mask is float32; expected bool.*mask.bool\(\)"),
        (both(tasks(), lambda p: p._replace(y=p.y[:, :2])), r"y \[4, 2\] and mask \[4, 6\] don't have the same rows"),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be_learned_are_refused(episodes, message):
    learner = maml()
    for run in (meta_gradient, outputs, lambda learner, meta, episodes: evaluate(learner, meta, [episodes])):
        with pytest.raises(DataError, match=message):
            run(learner, learner.init(0), episodes)


def test_a_task_whose_support_is_all_padding_is_named():
    episodes = tasks()
    episodes.support.mask[2] = False
    for learner in (maml(), Prototypical(objective=THREE, net=nn.Linear(5, 4))):
        with pytest.raises(DataError, match=r"Task 2 .* has no support rows"):
            evaluate(learner, learner.init(0), [episodes])
        with pytest.raises(DataError, match="no support rows"):
            adapt(learner, learner.init(0), Labelled(*(t[2] for t in episodes.support)))


def test_what_is_padding_may_hold_anything():
    episodes = tasks(rows=8)
    episodes.support.mask[:, 6:] = False
    episodes.support.y[:, 6:] = 99
    assert step(maml(), episodes)[0] > 0


def test_a_row_may_describe_a_class_where_the_learner_reads_that():
    episodes = tasks()
    episodes.support.y[:, -1] = 5  # describes class 2
    learner = Gaussian(objective=THREE, dim=5)
    assert outputs(learner, learner.init(0), episodes).shape == (4, 6, 3)
    with pytest.raises(DataError, match="class number 5"):
        step(maml(), episodes)


def test_classes_of_all_past_tasks_are_for_training_alone():
    learner = Pretrained(objective=THREE, net=MLP(inputs=5, outputs=4), head=nn.Linear(4, 20))
    episodes = both(tasks(), lambda p: p._replace(y=p.y + 9))
    assert step(learner, episodes)[0] > 0
    with pytest.raises(DataError, match=r"class number 11; Classify\(ways=3\) reads 0 to 2"):
        evaluate(learner, learner.init(0), [episodes])


@pytest.mark.parametrize(
    "learner",
    [Gaussian(objective=THREE, dim=4), LEO(objective=THREE, dim=4), SimpleShot(objective=THREE, dim=4),
     Pool(objective=THREE, members=(Centroid(objective=THREE), Gaussian(objective=THREE, dim=4)), weights=(1.0, 1.0))],
    ids=lambda learner: type(learner).__name__,
)  # fmt: skip
def test_features_of_another_width(learner):
    told = rf"inputs have shape \[4, 6, 5\]; {type(learner).__name__} is one for features of 4 numbers"
    with pytest.raises(DataError, match=told):
        outputs(learner, learner.init(0), tasks())


UNTYPED = """
import torch
from torch import nn
from quickstudy.core.engine import adapt, predict
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.objective import Classify
from quickstudy.learners import MAML
learner, part = MAML(objective=Classify(ways=3), net=nn.Linear(5, 3)), Labelled.of(torch.ones(3, 5), torch.arange(3))
meta = learner.init(0)
fast = adapt(learner, meta, part)
for call in (lambda: adapt(learner, meta, Episode(part, part)), lambda: predict(learner, meta, fast, part.x.numpy())):
    try:
        call()
    except DataError as problem:
        print(problem)
"""


def test_what_is_no_support_and_no_tensor():
    told = subprocess.run([sys.executable, "-c", UNTYPED], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [
        "adapt learns from a support alone; give episode.support.",
        "predict's inputs are of ndarray; expected a tensor: torch.as_tensor(x).",
    ]


def test_numbers_to_regress_have_a_column():
    learner = MAML(objective=Regress(), net=nn.Linear(5, 1))
    flat = both(tasks(), lambda p: Labelled(p.x, p.y.float(), p.mask))
    with pytest.raises(DataError, match=r"float32 of shape \[4, 6\]; Regress\(dim=1\) reads.*\[4, 6, 1\]"):
        step(learner, flat)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"shots": 0}, "1 examples a class"), ({"ways": 1}, "2 classes"), ({"tasks": 0}, "1 tasks"),
     ({"shots": (5, 2)}, "smaller number first"), ({"ways": (1, 1)}, "2 classes")],
)  # fmt: skip
def test_shots_that_make_no_task(fields, message):
    with pytest.raises(DataError, match=message):
        Shots(**fields)


def test_one_way():
    with pytest.raises(DataError, match="one class leaves nothing to tell apart"):
        step(MAML(objective=Classify(ways=1), net=nn.Linear(5, 1)), tasks(ways=1))


# -- Networks


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize("kind", [MAML, ANIL])
def test_outputs_that_do_not_fit_the_ways(kind, outputs):
    for net in (nn.Linear(5, outputs), MLP(inputs=5, outputs=outputs, hidden=(4,))):
        with pytest.raises(
            ModelError, match=rf"outputs of shape \[6, {outputs}\].*reads \[6, 3\].*3 outputs"
        ):
            step(kind(objective=THREE, net=net))


def test_inputs_that_do_not_fit_the_network():
    for net in (nn.Linear(7, 3), MLP(inputs=7, outputs=3, hidden=(4,))):
        with pytest.raises(ModelError, match=r"can't take inputs of shape \[6, 5\], float32"):
            step(maml(net))


class Head(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.own = forward

    def forward(self, x):
        return self.own(self, x)


def counting(net, x):
    net.calls += 1
    return net.linear(x)


def looking(net, x):
    return net.linear(x) if net.linear(x).sum().item() > 0 else 2 * net.linear(x)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.linear(x).detach(),
        lambda net, x: nn.functional.one_hot(net.linear(x).argmax(-1), 3).to(x.dtype),
    ],
)
def test_a_step_that_has_no_gradient(forward):
    for form in ("auto", "loop"):
        with pytest.raises(ModelError, match=r"no gradient to follow.*detach\(\), argmax"):
            step(maml(Head(forward)), form=form)


class Writes(nn.Module):
    """A network that writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        x += 1
        return self.last(x)


@pytest.mark.parametrize("kind", [MAML, Prototypical])
@pytest.mark.parametrize("call", [meta_gradient, lambda *given: evaluate(*given[:2], [given[2]])])
def test_a_network_that_writes_into_its_inputs_is_refused(kind, call):
    learner = kind(objective=Classify(ways=3), net=Writes())
    with pytest.raises(ModelError, match="writes into its inputs"):
        call(learner, learner.init(0), blobs(dim=4))


def test_answers_want_what_was_learned_of_these_tasks():
    learner, episodes = (
        MAML(objective=Classify(ways=3), net=MLP(inputs=4, outputs=3, hidden=(5,))),
        blobs(dim=4),
    )
    meta = learner.init(0)
    fast = adapt(learner, meta, episodes.support)
    with pytest.raises(ModelError, match="has `meta` twice"):
        predict(learner, meta, meta, episodes.query.x[0])
    alone = {name: value[0] for name, value in fast.items()}
    with pytest.raises(ModelError, match="of another number of them"):
        predict(learner, meta, alone, episodes.query.x, many=True)


def test_a_buffer_that_changes_is_refused():
    net = Head(counting)
    for form in ("auto", "loop"):
        with pytest.raises(ModelError, match=r"changes a buffer.*leak from one task into the next"):
            step(maml(net), form=form)


def test_a_network_that_looks_at_its_numbers_takes_tasks_one_by_one():
    learner, episodes = maml(Head(looking), steps=2), tasks()
    assert choose_form(learner, episodes) == "stacked"
    with pytest.raises(ModelError, match="can't run on many tasks at once"):
        step(learner, form="stacked")
    loss, gradient = step(learner)
    assert choose_form(learner, episodes) == "loop"
    expected, theirs = step(learner, form="loop")
    assert loss == expected and all(torch.equal(gradient[k], theirs[k]) for k in theirs)
    assert outputs(learner, learner.init(0), episodes).shape == (4, 6, 3)


@pytest.mark.parametrize("kind", [MAML, Prototypical])
def test_stacked_tasks_are_adapted_to_one_by_one_where_a_network_takes_them_no_other_way(kind):
    learner, episodes = kind(objective=THREE, net=Head(looking)), tasks()
    meta = learner.init(0)
    fast = adapt(learner, meta, episodes.support)
    found = predict(learner, meta, fast, episodes.query.x, many=True)
    assert torch.equal(found, outputs(learner, meta, episodes))


class Odd(nn.Module):
    """A linear layer whose output is made into something else."""

    def __init__(self, change, width=32):
        super().__init__()
        self.linear, self.change = nn.Linear(5, width), change

    def forward(self, x):
        return self.change(self.linear(x))


@pytest.mark.parametrize("kind", [MAML, Prototypical, Ridge])
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Odd(lambda z: (z, z)), r"\(Odd\) gives a tuple; expected one tensor.*returns that alone"),
        (Odd(lambda z: {"logits": z}), "gives a dict; expected one tensor"),
        (Head, r"the class Head itself; give one of it: Head\(…\)"),
        (MLP, r"the class MLP itself; give one of it: MLP\(…\)"),
        (torch.relu, r"a builtin.*expected an nn.Module, or a spec with `build`"),
    ],
)
def test_what_is_no_network(unchecked, kind, net, message):
    with pytest.raises(ModelError, match=message):
        step(kind(objective=THREE, net=net))


WIDTH = {MatchingFCE: {"width": 32}, Siamese: {"width": 32}}


@pytest.mark.parametrize(
    "kind",
    [DeepKernel, GE2E, LogisticHead, Matching, MatchingFCE, MetaOptNet, Pretrained, ProtoMAML, Prototypical, Ridge,
     Siamese, SoftKMeans],
)  # fmt: skip
def test_features_that_are_no_rows(kind):
    for change, shape in ((lambda z: z.unflatten(1, (8, 4)), "8, 4"), (lambda z: z[:1], "32")):
        learner = kind(objective=THREE, net=Odd(change), **WIDTH.get(kind, {}))
        with pytest.raises(ModelError, match=rf"features of shape \[\d+, {shape}\] for .*, d\].*nn.Flatten"):
            step(learner)


def test_inputs_that_are_no_features():
    images = both(tasks(), lambda p: p._replace(x=p.x.unsqueeze(-1)))
    learner = Ridge(objective=THREE)
    with pytest.raises(ModelError, match=r"Inputs have features of shape \[6, 5, 1\].*Flatten"):
        outputs(learner, learner.init(0), images)


def frozen(layer):
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    net[layer].requires_grad_(False)
    return net


def test_layers_that_are_to_adapt_but_are_frozen():
    with pytest.raises(ModelError, match=r"ANIL adapts the last linear layer \(2\), which is frozen"):
        step(ANIL(objective=THREE, net=frozen(2)))
    with pytest.raises(ModelError, match=r"(?s)BOIL adapts the layers below.*none that learn"):
        step(BOIL(objective=THREE, net=frozen(0)))
    for learner in (ANIL(objective=THREE, net=frozen(0)), BOIL(objective=THREE, net=frozen(2))):
        assert step(learner)[0] > 0


def to_regress(dim=1):
    return both(tasks(), lambda p: Labelled(p.x, p.x[..., :dim].clone(), p.mask))


@pytest.mark.parametrize("width", [1, 3])
def test_a_decoder_and_a_head_of_another_width(width):
    numbers = Regress(dim=2)
    decoder = MLP(inputs=13, outputs=width)
    learner = NeuralProcess(objective=numbers, encoder=MLP(inputs=7, outputs=8), decoder=decoder)
    with pytest.raises(
        ModelError, match=rf"decoder gives .*\[6, {width}\].*\[6, 4\], the means and then the"
    ):
        step(learner, to_regress(2))
    learner = Pretrained(objective=numbers, net=nn.Linear(5, 4), head=nn.Linear(4, width))
    with pytest.raises(ModelError, match=rf"\[12, {width}\] .*dim=2\) reads \[12, 2\]"):
        step(learner, to_regress(2))
    decoder = MLP(inputs=29, outputs=width + 1)
    learner = NeuralProcess(objective=THREE, encoder=MLP(inputs=5, outputs=8), decoder=decoder)
    with pytest.raises(ModelError, match=rf"decoder gives .*\[6, {width + 1}\].*takes \[6, 3\]"):
        step(learner)


def test_a_past_class_that_the_head_has_no_output_for():
    past = both(tasks(), lambda p: p._replace(y=p.y + 2))
    for width, message in ((4, r"class number 4; Pretrained's head has 4 outputs"), (5, None)):
        learner = Pretrained(objective=THREE, net=nn.Linear(5, 4), head=nn.Linear(4, width))
        if message is None:
            assert step(learner, past)[0] > 0
        else:
            with pytest.raises(DataError, match=message):
                step(learner, past)


# -- Losses that aren't finite


def spoiled(at, task):
    def sample(number):
        episodes = tasks(seed=number)
        if number == at:
            episodes.query.x[task] = torch.nan
        return episodes

    return sample


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_in_use_numbers_that_are_none_are_named(value):
    """No answer is given that would be NaN for every query."""
    support = tasks().support.taken(0)
    learner = maml(steps=2)
    meta = learner.init(0)
    x = support.x.clone()
    x[4, 2] = value
    bad = support._replace(x=x)
    for who, known in ((learner, meta), (Logistic(objective=THREE), {}), (Centroid(objective=THREE), {})):
        with pytest.raises(
            DataError, match=r"Row 4 \(from 0\) of the support has an input that is NaN or infinite"
        ):
            adapt(who, known, bad)
    batch = tasks().support
    x = batch.x.clone()
    x[2, 1, 0] = value
    with pytest.raises(DataError, match=r"Row 1 \(from 0\) of the support of task 2 \(of 4, from 0\)"):
        adapt(learner, meta, batch._replace(x=x))
    mask = batch.mask.clone()
    mask[2, 1] = False
    adapt(learner, meta, batch._replace(x=x, mask=mask))


@pytest.mark.parametrize("form", ["auto", "stacked", "loop"])
def test_a_loss_that_is_not_finite_names_step_and_task_and_harms_nothing(form):
    learner, kept = maml(steps=2), []
    run = meta_train(learner, spoiled(2, 1), steps=5, form=form)
    with pytest.raises(
        DivergedError, match=r"MAML, step 3: the loss of task 1 \(of 4, from 0\).*up to step 2"
    ) as said:
        kept.extend(run)
    assert (said.value.step, said.value.tasks) == (3, [1])
    assert len(kept) == 2 and all(bool(v.isfinite().all()) for v in kept[-1].meta.values())
    again = pickle.loads(pickle.dumps(said.value))
    assert (str(again), again.step, again.tasks) == (str(said.value), 3, [1])
    # What was learned is a state to go on from, with other tasks.
    [*_, last] = meta_train(learner, spoiled(None, 0), steps=5, resume=kept[-1].state(), form=form)
    assert last.number == 5


def test_a_gradient_that_is_not_finite_while_the_losses_are():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(5, 3))  # where the root's slope is infinite

        def forward(self, x):
            return x @ self.weight.abs().sqrt()

    with pytest.raises(DivergedError, match=r"the losses are finite, but the meta-gradient isn't"):
        list(meta_train(maml(Root(), steps=0), lambda _: tasks(), steps=1))


# -- Memory


class Scarce(nn.Linear):
    """Runs out of memory the first so many times that it runs."""

    left = 0

    def forward(self, x):
        Scarce.left -= 1
        if Scarce.left >= 0:
            raise torch.OutOfMemoryError("no memory")
        return super().forward(x)


@pytest.mark.parametrize("kind", [MAML, Prototypical])
def test_adapting_and_judging_take_as_many_tasks_at_once_as_memory_holds(kind):
    torch.manual_seed(0)
    learner, episodes = kind(objective=THREE, net=Scarce(5, 3)), tasks(5)
    meta = learner.init(0)
    expected, fast = evaluate(learner, meta, [episodes]), adapt(learner, meta, episodes.support)
    Scarce.left = 2  # of five tasks at once, then of two
    assert torch.allclose(evaluate(learner, meta, [episodes]).loss, expected.loss)
    assert Scarce.left < 0
    Scarce.left = 2
    again = adapt(learner, meta, episodes.support)
    assert all(torch.allclose(again[k], fast[k], atol=1e-6) for k in fast)
    for run, rows in (
        (lambda: evaluate(learner, meta, [episodes]), "6 support and 6 query"),
        (lambda: adapt(learner, meta, episodes.support), "6 support"),
        (lambda: adapt(learner, meta, episodes.support.taken(0)), "6 support"),
    ):
        Scarce.left = 1000
        with pytest.raises(
            ModelError, match=f"One task of {rows} rows doesn't fit.*Give fewer rows a task.$"
        ):
            run()
    Scarce.left = 0


LIMITED = """
import resource, sys
import torch
from torch import nn
from quickstudy import MAML, Classify, Episode, Labelled, QuickstudyError
from quickstudy.core.engine import evaluate, meta_gradient

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x):
        wide = x.unsqueeze(-1) * torch.ones(WIDE)  # {rows} · 5 · WIDE numbers
        return self.linear(wide.mean(-1))

WIDE = {wide}
torch.set_num_threads(1)
y = torch.arange({rows}).remainder(3).expand(8, {rows}).clone()
part = Labelled.of(torch.randn(8, {rows}, 5), y)
learner = MAML(objective=Classify(ways=3), net=Wide(), steps=1)
meta = learner.init(0)
meta_gradient(learner, meta, Episode(*(Labelled(*(t[:1, :3] for t in part)) for _ in "ab")))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {spare} * 2**20,) * 2)
try:
    print({what})
except QuickstudyError as problem:
    print(problem)
"""


TRAINED = 'meta_gradient(learner, meta, Episode(part, part), form="stacked")[0]'
JUDGED = 'evaluate(learner, meta, [Episode(part, part)], form="stacked").loss.mean().item()'


def limited(**given):
    code = LIMITED
    for name, value in given.items():
        code = code.replace(f"{{{name}}}", str(value))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space as Linux does")
def test_tasks_that_do_not_fit_together_go_a_few_at_a_time_and_one_too_big_is_told():
    # One task takes some 12 MB a forward pass, eight at once beyond what is spare.
    assert 0 < float(limited(rows=6, wide=100_000, spare=250, what=TRAINED)) < 5
    assert 0 < float(limited(rows=6, wide=600_000, spare=250, what=JUDGED)) < 5
    for what in (TRAINED, JUDGED):
        assert "One task of 60 support and 60 query rows doesn't fit into memory with MAML" in limited(
            rows=60, wide=1_000_000, spare=250, what=what
        )


# -- What a fresh pair of eyes found


class Huber(Regress):
    def row_losses(self, outputs, y):
        return nn.functional.smooth_l1_loss(outputs, y, reduction="none").mean(-1)


def test_an_objective_with_a_loss_of_its_own_is_lowered_in_every_form():
    x = torch.randn(3, 8, 2)
    part = Labelled(x, 5 * x.sum(-1, keepdim=True), torch.ones(3, 8, dtype=torch.bool))
    learner = MAML(objective=Huber(), net=MLP(inputs=2, outputs=1, hidden=(4,)), steps=2)
    assert choose_form(learner, Episode(part, part)) == "stacked"
    found, expected = (step(learner, Episode(part, part), form=form)[0] for form in ("auto", "loop"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_padding_stays_out_of_batch_norm_in_adapt_and_in_the_stacked_form():
    episodes = tasks()
    episodes.support.mask[0, 4:] = False
    learner = maml(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    with pytest.raises(ModelError, match="enter batch norm's statistics"):
        step(learner, episodes, form="stacked")
    with pytest.raises(ModelError, match="enter batch norm's statistics"):
        adapt(learner, learner.init(0), episodes.support)


def test_a_buffer_that_is_put_anew_is_refused():
    def remembering(net, x):
        net.calls = 0.9 * net.calls + 1
        return net.linear(x)

    learner = maml(Head(remembering))
    for _ in range(2):
        with pytest.raises(ModelError, match="changes a buffer"):
            step(learner)


def test_a_function_without_a_rule_for_vmap_takes_tasks_one_by_one():
    class Flip(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return -g

    learner = maml(Head(lambda net, x: Flip.apply(net.linear(x))))
    assert step(learner)[0] == step(learner, form="loop")[0]


def test_weights_that_two_layers_share():
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    net[2].weight = net[0].weight
    found, expected = (step(maml(net), form=form)[0] for form in ("auto", "loop"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_options_that_are_none():
    for chunk in (0, -1):
        with pytest.raises(ModelError, match=f"chunk={chunk}; expected 1 task or more"):
            step(maml(), chunk=chunk)
    with pytest.raises(ModelError, match="clip=-1"):
        list(meta_train(maml(), lambda _: tasks(), steps=1, clip=-1.0))


def test_outputs_that_are_no_numbers_score_nothing():
    episodes = tasks()
    episodes.support.x[0] = torch.nan
    scores = evaluate(maml(), maml().init(0), [episodes]).score
    assert scores.isnan().tolist() == [True, False, False, False]


def test_padding_of_a_task_is_never_drawn():
    x = torch.arange(30.0)[:, None]
    task = Labelled(x, x, torch.arange(30) < 12)
    sample = TaskDataset((task,)).sampler(Shots(shots=5, queries=7, tasks=4))
    for part in sample(0):
        assert part.mask.all() and part.x.max() < 12
    with pytest.raises(DataError, match="No task has more than 12 rows"):
        TaskDataset((task,)).sampler(Shots(shots=12))


unchecked = pytest.mark.usefixtures("unchecked")


@unchecked
@pytest.mark.parametrize(
    "kind", [Prototypical, GE2E, LogisticHead, ProtoMAML], ids=lambda kind: kind.__name__
)
def test_an_objective_of_another_kind(kind):
    with pytest.raises(DataError, match=rf"{kind.__name__}.objective is Regress.*expected Classify"):
        kind(objective=Regress(), net=nn.Linear(5, 3))


@unchecked
def test_an_objective_or_a_rate_that_is_none():
    with pytest.raises(DataError, match=r"objective is CrossEntropyLoss.*Classify\(ways=5\)"):
        MAML(objective=nn.CrossEntropyLoss(), net=nn.Linear(5, 3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=r"MAML.rate is the text '0.1'; give a number"):
        maml(rate="0.1")


def test_weights_that_are_not_the_learners_own():
    weight = {"weight": torch.zeros(3, 5)}
    for use in (
        lambda meta: evaluate(maml(), meta, [tasks()]),
        lambda meta: next(meta_train(maml(), lambda _: tasks(), steps=1, meta=meta)),
    ):
        with pytest.raises(ModelError, match="needs the tensor 'bias', which is missing"):
            use(weight)
        with pytest.raises(ModelError, match=r"no tensor 'running_mean'.*named_parameters"):
            use(weight | {"bias": torch.zeros(3), "running_mean": torch.zeros(3)})


@unchecked
def test_batches_and_samples_that_are_none():
    learner = maml()
    for wrong in (tasks(), lambda step: tasks()):
        with pytest.raises(DataError, match=r"evaluate takes batches of tasks: \[episode\]"):
            evaluate(learner, learner.init(0), wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="no batch to judge by"):
        evaluate(learner, learner.init(0), [])
    with pytest.raises(DataError, match="sample is a Episode; expected a function"):
        next(meta_train(learner, tasks(), steps=1))  # pyright: ignore[reportArgumentType]


def test_a_network_that_stops_the_gradient():
    learner = Prototypical(objective=THREE, net=Head(lambda net, x: net.linear(x).detach()))
    with pytest.raises(ModelError, match="the network stops the gradient"):
        step(learner)


def test_a_learner_without_anything_to_learn_says_what_to_do_with_it():
    simple = SimpleShot(objective=THREE, dim=5)
    for learner, advice in ((simple, "use its `estimate`"), (Centroid(objective=THREE), "use it as it is")):
        with pytest.raises(ModelError, match=f"learns nothing by gradient; {advice}"):
            next(meta_train(learner, lambda _: tasks(), steps=1))


def test_past_tasks_that_hold_no_numbers():
    past = [Labelled.of(torch.randn(12, 5), torch.arange(12) % 3) for _ in range(3)]
    past[1].x[4, 2] = torch.nan
    with pytest.raises(DataError, match="inputs that aren't finite; leave those rows out"):
        Gaussian(objective=THREE, dim=5).estimate(past)


@unchecked
@pytest.mark.parametrize("fractions", [(-0.5, 0.9, 0.6), (0.9, 0.9, 0.9), (60, 20, 20)], ids=str)
def test_shares_that_are_none(fractions):
    data = MetaDataset(torch.randn(24, 5), torch.arange(24) % 12, tuple("abcdefghijkl"))
    with pytest.raises(DataError, match="expected three shares that sum to 1"):
        data.split(fractions)
    x = torch.randn(4, 1)
    with pytest.raises(DataError, match="expected three shares that sum to 1"):
        TaskDataset((Labelled.of(x, x),) * 12).split(fractions)


@unchecked
def test_labels_that_are_no_text_are_refused_before_they_are_lost(tmp_path):
    task = sentences()
    numbers = {label: i for i, label in enumerate(task.labels)}
    learner = Centroid(objective=THREE)
    model = Adapted.learn(learner, {}, task, Words())
    odd = replace(model, labels=tuple(numbers[label] for label in model.labels))
    with pytest.raises(DataError, match=r"Label 0 is a int; labels that are kept are text: str\(label\)"):
        odd.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


class OwnLoss(MAML):
    def loss(self, meta, episode):
        return 2 * self.outer_loss(meta, self.adapt(meta, episode.support), episode)


def test_an_inner_loop_with_a_loss_of_its_own_goes_one_by_one():
    plain, own = maml(), OwnLoss(objective=THREE, net=nn.Linear(5, 3))
    meta = plain.init(0)
    expected, gradient = meta_gradient(plain, meta, tasks())
    found, ours = meta_gradient(own, meta, tasks())
    assert found == pytest.approx(2 * expected, rel=1e-5)
    assert all(torch.allclose(ours[name], 2 * gradient[name], rtol=1e-4, atol=1e-6) for name in ours)
    with pytest.raises(ModelError, match="override `outer_loss` instead"):
        meta_gradient(own, meta, tasks(), form="stacked")


def test_where_memory_runs_out_never_more_tasks_go_at_once(monkeypatch):
    tried = []

    def full(learner, meta, episodes, **_):
        tried.append(len(episodes.support.mask))
        raise MemoryError

    monkeypatch.setattr(engine, "task_losses", full)
    learner = maml(MLP(inputs=5, outputs=3, hidden=(8,)))
    for form, first in (("loop", 1), ("stacked", 4)):
        tried.clear()
        with pytest.raises(ModelError, match="One task of"):
            step(learner, form=form)
        assert tried == sorted(tried, reverse=True) and (tried[0], tried[-1]) == (first, 1)


def test_a_pretrained_head_reads_no_answers_of_another_shape():
    learner = Pretrained(objective=Regress(), net=nn.Linear(5, 4), head=nn.Linear(4, 1))
    x = torch.randn(2, 6, 5)
    flat = Labelled(x, torch.randn(2, 6), torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(DataError, match=r"reads real numbers of shape \[2, 6, 1\]"):
        step(learner, Episode(flat, flat))
    classes = Pretrained(objective=THREE, net=nn.Linear(5, 4), head=nn.Linear(4, 9))
    with pytest.raises(DataError, match="class number -1; Pretrained's head has 9 outputs"):
        step(classes, both(tasks(), lambda p: p._replace(y=p.y - 1)))
