"""Folders of tensors: round trips, hostile folders one by one, crashes at every step, a full disk, many savers."""

import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from quickstudy.core import tensorfile
from quickstudy.core.checkpoint import TrainingState, load_folder, load_state, save_folder, save_state
from quickstudy.core.errors import CheckpointError

SOURCE = Path(__file__).parents[1] / "src"
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


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


def replace_tensors(folder: Path, data: bytes, entries: object = None) -> None:
    """Put other bytes in the place of the tensors, with a record that vouches for them."""
    (folder / "tensors.safetensors").write_bytes(data)
    record = json.loads((folder / "record.json").read_text())
    record["tensors"]["sha256"] = hashlib.sha256(data).hexdigest()
    if entries is not None:
        record["tensors"]["entries"] = entries
    (folder / "record.json").write_text(json.dumps(record))


def tensor_file(header: object, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def edit_record(folder: Path, **fields: object) -> None:
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, **fields}))


# Round trips


@given(seed=st.integers(0, 999), shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=6))
@settings(max_examples=30, deadline=None)
def test_every_dtype_and_shape_comes_back(tmp_path_factory, seed, shapes):
    folder = tmp_path_factory.mktemp("round") / "model"
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"layer.{i}/{dtype}".replace("torch.", ""): (torch.randn(shape, generator=generator) * 3).to(dtype)
        for i, shape in enumerate(shapes)
        for dtype in DTYPES
    }
    save_folder(folder, tensors, {"kind": "adapted"})
    loaded, _ = load_folder(folder, kind="adapted")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor)


def test_other_safetensors_readers_and_writers_agree(tmp_path):
    folder = tmp_path / "model"
    tensors = {
        "w": torch.randn(3, 5).T,
        "h": torch.randn(7).half(),
        "n": torch.tensor(3),
        "m": torch.tensor([True]),
    }
    save_folder(folder, tensors, {"kind": "prior"})
    theirs = load_file(folder / "tensors.safetensors")
    assert all(torch.equal(theirs[name], tensors[name]) for name in tensors)
    replace_tensors(
        folder, save({name: t.contiguous() for name, t in tensors.items()}, {"made": "elsewhere"})
    )
    loaded, _ = load_folder(folder, kind="prior")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_record_comes_back_and_same_content_gives_same_bytes(tmp_path):
    record = {"kind": "adapted", "labels": ["größe", "日本", "a\nb"], "deep": {"x": [1, 2.5, None, True]}}
    tensors = {"w": torch.ones(2), "v": torch.zeros(3)}
    save_folder(tmp_path / "a", tensors, record)
    save_folder(tmp_path / "b", dict(reversed(tensors.items())), record)
    assert load_folder(tmp_path / "a", kind="adapted")[1] == {"format": 1, **record}
    for name in ("record.json", "tensors.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_loaded_tensors_are_free_of_the_file_and_of_each_other(tmp_path):
    folder = good(tmp_path / "model")
    first, _ = load_folder(folder, kind="prior")
    first["a"] += 1
    second, _ = load_folder(folder, kind="prior")
    assert second["a"].eq(1).all()
    assert second["b"].equal(torch.arange(5))


def test_a_loaded_record_can_be_saved_again(tmp_path):
    tensors, record = load_folder(good(tmp_path / "model"), kind="prior")
    save_folder(tmp_path / "again", tensors, record)
    assert load_folder(tmp_path / "again", kind="prior")[1] == record


def test_saving_replaces_all_of_the_old_folder_and_leaves_nothing_beside(tmp_path):
    folder = good(tmp_path / "model", 1.0)
    save_folder(folder, {"c": torch.zeros(1)}, {"kind": "adapter"})
    assert sorted(os.listdir(folder)) == ["record.json", "tensors.safetensors"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    good(tmp_path / "run3", 1.0)
    (tmp_path / "latest").symlink_to("run3")
    good(tmp_path / "latest", 2.0)
    assert (tmp_path / "latest").is_symlink()
    assert load_folder(tmp_path / "run3", kind="prior")[1]["value"] == 2.0


# What can't be saved: nothing changes


@pytest.mark.parametrize(
    ("tensors", "record", "extra", "says"),
    [
        ({"a": torch.tensor([1.0, float("nan")])}, {}, {}, 'tensor "a" holds 1 values that are NaN'),
        ({"a": torch.tensor([float("inf")])}, {}, {}, "infinite"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, {}, {}, "complex64"),
        ({"a": torch.eye(2).to_sparse()}, {}, {}, "sparse"),
        ({"../a": torch.zeros(1)}, {}, {}, "isn't plain"),
        ({"a\n": torch.zeros(1)}, {}, {}, "isn't plain"),
        ({}, {"kind": "model"}, {}, "adapted, prior, checkpoint, adapter"),
        ({}, {"format": 2}, {}, "kept for the folder"),
        ({}, {"tensors": 1}, {}, "kept for the folder"),
        ({}, {"best": float("inf")}, {}, r"record\['best'\] is inf"),
        ({}, {"x": {"y": [Path("p")]}}, {}, r"record\['x'\]\['y'\]\[0\] is a PosixPath"),
        ({}, {"x": {1: 2}}, {}, "has the key 1"),
        ({}, {"text": "\udc80"}, {}, "Unicode"),
        ({}, {"x": json.loads("[" * 40 + "]" * 40)}, {}, "levels deep"),
        ({}, {"x": "a" * 17_000_000}, {}, "at most 17 MB"),
        ({}, {}, {"../x": ""}, "isn't plain"),
        ({}, {}, {"record.json": ""}, "isn't plain"),
        ({}, {}, {"head.pkl": b""}, "isn't allowed"),
    ],
)  # fmt: skip
def test_refuses_to_save(tmp_path, tensors, record, extra, says):
    folder = good(tmp_path / "model")
    with pytest.raises(CheckpointError, match=says):
        save_folder(folder, tensors, {"kind": "prior", **record}, extra_files=extra)
    assert load_folder(folder, kind="prior")[1]["value"] == 1.0
    assert os.listdir(tmp_path) == ["model"]


def test_never_deletes_what_it_did_not_write(tmp_path):
    folder = good(tmp_path / "model")
    (folder / "my_notes.txt").write_text("precious")
    with pytest.raises(CheckpointError, match=r"my_notes\.txt"):
        good(folder, 2.0)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "record.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"record\.json"):
        good(thesis)
    assert (thesis / "record.json").read_text() == "{}"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CheckpointError, match="is a file"):
        good(tmp_path / "file")
    with pytest.raises(CheckpointError, match="root of a disk"):
        good(Path("/"))
    (tmp_path / "empty").mkdir()
    good(tmp_path / "empty")
    assert (folder / "my_notes.txt").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "model", "thesis"]


# Hostile folders


class Evil:
    def __reduce__(self):
        return os._exit, (7,)


@pytest.mark.parametrize(
    "name", ["a.pkl", "a.pickle", "pytorch_model.bin", "A.PT", "a.pth", "a.ckpt", "a.joblib", "a.pkl.gz", "sub/a.pt",
             "a.npz"],
)  # fmt: skip
def test_refuses_a_folder_with_a_pickle(tmp_path, name):
    path = good(tmp_path / "model") / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match=f"{Path(name).name} can hold a pickle"):
        load_folder(tmp_path / "model", kind="prior")


def test_numpy_files_may_hold_numbers_but_no_objects(tmp_path):
    folder = good(tmp_path / "model")
    np.save(folder / "numbers.npy", np.zeros((3, 2), dtype=np.float32))
    load_folder(folder, kind="prior")
    np.save(folder / "objects.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"objects\.npy can hold a pickle"):
        load_folder(folder, kind="prior")
    plain = (folder / "numbers.npy").read_bytes()
    (folder / "objects.npy").write_bytes(plain.replace(b"'<f4', ", b"'<f4', 'descr': '|O', "))
    with pytest.raises(CheckpointError, match=r"objects\.npy can hold a pickle"):
        load_folder(folder, kind="prior")


@pytest.mark.parametrize("name", ["record.json", "tensors.safetensors", "README.md", "link"])
def test_refuses_links(tmp_path, name):
    folder = good(tmp_path / "model")
    secret = tmp_path / "secret"
    secret.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match=f"{name} is a link"):
        load_folder(folder, kind="prior")


def test_refuses_a_pipe_without_waiting_for_it(tmp_path):
    folder = good(tmp_path / "model")
    (folder / "record.json").unlink()
    os.mkfifo(folder / "record.json")
    with pytest.raises(CheckpointError, match="isn't a plain file"):
        load_folder(folder, kind="prior")


def test_refuses_a_crowd_of_files(tmp_path):
    folder = good(tmp_path / "model")
    for i in range(1001):
        (folder / f"{i}.txt").touch()
    with pytest.raises(CheckpointError, match="more than 1000 files"):
        load_folder(folder, kind="prior")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "broken"),
        (b"{", "broken"),
        (b"[]", "no format and kind"),
        (b'{"format": 1, "kind": "prior"', "broken"),
        (b'{"format": 1, "kind": "prior", "kind": "adapted"}', "twice"),
        (b'{"format": 1, "kind": "prior", "x": NaN}', "NaN"),
        (b'{"format": 1, "kind": "prior", "x": "\xff"}', "UTF-8"),
        (b'{"format": 1, "kind": "prior", "x": ' + b"9" * 5000 + b"}", "broken"),
        (b'{"format": 1, "kind": "prior"}', "should hold"),
        (b'{"format": 2, "kind": "prior"}', "upgrade quickstudy"),
        (b'{"format": true, "kind": "prior"}', "upgrade quickstudy"),
        (b'{"format": 1, "kind": "pickle"}', "kind is 'pickle'"),
        (b'{"format": 1, "kind": ["prior"]}', "kind is"),
        (b'{"format": 1, "kind": "prior", "x": ' + b"[" * 40 + b"]" * 40 + b"}", "too deeply"),
        (b"[" * 1_000_000, "too deeply"),
        (b'{"format": 1, "kind": "prior", "x": "' + b"a" * 17_000_000 + b'"}', "larger than 17 MB"),
        (pickle.dumps({"format": 1}), "UTF-8"),
    ],
)  # fmt: skip
def test_refuses_a_broken_record(tmp_path, text, says):
    folder = good(tmp_path / "model")
    (folder / "record.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_folder(folder, kind="prior")
    assert "record.json" in str(caught.value)
    assert len(str(caught.value)) < 500


F32 = {"dtype": "F32", "shape": [2]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"\0\0\0", "truncated"),
        (struct.pack("<Q", 2**63) + b"{}", "truncated or not safetensors"),
        (struct.pack("<Q", 9 * 2**20) + b" " * (9 * 2**20), "not safetensors"),
        (tensor_file(b"not json", b""), "broken"),
        (tensor_file([], b""), "isn't a JSON object"),
        (tensor_file(b'{"a": {}, "a": {}}', b""), "twice"),
        (tensor_file({"a": {**F32, "data_offsets": [0, 8]}}, b"\0" * 4), "truncated or lies"),
        (tensor_file({"a": {**F32, "data_offsets": [0, 8]}}, b"\0" * 9), "truncated or lies"),
        (tensor_file({"a": {**F32, "data_offsets": [0, 4]}}, b"\0" * 4), "lies about the place or size"),
        (tensor_file({"a": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12), "lies about the place"),
        (tensor_file({"a": {**F32, "data_offsets": [0, 8]}, "b": {**F32, "data_offsets": [0, 8]}}, b"\0" * 8), "lies"),
        (tensor_file({"a": {**F32, "data_offsets": [-8, 0]}}, b""), "impossible offsets"),
        (tensor_file({"a": {**F32, "data_offsets": [0, 8, 16]}}, b"\0" * 8), "impossible offsets"),
        (tensor_file({"a": {**F32, "data_offsets": [0, 1e308]}}, b""), "impossible offsets"),
        (tensor_file({"a": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}}, b"\0" * 8), "shape"),
        (tensor_file({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4), "shape"),
        (tensor_file({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, b"\0" * 8), "shape"),
        (tensor_file({"a": {"dtype": "F32", "shape": [0, 2**31, 2**31], "data_offsets": [0, 0]}}, b""), "absurd"),
        (tensor_file({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, b"\0" * 4), "shape"),
        (tensor_file({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8), "C64"),
        (tensor_file({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4), "allowed are"),
        (tensor_file({"a": {**F32, "data_offsets": [0, 8], "run": "rm"}}, b"\0" * 8), "something else"),
        (tensor_file({"a": "F32"}, b""), "something else"),
        (tensor_file({"a b": {**F32, "data_offsets": [0, 8]}}, b"\0" * 8), "isn't plain"),
        (tensor_file({"/etc/passwd": {**F32, "data_offsets": [0, 8]}}, b"\0" * 8), "isn't plain"),
        (tensor_file({f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}, b""),
         "20001 tensors"),
    ],
)  # fmt: skip
def test_refuses_a_broken_tensor_file_even_if_the_record_vouches_for_it(tmp_path, data, says):
    folder = good(tmp_path / "model")
    replace_tensors(folder, data)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_folder(folder, kind="prior")
    assert "tensors.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("dtype", "body", "says"),
    [
        ("F32", struct.pack("<2f", 1, float("nan")), "NaN"),
        ("F64", struct.pack("<2d", float("-inf"), 1), "infinite"),
        ("F16", b"\x00\x7c\x00\x00", "infinite"),
        ("BF16", b"\x80\x7f\x00\x00", "infinite"),
        ("BOOL", b"\x01\x02", "bytes other than 0 and 1"),
    ],
)
def test_refuses_values_that_are_no_numbers(tmp_path, dtype, body, says):
    folder = good(tmp_path / "model")
    entry = {"dtype": dtype, "shape": [2]}
    replace_tensors(folder, tensor_file({"a": {**entry, "data_offsets": [0, len(body)]}}, body), {"a": entry})
    with pytest.raises(CheckpointError, match=says):
        load_folder(folder, kind="prior")


def test_refuses_tensors_that_are_not_those_of_the_record(tmp_path):
    folder = good(tmp_path / "model")
    replace_tensors(folder, save({"a": torch.zeros(3, 2), "other": torch.arange(5)}))
    with pytest.raises(CheckpointError, match="aren't those that"):
        load_folder(folder, kind="prior")


def test_a_file_cut_anywhere_or_with_any_bit_flipped_is_refused(tmp_path):
    folder = good(tmp_path / "model")
    path = folder / "tensors.safetensors"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            load_folder(folder, kind="prior")
        path.write_bytes(whole[:cut] + bytes([whole[cut] ^ 1]) + whole[cut + 1 :])
        with pytest.raises(CheckpointError):
            load_folder(folder, kind="prior")
    path.write_bytes(whole)
    load_folder(folder, kind="prior")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    folder = good(tmp_path / "model")
    with open(folder / "tensors.safetensors", "r+b") as file:
        file.truncate(tensorfile.MAX_BYTES + 2**24)  # sparse: takes no room
    with pytest.raises(CheckpointError, match="at most"):
        load_folder(folder, kind="prior")


def test_missing_folders_and_files_are_named(tmp_path):
    folder = good(tmp_path / "model")
    with pytest.raises(CheckpointError, match='Did you mean "model"'):
        load_folder(tmp_path / "modle", kind="prior")
    with pytest.raises(CheckpointError, match="is a file"):
        load_folder(folder / "record.json", kind="prior")
    (folder / "tensors.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no tensors\.safetensors"):
        load_folder(folder, kind="prior")


def test_another_kind_says_which_command_it_is_for(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"holds a prior, for `quickstudy adapt --prior`; here an adapted model"
    ):
        load_folder(good(tmp_path / "model"), kind="adapted")


# Training states


def state(**fingerprints: str) -> TrainingState:
    return TrainingState(
        7, {"meta/w": torch.ones(2)}, {"fingerprints": fingerprints, "optimiser": {"lr": 0.1}}
    )


def test_training_state_comes_back(tmp_path):
    saved = state(encoder="minilm/" + "53aa" * 16, seed="0")
    save_state(tmp_path / "run", saved)
    loaded = load_state(tmp_path / "run", {"encoder": "minilm/" + "53aa" * 16, "seed": "0"})
    assert (loaded.step, loaded.record) == (saved.step, saved.record)
    assert torch.equal(loaded.tensors["meta/w"], saved.tensors["meta/w"])


def test_a_state_of_another_run_names_each_difference(tmp_path):
    save_state(tmp_path / "run", state(encoder="minilm/" + "53aa" * 16, seed="0", data="x"))
    with pytest.raises(CheckpointError) as caught:
        load_state(
            tmp_path / "run", {"encoder": "bge/" + "77cd" * 16, "seed": "1", "data": "x", "learner": "maml"}
        )
    text = str(caught.value)
    assert "with encoder minilm/53aa53aa…, the run uses bge/77cd77cd…" in text
    assert "with seed 0, the run uses 1" in text
    assert "without noting its learner" in text
    assert "data" not in text
    assert "another folder" in text


# Crashes, full disks, many at once

SAVER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
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


def test_an_interrupted_save_leaves_no_trace(tmp_path):
    folder = good(tmp_path / "model")
    code = SAVER + textwrap.dedent("""
    import threading
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
        with pytest.raises(CheckpointError, match="cannot save .*ead-only"):
            good(disk / "model", 2.0)
    finally:
        subprocess.run(["umount", disk], check=True)
