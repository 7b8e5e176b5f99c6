"""Tensors in the safetensors format, written and read in one pass that also hashes them.

The file is an 8-byte little-endian length, a JSON header {name: {dtype, shape, data_offsets}}, and the
tensors' bytes; any safetensors reader opens it (https://huggingface.co/docs/safetensors). Why not the
package's own functions: they take a path, so the bytes that were hashed needn't be the bytes that are mapped,
and a full disk comes back as an error without an errno. Here every byte is hashed on its way, and a header is
believed only after it was checked against the file's size, before any memory is reserved.
"""

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Any

import torch
from torch import Tensor

from quickstudy.core.untrusted import Refused, parse_json

MAX_BYTES = 4 * 2**30
MAX_TENSORS = 20_000
MAX_HEADER = 8 * 2**20
MAX_DIMENSIONS = 8
_CHUNK = 4 * 2**20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,199}")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def describe(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Return {name: {dtype, shape}} of tensors that can be saved, in the order of the file.

    Raises Refused for a name that isn't plain, a kind of tensor or number that isn't allowed, a NaN
    or an infinity, and for sizes above the limits.
    """
    if len(tensors) > MAX_TENSORS:
        raise Refused(f"{len(tensors)} tensors; at most {MAX_TENSORS} fit in a folder")
    for name, tensor in tensors.items():
        _check_name(name)
        if not isinstance(tensor, Tensor):
            raise Refused(f'"{name}" is a {type(tensor).__name__}; a torch.Tensor was expected')
        if tensor.layout is not torch.strided or tensor.dtype not in _NAMES or tensor.device.type == "meta":
            raise Refused(
                f'tensor "{name}" is {tensor.layout}, {tensor.dtype} on {tensor.device}; a dense one of '
                f"{', '.join(sorted(_NAMES.values()))} was expected"
            )
        if tensor.ndim > MAX_DIMENSIONS:
            raise Refused(f'tensor "{name}" has {tensor.ndim} dimensions; at most {MAX_DIMENSIONS} fit')
        _check_values(name, tensor)
    # Wide numbers first: with an 8-byte header every tensor then starts at a multiple of its own width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    if (total := sum(t.numel() * t.element_size() for _, t in ordered)) > MAX_BYTES:
        raise Refused(f"{total / 1e6:,.0f} MB of tensors; at most {MAX_BYTES / 1e6:,.0f} MB fit in a folder")
    return {name: {"dtype": _NAMES[t.dtype], "shape": list(t.shape)} for name, t in ordered}


def size_of(entries: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many bytes the tensors of a description take, without the header."""
    return sum(_bytes_of(entry) for entry in entries.values())


def chunks(
    tensors: Mapping[str, Tensor], entries: Mapping[str, Mapping[str, Any]]
) -> Iterator[bytes | memoryview]:
    """Give the bytes of the file for `tensors`, as `describe` ordered and described them, a few MB at a
    time.
    """
    header, start = {}, 0
    for name, entry in entries.items():
        end = start + _bytes_of(entry)
        header[name] = {**entry, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in entries:
        tensor = tensors[name].detach().cpu().contiguous()
        data = _memory(tensor)
        for at in range(0, len(data), _CHUNK):
            yield data[at : at + _CHUNK]


def hashing(parts: Iterator[bytes | memoryview], digest: "hashlib._Hash") -> Iterator[bytes | memoryview]:
    """Pass the chunks on, adding each to `digest`."""
    for part in parts:
        digest.update(part)
        yield part


def read(file: BufferedReader, expected: Mapping[str, Any], sha256: str) -> dict[str, Tensor]:
    """Read the tensors of an open safetensors file, which must be those `expected` (as `describe` returns
    them).

    Raises Refused when the file is truncated, lies about its sizes, differs from `expected` or
    `sha256`, or holds NaN or infinity.
    """
    digest = hashlib.sha256()
    size = os.fstat(file.fileno()).st_size
    if size > MAX_BYTES + MAX_HEADER + 8:
        raise Refused(f"it is {size / 1e6:,.0f} MB large; at most {MAX_BYTES / 1e6:,.0f} MB are read")
    header_size = struct.unpack("<Q", _take(file, 8, digest))[0]
    if header_size > min(MAX_HEADER, size - 8):
        raise Refused(f"it is truncated or not safetensors: a header of {header_size} bytes in {size}")
    header = parse_json(_take(file, header_size, digest), depth=4)
    ordered = _checked(header, size - 8 - header_size)
    found = {name: {"dtype": entry["dtype"], "shape": entry["shape"]} for name, entry in ordered}
    if found != expected:
        raise Refused("its tensors aren't those that record.json lists")
    tensors = {}
    for name, entry in ordered:  # in the file's order: every byte is read once, straight into its tensor
        tensors[name] = torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]])
        data = _memory(tensors[name])
        for at in range(0, len(data), _CHUNK):
            _fill(file, data[at : at + _CHUNK], digest)
    if digest.hexdigest() != sha256:
        raise Refused("its SHA-256 isn't the one in record.json: it was damaged or changed")
    for name, tensor in tensors.items():
        _check_values(name, tensor)
    return tensors


def _checked(header: Any, available: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the header's tensors in the order of the file, after checking that they tile it exactly."""
    if not isinstance(header, dict):
        raise Refused("its header isn't a JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise Refused(f"its header lists {len(header)} tensors; at most {MAX_TENSORS} are read")
    for name, entry in header.items():
        _check_name(name)
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise Refused(
                f'its header says of tensor "{name}" something else than dtype, shape, data_offsets'
            )
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
            raise Refused(f'tensor "{name}" is {entry["dtype"]!r:.40}; allowed are {", ".join(_DTYPES)}')
        if not _sizes(entry["shape"]) or len(entry["shape"]) > MAX_DIMENSIONS:
            raise Refused(f'tensor "{name}" has an impossible shape {entry["shape"]!r:.80}')
        if not _sizes(entry["data_offsets"]) or len(entry["data_offsets"]) != 2:
            raise Refused(f'tensor "{name}" has impossible offsets {entry["data_offsets"]!r:.80}')
        if math.prod(max(1, n) for n in entry["shape"]) > MAX_BYTES:
            raise Refused(f'tensor "{name}" has an absurd shape {entry["shape"]!r:.80}')
    ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    at = 0
    for name, entry in ordered:
        if entry["data_offsets"] != [at, at + _bytes_of(entry)]:
            raise Refused(f'its header lies about the place or size of tensor "{name}"')
        at += _bytes_of(entry)
    if at != available:
        raise Refused(
            f"it is truncated or lies: the header speaks of {at} bytes of tensors, {available} follow"
        )
    return ordered


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refused(
            f"the tensor name {name!r:.60} isn't plain: up to 200 of A-Z a-z 0-9 _ . : / - were expected"
        )


def _check_values(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point():
        flat = tensor.detach().reshape(-1)
        for part in flat.split(_CHUNK):
            if not bool(part.isfinite().all()):
                bad = int((~flat.isfinite()).sum())
                raise Refused(f'tensor "{name}" holds {bad} values that are NaN or infinite')
    elif tensor.dtype == torch.bool and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
        raise Refused(f'tensor "{name}" is BOOL with bytes other than 0 and 1')


def _bytes_of(entry: Mapping[str, Any]) -> int:
    return math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize


def _memory(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _take(file: BufferedReader, size: int, digest: "hashlib._Hash") -> bytes:
    buffer = bytearray(size)
    _fill(file, memoryview(buffer), digest)
    return bytes(buffer)


def _fill(file: BufferedReader, target: memoryview, digest: "hashlib._Hash") -> None:
    at = 0
    while at < len(target):
        got = file.readinto(target[at:])
        if not got:
            raise Refused("it is truncated")
        at += got
    digest.update(target)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= MAX_BYTES for n in value)
