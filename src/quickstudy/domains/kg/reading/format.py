"""Which format a file of labelled examples is in: by its content, as endings such as .json and .txt say little."""

import re
from itertools import islice
from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.reading.conll import BEGIN, TAG, columns
from quickstudy.domains.kg.reading.marked import SENTENCE
from quickstudy.domains.kg.reading.pubtator import HEAD
from quickstudy.domains.kg.reading.rows import FILE_LIMIT, ROW_LIMIT, records
from quickstudy.domains.kg.reading.spacy import BINARY
from quickstudy.files.source import TextSource, files_below, shortened

_MARK = re.compile(r"\[[^\[\]{}\\\n]{1,100}\]\{")
_UNKNOWN = (
    "Expected is one of: jsonl, inline, conll, brat, spacy, prodigy, doccano, label-studio, fewrel, conll04, pubtator, "
    'marked; in Python, format="conll" names one.'
)


def format_of(path: Path) -> str:
    """The name of the format. Raises DataError, with advice, for one that isn't known or can't be read."""
    if path.is_dir():
        if any(file.suffix == ".ann" for file in files_below(path)):
            return "brat"
        raise DataError("a folder of labelled examples is brat's, with .ann files; this has none.", file=path)
    if path.suffix == ".ann" or (path.suffix == ".txt" and path.with_suffix(".ann").is_file()):
        return "brat"
    with path.open("rb") as file:
        head = file.read(2)
    if path.suffix == ".spacy" or head in (b"\x78\x9c", b"\x78\xda"):  # msgpack in zlib
        raise DataError(BINARY, file=path)
    source = TextSource(path, FILE_LIMIT)
    if source.starts_with("{") or _is_json_list(source):
        return _of_json(path)
    return _of_lines(path)


def _is_json_list(source: TextSource) -> bool:
    """Whether it begins as a list of JSON does, and no sentence with a mark or a token [ does."""
    return any(source.starts_with(f"[{sign}") for sign in ("{", "[", "\n", "\r", " ", "]", "n"))


def _of_json(path: Path) -> str:
    seen = None
    for _, value in islice(records(path), 20):
        seen = value if seen is None else seen
        if found := _of_value(value):
            return found
    if seen is None:
        raise DataError("the file is empty.", file=path)
    raise DataError(f"the format of {shortened(seen)} isn't known. {_UNKNOWN}", file=path)


def _of_value(value: Any) -> str | None:
    if isinstance(value, list):
        return (
            "spacy" if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict) else None
        )
    if not isinstance(value, dict):
        return None
    keys = value.keys()
    labels = value.get("label", value.get("labels"))
    first = labels[0] if isinstance(labels, list) and labels else None
    entities, spans = ([item for item in value.get(key) or [] if item] if isinstance(value.get(key) or [], list) else []
                       for key in ("entities", "spans"))  # fmt: skip
    rules = (
        ("fewrel", {"h", "t"} <= keys),
        ("label-studio", "data" in keys and ("annotations" in keys or "completions" in keys)),
        ("label-studio", isinstance(first, dict) and "labels" in first),
        ("conll04", "tokens" in keys and "entities" in keys and "text" not in keys),
        ("spacy", "annotations" in keys and "data" not in keys),
        ("prodigy", "answer" in keys or "_input_hash" in keys),
        ("prodigy", "spans" in keys and any(isinstance(span, dict) and "label" in span for span in spans)),
        ("doccano", any(isinstance(item, dict) and "start_offset" in item for item in entities)),
        ("doccano", isinstance(labels, list) and "spans" not in keys),
        ("doccano", {"text", "entities", "relations"} <= keys),
        ("spacy", {"text", "entities"} <= keys),
        ("jsonl", "marked" in keys or "spans" in keys),
        (
            "fewrel",
            bool(keys) and all(isinstance(part, list) and _is_fewrel(part) for part in value.values()),
        ),
        ("jsonl", "text" in keys),
    )
    return next((name for name, fits in rules if fits), None)


def _is_fewrel(items: list[Any]) -> bool:
    return bool(items) and isinstance(items[0], dict) and {"tokens", "h", "t"} <= items[0].keys()


def _of_lines(path: Path) -> str:
    source = TextSource(path, ROW_LIMIT)
    seen = ""
    for line in islice((line for _, line in source.numbered() if line.strip()), 20):
        cells = columns(line)
        sentence = SENTENCE.fullmatch(line.rstrip("\r\n"))
        if line.startswith("#doc"):
            return "conll04"
        if (head := HEAD.fullmatch(line.rstrip("\r\n"))) and head[2] == "t":
            return "pubtator"
        if sentence and re.search(r"<e1>.*</e1>", line):
            return "marked"
        if line.startswith(BEGIN) or (len(cells) > 1 and TAG.fullmatch(cells[-1])):
            return "conll"
        if not line.startswith("#") and _MARK.search(line):
            return "inline"
        seen = seen or line
    if not seen:
        raise DataError("the file is empty.", file=path)
    raise DataError(f"the format isn't known; it begins {shortened(seen)!r}. {_UNKNOWN}", file=path)
