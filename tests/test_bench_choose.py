"""The benchmark that compares all learners: each is built and measured, rows are valid, tables say what rows say."""

from dataclasses import dataclass, fields

import pytest
import torch

import quickstudy.learners
from quickstudy.bench import choose, choose_cell, choose_table
from quickstudy.bench.bars import check
from quickstudy.bench.choose_cell import Job, measured
from quickstudy.bench.choose_tasks import PLAIN, TEST, TITLES, TRAIN, VALID, kind_of
from quickstudy.bench.runs import Run, load_runs, write_run
from quickstudy.bench.settings import HIDDEN, SETTINGS, built, setting
from quickstudy.core.dataset import Shots
from quickstudy.core.episode import unstack
from quickstudy.core.errors import DataError
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Spec

KINDS = [getattr(quickstudy.learners, name) for name in quickstudy.learners.__all__]


@pytest.mark.parametrize(
    ("name", "learner"),
    [(name, one) for name in ("gaussian", "sinusoid") for one in KINDS if kind_of(name).takes(one)],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_every_learner_is_built_with_all_that_is_tried_and_answers(name, learner):
    kind = kind_of(name)
    asked = setting(learner, numbers=not isinstance(kind.objective, Classify))
    task = next(iter(unstack(kind.draw(TRAIN, Shots(shots=2, queries=3, tasks=1), 0)(0))))
    finite = []
    for given in asked.tried:
        one = choose_cell._make(kind, learner, asked, given)
        for key, value in {**asked.fixed, **given}.items():
            assert key == HIDDEN or getattr(one, key) == value
        answer = choose_cell._answer(one, one.init(0), task)
        assert answer.shape == (len(task.query.mask), kind.objective.outputs)
        finite.append(bool(torch.isfinite(answer).all()))
    assert any(finite)  # a rate among those tried may be too large


def test_settings_name_fields_that_there_are():
    for learner, asked in SETTINGS.items():
        known = {f.name for f in fields(learner)} | {HIDDEN}
        for one in (asked, asked.numbers):
            assert one is None or {key for given in (*one.tried, one.fixed) for key in given} <= known, (
                learner
            )


def test_a_field_that_only_a_user_can_fill_is_named():
    kind = kind_of("gaussian")

    @dataclass(frozen=True, kw_only=True)
    class Odd(quickstudy.learners.Ridge):
        mine: int

    try:
        with pytest.raises(TypeError, match="'mine'"):
            built(Odd, kind.objective, kind.nets(()))
        assert built(Odd, kind.objective, kind.nets(()), mine=3).mine == 3
    finally:
        Spec.registry.pop("Odd")


def test_parts_share_no_task():
    for name in PLAIN:
        kind = kind_of(name)
        parts = [
            kind.draw(part, Shots(shots=1, queries=2, tasks=2), 0)(0).support.x
            for part in (TRAIN, VALID, TEST)
        ]
        assert not any(torch.equal(a, b) for i, a in enumerate(parts) for b in parts[:i]), name


@pytest.mark.parametrize(
    ("learner", "kind"), [("Ridge", "gaussian"), ("Gaussian", "gaussian"), ("MAML", "sinusoid")]
)
def test_a_cell_is_measured(learner, kind):
    few, many = measured(Job(learner, kind, quick=True))
    assert (few.shots, many.shots) == kind_of(kind).shots
    assert few.train == many.train > 0 and few.adapt > 0 and few.memory >= 0
    if kind == "gaussian":
        assert few.gain.mean == pytest.approx(few.score.mean - few.beside["Centroid"], abs=1e-3)
        assert few.beside["Bayes"] > few.score.mean - 5 and "outer rate" in few.chosen
    else:
        assert few.gain is None and few.beside == {} and few.score.mean > 0


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    with pytest.raises(DataError, match=r"'Rigde'\. Did you mean \"Ridge\""):
        choose.main(["--only", "Rigde"])
    with pytest.raises(DataError, match="--kinds names 'images'"):
        choose.main(["--kinds", "images"])
    assert choose.main(["--quick", "--only", "centroid", "--kinds", "gaussian", "--out", str(tmp_path)]) == 0
    [run] = load_runs(tmp_path)
    assert [row.id for row in run.rows] == ["choose.gaussian.1.centroid", "choose.gaussian.5.centroid"]
    assert run.rows[0].command == "quickstudy bench choose --only Centroid --kinds gaussian --quick"
    assert set(run.rows[0].costs) == {"train", "adapt", "memory"}


def row(name, value, kind="gaussian", shots=1, unit="points", half=1.0, **more):
    return {
        "id": f"choose.{kind}.{shots}.{name.lower()}", "value": value, "ci95": [value - half, value + half],
        "unit": unit, "n": 600, "seeds": [0], "command": "x", "seconds": 1.0,
        "costs": {"train": 3.21, "adapt": 12.6, "memory": 0.031}, "note": f"{name}, {TITLES[kind]}, {shots}-shot; x",
        **more,
    }  # fmt: skip


@pytest.fixture
def made_up(tmp_path):
    best = {"baselines": {"Bayes": 95.23}}
    rows = [
        *(row("MAML", 60.0, shots=s, **best) for s in (1, 5)),
        *(row("Ridge", 61.5, shots=s, **best) for s in (1, 5)),
        *(row("ANIL", 40.0, shots=s, **best) for s in (1, 5)),
        *(row("Centroid", 50.0, shots=s, **best) for s in (1, 5)),
        row("MAML", 2.5, "sinusoid", 10, "MSE", 0.1), row("FineTune", 2.0, "sinusoid", 10, "MSE", 0.1),
    ]  # fmt: skip
    [run] = load_runs(write_run("choose", rows, tmp_path).parent)
    return run


def test_the_table_is_ordered_and_shows_who_can_t_be_told_apart(made_up):
    lines = choose_table.table(made_up.rows, numbers=False).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "`Ridge`",
        "`MAML`",
        "*`Centroid`*",
        "`ANIL`",
    ]
    assert (
        lines[2].count("**61.5 ± 1.0**") == 2
        and lines[3].count("**60.0 ± 1.0**") == 2
        and "**" not in lines[4]
    )
    assert lines[2].endswith("| 3.2 | 13 | 0.03 |") and "Gaussian classes, 5-shot" in lines[0]
    numbers = choose_table.table(made_up.rows, numbers=True).splitlines()
    assert [line.split("|")[1].strip() for line in numbers[2:]] == ["*`FineTune`*", "`MAML`"]
    more = choose_table.table(made_up.rows, numbers=True, learners=["MAML", "Ridge"])
    assert more.endswith("Not measured yet: `Ridge` (`quickstudy bench choose --only Ridge`).")
    assert choose_table.table([], numbers=False) == choose_table.findings([]) == choose_table.NOT_YET


def test_findings_name_who_stays_below_the_baselines(made_up):
    first, _, last = choose_table.findings(made_up.rows).splitlines()
    assert (
        "best `Ridge`, 61.5 ± 1.0 points (the best possible answers: 95.2); not told apart from it: `MAML`"
        in first
    )
    assert "`Centroid` has 50.0 ± 1.0; **below it stay** `ANIL`." in first
    assert "best `FineTune`, 2.00 ± 0.10 MSE" in last and "**below it stay** `MAML`." in last


def test_a_survey_is_not_among_the_bars(made_up):
    assert check([], [made_up]) == []
    assert len(check([], [Run.model_validate({**made_up.model_dump(), "suite": "classic"})])) == len(
        made_up.rows
    )
