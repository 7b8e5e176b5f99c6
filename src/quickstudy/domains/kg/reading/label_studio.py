"""Label Studio's exports, JSON and JSON-MIN: results of the types labels and relation.

Its offsets count as JavaScript does, where a sign beyond U+FFFF (an emoji) is two; those that only fit the words beside
them when it counts as one are taken so. Tasks without an annotation are left out; of several, the one marked as ground
truth counts.
"""

from functools import partial
from pathlib import Path
from typing import Any

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Annotated, Relation, Span
from quickstudy.domains.kg.reading.rows import (
    LeftOut,
    Notes,
    Rows,
    as_list,
    as_object,
    document,
    one_each,
    part,
)
from quickstudy.files.source import quoted, shortened


def rows(path: Path, notes: Notes) -> Rows:
    """Read as the module's docstring says."""
    return one_each(path, partial(_annotated, notes=notes))


def _annotated(path: Path, row: int, value: Any, notes: Notes) -> Annotated:
    task = as_object(value, 'a task such as {"data": {"text": "…"}, "annotations": […]}')
    if "data" not in task:  # JSON-MIN: the data's keys, and those of the labelling's controls
        label = task.get("label", task.get("labels"))
        regions = as_list(
            label, "a list of regions, as JSON-MIN has them; if it was choices, there are no spans here"
        )
        results = [
            {"type": "labels", "id": str(i), "value": region, "to_name": "text"}
            for i, region in enumerate(regions)
        ]
        doc = document(path, row, task.get("text"), task.get("id"))
    else:
        results = as_list(_one(task).get("result"), "a list of results")
        doc = document(path, row, _text(as_object(task["data"], "an object of data")), task.get("id"))
    spans: list[Span] = []
    number: dict[str, list[int]] = {}
    for result in results:
        result = as_object(result, "a result")
        kind = result.get("type")
        if kind == "labels":
            name = part(result, "id", str, "a result")
            found = _regions(doc.text, as_object(result.get("value"), "a value with start, end and labels"))
            number[name] = list(range(len(spans), len(spans) + len(found)))
            spans += found
        elif kind in ("hypertextlabels", "paragraphlabels"):
            raise DataError(
                f"labelled as {kind}, whose offsets are those of a page's parts, not of a text. Label it as Text."
            )
        elif kind != "relation":
            notes[f"result of the type {kind!r} passed over"] += 1
    relations: list[Relation] = []
    for result in results:
        if result.get("type") == "relation":
            relations += _relations(result, number)
    return Annotated(doc, tuple(spans), tuple(relations))


def _one(task: dict[str, Any]) -> dict[str, Any]:
    given = as_list(task.get("annotations", task.get("completions")), "a list of annotations")
    valid = [as_object(item, "an annotation") for item in given]
    valid = [item for item in valid if not item.get("was_cancelled")]
    if not valid:
        raise LeftOut("no annotation")
    chosen = [item for item in valid if item.get("ground_truth")] or valid
    if len(chosen) > 1:
        raise DataError(f"annotated {len(chosen)} times: mark one as ground truth, or export one a task.")
    return chosen[0]


def _text(data: dict[str, Any]) -> Any:
    texts = [key for key, value in data.items() if isinstance(value, str)]
    if "text" in data or not texts:
        return data.get("text")
    if len(texts) > 1:
        raise DataError(f'the data has {quoted(texts)} and no "text": rename the one that was labelled.')
    return data[texts[0]]


def _regions(text: str, value: dict[str, Any]) -> list[Span]:
    start, end = part(value, "start", int, "a region"), part(value, "end", int, "a region")
    said = value.get("text")
    units = text.encode("utf-16-le", "surrogatepass")
    if not 0 <= start < end <= len(units) // 2:
        raise DataError(f"a region goes from {start} to {end}; the text has {len(text):,} characters.")
    there = units[2 * start : 2 * end].decode("utf-16-le", "replace")
    if said in (None, there):
        start = len(units[: 2 * start].decode("utf-16-le", "replace"))
        end = start + len(there)
    elif text[start:end] != said:  # else written by a program that counts as Python does
        raise DataError(
            f"{shortened(said)!r} should stand from {start} to {end}, where the text has {shortened(there)!r}."
        )
    labels = as_list(value.get("labels"), "a list of labels")
    if not labels or not all(isinstance(label, str) and label for label in labels):
        raise DataError(f"the region {shortened(text[max(start, 0) : end])!r} has no label.")
    return [Span(start, end, label) for label in labels]


def _relations(result: dict[str, Any], number: dict[str, list[int]]) -> list[Relation]:
    names = [part(result, end, str, "a relation") for end in ("from_id", "to_id")]
    for name in names:
        if name not in number:
            raise DataError(f"a relation speaks of the region {name!r}, which isn't there.")
    # A region with several labels is several spans; a relation of regions is one of their first.
    head, tail = (number[name][0] for name in names)
    direction = result.get("direction", "right")
    ways = {"right": [(head, tail)], "left": [(tail, head)], "bi": [(head, tail), (tail, head)]}
    labels = as_list(result.get("labels"), "a list of labels")
    if not labels or not all(isinstance(label, str) and label for label in labels) or direction not in ways:
        raise DataError(
            f"the relation from {names[0]!r} to {names[1]!r} has no label, or a direction other than right, left, bi: "
            "its type isn't said."
        )
    return [Relation(*way, label) for label in labels for way in ways[direction]]
