"""Reading the documents of a graph, as a function with plain arguments; what it finds goes into the file at once."""

import json
import os
import shlex
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import quickstudy
from quickstudy.app import kg_graph, threads
from quickstudy.app.kg_results import Extracted
from quickstudy.core.errors import DataError
from quickstudy.domains.kg import use
from quickstudy.domains.kg.graph.facts import Link
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.settle import REVIEW
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.linking import across
from quickstudy.domains.kg.linking import ranker as ranking
from quickstudy.domains.kg.linking.across import Merged
from quickstudy.domains.kg.linking.catalogue import Catalogue
from quickstudy.domains.kg.linking.ranker import Ranker
from quickstudy.domains.kg.use import GraphModel

ALONE = 40
"""With fewer documents than this, a second process isn't worth the seconds that it takes to begin."""
LOOK = 0.2
"""Seconds between two looks at what other processes have finished."""
PATIENCE = 5.0
"""Seconds that processes have to give back what they hold, before they are ended."""
Progress = Callable[[str, int, int], None]


def extract(
    store: str | Path,
    model: str | Path,
    documents: Sequence[str | Path] = (),
    *,
    text: str | None = None,
    id: str | None = None,
    bad: Any = "raise",
    catalogue: str | Path | None = None,
    rank: bool = True,
    merge: bool = True,
    again: bool = False,
    jobs: int | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Extracted:
    """Read all documents that wait in a graph, after adding those given; then say which entities are one.

    What was found in a document is kept at once, so it can be stopped at any time, and goes on when called again.

    Args:
        text, id, bad: of documents; see `kg_graph.add`.
        catalogue: a file of entities with ids that those of the graph are linked to; see `Catalogue.read`.
        rank: whether what names don't say is asked of a learned ranker; what it isn't sure of is for review.
        merge: whether entities are merged across documents by their names.
        again: read documents again that another model, or none that is known, has read; and those that failed.
        jobs: processes; by default as many as cores are free, one for a few documents.
        progress: is told a stage, how many documents are done, and of how many.

    Raises:
        DataError: a document or catalogue that can't be read, no such graph.
        CheckpointError: the folder holds no model.
        ModelError: the model's encoder isn't there, or isn't the one that it was learned with.
    """
    began = time.perf_counter()
    move = progress or (lambda *_: None)
    move("loading the model", 0, 0)
    learned = GraphModel.load(model)
    entries = None if catalogue is None else across.read_catalogue(catalogue)
    notes: list[str] = []
    if documents:
        move("adding documents", 0, 0)
        notes += kg_graph.add(store, documents, text=text, id=id, bad=bad).notes
    with kg_graph.opened(store) as graph:
        if again:
            graph.reopen(learned.version)
        waiting = graph.waiting()
        others = sum(
            count for version, count in kg_graph.status(graph).models.items() if version != learned.version
        )
        if others:
            notes.append(
                f"{others:,} documents were read by another model. --again reads them by this one; what reviewers "
                "decided stays."
            )
        many = 1 if waiting < ALONE and jobs is None else jobs or threads.free_cores()
        if many > 1 and waiting:
            done = _in_processes(graph, model, min(many, waiting), batch, waiting, move)
        else:
            done = _here(graph, learned, batch, waiting, move)
        move("merging entities", 0, 0)
        merged = Merged(0, 0, 0)
        if merge or entries is not None:
            ask = None if entries is None or not rank else _ranking(graph, learned, entries, notes, move)
            merged = across.settle(graph, entries, merge=merge, rank=ask, precision=learned.precision)
        place, counts = shlex.quote(str(store)), graph.counts()
        if (
            done["done"]
            and counts["triples review"]
            and not counts["triples extracted"] + counts["triples accepted"]
        ):
            notes.append(_none_sure(graph, learned.precision))
        review = [f"quickstudy kg review {place}"] if counts["triples review"] or merged.suggested else []
        return Extracted(
            str(store), learned.version, done["done"], done["failed"], *merged, counts, notes,
            time.perf_counter() - began, [f"quickstudy kg show {place}", *review],
        )  # fmt: skip


def _none_sure(graph: GraphStore, precision: float) -> str:
    """What to do about a graph of which nothing was sure enough."""
    [(most,)] = graph.rows("SELECT max(score) FROM triples WHERE status = ?", (REVIEW,))
    return (
        f"no triple is as sure as this model asks, {precision:g}: the surest is at {most:.2f}, and all wait for a "
        "reviewer. Few labels make no sure model: label more, review, or learn again with --precision 0.5, say, and "
        "extract with --again."
    )


def _ranking(
    graph: GraphStore, model: GraphModel, catalogue: Catalogue, notes: list[str], move: Progress
) -> Callable[[Sequence[Entity]], list[Link]] | None:
    ranker = Ranker.shipped(
        catalogue, model.recogniser.encoder, model.examples, graph, precision=model.precision, seed=model.seed
    )
    if ranker is None:
        notes.append(
            "entities were linked by their names alone: the ranker that comes with quickstudy was learned on another "
            "encoder than the model."
        )
        return None
    return partial(ranking.settle, graph, ranker, progress=partial(move, "linking names"))


def _here(graph: GraphStore, model: GraphModel, batch: int, waiting: int, move: Progress) -> Counter[str]:
    finished = 0

    def told(count: int) -> None:
        nonlocal finished
        finished += count
        move("reading documents", finished, waiting)

    move("reading documents", 0, waiting)
    return use.extract(graph, model, batch=batch, progress=told)


def _in_processes(
    graph: GraphStore, model: str | Path, jobs: int, batch: int, waiting: int, move: Progress
) -> Counter[str]:
    """Read in `jobs` processes, each on one core; they take documents from the file, so none needs to know another."""
    package = str(Path(quickstudy.__file__).parents[1])
    paths = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH")) if part)
    env = os.environ | dict.fromkeys(threads.VARIABLES, "1") | {"PYTHONPATH": paths}
    command = [sys.executable, "-m", "quickstudy.app.kg_worker", str(graph.path), str(model), str(batch)]
    workers = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(jobs)
    ]
    try:
        while any(worker.poll() is None for worker in workers):
            move("reading documents", waiting - graph.waiting(), waiting)
            time.sleep(LOOK)
    finally:  # Ctrl-C reaches them too, where it is typed in a terminal
        _end(workers)
    done: Counter[str] = Counter()
    problems = []
    for worker in workers:
        told = worker.stdout.read() if worker.stdout else ""
        if worker.stdout:
            worker.stdout.close()
        said = json.loads(told) if told.strip() else {"problem": f"a process ended with {worker.returncode}"}
        if "problem" in said:
            problems.append(said["problem"])
        else:
            done.update(said)
    if problems and len(problems) == len(workers):
        raise DataError(problems[0], file=graph.path)
    if problems:
        warnings.warn(
            f"One process of {jobs} stopped, others went on: {problems[0]}", UserWarning, stacklevel=2
        )
    return done


def _end(workers: Sequence[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        if worker.poll() is None:
            worker.terminate() if time.monotonic() > deadline else _wait(worker, deadline)


def _wait(worker: subprocess.Popen[str], deadline: float) -> None:
    try:
        worker.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        worker.terminate()
        worker.wait()
