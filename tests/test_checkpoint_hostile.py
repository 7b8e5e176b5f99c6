"""Folders from anybody, hostile in one way each: refused with a clear error, nothing run, nothing reserved."""

import hashlib
import json
import os
import pickle
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from toy import Words, sentences

from quickstudy.core import net, tensorfile
from quickstudy.core.adapted import Adapted
from quickstudy.core.checkpoint import load_folder, save_folder
from quickstudy.core.errors import CheckpointError
from quickstudy.core.objective import Classify
from quickstudy.learners import MAML, Gaussian, Prototypical, Ridge
from quickstudy.nets import MLP


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


F32 = {"dtype": "F32", "shape": [2]}


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


@pytest.mark.parametrize("name", ["data", "notes.txt", "sub/weights", "README.md"])
@pytest.mark.parametrize(
    "data",
    [*(pickle.dumps(Evil(), protocol) for protocol in (2, 3, 4, 5)), b"PK\x03\x04rest"],
    ids=["protocol 2", "protocol 3", "protocol 4", "protocol 5", "zip"],
)
def test_refuses_a_pickle_by_its_content_under_any_name(tmp_path, name, data):
    path = good(tmp_path / "model") / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{Path(name).name} can hold a pickle"):
        load_folder(tmp_path / "model", kind="prior")


def test_what_torch_saves_is_refused_under_any_name(tmp_path):
    folder = good(tmp_path / "model")
    for zipped in (True, False):
        torch.save({"a": torch.zeros(2)}, folder / "data", _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="data can hold a pickle"):
            load_folder(folder, kind="prior")


@pytest.mark.parametrize("size", [0x280, 0x380, 0x480, 0x580, 0x28_02_80])
def test_a_header_whose_length_begins_like_a_pickle_is_none(tmp_path, size):
    folder = good(tmp_path / "model")
    header = json.dumps({"a": {**F32, "data_offsets": [0, 8]}}).encode().ljust(size)
    replace_tensors(folder, tensor_file(header, b"\0" * 8), {"a": F32})
    assert load_folder(folder, kind="prior")[0]["a"].tolist() == [0, 0]


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


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # the name of a socket may have 107 bytes


@pytest.mark.parametrize("make", [os.mkfifo, listen], ids=["pipe", "socket"])
@pytest.mark.parametrize("name", ["record.json", "extra", "sub/extra.npy"])
def test_refuses_what_is_no_plain_file_without_waiting_for_it(tmp_path, monkeypatch, name, make):
    monkeypatch.chdir(tmp_path)
    path = good(tmp_path / "model") / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(CheckpointError, match=f"{path.name} isn't a plain file but a pipe, socket or device"):
        load_folder(tmp_path / "model", kind="prior")


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
        (pickle.dumps({"format": 1}), "can hold a pickle"),
    ],
)  # fmt: skip
def test_refuses_a_broken_record(tmp_path, text, says):
    folder = good(tmp_path / "model")
    (folder / "record.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_folder(folder, kind="prior")
    assert "record.json" in str(caught.value)
    assert len(str(caught.value)) < 500


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


# -- Models: what the record asks for and what the tensors hold


def model(folder: Path, learner) -> Path:
    Adapted.learn(learner, learner.init(0), sentences(), Words()).save(folder)
    return folder


def edit(folder: Path, change) -> None:
    record = json.loads((folder / "record.json").read_text())
    change(record["learner"])
    (folder / "record.json").write_text(json.dumps(record))


NET = MLP(inputs=Words.dim, outputs=3, hidden=(8, 8))
LEARNERS = {
    "MAML": MAML(objective=Classify(ways=3), net=NET, steps=1),
    "Ridge": Ridge(objective=Classify(ways=3), net=NET),
    "Prototypical": Prototypical(objective=Classify(ways=3), net=NET),
    "Gaussian": Gaussian(objective=Classify(ways=3), dim=Words.dim),
}


@pytest.mark.parametrize(
    "size", [[10**6, 10**6], [9, 9], [8], [], [8, 8, 8], [10**6] * 100], ids=lambda s: str(s)[:20]
)
@pytest.mark.parametrize("name", ["MAML", "Ridge", "Prototypical"])
def test_a_network_of_other_shapes_than_the_tensors_is_refused_before_it_is_built(
    tmp_path, monkeypatch, name, size
):
    folder = model(tmp_path / "model", LEARNERS[name])
    edit(folder, lambda learner: learner["net"].update(hidden=size))
    monkeypatch.setattr(net, "skeleton", lambda *a: pytest.fail("it was built"))
    with pytest.raises(CheckpointError, match=rf"not those of a {name}: {name} needs"):
        Adapted.load(folder, Words())


def test_a_dimension_without_bounds_takes_no_memory(tmp_path):
    folder = model(tmp_path / "model", LEARNERS["Gaussian"])
    for dim in (10**6, 10**8, 25):
        edit(folder, lambda learner, dim=dim: learner.update(dim=dim))
        with pytest.raises(CheckpointError, match="not those of a Gaussian"):
            Adapted.load(folder, Words())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(steps=10**9), r"MAML\.steps.*less than or equal to 10000.*1000000000"),
        (lambda r: r.update(steps=-1), r"MAML\.steps"),
        (lambda r: r.update(rate=-0.1), r"MAML\.rate"),
        (lambda r: r.update(rate=1e30), r"MAML\.rate"),
        (lambda r: r["net"].update(hidden=[10**7]), r"MLP\.hidden"),
        (lambda r: r["net"].update(hidden=[0]), r"MLP\.hidden"),
        (lambda r: r["net"].update(hidden=[1] * 10**6), r"MLP\.hidden.*at most 100"),
        (lambda r: r["net"].update(inputs=10**12), r"MLP\.inputs"),
        (lambda r: r["net"].update(outputs=0), r"MLP\.outputs"),
        (lambda r: r["net"].update(dropout=1.0), r"MLP\.dropout"),
        (lambda r: r["objective"].update(ways=10**12), r"Classify\.ways"),
    ],
)
def test_hyper_parameters_beyond_reason_are_refused_by_name(tmp_path, change, says):
    folder = model(tmp_path / "model", LEARNERS["MAML"])
    edit(folder, change)
    with pytest.raises(CheckpointError, match=says) as caught:
        Adapted.load(folder, Words())
    assert len(str(caught.value)) < 500


def test_another_kind_says_which_command_it_is_for(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"holds a prior, for `quickstudy adapt --prior`; here an adapted model"
    ):
        load_folder(good(tmp_path / "model"), kind="adapted")
