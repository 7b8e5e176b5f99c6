"""Where an encoder's files come from (a package, a folder, the Hugging Face hub), and reading them safely.

Read are config.json, model.safetensors and tokenizer.json, and nothing in them is run. Weights in a pickle are
refused: opening one runs whatever program its author put there. Of a package that carries its weights in another
format the file is read too, once its hash is known to be the published one.
"""

import hashlib
import importlib.util
import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from quickstudy.core.errors import MissingExtra, ModelError, did_you_mean, missing_extra
from quickstudy.nets.bert import BertConfig, clean

from . import onnx_weights
from .packaged import CONFIG, PACKAGED, TOKENIZER, WEIGHTS, Packaged

POOLING, SENTENCE = "1_Pooling/config.json", "sentence_bert_config.json"
MAX_LENGTH = 256
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


@dataclass(frozen=True)
class Weights:
    """An encoder's files, read and checked. `state` may be mapped from the file, so it is shared between processes."""

    config: BertConfig
    state: Mapping[str, Tensor] = field(repr=False)
    tokenizer: bytes = field(repr=False)
    sha256: Mapping[str, str]
    pooling: str
    max_length: int
    source: str


def find(name: str, *, built_in: tuple[str, ...] = ()) -> tuple[Path, Packaged | None]:
    """The folder that holds the encoder called `name`: of a package, on this disk, or from the hub, in this order.

    Raises MissingExtra if its package isn't installed, ModelError if there is no such encoder.
    """
    if name in PACKAGED:
        packaged = PACKAGED[name]
        return _package_folder(name, packaged), packaged
    path = Path(name).expanduser()
    if path.is_dir():
        return path, None
    known = [*PACKAGED, *built_in]
    if path.exists():
        raise ModelError(
            f"{name} is a file; an encoder is a folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}."
        )
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/"):
        raise ModelError(
            f"There is no encoder {name!r}.{did_you_mean(name, known)} Give one of {', '.join(known)}, an existing "
            "folder, or a Hugging Face id such as BAAI/bge-small-en-v1.5."
        )
    return _from_hub(name), None


def read(folder: Path, packaged: Packaged | None = None) -> Weights:
    """Read a BERT's folder. The hash of every file is computed at each load (0.1 s for 90 MB), never remembered.

    Raises ModelError if a file is missing, damaged, a pickle, not the one that `packaged` promises, or no BERT.
    """
    weights = packaged.weights if packaged else WEIGHTS
    _check_files(folder, weights)
    tokenizer, described = (folder / TOKENIZER).read_bytes(), (folder / CONFIG).read_bytes()
    # Weights in safetensors are mapped from the file, so that processes share them; others are read to the end first.
    data = None if weights == WEIGHTS else _whole(folder / weights)
    with open(folder / weights, "rb") if data is None else BytesIO(data) as file:
        sha256 = {weights: hashlib.file_digest(file, "sha256").hexdigest()}
    sha256[TOKENIZER] = hashlib.sha256(tokenizer).hexdigest()
    if packaged is not None:
        check_hashes(folder, packaged, sha256 | {CONFIG: hashlib.sha256(described).hexdigest()})
    config = BertConfig.from_json(_json(folder / CONFIG, described), str(folder / CONFIG))
    if packaged is None:  # a package has but one config; a folder may have any
        sha256[CONFIG] = hashlib.sha256(json.dumps(asdict(config)).encode()).hexdigest()
    state = (
        _mapped(folder / weights) if data is None else onnx_weights.read_state(data, str(folder / weights))
    )
    state = {name: tensor.float() for name, tensor in state.items()}
    if packaged is None and not all(tensor.isfinite().all() for tensor in state.values()):
        raise ModelError(f"{folder / weights} holds values that are not finite. Fetch it again.")
    return Weights(
        config=config,
        state=state,
        tokenizer=tokenizer,
        sha256=sha256,
        pooling=(packaged and packaged.pooling) or _pooling(folder),
        max_length=_max_length(folder, config),
        source=str(folder),
    )


def check_hashes(folder: Path, packaged: Packaged, sha256: Mapping[str, str]) -> None:
    """Raise ModelError, saying how to mend it, if a file isn't the one that was published."""
    for name, promised in packaged.sha256.items():
        if sha256[name] != promised:
            raise ModelError(
                f"{folder / name} is not the file that was published: its sha256 is {sha256[name]}, expected "
                f"{promised}. It is damaged or was changed. Install it anew: "
                f"{packaged.install.replace('--no-deps', '--force-reinstall --no-deps')}"
            )


def _package_folder(name: str, packaged: Packaged) -> Path:
    found = importlib.util.find_spec(packaged.package)
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(
            f"The encoder {name!r} ({packaged.about}) is not installed. Install it with: {packaged.install}  (or the "
            f"extra quickstudy[{packaged.extra}]; --no-deps, because its metadata asks for {packaged.asks}, which "
            "quickstudy doesn't use). Or name another encoder: a folder, or a Hugging Face id.",
            name=packaged.package,
        )
    return Path(found.submodule_search_locations[0]) / packaged.folder


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError as problem:
        raise missing_extra("huggingface_hub", "hub") from problem
    files = [CONFIG, WEIGHTS, TOKENIZER, POOLING, SENTENCE]
    with suppress(Exception):  # whatever is wrong with the local copy, the download below says it better
        folder = Path(snapshot_download(name, allow_patterns=files, local_files_only=True))
        if all((folder / file).exists() for file in files[:3]):
            return folder
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"The encoder {name} is not in this machine's Hugging Face cache, and HF_HUB_OFFLINE forbids to fetch it. "
            "Unset it, copy the model's folder here and name that, or use the encoder 'minilm'."
        )
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as problem:
        reason = str(problem).strip().splitlines() or [type(problem).__name__]
        raise ModelError(
            f"The encoder {name} is neither a folder here nor could it be fetched from the Hugging Face hub "
            f"({type(problem).__name__}: {reason[0][:200]}). Check the name and the connection, or use 'minilm'."
        ) from problem


def _check_files(folder: Path, weights: str) -> None:
    missing = [file for file in (weights, CONFIG, TOKENIZER) if not (folder / file).is_file()]
    if not missing:
        return
    pickles = (
        sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES) if folder.is_dir() else []
    )
    if weights in missing and pickles:
        # The file's name is its author's, too: quoted, it can't become a part of the program or of the command.
        program = (
            "import torch; from safetensors.torch import save_file; save_file({k: v.clone() for k, v in "
            f"torch.load({pickles[0]!r}, weights_only=True).items()}}, {WEIGHTS!r})"
        )
        raise ModelError(
            f"{folder} holds its weights in {pickles[0]!r}, a pickle. Opening one can run any program, so quickstudy "
            f"never does. Convert it, if you trust its author, with: python -c {shlex.quote(program)}"
        )
    raise ModelError(f"{folder} has no {' and no '.join(missing)}. An encoder's folder needs {weights}, {CONFIG} and "
                     f"{TOKENIZER} (the file that the tokenizers package reads).")  # fmt: skip


def _mapped(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return clean(load_file(path))
    except SafetensorError as problem:
        raise ModelError(
            f"{path} is truncated or damaged ({problem}). Fetch it again from where it came from."
        ) from problem


def _whole(path: Path) -> bytes:
    if (size := path.stat().st_size) > onnx_weights.MAX_BYTES:
        raise ModelError(
            f"{path} is {size / 1e6:,.0f} MB large; at most {onnx_weights.MAX_BYTES / 1e6:,.0f} are read."
        )
    return path.read_bytes()


def _json(path: Path, data: bytes | None = None) -> dict[str, Any]:
    try:
        value = json.loads((path.read_bytes() if data is None else data).decode("utf-8"))
    except (OSError, ValueError) as problem:
        raise ModelError(f"{path} can't be read as JSON: {problem}.") from problem
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, expected an object.")
    return value


def _pooling(folder: Path) -> str:
    if not (folder / POOLING).is_file():
        return "mean"
    config = _json(folder / POOLING)
    on = sorted(key for key, value in config.items() if key.startswith("pooling_mode_") and value is True)
    for key, how in (("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "cls")):
        if on == [key]:
            return how
    raise ModelError(
        f"{folder / POOLING}: {', '.join(on) or 'nothing'} is on; supported is pooling by mean or by the first token."
    )


def _max_length(folder: Path, config: BertConfig) -> int:
    named = _json(folder / SENTENCE).get("max_seq_length") if (folder / SENTENCE).is_file() else None
    wanted = named if type(named) is int and named > 2 else MAX_LENGTH
    return min(wanted, MAX_LENGTH, config.max_position_embeddings)
