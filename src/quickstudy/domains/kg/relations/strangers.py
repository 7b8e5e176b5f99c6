"""Pairs that stand in one sentence and that nobody called related: what a data set without such labels lacks.

FewRel marks one pair a sentence. Other names stand there too, and the head or the tail together with one of them is, as
a rule, no relation that anybody meant: mere co-occurrence, which must not be taken for one.
"""

import re

from quickstudy.domains.kg.relations.pairs import Pair

_NAME = re.compile(r"\b[A-Z][\w'’.-]*\w(?:\s(?:(?:of|de|the|and|&)\s)?[A-Z][\w'’.-]*\w)*")


def strangers(pair: Pair, most: int = 2) -> list[Pair]:
    """The head with another name of its text, and another name with the tail: `most` in all.

    Names are runs of capitalised words. A single word that begins the text is as likely none, and is passed over.
    """
    found = []
    for name in _NAME.finditer(pair.text):
        start, end = name.span()
        if (start == 0 and " " not in name[0]) or any(start < mark[1] and mark[0] < end for mark in pair[1:]):
            continue
        found.append((start, end))
    there = [Pair(pair.text, pair.head, other) for other in found]
    back = [Pair(pair.text, other, pair.tail) for other in reversed(found)]
    return [one for two in zip(there, back, strict=True) for one in two][:most]
