"""Explanations are differences of answers with and without a row, nothing less exact."""

import pytest
import torch
from toy import blobs, one, with_garbage

from quickstudy.core.engine import adapt, predict
from quickstudy.core.episode import Labelled
from quickstudy.core.explain import held_out, influence, leave_one_out
from quickstudy.core.objective import Classify
from quickstudy.learners import MAML, Centroid, Prototypical
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
LEARNER = Centroid(objective=Classify(ways=3))


def without(support, rows):
    keep = torch.ones(len(support.mask), dtype=torch.bool)
    keep[rows] = False
    return Labelled(*(t[keep] for t in support))


def logits(support, x, learner=LEARNER):
    meta = learner.init(0)
    return predict(learner, meta, adapt(learner, meta, support), x)


def test_influence_is_the_change_of_log_odds():
    task = one(blobs(), 0)
    x = task.query.x[0]
    effects = influence(LEARNER, {}, task.support, x, 1)
    whole = torch.softmax(logits(task.support, x[None]), -1)[0, 1].logit()
    for i, effect in enumerate(effects):
        part = torch.softmax(logits(without(task.support, [i]), x[None]), -1)[0, 1].logit()
        assert float(effect) == pytest.approx(float(whole - part), abs=1e-9)


def test_a_sure_answer_has_effects_too():
    """A probability that rounds to 1 stays there whichever example is left out; its odds don't."""
    task = one(blobs(), 0)
    x, sure = task.query.x[0], 0.01
    answer = int(logits(task.support, x[None]).argmax())
    assert float(torch.softmax(logits(task.support, x[None]) / sure, -1)[0, answer]) == 1.0
    effects = influence(LEARNER, {}, task.support, x, answer, temperature=sure)
    rest = leave_one_out(LEARNER, {}, task.support, x[None])[:, 0] / sure
    assert (torch.softmax(rest, -1)[:, answer] == 1.0).all()
    assert (effects.abs() > 1).sum() >= 4


def test_the_only_example_of_a_class_is_all_that_speaks_for_it():
    task = one(blobs(shots=1), 0)
    effects = influence(LEARNER, {}, task.support, task.support.x[2], 2)
    assert int(effects.argmax()) == 2
    assert float(effects[2]) > 1000  # without it, the class has no probability at all
    assert torch.isfinite(effects).all()


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_chunks_change_nothing(chunk):
    task = one(blobs(), 0)
    learner = Prototypical(objective=Classify(ways=3), net=MLP(inputs=6, outputs=4))
    meta = learner.init(0)
    expected = leave_one_out(learner, meta, task.support, task.query.x)
    out = leave_one_out(learner, meta, task.support, task.query.x, chunk=chunk)
    assert torch.allclose(out, expected, atol=1e-12)
    assert out.shape == (12, 18, 3)


def test_leaving_out_padding_has_no_effect():
    padded = with_garbage(blobs(tasks=1).support, 2)
    support = Labelled(*(t[0] for t in padded))
    effects = influence(LEARNER, {}, support, blobs(tasks=1).query.x[0, 0], 0)
    assert effects[-2:].abs().max() < 1e-12
    assert effects[:-2].abs().max() > 1e-3


def test_held_out_rows_are_judged_by_learners_that_never_saw_their_fold():
    task = one(blobs(), 0)
    folds = torch.arange(12) % 4
    out = held_out(LEARNER, {}, task.support, folds)
    for fold in range(4):
        rows = torch.nonzero(folds == fold)[:, 0]
        assert torch.allclose(
            out[rows], logits(without(task.support, rows), task.support.x[rows]), atol=1e-12
        )


def test_a_network_with_batch_statistics_is_explained_like_any_other():
    learner = MAML(objective=Classify(ways=3), net=MLP(inputs=6, outputs=3, norm="batch"), steps=2)
    task = one(blobs(), 0)
    meta = learner.init(0)
    out = leave_one_out(learner, meta, task.support, task.query.x)
    for i in range(12):
        assert torch.allclose(out[i], logits(without(task.support, [i]), task.query.x, learner), atol=1e-12)
