"""The embedding cache: exact, shared by processes, bounded, and never the reason why something fails."""

import sqlite3
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest
import torch

from quickstudy.core.encoder import CachedEncoder, EmbeddingCache, Encoder, default_folder, identity


class Recorder:
    """An encoder that remembers what it was asked for, and never gives the same vector twice."""

    dim = 7

    def __init__(self, fingerprint="recorder"):
        self.fingerprint = fingerprint
        self.asked = []

    def encode(self, items):
        self.asked.append(list(items))
        return torch.randn(len(items), self.dim)


def size(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def texts(n, prefix="text"):
    return [f"{prefix} {i}" for i in range(n)]


def test_a_hit_equals_the_miss_to_the_bit_in_the_order_asked(tmp_path):
    encoder = Recorder()
    cached = CachedEncoder(encoder, EmbeddingCache(tmp_path))
    first = cached.encode(["a", "b", "a", "c"])
    assert encoder.asked == [["a", "b", "c"]]
    assert torch.equal(first[0], first[2])
    assert first.dtype == torch.float32
    again = CachedEncoder(encoder, EmbeddingCache(tmp_path)).encode(["c", "d", "a", "b", "d"])
    assert encoder.asked[1:] == [["d"]]
    assert torch.equal(again[[2, 3, 0]], first[[0, 1, 3]])
    assert torch.equal(again[1], again[4])


def test_special_values_and_texts_survive(tmp_path):
    cache = EmbeddingCache(tmp_path)
    odd = ["", " ", "\0", "é", "e\u0301", "\ud800", "x" * 100_000]
    vectors = torch.tensor([[0.0, -0.0, 1e-45, 3.4e38, 0.1]] * len(odd)) * torch.arange(
        1, len(odd) + 1
    ).unsqueeze(1)
    cache.put("f", odd, vectors)
    found = cache.get("f", odd)
    assert all(
        found[t].view(torch.int32).equal(v.view(torch.int32)) for t, v in zip(odd, vectors, strict=True)
    )


def test_no_text_gives_no_row(tmp_path):
    assert CachedEncoder(Recorder(), EmbeddingCache(tmp_path)).encode([]).shape == (0, 7)


def test_encoders_do_not_share_entries(tmp_path):
    cache = EmbeddingCache(tmp_path)
    one, other = Recorder("one"), Recorder("other")
    a = CachedEncoder(one, cache).encode(["text"])
    b = CachedEncoder(other, cache).encode(["text"])
    assert one.asked == other.asked == [["text"]]
    assert not torch.equal(a, b)


def test_a_cached_encoder_is_an_encoder():
    cached = CachedEncoder(Recorder("f"), EmbeddingCache("unused"))
    assert isinstance(cached, Encoder)
    assert (cached.dim, cached.fingerprint, identity(cached)) == (7, "f", "f")


WRITER = """
    import sys, warnings
    import torch
    from quickstudy.core.encoder import EmbeddingCache
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    folder, who = sys.argv[1], int(sys.argv[2])
    cache = EmbeddingCache(folder)
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(40):
        mine = [f"{who} {i}", f"shared {i}"]
        cache.put("f", mine, torch.tensor([[who, i], [i, i]], dtype=torch.float32).repeat(1, 200))
        found = cache.get("f", mine)
        assert found[mine[0]].tolist() == [who, i] * 200 and found[mine[1]].tolist() == [i, i] * 200, i
    assert not cache.off
"""


@pytest.mark.slow
def test_several_processes_write_at_once(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, str(who)], **pipes) for who in range(3)]
    for worker in workers:  # all begin, with the creation of the file, at the same moment
        assert worker.stdout.readline() == "ready\n", worker.communicate()[1]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        _, problem = worker.communicate(timeout=60)
        assert worker.returncode == 0, problem
    wanted = [f"{who} {i}" for who in range(3) for i in range(40)] + [f"shared {i}" for i in range(40)]
    assert len(EmbeddingCache(tmp_path).get("f", wanted)) == 160


def test_threads_share_one_cache(tmp_path):
    cache, problems = EmbeddingCache(tmp_path), []

    def work(who):
        try:
            for i in range(20):
                cache.put("f", [f"{who} {i}"], torch.full((1, 5), float(who)))
                assert cache.get("f", [f"{who} {i}"])[f"{who} {i}"].tolist() == [who] * 5
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert not cache.off


def test_the_size_is_bounded_and_what_was_used_last_stays(tmp_path):
    limit = 2 * 2**20
    cache = EmbeddingCache(tmp_path, limit=limit, touch=0.0)
    cache.put("f", ["favourite"], torch.ones(1, 384))
    largest = 0
    for i in range(30):  # 30 × 200 × 1.5 kB: 4.5 times the limit
        cache.put("f", texts(200, f"round {i}"), torch.randn(200, 384))
        assert "favourite" in cache.get("f", ["favourite"])
        largest = max(largest, size(tmp_path))
    assert largest < 1.7 * limit
    assert not cache.get("f", texts(200, "round 0"))
    assert len(cache.get("f", texts(200, "round 29"))) == 200
    kept = sum(len(cache.get("f", texts(200, f"round {i}"))) for i in range(30))
    assert kept * 384 * 4 > 0.4 * limit, "the room should be used"


def test_one_write_larger_than_the_limit(tmp_path):
    cache = EmbeddingCache(tmp_path, limit=2**20)
    vectors = torch.randn(3000, 384)
    assert torch.equal(cache.through("f", texts(3000), lambda new: vectors), vectors)
    assert size(tmp_path) < 2 * 2**20
    assert cache.get("f", texts(3000)[-1:])


def test_a_lowered_limit_is_kept_too(tmp_path):
    EmbeddingCache(tmp_path).put("f", texts(2000), torch.randn(2000, 384))
    smaller = EmbeddingCache(tmp_path, limit=2**20)
    smaller.put("f", ["new"], torch.randn(1, 384))
    assert "new" in smaller.get("f", ["new"])
    assert 0 < len(smaller.get("f", texts(2000))) < 700


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"this is no database" * 100,
        lambda data: data[: len(data) // 2],
        lambda data: data[:100] + b"\xff" * (len(data) - 100),
        lambda data: data[: len(data) // 3] + b"\x5a" * (len(data) // 3) + data[2 * (len(data) // 3) :],
    ],
    ids=["another file", "truncated", "overwritten", "a hole"],
)
def test_a_damaged_file_is_moved_aside_or_its_entries_ignored(tmp_path, damage):
    cache = EmbeddingCache(tmp_path)
    vectors = torch.randn(500, 384)
    cache.put("f", texts(500), vectors)
    cache.path.write_bytes(damage(cache.path.read_bytes()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = EmbeddingCache(tmp_path).get("f", texts(500))
        fresh = EmbeddingCache(tmp_path)
        fresh.put("f", texts(500), vectors)
        again = fresh.get("f", texts(500))
    assert all(torch.equal(found[t], v) for t, v in zip(texts(500), vectors, strict=True) if t in found)
    assert len(again) == 500
    assert not fresh.off
    assert caught
    assert all("was damaged" in str(w.message) and "a new one is begun" in str(w.message) for w in caught)
    assert cache.path.with_suffix(".corrupt").exists()


def test_a_flipped_bit_in_a_vector_is_noticed(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.put("f", ["a", "b"], torch.ones(2, 384))
    with sqlite3.connect(cache.path) as db:
        (vector,) = db.execute("SELECT vector FROM embedding LIMIT 1").fetchone()
        db.execute("UPDATE embedding SET vector = ? WHERE vector = ? AND id = (SELECT min(id) FROM embedding)",
                   (bytes([vector[0] ^ 1]) + vector[1:], vector))  # fmt: skip
    db.close()
    assert len(cache.get("f", ["a", "b"])) == 1


def test_a_folder_that_cannot_be_made_gives_one_warning_and_no_cache(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    encoder = Recorder()
    cached = CachedEncoder(encoder, EmbeddingCache(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="QUICKSTUDY_CACHE"):
        cached.encode(["a"])
    cached.encode(["a"])  # a second warning would be an error
    assert encoder.asked == [["a"], ["a"]]


LIMITED = """
    import resource, signal, sys, warnings
    import torch
    from quickstudy.core.encoder import CachedEncoder, EmbeddingCache
    from quickstudy.encoders.tiny import HashEncoder
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    cache = EmbeddingCache(sys.argv[1])
    cache.put("f", ["before"], torch.ones(1, 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    texts = [f"number {i}" for i in range(5000)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert torch.equal(CachedEncoder(HashEncoder(), cache).encode(texts), HashEncoder().encode(texts))
    assert len(caught) == 1 and "can't be used" in str(caught[0].message), caught
    assert cache.off
"""


@pytest.mark.slow
def test_a_full_disk_gives_one_warning_and_the_file_stays_good(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert EmbeddingCache(tmp_path).get("f", ["before"])["before"].tolist() == [1.0] * 64


def test_a_lock_that_is_held_for_a_moment_is_waited_for(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.put("f", ["a"], torch.ones(1, 3))
    holder = sqlite3.connect(cache.path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, lambda: holder.execute("COMMIT"))
    release.start()
    cache.put("f", ["b"], torch.ones(1, 3))
    release.join()
    holder.close()
    assert len(cache.get("f", ["a", "b"])) == 2


def test_the_environment_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"
    EmbeddingCache().put("f", ["a"], torch.ones(1, 3))
    assert (tmp_path / "here" / "embeddings.sqlite").exists()
    monkeypatch.delenv("QUICKSTUDY_CACHE")
    assert "quickstudy" in str(default_folder())
