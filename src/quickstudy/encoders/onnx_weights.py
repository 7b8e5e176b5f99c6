"""The weights of a BERT in an ONNX file that ONNX Runtime's dynamic quantiser wrote: int8 there, float32 in memory.

A matrix W stands as whole numbers Q with a scale s and a zero point z for each column: W = s (Q − z), which is what
the quantised graph multiplies by; only its activations, rounded to 8 bits at every product, aren't rounded here.

Read is protobuf's wire format, and of the graph what carries weights: nodes' names and inputs, and initializers
(field numbers: onnx/onnx.proto of ONNX 1.23; the format: protobuf.dev/programming-guides/encoding). Why not by the
`onnx` package: it brings 50 MB for three kinds of message, and follows a tensor's `external_data` to other files.
Here nothing is read but the bytes given, and no number in them reserves memory: a shape must fit the bytes that are
there and each is used once, so that no more than a few times the file's size is ever held.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import ModelError
from quickstudy.core.untrusted import Refused

T = TypeVar("T")
MAX_BYTES = 2**30
MAX_PARTS = 50_000
MAX_DIMENSIONS = 4
_KINDS = {1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1")}  # TensorProto.DataType
# A linear layer's product, as PyTorch's exporter names it and the quantiser renames it.
_PRODUCT = re.compile(r"/(?:bert/)?(encoder/layer\.\d+/[a-zA-Z_/]+)/MatMul_quant")
_PLAIN = re.compile(r"(?:bert\.)?((?:embeddings|encoder)\.[\w.]+\.(?:weight|bias))")
_TABLE = re.compile(r"(?:bert\.)?(embeddings\.\w+\.weight)_quantized")


class _Array(NamedTuple):
    """An initializer as it stands in the file."""

    kind: int
    shape: tuple[int, ...]
    raw: memoryview | bytes | None
    whole: list[int]
    """Numbers of the field int32_data, which small tensors of 8-bit numbers use instead of raw bytes."""


def read_state(data: bytes, source: str) -> dict[str, Tensor]:
    """The weights in `data`, the bytes of an ONNX file, float32 and under BertModel's names.

    Raises ModelError, naming `source`, for what is truncated, no quantised BERT, or lies about its sizes.
    """
    try:
        if len(data) > MAX_BYTES:
            raise Refused(f"is {len(data) / 1e6:,.0f} MB large; at most {MAX_BYTES / 1e6:,.0f} MB are read")
        return _state(memoryview(data))
    except Refused as problem:
        raise ModelError(
            f"{source} {problem}. Expected an int8 BERT as ONNX Runtime's quantize_dynamic writes it; fetch the file "
            "again, or use an encoder with model.safetensors."
        ) from problem


def _state(data: memoryview) -> dict[str, Tensor]:
    graphs = [_message(value) for field, value in _fields(data) if field == 7]
    if len(graphs) != 1:
        raise Refused(f"holds {len(graphs)} graphs, not one: it is no ONNX model, or truncated")
    arrays: dict[str, _Array] = {}
    products: dict[str, tuple[str, str]] = {}
    for part, (field, value) in enumerate(_fields(graphs[0])):
        if part > MAX_PARTS:
            raise Refused(f"has a graph of more than {MAX_PARTS:,} parts")
        if field == 1 and (found := _product(_message(value))):
            _add(products, *found)
        elif field == 5:
            _add(arrays, *_array(_message(value)))
    if not products:
        raise Refused("has no quantised linear layer of a BERT")
    if len({name for name, _ in products.values()}) < len(
        products
    ):  # a small file could become a large state
        raise Refused("uses the same weights in two layers")
    state: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if found := _PLAIN.fullmatch(name):
            if array.kind != 1:
                raise Refused(f"holds {name} as numbers of ONNX's type {array.kind}, not as float32")
            _add(state, found[1], torch.from_numpy(_values(name, array).copy()))
        elif found := _TABLE.fullmatch(name):
            _add(state, found[1], _dequantised(arrays, name, name.removesuffix("_quantized") + "_zero_point"))
    for place, (name, zero) in products.items():
        # A linear layer keeps W transposed: [out, in].
        _add(state, f"{place}.weight", _dequantised(arrays, name, zero).T.contiguous())
    return state


def _dequantised(arrays: Mapping[str, _Array], name: str, zero: str) -> Tensor:
    """The matrix s (Q − z), float32; s and z are single numbers, or one for each column."""
    scale = name.removesuffix("_quantized") + "_scale"
    if absent := [n for n in (name, scale, zero) if n not in arrays]:
        raise Refused(f"lacks {', '.join(absent)}")
    kinds = [arrays[n].kind for n in (name, zero, scale)]
    if kinds not in ([2, 2, 1], [3, 3, 1]):
        raise Refused(
            f"holds {name}, its zero point and its scale as ONNX's types {kinds}, not as 8 bits and float32"
        )
    q, z, s = (_values(n, arrays[n]) for n in (name, zero, scale))
    if q.ndim != 2 or z.shape != s.shape or s.shape not in ((), (1,), q.shape[1:]):
        raise Refused(f"holds {name} {q.shape} with zero points {z.shape} and scales {s.shape}")
    weight = q.astype(np.float32)  # exact, and so is the difference: both are whole numbers below 2¹⁰
    weight -= z.astype(np.float32)
    weight *= s
    return _finite(name, torch.from_numpy(weight))


def _values(name: str, array: _Array) -> np.ndarray:
    """The numbers of an initializer. Raises Refused, before any memory is reserved, if they don't fit its shape."""
    dtype = _KINDS.get(array.kind)
    if dtype is None:
        raise Refused(
            f"holds {name} as numbers of ONNX's type {array.kind}; float32 and 8 bits are supported"
        )
    if array.raw is None:
        info = np.iinfo(dtype) if array.kind != 1 else None
        if info is None or any(not info.min <= n <= info.max for n in array.whole):
            raise Refused(f"holds numbers in {name} that are no {dtype.name}")
        raw = np.array(array.whole, dtype).tobytes()
    else:
        raw = array.raw
    if any(n < 1 for n in array.shape) or math.prod(array.shape) * dtype.itemsize != len(raw):
        raise Refused(
            f"says that {name} has the shape {str(array.shape)[:80]}, but {len(raw):,} bytes are there"
        )
    values = np.frombuffer(raw, dtype).reshape(array.shape)
    if array.kind == 1:
        _finite(name, torch.from_numpy(values.copy()))
    return values


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not bool(tensor.isfinite().all()):
        raise Refused(f"holds numbers in {name} that are not finite")
    return tensor


# -- messages


def _product(node: memoryview) -> tuple[str, tuple[str, str]] | None:
    """(the linear layer's name, (its weights', its zero points')) of a quantised product, None of other nodes."""
    inputs, name, kind = [], "", ""
    for field, value in _fields(node):
        if field == 1:
            inputs.append(_text(value))
        elif field == 3:
            name = _text(value)
        elif field == 4:
            kind = _text(value)
    found = _PRODUCT.fullmatch(name) if kind == "MatMulInteger" else None
    if found is None:
        return None
    if len(inputs) != 4 or not inputs[1].endswith("_quantized"):
        raise Refused(f"has a product {name} of {', '.join(inputs)[:200]}")
    return found[1].replace("/", "."), (inputs[1], inputs[3])


def _array(message: memoryview) -> tuple[str, _Array]:
    name, kind, shape, raw, whole = "", 0, [], None, []
    floats = []
    for field, value in _fields(message):
        if field == 1:
            shape += _numbers(value)
        elif field == 2:
            kind = _number(value)
        elif field == 4:
            floats.append(_message(value))
        elif field == 5:
            whole += [n - 2**64 if n >= 2**63 else n for n in _numbers(value)]
        elif field == 8:
            name = _text(value)
        elif field == 9:
            raw = _message(value)
        elif field == 13 or (field == 14 and value):
            raise Refused("keeps weights in another file (external data), and other files are never read")
        if len(shape) > MAX_DIMENSIONS or len(floats) + len(whole) > MAX_PARTS:
            raise Refused(
                f"has {name[:80] or 'a tensor'} with too many dimensions or numbers outside its raw bytes"
            )
    if raw is None and floats:
        raw = b"".join(floats)
    return name, _Array(kind, tuple(shape), raw, whole)


def _add(to: dict[str, T], name: str, value: T) -> None:
    if name in to:
        raise Refused(f"holds {name[:200]} twice")
    to[name] = value


# -- wire format


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of a message's fields: a varint as a whole number, anything else as its bytes, uncopied."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
        else:
            if wire == 2:
                size, at = _varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise Refused("is no ONNX file, or damaged")
            if size > len(data) - at:
                raise Refused("is truncated or damaged")
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The whole number that starts at `at`, and where the next field starts."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Refused("is truncated or damaged")
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
    raise Refused("is no ONNX file, or damaged")


def _numbers(value: int | memoryview) -> list[int]:
    """The numbers of a repeated field: one, or many packed together."""
    if isinstance(value, int):
        return [value]
    if len(value) > 10 * MAX_PARTS:
        raise Refused("has too many numbers outside of raw bytes")
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _is(kind: type[T]) -> Callable[[int | memoryview], T]:
    def checked(value: int | memoryview) -> T:
        if not isinstance(value, kind):
            raise Refused("is no ONNX file, or damaged")
        return value

    return checked


_number, _message = _is(int), _is(memoryview)


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)[:1000]).decode("utf-8", "replace")
