"""Folders of tensors and training states: what goes in comes out, and what can't go in changes nothing."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from quickstudy.core.checkpoint import TrainingState, load_folder, load_state, save_folder, save_state
from quickstudy.core.errors import CheckpointError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def good(folder: Path, value: float = 1.0) -> Path:
    tensors = {"a": torch.full((3, 2), value), "b": torch.arange(5)}
    save_folder(folder, tensors, {"kind": "prior", "value": value}, extra_files={"README.md": "a card"})
    return folder


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
    data = save({name: t.contiguous() for name, t in tensors.items()}, {"made": "elsewhere"})
    (folder / "tensors.safetensors").write_bytes(data)
    record = json.loads((folder / "record.json").read_text())
    record["tensors"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "record.json").write_text(json.dumps(record))
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
