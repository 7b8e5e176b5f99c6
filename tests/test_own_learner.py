"""A learner of one's own that breaks its contract, and settings of the wrong kind: each is named, with what to do."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from toy import blob_sampler, blobs

from quickstudy.core.dataset import MetaDataset, Shots
from quickstudy.core.engine import adapt, evaluate, meta_gradient, meta_train
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.core.learner import MetaLearner, NetLearner, descend
from quickstudy.core.objective import Classify, Regress
from quickstudy.domains.control import Bandits, Family, actor, meta_train_policy
from quickstudy.domains.control.collect import Sampling
from quickstudy.learners import MAML, Centroid, LearnedMomentum, MAMLPlusPlus, MetaSGD, Ridge

THREE = Classify(ways=3)


@dataclass(frozen=True, kw_only=True)
class Broken(MetaLearner):
    """One linear layer, never adapted, but for what is broken."""

    objective: Classify = THREE
    breaks: str = ""

    paper: ClassVar[str] = "none"

    def init(self, seed=0):
        return {"init is none": None, "init holds a number": {"w": 1.0}}.get(
            self.breaks, {"w": torch.eye(6, 3)}
        )

    def adapt(self, meta, support):
        found = {"adapt is none": None, "adapt is a tensor": meta["w"], "adapt holds none": {"w": None}}
        return found.get(self.breaks, {"w": meta["w"] + 0})

    def predict(self, meta, fast, x):
        out = x @ fast["w"]
        broken = {"a number a row": out.sum(-1), "too few ways": out[:, :2], "too few rows": out[:2]}
        return broken.get(self.breaks, out)


def maml(**fields):
    return MAML(**{"objective": THREE, "net": nn.Linear(6, 3)} | fields)


def train(learner, **settings):
    return list(meta_train(learner, blob_sampler(), **{"steps": 1} | settings))


INTEGERS = Labelled(torch.arange(12).view(1, 6, 2), torch.arange(6).view(1, 6) % 3, torch.ones(1, 6).bool())
BROKEN = [
    ("init is none", r"Broken\.init gives a NoneType; expected a dictionary of tensors by name"),
    ("init holds a number", r"Broken\.init gives a dictionary that holds a float; expected"),
    ("adapt is none", r"Broken\.adapt gives a NoneType; expected"),
    ("adapt is a tensor", r"Broken\.adapt gives a Tensor; expected"),
    ("adapt holds none", r"Broken\.adapt gives a dictionary that holds a NoneType; expected"),
    ("a number a row", r"`predict` gives outputs of shape \[18\]; Classify\(ways=3\) reads .*\[18, 3\]"),
    ("too few ways", r"`predict` gives outputs of shape \[18, 2\]"),
    ("too few rows", r"`predict` gives outputs of shape \[2, 3\]"),
]


@pytest.mark.parametrize(("breaks", "message"), BROKEN)
def test_a_method_that_gives_something_else_is_named(unchecked, breaks, message):
    with pytest.raises(ModelError, match=message):
        train(Broken(breaks=breaks))
    assert len(train(Broken())) == 1  # and nothing else was wrong


@pytest.mark.parametrize("form", ["stacked", "loop"])
@pytest.mark.parametrize("breaks", [breaks for breaks, _ in BROKEN[2:]])
def test_so_it_is_in_use(unchecked, breaks, form):
    good = Broken().init()
    with pytest.raises(ModelError, match=r"Broken\.adapt gives|`predict` gives outputs"):
        evaluate(Broken(breaks=breaks), good, [blobs()], form=form)
    if "adapt" in breaks:
        with pytest.raises(ModelError, match=r"Broken\.adapt gives"):
            adapt(Broken(breaks=breaks), good, blobs().support.taken(0))


def test_what_is_known_is_a_dictionary(unchecked):
    with pytest.raises(ModelError, match=r"What MAML knows is a Linear; .*named_parameters"):
        evaluate(maml(), nn.Linear(6, 3), [blobs()])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: maml(steps=1.5), r"MAML\.steps is 1\.5; give a whole number"),
        (lambda: maml(steps=2.0), r"MAML\.steps is 2\.0; give a whole number"),
        (lambda: maml(steps=None), r"MAML\.steps is None; give a number"),
        (lambda: maml(rate=None), r"MAML\.rate is None; give a number"),
        (lambda: maml(second_order="no"), r"MAML\.second_order is 'no'; give True or False"),
        (
            lambda: evaluate(Centroid(objective=THREE), {}, [Episode(INTEGERS, INTEGERS)]),
            r"inputs are int64; Centroid takes features, real numbers: x\.float\(\)",
        ),
        (lambda: evaluate(maml(), maml().init(0), 5), r"takes batches of tasks"),
        (lambda: Classify(ways=5.0), r"Classify\.ways is 5\.0; give a whole number"),
        (lambda: Shots(shots=2.0), r"Shots\(shots=2\.0\); expected a whole number, or a range of two"),
        (lambda: Shots(shots="2"), r"Shots\(shots='2'\); expected a whole number"),
        (lambda: Shots(ways=(2, 3, 4)), r"Shots\(ways=\(2, 3, 4\)\); expected a whole number, or a range"),
        (lambda: Shots(queries=(2, 3)), r"Shots\(queries=\(2, 3\)\); expected a whole number\."),
        (
            lambda: Labelled.of(torch.zeros(4, 2), list("abab")),
            r"lists of numbers .*Number classes from 0",
        ),
        (lambda: Labelled.of(torch.zeros(4, 2), torch.eye(4).long()), r"one-hot rows .* y\.argmax\(-1\)"),
    ],
)
def test_numbers_of_the_wrong_kind(unchecked, make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_numbers_of_numpy_are_numbers(unchecked):
    assert maml(steps=np.int64(2), rate=np.float32(0.1)).steps == 2
    assert Shots(shots=np.int64(2)).most_shots == 2  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, r"threads=0; expected a whole number, 1 or more"),
        ({"steps": 2.0}, r"steps=2\.0; expected a whole number, 0 or more"),
        ({"steps": "2"}, r"steps='2'; expected"),
        ({"seed": None}, r"seed=None; expected"),
        ({"rate": "0.1"}, r"rate='0\.1', .*expected a rate above 0"),
        ({"warmup": -1}, r"warmup=-1; expected"),
    ],
)
def test_settings_of_a_run(unchecked, settings, message):
    with pytest.raises(ModelError, match=message):
        train(maml(), **settings)


@pytest.mark.parametrize("learner", [MAML, nn.Linear(6, 3), None])
def test_what_is_no_learner(unchecked, learner):
    with pytest.raises(ModelError, match=r"The learner is .*; expected one, such as MAML\("):
        train(learner)


class Bag(nn.Module):
    """Its layer has a first derivative alone."""

    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(9, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.bag(x.abs().long().clamp(max=8)))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # under vmap, says torch
def test_a_layer_that_can_not_be_differentiated_twice():
    learner = maml(net=Bag())
    with pytest.raises(ModelError, match=r"can't differentiate a layer .*second_order=False"):
        meta_gradient(learner, learner.init(0), blobs())
    first = maml(net=Bag(), second_order=False)
    assert meta_gradient(first, first.init(0), blobs())[0] > 0


def test_a_lazy_layer_is_run_once_first():
    net = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ModelError, match=r"'0\.weight' has no shape yet\. Run it once"):
        train(maml(net=net))
    net(torch.zeros(1, 6))
    assert len(train(maml(net=net))) == 1


def test_a_frozen_network_and_a_row_too_few_dimensions():
    with pytest.raises(ModelError, match=r"every parameter of its network is frozen"):
        train(maml(net=nn.Linear(6, 3).requires_grad_(False)))
    learner = maml(net=nn.Linear(1, 3))
    with pytest.raises(ModelError, match=r"x\.unsqueeze\(-1\)"):
        adapt(learner, learner.init(0), Labelled.of(torch.randn(6), torch.arange(6) % 3))
    reads = MAML(objective=Regress(dim=1), net=nn.Linear(6, 1))
    with pytest.raises(DataError, match=r"\[1, 4, 1\]: y\.unsqueeze\(-1\)"):
        adapt(reads, reads.init(0), Labelled.of(torch.randn(4, 6), torch.randn(4)))


class Nowhere(Family):
    """Its tasks have no environment."""

    def draw(self, number, seed):
        return [0] * number

    def make(self, task):
        return None  # pyright: ignore[reportReturnType]


def test_a_family_without_environments_and_an_outer_loop_that_is_none(unchecked):
    policy = MAML(**actor(family := Bandits(arms=2)), steps=1)
    with pytest.raises(DataError, match=r"Nowhere\.make gives a NoneType"):
        actor(Nowhere())
    with pytest.raises(
        DataError, match=r"Nowhere\.make gives a NoneType for task 0; expected a gymnasium\.Env"
    ):
        next(meta_train_policy(policy, Nowhere(), steps=1, sampling=Sampling(tasks=2, trajectories=2)))
    with pytest.raises(ModelError, match=r"outer='ppo'; expected TRPO\(…\) or PPO\(…\), or None"):
        next(meta_train_policy(policy, family, steps=1, outer="ppo"))


@dataclass(frozen=True, kw_only=True)
class ByFunctionalGradients(NetLearner):
    """An inner loop as users of other libraries write it."""

    objective: Classify = THREE

    paper: ClassVar[str] = "none"

    def adapt(self, meta, support):
        slope = torch.func.grad(lambda weights: self.support_loss(weights, support))(dict(meta))
        return self.adapted({name: weight - 0.5 * slope[name] for name, weight in meta.items()}, support)


@dataclass(frozen=True, kw_only=True)
class WithoutSayingSo(NetLearner):
    """It takes inner steps, and doesn't say that it has an inner loop."""

    objective: Classify = THREE

    paper: ClassVar[str] = "none"

    def adapt(self, meta, support):
        return self.adapted(
            descend(self.support_loss, meta, support, steps=1, rate=0.1, second_order=True), support
        )


@pytest.mark.parametrize("norm", [nn.LayerNorm, lambda n: nn.BatchNorm1d(n, track_running_stats=False)])
def test_a_gradient_that_would_be_wrong_is_refused(norm):
    learner = ByFunctionalGradients(net=nn.Sequential(nn.Linear(6, 5), norm(5), nn.Linear(5, 3)))
    with pytest.raises(ModelError, match=r"torch\.func\.grad .* would be wrong.* inner_loop = True"):
        meta_gradient(learner, learner.init(0), blobs())
    plain = ByFunctionalGradients(net=nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))
    by_form = [meta_gradient(plain, plain.init(0), blobs(), form=form)[1] for form in ("stacked", "loop")]
    for name, value in by_form[0].items():
        assert torch.allclose(value, by_form[1][name], atol=1e-6)


def test_an_inner_loop_that_is_not_declared_is_named():
    learner = WithoutSayingSo(net=nn.Linear(6, 3))
    with pytest.raises(ModelError, match=r"no gradient to follow: tasks are mapped over.*inner_loop = True"):
        meta_gradient(learner, learner.init(0), blobs())
    with torch.inference_mode(), pytest.raises(ModelError, match=r"inference_mode\(\) is on"):
        evaluate(maml(), maml().init(0), [blobs()])


@pytest.mark.parametrize("meta", [{}, {"0.weight": torch.zeros(3, 6)}, {"a": torch.ones(3)}, nn.Linear(6, 3)])
def test_a_meta_of_another_learner_is_refused_at_every_door(unchecked, meta):
    learner = maml(net=nn.Sequential(nn.Linear(6, 3)))
    for ask in (
        lambda: adapt(learner, meta, blobs().support),
        lambda: meta_gradient(learner, meta, blobs()),
        lambda: evaluate(learner, meta, [blobs()]),
        lambda: train(learner, meta=meta),
    ):
        with pytest.raises(ModelError, match=r"missing|has no tensor|What MAML knows"):
            ask()


class Scaled(nn.Module):
    """A parameter without dimensions."""

    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(6, 3), nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.scale * self.linear(x)


@pytest.mark.parametrize("kind", [LearnedMomentum, MAMLPlusPlus, MetaSGD])
def test_a_parameter_without_dimensions(kind):
    learner = kind(objective=THREE, net=Scaled())
    meta = train(learner)[-1].meta
    fast = adapt(learner, meta, blobs().support.taken(0))
    assert fast["net.scale"].shape == ()


def test_ridge_in_bfloat16():
    learner = Ridge(objective=THREE, net=nn.Linear(6, 4).bfloat16())
    half = blobs()
    half = half._replace(
        **{name: part._replace(x=part.x.bfloat16()) for name, part in half._asdict().items()}
    )
    assert evaluate(learner, learner.init(0), [half]).score.mean() > 40


def test_a_learner_without_gradients_says_so():
    with pytest.raises(ModelError, match="Centroid learns nothing by gradient; use it as it is"):
        train(Centroid(objective=THREE))


def test_everything_is_computed_where_the_tensors_are():
    """On torch's device for shapes: what is made on the CPU instead doesn't go with the rest."""
    support = Labelled(torch.empty(2, 8, 6), torch.empty(2, 8, 1), torch.ones(2, 8, dtype=torch.bool))
    there = Labelled(*(t.to("meta") for t in support))
    assert Regress(dim=1).present(there).device.type == "meta"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda d: d.split((0.5, 0.1, 0.1)), "three shares that sum to 1"),
        (lambda d: d.split((0.8, 0.2)), "three shares"),
        (lambda d: d.split((float("nan"), 0.5, 0.5)), "three shares"),
        (lambda d: d.split(seed=-1), "seed=-1"),
        (lambda d: d.sampler(5), "expected Shots"),
        (lambda d: d.sampler(Shots(ways=2, shots=1, queries=1), seed=-1), "seed=-1"),
        (lambda d: d.sampler(Shots(ways=2, shots=1, queries=1), odds={"a": 1.0}), "a number for each of"),
        (lambda d: d.only(["c1"]), "no class number 'c1'; there are 0 to 5"),
        (lambda d: d.only([99]), "no class number 99"),
        (lambda d: replace(d, names=torch.zeros(2, 3)), "6 classes but 2 names"),
        (lambda d: Shots(name_share=2.0), "share from 0 to 1"),
        (lambda d: Shots(groups=0), "groups=0"),
    ],
)
def test_data_sets_and_shots(unchecked, ask, message):
    data = MetaDataset(torch.randn(24, 3), torch.arange(24) % 6, tuple("abcdef"))
    with pytest.raises(DataError, match=message):
        ask(data)


def test_an_episode_of_arrays():
    pair = (np.zeros((4, 3, 6), np.float32), np.zeros((4, 3), np.int64))
    wrong = Episode(pair, pair)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=r"aren't Labelled tensors; Labelled\.of\(x, y\)"):
        list(meta_train(maml(), lambda step: wrong, steps=1))


def test_a_state_that_says_something_else():
    step = train(maml())[0].state()
    step.record["made"] = 5
    with pytest.raises(CheckpointError, match="it is damaged"):
        train(maml(), resume=step, steps=2)
