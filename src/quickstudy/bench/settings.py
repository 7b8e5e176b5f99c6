"""How a benchmark builds any learner: the networks that it wants, and what differs from its defaults.

`built` knows what a kind of learner needs (a context beside the input, a relation module, the width of an embedding);
`SETTINGS` says which fields a benchmark sets, and which it chooses on validation tasks.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from quickstudy.core.learner import MetaLearner, NetLearner
from quickstudy.core.net import Net
from quickstudy.core.objective import Classify, Objective
from quickstudy.learners import (
    ANIL,
    BOIL,
    CAVIA,
    IMAML,
    LEO,
    MAML,
    DeepKernel,
    FineTune,
    LearnedMomentum,
    Logistic,
    MAMLPlusPlus,
    MetaCurvature,
    MetaLSTM,
    MetaR,
    MetaSGD,
    NeuralProcess,
    Pool,
    Pretrained,
    ProtoMAML,
    Prototypical,
    RelationNet,
    Reptile,
    Ridge,
    SoftKMeans,
)
from quickstudy.nets import MLP


@dataclass(frozen=True)
class Nets:
    """The networks for inputs of one shape. Each takes how many inputs there are beyond a task's own."""

    dim: int
    """Features of an input, where inputs are vectors."""
    width: int
    """Features of an embedding."""
    embedding: Callable[[int], Net]
    """Inputs to an embedding."""
    outputs: Callable[[int], Net]
    """Inputs to the objective's outputs."""
    hidden: tuple[int, ...] = (64,)
    """Layers of what reads embeddings: a relation module, a decoder."""


def built(kind: type[MetaLearner], objective: Objective, nets: Nets, **given: Any) -> MetaLearner:
    """A learner with its defaults but for `given`, on these networks.

    Raises TypeError for a field that only its user can fill and that isn't known here.
    """
    answers, regress = objective.outputs, not isinstance(objective, Classify)

    def reader(inputs: int, outputs: int) -> Net:
        return MLP(inputs=inputs, outputs=outputs, hidden=nets.hidden)

    known: dict[str, Any] = {"objective": objective, "dim": nets.dim, "width": nets.width}
    own = {f.name: f for f in fields(kind)}
    if kind is Pool:
        members = tuple(built(member, objective, nets) for member in (Prototypical, Ridge))
        known |= {"members": members, "weights": (0.5, 0.5)}
    elif kind is RelationNet:
        known["relation"] = reader((3 if regress else 2) * nets.width, 1)
    elif kind is NeuralProcess:
        known["encoder"] = nets.embedding(answers if regress else 0)
        told, asked = (nets.width, 2 * answers) if regress else (answers * nets.width, answers)
        known["decoder"] = reader(nets.dim + told, asked)
    elif kind is MetaR:  # an input counts as a pair, its halves
        ends = nets.dim // 2, nets.dim - nets.dim // 2
        known |= {name: reader(size, nets.width) for name, size in zip(("head", "tail"), ends, strict=True)}
        known["relation"] = reader(2 * nets.width, nets.width)
    if "net" in own:
        context = given.get("context", CAVIA.context) if kind is CAVIA else 0
        known["net"] = nets.embedding(0) if embeds(kind) else nets.outputs(context)
    wanted = {name: value for name, value in (known | given).items() if name in own}
    for name, f in own.items():
        if name not in wanted and f.default is MISSING and f.default_factory is MISSING:
            raise TypeError(f"its field {name!r} has no default")
    return kind(**wanted)


def embeds(kind: type[MetaLearner]) -> bool:
    """Whether its network gives features, and not the objective's outputs."""
    return not issubclass(kind, NetLearner) or kind is ProtoMAML


def regresses(kind: type[MetaLearner]) -> bool:
    """Whether it answers with numbers, too."""
    [objective] = [f.type for f in fields(kind) if f.name == "objective"]
    return objective is not Classify


@dataclass(frozen=True)
class Setting:
    """What a benchmark sets of a learner. Everything else is the learner's default."""

    tried: tuple[Mapping[str, Any], ...] = ({},)
    """Fields to choose among, on validation tasks; `HIDDEN` among them is the embedding's hidden layers."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    shots: int | None = None
    """Examples a class in meta-training, where they ought to be others than in use."""
    numbers: "Setting | None" = None
    """What differs in regression."""


HIDDEN = "hidden"


def _rates(*values: float, name: str = "rate") -> tuple[Mapping[str, Any], ...]:
    return tuple({name: value} for value in values)


def _inner(**fixed: Any) -> Setting:
    """For learners that take gradient steps on a whole network."""
    return Setting(_rates(0.1, 0.3, 1.0), fixed, numbers=Setting(_rates(0.003, 0.01, 0.03), fixed))


_EMBEDDING = Setting(({HIDDEN: ()}, {HIDDEN: (32,)}), numbers=Setting())
# Features of length 1 want distances to count more than the papers' do.
_DISTANCES = Setting(tuple({"scale": s, HIDDEN: hidden} for s in (1.0, 10.0) for hidden in ((), (32,))))
_KERNELS = tuple({"kernel": kernel, HIDDEN: hidden} for kernel in ("rbf", "cosine") for hidden in ((), (32,)))
SETTINGS: Mapping[type[MetaLearner], Setting] = {
    ANIL: _inner(),
    BOIL: _inner(),
    CAVIA: Setting(
        _rates(0.1, 1.0, 10.0), {"context": 16, "steps": 2}, numbers=Setting(_rates(0.1, 0.3, 1.0))
    ),
    DeepKernel: Setting(_KERNELS, numbers=Setting()),
    FineTune: _inner(),
    # The paper's pull of 2 holds small networks where they are.
    IMAML: Setting(
        (
            *({"rate": rate, "strength": pull} for rate, pull in ((0.1, 2.0), (0.3, 0.5), (1.0, 0.1))),
            {"rate": 0.3, "strength": 0.5, "steps": 30},
        ),
        numbers=Setting(
            tuple({"rate": rate, "strength": pull} for rate, pull in ((0.01, 2.0), (0.03, 0.5), (0.03, 0.1)))
        ),
    ),
    LearnedMomentum: _inner(),
    LEO: Setting(_rates(0.1, 1.0)),
    Logistic: Setting(_rates(0.3, 3.0, 30.0, name="inverse_penalty")),
    MAML: _inner(),
    MAMLPlusPlus: _inner(),
    MetaCurvature: _inner(),
    MetaLSTM: Setting(_rates(0.03, 0.1, 0.3), numbers=Setting(_rates(0.003, 0.01, 0.03))),
    MetaSGD: Setting(
        tuple({"least": rate, "most": rate} for rate in (0.1, 0.3, 1.0)),
        numbers=Setting(tuple({"least": rate, "most": rate} for rate in (0.003, 0.01, 0.03))),
    ),
    NeuralProcess: Setting(({HIDDEN: ()}, {HIDDEN: (32,)}), numbers=Setting()),
    Pretrained: _EMBEDDING,
    Prototypical: _DISTANCES,
    ProtoMAML: Setting(_rates(0.003, 0.03, 0.3)),
    # It learns from the support alone, and in the paper too from more examples than it is judged by.
    Reptile: Setting(_rates(0.1, 0.3, 1.0), shots=15, numbers=Setting(_rates(0.003, 0.01, 0.03), shots=15)),
    SoftKMeans: _DISTANCES,
}
"""By learner; what embeds and isn't named here tries one layer and two."""


def setting(kind: type[MetaLearner], *, numbers: bool) -> Setting:
    """What a benchmark sets of a learner, for classes or for numbers."""
    embedding = any(f.name == "net" for f in fields(kind)) and embeds(kind)
    found = SETTINGS.get(kind, _EMBEDDING if embedding else Setting())
    return found.numbers or Setting() if numbers else found
