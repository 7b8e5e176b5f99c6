"""core.5: adapting to 77 intents of ten sentences each from raw text, SetFit's default training against ours.

Both start from the same encoder's weights, with the same number of threads, each in a process of its own. Timed is
training alone, once everything is loaded. SetFit's default makes hundreds of thousands of pairs here, which takes many
hours on a CPU, so by default three things are measured instead:

1. how many steps its default takes (from how it draws pairs), and the seconds of a step over real ones: their product
   is its time, projected, and marked so;
2. SetFit trained for `BUDGET` times our time (`MOST_SECONDS` at most), on a schedule that ends there, with its
   accuracy; the note says how many times our time it got;
3. the memory of both.

SetFit: Tunstall et al. 2022, arXiv:2209.11055.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.bench import child, setfit_run
from quickstudy.bench.data import take
from quickstudy.bench.leaks import audit
from quickstudy.bench.text_play import Clock, Findings, Setting, audit_row, plain
from quickstudy.bench.text_ways import draw, without
from quickstudy.core.errors import missing_extra
from quickstudy.core.report import Estimate, paired
from quickstudy.domains.text.read import Examples
from quickstudy.encoders import weights

BUDGET = 50
"""SetFit may train for so many times our time."""
MOST_SECONDS = 360
"""But no longer than this, of computing."""
UNTUNED = ".untuned"
"""Rows of `tune=False`: without tuning the encoder on the task, which is most of the time and a part of the gain."""
PROBE = 40
"""Steps of the run that a step's time is taken from; the first ten are warm-up."""
PYTHON = "QUICKSTUDY_SETFIT_PYTHON"


def setfit_python() -> str:
    """The interpreter that has setfit: this one, or the one that QUICKSTUDY_SETFIT_PYTHON names.

    Raises MissingExtra when neither is there.
    """
    if named := os.environ.get(PYTHON):
        return named
    if find_spec("setfit") is None:
        raise missing_extra("setfit", "setfit")
    return sys.executable


def against_setfit(
    setting: Setting,
    clinc: Examples,
    train: Examples,
    test: Examples,
    *,
    shots: int = 10,
    threads: int = 1,
    steps: int | None = None,
    full: bool = False,
) -> Findings:
    """core.5.1 (time of SetFit's default ÷ ours) and core.5.2 (our accuracy - SetFit's).

    Args:
        steps: train SetFit for so many steps instead of `BUDGET` times our time.
        full: train it whole, for hours; then nothing is projected.

    Raises:
        MissingExtra: setfit isn't installed.
    """
    python, clock = setfit_python(), Clock()
    both = Examples([*train.texts, *test.texts], [*train.labels, *test.labels], source="BANKING77")
    (clinc,), found = audit("core.5", [clinc], both, encode=setting.base.encode)
    train, _ = without(train, test)
    support = take(train, draw(train, shots, setting.seed))
    common = {
        "texts": support.texts, "labels": support.labels, "test": test.texts,
        "threads": threads, "seed": setting.seed,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        setting.teach([clinc]).save(folder / "prior")
        ours = {}
        for suffix, tune, repeats in (("", "auto", 1), (UNTUNED, False, 1 if setting.quick else 3)):
            runs = [
                _child(sys.executable, ["-m", "quickstudy.bench.peers"], folder,
                       {**common, "prior": str(folder / "prior"), "tune": tune,
                        "cache": str(folder / f"cache{suffix}{i}")}, threads)
                for i in range(repeats)
            ]  # fmt: skip
            ours[suffix] = mine = sorted(runs, key=lambda run: run["cpu_seconds"])[repeats // 2]
            setting.show(
                f"Ours, tune={tune!r}: {mine['seconds']:.1f} s ({mine['cpu_seconds']:.1f} s of computing), "
                f"{mine['peak_mb']:.0f} MB, by {mine['chosen']}"
            )
        job = {**common, "folder": str(weights.find(setting.encoder)[0]), "scratch": str(folder / "setfit")}
        program = [str(Path(setfit_run.__file__))]
        probe_steps = 3 if setting.quick else PROBE
        # Its accuracy is not used: predicting one sentence is enough.
        probe = _child(python, program, folder, {**job, "test": test.texts[:1], "max_steps": probe_steps,
                       "warm_up": min(10, probe_steps - 2)}, threads)  # fmt: skip
        step = Estimate.of(probe["step_cpu_seconds"])
        setting.show(
            f"SetFit: {step.mean:.2f} s of computing a step of {probe['default_steps']:,} by default"
        )
        if full:
            budget = None
        elif setting.quick:
            budget = steps or 3
        else:
            slowest = max(run["cpu_seconds"] for run in ours.values())
            budget = steps or max(1, int(min(BUDGET * slowest, MOST_SECONDS) / step.mean))
        theirs = _child(python, program, folder, {**job, "max_steps": budget, "warm_up": 0}, threads)
    findings = Findings(audits=[found])
    command = "quickstudy bench text --only core.5"
    command += " --full-setfit" if full else f" --setfit-steps {steps}" if steps else ""
    findings.rows.append(audit_row("core.5.leaks", [found], command, clock.seconds))
    shared = {"command": command, "seconds": clock.seconds, "seeds": [setting.seed]}
    for suffix, mine in ours.items():
        findings.rows += _rows(
            mine, probe, theirs, test.labels, full=full, threads=threads, suffix=suffix, shared=shared
        )
    for made in findings.rows[1:]:
        setting.show(f"{made['id']}: {made['value']:.1f} {made['unit']} · {made['note']}")
    return findings


def _rows(
    mine: dict[str, Any],
    probe: dict[str, Any],
    theirs: dict[str, Any],
    truth: Sequence[str],
    *,
    full: bool,
    threads: int,
    suffix: str = "",
    shared: dict[str, Any],
) -> list[dict[str, Any]]:
    """Both rows of one way to adapt, from what the processes gave."""
    own, steps = mine["cpu_seconds"], probe["default_steps"]
    step = Estimate.of(probe["step_cpu_seconds"])
    walls = statistics.mean(probe["step_seconds"])
    whole = theirs["cpu_seconds"] if full else steps * step.mean
    ratio = Estimate(whole / own, float("nan") if full else steps * step.half / own, step.n)
    right = [np.asarray(run["predictions"]) == np.asarray(truth) for run in (mine, theirs)]
    accuracy = [float(hit.mean() * 100) for hit in right]
    versions = ", ".join(f"{name} {version}" for name, version in theirs["versions"].items())
    time_note = (
        f"{'measured' if full else 'PROJECTED'}: SetFit's default makes {probe['default_pairs']:,} pairs, "
        f"{steps:,} steps of {probe['batch']}; a step takes {step.mean:.3f} s of computing, mean of {step.n} real ones "
        f"({walls:.3f} s on the wall): {whole:,.0f} s in all. Ours, tune={mine['tune']}: {own:.2f} s of computing "
        f"({mine['seconds']:.2f} s on the wall), to encode (nothing cached), choose by folds and fit. Loading is "
        f"counted on neither side (ours {mine['load_seconds']:.1f} s). Threads: {threads} each. Peak memory: ours "
        f"{mine['peak_mb']:.0f} MB, SetFit {theirs['peak_mb']:.0f} MB after {theirs['steps']:,} steps. {versions}"
    )
    part = "" if full else f" of the {steps:,} of its default, on a schedule that ends there"
    unknown = (
        "" if full else "; NOT measured: what SetFit reaches after its whole default training (--full-setfit)"
    )
    accuracy_note = (
        f"ours {accuracy[0]:.1f} ({mine['chosen']}), SetFit {accuracy[1]:.1f} after {theirs['steps']:,} steps{part}: "
        f"{theirs['cpu_seconds']:.0f} s of computing, {theirs['cpu_seconds'] / own:.1f}× ours; official test part; "
        f"the interval is over its sentences{unknown}"
    )
    difference = paired(right[0] * 100.0, right[1] * 100.0)
    rivals = {"SetFit": round(accuracy[1], 3)}
    return [
        plain("core.5.1" + suffix, ratio, unit="x", note=time_note, **shared),
        plain("core.5.2" + suffix, difference, unit="points", note=accuracy_note, baselines=rivals, **shared),
    ]


def _child(
    python: str, program: Sequence[str], folder: Path, job: dict[str, Any], threads: int
) -> dict[str, Any]:
    """Run a program on a job in a process of its own. Raises QuickstudyError with the end of what it said."""
    more = child.with_source() | {"QUICKSTUDY_CACHE": job["cache"]} if "cache" in job else {}
    return child.answer(python, program, folder, job, threads=threads, environment=more)


def _adapt(job: dict[str, Any]) -> dict[str, Any]:
    """Our side, in a process of its own: a classifier from raw texts, with an empty embedding cache."""
    start = setfit_run.clocks()
    import torch

    torch.set_num_threads(job["threads"])
    from quickstudy.domains.text.prior import Prior, encoder_for
    from quickstudy.domains.text.use import FewShotTextClassifier

    prior = Prior.load(job["prior"])
    encoder_for(prior.encoder)
    load, _ = setfit_run.since(start)
    start = setfit_run.clocks()
    model = FewShotTextClassifier(prior, tune=job["tune"], random_state=job["seed"])
    model.fit(job["texts"], job["labels"])
    seconds, cpu_seconds = setfit_run.since(start)
    found = [str(answer) for answer in model.predict(job["test"])]
    return {
        "load_seconds": load, "seconds": seconds, "cpu_seconds": cpu_seconds, "predictions": found,
        "chosen": model.choice_.chosen.name, "tune": str(job["tune"]), "peak_mb": setfit_run.peak_megabytes(),
    }  # fmt: skip


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_adapt(json.loads(Path(sys.argv[1]).read_text()))))
