"""BERT encoder in plain torch: a state dict and a config.json go in, token states come out.

Devlin et al. 2019, arXiv:1810.04805. Parameter names are those of Hugging Face's `BertModel`, so its weights load
as they are. Any layer's states can be read, and any layer can be the first: what several sets of upper layers
share is computed once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.core.errors import ModelError

AnyBert = TypeVar("AnyBert", bound="Bert")
MODEL_TYPES = ("bert",)
# Added to the score of a padded token: exp() of it is an exact 0 in float32, float64 and bfloat16; and unlike
# -inf it leaves a row that is all padding (a padded task) finite, forward and backward.
PADDED = -1e4


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The fields of config.json that change the computation, under the names they have there."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1

    @classmethod
    def from_json(cls, config: Mapping[str, Any], source: str = "config.json") -> "BertConfig":
        """Read a parsed config.json. Raises ModelError for an architecture that this file doesn't compute."""
        expected = {
            "model_type": MODEL_TYPES,
            "hidden_act": ("gelu",),
            "position_embedding_type": ("absolute",),
            "is_decoder": (False,),
        }
        for key, supported in expected.items():
            value = config.get(key, None if key == "model_type" else supported[0])
            if value not in supported:
                raise ModelError(
                    f"{source}: {key} is {value!r}, supported is {' or '.join(map(repr, supported))}. "
                    "Use an encoder of the BERT family, such as all-MiniLM-L6-v2, bge-small-en-v1.5 or "
                    "multilingual-e5-small."
                )
        missing = [f.name for f in fields(cls) if f.name not in config and f.name in _REQUIRED]
        if missing:
            raise ModelError(f"{source}: no {', '.join(missing)}. Is it the config.json of a BERT encoder?")
        for f in fields(cls):
            value, whole = config.get(f.name, f.default), f.name in _SIZES
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else int | float)
                or value < whole
            ):
                raise ModelError(
                    f"{source}: {f.name} is {value!r}, expected a {'positive whole ' * whole}number."
                )
        given: dict[str, Any] = {f.name: config[f.name] for f in fields(cls) if f.name in config}
        for name in given.keys() - {*_SIZES}:
            given[name] = float(given[name])
        read = cls(**given)
        if read.hidden_size % read.num_attention_heads:
            raise ModelError(
                f"{source}: hidden_size {read.hidden_size} is not a multiple of num_attention_heads "
                f"{read.num_attention_heads}."
            )
        return read


_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_SIZES = (*_REQUIRED, "max_position_embeddings", "type_vocab_size")


class SelfAttention(nn.Module):
    """Each token's mixture of the values of all tokens that are not padding, head by head."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: Float[Tensor, "batch token dim"], bias: Float[Tensor, "batch 1 1 token"]
    ) -> Float[Tensor, "batch token dim"]:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        if torch.is_grad_enabled():
            # Written out, because the fused CPU kernel has no second derivative and MAML needs one.
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
            mixed = F.dropout(scores.softmax(-1), self.dropout, self.training) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return mixed.transpose(1, 2).flatten(2)


class AddNorm(nn.Module):
    """Dense layer, then the residual connection and its norm."""

    def __init__(self, config: BertConfig, size: int) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.dense = nn.Linear(size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, x: Float[Tensor, "batch token size"], residual: Float[Tensor, "batch token dim"]
    ) -> Float[Tensor, "batch token dim"]:
        return self.LayerNorm(residual + F.dropout(self.dense(x), self.dropout, self.training))


class Layer(nn.Module):
    """Self-attention and a feed-forward net, each with its residual connection."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config), "output": AddNorm(config, config.hidden_size)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = AddNorm(config, config.intermediate_size)

    def forward(
        self, x: Float[Tensor, "batch token dim"], bias: Float[Tensor, "batch 1 1 token"]
    ) -> Float[Tensor, "batch token dim"]:
        x = self.attention["output"](self.attention["self"](x, bias), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Embeddings(nn.Module):
    """Word, position and segment (always the first) vectors, summed and normed."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.word_embeddings = _table(config.vocab_size, config.hidden_size)
        self.position_embeddings = _table(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = _table(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids: Int[Tensor, "batch token"]) -> Float[Tensor, "batch token dim"]:
        place = self.position_embeddings.weight[: input_ids.shape[1]] + self.token_type_embeddings.weight[0]
        x = self.LayerNorm(self.word_embeddings(input_ids) + place)
        return F.dropout(x, self.dropout, self.training)


def _table(size: int, dim: int) -> nn.Embedding:
    # Not nn.Embedding(size, dim): its random start, on the meta device, makes torch import its compiler (5 s).
    return nn.Embedding.from_pretrained(torch.empty(size, dim))


class Bert(nn.Module):
    """The encoder. Made by `Bert.load`; in eval mode and frozen (no parameter requires a gradient)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))}
        )

    @classmethod
    def load(
        cls: type[AnyBert], config: BertConfig, state: Mapping[str, Tensor], source: str = "the state dict"
    ) -> AnyBert:
        """Build from weights, which are used without a copy. Raises ModelError if a tensor is missing or misshapen."""
        with torch.device("meta"):
            model = cls(config)
        wanted = model.state_dict()
        state = clean(state)
        for name, slot in wanted.items():
            if name not in state:
                raise ModelError(f"{source}: no tensor {name!r}; expected the weights of a BertModel.")
            if state[name].shape != slot.shape:
                raise ModelError(
                    f"{source}: {name} has shape {tuple(state[name].shape)}, config.json wants {tuple(slot.shape)}."
                )
        model.load_state_dict({name: state[name] for name in wanted}, assign=True)
        return model.eval().requires_grad_(False)

    def forward(
        self,
        input_ids: Int[Tensor, "batch token"] | None,
        mask: Bool[Tensor, "batch token"],
        hidden: Float[Tensor, "batch token dim"] | None = None,
        start: int = 0,
        layers: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch token dim"] | tuple[Float[Tensor, "batch token dim"], ...]:
        """Token states.

        `mask` is True on real tokens. Layer 0 is the embeddings, layer k the output of the k-th transformer layer;
        `layers` asks for a tuple of those states (computing none above the highest), None for the last one alone.
        To go on from known states, give them as `hidden` and their layer as `start`; `input_ids` is then unused.
        """
        depth = self.config.num_hidden_layers
        states = self._states(input_ids, mask, hidden, start, (depth,) if layers is None else tuple(layers))
        return states[0] if layers is None else states

    def _states(
        self,
        input_ids: Tensor | None,
        mask: Tensor,
        hidden: Tensor | None,
        start: int,
        layers: tuple[int, ...],
    ) -> tuple[Tensor, ...]:
        depth = self.config.num_hidden_layers
        if not layers or not all(start <= k <= depth for k in layers):
            raise ModelError(f"layers are {list(layers)}, expected numbers from {start} to {depth}.")
        if hidden is None:
            if input_ids is None or start:
                raise ModelError(
                    "Give input_ids, or hidden together with the layer (start) that it came from."
                )
            if input_ids.shape[1] > self.config.max_position_embeddings:
                raise ModelError(
                    f"{input_ids.shape[1]} tokens, at most {self.config.max_position_embeddings} fit; cut the text."
                )
            hidden = self.embeddings(input_ids)
        x: Tensor = hidden  # pyright: ignore[reportAssignmentType]
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=mask.device).masked_fill(~mask, PADDED)[
            :, None, None, :
        ]
        states = {start: x}
        for k in range(start, max(layers)):
            x = self.encoder["layer"][k](x, bias)  # pyright: ignore[reportIndexIssue]
            if k + 1 in layers:
                states[k + 1] = x
        return tuple(states[k] for k in layers)


class SentenceBert(Bert):
    """Bert as a network of one input and one output, as the engine calls it: a packed batch in, sentence vectors out.

    A batch is packed into one tensor in which zeros are padding, so a padded task stays a padded task: either token
    ids + 1, [n, token], or the states after `start` layers, [n, token, dim], where the layers below are frozen and
    needn't be computed at every step.
    """

    start = 0
    pooling = "mean"
    mixed = False
    """Multiply in bfloat16 (norms, adapters and results stay float32): 3 × faster to tune on a CPU with AMX."""
    chunk: int | None = None
    """Rows at once, sorted by length, so that short texts aren't padded to the longest; not under vmap."""

    def forward(self, x: Shaped[Tensor, "n token *dim"]) -> Float[Tensor, "n dim"]:  # pyright: ignore
        if self.chunk is None or x.ndim == 3:
            return self._vectors(x)
        lengths = (x != 0).sum(-1)
        order = torch.argsort(lengths, descending=True, stable=True)
        parts = [self._vectors(x[rows, : max(1, int(lengths[rows[0]]))]) for rows in order.split(self.chunk)]
        return torch.cat(parts)[torch.argsort(order)]

    def _vectors(self, x: Shaped[Tensor, "n token *dim"]) -> Float[Tensor, "n dim"]:  # pyright: ignore
        top = (self.config.num_hidden_layers,)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            if x.ndim == 3:
                mask = (x != 0).any(-1)
                states = self._states(None, mask, x, self.start, top)
            else:
                mask = x > 0
                states = self._states(x.long().sub(1).clamp(min=0), mask, None, 0, top)
        return pool(states[0], mask, self.pooling)


def clean(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's encoder part under BertModel's names: without prefix, heads, pooler and old spellings."""
    prefix = "bert." if any(name.startswith("bert.embeddings.") for name in state) else ""
    renamed = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for name in list(renamed):
        for before, after in old.items():
            if name.endswith(before):
                renamed[name.removesuffix(before) + after] = renamed.pop(name)
    return {
        name: tensor
        for name, tensor in renamed.items()
        if name.startswith(("embeddings.", "encoder.layer.")) and tensor.is_floating_point()
    }


def pool(
    states: Float[Tensor, "*batch token dim"], mask: Bool[Tensor, "*batch token"], how: str = "mean"
) -> Float[Tensor, "*batch dim"]:
    """One vector of length 1 per sentence: the mean of its real tokens' states ("mean"), or the first state ("cls")."""
    if states.dtype in (torch.bfloat16, torch.float16):
        states = states.float()
    if how == "cls":
        return F.normalize(states[..., 0, :], dim=-1)
    weight = mask.unsqueeze(-1).to(states.dtype)
    return F.normalize((states * weight).sum(-2) / weight.sum(-2).clamp(min=1), dim=-1)
