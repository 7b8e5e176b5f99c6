"""Folders that hold what was learned: record.json and tensors.safetensors, replaced whole or not at all.

record.json says {"format": 1, "kind": ...}, the caller's own fields, and under "tensors" the SHA-256, name,
shape and dtype of everything in tensors.safetensors. Loading reads these two files only, runs nothing, and
refuses a folder in which anything is odd: it may come from anybody. How a folder is replaced stands in
`atomic`; how the tensors are read, in `tensorfile`.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from quickstudy.core import atomic, tensorfile
from quickstudy.core.errors import CheckpointError, did_you_mean
from quickstudy.core.untrusted import Refused, open_plain, parse_json, pickle_like, refuse_unsafe

FORMAT = 1
RECORD = "record.json"
TENSORS = "tensors.safetensors"
KINDS = {  # kind -> what it is and which command takes it
    "adapted": "an adapted model, for `quickstudy predict` and `quickstudy explain`",
    "prior": "a prior, for `quickstudy adapt --prior`",
    "checkpoint": "a checkpoint of a training run, for `quickstudy learn --resume`",
    "adapter": "an encoder adapter, which `quickstudy learn --tune-encoder` makes and saves beside a prior",
    "entity-prior": "what past corpora taught about entities",
    "entities": "a recogniser of entities",
    "completion": "what a graph taught about its relations, to infer new ones",
}
MAX_RECORD = 16 * 2**20
MAX_DEPTH = 32
_OURS = ("format", "tensors", "files")  # fields of the record that the folder keeps for itself
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class TrainingState:
    """What `meta_train` needs to go on as if it had never stopped.

    `tensors` holds meta and the optimiser's state under names of the trainer's choice; `record` the rest, and
    under "fingerprints" a {name: text} of what the run was made with (encoder, data, learner, seed).
    """

    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]


def save_folder(
    folder: Path | str,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    *,
    extra_files: Mapping[str, str | bytes] = MappingProxyType({}),
) -> None:
    """Write a folder that `load_folder` reads, replacing an older one whole; on any error the older one
    stays.

    Args:
        tensors: any shapes; real, integer or bool, all finite. Kept on their way: name, dtype, shape.
        record: JSON with a "kind" out of `KINDS`; tuples become lists.
        extra_files: {plain name: contents} for people to read (a card, a licence); loading never reads them.

    Raises CheckpointError for what can't be saved, for a full disk (with the MB needed and free), and when
    `folder` holds files that quickstudy didn't write: replacing it would delete them.
    """
    folder = _place(folder)
    try:
        entries = tensorfile.describe(tensors)
        extras = {name: _extra(name, data) for name, data in extra_files.items()}
        size = len(
            _record_text(record, entries, extras, "0" * 64)
        )  # the hash is known once the tensors are written
    except Refused as error:
        raise CheckpointError(f"cannot save {folder}: {error}. Nothing was written.") from None
    needed = tensorfile.size_of(entries) + size + sum(map(len, extras.values()))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(folder) as new:
            _refuse_to_delete(folder)
            digest = hashlib.sha256()
            atomic.write_new(new / TENSORS, tensorfile.hashing(tensorfile.chunks(tensors, entries), digest))
            for name, data in extras.items():
                atomic.write_new(new / name, [data])
            atomic.write_new(new / RECORD, [_record_text(record, entries, extras, digest.hexdigest())])
    except OSError as error:
        raise CheckpointError(atomic.write_problem(error, folder, needed)) from error


def load_folder(folder: Path | str, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors, record) of a folder written by `save_folder`; the record has "format" and "kind".

    A replacement that a crash cut in two is finished or undone first. Raises CheckpointError when there is no
    such folder, it is of another kind, unsafe (pickle-like files, links) or damaged.
    """
    place = _place(folder)
    for _ in range(20):
        before = None
        try:
            found = atomic.recover(place)
            before = _identity(found)
            return _load(found, kind)
        except OSError as error:
            problem = CheckpointError(f"cannot read {place}: {error.strerror or error}")
        except CheckpointError as error:
            problem = error
        if _identity(place) == before:
            raise problem
        # Someone replaced the folder while it was read: what looked damaged was half one, half the other.
    raise CheckpointError(f"{place} is being replaced again and again; no whole version could be read")


def save_state(folder: Path | str, state: TrainingState) -> None:
    """Write a training state as a folder of kind "checkpoint". Raises as `save_folder`."""
    save_folder(folder, state.tensors, {"kind": "checkpoint", "step": state.step, "state": state.record})


def load_state(folder: Path | str, expect: Mapping[str, str]) -> TrainingState:
    """Return the training state, made with the same things as this run.

    `expect` ({"encoder": ..., "data": ..., "learner": ..., "seed": ...}) is compared with the state's own
    fingerprints. Raises CheckpointError as `load_folder`, and when any of `expect` differs, naming each.
    """
    tensors, record = load_folder(folder, kind="checkpoint")
    step, state = record.get("step"), record.get("state")
    if type(step) is not int or step < 0 or not isinstance(state, dict):
        raise CheckpointError(f"{folder} holds no training state (a step and its record are missing)")
    stored = state.get("fingerprints")
    stored = stored if isinstance(stored, dict) else {}
    wrong = [
        f"with {name} {_short(stored[name])}, the run uses {_short(value)}"
        if name in stored
        else f"without noting its {name}, the run uses {_short(value)}"
        for name, value in expect.items()
        if name not in stored or str(stored[name]) != str(value)
    ]
    if wrong:
        raise CheckpointError(
            f"this checkpoint ({folder}) was made {'; and '.join(wrong)}. Going on would mix two runs: start "
            "anew with another folder, or run with what the checkpoint was made with."
        )
    return TrainingState(step, tensors, state)


def _place(folder: Path | str) -> Path:
    place = Path(os.path.realpath(folder))  # 'latest -> run3': the folder is replaced, not the link
    if not place.name:
        raise CheckpointError(
            f"{folder} can't hold a model: it is the root of a disk. Name a folder inside it."
        )
    return place


def _record_text(
    record: Mapping[str, Any], entries: Mapping[str, Any], extras: Mapping[str, bytes], sha256: str
) -> bytes:
    if record.get("kind") not in KINDS:
        raise Refused(f'the record\'s "kind" is {record.get("kind")!r}; expected one of {", ".join(KINDS)}')
    if record.get("format", FORMAT) != FORMAT or "tensors" in record or "files" in record:
        raise Refused(f"the record's fields {', '.join(_OURS)} are kept for the folder itself")
    whole = {
        "format": FORMAT,
        **_plain(record, "record", MAX_DEPTH),
        "tensors": {"file": TENSORS, "sha256": sha256, "entries": entries},
        "files": sorted(extras),
    }
    try:
        text = (json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        raise Refused(
            "the record holds text that isn't valid Unicode (a broken UTF-8 byte, once read)"
        ) from None
    if len(text) > MAX_RECORD:
        raise Refused(
            f"the record is {len(text) / 1e6:.0f} MB of JSON; at most {MAX_RECORD / 1e6:.0f} MB fit"
        )
    return text


def _plain(value: Any, where: str, depth: int) -> Any:
    """Return `value` as JSON will give it back, or raise naming the field that JSON would lose or change."""
    if depth == 0:
        raise Refused(f"{where[:80]}… is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise Refused(f"{where} has the key {wrong[0]!r:.40}; JSON keys are strings")
        return {key: _plain(inner, f"{where}[{key!r:.40}]", depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{index}]", depth - 1) for index, inner in enumerate(value)]
    if isinstance(value, float) and value - value != 0:
        raise Refused(f"{where} is {value}, which JSON can't hold")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise Refused(f"{where} is a {type(value).__name__}, which JSON can't hold")


def _extra(name: str, data: str | bytes) -> bytes:
    if not _FILE_NAME.fullmatch(name) or name.lower() in (RECORD, TENSORS) or pickle_like(name):
        raise Refused(f"the extra file name {name!r:.60} isn't plain, or isn't allowed in such a folder")
    return data.encode() if isinstance(data, str) else data


def _refuse_to_delete(folder: Path) -> None:
    """Raise unless `folder` is absent, empty, or wholly written by `save_folder`."""
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise CheckpointError(f"{folder} is a file; a folder was expected. Save elsewhere.") from None
    if not names:
        return
    try:
        ours = {RECORD, TENSORS, *map(str, _read_record(folder)["files"])}
    except CheckpointError:  # no record, or one that isn't ours: then nothing in there is
        ours = set()
    if foreign := sorted(names - ours):
        raise CheckpointError(
            f"{folder} holds {', '.join(foreign[:3])}{' …' * (len(foreign) > 3)}, which quickstudy didn't write "
            "and saving would delete. Save into another folder, or move these away first."
        )


def _load(folder: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise CheckpointError(f"{folder} is a file; a folder with {RECORD} and {TENSORS} was expected")
        hint = did_you_mean(
            folder.name, (p.name for p in folder.parent.glob("*/")) if folder.parent.is_dir() else ()
        )
        raise CheckpointError(f"there is no folder {folder}.{hint}")
    refuse_unsafe(folder)
    record = _read_record(folder)
    if record["kind"] != kind:
        raise CheckpointError(
            f"{folder} holds {KINDS[record['kind']]}; here {KINDS.get(kind, kind)} was expected. Use that "
            "command, or give another folder."
        )
    listed = record["tensors"]
    with open_plain(folder, TENSORS) as file:
        try:
            tensors = tensorfile.read(file, listed["entries"], listed["sha256"])
        except Refused as error:
            raise CheckpointError(
                f"{folder / TENSORS}: {error}. Restore it from a copy, or make it again."
            ) from None
    return tensors, {key: value for key, value in record.items() if key not in ("tensors", "files")}


def _read_record(folder: Path) -> dict[str, Any]:
    with open_plain(folder, RECORD) as file:
        data = file.read(MAX_RECORD + 1)
    try:
        if len(data) > MAX_RECORD:
            raise Refused(f"it is larger than {MAX_RECORD / 1e6:.0f} MB")
        record = parse_json(data, depth=MAX_DEPTH + 2)
        if not isinstance(record, dict) or "format" not in record or "kind" not in record:
            raise Refused("it has no format and kind: quickstudy didn't write it")
        if record["format"] != FORMAT or type(record["format"]) is not int:
            raise Refused(
                f"its format is {record['format']!r:.40}, this version reads {FORMAT}: upgrade quickstudy"
            )
        if not isinstance(record["kind"], str) or record["kind"] not in KINDS:
            raise Refused(f"its kind is {record['kind']!r:.40}; known are {', '.join(KINDS)}")
        listed = record.get("tensors")
        if (
            not isinstance(listed, dict)
            or listed.get("file") != TENSORS
            or not isinstance(listed.get("sha256"), str)
            or not isinstance(listed.get("entries"), dict)
            or not isinstance(record.get("files"), list)
        ):
            raise Refused(f"it doesn't say what {TENSORS} should hold")
    except Refused as error:
        raise CheckpointError(f"{folder / RECORD}: {error}") from None
    return record


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _short(fingerprint: Any) -> str:
    return re.sub(r"[0-9a-f]{16,}", lambda hashed: hashed[0][:8] + "…", str(fingerprint))[:80]
