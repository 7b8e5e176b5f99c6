"""kg.12: how fast a graph model reads text that nobody labelled, on one core, and what memory 100,000 sentences take.

    python kg_speed.py job.json result.json           a process of its own, so that its memory is its own

Documents are those of MedQuAD (answers of US health institutes), TAT-QA (annual reports) and the code of the District
of Columbia, one of each in turn, and again from the start where more sentences are asked for. They go through
`extract`: into a store, split, encoded, recognised, related and written.
"""

import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from quickstudy.domains.kg.document import Document, sentences

BATCH = 48
"""Documents that are put into the store and extracted before memory is looked at."""


def texts(data: Path) -> Iterator[str]:
    """Documents of three fields in turn, each from its start again when it has ended."""
    fields = [_again(of, data / "corpora") for of in (_answers, _reports, _sections)]
    while True:
        for field in fields:
            yield next(field)


def _again(of: Callable[[Path], Iterator[str]], folder: Path) -> Iterator[str]:
    while True:
        yield from (text for text in of(folder) if text.strip())


def _answers(folder: Path) -> Iterator[str]:
    for line in _lines(folder / "medicine_medquad/medquad_4sources.jsonl.gz"):
        yield from (one["answer"] for one in json.loads(line)["qa"])


def _reports(folder: Path) -> Iterator[str]:
    [whole] = _lines(folder / "finance_tatqa/tatqa_dataset_dev.json.gz", whole=True)
    for one in json.loads(whole):
        yield "\n\n".join(part["text"] for part in one["paragraphs"])


def _sections(folder: Path) -> Iterator[str]:
    for line in _lines(folder / "law_dc_code/dc_code_28_31.jsonl.gz"):
        yield str(json.loads(line).get("text") or "")


def _lines(path: Path, whole: bool = False) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from [file.read()] if whole else file


def resident() -> float:
    """Megabytes that this process holds now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """job: {"data", "model": folder, "store": file, "sentences": how many, "threads"}."""
    import torch

    from quickstudy.domains.kg.graph.store import GraphStore
    from quickstudy.domains.kg.use import GraphModel, extract
    from quickstudy.encoders.text import load_encoder

    torch.set_num_threads(job["threads"])
    model = GraphModel.load(job["model"], load_encoder("minilm", cache=False))
    source, read, number = texts(Path(job["data"])), 0, 0
    seconds, cpu, memory = 0.0, 0.0, []
    with GraphStore(job["store"]) as store:
        while read < job["sentences"]:
            batch = [Document(str(number + i), text) for i, text in enumerate(islice(source, BATCH))]
            number += len(batch)
            begun = time.perf_counter(), time.process_time()
            store.put_all(batch)
            extract(store, model)
            seconds += time.perf_counter() - begun[0]
            cpu += time.process_time() - begun[1]
            read += sum(sum(1 for _ in sentences(one.text)) for one in batch)
            memory.append([read, round(resident(), 1)])
        counts = store.counts()
    return {
        "sentences": read,
        "documents": number,
        "seconds": seconds,
        "cpu": cpu,
        "memory": memory,
        "counts": counts,
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))
