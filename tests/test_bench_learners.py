"""The benchmark of learned optimisers: small runs of it, and SGD that is as good as it can be."""

import pytest
import torch

from quickstudy.bench import learners as bench
from quickstudy.bench.bars import load_bars
from quickstudy.bench.runs import load_runs, write_run
from quickstudy.core.engine import evaluate
from quickstudy.core.errors import DataError
from quickstudy.core.objective import Regress
from quickstudy.learners import MAML, MetaLSTM
from quickstudy.nets import MLP

ASKED = {bar.id: bar for bar in load_bars() if bar.id.startswith("learners.9")}


@pytest.fixture
def small(monkeypatch):
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
