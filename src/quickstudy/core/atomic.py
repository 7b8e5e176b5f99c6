"""Write a file or a folder so that a crash, a full disk or Ctrl-C never leaves half of it.

A file is written beside its place and renamed over it: one atomic step. A folder can't be: POSIX `rename`
refuses a full target, and Linux's `renameat2(RENAME_EXCHANGE)` is neither in Python nor on every file system.
So a folder takes two renames, with everything fsynced before the first:

    new is written     x (old)                 .x.new-1f2e (being written)
    new is whole       x (old)                 .x.new-1f2e (new)
    rename 1           .x.old (old)            .x.new-1f2e (new)      <- the only moment without an x
    rename 2           .x.old (old)            x (new)
    the old one goes   x (new)                 .x.trash-77aa (being removed)

Both versions are whole on either side of each step. A crash between the renames is repaired by the next load
or save: an absent x beside a `.x.old` means that the save didn't finish, and `.x.old` gets its name back. The
old folder is renamed before it is deleted, so a half-deleted one is never taken for a version to go back to.

Savers take turns by an flock on the parent folder: it needs no lock file, works for threads and processes,
and the kernel drops it when a process dies, so under it every `.x.new-*` is a dead saver's leftover and can
go. Readers take it only to repair. Where flock isn't supported, savers still use separate temporary folders
and the last one wins, but dead savers' leftovers stay.
"""

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quickstudy.core.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LOCK_SECONDS = 120.0
_UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL, errno.ENOSYS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_file(path: Path, data: str | bytes | Iterable[bytes]) -> None:
    """Write `data` (text as UTF-8; chunks as they come) to `path`, replacing it whole; on any error the old file stays
    and nothing else.

    The parent folder must exist.
    """
    temporary = path.with_name(f".{path.name}.new-{secrets.token_hex(4)}")
    whole = data.encode() if isinstance(data, str) else data
    try:
        write_new(temporary, [whole] if isinstance(whole, bytes) else whole)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # where nothing can be written, nothing can be removed either
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def write_new(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write the chunks to a file that mustn't exist yet, down to the disk."""
    with open(path, "xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill (with `write_new`); when the block ends well, it takes `folder`'s place.

    When the block raises, the old folder stays and the new one is removed. The parent folder must exist.
    Raises TimeoutError when another process has been saving for minutes, and the OSError of a failed write.
    """
    with _locked(folder.parent) as alone:
        if alone:
            _clean(folder)
        new = folder.with_name(f".{folder.name}.new-{secrets.token_hex(4)}")
        new.mkdir()
        try:
            yield new
            _sync_folder(new)
            _sync_folder(folder.parent)
            _swap(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def recover(folder: Path) -> Path:
    """Return where to read `folder` from, after undoing a replacement that a crash cut in two.

    That is `folder` itself (it may not exist), or, where nothing may be renamed, the old version beside it.
    """
    if _exists(folder) or not _is_folder(_old(folder)):
        return folder
    with _locked(folder.parent) as alone:  # a live saver may be between its two renames: wait for it
        if not _exists(folder) and _is_folder(_old(folder)):
            if not alone:
                return _old(folder)
            try:
                os.rename(_old(folder), folder)
            except OSError as error:
                if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
                    raise
                return _old(folder)
    return folder


def write_problem(error: OSError, folder: Path, needed: int) -> str:
    """Say in one sentence why `folder`, of `needed` bytes, couldn't be written and what to do."""
    if error.errno in _FULL:
        free = shutil.disk_usage(_nearest(folder.parent)).free
        return (
            f"no room to save {folder}: {_megabytes(needed)} needed, {_megabytes(free)} free (a quota or a "
            "limit on file sizes may allow less). What stood there is untouched. Free some space or save elsewhere."
        )
    if error.errno == errno.EBUSY:
        return f"cannot save {folder}: a mount point can't be replaced. Save into a folder inside it."
    reason = error.strerror or str(error) or type(error).__name__
    return f"cannot save {folder}: {reason}. What stood there is untouched. Save elsewhere or mend the cause."


def _swap(new: Path, folder: Path) -> None:
    old = _old(folder)
    if _is_folder(old) and _exists(folder):
        _discard(old)
    try:
        if _exists(folder):
            os.rename(folder, old)
        os.rename(new, folder)
    except BaseException:  # Ctrl-C too: never leave through here without a folder in place
        if not _exists(folder) and _is_folder(old):
            os.rename(old, folder)
        raise
    try:
        _sync_folder(folder.parent)
        if _is_folder(old):
            _discard(old)
    except KeyboardInterrupt:  # the new version is in place; nothing of the old one is to stay beside it
        _discard(old)
        raise


def _clean(folder: Path) -> None:
    """Repair and remove what dead savers left; only under the lock, where no living one has anything
    there.
    """
    if _is_folder(_old(folder)):
        if _exists(folder):
            _discard(_old(folder))
        else:
            os.rename(_old(folder), folder)
    prefixes = (f".{folder.name}.new-", f".{folder.name}.trash-")
    with os.scandir(folder.parent) as entries:
        leftovers = [
            e.path for e in entries if e.name.startswith(prefixes) and e.is_dir(follow_symlinks=False)
        ]
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)


def _discard(old: Path) -> None:
    trash = old.with_name(f"{old.name.removesuffix('.old')}.trash-{secrets.token_hex(4)}")
    with suppress(OSError):  # the new version is in place; what can't be removed now goes at the next save
        os.rename(old, trash)
        shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def _locked(parent: Path) -> Iterator[bool]:
    """Hold the turn to change names in `parent`; gives False where the file system has no locks."""
    handle = None
    if fcntl is not None:
        with suppress(OSError):
            handle = os.open(parent, os.O_RDONLY)
    try:
        yield handle is not None and _take_turn(handle, parent)
    finally:
        if handle is not None:
            if fcntl is not None:
                with suppress(
                    OSError
                ):  # explicitly: a child forked meanwhile would keep the lock with its copy
                    fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def _take_turn(handle: int, parent: Path) -> bool:
    assert fcntl is not None
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            if error.errno not in {errno.EAGAIN, errno.EACCES, errno.EINTR}:
                raise
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"another process has been saving in {parent} for minutes")
        time.sleep(0.01)


def _sync_folder(folder: Path) -> None:
    with suppress(PermissionError, IsADirectoryError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        finally:
            os.close(handle)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _nearest(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:,.0f} MB"


def folder_for(place: Path | str, ours: str) -> Path:
    """A place where a folder is or can be made; to be asked before long work.

    Args:
        ours: a file that a folder has which may be replaced.

    Raises:
        DataError: a file is there, or a folder that holds something else.
    """
    place = Path(place)
    for part in (place, *place.parents):
        if part.is_file():
            raise DataError("a file; what is saved there wants a folder of its own.", file=part)
    if place.is_dir() and not (place / ours).exists() and (other := next(place.iterdir(), None)) is not None:
        raise DataError(
            f"a folder with other things in it ({other.name}); what is saved there wants one of its own.",
            file=place,
        )
    return place
