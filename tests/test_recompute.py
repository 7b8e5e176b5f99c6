"""Inner steps that are computed again: the same gradient to rounding, a fraction of what is kept."""

import pytest
import torch
from test_bad_tasks import tasks
from torch import nn

from quickstudy.core.engine import meta_gradient, meta_train
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import ModelError
from quickstudy.core.objective import Classify
from quickstudy.learners import (
    ANIL,
    BOIL,
    IMAML,
    MAML,
    Gaussian,
    LearnedMomentum,
    LearnedOptimiser,
    MAMLPlusPlus,
    MetaCurvature,
    MetaLSTM,
    MetaSGD,
    Prototypical,
    Ridge,
)
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")


def net():
    return MLP(inputs=5, outputs=3, hidden=(8, 8), norm="layer", dropout=0.2)


def doubled(episodes):
    return Episode(*(p._replace(x=p.x.double()) for p in episodes))


@pytest.mark.parametrize("form", ["auto", "stacked", "loop"])
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (MAML, {"rate": 0.3}),
        (ANIL, {"rate": 0.3}),
        (BOIL, {"rate": 0.3}),
        (MetaSGD, {"least": 0.3, "most": 0.3}),
        (MAMLPlusPlus, {"rate": 0.3, "importance": 0.6}),
        (MetaCurvature, {"rate": 0.3}),
        (LearnedMomentum, {"rate": 0.3}),
        (LearnedOptimiser, {"hidden": 4, "scale": 0.1}),
        (MetaLSTM, {"hidden": 4, "rate": 0.3}),
    ],
)
def test_the_gradient_is_the_same(kind, fields, form):
    learner = kind(objective=Classify(ways=3), net=net(), steps=3, **fields)
    meta, episodes = learner.init(0), doubled(tasks())
    loss, expected = meta_gradient(learner, meta, episodes, form="loop", seed=3)
    again, found = meta_gradient(learner, meta, episodes, form=form, seed=3, recompute=True)
    assert again == pytest.approx(loss, rel=1e-13)
    size = torch.cat([g.flatten() for g in expected.values()]).norm()
    assert torch.cat([(found[k] - expected[k]).flatten() for k in expected]).norm() < 1e-12 * size


class Held:
    """A tensor that a graph keeps; counts numbers kept at once."""

    now = most = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Held.now += tensor.numel()
        Held.most = max(Held.most, Held.now)

    def __del__(self):
        Held.now -= self.tensor.numel()


def most_kept(learner, episodes, **options):
    Held.now = Held.most = 0
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        meta_gradient(learner, learner.init(0), episodes, form="stacked", **options)
    return Held.most


@pytest.mark.parametrize(
    "kind", [MAML, MetaSGD, MAMLPlusPlus, MetaCurvature, LearnedMomentum, LearnedOptimiser, MetaLSTM]
)
def test_memory_hardly_grows_with_steps(kind):
    episodes = doubled(tasks(rows=60, queries=6))

    def growth(**options):
        few, many = (kind(objective=Classify(ways=3), net=net(), steps=steps) for steps in (2, 12))
        return most_kept(many, episodes, **options) - most_kept(few, episodes, **options)

    # An LSTM's own states are part of what a step begins at.
    assert growth(recompute=True) < (0.25 if kind in (LearnedOptimiser, MetaLSTM) else 0.1) * growth()


@pytest.mark.parametrize("kind", [IMAML, Prototypical])
def test_where_no_inner_step_can_be_computed_again_it_is_refused(kind):
    learner = kind(objective=Classify(ways=3), net=net())
    with pytest.raises(
        ModelError,
        match=rf"recompute=True.*{kind.__name__} took none.*MAML's, with steps of 1 or more. Leave it out",
    ):
        meta_gradient(learner, learner.init(0), doubled(tasks()), recompute=True)


def test_meta_training_with_it_ends_where_it_ends_without():
    learner = MAML(
        objective=Classify(ways=3), net=nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)), steps=2
    )
    ends = []
    for recompute in (False, True):
        [*_, last] = meta_train(learner, lambda k: doubled(tasks(seed=k)), steps=4, recompute=recompute)
        ends.append(last.meta)
    assert all(torch.allclose(ends[0][k], ends[1][k], atol=1e-12) for k in ends[0])


def test_mixed_precision_is_right_to_its_digits():
    learner = MAML(
        objective=Classify(ways=3), net=MLP(inputs=5, outputs=3, hidden=(16, 16), activation="tanh"), steps=2
    )
    meta = {k: v.float() for k, v in learner.init(0).items()}
    episodes = Episode(*(p._replace(x=p.x.float()) for p in tasks()))
    for form in ("auto", "loop"):
        loss, exact = meta_gradient(learner, meta, episodes)
        rough, found = meta_gradient(learner, meta, episodes, mixed=True, form=form)
        assert rough == pytest.approx(loss, rel=0.02) and rough != loss
        off = torch.cat([(found[k] - exact[k]).flatten() for k in exact]).norm()
        assert 0 < off < 0.05 * torch.cat([g.flatten() for g in exact.values()]).norm()
        assert all(g.dtype == torch.float32 for g in found.values())


@pytest.mark.parametrize("rows", [1, 4])
def test_solvers_of_linear_systems_take_no_part_in_mixed_precision(rows):
    """Whichever of their two equal systems is the smaller one."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3 * rows, 6, generator=draw).float(), torch.arange(3).repeat(2, rows)
    episodes = Episode(Labelled.of(x, y), Labelled.of(x + 0.1, y))
    for learner in (
        Ridge(objective=Classify(ways=3), net=MLP(inputs=6, outputs=4, hidden=())),
        Gaussian(objective=Classify(ways=3), dim=6),
    ):
        meta = {k: v.float() for k, v in learner.init(0).items()}
        exact, rough = (meta_gradient(learner, meta, episodes, mixed=on)[0] for on in (False, True))
        assert rough == pytest.approx(exact, rel=0.05)


def test_what_cannot_be_combined():
    learner = MAML(objective=Classify(ways=3), net=nn.Linear(5, 3))
    for option in ("recompute", "mixed"):
        with pytest.raises(ModelError, match=r"compile=True has no recompute or mixed form"):
            meta_gradient(learner, learner.init(0), doubled(tasks()), compile=True, **{option: True})
