"""What makes a graph better, as functions with plain arguments and results: ask, learn again, judge, explain, draw.

The command line calls them, and so do service and studio.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from quickstudy.app import kg_graph
from quickstudy.app.kg_results import Drawn, Evaluated, Explained, Relearnt, Reviewed
from quickstudy.core import atomic
from quickstudy.core.atomic import folder_for
from quickstudy.core.errors import DataError, QuickstudyError, did_you_mean
from quickstudy.core.report import listed
from quickstudy.core.untrusted import harmless
from quickstudy.domains.kg.document import Annotated
from quickstudy.domains.kg.graph.records import Said, Triple
from quickstudy.domains.kg.learning import draw as drawing
from quickstudy.domains.kg.learning.curve import SHOTS, Curve, Point, curve, measure, picture
from quickstudy.domains.kg.learning.evaluate import evaluate as judge
from quickstudy.domains.kg.learning.evaluate import frozen as without_experience
from quickstudy.domains.kg.learning.evaluate import report
from quickstudy.domains.kg.learning.explain import Explanation
from quickstudy.domains.kg.learning.explain import explain as told
from quickstudy.domains.kg.learning.labels import measured
from quickstudy.domains.kg.learning.queue import KINDS, Item, queue, waiting
from quickstudy.domains.kg.learning.relearn import relearn as learn_again
from quickstudy.domains.kg.learning.review import Reviewing, run
from quickstudy.domains.kg.linking.across import ByName, read_catalogue
from quickstudy.domains.kg.linking.ranker import Ranker
from quickstudy.domains.kg.reading.examples import read_annotated
from quickstudy.domains.kg.use import EXAMPLES, GraphModel

Progress = Callable[[str, int, int], None]
MOST = 3
"""Examples for and against, bonds and paths that an explanation shows in a terminal."""
LEAST = 0.05
"""An effect, in log-odds, that is worth a line there."""


def review(
    store: kg_graph.Graph,
    answers: Iterator[str],
    say: Callable[[str], None],
    *,
    model: str | Path | None = None,
    most: int = 20,
    kinds: Sequence[str] = KINDS,
    by: str = "",
    seed: int = 0,
) -> Reviewed:
    """Ask a reviewer, and write each answer as it comes.

    Args:
        answers: lines; their end is the end of the review.
        say: shows questions and remarks.
        model: whose schema names types and relations, and which explains; without it, those of the graph.
        most: questions.
        kinds: of `queue.KINDS`.
        by: who answers.

    Raises:
        DataError: no such graph, an unknown kind, answers none of which can be taken.
        CheckpointError: no such model.
    """
    known = None if model is None else GraphModel.load(model)
    with kg_graph.opened(store) as graph:
        types, relations = _named(graph, known)
        labelled: dict[str, int] = {}
        for one in () if known is None else known.examples:
            for relation in one.relations:
                labelled[relation.type] = labelled.get(relation.type, 0) + 1
        items = queue(graph, most=most, labelled=labelled, kinds=kinds, seed=seed)

        def why(item: Item) -> str:
            what = item.what
            if item.kind not in ("statement", "proposal"):
                return "there is nothing to explain here"
            triple = what if isinstance(what, Triple) else None
            if isinstance(what, Said):
                at = {(m.start, m.end): m.entity for m in graph.mentions(what.document)}
                ends = [at.get((end.start, end.end)) for end in (what.head, what.tail)]
                triple = graph.triple(ends[0], what.relation, ends[1]) if ends[0] and ends[1] else None
            return "\n".join(lines(told(graph, triple, known))) if triple else "it has changed meanwhile"

        schema = None if known is None else known.schema
        reviewing = Reviewing(graph, types, relations, by, why if known is not None else None, schema)
        counts = run(reviewing, items, answers, say)
        if reviewing.refused and not counts:
            raise DataError(
                f"none of {reviewing.refused} answers could be taken; `?` lists what can be answered."
            )
        place = shlex.quote(str(graph.path))
        named = "MODEL" if model is None else shlex.quote(str(model))
        next_ = (
            [f"quickstudy kg relearn {place} --model {named} --to {named}-2"] if any(counts.values()) else []
        )
        return Reviewed(str(graph.path), len(items), counts, waiting(graph), measured(graph), next_)


def _named(graph: kg_graph.GraphStore, model: GraphModel | None) -> tuple[list[str], list[str]]:
    """Types and relations that an answer may name."""
    if model is not None:
        return list(model.schema.entities), list(model.schema.relations)
    types = [graph.named(n) for (n,) in graph.rows("SELECT DISTINCT type FROM entities")]
    relations = [graph.named(n) for (n,) in graph.rows("SELECT DISTINCT relation FROM triples")]
    return sorted(types), sorted(relations)


def relearn(
    store: kg_graph.Graph,
    model: str | Path,
    to: str | Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Relearnt:
    """Learn again with what was decided in a graph, and save the model; where it would be worse, nothing is saved.

    Raises:
        DataError: no decision says anything of a sentence, or the old model's own folder was given.
        CheckpointError: no such model.
    """
    began = time.perf_counter()
    move = progress or (lambda *_: None)
    if folder_for(to, EXAMPLES).exists() and Path(model).exists() and Path(to).samefile(model):
        raise DataError("the old model; it stays, to go back to: choose another folder.", file=to)
    old = GraphModel.load(model)
    move("learning again", 0, 0)
    with kg_graph.opened(store) as graph:
        again = learn_again(old, graph, seed=seed, progress=lambda step, _: move("learning again", step, 0))
        place = shlex.quote(str(graph.path))
    if again.kept:
        again.model.save(to)
    return Relearnt(
        str(to) if again.kept else "", again.model.version, again.kept, again.taught, again.drawn, again.lost,
        again.gain, again.before, again.answers, time.perf_counter() - began,
        [f"quickstudy kg extract {place} --model {shlex.quote(str(to))} --again"] if again.kept else [],
    )  # fmt: skip


def evaluate(
    model: str | Path,
    gold: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    catalogue: str | Path | None = None,
    frozen: bool = True,
    forecast: bool = False,
    more: int = 5,
    draws: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluated:
    """Judge a model on labelled documents that it hasn't seen.

    Args:
        gold: files with labels.
        out: folder for report.json, report.md, report.png and evaluation.json.
        catalogue: link what is found to it, as `extract` does, and judge the ids that labels have.
        frozen: judge beside it what the same examples teach the encoder without any experience.
        forecast: learn from fewer of its examples too, and say what `more` of each type would buy.
        draws: of examples, for each number of them.

    Raises:
        DataError: what is wrong with the labels, documents that the model was learned from, a catalogue of which no
            label has an id.
        CheckpointError: no such model.
    """
    began = time.perf_counter()
    move = progress or (lambda *_: None)
    ours = GraphModel.load(model)
    truth = [one for path in gold for one in read_annotated(path, ours.schema)]
    link = None
    if catalogue is not None:
        entries = read_catalogue(catalogue)
        ranker = Ranker.shipped(
            entries, ours.recogniser.encoder, ours.examples, precision=ours.precision, seed=ours.seed
        )
        known = ByName(entries) if ranker is None else ranker.names
        truth = [
            replace(one, links={i: known.ids.get(id, id) for i, id in one.links.items()}) for one in truth
        ]
        if not any(id in known.ids for one in truth for id in one.links.values()):
            raise DataError("no label has an id of this catalogue, so links can't be judged.", file=catalogue)
        link = partial((ranker or known).of, types=ours.schema.entities)
    rows = {}
    done = 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        move("reading", done, len(truth) * (1 + frozen))

    rows["this model"] = judge(ours, truth, link=link, seed=seed, progress=moved)
    if frozen:
        move("learning without experience", 0, 0)
        bare = without_experience(ours, seed)
        rows["frozen encoder"] = judge(bare, truth, link=link, seed=seed, progress=moved)
    made = report(
        rows, title=f"A graph of {ours.schema.name}", baselines=["frozen encoder"], documents=len(truth)
    )
    made.seeds = [seed]
    curves: list[Curve] = []
    points: list[Point] = []
    if forecast:
        points = _measured(ours, truth, draws, seed, move)
        curves = [curve(points, what) for what in ("triples", "entities") if _has(points, what)]
    files: list[str] = []
    if out is not None:
        files = [str(path) for path in made.save(out)]
        told_of = {name: one.to_json() for name, one in rows.items()} | {
            "points": [_plain(p) for p in points]
        }
        written = {"evaluation.json": json.dumps(told_of, indent=1, ensure_ascii=False).encode() + b"\n"}
        if curves:
            written["curve.png"] = picture(curves, more=more)
        for name, data in written.items():
            write(Path(out) / name, data)
            files.append(str(Path(out) / name))
    return Evaluated(
        rows["this model"].to_json(),
        made,
        {one.what: one.forecast(more) for one in curves},
        files,
        time.perf_counter() - began,
    )


def _measured(
    model: GraphModel, truth: Sequence[Annotated], draws: int, seed: int, move: Progress
) -> list[Point]:
    def learned(examples: Sequence[Annotated]) -> GraphModel:
        return GraphModel.learn(
            examples, model.schema, model.recogniser.encoder, prior=model.recogniser.past,
            relation_prior=model.relation_prior, precision=model.precision, across=model.across, seed=seed,
        )  # fmt: skip

    return measure(
        model.examples, truth, learned, shots=SHOTS, draws=draws, seed=seed,
        progress=lambda done, of: move("learning from fewer", done, of),
    )  # fmt: skip


def _has(points: Sequence[Point], what: str) -> bool:
    return len(points) >= 3 and any(sum(point.scores[what]) for point in points)


def _plain(point: Point) -> dict:
    return {"shots": point.shots, "examples": point.examples} | {k: list(v) for k, v in point.scores.items()}


def explain(
    store: kg_graph.Graph, triple: tuple[str, str, str], *, model: str | Path | None = None, most: int = 3
) -> Explained:
    """Say why a triple is in a graph: its sentences, on which labelled examples it rests, what holds its ends together.

    Raises:
        DataError: the graph has no such triple.
        CheckpointError: no such model.
    """
    known = None if model is None else GraphModel.load(model)
    with kg_graph.opened(store) as graph:
        ends = kg_graph.entity(graph, triple[0]), kg_graph.entity(graph, triple[2])
        found = told(graph, (ends[0], triple[1], ends[1]), known, most=most)
    return Explained(found, None if known is None else known.version, lines(found))


def draw(
    store: kg_graph.Graph,
    entity: str,
    to: str | Path,
    *,
    hops: int = 1,
    most: int = 24,
    status: Sequence[str] = drawing.SHOWN,
    seed: int = 0,
) -> Drawn:
    """Draw the neighbourhood of an entity as .svg, .png or .html.

    Raises:
        DataError: no such entity, or a file of another kind.
        MissingExtra: a PNG without matplotlib.
    """
    path = Path(to)
    kind = path.suffix.lower()
    if kind not in (".svg", ".png", ".html"):
        raise DataError(
            f"a picture is .svg, .png or .html; this is {kind or 'a file without suffix'}."
            f"{did_you_mean(kind, ['.svg', '.png', '.html'])}",
            file=path,
        )
    with kg_graph.opened(store) as graph:
        made = drawing.neighbourhood(
            graph, kg_graph.entity(graph, entity), hops=hops, most=most, status=status, seed=seed
        )
    data = made.png() if kind == ".png" else made.svg() if kind == ".svg" else made.html()
    write(path, data)
    return Drawn(str(path), len(made.nodes), len(made.edges), made.left_out)


def lines(found: Explanation) -> list[str]:
    """An explanation in lines, for a terminal."""
    triple = found.triple
    score = "" if triple.score is None else f", {triple.score:.2f}"
    out = [f"{triple.head.name} —{triple.relation}→ {triple.tail.name}   ({triple.status}{score})"]
    for one in found.sentences:
        out += [
            "",
            f"  “{' '.join(marks(one.said).split())}”",
            f"  {one.said.document}, found by model {one.said.model}",
        ]
        if one.probability is None:
            continue
        out.append(f"  The model at hand: {one.probability:.2f} that it is so, by this sentence.")
        rests = one.rests_on
        if rests:
            out.append(f"  It rests on example{'s' if len(rests) > 1 else ''} {listed([str(n) for n in rests])}: "
                       "without one of them it would go to review.")  # fmt: skip
        for name, some in (
            ("for it", [s for s in one.spoke if s.effect > LEAST]),
            ("against", [s for s in one.spoke if s.effect < -LEAST]),
        ):
            for spoke in some[:MOST]:
                effect = (
                    "the only one of its kind" if spoke.effect == float("inf") else f"{spoke.effect:+.2f}"
                )
                says = spoke.says or "unrelated"
                out.append(
                    f"    {name}: example {spoke.example} ({spoke.id}), {effect}, {says}: {_short(spoke.text)}"
                )
    for name, bonds in (("head", found.head), ("tail", found.tail)):
        for bond in bonds[:MOST]:
            sign = "is" if bond.together else "is not"
            why = f": {bond.why}" if bond.why else ""
            out.append(f"  {name}: {bond.one} {sign} {bond.other} ({bond.score:.2f}, {bond.by}{why})")
    for one in found.inferred:
        out.append(f"  inferred by {one.model} with {one.score:.2f}: {one.why or 'no reason given'}")
    for path in found.paths[:MOST]:
        out.append("  beside it: " + ", ".join(f"{t.head.name} —{t.relation}→ {t.tail.name}" for t in path))
    return [harmless(line) for line in [*out, *(f"  {one}" for one in found.decisions)]]


def marks(said: Said) -> str:
    """The sentence of a triple, its two names in brackets."""
    base, text, at = said.sentence.start, said.sentence.text, 0
    parts: list[str] = []
    for start, end in sorted((end.start - base, end.end - base) for end in (said.head, said.tail)):
        if start >= at:
            parts += [text[at:start], "[", text[start:end], "]"]
            at = end
    return "".join([*parts, text[at:]])


def _short(text: str, most: int = 160) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1] + "…"


def answers_of(path: Path) -> Iterator[str]:
    """The lines of a file of answers. Raises DataError where there is none."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}.", file=path) from None
    with closing(file):
        yield from file


def write(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all, and its folder. Raises QuickstudyError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_file(path, data)
    except OSError as error:
        raise QuickstudyError(atomic.write_problem(error, path, len(data))) from error
