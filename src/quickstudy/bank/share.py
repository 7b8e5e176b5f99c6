"""A bank's entries as a folder that can be given away: tasks.jsonl and tensors.safetensors.

The first line of tasks.jsonl says {"quickstudy_bank": 1, "sha256": of the tensors, "tensors": their shapes}; every
other one is an entry: what is known of it, its material, and for each part the labels. The part's numbers are the
tensors "0.entities.x", "0.entities.y" and, where there are descriptions, "0.entities.told" of the entry's place from 0.

Such a folder may come from anybody: names, sizes, shapes and numbers are checked, ids and embeddings are made anew from
what is there, and nothing in it can run.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quickstudy.bank.entry import DEPTH, MOST_MATERIAL, Entry, Part, canonical
from quickstudy.core import atomic, tensorfile
from quickstudy.core.checkpoint import TENSORS
from quickstudy.core.database import writing
from quickstudy.core.errors import CheckpointError, DataError
from quickstudy.core.untrusted import Refused, open_plain, parse_json, refuse_unsafe

if TYPE_CHECKING:
    from quickstudy.bank.store import TaskBank

FORMAT = 1
TASKS = "tasks.jsonl"
MOST_ENTRIES = 10_000
LINE = MOST_MATERIAL + 2**22
"""Bytes of a line, at most."""
_ABOUT = ("domain", "name", "description", "source", "licence", "consent", "kept", "encoder", "identity")


def export(bank: "TaskBank", folder: Path | str, names: list[str] | None = None) -> list[str]:
    """Write entries (all, or those named) to a new folder, whole or not at all. Returns their ids.

    Raises:
        DataError: an unknown entry, none at all, or a folder that is there already.
        CheckpointError: no room to write.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise DataError("is there already. Name a new folder; nothing is written over.", file=folder)
    if not folder.parent.is_dir():
        raise DataError(f'there is no folder "{folder.parent}".', file=folder)
    ids = (
        [one.id for one in bank.summaries()] if names is None else list(dict.fromkeys(map(bank.find, names)))
    )
    if not ids:
        raise DataError(f"The bank {bank.path} is empty; there is nothing to export.")
    tensors: dict[str, Tensor] = {}
    lines = []
    for place, id in enumerate(ids):
        entry = bank.entry(id)
        for part in entry.parts:
            name = f"{place}.{part.name or 'task'}"
            tensors |= {f"{name}.x": part.x.half(), f"{name}.y": part.y.int()}
            tensors |= {} if part.told is None else {f"{name}.told": part.told.half()}
        record = {key: getattr(entry, key) for key in _ABOUT}
        parts = [{"name": part.name, "labels": list(part.labels)} for part in entry.parts]
        lines.append(canonical({**record, "parts": parts, "material": entry.material}) + b"\n")
    try:
        described = tensorfile.describe(tensors)
        digest = hashlib.sha256()
        for chunk in tensorfile.chunks(tensors, described):
            digest.update(chunk)
        head = {"quickstudy_bank": FORMAT, "sha256": digest.hexdigest(), "tensors": described}
        with atomic.replacing(folder) as new:
            atomic.write_new(new / TENSORS, tensorfile.chunks(tensors, described))
            atomic.write_new(new / TASKS, [json.dumps(head).encode() + b"\n", *lines])
    except Refused as problem:
        raise CheckpointError(f"cannot write {folder}: {problem}.") from None
    except OSError as error:
        needed = sum(map(len, lines)) + sum(t.numel() * t.element_size() for t in tensors.values())
        raise CheckpointError(atomic.write_problem(error, folder, needed)) from error
    return ids


def load(bank: "TaskBank", folder: Path | str, *, consent: str) -> tuple[list[str], list[str]]:
    """Add the entries of an exported folder: all of them, or none.

    Args:
        consent: by whose word they are kept here; what the folder says of consent where it was made stands behind it.

    Returns:
        The ids that are new, and those that the bank had.

    Raises:
        CheckpointError: the folder is damaged, hostile or of a newer version.
        DataError: no consent.
    """
    entries = [
        replace(one, consent=f"{consent}; where it comes from: {one.consent}"[:2000]).checked()
        for one in read(Path(folder))
    ]
    new, known = [], []
    with writing(bank.db, bank.path):
        for entry in entries:
            id, added = bank.add(entry)
            (new if added else known).append(id)
    return new, known


def read(folder: Path) -> list[Entry]:
    """The entries of an exported folder, checked. Raises CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} isn't a folder; `quickstudy bank export` writes one.")
    refuse_unsafe(folder)
    try:
        lines = _lines(folder)
        head = _object(next(lines, b""), "its first line")
        version = head.get("quickstudy_bank")
        if isinstance(version, int) and version > FORMAT:
            raise Refused(
                f"it is an export of version {version}; this quickstudy knows up to {FORMAT}. Update quickstudy"
            )
        if version != FORMAT or not isinstance(head.get("tensors"), dict):
            raise Refused("its first line isn't that of an exported bank")
        with open_plain(folder, TENSORS) as file:
            tensors = tensorfile.read(file, head["tensors"], str(head.get("sha256")))
        found, used = [], set()
        for place, line in enumerate(lines):
            entry, names = _entry(_object(line, f"entry {place}"), place, tensors)
            found.append(entry)
            used |= names
        if spare := set(tensors) - used:
            raise Refused(f"the tensor {min(spare)!r} belongs to no entry")
        return found
    except Refused as problem:
        raise CheckpointError(f"{folder}: {problem}.") from None
    except DataError as problem:
        raise CheckpointError(f"{folder}: {problem}") from None


def _entry(record: dict[str, Any], place: int, tensors: dict[str, Tensor]) -> tuple[Entry, set[str]]:
    if set(record) != {*_ABOUT, "parts", "material"} or not isinstance(record["material"], dict):
        raise Refused(
            f"entry {place} has the fields {', '.join(sorted(record))[:200]}; those of an export were expected"
        )
    if not isinstance(record["parts"], list) or not all(isinstance(record[key], str) for key in _ABOUT):
        raise Refused(f"entry {place} has fields of the wrong kind")
    parts, used = [], set()
    for part in record["parts"]:
        if not isinstance(part, dict) or set(part) != {"name", "labels"} or not isinstance(part["name"], str):
            raise Refused(f"a part of entry {place} isn't {{name, labels}}")
        labels = part["labels"]
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise Refused(f"a part of entry {place} has labels that aren't words")
        name = f"{place}.{part['name'] or 'task'}"
        x, y, told = (tensors.get(f"{name}.{key}") for key in ("x", "y", "told"))
        if x is None or y is None or x.dtype is not torch.float16 or y.dtype is not torch.int32:
            raise Refused(f"the tensors {name}.x in float16 and {name}.y in int32 aren't there")
        if told is not None and told.dtype is not torch.float16:
            raise Refused(f"the tensor {name}.told isn't in float16")
        used |= {f"{name}.x", f"{name}.y"} | (set() if told is None else {f"{name}.told"})
        told = None if told is None else told.float()
        parts.append(Part(part["name"], tuple(labels), x.float(), y.long(), told))
    about = {key: record[key] for key in _ABOUT}
    return Entry(**about, parts=tuple(parts), material=record["material"]).checked(), used


def _lines(folder: Path) -> Iterator[bytes]:
    with open_plain(folder, TASKS) as file:
        size = os.fstat(file.fileno()).st_size
        count = 0
        while line := file.readline(min(LINE, size) + 1):
            count += 1
            if len(line) > LINE or count > MOST_ENTRIES + 1:
                raise Refused(
                    f"{TASKS} has a line of more than {LINE:,} bytes, or more than {MOST_ENTRIES:,} entries"
                )
            if not line.endswith(b"\n"):
                raise Refused(f"{TASKS} is cut off")
            yield line


def _object(line: bytes, what: str) -> dict[str, Any]:
    value = parse_json(line, depth=DEPTH + 2)
    if not isinstance(value, dict):
        raise Refused(f"{what} is no JSON object")
    return value
