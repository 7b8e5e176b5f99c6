"""A BERT whose output are states of words: the mean over a word's tokens and over chosen layers.

Encoders for sentences lower all letters, and names are told by capitals; so each word has a *shape* (`words.shape`),
and a learned vector of it is added to the embeddings of its tokens. It starts at zero, where nothing changes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from quickstudy.nets.bert import Bert, BertConfig


class WordBatch(NamedTuple):
    """Sentences as the network takes them, padded."""

    ids: Int[Tensor, "batch token"]
    word: Int[Tensor, "batch token"]
    """To which word a token belongs, from 1; 0 for special tokens and padding."""
    shape: Int[Tensor, "batch token"]
    """The shape of that word; 0 for none."""
    mask: Bool[Tensor, "batch token"]
    """True on real tokens."""
    words: int
    """How many words the longest sentence has."""

    def chosen(self, rows: list[int]) -> "WordBatch":
        """The same of some sentences."""
        return WordBatch(self.ids[rows], self.word[rows], self.shape[rows], self.mask[rows], self.words)


class WordBert(Bert):
    """Bert as a network from sentences to word states [batch, word, dim], zero where a sentence has fewer words."""

    shapes: nn.Parameter
    layers: tuple[int, ...] = ()
    """Layers whose states are averaged; 0 is the embeddings."""
    mixed = False
    """Multiply in bfloat16: faster on a CPU with AMX. Norms, adapters and results stay float32."""

    @classmethod
    def of(
        cls,
        config: BertConfig,
        state: Mapping[str, Tensor],
        shapes: Float[Tensor, "shape dim"],
        layers: tuple[int, ...],
        *,
        mixed: bool = False,
    ) -> "WordBert":
        """Build from a Bert's weights, which are used without a copy, and the vectors of shapes.

        Raises:
            ModelError: a tensor of the Bert is missing or misshapen.
        """
        # Cast once here: autocast would cast frozen weights anew in every pass.
        weights = {
            name: tensor.bfloat16() if mixed and tensor.ndim == 2 and name.startswith("encoder.") else tensor
            for name, tensor in state.items()
        }
        model = cls.load(config, weights)
        model.shapes = nn.Parameter(shapes, requires_grad=False)
        model.layers, model.mixed = layers, mixed
        return model

    def forward(self, batch: WordBatch) -> Float[Tensor, "batch word dim"]:  # pyright: ignore
        return self.upper(batch, self.lower(batch, 0), 0)

    def lower(self, batch: WordBatch, layer: int) -> Float[Tensor, "batch token dim"]:
        """States of tokens after so many layers: two networks that are alike up to there share them."""
        hidden = self.embeddings(batch.ids) + self.shapes[batch.shape] * (batch.shape > 0).unsqueeze(-1)
        with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self.mixed):
            return self._states(None, batch.mask, hidden, 0, (layer,))[0]

    def upper(
        self, batch: WordBatch, hidden: Float[Tensor, "batch token dim"], layer: int
    ) -> Float[Tensor, "batch word dim"]:
        """States of words, from what `lower` gave. `layer` may be none above the lowest of `layers`."""
        with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self.mixed):
            states = self._states(None, batch.mask, hidden, layer, self.layers)
        mean = torch.stack([state.float() for state in states]).mean(0)
        place = batch.word.unsqueeze(-1)
        total = mean.new_zeros(len(mean), batch.words + 1, mean.shape[-1])
        count = mean.new_zeros(len(mean), batch.words + 1, 1)
        total = total.scatter_add(1, place.expand_as(mean), mean)
        count = count.scatter_add(1, place, torch.ones_like(place, dtype=mean.dtype))
        return (total / count.clamp(min=1))[:, 1:]
