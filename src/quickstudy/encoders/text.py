"""Texts become vectors: sentence features, token states, and the batches that an encoder is tuned on.

Measured on 2,000 sentences of BANKING77 (16 tokens on average), all-MiniLM-L6-v2, one thread of a Xeon with AMX,
torch 2.13, batches of 2,048 tokens; accuracy is 5-way 1-shot / 5-shot by nearest centroid, 600 episodes:

| numbers                           | sentences per CPU-s | least cosine to float32 | accuracy      |
|-----------------------------------|---------------------|-------------------------|---------------|
| float32                           | 205                 | 1                       | 87.28 / 95.61 |
| bfloat16 by autocast              | 467                 | .99997                  | 87.29 / 95.62 |
| bfloat16 weights                  | 730                 | .9999                   | 87.29 / 95.61 |
| int8, dynamic quantisation        | 409                 | .83                     | 86.04 / 95.41 |

The same with AMX switched off: bfloat16 weights 127 against 186 in float32 with AVX512-BF16, 59 against 190 without it.
On an EPYC of the Zen 5 kind, which has AVX512-BF16 and no AMX, on 400 of them: 610 against 206 (least cosine .9999).

Packaged encoders on 500 such sentences, a busy machine, median of 20 runs by turns (range); 600 other episodes:

| encoder and numbers                    | sentences per CPU-s | least cosine to float32 | accuracy      |
|----------------------------------------|---------------------|-------------------------|---------------|
| minilm, bfloat16 weights (16 runs)     | 396 (363–517)       |                         | 87.63 / 96.28 |
| bge-small, float32                     | 97 (85–109)         | 1                       | 91.36 / 97.53 |
| bge-small, bfloat16 weights            | 256 (183–340)       | .9999                   | 91.36 / 97.53 |
| bge-small, int8 in ONNX Runtime 1.31   | 265 (220–384)       | .994                    | 91.28 / 97.50 |
| wordllama, float32 (one run)           | 30,000              | 1                       | 83.46 / 94.68 |

So the default is bfloat16 weights where the CPU has AMX, or AVX512-BF16 and is found to gain by it (a product is timed
once, a hundredth of a second), and float32 everywhere else. ONNX Runtime's int8 is as fast and accurate as bfloat16 on
the Xeon, at its best batch of 256 tokens; without AMX it was not measured.
It is not offered: its graph takes no adapter and shows no layers, and the cache sees to it that a text is encoded once.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from quickstudy.core.encoder import EmbeddingCache
from quickstudy.core.errors import ModelError
from quickstudy.nets.bert import Bert, SentenceBert, pool
from quickstudy.nets.lora import Adapter, LoRA

from . import weights as files
from .kernels import keep_few_kernels
from .packaged import TOKENIZER
from .static import StaticEncoder
from .tiny import HashEncoder, byte_tokens, tiny_bert
from .tokens import Encoding, Tokenizer, batches, checked, load_tokenizer, padded

BUILT_IN = ("tiny", "tiny-bert")
WINDOW = 8192  # texts that are tokenised, and sorted by length, at a time
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TokenStates(NamedTuple):
    """States of every token, padded to the longest text."""

    states: Float[Tensor, "n token dim"]
    mask: Bool[Tensor, "n token"]
    """True on real tokens, the first and last special ones included."""
    offsets: Int[Tensor, "n token 2"]
    """From which character to which; equal for special tokens and padding."""


@overload
def load_encoder(name: Literal["tiny"]) -> HashEncoder: ...
@overload
def load_encoder(name: Literal["wordllama"]) -> StaticEncoder: ...
@overload
def load_encoder(
    name: str | Path = "minilm",
    *,
    adapter: Adapter | Path | str | None = None,
    adapter_scale: float = 1.0,
    dtype: str | torch.dtype | None = None,
    cache: bool | EmbeddingCache = True,
) -> "TextEncoder": ...
def load_encoder(
    name: str | Path = "minilm",
    *,
    adapter: Adapter | Path | str | None = None,
    adapter_scale: float = 1.0,
    dtype: str | torch.dtype | None = None,
    cache: bool | EmbeddingCache = True,
) -> "TextEncoder | StaticEncoder | HashEncoder":
    """Load a text encoder.

    Args:
        name: "minilm", "bge-small" or "wordllama" (packages carry them; `quickstudy encoders` lists them), a folder
            with config.json, model.safetensors and tokenizer.json, or a Hugging Face id of a BERT; "tiny" (hashed
            n-grams) and "tiny-bert" (random weights) need no files.
        adapter: a tuned adapter, or the folder that it was saved to.
        adapter_scale: from 0 (the frozen encoder) to 1 (as tuned); values between or beyond go the same way.
        dtype: "float32", "bfloat16", or None for what is faster here (see above). Results agree to about .9999 in
            cosine, so use "float32" for what must come out the same on every machine.
        cache: keep vectors on disk: True in the usual place, or a cache of one's own. "tiny" and "wordllama" are as
            fast as a cache, so they have none, and nothing that `dtype` or an adapter could change.

    Raises:
        MissingExtra: the package with the weights isn't installed.
        ModelError: no such encoder, not a BERT, damaged or changed files, an adapter of another encoder.
    """
    name = str(name)
    if name in ("tiny", "wordllama") and adapter is not None:
        raise ModelError(
            f'The encoder "{name}" has no layers that an adapter could change; "minilm" and "tiny-bert" have.'
        )
    if name == "tiny":
        return HashEncoder()
    if name == "tiny-bert":
        config, state = tiny_bert()
        tokenizer: Tokenizer = lambda texts: byte_tokens(texts, config.max_position_embeddings)  # noqa: E731
        parts = {"built in": "quickstudy tiny-bert 1"}
        read = files.Weights(config, state, b"", parts, "mean", config.max_position_embeddings, name)
    else:
        folder, packaged = files.find(name, built_in=BUILT_IN)
        if packaged is not None and TOKENIZER not in packaged.sha256:
            return StaticEncoder(name, folder, packaged)
        read = files.read(folder, packaged)
        tokenizer = load_tokenizer(read)
    keep_few_kernels()
    kept = EmbeddingCache() if cache is True else cache or None
    encoder = TextEncoder(name, read, tokenizer, dtype=resolve_dtype(dtype), cache=kept)
    if adapter is None:
        return encoder
    return encoder.with_adapter(
        adapter if isinstance(adapter, Adapter) else Adapter.load(adapter), adapter_scale
    )


class TextEncoder:
    """A BERT and its tokenizer. Made by `load_encoder`; never changed afterwards, so threads may share one."""

    def __init__(
        self,
        name: str,
        weights: files.Weights,
        tokenizer: Tokenizer,
        *,
        dtype: torch.dtype = torch.float32,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.name = name
        self.weights = weights
        self.cache = cache
        self.dtype = dtype
        self.dim = weights.config.hidden_size
        self.max_length = weights.max_length
        self.adapter: Adapter | None = None
        self.adapter_scale = 0.0
        self.frozen = self
        """The encoder without adapter; itself, if it has none."""
        self._tokenizer = tokenizer
        self.model = Bert.load(
            weights.config, {k: v.to(dtype) for k, v in weights.state.items()}, weights.source
        )
        self._sign()

    def _sign(self) -> None:
        made_of: dict[str, Any] = {
            "format": 1,
            "files": dict(self.weights.sha256),
            "pooling": self.weights.pooling,
            "max_length": self.max_length,
        }
        if self.adapter is not None:
            made_of |= {"adapter": self.adapter.fingerprint, "scale": self.adapter_scale}
        self.identity = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        self.fingerprint = hashlib.sha256(f"{self.identity} {self.dtype}".encode()).hexdigest()

    # -- sentences

    def encode(self, texts: Sequence[str], progress: bool = False) -> Float[Tensor, "n dim"]:
        """Sentence vectors of length 1, float32, in the order given.

        A text is cut after `max_length` tokens. Raises DataError, naming its index, for a text that is empty or none.
        """
        texts = checked(texts)
        if self.cache is None:
            return self._features(texts, progress)[0]
        return self.cache.through(self.fingerprint, texts, lambda new: self._features(new, progress)[0])

    def encode_both(
        self, texts: Sequence[str], progress: bool = False
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n dim"]]:
        """(frozen, adapted) sentence vectors; the layers below the first adapted one are computed once for both."""
        texts = checked(texts)
        if self.adapter is None:
            frozen = self.encode(texts, progress)
            return frozen, frozen
        if self.cache is None:
            frozen, adapted = self._features(texts, progress, both=True)
            return frozen, adapted
        cache, prints = self.cache, (self.frozen.fingerprint, self.fingerprint)
        known = [cache.get(fingerprint, texts) for fingerprint in prints]
        new = [text for text in dict.fromkeys(texts) if any(text not in those for those in known)]
        if new:
            features = self._features(new, progress, both=True)
            for fingerprint, those, vectors in zip(prints, known, features, strict=True):
                fresh = [i for i, text in enumerate(new) if text not in those]
                cache.put(fingerprint, [new[i] for i in fresh], vectors[fresh])
                those.update((new[i], vectors[i]) for i in fresh)
        empty = torch.empty(0, self.dim)
        frozen, adapted = (
            torch.stack([those[text] for text in texts]) if texts else empty for those in known
        )
        return frozen, adapted

    # -- tokens

    def tokens(self, texts: Sequence[str], layers: Sequence[int] | None = None) -> TokenStates:
        """Token states, float32: the mean over `layers` (0 is the embeddings). Default: the upper half, (4, 5, 6) of 6.

        Raises ModelError for a layer that isn't there, DataError as `encode`.
        """
        texts = checked(texts)
        depth = self.weights.config.num_hidden_layers
        layers = range(depth - depth // 2 + 1, depth + 1) if layers is None else layers
        encodings = list(self._tokenizer(texts)) if texts else []
        longest = max((len(e.ids) for e in encodings), default=0)
        states = torch.zeros(len(texts), longest, self.dim)
        offsets = torch.zeros(len(texts), longest, 2, dtype=torch.long)
        _, mask = padded(encodings)
        with torch.inference_mode():
            for rows in batches(encodings):
                ids, real = padded([encodings[i] for i in rows])
                found = torch.stack([state.float() for state in self.model(ids, real, layers=layers)]).mean(0)
                states[rows, : ids.shape[1]] = found * real.unsqueeze(-1)
        for row, encoding in enumerate(encodings):
            offsets[row, : len(encoding.ids)] = torch.tensor(encoding.offsets)
        return TokenStates(states, mask, offsets)

    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "n token"], Bool[Tensor, "n token"]]:
        """(input_ids, mask), padded to the longest text."""
        texts = checked(texts)
        return padded(list(self._tokenizer(texts)) if texts else [])

    def encodings(self, texts: Sequence[str]) -> Sequence[Encoding]:
        """Each text's token ids and where they stand in it, in characters; cut after `max_length` tokens."""
        texts = checked(texts)
        return self._tokenizer(texts) if texts else []

    # -- tuning

    def with_adapter(self, adapter: Adapter, scale: float = 1.0) -> "TextEncoder":
        """The same encoder with `adapter` merged in; only the weights that it changes take memory of their own.

        An adapter that this encoder already has is replaced. Scale 0 gives the frozen encoder itself.
        Raises ModelError if the adapter belongs to another encoder.
        """
        base = self.frozen
        if adapter.base not in ("", base.identity):
            raise ModelError(
                f"The adapter was tuned on another encoder (identity {adapter.base[:12]}…) than {base.name} "
                f"({base.identity[:12]}…). Load the encoder that it was tuned on, or tune one on this encoder."
            )
        before = base.weights.state
        after = adapter.spec.merged(before, adapter.tensors, scale)
        if scale == 0:
            return base
        tuned = object.__new__(TextEncoder)
        tuned.__dict__ |= base.__dict__
        changed = {
            name: tensor.to(base.dtype) for name, tensor in after.items() if tensor is not before[name]
        }
        tuned.model = Bert.load(base.weights.config, base.model.state_dict() | changed, base.weights.source)
        tuned.adapter, tuned.adapter_scale = adapter, float(scale)
        tuned._sign()
        return tuned

    def pack(self, texts: Sequence[str], start: int = 0) -> Float[Tensor, "n token *dim"]:
        """Texts as the single input of `tunable`'s network, padded with zeros.

        Token ids + 1, or with `start` the frozen states after so many layers (4 bytes × tokens × dim: pack a batch, not
        a data set).
        """
        ids, mask = self.tokenize(texts)
        if not start or not len(ids):
            return ((ids + 1) * mask).float()
        states = torch.zeros(*ids.shape, self.dim)
        with torch.inference_mode():
            base = self.frozen.model
            (below,) = base(ids, mask, layers=(start,))
            states.copy_(below * mask.unsqueeze(-1))
        return states

    def tunable(
        self,
        spec: LoRA,
        *,
        adapter: Adapter | None = None,
        seed: int = 0,
        dtype: str | torch.dtype | None = "float32",
    ) -> tuple[SentenceBert, dict[str, Tensor]]:
        """A network from `pack(texts)` or `pack(texts, spec.first)` to sentence vectors, and its adapter parameters.

        Weights are shared, nothing but the adapter requires a gradient. Parameters and features are float32; with
        `dtype` "bfloat16" (or None: where it is faster) the products in between aren't. Measured with the default
        spec, 64 sentences a step, in sentences per CPU-s: 57 from token ids, 82 from the states below, 217 from
        these in bfloat16 (cosine of the gradient to float32's: .9999).

        Afterwards `Adapter(spec, tuned, base=encoder.frozen.identity).half()` is what to keep.
        """
        mixed = resolve_dtype(dtype) is torch.bfloat16
        # Cast once here: autocast would cast frozen weights anew in every pass.
        state = {
            name: tensor.bfloat16() if mixed and tensor.ndim == 2 and name.startswith("encoder.") else tensor
            for name, tensor in self.weights.state.items()
        }
        network = SentenceBert.load(self.weights.config, state, self.weights.source)
        network.start, network.pooling, network.mixed = spec.first, self.weights.pooling, mixed
        return spec.attach(network, adapter and adapter.tensors, seed=seed)

    # -- inside

    def _features(self, texts: list[str], progress: bool, both: bool = False) -> list[Tensor]:
        """Vectors of each encoder in turn: (this one), or (frozen, this one) with the lower layers shared."""
        # Made outside of inference mode: autograd refuses tensors that were born in it, and heads are trained on these.
        out = [torch.empty(len(texts), self.dim) for _ in range(1 + both)]
        start = self.adapter.spec.first if both and self.adapter is not None else 0
        with _bar(len(texts), progress) as advance, torch.inference_mode():
            for begin in range(0, len(texts), WINDOW):
                encodings = self._tokenizer(texts[begin : begin + WINDOW])
                for rows in batches(encodings):
                    ids, mask = padded([encodings[i] for i in rows])
                    place = torch.tensor(rows) + begin
                    if both:
                        base = self.frozen.model
                        (below,) = base(ids, mask, layers=(start,))
                        states = [model(None, mask, below, start) for model in (base, self.model)]
                    else:
                        states = [self.model(ids, mask)]
                    for vectors, state in zip(out, states, strict=True):
                        vectors[place] = pool(state, mask, self.weights.pooling).float()
                    advance(len(rows))
        return out


def resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """The number format to use; None or "auto" is the one that is faster on this CPU."""
    if dtype is None or dtype == "auto":
        return _faster()
    found = dtype if isinstance(dtype, torch.dtype) else _DTYPES.get(dtype)
    if found is None or found not in _DTYPES.values():
        raise ModelError(f"dtype is {dtype!r}, expected {', '.join(_DTYPES)}, or None for the faster one.")
    return found


@lru_cache(maxsize=1)
def _faster() -> torch.dtype:
    """bfloat16 with AMX; with AVX512-BF16 alone where it wins, which it does on some processors and not on others."""
    capable = getattr(torch.cpu, "get_capabilities", dict)()
    if capable.get("amx_bf16"):
        return torch.bfloat16
    if not capable.get("avx512_bf16"):
        return torch.float32
    least = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(4):  # the first of each prepares; by turns, so that what else runs here slows both
        for dtype in least:
            x, weight = torch.ones(256, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
            begun = time.process_time()
            F.linear(x, weight)
            least[dtype] = min(least[dtype], time.process_time() - begun)
    # Measured, the ratio is about .3 or 1.5: what lies between is no reason to give up digits.
    return torch.bfloat16 if least[torch.bfloat16] < 0.67 * least[torch.float32] else torch.float32


class _bar:
    """A progress bar on stderr, or nothing."""

    def __init__(self, total: int, shown: bool) -> None:
        self.total, self.bar = total, None
        if shown:
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True), transient=True)

    def __enter__(self) -> Callable[[int], None]:
        if self.bar is None:
            return lambda n: None
        self.bar.start()
        task = self.bar.add_task("encoding", total=self.total)
        bar = self.bar
        return lambda n: bar.advance(task, n)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
