"""How a text task's learner is chosen: by examples held out, experience against none."""

import pytest
import torch

from quickstudy.core.episode import Labelled
from quickstudy.core.explain import held_out
from quickstudy.core.objective import Classify
from quickstudy.domains.text.choose import Candidate, _all_held_out, candidates_for, choose, folds_of
from quickstudy.domains.text.prior import Prior
from quickstudy.learners import Centroid, Gaussian, Logistic, Pool

DIM, WAYS = 8, 3


def rows(shots, *, noise=0.4, seed=0):
    """Class means apart in the first half of the features; noise in the second that hides them."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(WAYS).repeat_interleave(shots)
    means = torch.zeros(WAYS, DIM)
    means[:, :WAYS] = torch.eye(WAYS)
    spread = torch.tensor([noise] * (DIM // 2) + [2.5] * (DIM // 2))
    return means[y] + spread * torch.randn(len(y), DIM, generator=draw), y


def prior(adapter=None):
    """A prior that has met the same scatter in other classes."""
    learner = Gaussian(objective=Classify(ways=WAYS), dim=DIM, within_strength=1.0, between_strength=1.0)
    tasks = [Labelled.of(*rows(30, seed=100 + i)) for i in range(8)]
    return Prior(learner, learner.estimate(tasks), "tiny", "none", adapter)


def words():
    means = torch.zeros(WAYS, DIM)
    means[:, :WAYS] = torch.eye(WAYS)
    return means


def test_experience_that_knows_the_noise_is_taken():
    x, y = rows(8)
    choice = choose(candidates_for(prior(), WAYS, y, x, x), y)
    assert choice.chosen.experienced
    assert choice.gain is not None
    assert choice.gain.mean > 0
    assert f"{choice.gain.n} examples, each held out" in choice.gain_text


def test_experience_of_another_kind_is_not():
    # What it takes for noise is what tells the classes apart, and the other way round.
    misled = prior()
    swapped = torch.cat([misled.meta["basis"][DIM // 2 :], misled.meta["basis"][: DIM // 2]])
    misled.meta["basis"] = swapped
    plain, y = rows(8, noise=0.1)
    plain[:, DIM // 2 :] *= 0.02
    choice = choose(candidates_for(misled, WAYS, y, plain, plain), y)
    assert not choice.chosen.experienced
    assert "frozen baseline" in choice.reason
    assert choice.gain is not None


def test_intervals_of_few_rows_have_width():
    x, y = rows(5, noise=0.01)
    x[:, DIM // 2 :] *= 0.01
    choice = choose(candidates_for(prior(), WAYS, y, x, x), y)
    best = choice.accuracy["frozen + centroid"]
    assert best.mean == 100
    assert best.low < 85


@pytest.mark.parametrize("familiar", [True, False])
def test_single_examples_alone_leave_the_choice_to_familiarity(familiar):
    x, y = rows(1)
    choice = choose(candidates_for(prior(), WAYS, y, x, x), y, familiar=familiar)
    assert choice.chosen.experienced == familiar
    assert choice.gain is None
    assert "can't be measured" in choice.gain_text


def test_single_examples_are_judged_where_classes_are_described():
    x, y = rows(1)
    both = torch.cat([x, words()])
    choice = choose(candidates_for(prior(), WAYS, y, both, both), y)
    assert choice.gain is not None
    assert choice.gain.n == WAYS
    assert set(choice.accuracy) == {
        "learned prior",
        "learned prior and logistic regression",
        "frozen + centroid",
        "frozen + logistic regression",
    }


def test_no_past_tasks_is_said():
    x, y = rows(4)
    choice = choose(candidates_for(None, WAYS, y, x, x), y)
    assert not choice.chosen.experienced
    assert choice.gain is None
    assert "no experience" in choice.gain_text


def test_a_pool_is_judged_by_its_members_answers():
    """As if it had been held out by itself."""
    x, y = rows(6)
    members = (Centroid(objective=Classify(ways=WAYS)), Logistic(objective=Classify(ways=WAYS)))
    pool = Pool(objective=Classify(ways=WAYS), members=members, weights=(1.0, 1.0))
    support = Labelled.of(x, y)
    parts = [Candidate(f"m{i}", m, {}, support, False) for i, m in enumerate(members)]
    quick = Candidate("pool", pool, {}, support, True, members=("m0", "m1"))

    judged = torch.arange(len(y))
    found = _all_held_out([quick, *parts], y, judged, 0)
    whole = held_out(pool, {}, support, folds_of(y, 0))
    assert torch.allclose(found["pool"], whole, atol=1e-4)
