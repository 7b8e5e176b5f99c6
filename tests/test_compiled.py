"""The compiled step gives what the plain one gives, and says why where it can't be."""

import warnings

import pytest
import torch
from toy import blob_sampler, blobs

from quickstudy.core.engine import meta_gradient, meta_train
from quickstudy.core.errors import CompileWarning
from quickstudy.core.objective import Classify
from quickstudy.learners import MAML, Prototypical
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")


def maml(**net) -> MAML:
    return MAML(
        objective=Classify(ways=3), net=MLP(inputs=4, outputs=3, hidden=(5,), **net), steps=2, rate=0.1
    )


def equal(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    for name, value in expected[1].items():
        assert torch.allclose(found[1][name], value, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "layer"], ids=["dual", "stacked through layer norm"])
def test_a_compiled_step_is_the_step(norm):
    learner, episodes = maml(norm=norm, activation="tanh"), blobs(dim=4, seed=1)
    meta = learner.init(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # inductor's own
        equal(
            meta_gradient(learner, meta, episodes, compile=True),
            meta_gradient(learner, meta, episodes, form="loop"),
        )
        # Another batch of the same shapes takes the same program; what it computes depends on the batch.
        again = blobs(dim=4, seed=2)
        equal(
            meta_gradient(learner, meta, again, compile=True),
            meta_gradient(learner, meta, again, form="loop"),
        )
        # A task that lacks a class: other arithmetic, so another program.
        support = again.support._replace(y=again.support.y.clamp(max=1))
        lacking = again._replace(support=support)
        if norm == "none":
            equal(
                meta_gradient(learner, meta, lacking, compile=True),
                meta_gradient(learner, meta, lacking, form="loop"),
            )


def test_what_cannot_be_compiled_says_why_once_and_runs():
    learner, episodes = maml(norm="layer", dropout=0.5), blobs(dim=4)
    meta = learner.init(0)
    with pytest.warns(CompileWarning, match="draws random numbers"):
        found = meta_gradient(learner, meta, episodes, compile=True, seed=3)
    equal(found, meta_gradient(learner, meta, episodes, seed=3))
    equal(meta_gradient(learner, meta, episodes, compile=True, seed=3), found)  # no second warning
    with pytest.warns(CompileWarning, match="one by one"):
        found = meta_gradient(learner, meta, episodes, compile=True, form="loop", seed=3)
    equal(found, meta_gradient(learner, meta, episodes, seed=3))


def test_a_compiler_that_fails_is_no_error(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr("torch._inductor.compile", broken)
    learner = Prototypical(objective=Classify(ways=3), net=MLP(inputs=4, outputs=6, hidden=(7,)))
    sample = blob_sampler(tasks=2, ways=3, shots=2, dim=4)
    with pytest.warns(CompileWarning, match="RuntimeError: no C\\+\\+ compiler$"):
        *_, last = meta_train(learner, sample, steps=3, compile=True)
    *_, plain = meta_train(learner, sample, steps=3)
    assert all(torch.equal(last.meta[name], plain.meta[name]) for name in plain.meta)
