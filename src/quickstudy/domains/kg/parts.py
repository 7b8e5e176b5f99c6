"""Long documents in parts: what is read at once is bounded, whatever a document's length.

A part ends where a sentence does. What was found in it gets the document's own offsets back.
"""

from collections.abc import Iterable, Iterator

from quickstudy.domains.kg.document import Document, sentences

LONGEST = 20_000
"""Characters of a part, but for a sentence that is longer."""
TOGETHER = 60_000
"""Characters of the parts that are read together: about two hundred megabytes of word states."""


def parts(document: Document, longest: int = LONGEST) -> Iterator[tuple[int, Document]]:
    """Where each part begins in the document, and the part; a short document is its only part."""
    if len(document.text) <= longest:
        yield 0, document
        return
    begin = end = 0
    for sentence in sentences(document.text):
        if sentence.end - begin > longest and end > begin:
            yield begin, _part(document, begin, end)
            begin = sentence.start
        end = sentence.end
    if end > begin:
        yield begin, _part(document, begin, end)


def _part(document: Document, begin: int, end: int) -> Document:
    return Document(document.id, document.text[begin:end], document.source)


def together(
    documents: Iterable[Document], most: int = TOGETHER, longest: int = LONGEST
) -> Iterator[list[tuple[int, int, Document]]]:
    """Groups of parts that are read together: the document's number, where the part begins, and the part."""
    group: list[tuple[int, int, Document]] = []
    size = 0
    for number, document in enumerate(documents):
        for begin, part in parts(document, longest):
            if group and size + len(part.text) > most:
                yield group
                group, size = [], 0
            group.append((number, begin, part))
            size += len(part.text)
    if group:
        yield group
