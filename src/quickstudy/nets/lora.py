"""Low-rank adapters: a frozen network is tuned through a small product of two matrices beside chosen linear layers.

    y = W x + b + scale · (alpha / rank) · B A x        A [rank, in], B [out, rank], B = 0 at the start

Hu et al. 2021, arXiv:2106.09685, equation 3. `scale` (ours) goes from the frozen network (0) to the tuned one (1).
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError, ModelError, did_you_mean
from quickstudy.core.spec import Spec

Network = TypeVar("Network", bound=nn.Module)
A, B = ".lora_A", ".lora_B"


@dataclass(frozen=True, kw_only=True)
class LoRA(Spec):
    """Which layers get an adapter, and of what size.

    The paper adapts query and value of every layer; we take the upper half of a six-layer encoder, so that the lower
    half is computed once for the frozen and the tuned features.
    """

    rank: int = 8
    alpha: float | int = 16.0
    """The update is multiplied by alpha / rank, so that the learning rate needn't change with the rank."""
    targets: tuple[str, ...] = ("query", "value")
    """Last names of linear layers inside a transformer layer: query, key, value, dense."""
    layers: tuple[int, ...] = (3, 4, 5)
    """Transformer layers, counted from 0."""
    dropout: float | int = 0.0
    """On the input of A, while the module is in training mode. The paper's default for GPT-2 is 0.1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.rank < 1 or not self.targets or not self.layers or not 0 <= self.dropout < 1:
            raise ModelError(
                f"LoRA wants rank >= 1, some targets and layers, and 0 <= dropout < 1; it got {asdict(self)}."
            )

    @property
    def first(self) -> int:
        """The lowest adapted layer: everything below it is the frozen network's."""
        return min(self.layers)

    def places(self, state: Mapping[str, Tensor]) -> list[str]:
        """Names of the adapted linear layers in `state`. Raises ModelError if a target or layer isn't there."""
        linear = [
            name.removesuffix(".weight")
            for name, tensor in state.items()
            if name.startswith("encoder.layer.") and name.endswith(".weight") and tensor.dim() == 2
        ]
        for target in self.targets:
            names = sorted({name.rpartition(".")[2] for name in linear})
            if target not in names:
                raise ModelError(
                    f"No linear layer is named {target!r}.{did_you_mean(target, names)} There are {', '.join(names)}."
                )
        for layer in self.layers:
            if not any(name.startswith(f"encoder.layer.{layer}.") for name in linear):
                depth = 1 + max(int(name.split(".")[2]) for name in linear)
                raise ModelError(f"There is no layer {layer}: the encoder's layers are 0 to {depth - 1}.")
        return [
            name
            for name in linear
            if int(name.split(".")[2]) in self.layers and name.rpartition(".")[2] in self.targets
        ]

    def init(self, state: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
        """Adapter tensors that change nothing yet: A drawn from `seed` as for a linear layer, B zero. Float32."""
        generator = torch.Generator().manual_seed(seed)
        adapter = {}
        for place in self.places(state):
            out, into = state[place + ".weight"].shape
            bound = into**-0.5
            adapter[place + A] = torch.empty(self.rank, into).uniform_(-bound, bound, generator=generator)
            adapter[place + B] = torch.zeros(out, self.rank)
        return adapter

    def attach(
        self, model: Network, adapter: Mapping[str, Tensor] | None = None, *, seed: int = 0
    ) -> tuple[Network, dict[str, Tensor]]:
        """`model` with adapters beside its layers, and those adapters: the only parameters that require a gradient.

        The new module shares the memory of the model's weights, and leaves the model as it was. Tune it with

            module, adapter = spec.attach(model)
            torch.func.functional_call(module, adapter, (input_ids, mask))      # also under torch.vmap
        """
        frozen = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
        tuned = copy.deepcopy(model, memo=frozen)  # pyright: ignore[reportArgumentType]
        state = model.state_dict()
        adapter = self.init(state, seed) if adapter is None else self.checked(adapter, state)
        for place in self.places(state):
            parent, _, name = place.rpartition(".")
            owner = tuned.get_submodule(parent)
            owner._modules[name] = _Adapted(
                tuned.get_submodule(place),
                adapter[place + A],
                adapter[place + B],
                self.alpha / self.rank,
                self.dropout,
            )
        trainable = {name: p for name, p in tuned.named_parameters() if name.endswith((A, B))}
        return tuned, {name: trainable[name] for name in adapter}

    def merged(
        self, state: Mapping[str, Tensor], adapter: Mapping[str, Tensor], scale: float | int = 1.0
    ) -> dict[str, Tensor]:
        """The network's weights with the adapter added in: inference costs nothing more.

        Tensors without an adapter are those of `state` itself, not copies; so all of them are at scale 0.
        """
        adapter = self.checked(adapter, state)
        merged = dict(state)
        if scale == 0:
            return merged
        for place in self.places(state):
            weight = state[place + ".weight"]
            change = adapter[place + B].detach().double() @ adapter[place + A].detach().double()
            merged[place + ".weight"] = (weight.double() + scale * self.alpha / self.rank * change).to(
                weight.dtype
            )
        return merged

    def checked(self, adapter: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`adapter` in float32, in this spec's order. Raises ModelError unless its names and shapes fit the network."""
        wanted: dict[str, tuple[int, ...]] = {}
        for place in self.places(state):
            out, into = state[place + ".weight"].shape
            wanted |= {place + A: (self.rank, into), place + B: (out, self.rank)}
        if wanted.keys() != adapter.keys():
            odd = sorted(wanted.keys() ^ adapter.keys())
            raise ModelError(
                f"The adapter has {len(adapter)} tensors, its spec and this encoder want {len(wanted)}; they differ in "
                f"{', '.join(odd[:3])}{' …' if len(odd) > 3 else ''}. It was made for another encoder or another spec."
            )
        for name, shape in wanted.items():
            if tuple(adapter[name].shape) != shape:
                raise ModelError(
                    f"The adapter's {name} has shape {tuple(adapter[name].shape)}, this encoder wants {shape}. "
                    "It was made for another encoder or another spec."
                )
            if not adapter[name].isfinite().all():
                raise ModelError(
                    f"The adapter's {name} holds values that are not finite; its tuning diverged."
                )
        return {
            name: adapter[name].float() if not _is_wide(adapter[name]) else adapter[name] for name in wanted
        }


def _is_wide(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float32, torch.float64)


class _Adapted(nn.Linear):
    """A linear layer that keeps its parameters' names and adds the low-rank term."""

    def __init__(self, linear: nn.Module, a: Tensor, b: Tensor, factor: float, dropout: float | int) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would allocate and fill a second weight
        assert isinstance(linear, nn.Linear)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.factor, self.dropout = factor, dropout
        self.lora_A = nn.Parameter(a.detach().clone())
        self.lora_B = nn.Parameter(b.detach().clone())
        self.train(linear.training)

    def forward(self, input: Float[Tensor, "*batch into"]) -> Float[Tensor, "*batch out"]:
        low = F.linear(F.dropout(input, self.dropout, self.training), self.lora_A)
        return F.linear(input, self.weight, self.bias) + self.factor * F.linear(low, self.lora_B)


@dataclass(frozen=True)
class Adapter:
    """A tuned adapter as it is kept and passed about."""

    spec: LoRA
    tensors: Mapping[str, Tensor] = field(repr=False)
    base: str = ""
    """`identity` of the encoder it was tuned on; another encoder refuses it. Empty: not known."""

    @property
    def fingerprint(self) -> str:
        """sha256 over the spec and every tensor's name, type and values."""
        digest = hashlib.sha256(json.dumps(self.spec.to_json(), sort_keys=True).encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def half(self) -> "Adapter":
        """The same in float16; what is lost is below a thousandth of a value. Use what you save: do this first."""
        return Adapter(self.spec, {name: t.detach().half() for name, t in self.tensors.items()}, self.base)

    def save(self, folder: Path | str) -> None:
        """Write the adapter to a folder, as it is (`half()` first for half the size). Raises as `save_folder`."""
        save_folder(folder, self.tensors, {"kind": "adapter", "base": self.base, "spec": self.spec.to_json()})

    @classmethod
    def load(cls, folder: Path | str) -> "Adapter":
        """Read what `save` wrote. Raises CheckpointError for a folder that is damaged or holds something else."""
        tensors, record = load_folder(folder, kind="adapter")
        spec = Spec.from_json(record.get("spec"))
        if not isinstance(spec, LoRA):
            raise CheckpointError(f"{folder}: its spec is a {type(spec).__name__}, expected LoRA.")
        return cls(spec, tensors, str(record.get("base", "")))


def interpolated(adapter: Mapping[str, Tensor], scale: float | int) -> dict[str, Tensor]:
    """Adapter tensors whose effect is `scale` times that of `adapter` (B is multiplied; A stays)."""
    return {name: tensor * scale if name.endswith(B) else tensor for name, tensor in adapter.items()}
