"""Batch norm with stored statistics, for modules of one's own."""

import pytest
import torch
from test_bad_tasks import tasks
from torch import nn

from quickstudy.core.engine import adapt, meta_gradient, outputs, predict
from quickstudy.core.errors import ModelError
from quickstudy.core.net import apply
from quickstudy.core.objective import Classify
from quickstudy.learners import MAML
from quickstudy.nets import stored_norms

THREE = Classify(ways=3)


def network(affine=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=affine), nn.ReLU(), nn.Flatten()),
        nn.Linear(4 * 16, 5), nn.BatchNorm1d(5, affine=affine), nn.Linear(5, 3),
    )  # fmt: skip


@pytest.mark.parametrize("affine", [True, False])
def test_a_pre_trained_network_answers_as_torch_does_in_evaluation(affine):
    net = network(affine)
    for _ in range(3):
        net(torch.randn(20, 1, 6, 6) * 2 + 1)
    net.eval()
    x = torch.randn(7, 1, 6, 6)
    frozen = stored_norms(net)
    assert torch.allclose(frozen(x), net(x), atol=1e-6)
    assert [n for n, _ in frozen.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert all(a is b for a, b in zip(frozen.parameters(), net.parameters(), strict=True))
    assert isinstance(net[2], nn.BatchNorm1d)  # the network itself is as it was


def test_statistics_of_inputs_are_those_of_training_mode():
    net, x = network().double(), torch.randn(50, 1, 6, 6, dtype=torch.float64)
    params = {name: p.detach() + 0.3 for name, p in net.named_parameters()}
    frozen = stored_norms(net, x, params)
    # On these very inputs batch norm's own statistics are the stored ones.
    assert torch.allclose(apply(frozen, params, x), apply(net, params, x), atol=1e-10)
    assert net[2].num_batches_tracked == 0 and torch.equal(net[2].running_mean, torch.zeros(5).double())


def test_rows_no_longer_hang_together_and_every_form_agrees():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    episodes = tasks()
    support, query = (p._replace(x=p.x.double()) for p in episodes)
    episodes = type(episodes)(support, query)
    learner = MAML(objective=THREE, net=stored_norms(net, support.x.flatten(0, 1)), steps=2)
    meta = learner.init(0)
    first = type(support)(*(t[0] for t in support))
    fast = adapt(learner, meta, first)
    alone = torch.cat([predict(learner, meta, fast, row[None]) for row in query.x[0]])
    assert torch.allclose(outputs(learner, meta, episodes)[0], alone, atol=1e-12)
    _, one = meta_gradient(learner, meta, episodes, form="loop")
    _, many = meta_gradient(learner, meta, episodes, form="stacked")
    assert all(torch.allclose(one[k], many[k], atol=1e-12) for k in one)


def test_what_there_is_nothing_to_store_of():
    with pytest.raises(ModelError, match="has no batch norm"):
        stored_norms(nn.Linear(2, 2))
    with pytest.raises(
        ModelError, match=r"'0\.1' \(BatchNorm2d\) carries no running statistics.*stored_norms\(net, x\)"
    ):
        stored_norms(network())

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(2), nn.Linear(2, 2)

        def forward(self, x):
            return self.linear(x)

    with pytest.raises(ModelError, match="didn't pass through 'norm'"):
        stored_norms(Unused(), torch.randn(5, 2))


def test_a_lone_layer():
    norm = nn.BatchNorm1d(2)
    x = torch.randn(30, 2)
    assert torch.allclose(stored_norms(norm, x)(x), nn.BatchNorm1d(2)(x), atol=1e-6)
