"""The quick leave-one-out of logistic regression against fits to the last digit without each row."""

import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from toy import blobs, one

from quickstudy.core import engine, explain
from quickstudy.core.episode import Labelled
from quickstudy.core.explain import influence, leave_one_out, log_odds, without
from quickstudy.core.objective import Classify
from quickstudy.learners import Centroid, Gaussian, Logistic, Pool, logistic
from quickstudy.learners.left_out import MOST

pytestmark = pytest.mark.usefixtures("float64", "quick")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(logistic, "EXACT_UP_TO", 0)


def exact(support: Labelled, x, output: int, penalty: float = 30.0):
    """Log-odds with all rows less those without each, both at the minimum (scikit-learn stops well before)."""

    def told(keep):
        model = LogisticRegression(C=penalty, max_iter=100_000, tol=1e-9)
        model.fit(support.x[keep].numpy(), support.y[keep].numpy())
        return float(log_odds(torch.from_numpy(model.predict_log_proba(x[None].numpy()))[0], output))

    every = torch.ones(len(support.y), dtype=torch.bool)
    parts = [told(every & (torch.arange(len(every)) != i)) for i in range(len(every))]
    return torch.tensor([told(every) - part for part in parts])


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


@pytest.mark.parametrize(("ways", "shots", "dim"), [(3, 8, 24), (5, 6, 24), (MOST + 6, 3, 24)])
@pytest.mark.parametrize("seed", [0, 1])
def test_effects_are_those_of_leaving_out_and_solving_to_the_end(ways, shots, dim, seed):
    task = one(blobs(tasks=1, ways=ways, shots=shots, dim=dim, noise=0.3, seed=seed), 0)
    support = task.support._replace(x=torch.nn.functional.normalize(task.support.x, dim=-1))
    learner = Logistic(objective=Classify(ways=ways))
    queries = torch.nn.functional.normalize(task.query.x, dim=-1)
    sure = engine.predict(learner, {}, engine.adapt(learner, {}, support), queries).softmax(-1).max(-1)
    asked = int(sure.values.argmin())  # of an answer that is sure, all effects are near 0
    x, output = queries[asked], int(sure.indices[asked])
    true, quick = exact(support, x, output), influence(learner, {}, support, x, output)
    assert correlation(true, quick) > 0.98
    assert 0.8 < float(quick @ true / (true @ true)) < 1.3
    assert stats.spearmanr(true, quick).statistic > 0.95
    strong = true.abs() > 0.2 * true.abs().max()
    assert (true.sign() == quick.sign())[strong].all()


def test_where_features_are_few_the_order_holds_though_one_step_overshoots():
    task = one(blobs(tasks=1, ways=3, shots=8, dim=6, noise=0.3, seed=1), 0)
    support = task.support._replace(x=torch.nn.functional.normalize(task.support.x, dim=-1))
    x = torch.nn.functional.normalize(task.query.x[0], dim=-1)
    learner = Logistic(objective=Classify(ways=3))
    output = int(engine.predict(learner, {}, engine.adapt(learner, {}, support), x[None]).argmax())
    true, quick = exact(support, x, output), influence(learner, {}, support, x, output)
    assert torch.equal(true.abs().topk(2).indices, quick.abs().topk(2).indices)
    assert float(quick.max() / true.max()) < 3


def test_few_fits_are_made(monkeypatch):
    support = one(blobs(tasks=1, ways=5, shots=5, dim=12, seed=3), 0).support
    fits = []
    adapt = Logistic.adapt
    monkeypatch.setattr(Logistic, "adapt", lambda *args: fits.append(1) or adapt(*args))
    effects = influence(Logistic(objective=Classify(ways=5)), {}, support, support.x[0], 0)
    assert len(effects) == 25
    assert len(fits) == 2  # the answer's, and the one to step from


def test_a_class_that_loses_its_only_row_is_adapted_anew():
    task = one(blobs(tasks=1, ways=4, shots=3, dim=6, seed=0), 0)
    learner, y = Logistic(objective=Classify(ways=4)), task.support.y
    rows = (y != 2) | (torch.arange(len(y)) == (y == 2).nonzero()[0])
    support = Labelled(*(t[rows] for t in task.support))
    only = int((support.y == 2).nonzero())
    x = support.x[only] + 0.1
    quick = learner.left_out({}, support, x, 2)
    assert quick is not None
    assert torch.allclose(quick[only], leave_one_out(learner, {}, support, x[None])[only, 0])
    assert int(influence(learner, {}, support, x, 2).argmax()) == only


def test_padding_has_no_effect_and_changes_none():
    support = one(blobs(tasks=1, ways=4, shots=3, dim=6, seed=0), 0).support
    learner, x = (
        Logistic(objective=Classify(ways=6)),
        support.x[0] + 0.1,
    )  # two classes that the support lacks
    effects = influence(learner, {}, support.padded(15), x, 1)
    assert torch.equal(effects[12:], torch.zeros(3))
    assert torch.allclose(effects[:12], influence(learner, {}, support, x, 1), atol=1e-6)


def test_a_row_that_describes_a_class_counts_as_an_example_of_it():
    support = one(blobs(tasks=1, ways=4, shots=3, dim=6, seed=0), 0).support
    learner, x = Logistic(objective=Classify(ways=4)), support.x[0] + 0.1
    told = support._replace(y=torch.where(torch.arange(12) < 4, support.y + 4, support.y))
    assert torch.equal(influence(learner, {}, told, x, 1), influence(learner, {}, support, x, 1))


def test_a_pool_asks_each_member_in_its_own_way(monkeypatch):
    support = one(blobs(tasks=1, ways=4, shots=3, dim=6, seed=0), 0).support
    classify, fits, adapt = Classify(ways=4), [], Logistic.adapt
    pool = Pool(
        objective=classify,
        members=(Logistic(objective=classify), Centroid(objective=classify)),
        weights=(1.0, 0.5),
    )
    x = support.x[0] + 0.1
    parts = [without(member, {}, support, x, 1).log_softmax(-1) for member in pool.members]
    monkeypatch.setattr(Logistic, "adapt", lambda *args: fits.append(1) or adapt(*args))
    assert torch.allclose(without(pool, {}, support, x, 1), parts[0] + 0.5 * parts[1])
    assert len(fits) == 1


def test_small_supports_are_left_out_exactly(monkeypatch):
    support = one(blobs(tasks=1, ways=4, shots=3, dim=6, seed=0), 0).support
    monkeypatch.setattr(logistic, "EXACT_UP_TO", 12)
    learner = Logistic(objective=Classify(ways=4))
    assert learner.left_out({}, support, support.x[0], 0) is None
    assert learner.left_out({}, support.padded(20), support.x[0], 0) is None
    monkeypatch.setattr(logistic, "EXACT_UP_TO", 11)
    assert learner.left_out({}, support, support.x[0], 0) is not None


@pytest.mark.parametrize(("ways", "changes"), [(2, {}), (4, {"iterations": 1, "inverse_penalty": 1e6})])
def test_where_there_is_no_quick_way_rows_are_left_out_one_by_one(ways, changes):
    support = one(blobs(tasks=1, ways=ways, shots=3, dim=6, seed=0), 0).support
    learner, x = Logistic(objective=Classify(ways=ways), **changes), support.x[0]
    with pytest.warns() if changes else torch.no_grad():
        assert learner.left_out({}, support, x, 0) is None
        effects = influence(learner, {}, support, x, 0)
        whole = engine.predict(learner, {}, engine.adapt(learner, {}, support), x[None])
        without = leave_one_out(learner, {}, support, x[None])[:, 0]
    assert torch.allclose(effects, log_odds(whole, 0) - log_odds(without, 0))


def test_tasks_left_out_together_fit_in_memory(monkeypatch):
    """770 rows of 384 features took 876 MB while 256 tasks were held at once."""
    sizes, mapped = [], explain.over_tasks

    def measured(function):
        run = mapped(function)
        return lambda masks: sizes.append(masks.numel() * 384 * 4) or run(masks)

    monkeypatch.setattr(explain, "over_tasks", measured)
    torch.set_default_dtype(torch.float32)
    x, y = torch.randn(154, 384), torch.arange(77).repeat(2)
    learner = Gaussian(objective=Classify(ways=77), dim=384)
    effects = influence(learner, learner.init(), Labelled.of(x, y), x[0], 0)
    assert int(effects.argmax()) == 0
    assert max(sizes) <= explain.MEMORY
    assert 1 < len(sizes) < 154
