"""Meta-training: one step an iteration; a resumed run ends at the very numbers of one that was never stopped."""

import itertools

import pytest
import torch
from toy import blob_sampler, blobs

from quickstudy.core.checkpoint import load_state, save_state
from quickstudy.core.engine import evaluate, meta_gradient, meta_train
from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.core.objective import Classify
from quickstudy.learners import ANIL, MAML, Prototypical, Reptile
from quickstudy.nets import MLP

SAMPLE = blob_sampler(tasks=3, ways=3, shots=2, queries=3, dim=6)


def learner(**changes):
    net = MLP(inputs=6, outputs=3, hidden=(8,), **changes)
    return MAML(objective=Classify(ways=3), net=net, steps=2)


def last(steps):
    return list(steps)[-1]


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("stop", [1, 4, 7])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    "schedule",
    [{}, {"decay": True, "warmup": 3, "weight_decay": 0.1, "clip": 0.5}],
    ids=["plain", "schedule"],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(stop, optimiser, dropout, schedule, tmp_path):
    settings = {"steps": 8, "rate": 0.01, "seed": 4, "optimiser": optimiser, **schedule}
    whole = last(meta_train(learner(dropout=dropout), SAMPLE, **settings))
    for step in meta_train(learner(dropout=dropout), SAMPLE, **settings):
        if step.number == stop:
            save_state(tmp_path / "run", step.state(learner="m"))
            break
    torch.rand(5)  # whatever else the program drew in between
    state = load_state(tmp_path / "run", {"learner": "m"})
    rest = list(meta_train(learner(dropout=dropout), SAMPLE, resume=state, **settings))
    assert [step.number for step in rest] == list(range(stop + 1, 9))
    assert same(rest[-1].meta, whole.meta)
    assert rest[-1].loss == whole.loss
    assert same(rest[-1].state().tensors, whole.state().tensors)


def test_a_state_of_another_run_is_refused(tmp_path):
    step = next(meta_train(learner(), SAMPLE, steps=2))
    save_state(tmp_path / "run", step.state(encoder="this one"))
    with pytest.raises(CheckpointError, match="encoder"):
        load_state(tmp_path / "run", {"encoder": "another"})


def test_a_state_of_another_learner_optimiser_or_seed_is_refused(tmp_path):
    kept = next(meta_train(learner(), SAMPLE, steps=2, seed=1)).state()
    save_state(tmp_path / "run", kept)
    mine = learner()
    other = ANIL(objective=mine.objective, net=mine.net)
    for state in (kept, load_state(tmp_path / "run", {})):
        for who, how, said in (
            (other, {"seed": 1}, "learner MAML, not ANIL"),
            (mine, {"seed": 2}, "seed 1, not 2"),
            (mine, {"seed": 1, "optimiser": "sgd"}, "optimiser adam, not sgd"),
        ):
            with pytest.raises(CheckpointError, match=said):
                next(meta_train(who, SAMPLE, steps=4, resume=state, **how))
        with pytest.raises(ModelError, match="leave `meta` out"):
            next(meta_train(mine, SAMPLE, steps=4, seed=1, resume=state, meta=mine.init(0)))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_state_is_told_and_numbers_name_a_run_as_text_does(tmp_path):
    with pytest.raises(CheckpointError, match=r"resume is a str; expected a training state: load_state"):
        next(meta_train(learner(), SAMPLE, steps=4, resume="run"))
    save_state(tmp_path / "run", next(meta_train(learner(), SAMPLE, steps=2)).state(seed=1))
    with pytest.raises(CheckpointError, match="seed 1, the run uses 2"):
        load_state(tmp_path / "run", {"seed": "2"})
    assert load_state(tmp_path / "run", {"seed": "1"}).step == 1


@pytest.mark.parametrize(
    "how", [{"rate": -1.0}, {"rate": float("nan")}, {"weight_decay": -1.0}, {"steps": -3}]
)
def test_what_is_no_rate_or_number_of_steps(how):
    with pytest.raises(
        ModelError, match=f"{next(iter(how))}=.*expected a (rate above 0|whole number, 0 or more)"
    ):
        next(meta_train(learner(), SAMPLE, **{"steps": 2} | how))


@pytest.mark.usefixtures("unchecked")
def test_what_a_sampler_gives_must_be_tasks():
    support, query = SAMPLE(0)
    for given, said in ((None, "gave a NoneType"), ((support, query), r"Episode\(support, query\)")):
        with pytest.raises(DataError, match=said):
            next(meta_train(learner(), lambda _, given=given: given, steps=2))
        with pytest.raises(DataError, match=said):
            evaluate(learner(), learner().init(0), [given])


def test_stopping_anywhere_is_fine_and_later_steps_leave_earlier_results_alone():
    start = learner().init(0)
    kept = {k: v.clone() for k, v in start.items()}
    steps = meta_train(learner(), SAMPLE, steps=10, rate=0.1, meta=start)
    first, state = (step := next(steps)).meta, step.state()
    copies = ({k: v.clone() for k, v in first.items()}, {k: v.clone() for k, v in state.tensors.items()})
    second = next(steps).meta
    assert same(start, kept)
    assert same(first, copies[0])
    assert same(state.tensors, copies[1])
    assert not same(first, second)
    assert not any(v.requires_grad for v in (*first.values(), *state.tensors.values()))


def test_a_state_can_be_resumed_from_twice():
    settings = {"steps": 4, "rate": 0.1}
    state = next(meta_train(learner(), SAMPLE, **settings)).state()
    ends = [last(meta_train(learner(), SAMPLE, resume=state, **settings)).meta for _ in range(2)]
    assert same(*ends)


def test_nothing_is_sampled_before_it_is_needed():
    asked = []

    def sample(step):
        asked.append(step)
        return SAMPLE(step)

    steps = meta_train(learner(), sample, steps=10)
    assert asked == []
    list(itertools.islice(steps, 3))
    assert asked == [0, 1, 2]


def test_one_step_of_plain_descent_by_hand():
    rate, ours = 0.05, learner()
    meta = ours.init(0)
    loss, gradient = meta_gradient(ours, meta, SAMPLE(0))
    step = next(meta_train(ours, SAMPLE, steps=1, rate=rate, optimiser="sgd"))
    assert step.loss == loss
    for name, value in step.meta.items():
        assert torch.allclose(value, meta[name] - rate * gradient[name], atol=1e-7)


def test_the_rate_rises_over_the_warmup_and_falls_to_a_tenth():
    ours = learner()

    def lengths(**settings):
        """How far each of ten steps goes: sign-like steps of Adam on one repeated batch are as long as the rate."""
        before, result = ours.init(0), []
        for step in meta_train(ours, SAMPLE, steps=10, rate=1e-4, **settings):
            result.append(max(float((step.meta[k] - before[k]).abs().max()) for k in before))
            before = step.meta
        return result

    rising = lengths(warmup=4)
    assert rising[0] == pytest.approx(0.25e-4, rel=0.05)
    falling = lengths(decay=True)
    assert falling[0] == pytest.approx(1e-4, rel=0.05)
    assert falling[-1] < 0.35e-4


def test_clipping_bounds_the_whole_gradient():
    rate, ours = 0.1, learner()
    meta = ours.init(0)
    step = next(meta_train(ours, SAMPLE, steps=1, rate=rate, optimiser="sgd", clip=1e-3))
    moved = sum(float((step.meta[k] - meta[k]).pow(2).sum()) for k in meta) ** 0.5
    assert moved == pytest.approx(rate * 1e-3, rel=1e-3)


def test_a_meta_parameter_that_nothing_depends_on_gets_a_zero_gradient_and_resumes():
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    net.register_parameter("idle", torch.nn.Parameter(torch.ones(2)))
    ours = Prototypical(objective=Classify(ways=3), net=net)
    _, gradient = meta_gradient(ours, ours.init(0), blobs(dim=6))
    assert gradient["idle"].tolist() == [0.0, 0.0]
    settings = {"steps": 3, "rate": 0.1}
    whole = last(meta_train(ours, SAMPLE, **settings)).meta
    state = next(meta_train(ours, SAMPLE, **settings)).state()
    assert same(last(meta_train(ours, SAMPLE, resume=state, **settings)).meta, whole)


def test_reptile_moves_towards_the_weights_that_tasks_end_at():
    """The paper's update, written out: with rate ε, φ + ε mean(W - φ)."""
    ours = Reptile(objective=Classify(ways=3), net=MLP(inputs=6, outputs=3, hidden=(8,)), steps=3)
    meta, episodes = ours.init(0), SAMPLE(0)
    step = next(meta_train(ours, SAMPLE, steps=1, rate=0.5, optimiser="sgd"))
    for name, phi in meta.items():
        ends = []
        for task in range(3):
            one_task = type(episodes.support)(*(t[task] for t in episodes.support))
            ends.append(ours.adapt(meta, one_task)[f"net.{name}"])
        assert torch.allclose(step.meta[name], phi + 0.5 * (torch.stack(ends).mean(0) - phi), atol=1e-6)
