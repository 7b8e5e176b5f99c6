"""Metric learners against their papers' formulas in plain loops: one task, one row, one class at a time, in float64.

The oracles share no code with the learners: networks are written out for a single row, padded rows are cut away
and not masked, recurrent cells are torch's own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor, nn
from torch.func import functional_call
from toy import blobs, one

from quickstudy.core.engine import adapt, meta_gradient, outputs, predict, task_losses
from quickstudy.core.episode import Episode, Labelled, stack
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.explain import held_out, influence, log_odds
from quickstudy.core.forms import choose_form
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classify, Regress
from quickstudy.learners import (
    Matching,
    MatchingFCE,
    Pool,
    Prototypical,
    RelationNet,
    Siamese,
    SimpleShot,
    SoftKMeans,
)
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
EXACT, DIM, WAYS, WIDTH = 1e-12, 4, 3, 5
CLASSIFY, REGRESS = Classify(ways=WAYS), Regress(dim=2)
NORMS = ("none", "layer")


# -- The tasks: ragged, uneven, padding anywhere and full of nonsense


def scattered(part: Labelled, seed: int) -> Labelled:
    """One task with three rows of padding among its rows, which keep their order."""
    rows = len(part.mask)
    draw = torch.Generator().manual_seed(seed)
    place = torch.randperm(rows + 3, generator=draw)[:rows].sort().values
    x, y = torch.full((rows + 3, DIM), math.nan), part.y.new_full((rows + 3, *part.y.shape[1:]), 1)
    mask = torch.zeros(rows + 3, dtype=torch.bool)
    x[place], y[place], mask[place] = part.x, part.y, True
    return Labelled(x, y, mask)


def tasks(regress: bool) -> list[Episode]:
    """Three tasks without padding; the second lacks class 1, and the third has uneven classes."""
    draw = torch.Generator().manual_seed(0)
    support = [[0, 1, 2, 0, 1, 2], [2, 0, 0, 2], [1, 0, 1, 1, 2, 1, 0]]
    query = [[2, 0, 1, 1], [0, 2], [0, 1, 2, 2, 1]]

    def part(numbers: list[int]) -> Labelled:
        y = torch.tensor(numbers)
        x = torch.randn(len(y), DIM, generator=draw) + torch.eye(WAYS, DIM)[y]
        return Labelled.of(x, torch.randn(len(y), 2, generator=draw) if regress else y)

    return [Episode(part(s), part(q)) for s, q in zip(support, query, strict=True)]


def padded(episodes: list[Episode]) -> Episode:
    return stack(
        [Episode(scattered(e.support, i), scattered(e.query, 9 + i)) for i, e in enumerate(episodes)]
    )


# -- The networks, for one row


def mlp(params: dict[str, Tensor], prefix: str, x: Tensor, norm: str) -> Tensor:
    """Linear, norm, tanh, linear."""
    h = params[f"{prefix}0.weight"] @ x + params[f"{prefix}0.bias"]
    last = 2
    if norm == "layer":
        centred = h - h.mean()
        h = centred / ((centred * centred).mean() + 1e-5).sqrt()
        h = h * params[f"{prefix}1.weight"] + params[f"{prefix}1.bias"]
        last = 3
    return params[f"{prefix}{last}.weight"] @ h.tanh() + params[f"{prefix}{last}.bias"]


def spec(norm: str, inputs: int = DIM, outputs: int = WIDTH) -> MLP:
    return MLP(inputs=inputs, outputs=outputs, hidden=(7,), activation="tanh", norm=norm)


# -- The papers' formulas: (learner, parameters, task, norm) -> outputs for each query, loss


def cross_entropy(logits: list[list[Tensor | None]], y: Tensor) -> Tensor:
    """Classes without support have no logit."""
    losses = []
    for row, true in zip(logits, y.tolist(), strict=True):
        total = sum(logit.exp() for logit in row if logit is not None)
        losses.append(total.log() - row[true])
    return sum(losses) / len(losses)


def squared(answers: list[list[Tensor]], y: Tensor) -> Tensor:
    errors = [
        (a - t) ** 2 for row, true in zip(answers, y, strict=True) for a, t in zip(row, true, strict=True)
    ]
    return sum(errors) / len(errors)


def siamese(learner, params, task, norm):
    def odds(a, b):
        return sum(w * (u - v).abs() for w, u, v in zip(params["weight"], a, b, strict=True)) + params["bias"]

    def unit(z):
        return z / (z * z).sum().sqrt()

    z, zq = ([unit(mlp(params, "net.", x, norm)) for x in part.x] for part in task)
    logits = [[None] * WAYS for _ in zq]
    for row, q in zip(logits, zq, strict=True):
        for s, k in zip(z, task.support.y.tolist(), strict=True):
            if row[k] is None or odds(q, s) > row[k]:
                row[k] = odds(q, s)
    rows, y = z + zq, torch.cat([task.support.y, task.query.y]).tolist()
    costs = {True: [], False: []}
    for i in range(len(rows)):
        for j in range(i):
            p = 1 / (1 + (-odds(rows[i], rows[j])).exp())
            costs[y[i] == y[j]].append(-(p if y[i] == y[j] else 1 - p).log())
    return logits, sum(sum(kind) / len(kind) for kind in costs.values())


def cosine(a, b):
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def attended(scale, queries, keys, task, regress):
    """The support's labels or targets, averaged by cosine attention; the loss of that."""
    answers = []
    for q in queries:
        weights = [(scale * cosine(q, key)).exp() for key in keys]
        total = sum(weights)
        if regress:
            mean = sum(w * y for w, y in zip(weights, task.support.y, strict=True)) / total
            answers.append(list(mean))
            continue
        row = []
        for k in range(WAYS):
            own = [w for w, y in zip(weights, task.support.y.tolist(), strict=True) if y == k]
            row.append((sum(own) / total).log() if own else None)
        answers.append(row)
    return answers, (squared if regress else cross_entropy)(answers, task.query.y)


def matching(learner, params, task, norm):
    keys, queries = ([mlp(params, "net.", x, norm) for x in part.x] for part in task)
    return attended(learner.scale, queries, keys, task, learner.objective == REGRESS)


def matching_fce(learner, params, task, norm):
    """torch's own LSTM over the support, torch's own cell for the query, which reads the support K times."""
    z, zq = (torch.stack([mlp(params, "net.", x, norm) for x in part.x]) for part in task)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    both = nn.LSTM(WIDTH, WIDTH, bidirectional=True)
    weights = {f"{n}_l0": params[f"lstm.forwards.{n}"] for n in names}
    weights |= {f"{n}_l0_reverse": params[f"lstm.backwards.{n}"] for n in names}
    states = functional_call(both, weights, (z,))[0]
    keys = states[:, :WIDTH] + states[:, WIDTH:] + z
    cell = nn.LSTMCell(2 * WIDTH, WIDTH)
    asked = {n: params[f"lstm.asked.{n}"] for n in names}
    queries = []
    for x in zq:
        h, c = torch.zeros(WIDTH), torch.zeros(WIDTH)
        for _ in range(learner.reads):
            weights = [(h * key).sum().exp() for key in keys]
            reading = sum(w * key for w, key in zip(weights, keys, strict=True)) / sum(weights)
            h, c = functional_call(cell, asked, (torch.cat([x, reading]), (h, c)))
            h = h + x
        queries.append(h)
    return attended(learner.scale, queries, keys, task, learner.objective == REGRESS)


def relation_net(learner, params, task, norm):
    z, zq = ([mlp(params, "net.", x, norm) for x in part.x] for part in task)
    n = len(z)
    if learner.objective == REGRESS:
        plain = sum(z) / n
        features = [
            torch.cat([sum(y[k] * s for s, y in zip(z, task.support.y, strict=True)) / n, plain])
            for k in range(2)
        ]
    else:
        own = [[s for s, y in zip(z, task.support.y, strict=True) if y == k] for k in range(WAYS)]
        features = [sum(rows) / len(rows) if rows else None for rows in own]
    scores = [
        [mlp(params, "relation.", torch.cat([f, q]), norm)[0] if f is not None else None for f in features]
        for q in zq
    ]
    if learner.objective == REGRESS:
        return scores, squared(scores, task.query.y)
    errors = [
        sum((1 / (1 + (-g).exp()) - float(k == y)) ** 2 for k, g in enumerate(row) if g is not None)
        for row, y in zip(scores, task.query.y.tolist(), strict=True)
    ]
    return scores, sum(errors) / len(errors)


def soft_k_means(learner, params, task, norm):
    z, zq = ([mlp(params, "", x, norm) for x in part.x] for part in task)
    own = {k: [s for s, y in zip(z, task.support.y, strict=True) if y == k] for k in range(WAYS)}
    own = {k: rows for k, rows in own.items() if rows}
    centres = {k: sum(rows) / len(rows) for k, rows in own.items()}

    def logits(q):
        return {k: -learner.scale * ((q - c) ** 2).sum() for k, c in centres.items()}

    for _ in range(learner.rounds):
        shares = []
        for q in zq:
            weights = {k: logit.exp() for k, logit in logits(q).items()}
            shares.append({k: w / sum(weights.values()) for k, w in weights.items()})
        centres = {
            k: (sum(rows) + sum(s[k] * q for s, q in zip(shares, zq, strict=True)))
            / (len(rows) + sum(s[k] for s in shares))
            for k, rows in own.items()
        }
    answers = [[logits(q).get(k) for k in range(WAYS)] for q in zq]
    return answers, cross_entropy(answers, task.query.y)


@dataclass(frozen=True)
class Case:
    """A learner, and its paper's formula."""

    kind: type[MetaLearner]
    formula: Callable
    fields: dict[str, Any] = field(default_factory=dict)
    regress: bool = False

    def build(self, norm: str) -> MetaLearner:
        fields = dict(self.fields)
        if self.kind is RelationNet:
            fields["relation"] = spec(norm, (3 if self.regress else 2) * WIDTH, 1)
        return self.kind(objective=REGRESS if self.regress else CLASSIFY, net=spec(norm), **fields)


CASES = {
    "Siamese": Case(Siamese, siamese, {"width": WIDTH}),
    "Matching": Case(Matching, matching, {"scale": 3.0}),
    "Matching, regression": Case(Matching, matching, regress=True),
    "MatchingFCE": Case(MatchingFCE, matching_fce, {"width": WIDTH, "reads": 3}),
    "MatchingFCE, regression": Case(MatchingFCE, matching_fce, {"width": WIDTH, "reads": 1}, regress=True),
    "RelationNet": Case(RelationNet, relation_net),
    "RelationNet, regression": Case(RelationNet, relation_net, regress=True),
    "SoftKMeans": Case(SoftKMeans, soft_k_means, {"scale": 0.7}),
    "SoftKMeans, three rounds": Case(SoftKMeans, soft_k_means, {"rounds": 3}),
}
cases = pytest.mark.parametrize("name", CASES)
norms = pytest.mark.parametrize("norm", NORMS)


def started(learner: MetaLearner) -> dict[str, Tensor]:
    """Parameters of which none has the special value that it starts from."""
    draw = torch.Generator().manual_seed(1)
    return {k: v + 0.3 * torch.randn(v.shape, generator=draw) for k, v in learner.init(0).items()}


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The norm of the difference, relative to the whole gradient's."""
    assert ours.keys() == theirs.keys()
    norm = math.sqrt(sum(float(g.pow(2).sum()) for g in theirs.values()))
    return math.sqrt(sum(float((ours[k] - theirs[k]).pow(2).sum()) for k in theirs)) / norm


@cases
@norms
@pytest.mark.parametrize("ragged", [False, True], ids=["equal tasks", "ragged tasks"])
def test_loss_and_meta_gradient_are_the_paper_s(name, norm, ragged):
    case = CASES[name]
    learner, episodes = case.build(norm), tasks(case.regress)
    if not ragged:
        episodes = episodes[:1] * 2
    meta = started(learner)
    leaves = {k: v.clone().requires_grad_() for k, v in meta.items()}
    losses = [case.formula(learner, leaves, episode, norm)[1] for episode in episodes]
    expected = sum(losses) / len(losses)
    slopes = torch.autograd.grad(expected, list(leaves.values()))
    theirs = dict(zip(leaves, slopes, strict=True))
    batch = padded(episodes) if ragged else stack(episodes)
    assert torch.allclose(task_losses(learner, meta, batch), torch.stack(losses), rtol=EXACT, atol=0)
    for form in ("auto", "loop", "stacked"):
        if form == "stacked" and ragged and learner.transductive:
            continue
        loss, gradient = meta_gradient(learner, meta, batch, form=form)
        assert loss == pytest.approx(float(expected.detach()), rel=EXACT, abs=0)
        assert distance(gradient, theirs) <= EXACT, form


@cases
@norms
def test_answers_are_the_paper_s(name, norm):
    case = CASES[name]
    learner, episodes = case.build(norm), tasks(case.regress)
    meta = started(learner)
    batch = padded(episodes)
    together = outputs(learner, meta, batch)
    for i, episode in enumerate(episodes):
        expected, _ = case.formula(learner, meta, episode, norm)
        for row, theirs in zip(together[i][batch.query.mask[i]], expected, strict=True):
            for ours, true in zip(row.tolist(), theirs, strict=True):
                if true is None:
                    assert ours <= -1e4
                else:
                    assert ours == pytest.approx(float(true), rel=1e-11, abs=1e-12)


# -- Full context embeddings


def test_without_reads_and_with_silent_cells_full_context_embeddings_are_plain_ones():
    """Cells whose gates and news are all 0 give a state of 0: what is left is the skip connection."""
    task = one(blobs(dim=DIM), 0)
    fce = MatchingFCE(objective=CLASSIFY, net=spec("layer"), width=WIDTH)
    plain = Matching(objective=CLASSIFY, net=spec("layer"))
    meta = {k: torch.zeros_like(v) if k.startswith("lstm.") else v for k, v in fce.init(0).items()}
    expected = predict(plain, plain.init(0), adapt(plain, plain.init(0), task.support), task.query.x)
    assert torch.allclose(
        predict(fce, meta, adapt(fce, meta, task.support), task.query.x), expected, atol=EXACT
    )


@pytest.mark.parametrize(
    ("learner", "says"),
    [
        (
            MatchingFCE(objective=CLASSIFY, net=spec("none"), width=9),
            r"MatchingFCE has width=9; .* shape \[5\]",
        ),
        (Siamese(objective=CLASSIFY, net=spec("none"), width=9), r"Siamese has width=9; .* shape \[5\]"),
        (
            RelationNet(objective=CLASSIFY, net=spec("none"), relation=spec("none", 2 * WIDTH, 3)),
            r"gives outputs of shape \[3\]; expected \[1\]",
        ),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_net_of_another_size_is_told(learner, says):
    with pytest.raises(ModelError, match=says):
        outputs(learner, learner.init(0), blobs(dim=DIM))


# -- Relation networks: two nets


class Maps(nn.Module):
    """Images to feature maps; or, `flat`, two of those to a score."""

    def __init__(self, channels: int, flat: bool):
        super().__init__()
        self.layer, self.flat = nn.Conv2d(channels, 1 if flat else 2, 3, padding=1), flat

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        return z.mean((1, 2, 3)).unsqueeze(-1) if self.flat else z


def test_embeddings_may_be_feature_maps_as_in_the_paper():
    embed, score = Maps(1, flat=False), Maps(4, flat=True)
    learner = RelationNet(objective=CLASSIFY, net=embed, relation=score)
    draw = torch.Generator().manual_seed(0)
    x, xq, y = (
        torch.randn(6, 1, 5, 5, generator=draw),
        torch.randn(2, 1, 5, 5, generator=draw),
        torch.arange(6) % 3,
    )
    meta = learner.init()
    logits = predict(learner, meta, adapt(learner, meta, Labelled.of(x, y)), xq)
    with torch.no_grad():
        for i in range(2):
            for k in range(3):
                joined = torch.cat(
                    [(embed(x[k : k + 1]) + embed(x[k + 3 : k + 4])) / 2, embed(xq[i : i + 1])], 1
                )
                assert float(logits[i, k]) == pytest.approx(float(score(joined)), rel=1e-12)


def test_either_net_decides_which_form_is_exact():
    def built(norm, relation_norm):
        relation = spec(relation_norm, 2 * WIDTH, 1)
        return RelationNet(objective=CLASSIFY, net=spec(norm), relation=relation)

    equal, ragged = stack(tasks(False)[:1] * 2), padded(tasks(False))
    for pair in (("batch", "none"), ("none", "batch")):
        assert choose_form(built(*pair), equal) == "stacked"
        assert choose_form(built(*pair), ragged) == "loop"
    assert choose_form(built("layer", "layer"), ragged) == "stacked"
    recurrent = RelationNet(objective=CLASSIFY, net=nn.LSTM(DIM, WIDTH), relation=spec("none", 2 * WIDTH, 1))
    assert choose_form(recurrent, equal) == "loop"
    pool = Pool(objective=CLASSIFY, members=(built("none", "batch"),), weights=(1.0,))
    assert pool.nets() == [pool.members[0].net, pool.members[0].relation]


@pytest.mark.parametrize("pooled", [False, True])
def test_padding_stays_out_of_the_batch_statistics_of_either_net(pooled):
    """The tasks hold every class, as an absent one is a row of the relation module's batch too."""
    relation = spec("batch", 2 * WIDTH, 1)
    learner = RelationNet(objective=CLASSIFY, net=spec("batch"), relation=relation)
    if pooled:
        learner = Pool(objective=CLASSIFY, members=(learner,), weights=(1.0,))
    meta = learner.init(0)
    episodes = [tasks(False)[0], tasks(False)[2]]
    expected = torch.cat([task_losses(learner, meta, stack([episode])) for episode in episodes])
    assert torch.allclose(task_losses(learner, meta, padded(episodes)), expected, rtol=EXACT, atol=0)


@cases
def test_dropout_is_the_same_in_every_form(name):
    case = CASES[name]
    learner = case.build("none")
    nets = {"net": learner.net} | ({"relation": learner.relation} if case.kind is RelationNet else {})
    fields = {k: MLP(inputs=n.inputs, outputs=n.outputs, hidden=(7,), dropout=0.4) for k, n in nets.items()}
    learner = type(learner)(**{**vars(learner), **fields})
    meta, batch = learner.init(0), stack(tasks(case.regress)[:1] * 3)
    loss, gradient = meta_gradient(learner, meta, batch, form="stacked", seed=4)
    expected, theirs = meta_gradient(learner, meta, batch, form="loop", seed=4)
    assert loss == pytest.approx(expected, rel=EXACT)
    assert distance(gradient, theirs) <= EXACT
    assert loss != pytest.approx(meta_gradient(learner, meta, batch, seed=5)[0])


# -- SimpleShot


def test_simple_shot_is_sklearn_s_nearest_centroid_on_centred_unit_features():
    learner = SimpleShot(objective=CLASSIFY, dim=DIM, scale=2.0)
    past = [one(blobs(dim=DIM, ways=w, offset=3.0, seed=w), 0).support for w in (4, 7)]
    meta = {k: v.double() for k, v in learner.estimate(past).items()}
    task = one(blobs(dim=DIM, offset=3.0, queries=40), 0)

    def features(x):
        return (x - meta["center"]) / (x - meta["center"]).norm(dim=-1, keepdim=True)

    z, zq = features(task.support.x), features(task.query.x)
    model = NearestCentroid().fit(z.numpy(), task.support.y.numpy())
    logits = predict(learner, meta, adapt(learner, meta, task.support), task.query.x)
    assert logits.argmax(-1).tolist() == model.predict(zq.numpy()).tolist()
    expected = -2.0 * (zq.unsqueeze(1) - torch.from_numpy(model.centroids_)).pow(2).sum(-1)
    assert torch.allclose(logits, expected, atol=EXACT)


def test_simple_shot_s_mean_gives_each_past_class_one_vote():
    learner = SimpleShot(objective=CLASSIFY, dim=2)
    classes = {1: [[0.0, 2.0], [2.0, 4.0]], 7: [[10.0, 0.0]], 3: [[1.0, 1.0]] * 3}
    x, y = (
        [row for rows in classes.values() for row in rows],
        [k for k, rows in classes.items() for _ in rows],
    )
    first = Labelled(torch.tensor([*x, [math.nan] * 2]), torch.tensor([*y, 1]), torch.arange(7) < 6)
    second = Labelled.of(
        torch.tensor([[5.0, 5.0]]), torch.tensor([1])
    )  # another task's class of the same number
    center = learner.estimate([first, second])["center"]
    assert center.tolist() == pytest.approx([(1 + 10 + 1 + 5) / 4, (3 + 0 + 1 + 5) / 4], rel=1e-6)
    with pytest.raises(DataError, match="there is none"):
        learner.estimate([first._replace(mask=torch.zeros(7, dtype=torch.bool))])


# -- Transduction


TRANSDUCTIVE = SoftKMeans(objective=CLASSIFY, net=spec("layer"), rounds=2)


def test_without_rounds_it_is_prototypical():
    plain = Prototypical(objective=CLASSIFY, net=spec("layer"))
    learner = SoftKMeans(objective=CLASSIFY, net=spec("layer"), rounds=0)
    batch, meta = padded(tasks(False)), plain.init(0)
    ours, theirs = (outputs(which, meta, batch)[batch.query.mask] for which in (learner, plain))
    assert torch.allclose(ours, theirs, atol=EXACT)


def test_many_queries_of_a_class_draw_its_prototype_to_their_mean():
    """A known limit: with the classes far apart and n queries to one example, c → the mean of all that belong to it."""
    net = nn.Identity()
    net.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    learner = SoftKMeans(objective=Classify(ways=2), net=net)
    x = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    asked = torch.tensor([[3.0, 0.0], [5.0, 0.0], [90.0, 0.0]])
    fast = adapt(learner, learner.init(), Labelled.of(x, torch.tensor([0, 1])))
    logits = predict(learner, learner.init(), fast, asked)
    centres = torch.tensor([(0 + 3 + 5) / 3, (100 + 90) / 2])
    assert torch.allclose(logits, -(asked[:, :1] - centres).pow(2), atol=1e-9)


def test_padding_is_never_asked_about():
    """Padded rows would be unlabelled examples: only the loop, which cuts them away, is exact."""
    meta, batch = TRANSDUCTIVE.init(0), padded(tasks(False))
    assert choose_form(TRANSDUCTIVE, batch) == "loop"
    assert choose_form(TRANSDUCTIVE, stack(tasks(False)[:1] * 2)) == "stacked"
    for run in (task_losses, outputs, meta_gradient, partial(meta_gradient, compile=True)):
        with pytest.raises(ModelError, match="SoftKMeans answers by what else is asked"):
            run(TRANSDUCTIVE, meta, batch, form="stacked")
    with pytest.raises(DataError, match="SoftKMeans answers by what else is asked"):
        Pool(objective=CLASSIFY, members=(TRANSDUCTIVE,), weights=(1.0,))


def test_an_explanation_is_of_an_input_asked_alone_and_held_out_rows_are_asked_by_fold():
    task = tasks(False)[0]
    meta = TRANSDUCTIVE.init(0)

    def answer(rows, x):
        support = Labelled(*(t[rows] for t in task.support))
        return predict(TRANSDUCTIVE, meta, adapt(TRANSDUCTIVE, meta, support), x)

    everything, x = torch.arange(6), task.query.x[:1]
    effects = influence(TRANSDUCTIVE, meta, task.support, x[0], 1)
    for i in range(6):
        change = log_odds(answer(everything, x), 1) - log_odds(answer(everything[everything != i], x), 1)
        assert float(effects[i]) == pytest.approx(float(change), abs=1e-10)
    folds = torch.tensor([0, 0, 0, 1, 1, 1])
    held = held_out(TRANSDUCTIVE, meta, task.support, folds)
    for fold in (0, 1):
        rows = folds == fold
        assert torch.allclose(held[rows], answer(~rows, task.support.x[rows]), atol=1e-10)
