"""The graph demo: from a few labelled abstracts to a graph of others, and how good it is.

Everything comes with the package: abstracts of BC5CDR (chemicals, diseases, which chemical brings on which disease) and
what past corpora and relations taught. None of these corpora is BC5CDR.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from quickstudy.app import kg_review
from quickstudy.app.kg_results import KgDemonstrated
from quickstudy.data import abstracts
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.graph.records import Triple
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.draw import neighbourhood
from quickstudy.domains.kg.learning.evaluate import BY_PLACE, REVIEWED, evaluate, frozen, report
from quickstudy.domains.kg.learning.explain import explain
from quickstudy.domains.kg.learning.queue import waiting
from quickstudy.domains.kg.reading.examples import read_annotated
from quickstudy.domains.kg.schema import Schema
from quickstudy.domains.kg.use import GraphModel, extract
from quickstudy.encoders.text import TextEncoder, load_encoder

EXAMPLES, TEXTS = 10, 30
"""Labelled abstracts to learn from, and others to read."""
PRECISION = 0.7
"""Triples at least so probable are asserted. Few examples bear no more: at .9 hardly any would be."""
SCHEMA = """\
# What the graph is made of. CID: chemical-induced disease, as BC5CDR calls it.
name: side effects
entities:
  Chemical: a drug or another chemical substance
  Disease: a disease, a symptom or a side effect
relations:
  CID:
    head: Chemical
    tail: Disease
    description: the chemical brings on the disease
"""


def demo(
    folder: str | Path, *, seed: int = 0, progress: Callable[[str, int, int], None] | None = None
) -> KgDemonstrated:
    """Learn from ten labelled abstracts, read thirty others into a graph, and judge it by their labels.

    Relations are placed by names in the thirty, as those of a user would be; by none of their labels.

    The folder then holds schema, labelled and read abstracts, model, graph, report and pictures, to go on with.

    Args:
        progress: is told a stage, how much is done, and of how much.

    Raises:
        QuickstudyError: the folder can't be written.
        ModelError: the encoder's weights aren't installed.
    """
    began = time.perf_counter()
    move = progress or (lambda *_: None)
    folder = Path(folder)
    files = _files(folder)
    schema = Schema.read(files["schema.yaml"])
    examples = list(read_annotated(files["labelled.pubtator"], schema))
    truth = list(read_annotated(files["others.pubtator"], schema))
    encoder = load_encoder("minilm")
    assert isinstance(encoder, TextEncoder)
    move("learning from ten abstracts", 0, 0)
    model = GraphModel.learn(
        examples, schema, encoder, documents=[one.document for one in truth], precision=PRECISION, seed=seed,
        progress=lambda step, _: move("learning from ten abstracts", step, 0),
    )  # fmt: skip
    model.save(folder / "model")
    graph = folder / "graph.db"
    for old in (graph, graph.with_name("graph.db-wal"), graph.with_name("graph.db-shm")):
        old.unlink(missing_ok=True)
    with GraphStore(graph) as store:
        store.put_all(one.document for one in truth)
        done = 0

        def read(count: int) -> None:
            nonlocal done
            done += count
            move("reading thirty others", done, TEXTS)

        extract(store, model, progress=read)
        move("judging by the labels of the thirty", 0, 0)
        rows = {"this graph": evaluate(model, truth, seed=seed)}
        move("the same without experience", 0, 0)
        rows["frozen encoder"] = evaluate(frozen(model, seed), truth, seed=seed)
        made = report(
            rows, title="Side effects from ten labelled abstracts", baselines=["frozen encoder"], triples=REVIEWED,
            learned=f"{EXAMPLES} abstracts of BC5CDR's training part; relations placed by pairs of names in the "
            "others, without their labels",
            judged=f"{TEXTS} abstracts of its development part (US Government work)",
            command=f"quickstudy kg demo --seed {seed}",
        )  # fmt: skip
        made.seeds = [seed]
        shown = _surest(store)
        told = ["No triple was sure enough."]
        if shown:
            told = [*kg_review.lines(explain(store, shown, model, most=1)), _labels_say(store, shown, truth)]
        drawn = []
        if shown:
            picture = neighbourhood(store, shown.head, hops=2, most=18, seed=seed)
            kg_review.write(folder / "neighbourhood.html", picture.html())
            drawn = ["neighbourhood.html"]
        counts, waits = store.counts(), waiting(store)
    saved = [Path(path).name for path in made.save(folder, picture=_plots())]
    one = rows["this graph"]
    return KgDemonstrated(
        str(folder), made, one.to_json(), one.triples[BY_PLACE].f1,
        counts, waits, told, [*files, "model", "graph.db", *drawn, *saved], time.perf_counter() - began,
        _next(folder, shown),
    )  # fmt: skip


def _files(folder: Path) -> dict[str, Path]:
    """What the demo works on, written where a person can look at it and go on with it."""
    learn, read = (abstracts(part).strip().split("\n\n") for part in ("learn", "read"))
    texts = {
        "schema.yaml": SCHEMA,
        "labelled.pubtator": "\n\n".join(learn[:EXAMPLES]) + "\n",
        "others.pubtator": "\n\n".join(read[:TEXTS]) + "\n",
    }
    for name, text in texts.items():
        kg_review.write(folder / name, text)
    return {name: folder / name for name in texts}


def _surest(store: GraphStore) -> Triple | None:
    """The surest asserted triple, of whatever there is."""
    for status in ("extracted", "review"):
        found = sorted(
            store.triples(status=(status,)), key=lambda one: (-(one.score or 0), one.head, one.tail)
        )
        if found:
            return found[0]
    return None


def _labels_say(store: GraphStore, triple: Triple, truth: Sequence[Annotated]) -> str:
    """Whether people labelled the triple's best sentence so."""
    said = store.said(triple)[0]
    one = next(one for one in truth if one.document.id == said.document)
    labelled = {(one.spans[r.head][:2], r.type, one.spans[r.tail][:2]) for r in one.relations}
    ends = (said.head.start, said.head.end), (said.tail.start, said.tail.end)
    right = (ends[0], said.relation, ends[1]) in labelled
    return f"  The abstract's own labels, which the model hasn't seen: {'so it is' if right else 'it is not so'}."


def _plots() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def _next(folder: Path, shown: Triple | None) -> list[str]:
    place, model = (shlex.quote(str(folder / name)) for name in ("graph.db", "model"))
    commands = [f"quickstudy kg review {place} --model {model}"]
    if shown:
        head, tail = (shlex.quote(end.name) for end in (shown.head, shown.tail))
        commands += [
            f"quickstudy kg show {place} {head}",
            f"quickstudy kg explain {place} {head} {shown.relation} {tail} --model {model}",
        ]
    return [*commands, "quickstudy kg new my-field.yaml     # and the same for documents of your own"]
