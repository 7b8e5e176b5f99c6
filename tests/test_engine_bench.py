"""The engine's benchmark: its ways agree on tiny jobs; rows and tables come out of made-up timings as they should."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
import torch
from rich.console import Console
from torch import nn

import quickstudy.learners
from quickstudy.bench import child, engine, engine_exact, engine_jax, engine_peers, engine_run
from quickstudy.bench.bars import load_bars
from quickstudy.bench.engine_jobs import (
    COMPILED,
    FIVE_WAYS,
    JAX,
    JOBS,
    LEARN2LEARN,
    LOOP,
    OURS,
    STACKED,
    VMAP,
    WAYS,
    Absent,
    Job,
    Problem,
    conv4,
    error,
    form_of,
    generic,
    loop,
    own_conv4,
    own_ways,
)
from quickstudy.bench.engine_peers import PARALLEL
from quickstudy.bench.engine_run import Measured, Timing
from quickstudy.bench.engine_table import as_markdown, as_table, cells, details, exact_row, rows
from quickstudy.bench.runs import load_run, write_run
from quickstudy.core.errors import DataError, ModelError, QuickstudyError
from quickstudy.nets import MLP

SMALL = {"tasks": 3, "steps": 2}
TINY = Job(
    title="tiny",
    net=lambda: MLP(inputs=4, outputs=WAYS, hidden=(6, 6)),
    shape=(4,),
    query=10,
    peers=False,
    base=LOOP,
    **SMALL,
)


# -- jobs


@pytest.mark.parametrize("name", JOBS)
def test_every_way_without_a_peer_computes_the_loops_gradient(name):
    job = replace(JOBS[name], steps=2)
    if name.startswith("conv"):
        job = replace(job, net=partial(own_conv4, 2), plain=partial(conv4, 2))
    problem = Problem(job, torch.float64, tasks=2)
    expected = loop(problem)()
    for way, make in own_ways(problem).items():
        if way == COMPILED and name not in ("module", "sinusoid"):  # a minute each; one of each kind will do
            continue
        off = 1e-3 if way == VMAP and name in ("module", "conv-32", "conv-64") else 1e-12
        try:
            assert error(make(problem)(), expected) < 10 * off, way
        except Absent:
            assert way == COMPILED


def test_the_loop_is_right_by_finite_differences():
    problem = Problem(TINY, torch.float64)
    gradient = loop(problem)()
    direction = [
        torch.randn(g.shape, dtype=g.dtype, generator=torch.Generator().manual_seed(1)) for g in gradient
    ]

    def total(scale):
        shifted = [v + scale * d for v, d in zip(problem.start.values(), direction, strict=True)]
        losses = []
        for x, y, x_query, y_query in problem.each():
            fast = [v.clone().requires_grad_() for v in shifted]
            for _ in range(TINY.steps):
                slopes = torch.autograd.grad(problem.loss(run(fast, x), y), fast)
                fast = [
                    (v - TINY.rate * s).detach().requires_grad_() for v, s in zip(fast, slopes, strict=True)
                ]
            losses.append(problem.loss(run(fast, x_query), y_query).item())
        return sum(losses) / len(losses)

    def run(params, x):
        w1, b1, w2, b2, w3, b3 = params
        return (torch.relu(torch.relu(x @ w1.T + b1) @ w2.T + b2)) @ w3.T + b3

    slope = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert (total(1e-6) - total(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_jobs_have_the_sizes_of_the_issue():
    sizes = {
        "sinusoid": (25, 10, 10, (1,)), "mlp-16": (16, 5, 75, (384,)), "mlp-64": (64, 5, 75, (384,)),
        "mlp-128": (64, 25, 75, (384,)), "conv-32": (16, 5, 75, (1, 28, 28)), "conv-64": (16, 5, 75, (1, 28, 28)),
        "module": (16, 5, 75, (384,)), "loop-1": (16, 5, 75, (384,)), "loop-5": (16, 25, 75, (384,)),
    }  # fmt: skip
    assert {n: (j.tasks, j.support, j.query, j.shape) for n, j in JOBS.items()} == sizes
    assert all(job.steps == 5 for job in JOBS.values())
    forms = {
        name: form_of(Problem(job, tasks=2)) for name, job in JOBS.items() if not name.startswith("conv")
    }
    assert {name for name, form in forms.items() if form != "dual"} == {"module"}


def test_every_problem_draws_the_same_numbers_in_both_precisions_and_holds_every_class():
    single, double = (Problem(JOBS["module"], dtype, tasks=2) for dtype in (torch.float32, torch.float64))
    for a, b in zip(single.start.values(), double.start.values(), strict=True):
        assert torch.equal(a.double(), b)
    assert torch.equal(single.episodes.support.x, double.episodes.support.x.float())
    assert single.episodes.support.y.sort(-1).values.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_pooling_before_the_relu_is_the_same_function():
    early, late = conv4(4, pool_first=True), conv4(4)
    late.load_state_dict(dict(zip(late.state_dict(), early.state_dict().values(), strict=True)))
    x = torch.randn(3, 1, 28, 28)
    assert torch.equal(early(x), late(x))


# -- peers


def installed(name):
    return name in engine_peers.versions()


@pytest.mark.parametrize("way", [LEARN2LEARN, "higher", "TorchOpt", PARALLEL, JAX])
def test_a_peer_computes_the_loops_gradient_or_says_what_is_missing(way):
    job = replace(
        TINY, net=lambda: MLP(inputs=4, outputs=WAYS, hidden=(6,)), steps=1
    )  # JAX compiles for long
    problem = Problem(job)
    make = engine_peers.peer_ways(problem)[way]
    if installed(way):
        assert error(make(problem)(), loop(problem)()) < 1e-5
    else:
        with pytest.raises(Absent, match="make peers"):
            make(problem)


@pytest.mark.skipif(not installed(PARALLEL), reason="parallel-metalearn isn't installed")
def test_parallel_metalearn_is_wrong_through_layer_norm_alone():
    layer, batch = (Problem(engine_exact.JOBS[norm], torch.float64) for norm in ("layer", "batch"))
    assert error(engine_peers.parallel_metalearn(layer)(), loop(layer)()) > 1e-4
    assert error(engine_peers.parallel_metalearn(batch)(), loop(batch)()) < 1e-12


@pytest.mark.skipif(not installed(JAX), reason="jax isn't installed")
@pytest.mark.parametrize("norm", engine_exact.JOBS)
def test_layers_written_out_for_jax_are_those_of_torch(norm):
    import numpy as np

    problem = Problem(engine_exact.JOBS[norm])
    module, x = problem.module(), problem.episodes.query.x[0]
    found = engine_jax._network(module)([p.detach().numpy() for p in module.parameters()], x.numpy())
    assert np.allclose(np.asarray(found), module(x).detach().numpy(), atol=1e-5)


def test_a_layer_that_is_not_written_out_for_jax_is_named(monkeypatch):
    jax, numpy = ModuleType("jax"), ModuleType("jax.numpy")
    jax.numpy = numpy
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setitem(sys.modules, "jax.numpy", numpy)
    with pytest.raises(Absent, match="Softplus"):
        engine_jax._network(nn.Sequential(nn.Softplus()))


# -- measuring


def test_a_tiny_job_is_measured(monkeypatch):
    found = engine_run.run("tiny", TINY, seconds=0, rounds=2, memory=False)
    assert found.form == "stacked" or found.form == "dual"
    assert {OURS, LOOP, VMAP} <= set(found.ways) and COMPILED not in found.ways
    assert all(len(t.rounds) == 2 and t.least <= t.median and t.error < 1e-5 for t in found.ways.values())
    assert 0 < found.limit < found.ways[OURS].least and found.gigaflops > 0
    assert Measured.of(found.as_json()) == found
    # A row costs a forward pass and, backward, one to two more; an inner step's is differentiated once again.
    forward = 2 * (4 * 6 + 6 * 6 + 6 * WAYS)
    least, most = (
        3 * forward * (TINY.support * TINY.steps * k + TINY.query * q) for k, q in ((2, 2), (10, 3))
    )
    assert least < found.gigaflops * 1e9 < most


def test_our_own_wrong_gradient_stops_the_benchmark(monkeypatch):
    monkeypatch.setattr(engine_run, "error", lambda *_: 0.5)
    with pytest.raises(ModelError, match="tiny, quickstudy: the gradient differs"):
        engine_run.run("tiny", TINY, seconds=0, rounds=1, memory=False)


def test_a_peer_that_trips_is_absent_and_one_of_ours_is_an_error(monkeypatch):
    def trip(problem):
        raise AttributeError("numpy has no float\nanymore")

    every = engine_run.makers(Problem(TINY))
    monkeypatch.setattr(engine_run, "makers", lambda problem: {**every, "higher": trip})
    found = engine_run.run("tiny", TINY, seconds=0, rounds=1, memory=False)
    assert "higher" not in found.ways and found.absent == {"higher": "AttributeError: numpy has no float"}
    monkeypatch.setattr(engine_run, "makers", lambda problem: {**every, OURS: trip})
    with pytest.raises(AttributeError):
        engine_run.run("tiny", TINY, seconds=0, rounds=1, memory=False)


def test_a_way_that_takes_no_part_is_told_with_its_reason():
    found = engine_run.run(
        "tiny", replace(TINY, without={VMAP: "too slow"}), seconds=0, rounds=1, memory=False
    )
    assert VMAP not in found.ways and found.absent == {VMAP: "too slow"}


@pytest.mark.slow
def test_memory_grows_with_what_a_way_keeps():
    job = replace(JOBS["mlp-16"], peers=False, base=LOOP)
    peaks = engine_run._peaks(job, [LOOP, VMAP])
    assert 0 <= peaks[LOOP] < peaks[VMAP] < 500


# -- rows and tables from made-up timings


def made_up(job, **least):
    names = {
        "ours": OURS,
        "compiled": COMPILED,
        "jax": JAX,
        "l2l": LEARN2LEARN,
        "pm": PARALLEL,
        "vmap": VMAP,
        "loop": LOOP,
    }
    ways = {names[k]: Timing([v, 2 * v, 4 * v], 1e-7, 1.5, 10 * v) for k, v in least.items()}
    return Measured(
        job, "dual", ways, {"higher": "is not installed"}, 0.5, 5.0, 100.0, {"torch": "2.13.0"}, 12.0
    )


def test_ratios_go_to_their_rows():
    found = made_up("mlp-16", ours=10, compiled=5, jax=20, l2l=100, pm=40)
    found.ways[PARALLEL].error = 2.0e-3
    first, second, ahead = rows(found, "python benchmarks/engine.py")
    assert (first.id, first.value, first.unit, first.n) == ("learners.2.1", 10, "x", 3)
    assert first.baselines == {
        COMPILED: 20, JAX: 5, LEARN2LEARN: 1, PARALLEL: 2.5, "matmul peak": 20, f"{PARALLEL}: gradient off by": 0.002,
    }  # fmt: skip
    assert "quickstudy 10 / 20 ms, + 100 MB" in first.note and "50% of our time" in first.note
    assert "higher (is not installed)" in first.note and "(10.00 by medians)" in first.note
    assert (second.id, second.value) == ("learners.2.2", 20) and "the first step takes 2 s" in second.note
    assert (ahead.id, ahead.value) == ("learners.2.4", 4)  # the better of ours


def test_without_a_compiled_step_or_jax_their_rows_are_not_there():
    assert [r.id for r in rows(made_up("mlp-16", ours=10, l2l=100), "x")] == ["learners.2.1"]
    assert [r.id for r in rows(made_up("mlp-16", ours=10, jax=5, l2l=100), "x")] == [
        "learners.2.1",
        "learners.2.4",
    ]


def test_without_the_base_there_is_no_row():
    assert rows(made_up("mlp-16", ours=10, jax=20), "x") == []
    assert [r.id for r in rows(made_up("loop-1", ours=10, loop=50), "x")] == ["core.7.1"]


def test_memory_is_ours_over_theirs():
    *_, row = rows(made_up("mlp-128", ours=10, l2l=100, vmap=80), "x")
    assert (row.id, row.value, row.n) == ("learners.5.2", 0.125, 1)
    assert row.baselines == {LEARN2LEARN: 1.25, VMAP: 1.0}
    *_, row = rows(made_up("conv-64", ours=30, l2l=20), "x")
    assert (row.id, row.value) == ("learners.5.1", 1.5)


def exact_found():
    figures = [{"who": "MAML", "norm": "layer", "form": "stacked", "error": 3e-15},
               {"who": "ANIL", "norm": "none", "form": "dual", "error": 1e-15}]  # fmt: skip
    peers = [{"who": PARALLEL, "norm": "layer", "form": "", "error": 2.6e-3},
             {"who": PARALLEL, "norm": "none", "form": "", "error": 1e-16},
             {"who": LEARN2LEARN, "norm": "layer", "form": "", "error": 0.0}]  # fmt: skip
    return {
        "ours": figures,
        "peers": peers,
        "left_out": {"LEO": "its field 'x' has no default"},
        "versions": {},
    }


def test_the_row_of_exactness():
    row = exact_row(exact_found(), "x", 1.0)
    assert (row.id, row.value, row.unit, row.n) == ("learners.12.1", 3e-15, "relative", 2)
    assert row.baselines == {PARALLEL: 2.6e-3, f"{PARALLEL} (layer)": 2.6e-3, LEARN2LEARN: 0.0}
    assert "LEO (its field 'x' has no default)" in row.note


def test_docs_and_terminal_show_the_same_cells(tmp_path):
    found = made_up("mlp-16", ours=10, compiled=5, jax=20, l2l=100, pm=40)
    found.ways[PARALLEL].error = 2.0e-3
    measured = [
        *rows(found, "x"), *rows(made_up("loop-1", ours=10, loop=50), "x"),
        *rows(made_up("conv-64", ours=30, l2l=20), "x"), exact_row(exact_found(), "x", 1.0),
    ]  # fmt: skip
    kept = load_run(write_run("engine", measured, tmp_path)).rows  # the docs know the run file alone
    head, first, conv, last = cells(kept)
    assert head == ["", OURS, COMPILED, JAX, PARALLEL, LEARN2LEARN, LOOP, "matmul peak"]
    assert first == [JOBS["mlp-16"].title, "10", "20", "5", "2.5 (wrong by 0.002)", "1", "", "20"]
    assert conv[0] == JOBS["conv-64"].title and last == [JOBS["loop-1"].title, "5", "", "", "", "", "1", "10"]
    text = as_markdown(kept)
    assert "| MLP 384-64-64-5, 1-shot, 16 tasks | 10 | 20 | 5 |" in text
    assert "1.5 times that of learn2learn" in text
    assert "over 2 meta-gradients" in text and "3e-15" in text and f"{PARALLEL} (layer) 0.0026" in text
    shown = "".join(s.text for s in Console(width=250).render(as_table(kept)))
    assert all(cell in shown for line in (head, first, conv, last) for cell in line)
    assert "50%" in "".join(s.text for s in Console(width=250).render(details(found)))


def test_nothing_measured_says_what_to_run():
    assert "make peers" in as_markdown([])
    as_table([])


def test_the_bars_have_a_row_that_the_benchmark_writes():
    written = {job.eager for job in JOBS.values()} | {job.compiled for job in JOBS.values()}
    written |= {"learners.2.4", "learners.5.1", "learners.5.2", "learners.12.1"}
    mine = {f"learners.{i}." for i in (1, 2, 3, 4, 5, 12, 13)} | {"core.7."}
    asked = {bar.id for bar in load_bars() if bar.id.startswith(tuple(mine))}
    assert asked == written - {"", "core.7.five-shot"}


# -- exactness


@pytest.mark.slow
def test_every_learner_that_follows_a_gradient_is_compared_through_every_norm_layer():
    left_out = {}
    figures = list(engine_exact.own_figures(left_out))
    assert left_out == {}
    assert max(f.error for f in figures) < 1e-12
    for name in quickstudy.learners.__all__:
        kind = getattr(quickstudy.learners, name)
        learner = engine_exact.built(kind, "none")
        through = {f.norm for f in figures if f.who == name}
        if not learner.trainable(learner.init(0)):
            assert through == set(), name
        else:
            assert through == set(engine_exact.norms(kind)), name
    assert {f.form for f in figures if f.who == "MAML"} == {"dual", "hybrid", "stacked", "loop"}
    assert {f.norm for f in figures if f.who == "MAML, written out"} == set(engine_exact.JOBS)


def test_the_obvious_form_is_caught(monkeypatch):
    figures = {(f.who, f.norm): f.error for f in engine_exact.peer_figures({}) if f.who == VMAP}
    wrong = {norm for (_, norm), off in figures.items() if off > 1e-6}
    assert wrong == {"layer", "batch", "batch, images", "instance, images"}


# -- the command


def test_without_peers_a_job_that_needs_them_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv(engine.PYTHON, raising=False)
    monkeypatch.setattr(engine, "benchmarks_folder", lambda: tmp_path / "benchmarks")
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="make peers"):
        engine.main(["--only", "sinusoid", "--dry"])


def test_without_peers_the_rest_is_measured(monkeypatch, tmp_path, capsys):
    asked = []

    def answer(python, program, folder, job, **more):
        asked.append((python, job["job"]))
        return exact_found() if job["job"] == "exact" else made_up(job["job"], ours=10, loop=50).as_json()

    monkeypatch.setattr(engine, "peers_python", lambda named: None)
    monkeypatch.setattr(engine.child, "answer", answer)
    monkeypatch.setattr(engine, "write_run", lambda suite, made: write_run(suite, made, tmp_path))
    assert engine.main([]) == 0
    assert asked == [(sys.executable, name) for name in ("loop-1", "loop-5", "exact")]
    assert [row.id for row in load_run(tmp_path / "engine.json").rows] == [
        "core.7.1",
        "core.7.five-shot",
        "learners.12.1",
    ]
    assert "make peers" in capsys.readouterr().out


def test_an_interpreter_is_named_made_or_this_one(monkeypatch, tmp_path):
    monkeypatch.delenv(engine.PYTHON, raising=False)
    monkeypatch.setattr(engine, "benchmarks_folder", lambda: tmp_path / "benchmarks")
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert engine.peers_python() is None
    monkeypatch.setattr(engine, "find_spec", lambda name: object())
    assert engine.peers_python() == sys.executable
    made = tmp_path / ".venv-peers" / "bin" / "python"
    made.parent.mkdir(parents=True)
    made.touch()
    assert engine.peers_python() == str(made)
    monkeypatch.setenv(engine.PYTHON, sys.executable)
    assert engine.peers_python() == sys.executable
    with pytest.raises(DataError, match=r"nowhere.*make peers"):
        engine.peers_python("nowhere")


def test_jobs_are_chosen_by_name_or_row():
    assert engine.chosen(None) == [*JOBS, "exact"]
    assert engine.chosen("learners.2") == ["mlp-16", "mlp-64"]
    assert engine.chosen("learners.5,sinusoid") == ["sinusoid", "mlp-128", "conv-64"]
    assert engine.chosen("core.7.1,learners.12") == ["loop-1", "exact"]
    with pytest.raises(DataError, match=r"no job or row 'sinusoids'\. Did you mean \"sinusoid\""):
        engine.chosen("sinusoids")


def test_a_child_that_fails_says_why(tmp_path):
    with pytest.raises(QuickstudyError, match="there is no job"):
        child.answer(sys.executable, ["-c", "raise SystemExit('there is no job')"], tmp_path, {}, threads=1)
    with pytest.raises(QuickstudyError, match="can't be run"):
        child.answer(str(tmp_path / "python"), [], tmp_path, {}, threads=1)


@pytest.mark.slow
def test_a_job_is_measured_in_a_process_of_its_own(tmp_path):
    job = {"job": "loop-1", "seconds": 0, "rounds": 1, "memory": False}
    program = ["-m", "quickstudy.bench.engine_run"]
    answer = child.answer(sys.executable, program, tmp_path, job, threads=1, environment=child.with_source())
    [row] = rows(Measured.of(answer), "python benchmarks/engine.py")
    assert row.id == "core.7.1" and row.value > 1 and STACKED in row.baselines


def test_the_command_line_knows_it():
    done = subprocess.run(
        [sys.executable, "benchmarks/engine.py", "--only", "nonsense"], capture_output=True, text=True,
        cwd=child.SOURCE.parent, env={**child.os.environ, **child.with_source()}, timeout=120,
    )  # fmt: skip
    assert (
        done.returncode == 1 and "no job or row 'nonsense'" in done.stderr and "Traceback" not in done.stderr
    )


def test_a_module_of_somebodys_own_has_no_dual_form():
    job = Job(title="", net=generic, **SMALL)
    assert form_of(Problem(job)) == "stacked" and job.objective == FIVE_WAYS
