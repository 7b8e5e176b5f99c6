"""How far examples scatter within classes and class means between them: what the Gaussian prior is made of."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError
from quickstudy.core.learner import Meta
from quickstudy.core.net import full_precision


def numbered(tasks: Sequence[Labelled]) -> tuple[list[Labelled], list[Tensor]]:
    """Tasks in float64 without padding, classes numbered from 0 without gaps; and the numbers that each had before.

    Raises DataError when no task has two classes and two examples of one.
    """
    tasks = [task.trimmed() for task in tasks]
    present = [task.y.unique() for task in tasks]
    if not any(len(task.y) > len(c) > 1 for task, c in zip(tasks, present, strict=True)):
        raise DataError(
            "A prior needs a past task of two classes, one with two examples or more; there is none."
        )
    plain = [task._replace(x=task.x.double(), y=task.y.unique(return_inverse=True)[1]) for task in tasks]
    return plain, present


def class_means(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each class, and how many examples it has."""
    counts = torch.bincount(y)
    sums = torch.zeros(len(counts), x.shape[1], dtype=x.dtype).index_add(0, y, x)
    return sums / counts.unsqueeze(1), counts


def degrees(task: Labelled) -> int:
    """Degrees of freedom of the scatter within classes."""
    return len(task.y) - len(task.y.unique())


def scatter_within(task: Labelled) -> Float[Tensor, "d d"]:
    """The pooled covariance of examples around the mean of their class."""
    means, _ = class_means(task.x, task.y)
    residual = task.x - means[task.y]
    return residual.t() @ residual / degrees(task)


def scatter_between(task: Labelled) -> Float[Tensor, "d d"]:
    """The scatter of class means, less what the scatter within classes adds to it; its basis has Σ_w near I."""
    means, counts = class_means(task.x, task.y)
    apart = means - means.mean(0)
    excess = (1 / counts.double()).mean() * (
        scatter_within(task) if degrees(task) else torch.eye(means.shape[1]).double()
    )
    return apart.t() @ apart / max(1, len(means) - 1) - excess


def joint_basis(
    tasks: Sequence[Labelled], classes: int, within_strength: float, between_strength: float
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
    """The basis in which the scatter within classes is I and the scatter between them diagonal, and that diagonal.

    Args:
        tasks: past tasks, each with one vote.
        classes: how many classes they hold, against which the strengths of shrinking are weighed.
    """
    if not all(bool(torch.isfinite(task.x).all()) for task in tasks):
        raise DataError("Past tasks hold inputs that aren't finite; leave those rows out.")
    spread = [task for task in tasks if degrees(task)]
    within = torch.stack([scatter_within(task) for task in spread]).mean(0)
    # Examples that all encode alike have no scatter; features of length 1 never truly have less than this.
    floor = 1e-4 / len(within) * torch.eye(len(within), dtype=within.dtype)
    values, vectors = torch.linalg.eigh(shrink(within, trust(within_strength, classes)) + floor)
    whiten = vectors * values.clamp(min=1e-10).rsqrt() @ vectors.t()
    white = [task._replace(x=task.x @ whiten) for task in tasks]
    # Shrunk, it isn't quite I there; one number brings the average direction to 1.
    unit = torch.stack([scatter_within(task) for task in white if degrees(task)]).mean(0).diagonal().mean()
    between = torch.stack([scatter_between(task) for task in white if len(task.y.unique()) > 1]).mean(0)
    values, vectors = torch.linalg.eigh(shrink(between, trust(between_strength, classes)) / unit)
    return whiten @ vectors / unit.sqrt(), values.clamp(min=1e-3 * float(values.mean().clamp(min=1e-6)))


def joined(one: Meta, other: Meta, share: float) -> Meta:
    """A prior of the Gaussian learner from two: covariances and means averaged, with `share` (0 to 1) of the other."""
    both = [{name: value.double() for name, value in meta.items()} for meta in (one, other)]
    weights = (1 - share, share)
    backs = [torch.linalg.inv(meta["basis"]) for meta in both]  # z = x basis, so x = z back

    def mean(values: Sequence[Tensor]) -> Tensor:
        return sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros_like(values[0]))

    meta = {name: mean([m[name] for m in both]) for name in both[0]}
    within = mean([back.t() @ back for back in backs])
    between = mean([back.t() * m["between"] @ back for back, m in zip(backs, both, strict=True)])
    values, vectors = torch.linalg.eigh(within)
    whiten = vectors * values.clamp(min=1e-10).rsqrt() @ vectors.t()
    values, vectors = torch.linalg.eigh(whiten @ between @ whiten)
    meta["basis"], meta["between"] = whiten @ vectors, values.clamp(min=1e-6)
    for name in ("mean", "shift"):
        meta[name] = mean([m[name] @ back for m, back in zip(both, backs, strict=True)]) @ meta["basis"]
    return {name: value.float() for name, value in meta.items()}


def trust(strength: float, classes: int) -> float:
    """How far to shrink: as an inverse-Wishart prior does, its degrees of freedom counted in classes."""
    return strength / (strength + classes)


def shrink(matrix: Float[Tensor, "d d"], amount: float) -> Float[Tensor, "d d"]:
    """Draw a covariance to the multiple of I of the same trace."""
    size = len(matrix)
    return (1 - amount) * matrix + amount * matrix.trace() / size * torch.eye(size, dtype=matrix.dtype)


def fit_descriptions(pairs: Sequence[tuple[Tensor, Tensor]]) -> Meta:
    """How descriptions relate to class means: d = slope (m - mean) + shift + noise, fitted within each task.

    Args:
        pairs: for each task, descriptions [classes, d] (NaN where there is none) and the means of their classes.

    Returns:
        Nothing when no task describes two of its classes.
    """
    known = [(d[ok], m[ok]) for d, m in pairs if (ok := d.isfinite().all(-1)).sum() > 1]
    if not known:
        return {}
    told = torch.cat([d - d.mean(0) for d, _ in known])
    true = torch.cat([m - m.mean(0) for _, m in known])
    slope = ((told * true).sum() / true.pow(2).sum()).clamp(min=1e-3)
    return {
        "slope": slope,
        "shift": torch.stack([d.mean(0) for d, _ in known]).mean(0),
        "noise": (told - slope * true).pow(2).mean().clamp(min=1e-6).expand(told.shape[1]).clone(),
    }


def in_span(
    rows: Float[Tensor, "k d"], residual: Float[Tensor, "n d"], strength: Float[Tensor, ""]
) -> Float[Tensor, "k d"]:
    """Return rows · RᵀR (ν + RᵀR)⁻¹: the part of each row that lies where the residuals R scatter by more than ν."""
    with full_precision(rows):
        wide = torch.promote_types(residual.dtype, torch.float32)
        rows, residual = rows.to(wide), residual.to(wide)
        eye = torch.eye(min(residual.shape), dtype=residual.dtype, device=residual.device)
        if len(residual) < residual.shape[1]:  # the smaller side of R is the one to solve on
            gram = residual @ residual.t()
            return torch.linalg.solve(gram + strength * eye, residual @ rows.t()).t() @ residual
        gram = residual.t() @ residual
        return torch.linalg.solve(gram + strength * eye, gram @ rows.t()).t()
