"""What earlier relations taught: how pairs become vectors in which one example says most, and how sure to be.

1. An encoder adapter, tuned over earlier relations (`tune.py`); optional.
2. The directions in which examples of one relation scatter, damped: with Σ their covariance, of eigenvectors u and
   values v, and λ = `shrinkage` times the mean of v, features become  normalise(x - μ) (Σ + λ)^(-1/2) √λ  =
   y - Σ_u (1 - √(λ / (v + λ))) (y · u) u.
3. Which scores of a pair mean that it has the relation of the best score (`certainty.py`).

`of_field` places it in a field of which pairs are known that nobody labelled: their mean is μ, and they are the cohort.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.episode import Labelled
from quickstudy.core.errors import CheckpointError, ModelError
from quickstudy.core.spec import Spec
from quickstudy.domains.kg.relations.certainty import (
    COHORT,
    FEWEST,
    PARTS,
    Certainty,
    learn_certainty,
    usual,
)
from quickstudy.domains.kg.relations.names import WEIGHT
from quickstudy.domains.kg.relations.pairs import Pair, PairEncoder
from quickstudy.encoders.text import TextEncoder
from quickstudy.learners.scatter import class_means, degrees, numbered
from quickstudy.nets.lora import Adapter, LoRA

SHRINKAGE = 20.0
"""λ, in mean eigenvalues. On val_nyt with 10 / 20 / 30 / 100, names at use: 5-way 1-shot 87.0 / 87.5 / 87.6 / 87.6,
10-way 5-shot 86.0 / 86.1 / 85.9 / 85.4, AUROC of strangers 89.7 / 89.6 / 89.4 / 88.8."""
DIRECTIONS = 256
"""So many directions are damped: those in which examples scatter most."""


@dataclass(frozen=True)
class RelationPrior:
    """Made by `RelationPrior.estimate`, from pairs of earlier relations."""

    encoder: str
    """Name of the encoder that it was learned for."""
    identity: str
    """Which files these were, without adapter."""
    layers: tuple[int, ...]
    center: Float[Tensor, " d"]
    """The mean of pairs over earlier data sets, one vote each: never that of the pairs that it is used on, but for one
    `of_field`, whose pairs nobody labelled, and for a `blank` one, which has no other."""
    directions: Float[Tensor, "d r"]
    damping: Float[Tensor, " r"]
    """1 - √(λ / (v + λ)) of each direction: 0 leaves it, 1 removes it."""
    certainty: Certainty
    adapter: Adapter | None = None
    blend: float = 1.0
    """How far the adapter goes: 0 is the frozen encoder."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """How it was made, for people to read."""
    naming: Float[Tensor, " d"] | None = None
    """The mean of what earlier relations' names make (`names.py`); None doesn't use names."""
    in_field: Certainty | None = None
    """What `certainty` is `of_field`; None where that wasn't learned, and for the blank one."""
    cohort: Float[Tensor, "m d"] | None = None
    """Vectors of a field's pairs that nobody labelled; None if it isn't `of_field`."""

    @classmethod
    def estimate(
        cls,
        pairs: PairEncoder,
        tasks: Sequence[Labelled],
        strangers: Sequence[Tensor] = (),
        named: Sequence[Tensor | None] = (),
        *,
        shrinkage: float = SHRINKAGE,
        directions: int = DIRECTIONS,
        seed: int = 0,
        record: Mapping[str, Any] | None = None,
    ) -> "RelationPrior":
        """Learn from earlier data sets, one vote each.

        Args:
            pairs: what made the vectors; an adapter that its encoder has goes into the prior.
            tasks: of each data set, vectors of pairs x [n, d] with relation numbers from 0.
            strangers: of each data set, vectors of pairs in one sentence that aren't related.
            named: of each data set, vectors of what its relations' names make [ways, d], or None.

        Raises:
            DataError: no data set with two relations and two examples of one.
        """
        numbers, _ = numbered(tasks)
        center = torch.stack([task.x.mean(0) for task in numbers]).mean(0)
        centred = [task._replace(x=normalize(task.x - center, dim=-1)) for task in numbers]
        values, vectors, total = _scatter(centred, directions)
        floor = shrinkage * total / len(center)
        base, names = pairs.encoder.frozen, [x for x in named if x is not None]
        prior = cls(
            base.name,
            base.identity,
            pairs.net.layers,
            center.float(),
            vectors.half().float().contiguous(),
            (1 - (floor / (values + floor)).sqrt()).float(),
            Certainty(),
            pairs.encoder.adapter,
            pairs.encoder.adapter_scale if pairs.encoder.adapter else 1.0,
            dict(record or {}),
            torch.cat(names).mean(0) if names else None,
        )
        return prior.calibrated(tasks, strangers, named, seed=seed)

    @classmethod
    def blank(
        cls, encoder: TextEncoder, pairs: Sequence[Pair], kinds: Sequence[str | None]
    ) -> "RelationPrior":
        """A prior that has learned nothing: the frozen encoder, its vectors centred by the task itself (`recentred`).

        Args:
            pairs: those that are labelled.
            kinds: their relations; None for the unrelated.
        """
        read = PairEncoder(encoder.frozen)
        made = cls(
            encoder.frozen.name, encoder.frozen.identity, read.net.layers, torch.zeros(read.dim),
            torch.zeros(read.dim, 0), torch.zeros(0), Certainty(), record={"blank": True},
        )  # fmt: skip
        return made.recentred(read.encode(pairs), kinds)

    @property
    def untaught(self) -> bool:
        """Whether `blank` made it: then what is learned moves its centre, too."""
        return self.record.get("blank") is True

    def recentred(self, x: Float[Tensor, "n d"], kinds: Sequence[str | None]) -> "RelationPrior":
        """Centred on the mean of a task's pairs; on 0 where all are of one kind, since their own mean would take from
        them all that they have in common, and from a single one everything.
        """
        return replace(self, center=x.mean(0) if len(set(kinds)) > 1 else torch.zeros_like(self.center))

    def calibrated(
        self,
        tasks: Sequence[Labelled],
        strangers: Sequence[Tensor] = (),
        named: Sequence[Tensor | None] = (),
        *,
        seed: int = 0,
    ) -> "RelationPrior":
        """The same, its certainty learned from these data sets; the arguments are those of `estimate`."""
        tasks, names = numbered(tasks)[0], [None if x is None else self.names(x) for x in named]

        def learned(priors: Sequence[RelationPrior], before: Certainty | None) -> Certainty:
            known = [t._replace(x=p.features(t.x.float())) for p, t in zip(priors, tasks, strict=True)]
            apart = [p.features(x) for p, x in zip(priors, strangers, strict=False)]
            return learn_certainty(known, apart, names, before=before, seed=seed)

        certainty = learned([self] * len(tasks), None)
        # Each data set is a field, too: its pairs, whatever they say, have a centre of their own.
        apart = [*strangers, *(task.x[:0] for task in tasks[len(strangers) :])]
        pools = [torch.cat([task.x, x]).float() for task, x in zip(tasks, apart, strict=True)]
        placed = [replace(self, center=pool.mean(0)) for pool in pools]
        return replace(self, certainty=certainty, in_field=learned(placed, certainty))

    def of_field(self, x: Float[Tensor, "m d"]) -> "RelationPrior":
        """Placed in a field: centred on pairs of it that nobody labelled, and sure by comparing with them.

        What that is worth: kg.3 in docs/benchmarks.md.

        Args:
            x: vectors as `pair_encoder` makes them; fewer than `FEWEST` say too little, and leave it as it is.
        """
        if self.in_field is None or len(x) < FEWEST:
            return self
        return replace(self, center=x.mean(0), certainty=self.in_field, cohort=x[:COHORT].half().float())

    @cached_property
    def placed(self) -> Float[Tensor, "m d"] | None:
        """Features of the cohort."""
        return None if self.cohort is None else self.features(self.cohort)

    def usual(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"] | None:
        """How alike pairs are to the field's, whatever these say (`certainty.usual`), from features; None without."""
        return None if self.placed is None else usual(x, self.placed)

    def with_certainty(self, of: "RelationPrior") -> "RelationPrior":
        """As sure as another one."""
        return replace(self, certainty=of.certainty, in_field=of.in_field)

    def with_record(self, record: Mapping[str, Any]) -> "RelationPrior":
        return replace(self, record=dict(record))

    @property
    def dim(self) -> int:
        return len(self.center)

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Vectors as `PairEncoder` makes them -> vectors of length 1 whose cosines compare relations."""
        y = normalize(x - self.center, dim=-1)
        return normalize(y - (y @ self.directions * self.damping) @ self.directions.t(), dim=-1)

    def names(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"] | None:
        """Vectors of what relations' names make -> features that stand beside those of pairs, as long as they count;
        None where no earlier relation's name says what they have in common.
        """
        return None if self.naming is None else WEIGHT * self.features(x - self.naming + self.center)

    def pair_encoder(self, encoder: TextEncoder) -> PairEncoder:
        """The encoder of pairs that it goes with. Raises ModelError if it was learned on another encoder."""
        if encoder.frozen.identity != self.identity:
            raise ModelError(
                f"What earlier relations taught was learned on {self.encoder} ({self.identity[:12]}…); this is "
                f"{encoder.name} ({encoder.frozen.identity[:12]}…). Load that encoder, or learn a prior on this one."
            )
        tuned = encoder.frozen
        if self.adapter is not None:
            tuned = tuned.with_adapter(self.adapter, self.blend)
        return PairEncoder(tuned, self.layers)

    def encode(self, pairs: Sequence[Pair], encoder: TextEncoder) -> Float[Tensor, "n d"]:
        """Features of pairs; where many calls follow, keep `pair_encoder` and call `features`."""
        return self.features(self.pair_encoder(encoder).encode(pairs))

    def save(self, folder: str | PathLike[str], *, card: str = "") -> None:
        """Write it to a folder, beside it a card for people to read. Raises as `save_folder`."""
        tensors = {
            "center": self.center,
            "directions": self.directions.half(),
            "damping": self.damping,
            "certainty": self.certainty.weights,
        }
        tensors |= {"naming": self.naming} if self.naming is not None else {}
        tensors |= {"in_field": self.in_field.weights} if self.in_field is not None else {}
        tensors |= {"cohort": self.cohort.half()} if self.cohort is not None else {}
        record: dict[str, Any] = {
            "kind": "prior",
            "of": "relations",
            "encoder": self.encoder,
            "identity": self.identity,
            "layers": list(self.layers),
            "blend": self.blend,
            "made": dict(self.record),
        }
        if self.adapter is not None:
            tensors |= {f"adapter.{name}": tensor for name, tensor in self.adapter.half().tensors.items()}
            record["adapter"] = self.adapter.spec.to_json()
        save_folder(Path(folder), tensors, record, extra_files={"README.md": card} if card else {})

    @classmethod
    def shipped(cls) -> "RelationPrior":
        """The one that comes with quickstudy, for the encoder "minilm"; its folder's README.md says what it saw."""
        return _shipped()

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "RelationPrior":
        """Read what `save` wrote. Raises CheckpointError for a folder that is damaged or holds something else."""
        tensors, record = load_folder(Path(folder), kind="prior")
        if record.get("of") != "relations":
            raise CheckpointError(f"{folder}: this prior isn't one of relations.")
        adapter = None
        try:
            if "adapter" in record:
                spec = Spec.from_json(record["adapter"])
                if not isinstance(spec, LoRA):
                    raise CheckpointError(
                        f"{folder}: its adapter's spec is a {type(spec).__name__}, expected LoRA."
                    )
                own = {
                    k.removeprefix("adapter."): v.float()
                    for k, v in tensors.items()
                    if k.startswith("adapter.")
                }
                adapter = Adapter(spec, own, str(record["identity"]))
            center, directions = tensors["center"].float(), tensors["directions"].float()
            damping, weights = tensors["damping"].float(), tensors["certainty"].float()
            if weights.shape == (PARTS - 1,):  # from before how alike examples are was a part of it
                weights = torch.cat([weights, weights.new_zeros(1)])
            naming, placed, cohort = (
                tensors[name].float() if name in tensors else None
                for name in ("naming", "in_field", "cohort")
            )
            fit = (
                directions.shape == (len(center), len(damping))
                and weights.shape == (PARTS + (cohort is not None),)
                and (naming is None or naming.shape == center.shape)
                and (placed is None or placed.shape == (PARTS + 1,))
                and (cohort is None or (cohort.shape[1:] == center.shape and FEWEST <= len(cohort) <= COHORT))
            )
            if not fit:
                raise CheckpointError(f"{folder}: the shapes of its tensors don't fit together.")
            return cls(
                str(record["encoder"]),
                str(record["identity"]),
                tuple(int(k) for k in record["layers"]),
                center,
                directions,
                damping,
                Certainty(weights),
                adapter,
                float(record["blend"]),
                dict(record.get("made") or {}),
                naming,
                None if placed is None else Certainty(placed),
                cohort,
            )
        except CheckpointError:  # a ValueError, too
            raise
        except (KeyError, TypeError, ValueError) as problem:
            raise CheckpointError(
                f"{folder}: the prior's record or tensors lack something: {problem}."
            ) from None


def _scatter(tasks: Sequence[Labelled], most: int) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"], float]:
    """The largest eigenvalues of the mean scatter within relations, their vectors, and the sum of all values."""
    spread = [task for task in tasks if degrees(task)]
    rows = [
        (task.x - class_means(task.x, task.y)[0][task.y]) / (degrees(task) * len(spread)) ** 0.5
        for task in spread
    ]
    residual = torch.cat(rows)
    total = float(residual.pow(2).sum())
    if len(residual) < residual.shape[1]:  # the smaller side is the one to solve on
        values, left = torch.linalg.eigh(residual @ residual.t())
        values, left = values[-most:].clamp(min=1e-12), left[:, -most:]
        return values, residual.t() @ left / values.sqrt(), total
    values, vectors = torch.linalg.eigh(residual.t() @ residual)
    return values[-most:].clamp(min=0), vectors[:, -most:], total


@lru_cache(maxsize=1)
def _shipped() -> RelationPrior:
    with resources.as_file(resources.files("quickstudy.domains.kg") / "shipped" / "relations") as folder:
        return RelationPrior.load(folder)
