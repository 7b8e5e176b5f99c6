"""The classic benchmark: its rows on tiny drawings and tasks, its errors, and training that goes on where it was."""

import numpy as np
import pytest
import torch

from quickstudy.bench import classic, classic_gaussian, classic_images, classic_sinusoid, classic_train
from quickstudy.bench import data as published
from quickstudy.bench.bars import load_bars
from quickstudy.bench.runs import load_runs, write_run
from quickstudy.core.dataset import MetaDataset, Shots, Split
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classify
from quickstudy.domains.vision.read import as_numbers
from quickstudy.learners import Prototypical
from quickstudy.nets import Conv4

ASKED = {bar.id: bar for bar in load_bars() if bar.id.startswith(("learners.6", "learners.7", "learners.8"))}


def drawn(classes, seed):
    """Characters as noise that stays the same from one drawing to the next, but for a tenth of the pixels."""
    draw = np.random.default_rng(seed)
    ideal = draw.random((classes, 1, 1, 28, 28)) < 0.2
    x = ideal ^ (draw.random((classes, 20, 1, 28, 28)) < 0.1)
    names = tuple(f"class {i}" for i in range(classes))
    rows = torch.from_numpy(x.reshape(-1, 1, 28, 28).astype(np.uint8) * 255)
    return MetaDataset(rows, torch.arange(classes).repeat_interleave(20), names, decode=as_numbers)


@pytest.fixture(scope="module")
def split():
    return Split(drawn(25, 0), drawn(22, 1), drawn(0, 2))


def run(**changes):
    plain = {"steps": None, "quick": True, "seed": 0, "keep": None, "show": lambda line: None}
    return classic_train.Run(**plain | changes)


def valid(rows, tmp_path):
    for row in rows:
        row["command"] = "quickstudy bench classic"
        assert row["unit"] == ASKED[row["id"]].unit
    [found] = load_runs(write_run("classic", rows, tmp_path).parent)
    return found.rows


def test_prototypical_on_tiny_drawings(split, tmp_path):
    rows = valid(classic_images.prototypical(split, run()), tmp_path)
    assert [row.id for row in rows] == ["learners.6.1", "learners.6.2"]
    assert "reported on the 22 validation classes" in rows[0].note and "25 classes" in rows[0].note
    chance = {"learners.6.1": 20, "learners.6.2": 5}
    assert all(row.value > 2 * chance[row.id] and row.ci95 for row in rows)
    assert all(0 < row.baselines["nearest image"] <= 100 for row in rows)


def test_the_test_classes_are_reported_on_where_they_are(split):
    whole = Split(split.train, split.valid, drawn(21, 3))
    rows = classic_images.prototypical(whole, run())
    assert "reported on the 21 test classes;" in rows[0]["note"]


def test_maml_on_tiny_drawings(split, tmp_path):
    [row] = valid(classic_images.maml(split, run()), tmp_path)
    assert row.id == "learners.6.3" and row.value > 20 and "0.4 for 1, judged after 3" in row.note


def test_training_goes_on_where_it_was(split, tmp_path, monkeypatch):
    monkeypatch.setattr(classic_train, "KEEP_EVERY", 1)
    whole = classic_images.maml(split, run(keep=tmp_path / "a"))
    said = []
    # All steps were made, so that nothing is left but to judge.
    again = classic_images.maml(split, run(keep=tmp_path / "a", show=said.append))
    assert whole[0]["value"] == again[0]["value"] and said == ["maml5: going on from step 2"]
    # And from the middle: the second run stops after its first step.
    kept = classic_train.save_state

    def once(folder, state):
        kept(folder, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(classic_train, "save_state", once)
    with pytest.raises(KeyboardInterrupt):
        classic_images.maml(split, run(keep=tmp_path / "b"))
    monkeypatch.setattr(classic_train, "save_state", kept)
    stopped = classic_images.maml(split, run(keep=tmp_path / "b", show=said.append))
    assert said[1] == "maml5: going on from step 1" and stopped[0]["value"] == whole[0]["value"]


def test_the_mean_of_the_last_steps_goes_on_where_it_was(split, tmp_path, monkeypatch):
    monkeypatch.setattr(classic_train, "KEEP_EVERY", 1)
    learner = Prototypical(objective=Classify(ways=3), net=Conv4())
    sample = split.train.sampler(Shots(ways=3, shots=1, queries=2, tasks=1), 0)

    def learned(average, **where):
        return classic_train.train(
            "prototypical", learner, sample, run(**where), steps=4, rate=0.1, average=average
        )

    seen = []
    kept = classic_train.save_state

    def noted(folder, state):
        kept(folder, state)
        seen.append({k: v for k, v in state.tensors.items() if k.startswith("meta.")})
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(classic_train, "save_state", noted)
    with pytest.raises(KeyboardInterrupt):
        learned(3, keep=tmp_path)
    found = learned(3, keep=tmp_path)
    assert len(seen) == 4
    for name, value in found.items():
        expected = torch.stack([step[f"meta.{name}"] for step in seen[1:]]).mean(0)
        torch.testing.assert_close(value, expected)
    last = learned(0, keep=tmp_path / "other")
    assert all(torch.equal(last[name], seen[-1][f"meta.{name}"]) for name in last)
    with pytest.raises(CheckpointError):
        learned(2, keep=tmp_path)


def test_sinusoids(tmp_path, monkeypatch):
    monkeypatch.setattr(classic_sinusoid, "RATES", (0.01, 0.1))
    rows = valid(classic_sinusoid.sinusoids(run()), tmp_path)
    assert [row.id for row in rows] == ["learners.7.1", "learners.7.2", "learners.7.3"]
    for row in rows:
        rival = row.baselines["pre-training, fine-tuned"]
        assert row.gain.value == pytest.approx(rival - row.value, abs=1e-3)  # positive where ours errs less
        assert set(row.baselines) == {"pre-training, fine-tuned", "oracle", "MAML before any step"}


@pytest.mark.slow
def test_the_excess_of_each_learner_over_bayes(tmp_path):
    shown = []
    rows = valid(classic_gaussian.excess(run(show=shown.append)), tmp_path)
    assert [row.id for row in rows] == ["learners.8.1", "learners.8.2"]
    said = [line for line in shown if isinstance(line, str)]
    for name in classic_gaussian.recipes():
        for shots in (1, 5):
            assert any(line.startswith(f"{shots}-shot {name}: +") for line in said)
    for row in rows:
        assert row.value < min(row.baselines.values())
        assert set(row.baselines) == set(classic_gaussian.recipes()) - {"Gaussian"}


def test_the_recipes_are_of_different_learners():
    learners = [recipe.learner for recipe in classic_gaussian.recipes().values()]
    assert all(isinstance(learner, MetaLearner) for learner in learners)
    assert len({type(learner) for learner in learners}) == len(learners)


# -- The command


def test_rows_are_chosen_by_name():
    assert classic.chosen(None) == ["learners.7", "learners.8"]
    assert classic.chosen("learners.8, prototypical") == ["prototypical", "learners.8"]
    assert classic.chosen("learners.6") == ["prototypical", "maml5", "maml20"]
    with pytest.raises(DataError, match=r"'learners\.9'\. Did you mean"):
        classic.chosen("learners.9")


def test_a_quick_run_writes_nothing_by_itself(capsys, monkeypatch, tmp_path):
    row = {
        "id": "learners.8.1",
        "value": 0.5,
        "unit": "points",
        "n": 1,
        "seeds": [0],
        "command": "",
        "seconds": 1.0,
    }
    monkeypatch.setattr(classic_gaussian, "excess", lambda run: [dict(row)])
    monkeypatch.setattr(classic, "write_run", lambda *_: pytest.fail("written"))
    assert classic.main(["--only", "learners.8", "--quick"]) == 0
    assert "Nothing was written" in capsys.readouterr().out
    monkeypatch.setattr(classic, "write_run", write_run)
    assert classic.main(["--only", "learners.8", "--out", str(tmp_path), "--seed", "3"]) == 0
    [found] = load_runs(tmp_path)
    assert found.rows[0].command == "quickstudy bench classic --only learners.8 --seed 3"


def test_images_that_are_not_the_published_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("quickstudy.domains.vision.omniglot", lambda folder: Split(*[drawn(2, 0)] * 3))
    with pytest.raises(DataError, match="aren't the published ones"):
        published.omniglot(tmp_path)
    monkeypatch.delenv(published.VARIABLE, raising=False)
    with pytest.raises(DataError, match="--data FOLDER"):
        classic.main(["--only", "maml5"])
