"""Threads of a step: one for small work, and what was set before comes back."""

import pytest
import torch
from test_bad_tasks import tasks
from torch import nn

from quickstudy.core.cores import threads, threads_for
from quickstudy.core.engine import meta_train
from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.objective import Classify
from quickstudy.learners import MAML


@pytest.fixture(autouse=True)
def two():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_work_gets_one_thread():
    def images(number, side):
        part = Labelled.of(torch.zeros(number, 5, 1, side, side), torch.zeros(number, 5, dtype=torch.int64))
        return Episode(part, part)

    def meta(net):
        return {name: p.detach() for name, p in net.named_parameters()}

    assert threads_for(meta(nn.Linear(5, 3)), tasks()) == 1
    assert threads_for(meta(nn.Linear(5, 3000)), tasks()) == 2
    assert threads_for(meta(nn.Conv2d(1, 8, 3)), images(4, 6)) == 1
    assert threads_for(meta(nn.Conv2d(1, 32, 3)), images(1, 20)) == 1
    assert (
        threads_for(meta(nn.Conv2d(1, 32, 3)), images(1, 21)) == 2
    )  # 10 rows of 441 positions, 32 numbers each
    assert threads_for(meta(nn.Conv2d(1, 32, 3)), images(16, 28)) == 2


@pytest.mark.parametrize(("asked", "expected"), [(None, 1), (2, 2), (1, 1)])
def test_a_step_has_its_threads_and_gives_them_back(asked, expected):
    seen = []

    class Looking(nn.Linear):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return super().forward(x)

    learner = MAML(objective=Classify(ways=3), net=Looking(5, 3), steps=1)
    for _ in meta_train(learner, lambda _: tasks(), steps=2, threads=asked):
        assert torch.get_num_threads() == 2
    assert set(seen) == {expected}


def test_an_error_gives_them_back_too():
    with pytest.raises(ZeroDivisionError), threads(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
