"""The benchmarks of learned optimisers and of policies: small runs of them, and rivals as good as they can be."""

from dataclasses import replace

import pytest
import torch

from quickstudy.bench import control, own_module
from quickstudy.bench import learners as bench
from quickstudy.bench.bars import load_bars
from quickstudy.bench.runs import load_runs, write_run
from quickstudy.core.engine import evaluate
from quickstudy.core.errors import DataError
from quickstudy.core.objective import Regress
from quickstudy.learners import MAML, MetaLSTM
from quickstudy.nets import MLP

ASKED = {bar.id: bar for bar in load_bars() if bar.id.startswith(("learners.9", "learners.1"))}


@pytest.fixture
def few(monkeypatch):
    """Policies: small nets, short episodes."""

    def short(contest):
        family, sampling = (
            replace(contest.family, horizon=4),
            replace(contest.sampling, tasks=3, trajectories=3),
        )
        return replace(
            contest, family=family, sampling=sampling, hidden=(4,), rates=contest.rates[:2], judged=3
        )

    monkeypatch.setattr(control, "POINTS", short(control.POINTS))
    monkeypatch.setattr(control, "BESIDE", tuple(map(short, control.BESIDE)))


@pytest.fixture
def small(monkeypatch, few):
    net = MLP(inputs=1, outputs=1, hidden=(6,))
    learner = MetaLSTM(objective=Regress(), net=net, steps=2, hidden=3)
    monkeypatch.setattr(bench, "NET", net)
    monkeypatch.setattr(bench, "SGD", MAML(objective=Regress(), net=net, steps=2, rate=0.01))
    monkeypatch.setattr(bench, "CONTENDERS", (bench.Contender("learners.9.2", learner, 2, 2, 1e-3),))
    return learner


def test_a_row_is_valid_and_its_gain_is_over_the_same_start(small, tmp_path):
    shown = []
    [row] = bench.against_sgd(quick=True, seed=0, show=shown.append)
    row["command"] = bench.COMMAND
    [found] = load_runs(write_run("learners", [row], tmp_path).parent)
    [row] = found.rows
    assert row.unit == ASKED[row.id].unit and len(shown) == 1
    assert set(row.baselines) == {bench.SAME, bench.RANDOM, bench.LEARNED}
    assert row.gain.over == bench.SAME
    assert row.gain.value == pytest.approx(row.baselines[bench.SAME] - row.value, abs=1e-3)


def test_a_learner_without_weights_to_start_from_is_held_to_random_ones(small):
    contender = bench.CONTENDERS[0]._replace(starts=False, steps=1)
    found = bench.judged(contender, 20, 0)
    assert list(found) == [bench.OURS, bench.RANDOM, bench.LEARNED]
    assert bench._row(contender, found, 0, 1.0)["gain"]["over"] == bench.RANDOM


def test_sgd_is_tuned_on_its_own_tasks_and_a_rate_that_diverges_is_not_taken(small, monkeypatch):
    tuning, test = bench._tasks(20, 1), bench._tasks(20, 2)
    assert not torch.equal(tuning[0].support.x, test[0].support.x)
    weights = bench.SGD.init(0)
    monkeypatch.setattr(bench, "RATES", (1e-3, 1e-2, 1e3))
    found = bench.descended(weights, tuning, test)
    assert found.rate in (1e-3, 1e-2) and torch.isfinite(found.errors).all()
    for rate in (1e-3, 1e-2):
        errors = [evaluate(MAML(objective=Regress(), net=bench.NET, steps=2, rate=rate), weights, part).loss
                  for part in (tuning, test)]  # fmt: skip
        if rate == found.rate:
            assert torch.equal(errors[1], found.errors)
            best = errors[0].mean()
        else:
            other = errors[0].mean()
    assert best < other


def test_the_command(small, capsys, monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"'learners\.8'\. Did you mean"):
        bench.main(["--only", "learners.8"])
    monkeypatch.setattr(bench, "write_run", lambda *_: pytest.fail("written"))
    assert bench.main(["--quick"]) == 0
    assert "Nothing was written" in capsys.readouterr().out
    monkeypatch.setattr(bench, "write_run", write_run)
    assert bench.main(["--quick", "--seed", "3", "--out", str(tmp_path)]) == 0
    [found] = load_runs(tmp_path)
    assert found.rows[0].command == "quickstudy bench learners --only learners.9 --seed 3 --quick"
    assert found.rows[1].command == "quickstudy bench learners --only learners.10 --seed 3 --quick"
    assert found.rows[2].command == "quickstudy bench learners --only learners.11 --seed 3 --quick"


def test_the_row_of_policies_is_valid_and_its_gain_is_over_pretraining(few, tmp_path):
    shown = []
    [row] = control.one_step(quick=True, seed=0, show=shown.append)
    row["command"] = bench.COMMAND
    [found] = load_runs(write_run("learners", [row], tmp_path).parent)
    [row] = found.rows
    assert row.unit == ASKED[row.id].unit and row.gain.over == control.PLAIN and row.seeds == [0, 1]
    assert row.gain.value == pytest.approx(row.value - row.baselines[control.PLAIN], abs=1e-2)
    assert set(row.baselines) >= {control.PLAIN, control.RANDOM, control.ORACLE, "MAML before the step"}
    assert "bandits" in row.note and "grid" in row.note


@pytest.mark.parametrize("contest", [control.POINTS, *control.BESIDE], ids=lambda c: c.name)
def test_nobody_does_better_than_who_knows_the_task_nor_worse_than_at_random(contest):
    tasks = contest.family.draw(30, 0)
    assert control.knowing(contest.family, tasks) > control.at_random(contest, tasks, 0) + 2


def test_pretraining_takes_as_many_steps_in_environments_and_its_best_rate(few, monkeypatch):
    asked = []

    def judged(learner, meta, family, tasks, **how):
        asked.append((learner.rate, len(tasks)))
        value = torch.full((len(tasks),), -abs(learner.rate - control.POINTS.rates[1]))
        return control_returns(value, value)

    from quickstudy.domains.control import Returns as control_returns

    monkeypatch.setattr(control, "evaluate_policy", judged)
    found = control.play(control.POINTS, 0, quick=True)
    assert found.rate == control.POINTS.rates[1]
    assert asked[-1] == (found.rate, 4) and [n for _, n in asked[:2]] == [2, 2]
    assert found.env_steps[1] == pytest.approx(found.env_steps[0], rel=0.2)


def test_a_module_of_ones_own_is_trained_the_same_twice(tmp_path, monkeypatch):
    [row] = own_module.same_twice(quick=True, seed=0, show=lambda _: None)
    row["command"] = bench.COMMAND
    [found] = load_runs(write_run("learners", [row], tmp_path).parent)
    assert found.rows[0].unit == ASKED["learners.11.1"].unit and found.rows[0].value == 1
    network = own_module.network
    draws = iter(range(9))
    monkeypatch.setattr(
        own_module, "network", lambda _: network(next(draws))
    )  # two runs that differ are told apart
    [row] = own_module.same_twice(quick=True, seed=0, show=lambda _: None)
    assert row["value"] == 0
