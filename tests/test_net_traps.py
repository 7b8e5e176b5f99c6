"""What a user's own module may have that a form of the engine, or a learner with a head, would get wrong in silence."""

import pytest
import torch
from torch import nn

from quickstudy import (
    ANIL,
    BOIL,
    IMAML,
    MAML,
    Classify,
    Episode,
    Labelled,
    Pretrained,
    meta_gradient,
    meta_train,
)
from quickstudy.core.errors import DataError, ModelError
from quickstudy.core.policy import DiscreteActions

WAYS = 3


def episodes() -> Episode:
    torch.manual_seed(0)

    def part() -> Labelled:
        return Labelled(
            torch.randn(4, 6, 5), torch.arange(6).remainder(WAYS).expand(4, 6), torch.ones(4, 6).bool()
        )

    return Episode(part(), part())


class Damped(nn.Module):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, WAYS)
        getattr(self, where).register_full_backward_hook(lambda _, given, __: tuple(0.1 * g for g in given))

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.body(x))))


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, WAYS))
    net[1].register_full_backward_hook(lambda _, given, __: tuple(0.1 * g for g in given))
    return net


@pytest.mark.parametrize(
    "make", [hooked, lambda: Damped("norm"), lambda: Damped("head")], ids=["plain", "norm", "head"]
)
def test_backward_hooks_are_called_in_every_form(make):
    learner = MAML(objective=Classify(ways=WAYS), net=make(), steps=2, rate=0.3)
    meta = learner.init()
    _, alone = meta_gradient(learner, meta, episodes(), form="loop")
    _, chosen = meta_gradient(learner, meta, episodes())
    for name, slope in alone.items():
        torch.testing.assert_close(chosen[name], slope)


@pytest.mark.parametrize("learner", [ANIL, BOIL])
def test_a_head_that_shares_a_weight_is_refused(learner):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(5, 5), nn.Linear(5, 5)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(torch.relu(self.embed(x)))

    made = learner(objective=Classify(ways=5), net=Tied())
    with pytest.raises(ModelError, match=r"'head\.weight' is 'embed\.weight', too"):
        meta_gradient(made, made.init(), episodes())


def test_what_a_run_left_in_a_module_is_no_hindrance():
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.seen = nn.Linear(5, 8), nn.Linear(8, WAYS), None

        def forward(self, x):
            self.seen = torch.relu(self.body(x))
            return self.head(self.seen)

    net, fresh = Kept(), Kept()
    fresh.load_state_dict(net.state_dict())
    net(torch.randn(2, 5))
    assert net.seen.grad_fn is not None
    slopes = []
    for one in (net, fresh):
        learner = MAML(objective=Classify(ways=WAYS), net=one, steps=2, rate=0.3)
        slopes.append(meta_gradient(learner, learner.init(), episodes())[1])
    for name, slope in slopes[0].items():
        torch.testing.assert_close(slope, slopes[1][name])


@pytest.mark.parametrize("learner", [MAML, IMAML])
def test_a_step_function_is_told_of(learner):
    class Rounded(nn.Sequential):
        def forward(self, x):
            return super().forward(x).round()

    made = learner(objective=Classify(ways=WAYS), net=Rounded(nn.Linear(5, WAYS)))
    with pytest.warns(UserWarning, match=r"0 everywhere.*round"):
        next(meta_train(made, lambda _: episodes(), steps=1))


def test_pretraining_is_not_for_policies(unchecked):
    with pytest.raises(DataError, match=r"expected Classify\(…\) or Regress\(…\) or Rank"):
        Pretrained(objective=DiscreteActions(choices=2), net=nn.Linear(5, 2))
