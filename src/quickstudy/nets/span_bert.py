"""Bert as a network of one input and one output for marked pairs: a packed batch in, one vector for each pair out.

A pair is a text in which one span is the head and another the tail. Its vector joins the mean states of the head's
words, of the tail's and of those between them, at several layers, and the mean state of the whole text; each part is
brought to length 1 and weighted. Mean states of entity words: Soares et al. 2019, arXiv:1906.03158, section 3.2 (their
"mention pooling", where they take the maximum); the words between and the lower layers are ours.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import normalize

from quickstudy.nets.bert import Bert

HEAD, TAIL, BETWEEN, REAL = 1, 2, 4, 8
"""Bits of a token's role."""
PAIRS = 256
"""Pairs whose words are averaged at once."""


class SpanBert(Bert):
    """A batch is [n, token, 2]: token ids + 1, where zeros are padding; and roles, sums of HEAD, TAIL and BETWEEN.

    Or, where the layers below `start` are frozen and needn't be computed at every step, [n, token, dim + 1]: the states
    after them, and roles with REAL added for what isn't padding. `below` makes it of the other form.
    """

    layers: tuple[int, ...] = (4, 6)
    """Layers whose states are read; the highest one's also make the mean of the text."""
    between = 0.8
    """Weight of the words between, where those of head and tail are 1."""
    whole = 0.5
    """Weight of the whole text."""
    start = 0
    """The layer after which states come in."""
    mixed = False
    """Multiply in bfloat16; norms, adapters and results stay float32."""
    centred = False
    """Take from each row the mean of those that pass together: while tuning, what all pairs share says nothing."""
    chunk: int | None = 16
    """Rows at once, sorted by length, so that short texts aren't padded to the longest."""

    @property
    def dim(self) -> int:
        """Numbers in a pair's vector."""
        return self.config.hidden_size * (3 * len(self.layers) + 1)

    def forward(self, x: Shaped[Tensor, "n token kind"]) -> Float[Tensor, "n dim"]:  # pyright: ignore
        z = self._in_chunks(x)
        return z - z.mean(0) if self.centred else z

    def _in_chunks(self, x: Shaped[Tensor, "n token kind"]) -> Float[Tensor, "n dim"]:  # pyright: ignore
        if self.chunk is None or len(x) <= 1:
            return self._vectors(x)
        lengths = (x[..., 0 if x.shape[-1] == 2 else -1] != 0).sum(-1)
        order = torch.argsort(lengths, descending=True, stable=True)
        parts = [self._vectors(x[rows, : max(1, int(lengths[rows[0]]))]) for rows in order.split(self.chunk)]
        return torch.cat(parts)[torch.argsort(order)]

    @torch.no_grad()
    def below(self, x: Shaped[Tensor, "n token 2"]) -> Float[Tensor, "n token size"]:
        """The same batch with the states after `start` layers, in float16."""
        mask = x[..., 0] > 0
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            ids = x[..., 0].long().sub(1).clamp(min=0)
            (states,) = self._states(ids, mask, None, 0, (self.start,))
        roles = (x[..., 1] + REAL) * mask
        return torch.cat([(states * mask.unsqueeze(-1)).half(), roles.unsqueeze(-1).half()], -1)

    def _vectors(self, x: Shaped[Tensor, "n token kind"]) -> Float[Tensor, "n dim"]:
        roles = x[..., -1].long()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            if x.shape[-1] == 2:
                mask = x[..., 0] > 0
                ids = x[..., 0].long().sub(1).clamp(min=0)
                states = self._states(ids, mask, None, 0, tuple(self.layers))
            else:
                mask = roles >= REAL
                states = self._states(None, mask, x[..., :-1].float(), self.start, tuple(self.layers))
        return self._pooled(states, roles, mask)

    def shared(
        self,
        ids: Int[Tensor, "m token"],
        of: Int[Tensor, " n"],
        roles: Int[Tensor, "n token"],
    ) -> Float[Tensor, "n dim"]:
        """Vectors of pairs, of which many stand in one text: each text passes once.

        Args:
            ids: token ids + 1 of each text; zeros are padding.
            of: the number of each pair's text.
            roles: of each pair, what the tokens of its text are to it.
        """
        mask = ids > 0
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.mixed):
            states = self._states(ids.long().sub(1).clamp(min=0), mask, None, 0, tuple(self.layers))
        pairs = torch.arange(len(of)).split(PAIRS)
        return torch.cat(
            [self._pooled([s[of[rows]] for s in states], roles[rows], mask[of[rows]]) for rows in pairs]
        )

    def _pooled(
        self,
        states: Sequence[Float[Tensor, "n token size"]],
        roles: Int[Tensor, "n token"],
        mask: Bool[Tensor, "n token"],
    ) -> Float[Tensor, "n dim"]:
        parts = [
            weight * _mean(state.float(), (roles & role) > 0)
            for state in states
            for role, weight in ((HEAD, 1.0), (TAIL, 1.0), (BETWEEN, self.between))
        ]
        top = states[self.layers.index(max(self.layers))]
        return torch.cat([*parts, self.whole * _mean(top.float(), mask)], -1)


def _mean(states: Float[Tensor, "n token dim"], chosen: Bool[Tensor, "n token"]) -> Float[Tensor, "n dim"]:
    """The mean of the chosen states, of length 1; zeros where none is."""
    weight = chosen.to(states.dtype)
    mean = torch.einsum("ntd,nt->nd", states, weight) / weight.sum(-1, keepdim=True).clamp(min=1)
    return normalize(mean, dim=-1)
