"""Saving that is killed, interrupted, out of disk, or done by many at once: a whole version is there."""

import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from quickstudy.core import atomic
from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError

SOURCE = Path(__file__).parents[1] / "src"


def run(code: str, *arguments: object, timeout: float = 120) -> str:
    """Run Python code in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def good(folder: Path, value: float = 1.0) -> Path:
    tensors = {"a": torch.full((3, 2), value), "b": torch.arange(5)}
    save_folder(folder, tensors, {"kind": "prior", "value": value}, extra_files={"README.md": "a card"})
    return folder


SAVER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from quickstudy.core import atomic
from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError
torch.set_num_threads(1)
folder = Path(sys.argv[1]) / "model"
def write(value, size=50_000):
    save_folder(folder, {"a": torch.full((size,), float(value))}, {"kind": "prior", "value": value},
                extra_files={"README.md": str(value)})
def read():
    tensors, record = load_folder(folder, kind="prior")
    assert tensors["a"].eq(record["value"]).all()
    assert (folder / "README.md").read_text() == str(record["value"])
    return record["value"]
"""


@pytest.mark.slow
def test_a_crash_at_any_step_leaves_the_old_or_the_new(tmp_path):
    """A child process is ended at its 1st, 2nd, ... touch of the file system during one save, until it survives."""
    code = SAVER + textwrap.dedent("""
    seen = []
    for crash_at in range(1, 200):
        write(0)
        child = os.fork()
        if child == 0:
            left = crash_at
            def hook(event, _):
                global left
                if event.startswith(("os.", "open", "shutil.")) or event == "fcntl.flock":
                    left -= 1
                    if left == 0:
                        os._exit(9)
            sys.addaudithook(hook)
            write(1)
            os._exit(0)
        crashed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert crashed in (0, 9)
        names = sorted(os.listdir(folder.parent))
        seen.append(("model" in names, read()))
        assert seen[-1][1] in ((0, 1) if crashed else (1,))
        if crash_at % 2:
            write(2)
            assert read() == 2
            assert os.listdir(folder.parent) == ["model"], os.listdir(folder.parent)
        if not crashed:
            break
    else:
        raise SystemExit("the save never ended")
    there, values = [a for a, _ in seen], [b for _, b in seen]
    print(len(seen), there.count(False), values.count(0), values.count(1))
    """)
    steps, absent, old, new = map(int, run(code, tmp_path).split())
    assert steps > 10
    assert absent >= 1  # the moment between the two renames was among them
    assert old >= 5
    assert new >= 2


@pytest.mark.slow
def test_killed_at_random_moments_while_saving_again_and_again(tmp_path):
    code = SAVER + textwrap.dedent("""
    random.seed(0)
    write(0)
    values = set()
    for _ in range(40):
        child = os.fork()
        if child == 0:
            value = 0
            while True:
                value += 1
                write(value)
        time.sleep(random.uniform(0, .25))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        values.add(read())
    write(-1)
    assert os.listdir(folder.parent) == ["model"]
    print(len(values))
    """)
    assert int(run(code, tmp_path)) > 1


@pytest.mark.slow
def test_many_savers_and_readers_at_once(tmp_path):
    code = SAVER + textwrap.dedent("""
    write(0)
    savers = []
    for saver in range(1, 5):
        child = os.fork()
        if child == 0:
            try:
                for turn in range(25):
                    write(saver * 1000 + turn)
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        savers.append(child)
    reads, running = 0, set(savers)
    while running:
        tensors, record = load_folder(folder, kind="prior")
        assert tensors["a"].eq(record["value"]).all()
        reads += 1
        for child in list(running):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                assert status == 0
                running.remove(child)
    assert read() % 1000 == 24
    assert os.listdir(folder.parent) == ["model"]
    print(reads)
    """)
    assert int(run(code, tmp_path)) > 10


def test_a_limit_on_file_sizes_leaves_the_old_folder_whole(tmp_path):
    good(tmp_path / "model")
    code = SAVER + textwrap.dedent("""
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        write(5, size=1_000_000)
    except CheckpointError as error:
        print(error)
    """)
    said = run(code, tmp_path)
    assert "4.0 MB needed" in said
    assert "MB free" in said
    assert load_folder(tmp_path / "model", kind="prior")[1]["value"] == 1.0
    assert os.listdir(tmp_path) == ["model"]


def test_a_full_disk_leaves_the_old_folder_whole(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        good(disk / "model")
        with pytest.raises(CheckpointError, match=r"no room to save .*8\.0 MB needed, [12]\.\d MB free"):
            save_folder(disk / "model", {"a": torch.zeros(2_000_000)}, {"kind": "prior"})
        assert os.listdir(disk) == ["model"]
        assert load_folder(disk / "model", kind="prior")[1]["value"] == 1.0
        save_folder(disk / "model", {"a": torch.zeros(200_000)}, {"kind": "prior"})  # and there is room again
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("moment", range(1, 4))
def test_an_interrupt_at_any_sync_leaves_one_version_and_nothing_beside(moment, tmp_path, monkeypatch):
    """The third is that of the names, when the new version is in place and the old one still beside it."""
    place, count, sync = tmp_path / "model", itertools.count(1), atomic._sync_folder

    def save(content):
        with atomic.replacing(place) as new:
            atomic.write_new(new / "content", [content])

    def interrupted(folder):
        if next(count) == moment:
            raise KeyboardInterrupt
        sync(folder)

    save(b"old")
    monkeypatch.setattr(atomic, "_sync_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(b"new")
    assert os.listdir(tmp_path) == ["model"]
    assert (place / "content").read_bytes() == (b"new" if moment == 3 else b"old")


def test_an_interrupted_save_leaves_no_trace(tmp_path):
    folder = good(tmp_path / "model")
    code = SAVER + textwrap.dedent("""
    import threading
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background may ignore it
    threading.Timer(.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    value = 0
    try:
        while True:
            value += 1
            write(value)
    except KeyboardInterrupt:
        print(read(), value)
    """)
    kept, last = map(int, run(code, tmp_path).split())
    assert last - 1 <= kept <= last or last == 1
    assert [name for name in os.listdir(tmp_path) if ".new-" in name or name.endswith(".old")] == []
    load_folder(folder, kind="prior")


def test_a_cut_replacement_is_read_where_nothing_can_be_renamed(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting a disk that is read only needs root")
    try:
        good(disk / "model").rename(disk / ".model.old")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert load_folder(disk / "model", kind="prior")[1]["value"] == 1.0
        with pytest.raises(CheckpointError, match=r"cannot save .*ead-only"):
            good(disk / "model", 2.0)
    finally:
        subprocess.run(["umount", disk], check=True)
