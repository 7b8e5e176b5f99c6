"""One suite that every learner passes. A new learner joins by one line in LEARNERS."""

import ast
import inspect
import json
import math
import re
import sys
import threading
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import Words, blob_sampler, blobs, one, sentences, sinusoids, with_garbage

import quickstudy.learners
from quickstudy.core.adapted import Adapted
from quickstudy.core.engine import adapt, evaluate, meta_gradient, meta_train, outputs, predict, task_losses
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.explain import held_out, influence, leave_one_out
from quickstudy.core.learner import MetaLearner
from quickstudy.core.net import NetSpec
from quickstudy.core.objective import Classify, Regress
from quickstudy.core.spec import Spec
from quickstudy.learners import (
    ANIL,
    BOIL,
    CAVIA,
    GE2E,
    IMAML,
    LEO,
    MAML,
    BayesianRidge,
    Centroid,
    DeepKernel,
    FineTune,
    Gaussian,
    LearnedMomentum,
    LearnedOptimiser,
    Logistic,
    LogisticHead,
    MAMLPlusPlus,
    Matching,
    MatchingFCE,
    MetaCurvature,
    MetaLSTM,
    MetaOptNet,
    MetaR,
    MetaSGD,
    NeuralProcess,
    Pool,
    Pretrained,
    ProtoMAML,
    Prototypical,
    RelationNet,
    Reptile,
    Ridge,
    Siamese,
    SimpleShot,
    SoftKMeans,
)
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
DIM, WAYS, EMBEDDING = 6, 3, 5


@dataclass(frozen=True)
class Setting:
    """How to build a learner for toy tasks of DIM features, and what to expect of it."""

    kind: type[MetaLearner]
    net: str = ""
    """"outputs" for a net that gives an output per class, "embedding" for one that gives features, "" for none."""
    fields: dict[str, Any] = field(default_factory=dict)
    regress: dict[str, Any] | None = None
    """Which fields differ for regression; None if it can't regress."""
    layers: dict[str, Any] = field(default_factory=lambda: {"hidden": (12,), "activation": "tanh"})
    steps: int = 40
    rate: float = 0.02
    """Of meta-training."""
    tolerance: float = 1e-9
    """Of outputs that ought to be equal but are computed in another order."""
    offset: float = 0.0
    """What all features of all past and new tasks have in common, where that is what there is to learn."""

    def build(self, objective=None, **changes) -> MetaLearner:
        objective = objective or Classify(ways=WAYS)
        inputs = changes.pop("inputs", 1 if isinstance(objective, Regress) else DIM)
        fields = self.fields | ((self.regress or {}) if isinstance(objective, Regress) else {})
        if self.net:
            outputs = objective.outputs if self.net == "outputs" else EMBEDDING
            inside = inputs + fields.get("context", 0)  # CAVIA's net sees the context beside the inputs
            fields["net"] = MLP(inputs=inside, outputs=outputs, **self.layers)
        if "dim" in fields:
            fields["dim"] = inputs
        if self.kind is RelationNet:  # joins a query's embedding to one of the support, or to two
            joined = (3 if isinstance(objective, Regress) else 2) * EMBEDDING
            fields["relation"] = MLP(inputs=joined, outputs=1, hidden=(32, 32))
        if self.kind is Pool:
            net = MLP(inputs=inputs, outputs=EMBEDDING, **self.layers)
            kinds = (Prototypical(objective=objective, net=net), Ridge(objective=objective, net=net))
            fields["members"] = (*kinds, Centroid(objective=objective))
        if self.kind is MetaR:
            half = MLP(inputs=inputs // 2, outputs=8, **self.layers)
            fields |= {"head": half, "tail": half, "relation": MLP(inputs=16, outputs=8, hidden=(32,))}
        if self.kind is NeuralProcess:
            k, numbers = objective.outputs, isinstance(objective, Regress)
            deep, read, told, asked = ((32,), k, 8, 2 * k) if numbers else ((), 0, 8 * k, k)
            fields["encoder"] = MLP(inputs=inputs + read, outputs=8, hidden=deep)
            fields["decoder"] = MLP(inputs=inputs + told, outputs=asked, hidden=(64,))
        return self.kind(objective=objective, **fields, **changes)


LEARNERS = {
    "ANIL": Setting(ANIL, "outputs", {"steps": 3, "rate": 0.3}, regress={"rate": 0.05}),
    "BayesianRidge": Setting(BayesianRidge, "embedding", {"width": EMBEDDING}, regress={}),
    "BOIL": Setting(BOIL, "outputs", {"steps": 3, "rate": 0.5}, regress={"rate": 0.05}, steps=60),
    "CAVIA": Setting(
        # A few numbers turn a shared network into any task's: this takes gentle and longer training, and wider layers.
        CAVIA,
        "outputs",
        {"steps": 4, "context": 16, "rate": 10.0},
        regress={"steps": 2, "rate": 0.5},
        layers={"hidden": (32,), "activation": "relu"},
        steps=300,
        rate=0.005,
    ),
    "Centroid": Setting(Centroid),
    "DeepKernel": Setting(DeepKernel, "embedding", regress={}),
    "FineTune": Setting(FineTune, "outputs", {"steps": 20, "rate": 0.5}, regress={"steps": 60, "rate": 0.1}),
    "Gaussian": Setting(Gaussian, fields={"dim": DIM}),
    "GE2E": Setting(GE2E, "embedding", {"temperature": 0.3}),
    "IMAML": Setting(
        IMAML,
        "outputs",
        {"steps": 6, "rate": 0.3, "strength": 0.5, "solver_steps": 3},
        regress={"rate": 0.05},
    ),
    "LearnedMomentum": Setting(LearnedMomentum, "outputs", {"rate": 0.5}, regress={"rate": 0.1}),
    "LearnedOptimiser": Setting(LearnedOptimiser, "outputs", {"hidden": 8, "scale": 0.1}, regress={}),
    "LEO": Setting(LEO, fields={"dim": DIM, "latent": 8}),
    "Logistic": Setting(Logistic, tolerance=1e-3),  # scikit-learn stops when the gradient is below 1e-4
    "LogisticHead": Setting(LogisticHead, "embedding", {"steps": 12}),
    "MAML": Setting(MAML, "outputs", {"steps": 3, "rate": 0.3}, regress={"rate": 0.05}),
    "MAMLPlusPlus": Setting(
        MAMLPlusPlus, "outputs", {"steps": 3, "rate": 0.3, "importance": 0.6}, regress={"rate": 0.05}
    ),
    "MetaCurvature": Setting(MetaCurvature, "outputs", {"steps": 3, "rate": 0.3}, regress={"rate": 0.05}),
    "MetaSGD": Setting(
        MetaSGD, "outputs", {"steps": 3, "least": 0.2, "most": 0.4}, regress={"least": 0.05, "most": 0.05}
    ),
    "MetaLSTM": Setting(MetaLSTM, "outputs", {"hidden": 8, "rate": 0.3}, regress={"rate": 0.05}),
    "Matching": Setting(Matching, "embedding", regress={}),
    "MatchingFCE": Setting(MatchingFCE, "embedding", {"width": EMBEDDING, "reads": 2}, regress={}),
    "MetaOptNet": Setting(MetaOptNet, "embedding", {"steps": 16}),
    "MetaR": Setting(MetaR, steps=120, rate=0.01),
    "NeuralProcess": Setting(NeuralProcess, regress={}, steps=150, rate=0.01),
    "Pool": Setting(Pool, fields={"weights": (1.0, 0.5, 2.0)}),
    "Pretrained": Setting(Pretrained, "embedding", regress={}),
    "ProtoMAML": Setting(ProtoMAML, "embedding", {"steps": 3}),
    "Prototypical": Setting(Prototypical, "embedding"),
    "RelationNet": Setting(RelationNet, "embedding", regress={}, steps=120, rate=0.01),
    "Reptile": Setting(Reptile, "outputs", {"steps": 5, "rate": 0.3}, regress={"rate": 0.05}, steps=60),
    "Ridge": Setting(Ridge, "embedding", regress={}),
    "Siamese": Setting(Siamese, "embedding", {"width": EMBEDDING}, steps=80),
    "SimpleShot": Setting(SimpleShot, fields={"dim": DIM, "scale": 3.0}, offset=2.0),
    "SoftKMeans": Setting(SoftKMeans, "embedding", steps=80),
}

every = pytest.mark.parametrize("name", LEARNERS)
trained_by_gradient = pytest.mark.parametrize(
    "name", [name for name, s in LEARNERS.items() if (learner := s.build()).trainable(learner.init(0))]
)
regressing = pytest.mark.parametrize("name", [name for name, s in LEARNERS.items() if s.regress is not None])


@cache
def experienced(name):
    """What a learner knows after a few batches of toy tasks, by whatever way it learns."""
    setting = LEARNERS[name]
    learner = setting.build()
    meta = learner.init(0)
    if hasattr(learner, "estimate"):
        shape = {"tasks": 1, "ways": 12, "shots": 12, "dim": DIM, "offset": setting.offset}
        tasks = [blobs(**shape, seed=900 + i).support for i in range(4)]
        meta = {k: v.to(torch.float64) for k, v in learner.estimate([first(task) for task in tasks]).items()}
    if learner.trainable(meta):
        sample = blob_sampler(tasks=8, ways=WAYS, shots=3, dim=DIM)
        for step in meta_train(learner, sample, steps=setting.steps, rate=setting.rate, meta=meta):
            meta = step.meta
    return meta


def first(part: Labelled) -> Labelled:
    return Labelled(*(t[0] for t in part))


def adapted(learner, meta, episode: Episode) -> Tensor:
    return predict(learner, meta, adapt(learner, meta, episode.support), episode.query.x)


def same(a, b) -> bool:
    """Equal bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- Nobody is left out


def concrete():
    return [
        kind
        for kind in Spec.registry.values()
        if issubclass(kind, MetaLearner) and not inspect.isabstract(kind)
    ]


def test_every_learner_is_in_the_table_and_public():
    ours = {kind.__name__ for kind in concrete() if kind.__module__.startswith("quickstudy.")}
    assert ours == set(LEARNERS)
    assert ours == set(quickstudy.learners.__all__)
    assert all(LEARNERS[name].kind is getattr(quickstudy.learners, name) for name in ours)


@every
def test_it_is_short_and_says_where_it_comes_from(name):
    module = sys.modules[LEARNERS[name].kind.__module__]
    source, doc = inspect.getsource(module), module.__doc__
    reference = r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+|OpenReview:\S+|JMLR|https://\S+\.pdf"
    assert re.search(reference, LEARNERS[name].kind.paper)
    assert re.search(reference + "|ECCV", doc)
    assert re.search(r"\n    \S.*([=∝←~]|min|max)", doc), "a formula, indented"
    assert lines_of_code(source) <= 90


def lines_of_code(source: str) -> int:
    """Lines that are neither blank, comment nor docstring (of a class, function or field)."""
    told = set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            told.update(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in told for n, line in lines)


# -- JSON


@every
def test_it_survives_json(name):
    learner = LEARNERS[name].build()
    assert Spec.from_json(json.loads(json.dumps(learner.to_json()))) == learner


@every
@pytest.mark.parametrize(
    "change",
    [
        {"type": "os.system"},
        {"type": "Lerner"},
        {"objective": "Classify"},
        {"objective": {"type": "MLP", "inputs": 1, "outputs": 1}},
        {"objective": None},
        {"surprise": 1},
        {"objective": {"type": "Classify", "ways": "many"}},
        {"objective": {"type": "Classify", "ways": 3, "surprise": 1}},
    ],
    ids=str,
)
def test_json_that_means_something_else_is_refused(name, change):
    with pytest.raises(DataError):
        Spec.from_json({**LEARNERS[name].build().to_json(), **change})


@every
def test_every_field_is_checked(name):
    record = LEARNERS[name].build().to_json()
    for key in record.keys() - {"type"}:
        for wrong in ({"type": "Regress"}, [1, 2], "text"):
            if key == "objective" and wrong == {"type": "Regress"} and LEARNERS[name].regress is not None:
                continue
            with pytest.raises(DataError):
                Spec.from_json({**record, key: wrong})


# -- Purity


@every
def test_the_same_seed_gives_the_same_and_inputs_stay_as_they_were(name):
    learner, episodes = LEARNERS[name].build(), blobs(dim=DIM)
    meta, again = learner.init(3), learner.init(3)
    assert same(meta, again)
    before = [t.clone() for part in episodes for t in part]
    results = [outputs(learner, meta, episodes) for _ in range(2)]
    losses = [task_losses(learner, meta, episodes, seed=1) for _ in range(2)]
    single = [adapted(learner, meta, one(episodes, 0)) for _ in range(2)]
    fast = adapt(learner, meta, one(episodes, 0).support)
    kept = {k: v.clone() for k, v in fast.items()}
    twice = [predict(learner, meta, fast, episodes.query.x[0]) for _ in range(2)]
    for pair in (results, losses, single, twice):
        assert torch.equal(*pair)
    assert same(fast, kept)
    assert same(meta, again)
    assert all(map(torch.equal, before, [t for part in episodes for t in part]))
    assert not any(t.requires_grad for t in (*results, *fast.values()))


@every
def test_two_threads_share_one_learner(name):
    learner = LEARNERS[name].build()
    metas = [learner.init(0), {k: v + 0.5 for k, v in learner.init(1).items()}]
    tasks = [one(blobs(dim=DIM, seed=seed), 0) for seed in (5, 6)]
    alone = [adapted(learner, meta, task) for meta, task in zip(metas, tasks, strict=True)]
    wrong, started = [], threading.Barrier(2)

    def work(i):
        started.wait()
        try:
            for _ in range(8):
                if not torch.equal(adapted(learner, metas[i], tasks[i]), alone[i]):
                    wrong.append("another thread's answer")
        except Exception as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # as many switches between the threads as there can be
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


# -- Symmetries


@every
def test_many_tasks_at_once_are_one_at_a_time(name):
    setting = LEARNERS[name]
    learner, episodes = setting.build(), blobs(dim=DIM)
    meta = learner.init(0)
    together = outputs(learner, meta, episodes)
    alone = torch.stack([adapted(learner, meta, one(episodes, i)) for i in range(len(together))])
    assert torch.allclose(together, alone, atol=1e-9)
    fast = adapt(learner, meta, episodes.support)
    assert torch.allclose(predict(learner, meta, fast, episodes.query.x, many=True), together, atol=1e-9)
    losses = task_losses(learner, meta, episodes)
    each = [task_losses(learner, meta, stack([one(episodes, i)])) for i in range(len(together))]
    assert torch.allclose(losses, torch.cat(each), atol=1e-9)


@every
def test_padding_changes_nothing(name):
    setting = LEARNERS[name]
    learner, episodes = setting.build(), blobs(dim=DIM)
    meta = learner.init(0)
    rows = len(episodes.query.mask[0])
    # Padding may stand anywhere, not only at the end; real rows keep their order, which matters to some.
    real = len(episodes.support.mask[0])
    place = torch.randperm(real + 3, generator=torch.Generator().manual_seed(0))
    order = torch.cat([place[:real].sort().values, place[real:]]).argsort()
    support = Labelled(*(t[:, order] for t in with_garbage(episodes.support, 3)))
    padded = Episode(support, with_garbage(episodes.query, 2))
    assert torch.allclose(
        outputs(learner, meta, padded)[:, :rows], outputs(learner, meta, episodes), atol=setting.tolerance
    )
    single = learner.adapt(meta, Labelled(*(t[0] for t in support)))
    expected = adapted(learner, meta, one(episodes, 0))
    assert torch.allclose(
        predict(learner, meta, single, episodes.query.x[0]), expected, atol=setting.tolerance
    )
    losses = task_losses(learner, meta, episodes)
    assert torch.allclose(task_losses(learner, meta, padded), losses, atol=setting.tolerance)
    if learner.trainable(meta):
        _, gradient = meta_gradient(learner, meta, padded)
        _, expected = meta_gradient(learner, meta, episodes)
        assert all(torch.allclose(gradient[k], expected[k], atol=1e-9) for k in expected)


@every
@pytest.mark.parametrize("held", [math.nan, math.inf, 1e300], ids=str)
def test_padding_may_hold_anything(name, held):
    setting = LEARNERS[name]
    learner, episodes = setting.build(), blobs(dim=DIM)
    meta = learner.init(0)
    rows = len(episodes.query.mask[0])
    padded = Episode(with_garbage(episodes.support, 2), with_garbage(episodes.query, 1))
    for part in padded:
        part.x[~part.mask] = held
        part.y[~part.mask] = -100  # what other libraries write there; no class has this number
    assert torch.allclose(
        outputs(learner, meta, padded)[:, :rows], outputs(learner, meta, episodes), atol=setting.tolerance
    )
    single = Labelled(*(t[0] for t in padded.support))
    expected = adapted(learner, meta, one(episodes, 0))
    assert torch.allclose(
        predict(learner, meta, adapt(learner, meta, single), episodes.query.x[0]),
        expected,
        atol=setting.tolerance,
    )
    losses, scores = task_losses(learner, meta, episodes), evaluate(learner, meta, [episodes])
    assert torch.allclose(task_losses(learner, meta, padded), losses, atol=setting.tolerance)
    for found, true in zip(evaluate(learner, meta, [padded]), scores, strict=True):
        assert torch.allclose(found, true, atol=setting.tolerance)
    without = leave_one_out(learner, meta, single, episodes.query.x[0])[single.mask]
    alone = leave_one_out(learner, meta, one(episodes, 0).support, episodes.query.x[0])
    assert torch.allclose(without, alone, atol=setting.tolerance)
    effects = influence(learner, meta, single, episodes.query.x[0, 0], 0)[single.mask]
    alone = influence(learner, meta, one(episodes, 0).support, episodes.query.x[0, 0], 0)
    assert torch.allclose(effects, alone, atol=setting.tolerance)
    if learner.trainable(meta):
        for form in ("auto", "loop"):
            _, gradient = meta_gradient(learner, meta, padded, form=form)
            _, expected = meta_gradient(learner, meta, episodes, form=form)
            assert all(torch.allclose(gradient[k], expected[k], atol=1e-9) for k in expected)


@every
def test_ragged_tasks_in_one_batch_are_what_they_are_alone(name):
    setting = LEARNERS[name]
    learner = setting.build()
    meta = learner.init(0)
    tasks = [
        one(blobs(dim=DIM, ways=w, shots=k, queries=q, seed=w + k), 0)
        for w, k, q in [(3, 2, 1), (2, 5, 4), (1, 1, 2)]
    ]
    together = outputs(learner, meta, stack(tasks))
    for i, task in enumerate(tasks):
        alone = adapted(learner, meta, task)
        assert torch.allclose(together[i, : len(alone)], alone, atol=setting.tolerance)
    assert torch.isfinite(task_losses(learner, meta, stack(tasks))).all()


@every
def test_the_order_of_the_support_changes_nothing(name):
    setting = LEARNERS[name]
    learner, task = setting.build(), one(blobs(dim=DIM), 0)
    meta = learner.init(0)
    order = torch.randperm(len(task.support.mask), generator=torch.Generator().manual_seed(1))
    shuffled = Episode(Labelled(*(t[order] for t in task.support)), task.query)
    unchanged = torch.allclose(
        adapted(learner, meta, shuffled), adapted(learner, meta, task), atol=setting.tolerance
    )
    assert unchanged == ("order" in learner.symmetric)  # who says that the order matters must mean it


@every
def test_what_else_is_asked_changes_nothing(name):
    setting = LEARNERS[name]
    learner, task = setting.build(), one(blobs(dim=DIM), 0)
    meta = learner.init(0)
    fast = adapt(learner, meta, task.support)
    together, alone = (predict(learner, meta, fast, x)[:1] for x in (task.query.x, task.query.x[:1]))
    assert torch.allclose(alone, together, atol=setting.tolerance) == (not learner.transductive)


@pytest.mark.parametrize("name", [n for n in LEARNERS if "labels" in LEARNERS[n].build().symmetric])
def test_numbering_the_classes_anew_permutes_the_outputs(name):
    setting = LEARNERS[name]
    learner, task = setting.build(), one(blobs(dim=DIM), 0)
    meta = learner.init(0)
    new = torch.tensor([2, 0, 1])
    renumbered = Episode(task.support._replace(y=new[task.support.y]), task.query)
    assert torch.allclose(
        adapted(learner, meta, renumbered)[:, new], adapted(learner, meta, task), atol=setting.tolerance
    )


@every
def test_a_row_may_describe_a_class_only_where_that_changes_something(name):
    learner, meta = LEARNERS[name].build(), experienced(name)
    episode = blobs(tasks=2, ways=WAYS, shots=3, queries=4, dim=DIM, offset=LEARNERS[name].offset)
    y = episode.support.y.clone()
    y[:, -1] += WAYS
    told = episode._replace(support=episode.support._replace(y=y))
    if name not in (
        "Gaussian",
        "Logistic",
    ):  # a pool reads it where all its members do; one here is a centroid
        with pytest.raises(DataError, match=rf"class number {int(y[0].max())}; Classify"):
            outputs(learner, meta, told)
    else:
        left_out = episode._replace(support=episode.support._replace(mask=y < WAYS))
        assert not torch.equal(outputs(learner, meta, told), outputs(learner, meta, left_out))
    with pytest.raises(DataError, match="class number"):
        outputs(learner, meta, episode._replace(support=told.support._replace(y=y + WAYS)))


@every
@pytest.mark.parametrize("present", [(0, 1), (1, 2), (2,)], ids=str)
def test_a_class_that_the_support_lacks_gets_no_probability(name, present):
    learner = LEARNERS[name].build()
    meta = experienced(name) if name == "Gaussian" else learner.init(0)
    episodes = blobs(dim=DIM, ways=len(present))
    numbers = torch.tensor(present)
    support = episodes.support._replace(y=numbers[episodes.support.y])
    support = with_garbage(support, 2)
    support.y[:, -1] = next(c for c in range(WAYS) if c not in present)  # masked: it must not count
    query = episodes.query._replace(y=numbers[episodes.query.y])
    probability = torch.softmax(outputs(learner, meta, Episode(support, query)), -1)
    absent = [c for c in range(WAYS) if c not in present]
    assert (probability[..., absent] == 0).all()
    assert torch.allclose(probability.sum(-1), torch.ones(()))
    alone = torch.softmax(adapted(learner, meta, one(Episode(support, query), 0)), -1)
    assert (alone[..., absent] == 0).all()


# -- It learns


@every
def test_experience_lowers_the_loss_and_answers_are_far_above_chance(name):
    learner = LEARNERS[name].build()
    offset = LEARNERS[name].offset
    unseen = [blobs(tasks=40, ways=WAYS, shots=3, dim=DIM, seed=77, offset=offset)]
    naive = evaluate(learner, learner.init(0), unseen)
    meta = experienced(name)
    after = evaluate(learner, meta, unseen)
    if learner.trainable(learner.init(0)) or hasattr(learner, "estimate"):
        assert after.loss.mean() < naive.loss.mean()
        assert after.score.mean() > naive.score.mean()
    assert after.score.mean() > 100 / WAYS + 35


@pytest.mark.parametrize("name", [name for name, setting in LEARNERS.items() if setting.net])
def test_networks_in_double_precision(name):
    torch.set_default_dtype(torch.float32)
    spec, episodes = LEARNERS[name].build(), blobs(dim=DIM)
    nets = [field.name for field in fields(spec) if isinstance(getattr(spec, field.name), NetSpec)]
    learner = replace(spec, **{name: getattr(spec, name).build().double() for name in nets})
    meta = learner.init(0)
    learner.check(meta)  # which makes one without memory
    assert all(value.dtype == torch.float64 for value in meta.values() if value.ndim)
    double = Episode(*(part._replace(x=part.x.double()) for part in episodes))
    assert outputs(learner, meta, double).dtype == torch.float64
    if learner.trainable(meta):
        assert all(g.isfinite().all() for g in meta_gradient(learner, meta, double)[1].values())


@trained_by_gradient
def test_it_trains_in_every_form_alike(name):
    learner, episodes = LEARNERS[name].build(), blobs(dim=DIM)
    meta = learner.init(0)
    expected_loss, expected = meta_gradient(learner, meta, episodes, form="loop")
    loss, gradient = meta_gradient(learner, meta, episodes)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert all(torch.allclose(gradient[k], expected[k], rtol=1e-10, atol=1e-12) for k in expected)
    assert gradient.keys() == set(learner.trainable(meta))
    assert any(float(g.abs().max()) > 1e-6 for g in gradient.values())


def test_a_learner_without_anything_to_train_says_so():
    learner = LEARNERS["Centroid"].build()
    with pytest.raises(ModelError, match="Centroid learns nothing by gradient"):
        next(meta_train(learner, blob_sampler(), steps=1))


@regressing
def test_it_regresses(name):
    setting = LEARNERS[name]
    learner = setting.build(Regress(dim=1))
    meta = learner.init(0)
    if learner.trainable(meta):
        for step in meta_train(learner, lambda k: sinusoids(tasks=8, seed=1000 + k), steps=80, rate=0.03):
            meta = step.meta
    unseen = sinusoids(tasks=40, seed=5)
    error = evaluate(learner, meta, [unseen]).loss.mean()
    zero = unseen.query.y.pow(2).mean()  # what saying 0 costs
    assert error < 0.85 * zero
    # Padding and a single task give the same here too.
    padded = Episode(with_garbage(unseen.support, 2), unseen.query)
    assert torch.allclose(outputs(learner, meta, padded), outputs(learner, meta, unseen), atol=1e-8)
    alone = adapted(learner, meta, one(unseen, 0))
    assert torch.allclose(alone, outputs(learner, meta, unseen)[0], atol=1e-8)


# -- It explains itself


@every
def test_leaving_out_finds_the_row_with_the_wrong_label(name):
    learner = LEARNERS[name].build()
    meta = experienced(name)
    found = 0
    for seed in range(6):
        task = one(blobs(tasks=1, ways=WAYS, shots=4, dim=DIM, noise=0.15, seed=200 + seed), 0)
        true = task.support.y[0].item()
        y = task.support.y.clone()
        y[0] = (true + 1) % WAYS  # mislabelled
        # An item that looks like it: the wrong label is what spoke most against its class.
        x = task.support.x[0] + 0.05
        found += int(influence(learner, meta, task.support._replace(y=y), x, true).argmin()) == 0
    assert found >= 5


@every
def test_leaving_out_is_adapting_without_the_row(name):
    setting = LEARNERS[name]
    learner, task = setting.build(), one(blobs(dim=DIM, shots=3), 0)
    meta = learner.init(0)
    without = leave_one_out(learner, meta, task.support, task.query.x, chunk=4)
    held = held_out(learner, meta, task.support, torch.arange(len(task.support.mask)))
    for i in range(len(task.support.mask)):
        rest = Labelled(*(torch.cat([t[:i], t[i + 1 :]]) for t in task.support))
        fast = adapt(learner, meta, rest)
        assert torch.allclose(without[i], predict(learner, meta, fast, task.query.x), atol=setting.tolerance)
        row = task.support.x[i : i + 1]
        assert torch.allclose(held[i], predict(learner, meta, fast, row)[0], atol=setting.tolerance)


# -- It lives in a folder


@every
def test_what_was_saved_answers_bit_for_bit_the_same(name, tmp_path):
    torch.set_default_dtype(torch.float32)
    learner = LEARNERS[name].build(inputs=Words.dim)
    task = sentences()
    model = Adapted.learn(learner, learner.init(0), task, Words())
    model.save(tmp_path / "model")
    again = Adapted.load(tmp_path / "model", Words())
    asked = [*task.query, "an unseen sentence"]
    assert again.predict(asked) == model.predict(asked)
    assert again.explain(asked[0]) == model.explain(asked[0])
    assert again.learner == learner
    assert same(again.fast, model.fast)
    assert same(again.meta, model.meta)
