"""What is odd about labels that can be learned from all the same: most often a mistake of whoever made the file."""

from collections.abc import Sequence

from quickstudy.domains.kg.document import Annotated, words


def once(labelled: Sequence[Annotated]) -> tuple[list[Annotated], list[str]]:
    """The labelled texts, each with the same labels once, and what is odd about them.

    A text that stands there twice counts twice, and the copy tells what is right where the other is held out. Of copies
    that differ in what wasn't labelled alone, the one that says most counts.
    """
    kept: dict[tuple, Annotated] = {}
    for one in labelled:
        key = _key(one)
        if key not in kept or _says(one) > _says(kept[key]):
            kept[key] = one
    found, notes = list(kept.values()), []
    if again := len(labelled) - len(found):
        notes.append(f"labelled texts that stand there twice with the same labels, and count once: {again}.")
    if apart := len(found) - len({one.text for one in found}):
        notes.append(f"texts that stand there again with other labels, and count again: {apart}.")
    cut = [(one.text[span.start : span.end], span.type) for one in found for span in _cutting(one)]
    if cut:
        first, kind = cut[0]
        notes.append(
            f"labels that begin or end within a word: {len(cut)}, such as {first!r} ({kind}). Are offsets right?"
        )
    two = [(text, sorted(kinds)) for one in found for text, kinds in _places(one).items() if len(kinds) > 1]
    if two:
        (_, _, text), kinds = two[0]
        notes.append(
            f"names of several types at one place: {len(two)}, such as {text!r} ({', '.join(kinds)})."
        )
    return found, notes


def _key(one: Annotated) -> tuple:
    """What it says, in whatever order."""
    spans = one.spans
    related = [(spans[head], spans[tail], kind) for head, tail, kind in one.relations]
    apart = [(spans[head], spans[tail]) for head, tail in one.unrelated if one.partial]  # else see `_says`
    links = [(spans[number], id) for number, id in one.links.items()]
    return (one.text, *map(frozenset, (spans, related, apart, links)), one.partial)


def _says(one: Annotated) -> tuple[bool, int]:
    """How much it says of what isn't labelled."""
    return one.complete, len(one.unrelated)


def _cutting(one: Annotated) -> list:
    """Spans of which an end lies within a word."""
    inside = {at for start, end in words(one.text) for at in range(start + 1, end)}
    return [span for span in one.spans if span.start in inside or span.end in inside]


def _places(one: Annotated) -> dict[tuple[int, int, str], set[str]]:
    found: dict[tuple[int, int, str], set[str]] = {}
    for span in one.spans:
        found.setdefault((span.start, span.end, one.text[span.start : span.end]), set()).add(span.type)
    return found
