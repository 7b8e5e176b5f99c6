"""Synthetic families: drawn as their papers say, the same at every call, and with Bayes answers that nothing beats."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

from quickstudy.core.dataset import Shots
from quickstudy.core.engine import evaluate, meta_train, outputs
from quickstudy.core.episode import Labelled
from quickstudy.core.objective import Classify, Regress
from quickstudy.domains.synthetic import GaussianClasses, Harmonics, LinearSystems, Sinusoids
from quickstudy.learners import MAML, Gaussian
from quickstudy.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
FAMILIES = {
    "Sinusoids": Sinusoids(),
    "Sinusoids, noisy": Sinusoids(noise=0.3),
    "Sinusoids, told": Sinusoids(told=True),
    "Harmonics": Harmonics(noise=0.1),
    "LinearSystems": LinearSystems(),
    "GaussianClasses": GaussianClasses(),
}
every = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def flat(episodes):
    return [t for part in episodes for t in part]


@every
def test_a_batch_is_a_pure_function_of_seed_and_step(family):
    shots = Shots(ways=3, shots=4, queries=5, tasks=6)
    first, again = family.sampler(shots, seed=1), family.sampler(shots, seed=1)
    third = first(3)
    for step in (5, 3, 0):
        assert all(map(torch.equal, flat(first(step)), flat(again(step))))
    assert all(map(torch.equal, flat(third), flat(first(3))))
    assert not torch.equal(third.support.x, first(4).support.x)
    assert not torch.equal(third.support.x, family.sampler(shots, seed=2)(3).support.x)
    assert not torch.equal(third.support.x[0], third.support.x[1])


@every
def test_shapes_and_ragged_tasks(family):
    classes = isinstance(family, GaussianClasses)
    each = 3 if classes else 1
    batch = family.sampler(Shots(ways=3, shots=(2, 4), queries=5, tasks=40))(0)
    assert batch.support.x.shape[:2] == (40, 4 * each) and batch.query.x.shape[:2] == (40, 5 * each)
    assert batch.support.x.shape[2:] == batch.query.x.shape[2:]
    assert batch.query.mask.all()
    assert (batch.support.mask.sum(-1) / each).unique().tolist() == [2.0, 3.0, 4.0]
    if classes:
        ragged = family.sampler(Shots(ways=(2, 4), shots=2, queries=3, tasks=40))(0)
        for part, rows in ((ragged.support, 2), (ragged.query, 3)):
            present = [part.y[i][part.mask[i]].bincount().tolist() for i in range(40)]
            assert {len(counts) for counts in present} == {2, 3, 4}
            assert {count for counts in present for count in counts} == {rows}
        assert all(
            set(ragged.support.y[i][ragged.support.mask[i]].tolist())
            == set(ragged.query.y[i][ragged.query.mask[i]].tolist())
            for i in range(40)
        )
    else:
        assert batch.support.y.is_floating_point()


def test_numbers_are_of_the_usual_kind():
    torch.set_default_dtype(torch.float32)  # the fixture puts things back
    assert Sinusoids().sampler(Shots(shots=2, queries=2))(0).support.x.dtype == torch.float32


# -- Functions


def test_sinusoids_are_those_of_the_paper():
    x, y, _ = Sinusoids(told=True).sampler(Shots(shots=10, queries=1, tasks=4000))(0).support
    told = x[:, 0, 1:]
    for column, (low, high) in enumerate(((0.1, 5.0), (0.0, math.pi))):
        values = told[:, column]
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * 4000)
    assert -5 <= x[..., 0].min() < -4.99 and 4.99 < x[..., 0].max() <= 5
    assert torch.equal(x[:, :1, 1:].expand(-1, 10, -1), x[..., 1:])
    a, b = x[..., 1:2], x[..., 2:3]
    assert torch.allclose(y, a * torch.sin(x[..., :1] - b))


def test_being_told_changes_nothing_else():
    shots = Shots(shots=3, queries=2, tasks=4)
    told, not_told = (Sinusoids(told=told).sampler(shots, seed=3)(7) for told in (True, False))
    for a, b in zip(told, not_told, strict=True):
        assert torch.equal(a.x[..., :1], b.x) and torch.equal(a.y, b.y)


def test_noise_has_the_size_asked_for():
    shots = Shots(shots=20, queries=20, tasks=500)
    for family in (Sinusoids, Harmonics):
        noisy, clean = (family(noise=noise).sampler(shots)(0) for noise in (0.3, 0.0))
        for a, b in zip(noisy, clean, strict=True):
            assert torch.equal(a.x, b.x)
            assert abs(float((a.y - b.y).std()) - 0.3) < 0.01


def test_harmonics_stay_in_one_place_and_are_two_waves():
    family = Harmonics()
    x, y, _ = family.sampler(Shots(shots=200, queries=1, tasks=1000))(0).support
    places = x.mean(1)
    assert places.min() < -3.7 and places.max() > 3.7 and places.abs().max() < 4.5
    assert abs(float(x.std(1).mean()) - 1) < 0.02
    assert abs(float(y.pow(2).mean()) - 1) < 0.1  # two waves of mean square 1/2 each
    # A task's values are a linear combination of sines and cosines of ω and 2ω, for some ω between 5 and 7.
    for task in range(5):
        left = []
        for frequency in torch.linspace(5, 7, 401):
            angle = frequency * x[task]
            waves = torch.cat([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()], -1)
            fit = torch.linalg.lstsq(waves, y[task]).solution
            left.append(float((waves @ fit - y[task]).pow(2).mean()))
        assert min(left) < 1e-3 * float(y[task].pow(2).mean())


@pytest.mark.parametrize("shots", [1, 2, 6, 30])
def test_the_answer_for_linear_systems_is_the_brute_force_posterior_mean(shots):
    """Against conditioning of one joint Gaussian over all of A and all of y, which knows no ridge regression."""
    family = LinearSystems(states=3, spread=0.4, noise=0.2, family=5)
    batch = family.sampler(Shots(shots=shots, queries=4, tasks=3), seed=1)(0)
    prior = (0.4**2 / 3) * torch.eye(9)
    mean = family.typical.reshape(9)
    for task in range(3):
        x, y, _ = (t[task] for t in batch.support)
        design = torch.stack([torch.kron(torch.eye(3)[i], row) for row in x for i in range(3)])
        gram = design @ prior @ design.t() + 0.2**2 * torch.eye(len(design))
        posterior = mean + prior @ design.t() @ torch.linalg.solve(gram, y.reshape(-1) - design @ mean)
        expected = batch.query.x[task] @ posterior.reshape(3, 3).t()
        one = Labelled(x, y, torch.ones(shots, dtype=torch.bool))
        assert torch.allclose(family.bayes(one, batch.query.x[task]), expected, atol=1e-10)
    together = family.bayes(batch.support, batch.query.x)
    assert torch.allclose(together[2], expected, atol=1e-10)


def test_no_other_penalty_beats_the_answer_for_linear_systems():
    family = LinearSystems()
    batch = family.sampler(Shots(shots=4, queries=20, tasks=4000), seed=2)(0)

    def risk(**wrong):
        other = LinearSystems(**wrong)
        return float((other.bayes(batch.support, batch.query.x) - batch.query.y).pow(2).mean())

    best = risk()
    for wrong in ({"spread": 0.15}, {"spread": 0.6}, {"noise": 0.2}, {"noise": 0.05}, {"family": 1}):
        assert best < risk(**wrong), wrong
    # It says what is left, too: noise, and what the posterior doesn't know. With no example, that is all of S.
    nothing = batch.support._replace(mask=torch.zeros_like(batch.support.mask))
    left = (family.bayes(nothing, batch.query.x) - batch.query.y).pow(2).mean()
    assert abs(float(left) - (0.1**2 + 0.3**2)) < 0.003


def test_masked_rows_change_no_answer():
    shots = Shots(ways=3, shots=(1, 4), queries=5, tasks=8)
    for family, extra in ((LinearSystems(), ()), (GaussianClasses(dim=4), (3,))):
        support, query = family.sampler(shots)(0)
        real = support.mask.unsqueeze(-1)
        y = torch.where(real, support.y, torch.nan) if not extra else torch.where(support.mask, support.y, 99)
        spoiled = Labelled(torch.where(real, support.x, torch.nan), y, support.mask)
        assert torch.equal(family.bayes(spoiled, query.x, *extra), family.bayes(support, query.x, *extra))
        for task in range(8):
            alone = Labelled(*(t[task][support.mask[task]] for t in support))
            answer = family.bayes(alone, query.x[task], *extra)
            assert torch.allclose(answer, family.bayes(support, query.x, *extra)[task], atol=1e-9)


# -- Gaussian classes


def test_gaussian_classes_have_the_moments_of_the_family():
    family = GaussianClasses(dim=3, between=(0.5, 2.0), within=(0.2, 1.0), family=4)
    mean, between, within = (torch.from_numpy(part) for part in family.prior)
    for covariance, (least, most) in ((between, (0.5, 2.0)), (within, (0.2, 1.0))):
        assert torch.allclose(
            torch.linalg.eigvalsh(covariance)[[0, -1]], torch.tensor([least, most], dtype=torch.float64)
        )
    assert not torch.allclose(between @ within, within @ between)  # axes of their own
    part = family.sampler(Shots(ways=4, shots=10, queries=1, tasks=5000))(0).support
    x = part.x.reshape(5000, 10, 4, 3)
    assert torch.equal(part.y[0].reshape(10, 4)[3], torch.arange(4))
    means = x.mean(1)
    assert torch.allclose(means.mean((0, 1)), mean, atol=0.05)
    spread = (x - means.unsqueeze(1)).reshape(-1, 3)
    assert torch.allclose(spread.t() @ spread / (len(spread) * 0.9), within, atol=0.02)
    apart = (means - mean).reshape(-1, 3)
    assert torch.allclose(apart.t() @ apart / len(apart), between + within / 10, atol=0.06)


@settings(max_examples=25)
@given(ways=st.integers(2, 4), shots=st.integers(1, 4), dim=st.integers(1, 4), seed=st.integers(0, 1000))
def test_the_bayes_classifier_is_the_brute_force_posterior(ways, shots, dim, seed):
    """Against the joint density of a class's examples and the new one, written down as one large Gaussian."""
    family = GaussianClasses(dim=dim, between=(0.3, 2.0), within=(0.2, 1.5), family=seed)
    mean, between, within = (torch.from_numpy(part) for part in family.prior)
    batch = family.sampler(Shots(ways=ways, shots=shots, queries=2, tasks=1), seed=seed)(0)
    (x, y, _), (query, _, _) = (Labelled(*(t[0] for t in part)) for part in batch)

    def joint(rows):
        """log density of rows of one class, its mean integrated out."""
        n = len(rows)
        covariance = torch.kron(torch.ones(n, n), between) + torch.kron(torch.eye(n), within)
        return MultivariateNormal(mean.repeat(n), covariance).log_prob(rows.reshape(-1))

    # Equal priors of the classes; those without the new example cancel.
    expected = torch.stack([
        torch.stack([joint(torch.cat([x[y == c], new[None]])) - joint(x[y == c]) for c in range(ways)])
        for new in query
    ]).log_softmax(-1)  # fmt: skip
    one = Labelled(x, y, torch.ones(len(y), dtype=torch.bool))
    assert torch.allclose(family.bayes(one, query, ways), expected, atol=1e-8)


def test_the_bayes_classifier_agrees_with_a_simulation_of_the_world():
    """Draw class means from the prior, keep them as they explain the support: no formula for a posterior at all."""
    family = GaussianClasses(dim=2, between=(0.5, 2.0), within=(0.3, 0.6), family=1)
    mean, between, within = (torch.from_numpy(part) for part in family.prior)
    support, query = family.sampler(Shots(ways=2, shots=2, queries=2, tasks=1), seed=3)(0)
    draw = torch.Generator().manual_seed(0)
    worlds = mean + torch.randn(400_000, 2, generator=draw) @ torch.linalg.cholesky(between).t()
    around = MultivariateNormal(torch.zeros(2), within)
    found = []
    for c in range(2):
        rows = support.x[0][support.y[0] == c]
        weight = torch.softmax(sum(around.log_prob(row - worlds) for row in rows), 0)
        found.append(
            torch.stack([(weight * around.log_prob(new - worlds).exp()).sum() for new in query.x[0]])
        )
    expected = torch.stack(found, -1)
    expected = expected / expected.sum(-1, keepdim=True)
    assert torch.allclose(family.bayes(support, query.x, 2)[0].exp(), expected, atol=0.01)


@pytest.mark.parametrize("shots", [1, 5])
def test_nothing_beats_the_bayes_classifier_and_it_knows_how_sure_to_be(shots):
    family = GaussianClasses(dim=6)
    batch = family.sampler(Shots(ways=4, shots=shots, queries=10, tasks=2000), seed=1)(0)
    y = batch.query.y

    def risks(answer):
        wrong = (answer.argmax(-1) != y).double().mean()
        nats = -answer.log_softmax(-1).gather(-1, y.unsqueeze(-1)).mean()
        return float(wrong), float(nats)

    ours = family.bayes(batch.support, batch.query.x, 4)
    best = risks(ours)
    means = torch.stack([batch.support.x[:, c::4].mean(1) for c in range(4)], 1)
    rivals = {
        "nearest mean": -torch.cdist(batch.query.x, means).pow(2) / 2,
        "wrong Σ_b": GaussianClasses(dim=6, between=(0.3, 30.0)).bayes(batch.support, batch.query.x, 4),
        "wrong Σ_w": GaussianClasses(dim=6, within=(0.05, 5.0)).bayes(batch.support, batch.query.x, 4),
        "wrong axes": GaussianClasses(dim=6, family=1).bayes(batch.support, batch.query.x, 4),
        "too sure": 1.3 * ours,
        "not sure enough": 0.7 * ours,
    }
    for name, answer in rivals.items():
        wrong, nats = risks(answer)
        assert best[1] < nats, name
        assert best[0] <= wrong + (0.0 if "sure" in name else 0.002), name
    sure = ours.exp().amax(-1)
    assert abs(float(sure.mean()) - (1 - best[0])) < 0.01


def test_a_class_without_examples_has_no_probability():
    family = GaussianClasses(dim=3)
    support, query = family.sampler(Shots(ways=2, shots=3, queries=4, tasks=2))(0)
    probability = family.bayes(support, query.x, 5).exp()
    assert probability.shape == (2, 8, 5)
    assert torch.equal(probability[..., 2:], torch.zeros(2, 8, 3))
    assert torch.allclose(probability[..., :2].log(), family.bayes(support, query.x, 2), atol=1e-9)


@pytest.mark.parametrize("shots", [1, 4])
def test_the_gaussian_learner_finds_the_prior_out_and_answers_as_bayes_does(shots):
    family, classify = GaussianClasses(dim=5), Classify(ways=4)
    sample = family.sampler(Shots(ways=20, shots=20, queries=1, tasks=1), seed=9)
    past = [Labelled(*(t[0] for t in sample(step).support)) for step in range(150)]
    learner = Gaussian(objective=classify, dim=5, unit=False, within_strength=1.0, between_strength=1.0)
    meta = {name: value.double() for name, value in learner.estimate(past).items()}
    assert torch.allclose(
        meta["basis"] @ meta["basis"].t(), torch.from_numpy(family.prior[2]).inverse(), rtol=0.1, atol=0.1
    )
    # Nothing is learned by gradient here: how far to scale logits, and to trust the prior, are known.
    meta |= {"calibration": torch.zeros(2), "own": torch.tensor(12.0)}
    batch = family.sampler(Shots(ways=4, shots=shots, queries=10, tasks=400), seed=1)(0)
    best = family.bayes(batch.support, batch.query.x, 4)
    ours = outputs(learner, meta, batch)
    assert abs(float((classify.score(ours, batch.query) - classify.score(best, batch.query)).mean())) < 0.3
    assert abs(float((classify.loss(ours, batch.query) - classify.loss(best, batch.query)).mean())) < 0.003
    # On the sphere, where length is lost, it can't.
    round_ = replace(learner, unit=True)
    lost = outputs(
        round_, {k: v.double() for k, v in round_.estimate(past).items()} | {"own": meta["own"]}, batch
    )
    assert float((classify.score(best, batch.query) - classify.score(lost, batch.query)).mean()) > 1


# -- In use


def test_a_family_is_what_meta_train_samples_from():
    learner = MAML(objective=Regress(), net=MLP(inputs=1, outputs=1, hidden=(20, 20)), steps=1, rate=0.05)
    family, shots = Sinusoids(), Shots(shots=10, queries=10, tasks=20)
    test = [family.sampler(shots, seed=1)(step) for step in range(5)]
    meta = learner.init(0)
    before = evaluate(learner, meta, test).loss.mean()
    for step in meta_train(learner, family.sampler(shots), steps=150, rate=0.01):
        meta = step.meta
    assert evaluate(learner, meta, test).loss.mean() < 0.8 * before
