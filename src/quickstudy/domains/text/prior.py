"""A prior for text: what past labelling tasks taught, in a few megabytes, ready for the next one.

It holds a Gaussian learner with its meta-parameters and, where the encoder was tuned, an adapter for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError, ModelError
from quickstudy.core.learner import Meta
from quickstudy.core.objective import Classify
from quickstudy.core.spec import Spec
from quickstudy.encoders.packaged import PACKAGED
from quickstudy.encoders.text import BUILT_IN, TextEncoder, load_encoder
from quickstudy.learners import Gaussian
from quickstudy.nets.lora import Adapter, LoRA

SHIPPED = "default"


class Experienced:
    """An encoder that has met tasks before: its frozen features, and those of its tuned twin, added and normalised.

        x = u / ‖u‖,   u = frozen(x) + blend · tuned(x)

    The sum keeps what tuning forgets; tuned features alone do worse on subjects unlike those tuned on.
    """

    def __init__(self, base: TextEncoder, adapter: Adapter | None, blend: float) -> None:
        self.base, self.adapter, self.blend = base, adapter, blend
        self.tuned = base.with_adapter(adapter, 1.0) if adapter is not None and blend else None

    @property
    def dim(self) -> int:
        return self.base.dim

    @property
    def fingerprint(self) -> str:
        """What changes the output: the base encoder, the adapter, and the blend."""
        return self.base.fingerprint if self.tuned is None else f"{self.tuned.fingerprint}+{self.blend:g}"

    @property
    def identity(self) -> str:
        """The same without the number format: what saved models are compared by."""
        if self.tuned is None or self.adapter is None:
            return self.base.identity
        return f"{self.base.identity}+{self.adapter.fingerprint}+{self.blend:g}"

    def encode(self, items: Sequence[str]) -> Float[Tensor, "n dim"]:
        return self.encode_both(items)[1]

    def encode_both(self, items: Sequence[str]) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n dim"]]:
        """(frozen features, experienced features), each text passed through the shared layers once."""
        if self.tuned is None:
            frozen = self.base.encode(items)
            return frozen, frozen
        if self.adapter is not None and self.adapter.spec.first == 0:
            # No layer to share: two passes, each of which the cache may spare.
            frozen, tuned = self.base.encode(items), self.tuned.encode(items)
        else:
            frozen, tuned = self.tuned.encode_both(items)
        return frozen, normalize(frozen + self.blend * tuned, dim=-1)


@dataclass(frozen=True)
class Prior:
    """What was learned across tasks, for one encoder."""

    learner: Gaussian
    meta: Meta
    encoder: str
    """The encoder's name, as `load_encoder` takes it."""
    identity: str
    """The encoder's identity; another one is refused."""
    adapter: Adapter | None = None
    blend: float = 1.0
    """Weight of the tuned features beside the frozen ones."""
    landmarks: Float[Tensor, "classes dim"] | None = None
    """Frozen features of past classes' means, of length 1."""
    familiar_from: float = 0.0
    """Texts nearer than this to their nearest landmark, on average, are like what past tasks were about."""
    sources: tuple[dict[str, Any], ...] = ()
    """The data sets it learned from: name, classes, examples, licence."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was made, for people to read."""

    def experienced(self, base: TextEncoder) -> Experienced:
        """The encoder with this prior's adapter. Raises ModelError when the prior was made for another encoder."""
        if base.identity != self.identity:
            other = (
                f"the one at hand is {base.name!r}"
                if base.name != self.encoder
                else f"whose files were others then ({self.identity[:12]}…, now {base.identity[:12]}…)"
            )
            raise ModelError(
                f"This prior was learned on encoder {self.encoder!r}, {other}. Use that encoder, or learn a prior for "
                "this one: `quickstudy learn`."
            )
        return Experienced(base, self.adapter, self.blend)

    def familiarity(self, frozen: Float[Tensor, "n dim"]) -> float:
        """How near texts are to past tasks' classes: mean over texts of the largest cosine to a landmark."""
        if self.landmarks is None:
            return 1.0
        return float((normalize(frozen, dim=-1) @ self.landmarks.t()).max(-1).values.mean())

    def for_ways(self, ways: int) -> Gaussian:
        """The learner for tasks of this many classes; what it learned doesn't depend on their number."""
        return replace(self.learner, objective=Classify(ways=ways))

    def save(self, folder: Path | str, *, card: str = "") -> None:
        """Write the prior to a folder, whole or not at all; matrices in float16, which loses nothing that counts."""
        tensors, record = self.parts()
        save_folder(
            Path(folder),
            tensors,
            {"kind": "prior", **record},
            extra_files={"README.md": card} if card else {},
        )

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The prior as tensors and a JSON record, for a folder that holds more than this."""
        tensors = {
            f"meta.{name}": value.half() if value.ndim == 2 else value for name, value in self.meta.items()
        }
        if self.adapter is not None:
            tensors |= {f"adapter.{name}": value for name, value in self.adapter.half().tensors.items()}
        if self.landmarks is not None:
            tensors["landmarks"] = self.landmarks.half()
        return tensors, {
            "familiar_from": self.familiar_from,
            "learner": self.learner.to_json(),
            "encoder": self.encoder,
            "identity": self.identity,
            "adapter": self.adapter.spec.to_json() if self.adapter is not None else None,
            "blend": self.blend,
            "sources": list(self.sources),
            "settings": self.settings,
        }

    @classmethod
    def load(cls, folder: Path | str) -> "Prior":
        """Read what `save` wrote. Raises CheckpointError for a folder that is damaged or holds something else."""
        tensors, record = load_folder(Path(folder), kind="prior")
        return prior_from(tensors, record, str(folder))


def prior_from(tensors: dict[str, Tensor], record: dict[str, Any], where: str) -> Prior:
    """A prior from checked tensors and record, wherever they were kept."""
    learner = Spec.from_json(record.get("learner"))
    if not isinstance(learner, Gaussian):
        raise CheckpointError(f"{where}: its learner is {type(learner).__name__}, expected Gaussian.")
    center = tensors.get("meta.center")
    if center is None or center.shape != (learner.dim,):
        raise CheckpointError(f"{where}: meta.center should have shape [{learner.dim}], the learner's `dim`.")
    sources, settings = record.get("sources") or [], record.get("settings") or {}
    if not isinstance(sources, list) or not isinstance(settings, dict):
        raise CheckpointError(f"{where}: sources should be a list and settings an object.")
    meta = {name[5:]: value.float() for name, value in tensors.items() if name.startswith("meta.")}
    for name, value in learner.init().items():
        if name not in meta or meta[name].shape != value.shape:
            raise CheckpointError(
                f"{where}: meta.{name} should have shape {list(value.shape)}, "
                + (f"it has {list(meta[name].shape)}." if name in meta else "it is missing.")
            )
    adapter = None
    if record.get("adapter") is not None:
        spec = Spec.from_json(record["adapter"])
        if not isinstance(spec, LoRA):
            raise CheckpointError(f"{where}: its adapter is {type(spec).__name__}, expected LoRA.")
        low_rank = {name[8:]: value.float() for name, value in tensors.items() if name.startswith("adapter.")}
        adapter = Adapter(spec, low_rank, str(record.get("identity")))
    landmarks = tensors.get("landmarks")
    if landmarks is not None and landmarks.shape[1:] != (learner.dim,):
        raise CheckpointError(
            f"{where}: landmarks have shape {list(landmarks.shape)}, expected [classes, {learner.dim}]."
        )
    familiar = record.get("familiar_from", 0.0)
    if not isinstance(familiar, int | float):
        raise CheckpointError(f"{where}: familiar_from is {familiar!r}, expected a number.")
    blend = record.get("blend")
    if not isinstance(blend, int | float) or not 0 <= blend <= 100:
        raise CheckpointError(f"{where}: blend is {blend!r}, expected a number from 0 to 100.")
    return Prior(
        learner, meta, str(record.get("encoder")), str(record.get("identity")), adapter, float(blend),
        None if landmarks is None else landmarks.float(), float(familiar),
        tuple(sources), settings,
    )  # fmt: skip


def load_prior(name: str | Path = SHIPPED) -> Prior:
    """The shipped prior ("default"), or one from a folder that `quickstudy learn` wrote."""
    return _shipped() if str(name) == SHIPPED else Prior.load(name)


@lru_cache(maxsize=1)
def _shipped() -> Prior:
    with resources.as_file(resources.files("quickstudy.domains.text") / "shipped") as folder:
        return Prior.load(folder)


def named_in_file(name: str, where: str) -> str:
    """An encoder's name as a file gives it. Whoever made the file must not choose what is fetched from a hub.

    Raises:
        CheckpointError: it is neither a packaged encoder nor a folder on this machine.
    """
    if name in PACKAGED or name in BUILT_IN or Path(name).is_dir():
        return name
    raise CheckpointError(
        f"{where} wants encoder {name!r}, which would have to be fetched from a hub. If you trust it, "
        f"name it yourself: encoder={name!r}."
    )


@lru_cache(maxsize=4)
def encoder_for(name: str) -> TextEncoder:
    """Load an encoder once per process."""
    return load_encoder(name)
