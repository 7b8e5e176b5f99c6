"""How a text task's learner is chosen: by examples held out, experience against none."""

import json
from dataclasses import replace

import pytest
import torch

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import QuickstudyError
from quickstudy.core.explain import held_out
from quickstudy.core.objective import Classify
from quickstudy.domains.text import specialise, use
from quickstudy.domains.text.choose import Candidate, _all_held_out, candidates_for, choose, folds_of
from quickstudy.domains.text.learn import learn, tune
from quickstudy.domains.text.prior import Prior
from quickstudy.domains.text.read import Examples
from quickstudy.domains.text.use import FewShotTextClassifier
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
    assert f"{choice.gain.n} examples, each held out in turn" in choice.gain_text


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


# -- The classifier, with each kind of head

WORDS = {
    "bird": "pelican heron wing beak nest feather flock song",
    "ship": "deck anchor sail mast keel harbour cargo crew",
    "bread": "flour oven crust dough yeast loaf baker salt",
}


def sentences(each, start=0):
    pairs = []
    for label, words in WORDS.items():
        own = words.split()
        for i in range(start, start + each):
            a, b, c = (own[(i * step + shift) % len(own)] for step, shift in ((1, 0), (3, 1), (5, 2)))
            pairs.append((f"the {a} with the {b} near the {c} number {i}", label))
    return [text for text, _ in pairs], [label for _, label in pairs]


@pytest.fixture(scope="module")
def tiny_prior():
    texts, labels = sentences(12, start=40)
    return learn([Examples(texts, labels, {}, "made up")], encoder="tiny")


@pytest.fixture
def pooled(tiny_prior, monkeypatch):
    """A classifier that was made to take the pool."""

    def choose_the_pool(candidates, y, **kwargs):
        found = choose(candidates, y, **kwargs)
        [pool] = [c for c in candidates if isinstance(c.learner, Pool)]
        return replace(found, chosen=pool)

    monkeypatch.setattr(use, "choose", choose_the_pool)
    return FewShotTextClassifier(tiny_prior).fit(*sentences(4))


def test_a_pool_is_saved_explained_and_taught_further(pooled, tmp_path):
    asked, _ = sentences(3, start=20)
    pooled.save(tmp_path / "model")
    again = FewShotTextClassifier.load(tmp_path / "model")
    assert (again.predict_proba(asked) == pooled.predict_proba(asked)).all()
    assert len(again.explain(asked[0], most=None).influences) == len(pooled.adapted_.items)
    more = ["a hammer and a nail", "the hammer is heavy"], ["tool", "tool"]
    assert again.partial_fit(*more).predict(["hammer and nail"])[0] == "tool"


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("members", [], "members"),
        ("weights", [1.0, -1.0], "weights"),
        ("members", [{"type": "MAML", "steps": 10**9}], "MAML"),
        ("members", [{"type": "Pool", "members": [{"type": "MAML"}], "weights": [1.0]}], "Pool"),
        ("members", "text", "isn't that of a text classifier"),
    ],
)
def test_a_pool_from_others_is_checked(pooled, tmp_path, key, value, part):
    pooled.save(tmp_path / "model")
    path = tmp_path / "model/record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["learner"][key] = value
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(QuickstudyError, match=part):
        FewShotTextClassifier.load(tmp_path / "model")


@pytest.mark.parametrize("value", [-1, 10**12, "many", None])
def test_how_many_it_was_tuned_on_is_checked(pooled, tmp_path, value):
    pooled.save(tmp_path / "model")
    path = tmp_path / "model/record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["text"]["tuned_on"] = value
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(QuickstudyError, match="tuned_on"):
        FewShotTextClassifier.load(tmp_path / "model")


def test_an_encoder_tuned_on_the_task_is_kept_until_examples_double(monkeypatch):
    tuned = []

    def count(*given, **named):
        tuned.append(len(given[0][0].texts))
        return tune(*given, **named)

    monkeypatch.setattr(specialise, "tune", count)
    monkeypatch.setattr(specialise, "OWN", replace(specialise.OWN, steps=1))
    monkeypatch.setattr(specialise, "_log_loss", lambda out, y, seen=[]: seen.append(0) or len(seen))
    texts, labels = sentences(10)
    model = FewShotTextClassifier(None, encoder="tiny-bert", tune=True).fit(texts, labels)
    assert model.tuned_on_ == len(texts)
    assert tuned == [24]
    model.partial_fit(["a pelican", "an anchor"], ["bird", "ship"])
    assert tuned == [24]
    assert "kept until" in model.choice_.reason
    model.partial_fit(*sentences(10, start=30))
    assert len(tuned) == 2
