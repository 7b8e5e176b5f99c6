"""A graph pipeline of spaCy's own parts, trained on a few labelled sentences. A program of its own: it needs spaCy and
scikit-learn, and no quickstudy.

    python spacy_run.py job.json result.json

job: {"train": [{"text", "spans": [[start, end, type]], "relations": [[head, tail, type]]}], "test": [text],
"admitted": {relation: [head types, tail types]}, "pretrained": name of a package of spaCy's weights or "", "passes",
"dropout", "penalty": inverse, of the regression, "lexical": whether the words between count as features, "seed"}
result: {"answers": [{"spans", "relations": [[head, tail, type, probability]]}], "left_out": spans that don't fall on
spaCy's tokens, "train_seconds", "seconds", "versions"}

Entities: spaCy's `ner` (transition-based, tok2vec of hash embeddings and convolutions), its tok2vec started from a
pretrained package where one is named. Relations as in spaCy's tutorial `rel_component`: of each pair of entities whose
types a relation admits, the mean tok2vec states of head and tail, here with those of the words between and the types
beside them, go into a classifier; it is logistic regression over the relations and none.
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any


def pipeline(job: dict[str, Any]) -> tuple[Any, int]:
    """The trained entity recogniser, and how many labelled spans it couldn't be shown."""
    import spacy
    from spacy.training import Example
    from spacy.util import filter_spans, fix_random_seed

    fix_random_seed(job["seed"])
    nlp = spacy.blank("en")
    config, known = {}, None
    if job["pretrained"]:
        base = spacy.load(job["pretrained"], exclude=["tagger", "parser", "lemmatizer", "attribute_ruler"])
        config = {"model": base.config["components"]["ner"]["model"]}
        known = base.get_pipe("ner").model.get_ref("tok2vec").to_bytes()
    ner = nlp.add_pipe("ner", config=config)
    examples, lost = [], 0
    for one in job["train"]:
        doc, gold = nlp.make_doc(one["text"]), nlp.make_doc(one["text"])
        spans = [gold.char_span(a, b, kind) for a, b, kind in one["spans"]]
        kept = filter_spans([span for span in spans if span is not None])
        lost += len(spans) - len(kept)
        gold.set_ents(kept)
        examples.append(Example(doc, gold))
    nlp.initialize(lambda: examples)
    if known is not None:
        ner.model.get_ref("tok2vec").from_bytes(known)
    optimizer = nlp.create_optimizer()
    rng = random.Random(job["seed"])
    for _ in range(job["passes"]):
        rng.shuffle(examples)
        for batch in spacy.util.minibatch(examples, size=8):
            nlp.update(batch, drop=job["dropout"], sgd=optimizer)
    return nlp, lost


def vectors(nlp: Any, docs: list[Any]) -> list[Any]:
    """The recogniser's states of each text's tokens: an array [token, state]."""
    tok2vec = nlp.get_pipe("ner").model.get_ref("tok2vec")
    return [tok2vec.predict([doc]) if len(doc) else None for doc in docs]


def pairs(spans: list[Any], admitted: dict[str, Any]) -> list[tuple[int, int]]:
    """Ordered pairs of entities (first token, last + 1, type) that some relation admits and that don't overlap."""
    return [
        (i, j)
        for i, a in enumerate(spans)
        for j, b in enumerate(spans)
        if (a[1] <= b[0] or b[1] <= a[0])
        and any((not h or a[2] in h) and (not t or b[2] in t) for h, t in admitted.values())
    ]


def features(doc: Any, state: Any, head: Any, tail: Any, kinds: list[str], lexical: bool) -> dict[str, float]:
    """What the classifier sees of a pair."""
    left, right = sorted((head, tail))
    between = range(left[1], right[0])
    found = {
        f"head {kinds.index(head[2])}": 1.0,
        f"tail {kinds.index(tail[2])}": 1.0,
        "order": float(head < tail),
    }
    for name, rows in (("h", range(head[0], head[1])), ("t", range(tail[0], tail[1])), ("b", between)):
        if len(rows):
            mean = state[list(rows)].mean(0)
            found |= {f"{name}{i}": float(v) for i, v in enumerate(mean)}
    if lexical:
        found |= {f"word {doc[i].lower_} {head < tail}": 1.0 for i in between}
    found["apart"] = min(len(between), 20) / 20
    return found


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train and answer as the job says."""
    import sklearn
    import spacy
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    begun, admitted = time.process_time(), job["admitted"]
    nlp, lost = pipeline(job)
    kinds = sorted({kind for one in job["train"] for _, _, kind in one["spans"]})
    rows, labels = [], []
    docs = [nlp.make_doc(one["text"]) for one in job["train"]]
    for one, doc, state in zip(job["train"], docs, vectors(nlp, docs), strict=True):
        found = [doc.char_span(a, b, alignment_mode="expand") for a, b, _ in one["spans"]]
        spans = [(s.start, s.end, kind) for s, (_, _, kind) in zip(found, one["spans"], strict=True)]
        said = {(head, tail): kind for head, tail, kind in one["relations"]}
        for head, tail in pairs(spans, admitted):
            rows.append(features(doc, state, spans[head], spans[tail], kinds, job["lexical"]))
            labels.append(said.get((head, tail), ""))
    model = None
    if len(set(labels)) > 1:
        regression = LogisticRegression(C=job["penalty"], max_iter=500)
        model = make_pipeline(DictVectorizer(), MaxAbsScaler(), regression).fit(rows, labels)
    trained = time.process_time() - begun
    begun, answers = time.process_time(), []
    docs = list(nlp.pipe(job["test"], batch_size=64))
    for doc, state in zip(docs, vectors(nlp, docs), strict=True):
        spans = [(e.start, e.end, e.label_) for e in doc.ents]
        relations = []
        places = pairs(spans, admitted) if model is not None else []
        if places and model is not None:
            asked = [features(doc, state, spans[h], spans[t], kinds, job["lexical"]) for h, t in places]
            for (head, tail), row in zip(places, model.predict_proba(asked), strict=True):
                for kind, p in zip(model.classes_, row, strict=True):
                    if kind and _fits(admitted[kind], spans[head][2], spans[tail][2]):
                        relations.append([head, tail, str(kind), float(p)])
        answers.append({
            "spans": [[e.start_char, e.end_char, e.label_] for e in doc.ents], "relations": relations,
        })  # fmt: skip
    return {
        "answers": answers, "left_out": lost, "train_seconds": trained, "seconds": time.process_time() - begun,
        "versions": {"spacy": spacy.__version__, "scikit-learn": sklearn.__version__},
    }  # fmt: skip


def _fits(ends: list[list[str]], head: str, tail: str) -> bool:
    return all(not kinds or kind in kinds for kinds, kind in zip(ends, (head, tail), strict=True))


if __name__ == "__main__":
    given, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(run(json.loads(given.read_text()))))
