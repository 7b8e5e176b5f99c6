"""Few-shot examples as people have them: tables, a folder per class, frames, sequences -> `Examples`.

    read_examples("tickets.csv")     texts and labels            read_texts("new.txt")     texts alone
    read_datasets("past_tasks/")     one Examples a data set     read_descriptions("labels.json")

Nothing is dropped or repaired in silence except white space at the ends; what can't be used is a DataError
that names the file and the row. Labels are always text: 1, 1.0 and "1" are the label "1".
"""

import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.core.task import blank as is_blank
from quickstudy.domains.text.read_columns import (
    DESCRIPTION_NAMES,
    LABEL_NAMES,
    TEXT_NAMES,
    clean_text,
    collect,
    find,
    header_is_data,
    not_found,
    one_each,
)
from quickstudy.files.source import (
    LIMIT,
    TextSource,
    existing,
    quoted,
    shortened,
    suffix_of,
    whole_text,
)
from quickstudy.files.tables import SUFFIXES, Bad, Table, open_table

_PAPERS = re.compile(
    r"(readme|licen[cs]e|citation|notice|changelog)(\.(md|txt|rst|cff))?|meta\.json", re.IGNORECASE
)

_MEANING = '{"label": "...", "description": "..."}, or the whole file as one object {label: words}'

Source = str | PathLike[str] | tuple[Sequence[Any], Sequence[Any]] | Any


@dataclass(frozen=True)
class Examples:
    """Labelled texts.

    `descriptions` says in words what a label means (any subset of the labels); `source` is where the examples
    came from, as errors name it.
    """

    texts: list[str] = field(repr=False)
    labels: list[str] = field(repr=False)
    descriptions: dict[str, str] = field(default_factory=dict)
    source: str = "examples"
    rows: Sequence[Any] = field(default=(), repr=False, compare=False)
    """The row of each example as errors name it; empty where there are no rows (a folder of classes)."""

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise DataError(f"{len(self.texts)} texts came with {len(self.labels)} labels.", file=self.source)
        if self.descriptions:
            _check_described(self.descriptions, self.classes, self.source)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted, each once."""
        return tuple(sorted(set(self.labels)))

    def error(self, i: int, problem: str) -> DataError:
        """The error to raise for example number `i`: it names file and row."""
        return DataError(problem, file=self.source, row=self.rows[i] if self.rows else None)

    def with_descriptions(self, descriptions: Mapping[str, str]) -> "Examples":
        """The same examples, label descriptions added.

        Raises DataError for a label that no example has, naming the file and row that describe it.
        """
        _check_described(descriptions, self.classes, self.source)
        return replace(self, descriptions={**self.descriptions, **descriptions})

    def check_classes(self, minimum: int = 2) -> None:
        """Raise DataError when there are fewer than `minimum` classes to tell apart."""
        if len(self.classes) < minimum:
            raise DataError(
                f"{len(self.classes)} class{'' if len(self.classes) == 1 else 'es'} came "
                f"({quoted(self.classes) or 'none'}); expected at least {minimum}. "
                "Add examples of another class.",
                file=self.source,
            )

    def conflicts(self) -> dict[str, tuple[str, ...]]:
        """Texts that stand under more than one label: text -> its labels, sorted."""
        labels: dict[str, set[str]] = {}
        for text, label in zip(self.texts, self.labels, strict=True):
            labels.setdefault(text, set()).add(label)
        return {text: tuple(sorted(found)) for text, found in labels.items() if len(found) > 1}

    def duplicates(self) -> dict[tuple[str, str], int]:
        """Examples that stand more than once: (text, label) -> how often."""
        counts = Counter(zip(self.texts, self.labels, strict=True))
        return {example: count for example, count in counts.items() if count > 1}


class Descriptions(dict[str, str]):
    """What labels mean: label -> words; and where that stands, for errors: `source`, and the row of each label."""

    def __init__(self, words: Mapping[str, str], source: str, rows: Mapping[str, Any]) -> None:
        super().__init__(words)
        self.source, self.rows = source, rows


def _check_described(descriptions: Mapping[str, str], classes: Sequence[str], source: str) -> None:
    """Raise DataError for a described label that isn't among the classes; `source` is named where no file is known."""
    rows: Mapping[str, Any] = {}
    if isinstance(descriptions, Descriptions):
        source, rows = descriptions.source, descriptions.rows
    for label in descriptions:
        if label not in classes:
            raise DataError(
                f'"{shortened(label)}" has a description, and no example.{did_you_mean(label, classes)} '
                f"Labels: {quoted(classes)}.",
                file=source,
                row=rows.get(label),
            )


def read_examples(
    source: Source, text: str | None = None, label: str | None = None, *, limit: int = LIMIT
) -> Examples:
    """Read labelled texts.

    source: path of .csv, .tsv, .jsonl, .json (a list, or one object a line), the same as .gz, .parquet; a folder
        with one sub-folder of .txt files a class (one text a file); a pandas DataFrame; a pair (texts, labels).
    text, label: names of the columns; by default found by their usual names (`TEXT_NAMES`, `LABEL_NAMES`). With
        exactly two columns of other names the one with far fewer distinct values is the label (UserWarning).
    limit: the longest line in bytes, and the longest text in characters.
    A column `label_description` or `description` gives the labels' descriptions; it may be empty in most rows.
    Raises DataError with file and row; up to five bad rows are named in one error.
    """
    if isinstance(source, str | PathLike) and existing(source).is_dir():
        if text is not None or label is not None:
            raise DataError("a folder of classes has no columns: leave `text` and `label` away.", file=source)
        return _read_class_folder(Path(source), limit)
    table = open_table(source, limit)
    text = find(table, "text", text, TEXT_NAMES)
    label = find(table, "label", label, LABEL_NAMES, taken=[text])
    if text is None or label is None:
        return _read_two_columns(table, text, label, limit)
    if text == label:
        raise DataError(f'"{text}" cannot be both the text and the label.', file=table.name)
    description = find(table, "description", None, DESCRIPTION_NAMES, taken=[text, label])
    if description is None:
        rows, (texts, labels) = collect(table, [text, label], limit)
        return Examples(texts, labels, {}, table.name, rows)
    rows, (texts, labels, described) = collect(
        table, [text, label, description], limit, may_be_empty=description
    )
    return Examples(texts, labels, one_each(table, rows, labels, described), table.name, rows)


def read_texts(
    path: Source, text: str | None = None, *, blank: bool = False, limit: int = LIMIT
) -> list[str]:
    """Read texts without labels: a table as in `read_examples` (its only column will do), or .txt, one a line.

    Blank lines of a .txt are passed over, or with `blank` kept as empty texts. Raises DataError with file and row.
    """
    if isinstance(path, str | PathLike) and suffix_of(existing(path)) == ".txt":
        source = TextSource(Path(path), limit)
        texts = []
        for line in source.lines():
            texts += [line.strip()] if blank or not is_blank(line) else []
            source.row += 1
        if all(map(is_blank, texts)):
            raise DataError("the file is empty; expected one text a line.", file=path)
        return texts
    table = open_table(path, limit)
    column = find(table, "text", text, TEXT_NAMES)
    if column is None:
        if len(table.columns) != 1 or header_is_data(table):
            raise not_found(table, "text", TEXT_NAMES)
        column = table.columns[0]
    return collect(table, [column], limit)[1][0]


def read_datasets(folder: str | PathLike[str], *, limit: int = LIMIT) -> list[Examples]:
    """Read a folder of data sets, sorted by name: each table and each folder of classes within is one.

    Hidden files and papers (README, LICENSE, CITATION, NOTICE, CHANGELOG, META.json) are passed over; anything
    else that is no data set is a DataError.
    """
    folder = existing(folder)
    entries = _entries(folder)
    if not entries:
        raise DataError(
            f"holds no data set; expected tables ({', '.join(SUFFIXES)}) or folders of classes.", file=folder
        )
    if all(entry.is_dir() and not any(child.is_dir() for child in entry.iterdir()) for entry in entries):
        raise DataError(
            "holds folders without sub-folders: this looks like one data set with a folder a class. "
            "Put it into a folder of its own, and give that one.",
            file=folder,
        )
    return [read_examples(entry, limit=limit) for entry in entries]


def read_descriptions(path: str | PathLike[str], *, limit: int = LIMIT) -> Descriptions:
    """Read what labels mean: a JSON object {label: words}, or a table with the columns label and description.

    Give the result to `Examples.with_descriptions`, which refuses a label that no example has.
    """
    path = existing(path)
    if suffix_of(path) == ".json" and TextSource(path, limit).starts_with("{"):
        table = _json_mapping(path, limit)
    else:
        table = open_table(path, limit, _MEANING)
    label = find(table, "label", None, LABEL_NAMES)
    description = find(table, "description", None, DESCRIPTION_NAMES, taken=[label])
    if label is None or description is None:
        raise DataError(
            f"no column is known to hold the {'label' if label is None else 'description'}: there are "
            f'{quoted(table.columns)}. Expected the columns "label" and "description", or JSON {{label: words}}.',
            file=table.name,
            row=table.header,
        )
    rows, (labels, descriptions) = collect(table, [label, description], limit)
    first = dict(zip(reversed(labels), reversed(rows), strict=True))
    return Descriptions(one_each(table, rows, labels, descriptions), table.name, first)


def _json_mapping(path: Path, limit: int) -> Table:
    try:
        pairs = json.loads(whole_text(path, limit), object_pairs_hook=lambda pairs: pairs)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"not JSON ({error}); expected {{label: words}}.", file=path,
                        row=getattr(error, "lineno", None)) from None  # fmt: skip
    return Table(str(path), ["label", "description"], lambda wanted: iter(enumerate(pairs, 1)))


def _read_two_columns(table: Table, text: str | None, label: str | None, limit: int) -> Examples:
    """Names don't tell: of two columns, the one with at most half as many distinct values is the label."""
    unknown = not_found(table, *(("text", TEXT_NAMES) if text is None else ("label", LABEL_NAMES)))
    if len(table.columns) != 2 or header_is_data(table):
        raise unknown
    rows, values = collect(table, table.columns, limit)
    columns = sorted(zip(table.columns, values, strict=True), key=lambda column: len(set(column[1])))
    (label_name, labels), (text_name, texts) = columns
    distinct = len(set(labels))
    if 2 * distinct > len(set(texts)) or label_name == text or text_name == label:
        raise unknown
    if label_name in labels:
        raise DataError(
            f'the first row holds "{label_name}", as other rows do: is the header missing? '
            'Then add a first row such as "text,label".',
            file=table.name,
            row=table.header,
        )
    warnings.warn(
        f'{table.name}: took column "{text_name}" for the text, and "{label_name}", which has {distinct} '
        "distinct values, for the label.",
        UserWarning,
        stacklevel=3,
    )
    return Examples(texts, labels, {}, table.name, rows)


def _read_class_folder(folder: Path, limit: int) -> Examples:
    entries = _entries(folder)
    if not any(entry.is_dir() for entry in entries):
        tables = [entry.name for entry in entries if suffix_of(entry) in SUFFIXES]
        hint = f" It holds {quoted(tables)}: give such a file." if tables else ""
        raise DataError(f"holds no sub-folder; expected one a class, with .txt files.{hint}", file=folder)
    texts: list[str] = []
    labels: list[str] = []
    for entry in entries:
        if not entry.is_dir():
            raise DataError("a file beside the classes' folders: move it away.", file=entry)
        files = _entries(entry)
        if not files:
            raise DataError(
                "a class without a text: put .txt files into the folder, or remove it.", file=entry
            )
        label = clean_text(entry.name)
        if isinstance(label, Bad):
            raise DataError(f"the folder's name {label}; expected a label.", file=entry)
        texts += [_read_text_file(file, limit) for file in files]
        labels += [label] * len(files)
    return Examples(texts, labels, {}, str(folder))


def _read_text_file(path: Path, limit: int) -> str:
    if path.is_dir() or suffix_of(path) != ".txt":
        raise DataError("expected only .txt files in a class's folder.", file=path)
    text = clean_text(whole_text(path, limit), limit)
    if isinstance(text, Bad):
        raise DataError(f"the text {text}.", file=path)
    return text


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without hidden files and papers; DataError for a link that leads out of it."""
    if not folder.is_dir():
        raise DataError("a file; expected a folder.", file=folder)
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    for entry in entries:
        if entry.is_symlink() and not existing(entry).resolve().is_relative_to(folder.resolve()):
            raise DataError(f"a symbolic link that leads out of {folder}: copy the original.", file=entry)
    return [entry for entry in entries if entry.is_dir() or not _PAPERS.fullmatch(entry.name)]
