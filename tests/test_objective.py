"""Objectives against torch's own losses and against autograd."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.core.episode import Labelled
from quickstudy.core.objective import Classify, Regress

pytestmark = pytest.mark.usefixtures("float64")


def labelled(tasks, rows, width, seed, regress):
    draw = torch.Generator().manual_seed(seed)
    shape = (*tasks, rows)
    y = torch.randn(*shape, width, generator=draw) if regress else torch.randint(width, shape, generator=draw)
    mask = torch.rand(shape, generator=draw) < 0.7
    return torch.randn(*shape, width, generator=draw), Labelled(torch.zeros(*shape, 2), y, mask)


cases = given(
    tasks=st.sampled_from([(), (1,), (3,), (2, 2)]),
    rows=st.integers(1, 6),
    width=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    regress=st.booleans(),
)


@settings(max_examples=60)
@cases
def test_losses_and_scores_are_means_over_real_rows(tasks, rows, width, seed, regress):
    outputs, part = labelled(tasks, rows, width, seed, regress)
    objective = Regress(dim=width) if regress else Classify(ways=width)
    loss, score = objective.loss(outputs, part), objective.score(outputs, part)
    assert loss.shape == score.shape == tasks
    for at in (
        torch.cartesian_prod(*map(torch.arange, tasks)).reshape(-1, len(tasks)).tolist() if tasks else [()]
    ):
        at = tuple(at)
        mask = part.mask[at]
        if not mask.any():
            assert loss[at] == score[at] == 0
            continue
        o, y = outputs[at][mask], part.y[at][mask]
        expected = F.mse_loss(o, y) if regress else F.cross_entropy(o, y)
        assert loss[at] == pytest.approx(float(expected))
        expected = -F.mse_loss(o, y) if regress else (o.argmax(-1) == y).double().mean() * 100
        assert score[at] == pytest.approx(float(expected))


@settings(max_examples=60)
@cases
def test_the_slope_is_what_autograd_says(tasks, rows, width, seed, regress):
    outputs, part = labelled(tasks, rows, width, seed, regress)
    objective = Regress(dim=width) if regress else Classify(ways=width)
    outputs.requires_grad_()
    (expected,) = torch.autograd.grad(objective.loss(outputs, part).sum(), outputs)
    assert torch.allclose(objective.slope(part).of(outputs.detach())[0], expected, atol=1e-14)


def test_padding_may_hold_anything():
    part = Labelled(torch.zeros(2, 1), torch.tensor([1, 0]), torch.tensor([True, False]))
    outputs = torch.tensor([[0.0, 1.0], [float("inf"), float("nan")]], requires_grad=True)
    loss = Classify(ways=2).loss(outputs, part)
    assert float(loss.detach()) == pytest.approx(float(F.cross_entropy(outputs[:1].detach(), part.y[:1])))


def test_an_absent_class_gets_exactly_no_probability_and_no_gradient():
    part = Labelled(torch.zeros(3, 1), torch.tensor([0, 2, 1]), torch.tensor([True, True, False]))
    objective = Classify(ways=4)
    present = objective.present(part)
    assert present.tolist() == [True, False, True, False]
    outputs = torch.randn(3, 4, requires_grad=True)
    silent = objective.restrict(outputs, present)
    assert (torch.softmax(silent, -1)[:, [1, 3]] == 0).all()
    (gradient,) = torch.autograd.grad(objective.loss(silent, part), outputs)
    assert (gradient[:, [1, 3]] == 0).all() and torch.isfinite(gradient).all()
    assert Regress(dim=4).restrict(outputs, present) is outputs


def test_absent_classes_get_nothing_however_low_the_others_are():
    three, known = Classify(ways=3), torch.tensor([True, False, True])
    for low in (0.0, -1e4, -1e6, -1e12):
        outputs = torch.tensor([[low, 0.0, low - 1], [3.0, 5.0, 4.0]], dtype=torch.float32)
        p = three.restrict(outputs, known).softmax(-1)
        assert torch.isfinite(p).all() and p[:, 1].tolist() == [0, 0]
    assert torch.isfinite(three.restrict(outputs, torch.zeros(3, dtype=torch.bool)).softmax(-1)).all()
