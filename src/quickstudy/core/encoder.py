"""Encoders turn items into vectors; a cache on disk keeps each vector, so that a text is encoded once in its life."""

import hashlib
import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

T = TypeVar("T")


@runtime_checkable
class Encoder(Protocol):
    """What the rest of the house knows of an encoder."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over all that changes the output: weights, tokenizer, pooling, layers, adapter, dtype."""
        ...

    def encode(self, items: Sequence[str], /) -> Float[Tensor, "n dim"]:
        """Float32 vectors in the order of `items`."""
        ...


def identity(encoder: Encoder) -> str:
    """The encoder's fingerprint without its number format, if it tells the two apart.

    What was learned on features in bfloat16 fits the same encoder in float32, on a machine that has no bfloat16: so
    priors and saved models are compared by identity, and the cache goes by fingerprint.
    """
    return getattr(encoder, "identity", encoder.fingerprint)


class EmbeddingCache:
    """Vectors on disk, under the sha256 of encoder fingerprint and text: one SQLite file, shared by all processes.

    It never raises. A damaged file is moved aside (`….corrupt`) and begun anew, with a warning; a folder that can't be
    written, a full disk or a lock that nobody releases makes this object work without the cache, with one warning.
    Each entry carries a checksum: a vector that isn't what was stored counts as absent.

    Args:
        folder: where the file lies. Default: $QUICKSTUDY_CACHE, or else the platform's cache folder.
        limit: bytes that the file may hold. The entries used longest ago leave first.
        touch: seconds for which an entry counts as just used, so that most reads write nothing.
    """

    def __init__(
        self, folder: Path | str | None = None, *, limit: int = 512 * 2**20, touch: float = 3600
    ) -> None:
        self.path = Path(folder if folder is not None else default_folder()) / "embeddings.sqlite"
        self.limit = limit
        self.touch = touch
        self.off = False
        """True once the cache had to be given up."""
        self._turn = threading.Lock()

    def get(self, fingerprint: str, texts: Sequence[str]) -> dict[str, Tensor]:
        """The known vectors among those of `texts`, by text."""
        found = self._attempt(lambda: self._read(fingerprint, texts))
        return found or {}

    def put(self, fingerprint: str, texts: Sequence[str], vectors: Float[Tensor, "n dim"]) -> None:
        """Keep the vectors of `texts`; those known already are replaced."""
        # A transaction at a time, so that other processes get their turn and the file never outgrows its bound by much.
        step = max(1, min(4096, self.limit // 8 // (vectors[:1].numel() * 4 + 64))) if len(vectors) else 1
        for i in range(0, len(texts), step):
            self._attempt(lambda i=i: self._write(fingerprint, texts[i : i + step], vectors[i : i + step]))

    def through(
        self, fingerprint: str, texts: Sequence[str], encode: Callable[[list[str]], Float[Tensor, "m dim"]]
    ) -> Float[Tensor, "n dim"]:
        """Vectors of `texts` in their order; `encode` is called at most once, with the distinct unknown ones."""
        known = self.get(fingerprint, texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new or not texts:
            vectors = encode(new)
            self.put(fingerprint, new, vectors)
            if len(new) == len(texts):
                return vectors
            known.update(zip(new, vectors, strict=True))
        return torch.stack([known[text] for text in texts])

    # -- SQLite

    def _read(self, fingerprint: str, texts: Sequence[str]) -> dict[str, Tensor]:
        keys = {(key := _key(fingerprint, text))[:8]: (key, text) for text in dict.fromkeys(texts)}
        found: dict[str, Tensor] = {}
        stale: list[tuple[int]] = []
        now = time.time()
        with self._open() as db:
            ids = [_id(short) for short in keys]
            for i in range(0, len(ids), 500):
                some = ids[i : i + 500]
                for id, key, vector, check, used in db.execute(
                    f"SELECT id, key, vector, sum, used FROM embedding WHERE id IN ({','.join('?' * len(some))})",
                    some,
                ):
                    wanted, text = keys[id.to_bytes(8, "big", signed=True)]
                    if key == wanted and zlib.crc32(vector) == check:
                        found[text] = torch.from_numpy(np.frombuffer(vector, "<f4").astype(np.float32))
                        if now - used > self.touch:
                            stale.append((id,))
            if stale:
                # A busy or read-only file can still be read; only the order of leaving suffers.
                with suppress(sqlite3.OperationalError), _transaction(db):
                    db.executemany(f"UPDATE embedding SET used = {now!r} WHERE id = ?", stale)
        return found

    def _write(self, fingerprint: str, texts: Sequence[str], vectors: Tensor) -> None:
        now = time.time()
        rows = []
        for text, vector in zip(texts, vectors.detach().cpu().float().numpy(), strict=True):
            key, blob = _key(fingerprint, text), vector.astype("<f4").tobytes()
            rows.append((_id(key[:8]), key, blob, zlib.crc32(blob), now))
        with self._open() as db, _transaction(db):
            db.executemany("INSERT OR REPLACE INTO embedding VALUES (?, ?, ?, ?, ?)", rows)
            while (held := _held(db)) > self.limit:
                total = db.execute("SELECT count(*) FROM embedding").fetchone()[0]
                # A tenth more than must go, so that a full cache doesn't evict at every write.
                leaving = max(1, round(total * (1 - 0.9 * self.limit / held)))
                db.execute(
                    "DELETE FROM embedding WHERE id IN (SELECT id FROM embedding ORDER BY used, id LIMIT ?)",
                    (leaving,),
                )
                if leaving >= total:
                    break

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one job: nothing is left open in a thread, over a fork, or when the file is moved."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=5, isolation_level=None)) as db:
            if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'embedding'").fetchone()[0]:
                db.execute("PRAGMA page_size = 16384")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS embedding (id INTEGER PRIMARY KEY, key BLOB NOT NULL, "
                    "vector BLOB NOT NULL, sum INTEGER NOT NULL, used REAL NOT NULL)"
                )
                db.execute("CREATE INDEX IF NOT EXISTS oldest ON embedding (used)")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {min(self.limit // 8, 16 * 2**20)}")
            yield db

    def _attempt(self, job: Callable[[], T]) -> T | None:
        """Do the job; whatever goes wrong with the file is dealt with here, and never the caller's trouble."""
        wait = 0.02
        damaged = 0
        while not self.off:
            before = _inode(self.path)
            try:
                return job()
            except sqlite3.OperationalError as problem:
                # Switching to WAL doesn't honour the busy timeout, so a crowd at the first opening must try again.
                if "locked" in str(problem) and wait < 2:
                    time.sleep(wait)
                    wait *= 2
                    continue
                self._give_up(problem)
            except sqlite3.DatabaseError as problem:
                damaged += 1
                if damaged > 3:
                    self._give_up(problem)
                else:
                    self._set_aside(before, problem)
            except OSError as problem:
                self._give_up(problem)
        return None

    def _give_up(self, problem: Exception) -> None:
        with self._turn:
            if not self.off:
                self.off = True
                warnings.warn(
                    f"The embedding cache {self.path} can't be used ({problem}); texts are encoded anew each time. "
                    "Make room or set QUICKSTUDY_CACHE to a folder that can be written.",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _set_aside(self, before: int | None, problem: Exception) -> None:
        try:
            # An empty SQLite file is the lock: held by one process, and gone with it even when it is killed.
            with closing(
                sqlite3.connect(self.path.with_suffix(".lock"), timeout=20, isolation_level=None)
            ) as lock:
                lock.execute("BEGIN EXCLUSIVE")
                if _inode(self.path) != before or before is None:
                    return  # another process has just done it
                os.replace(self.path, self.path.with_suffix(".corrupt"))
                for suffix in ("-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        except (OSError, sqlite3.Error) as failure:
            self._give_up(failure)
            return
        warnings.warn(
            f"The embedding cache {self.path} was damaged ({problem}); it is now {self.path.stem}.corrupt, "
            "and a new one is begun. Nothing is lost but time.",
            RuntimeWarning,
            stacklevel=2,
        )


class CachedEncoder:
    """Any encoder behind a cache: only distinct texts that were never seen are encoded."""

    def __init__(self, encoder: Encoder, cache: EmbeddingCache) -> None:
        self.encoder = encoder
        self.cache = cache

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def identity(self) -> str:
        return identity(self.encoder)

    def encode(self, items: Sequence[str]) -> Float[Tensor, "n dim"]:
        return self.cache.through(self.fingerprint, items, self.encoder.encode)


def default_folder() -> Path:
    """$QUICKSTUDY_CACHE, or else the platform's cache folder for quickstudy."""
    if named := os.environ.get("QUICKSTUDY_CACHE"):
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quickstudy", appauthor=False))


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled back by itself
            db.execute("ROLLBACK")
        raise


def _held(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _key(fingerprint: str, text: str) -> bytes:
    return hashlib.sha256(f"{fingerprint}\0{text}".encode("utf-8", "surrogatepass")).digest()


def _id(short: bytes) -> int:
    """SQLite's fastest key is a 64-bit integer; the whole hash stands in the row and is compared."""
    return int.from_bytes(short, "big", signed=True)


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
