"""What must hold of tasks before a learner is run on them; shapes cost nothing to look at, contents microseconds."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, NoReturn

import torch
from torch import Tensor

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import DataError, DivergedError, ModelError
from quickstudy.core.learner import Meta, MetaLearner


def check_tasks(learner: MetaLearner, meta: Meta, episodes: Episode, *, trains: bool = False) -> None:
    """Refuse stacked tasks that the learner can't learn from or be judged by, or that can't be meta-trained on.

    Raises:
        DataError: tasks aren't stacked, have no rows, answers that the objective doesn't know, or another precision
            than `meta`.
    """
    for name, part in zip(("support", "query"), episodes, strict=True):
        check_part(learner, meta, part, name, trains=trains)
    first, second = (len(part.mask) for part in episodes)
    if first != second:
        raise DataError(f"There are {first} supports but {second} queries; each task has one of either.")


def check_part(learner: MetaLearner, meta: Meta, part: Labelled, name: str, *, trains: bool = False) -> None:
    """The same for the supports or the queries alone, [tasks, rows, …]."""
    if part.checked().mask.ndim != 2:
        raise DataError(
            f"The {name}'s mask has shape {list(part.mask.shape)}; expected [tasks, rows]. "
            "Use quickstudy's stack([episode]) for a single task; where tasks are stacked already, give Labelled.of a "
            "mask of that shape."
        )
    if not len(part.mask):
        raise DataError("The batch holds no task; give one or more.")
    filled = part.mask.any(-1)
    if learner.objective.needs_rows and not bool(filled.all()):
        empty = int((~filled).nonzero()[0])
        use = "learn from" if name == "support" else "be judged by"
        raise DataError(
            f"Task {empty} (of {len(filled)}, from 0) has no {name} rows, so there is nothing to {use}; "
            "give one example or more, or leave the task out."
        )
    width = learner.row_width()
    if width is not None and (part.x.ndim != 3 or part.x.shape[-1] != width):
        raise DataError(
            f"The {name}'s inputs have shape {list(part.x.shape)}; {type(learner).__name__} is one for features of "
            f"{width} numbers, [tasks, rows, {width}]. Give it others, or build it with their number."
        )
    if not part.x.is_floating_point() and not learner.nets():
        kind = str(part.x.dtype).removeprefix("torch.")
        raise DataError(
            f"The {name}'s inputs are {kind}; {type(learner).__name__} takes features, real numbers: x.float()."
        )
    learner.check_answers(part, name, trains=trains)
    numbers = {value.dtype for value in meta.values() if value.is_floating_point()}
    if part.x.is_floating_point() and len(numbers) == 1 and part.x.dtype not in numbers:
        ours, theirs = (str(kind).removeprefix("torch.") for kind in (part.x.dtype, *numbers))
        raise DataError(f"The {name}'s inputs are {ours} but the parameters {theirs}; convert one of them.")


def check_finite(part: Labelled, name: str) -> None:
    """Whether inputs are numbers, of the real rows of [tasks, rows, …] or [rows, …].

    For use. In meta-training a loss that is none says more, and `evaluate` leaves the other tasks their scores.
    """
    if part.x.is_floating_point() and not bool(torch.isfinite(part.x).all()):
        bad = ~torch.isfinite(part.x).flatten(part.mask.ndim).all(-1) & part.mask
        if bool(bad.any()):
            *task, row = bad.nonzero()[0].tolist()
            where = f" of task {task[0]} (of {len(bad)}, from 0)" if task else ""
            raise DataError(
                f"Row {row} (from 0) of the {name}{where} has an input that is NaN or infinite ({int(bad.sum())} rows "
                "have). Leave such rows out, mask them, or fill in numbers."
            )


def check_batch(episodes: Any, source: str) -> None:
    """Whether these are tasks."""
    if not isinstance(episodes, Episode):
        hint = (
            " These are a pair: Episode(support, query)."
            if isinstance(episodes, tuple) and len(episodes) == 2
            else ""
        )
        raise DataError(
            f"{source} gave a {type(episodes).__name__}; expected an Episode of stacked tasks, as "
            f"dataset.sampler(Shots(…)) and stack([…]) make them.{hint}"
        )
    for part in episodes:
        if not isinstance(part, Labelled) or not all(isinstance(value, Tensor) for value in part):
            raise DataError(
                f"{source} gave an Episode whose parts aren't Labelled tensors; Labelled.of(x, y) makes them of arrays "
                "and lists."
            )


def check_run(
    learner: Any,
    sample: Any,
    *,
    optimiser: str,
    rate: float,
    weight_decay: float,
    clip: float | None,
    whole: dict[str, Any],
) -> None:
    """Whether meta-training can begin. Raises ModelError or DataError.

    Args:
        whole: settings that are whole numbers, none below 0.
    """
    if not isinstance(learner, MetaLearner):
        raise ModelError(
            f"The learner is {str(learner)[:80]!r}; expected one, such as MAML(objective=Classify(ways=5), net=net)."
        )
    if not callable(sample):
        raise DataError(
            f"sample is a {type(sample).__name__}; expected a function from a step's number to its batch of tasks, "
            "such as dataset.sampler(Shots(…))."
        )
    if optimiser not in ("adam", "sgd"):
        raise ModelError(f"optimiser={optimiser!r}; there are 'adam' and 'sgd'.")
    for name, value in whole.items():
        least = 1 if name == "threads" else 0
        if not isinstance(value, Integral) or value < least:
            raise ModelError(f"{name}={value!r}; expected a whole number, {least} or more.")
    strange = [n for n, v in {"rate": rate, "weight_decay": weight_decay}.items() if not isinstance(v, Real)]
    if strange or not (rate > 0 and weight_decay >= 0):
        raise ModelError(
            f"rate={rate!r}, weight_decay={weight_decay!r}; expected a rate above 0, the other not below."
        )
    if clip is not None and not clip > 0:
        raise ModelError(f"clip={clip}; expected a bound above 0, or None.")


def finite(loss: float, gradient: Meta) -> bool:
    """Whether a step has neither NaN nor infinity."""
    return math.isfinite(loss) and all(bool(torch.isfinite(g).all()) for g in gradient.values())


def diverged(learner: MetaLearner, step: int, losses: Tensor) -> DivergedError:
    """What to say when it has: names the step, and the tasks where their losses tell."""
    bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    some = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
    where = (
        f"the loss of task{'s' if len(bad) > 1 else ''} {some} (of {len(losses)}, from 0) isn't finite"
        if bad
        else "the losses are finite, but the meta-gradient isn't"
    )
    return DivergedError(
        f"{type(learner).__name__}, step {step}: {where}. Look for inputs that aren't finite; otherwise take a lower "
        f"rate, outer or inner, or bound the meta-gradient by clip=1. What was learned up to step {step - 1} is whole.",
        step=step,
        tasks=bad,
    )


def no_derivative(learner: MetaLearner, problem: BaseException) -> ModelError | None:
    """What to say where an error means that torch can't differentiate a layer as often as is needed, else None."""
    if "derivative for" not in str(problem) or "not implemented" not in str(problem):
        return None
    return ModelError(
        f"torch can't differentiate a layer of {type(learner).__name__}'s network as often as its steps need: "
        f"{problem} Take second_order=False where the learner has it, or make the layer of others (nn.Embedding and a "
        "mean for nn.EmbeddingBag)."
    )


@contextmanager
def untouched(learner: MetaLearner, parts: Sequence[Labelled]) -> Iterator[None]:
    """Within this block, inputs stay what they are. Raises ModelError where a network has written into them."""
    # torch counts what is written into a tensor; not into one made under inference_mode.
    watched = [part.x for part in parts if not part.x.is_inference()]
    before = [x._version for x in watched]
    try:
        yield
    except RuntimeError as problem:
        if "modified by an inplace operation" not in str(problem):
            raise
        raise _writes(learner) from problem
    if [x._version for x in watched] != before:
        raise _writes(learner)


def _writes(learner: MetaLearner) -> ModelError:
    return ModelError(
        f"{type(learner).__name__}'s network writes into its inputs or into what a gradient still needs, so tasks are "
        "no longer what they were. Look for x += …, x[…] = …, methods that end in _ and inplace=True in its forward "
        "pass: x = x + … makes a new tensor."
    )


def too_big(problem: BaseException) -> bool:
    """Whether an error says that memory is used up."""
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(
        problem
    )


def out_of_memory(
    learner: MetaLearner, parts: Sequence[Labelled], problem: BaseException, *, trains: bool = True
) -> NoReturn:
    """Raises ModelError: a single task, its support or that and its query, is too big, where one `trains` or not."""
    rows = [f"{part.mask.shape[1]} {name}" for part, name in zip(parts, ("support", "query"), strict=False)]
    more = (
        "; or, for learners that take their inner steps by `descend` or `inner_step`, recompute=True keeps the weights "
        "of each step alone, and second_order=False, where there is that, none"
    )
    raise ModelError(
        f"One task of {' and '.join(rows)} rows doesn't fit into memory with {type(learner).__name__}. Give fewer "
        f"rows a task{more if trains else ''}."
    ) from problem
