"""Reading what may come from anybody: strict JSON, plain files only, and nothing in the folder that could run."""

import json
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from quickstudy.core.errors import CheckpointError

MAX_FILES = 1000
_PICKLES = {".pkl", ".pickle", ".pk", ".dill", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".npz"}
# The whole header of an array of numbers: a part wouldn't do, as a second 'descr' could follow and win.
_PLAIN_NPY = re.compile(
    rb"\x93NUMPY.{4}(.{2})?\{'descr': '[<>|=][biufc]\d+', 'fortran_order': (True|False), 'shape': \([\d, ]*\), \} *\n",
    re.DOTALL,
)
# A pickle from protocol 2 on, or a zip. A safetensors file may begin with the same two bytes, as a part of its header's
# length; no pickle goes on with that length's zeros and the header's brace.
_PICKLED = re.compile(rb"\x80[\x02-\x05](?!.\0{5}\{)|PK\x03\x04", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def harmless(text: str) -> str:
    r"""A text as a terminal may show it.

    Spelt out are control characters, which could clear or forge what stands there, and bytes that are no UTF-8 (of a
    file's name), which couldn't be written.

    >>> print(harmless("\x1b[2Jgone"), harmless(b"caf\xe9".decode(errors="surrogateescape")))
    \x1b[2Jgone caf\xe9
    """
    return _CONTROL.sub(lambda odd: _spelt(ord(odd[0])), text)


def _spelt(code: int) -> str:
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0  # what Python makes of a byte that is no UTF-8
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Refused(ValueError):
    """What is wrong with a file or a value, without saying where: the caller knows the folder."""


def parse_json(data: bytes, *, depth: int) -> Any:
    """Parse strict JSON: UTF-8, no NaN, no key twice, no more than `depth` levels. Raises Refused."""
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_once)
    except RecursionError:
        raise Refused("its JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise Refused(f"its JSON isn't UTF-8 (byte {error.start})") from None
    except ValueError as error:  # JSONDecodeError, our own, and integers of thousands of digits
        raise Refused(f"its JSON is broken: {error}") from None
    level: list[Any] = [value]
    for _ in range(depth):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]
        if not level:
            return value
    raise Refused(f"its JSON is nested too deeply: more than {depth} levels")


def open_plain(folder: Path, name: str) -> BufferedReader:
    """Open a listed file if it is a plain one: not a link, not a pipe that would block for ever.

    Raises CheckpointError.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        handle = os.open(folder / name, flags)
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} has no {name}: it isn't a quickstudy folder, or it is damaged"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot open {folder / name}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CheckpointError(f"{folder / name} isn't a plain file")
    return os.fdopen(handle, "rb")


def refuse_unsafe(folder: Path) -> None:
    """Raise CheckpointError if anything in the folder could run code in another program, or is a link."""
    count = 0
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            count += 1
            if count > MAX_FILES:
                raise CheckpointError(
                    f"{folder} holds more than {MAX_FILES} files: it isn't a quickstudy folder"
                )
            if path.is_symlink():
                raise CheckpointError(
                    f"{path} is a link; a model folder holds plain files. Copy the file itself there."
                )
            if name in folders:
                continue
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise CheckpointError(
                    f"{path} isn't a plain file but a pipe, socket or device; a model folder holds plain files. "
                    "Remove it."
                )
            if pickle_like(name) or _holds_a_pickle(path):
                raise CheckpointError(
                    f"{path} can hold a pickle, and opening a pickle can run any program. quickstudy never writes "
                    "or reads one: make sure where the folder comes from, then remove the file."
                )


def pickle_like(name: str) -> bool:
    """Does any of the name's suffixes stand for a format that runs code when it is opened?"""
    return any(suffix.lower() in _PICKLES for suffix in Path(name.rstrip(". ")).suffixes)


def _holds_a_pickle(path: Path) -> bool:
    """Does a file begin as a pickle does, or a zip (which torch.save makes of one), or is it an .npy of objects?"""
    with open_plain(path.parent, path.name) as file:
        head = file.read(512)
    if path.name.lower().endswith(".npy"):
        return _PLAIN_NPY.match(head) is None
    return _PICKLED.match(head) is not None


def _inside(value: dict | list) -> Any:
    return value.values() if isinstance(value, dict) else value


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} isn't JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value
