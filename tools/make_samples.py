"""Make the bundled samples in src/quickstudy/data from the full CLINC150 and BANKING77.

    python tools/make_samples.py --data FOLDER     (or the environment variable QUICKSTUDY_DATA)

FOLDER holds text/clinc150, text/banking77 and linking/bc5cdr_el as downloaded from their authors, each with a META.json
that gives the sha256 of every file; a file that differs is refused. The same sources give the same sentences in the
same order on every machine; `--check` compares with the committed samples instead of writing.

What is taken, from the authors' training part (and BANKING77's test part, marked as such):
- sentences are cleaned of line breaks, repeated and surrounding blanks; nothing else in them is changed;
- a sentence that occurs twice (letter case and punctuation apart) is kept once, one that occurs with two labels
  not at all;
- of BANKING77 a test sentence that is also a training sentence is left out, and of CLINC150 every sentence
  that is also anywhere in BANKING77: so learning from the one and testing on the other is clean;
- per class, the sentences whose sha256 is smallest: a draw that depends on nothing but the sentence. The rows
  of a class follow in that order, so its first k rows are a smaller sample of the same kind.

Of BC5CDR: abstracts as they are, in the authors' PubTator format, those whose number has the smallest sha256: some of
the training part to learn from, others of the development part to read. The test part stays for benchmarks.
"""

import argparse
import csv
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

CLINC_PER_CLASS = 40
BANKING_TRAIN, BANKING_TEST = 25, 15
ABSTRACTS = {"learn": ("CDR_train.PubTator.txt.gz", 24), "read": ("CDR_dev.PubTator.txt.gz", 60)}
OUT = Path(__file__).resolve().parent.parent / "src" / "quickstudy" / "data"

Pair = tuple[str, str]  # (text, label)


def clean(text: str) -> str:
    return " ".join(text.split())


def key(text: str) -> str:
    """What two sentences share if they are the same but for letter case and punctuation."""
    return re.sub(r"\W+", " ", text.lower()).strip()


def read_verified(folder: Path, name: str) -> bytes:
    """The file's content, unpacked if it ends in .gz, after its sha256 was compared with META.json."""
    meta = json.loads((folder / "META.json").read_text())
    expected = {file["file"]: file["sha256"] for file in meta["files"]}
    if name not in expected:
        raise SystemExit(f"{folder / 'META.json'} gives no sha256 for {name}: nothing was written")
    raw = (folder / name).read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != expected[name]:
        raise SystemExit(
            f"{folder / name}: sha256 {found[:12]}…, META.json says {expected[name][:12]}…: nothing was written"
        )
    return gzip.decompress(raw) if name.endswith(".gz") else raw


def unique(pairs: Iterable[Pair], *, never: Iterable[str] = ()) -> list[Pair]:
    """Each sentence once; none whose key is in `never` or that occurs with two labels."""
    kept: dict[str, Pair] = {}
    labels: dict[str, set[str]] = defaultdict(set)
    for text, label in pairs:
        kept.setdefault(key(text), (clean(text), label))
        labels[key(text)].add(label)
    banned = set(never)
    return [pair for k, pair in kept.items() if k and k not in banned and len(labels[k]) == 1]


def draw(pairs: Iterable[Pair], per_class: int) -> dict[str, list[str]]:
    """`per_class` texts of each label (labels sorted), by the smallest sha256; too few is an error."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for text, label in pairs:
        by_label[label].append(text)
    drawn = {}
    for label in sorted(by_label):
        texts = sorted(by_label[label], key=lambda text: hashlib.sha256(text.encode()).hexdigest())
        if len(texts) < per_class:
            raise SystemExit(
                f"{label!r} has {len(texts)} usable sentences, {per_class} are wanted: nothing was written"
            )
        drawn[label] = texts[:per_class]
    return drawn


def banking77(folder: Path) -> tuple[list[dict[str, str]], set[str]]:
    """The sample's rows, and the keys of every sentence of the whole set."""
    parts: dict[str, list[Pair]] = {}
    for part in ("train", "test"):
        table = csv.DictReader(
            io.StringIO(read_verified(folder, f"{part}.csv.gz").decode("utf-8"), newline="")
        )
        parts[part] = [(row["text"], row["category"]) for row in table]
    train_keys = {key(text) for text, _ in parts["train"]}
    train = draw(unique(parts["train"]), BANKING_TRAIN)
    test = draw(unique(parts["test"], never=train_keys), BANKING_TEST)
    rows = [
        {"text": text, "label": label, "split": split}
        for label in train
        for split, drawn in (("train", train), ("test", test))
        for text in drawn[label]
    ]
    return rows, train_keys | {key(text) for text, _ in parts["test"]}


def clinc150(folder: Path, never: Iterable[str]) -> list[dict[str, str]]:
    """The sample's rows: all in-scope intents, from the training part."""
    full = json.loads(read_verified(folder, "data_full.json.gz"))
    domains = json.loads(read_verified(folder, "domains.json"))
    domain_of = {label: domain for domain, labels in domains.items() for label in labels}
    drawn = draw(unique(((text, label) for text, label in full["train"]), never=never), CLINC_PER_CLASS)
    return [
        {"text": text, "label": label, "domain": domain_of[label]}
        for label, texts in drawn.items()
        for text in texts
    ]


def abstracts(folder: Path, file: str, count: int) -> bytes:
    """So many whole documents of a PubTator file, by the smallest sha256 of their numbers."""
    documents = [part.strip("\n") for part in read_verified(folder, file).decode("utf-8").split("\n\n")]
    documents = [document for document in documents if document]
    if len(documents) < count:
        raise SystemExit(f"{file} has {len(documents)} abstracts, {count} are wanted: nothing was written")

    def place(document: str) -> str:
        return hashlib.sha256(document.partition("|")[0].encode()).hexdigest()

    return ("\n\n".join(sorted(documents, key=place)[:count]) + "\n").encode("utf-8")


def as_jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def provenance(
    name: str, content: bytes, counts: Mapping[str, int], folder: Path, taken: Collection[str]
) -> dict[str, Any]:
    meta = json.loads((folder / "META.json").read_text())
    return {
        "file": name,
        **counts,
        "sha256_unpacked": hashlib.sha256(content).hexdigest(),
        "licence": meta["licence"].split(" (")[0],
        "official_url": meta["official_url"],
        "sources": [
            {k: file[k] for k in ("source_repo", "source_commit", "source_path")}
            | {"sha256": file.get("uncompressed_sha256", file["sha256"])}
            for file in meta["files"]
            if file["file"] in taken
        ],
    }


def make(data: Path) -> dict[str, bytes]:
    """All files to bundle, by path below the output folder."""
    clinc_folder, banking_folder = data / "text" / "clinc150", data / "text" / "banking77"
    medicine = data / "linking" / "bc5cdr_el"
    for folder in (clinc_folder, banking_folder, medicine):
        if not (folder / "META.json").is_file():
            raise SystemExit(
                f"{folder} holds no META.json: --data must be the folder that holds text/clinc150 and linking/bc5cdr_el"
            )
    banking_rows, banking_keys = banking77(banking_folder)
    made = {
        "clinc150": (clinc150(clinc_folder, banking_keys), clinc_folder),
        "banking77": (banking_rows, banking_folder),
    }
    files: dict[str, bytes] = {}
    samples = []
    for name, (rows, folder) in made.items():
        content = as_jsonl(rows)
        files[f"{name}.jsonl.gz"] = gzip.compress(content, compresslevel=9, mtime=0)
        counts = {"rows": len(rows), "classes": len({row["label"] for row in rows})}
        taken = {"train.csv.gz", "test.csv.gz", "data_full.json.gz", "domains.json"}
        samples.append(provenance(f"{name}.jsonl.gz", content, counts, folder, taken))
    for part, (source, count) in ABSTRACTS.items():
        content, name = abstracts(medicine, source, count), f"bc5cdr_{part}.pubtator.gz"
        files[name] = gzip.compress(content, compresslevel=9, mtime=0)
        counts = {"rows": content.count(b"\n"), "documents": count}
        samples.append(provenance(name, content, counts, medicine, {source}))
    files["samples.json"] = (json.dumps(samples, indent=1, ensure_ascii=False) + "\n").encode("utf-8")
    files["licenses/CC-BY-3.0.txt"] = read_verified(clinc_folder, "LICENSE")
    files["licenses/CC-BY-4.0.txt"] = read_verified(banking_folder, "LICENSE")
    files["licenses/BC5CDR-README.txt"] = read_verified(medicine, "README_CDR.txt")
    return files


def unpacked(name: str, content: bytes) -> bytes:
    # Builds of zlib pack differently: what must be equal is the content.
    return gzip.decompress(content) if name.endswith(".gz") else content


def write(files: Mapping[str, bytes], out: Path) -> None:
    """Write every file, each whole or not at all."""
    for name, content in files.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("QUICKSTUDY_DATA"), help="folder that holds text/"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the samples differ")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("give --data FOLDER or set QUICKSTUDY_DATA")
    files = make(options.data)
    if options.check:
        differing = [
            name
            for name, content in files.items()
            if not (options.out / name).is_file()
            or unpacked(name, (options.out / name).read_bytes()) != unpacked(name, content)
        ]
        print(f"differ: {', '.join(differing)}" if differing else "the committed samples are reproduced")
        return bool(differing)
    write(files, options.out)
    for name, content in files.items():
        print(f"{options.out / name}  {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
