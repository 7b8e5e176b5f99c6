"""Long training runs of the classic benchmark: they say how far they are, and go on where they were stopped."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from quickstudy.bench.text_play import Clock
from quickstudy.core.checkpoint import load_state, save_state
from quickstudy.core.dataset import Shots
from quickstudy.core.engine import Sample, meta_train
from quickstudy.core.learner import Meta, MetaLearner

KEEP_EVERY = 100
MEAN = "mean."
"""Before the names of the tensors that a kept state has of it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a training is run."""

    steps: int | None
    """None takes the method's own number."""
    quick: bool
    seed: int
    keep: Path | None
    """Where the state of training is kept, to go on from."""
    show: Callable[[Any], None]


def train(
    name: str,
    learner: MetaLearner,
    sample: Sample,
    run: Run,
    *,
    steps: int,
    rate: float = 1e-3,
    decay: bool = False,
    every: int | None = None,
    meta: Meta | None = None,
    shots: Shots | None = None,
    average: int = 0,
) -> Meta:
    """Meta-train, from `meta` or anew; every so many steps (default KEEP_EVERY) say so and keep the state.

    Args:
        shots: what `sample` draws: a state kept of other tasks is refused.
        average: if not 0, the mean over so many last steps is returned (Izmailov et al. 2018, arXiv:1803.05407).
    """
    said = {
        "learner": str(learner.to_json()),
        "run": f"{steps} steps at {rate:g}, seed {run.seed}, {shots}"
        + f", mean of {average}" * bool(average),
    }
    expect = {key: sha256(text.encode()).hexdigest() for key, text in said.items()}
    folder = None if run.keep is None else run.keep / name
    resume = load_state(folder, expect) if folder is not None and folder.exists() else None
    clock, meta = Clock(), learner.init(run.seed) if meta is None else meta
    start, mean = meta, dict[str, Tensor]()
    if resume is not None:
        meta, mean = (
            {k.removeprefix(part): v for k, v in resume.tensors.items() if k.startswith(part)}
            for part in ("meta.", MEAN)
        )
        run.show(f"{name}: going on from step {resume.step}")
    for step in meta_train(
        learner,
        sample,
        steps=steps,
        rate=rate,
        decay=decay,
        seed=run.seed,
        meta=start if resume is None else None,
        resume=resume,
    ):
        meta = step.meta
        if (number := step.number - steps + average) > 0:
            mean = {k: mean[k].lerp(v, 1 / number) if mean else v for k, v in meta.items()}
        if step.number % (every or KEEP_EVERY) == 0 or step.number == steps:
            run.show(f"{name}: step {step.number} of {steps}, loss {step.loss:.4f}, {clock.seconds:.0f} s")
            if folder is not None:
                state = step.state(**expect)
                own = {MEAN + k: v.clone() for k, v in mean.items()}
                save_state(folder, replace(state, tensors=state.tensors | own))
    return mean if average else meta
