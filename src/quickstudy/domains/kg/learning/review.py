"""A reviewer's answers: a line each, written as a decision at once, so that nothing is lost however it ends.

    y            yes                          t [RELATION]   the other way round (as another relation)
    n            no                           r RELATION     another relation
    1 TYPE       the first name is a …        1 = WORDS      the first name is really these words
    1 -          it is no name at all         + TYPE WORDS   these words of the sentence are a name that was missed
    w            all names of the sentence are marked, and rightly
    u            undo my last answer          s              skip (an empty line, too)
    e            explain                      q              stop

`2` does for the second name what `1` does for the first. Beginnings of types and relations are enough where they are
of one alone. What is asked is in `queue`; here is what an answer does. Printing and reading lines are the caller's.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from quickstudy.core.errors import DataError, did_you_mean
from quickstudy.domains.kg.document import Span
from quickstudy.domains.kg.graph.records import Found, Said, Slice, Triple
from quickstudy.domains.kg.graph.store import GraphStore
from quickstudy.domains.kg.learning.labels import ASSERTED, DOUBTED, RANDOM
from quickstudy.domains.kg.learning.question import KEYS, ends_of, question
from quickstudy.domains.kg.learning.queue import Doubtful, Item, Linked, Pair, Together
from quickstudy.domains.kg.schema import Schema

NO_SENTENCE = ("merge", "link", "proposal")
"""Kinds of questions that aren't about the names of a sentence."""
HELP = (__doc__ or "").partition("\n\n")[2].partition("\n\n`2`")[0]
_MORE = re.compile(r"([12])\s*(.*)", re.DOTALL)


class Stop(Exception):
    """The reviewer wants to stop."""


@dataclass
class Reviewing:
    """Answers given so far, by what they were."""

    store: GraphStore
    types: Sequence[str]
    """Of entities, as the schema has them."""
    relations: Sequence[str]
    by: str = ""
    explain: Callable[[Item], str] | None = None
    """What `e` says of a question."""
    schema: Schema | None = None
    """Which types a relation joins, where that is known."""
    counts: dict[str, int] = field(default_factory=dict)
    made: list[tuple[int, str, Item]] = field(default_factory=list)
    """Decisions of this review that stand, what they were, and on which question."""
    refused: int = 0
    """Answers that couldn't be taken."""
    again: Item | None = None
    """The question whose decision was just taken back."""

    def answer(self, item: Item, line: str) -> str | None:
        """Do what an answer says.

        Returns:
            What to say, where the question stays open; None where it is answered or skipped.

        Raises:
            Stop: for q.
        """
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word in ("", "s"):
            self._count("skipped")
            return None
        if word == "q":
            raise Stop
        if word == "?":
            return HELP
        if word == "u":
            return self._undone()
        if word == "e":
            return (
                self.explain(item) if self.explain else "no model was given that could explain: use --model"
            )
        before = len(self.made)
        try:
            reply = self._decide(item, line.strip(), word, rest)
        except DataError as problem:
            reply = str(problem)
        self.refused += reply is not None and len(self.made) == before
        return reply

    def _decide(self, item: Item, line: str, word: str, rest: str) -> str | None:
        if word == "w":
            return self._whole(item)
        if word == "+" or word.startswith("+"):
            return self._named(item, line[1:].strip())
        if name := _MORE.fullmatch(line):
            return self._mended(item, int(name[1]), name[2])
        known = {
            "statement": self._statement, "pair": self._pair, "merge": self._merge, "link": self._link,
            "mention": self._mention, "proposal": self._proposal,
        }  # fmt: skip
        return known[item.kind](item, word, rest)

    def _statement(self, item: Item, word: str, rest: str) -> str | None:
        said = item.what
        assert isinstance(said, Said)
        note = (ASSERTED if said.certain else DOUBTED) if item.random else ""
        if word in ("y", "n") and not rest:
            act = self.store.accept if word == "y" else self.store.reject
            return self._made(
                item, act(said, by=self.by, note=note), "accepted" if word == "y" else "rejected"
            )
        if word in ("r", "t"):
            relation = self._known(rest, self.relations, "relation") if rest else None
            if word == "r" and relation is None:
                return f"which relation? There are: {', '.join(self.relations)}."
            if word == "t" and relation is None and self._symmetric(said.relation):
                return f"{said.relation} says the same both ways; say n, or r and another relation."
            at = {(m.start, m.end): m.entity.type for m in self.store.mentions(said.document)}  # as mended
            ends = [(end.start, end.end) for end in (said.head, said.tail)]
            self._fits(relation or said.relation, [at[end] for end in ends if end in at], word == "t")
            number = self.store.correct(said, relation=relation, turned=word == "t", by=self.by, note=note)
            return self._made(item, number, "corrected")
        return self._unknown(item)

    def _symmetric(self, relation: str) -> bool:
        known = {} if self.schema is None else self.schema.relations
        return relation in known and known[relation].symmetric

    def _fits(self, relation: str, kinds: Sequence[str], turned: bool) -> None:
        """Raises DataError for a relation that doesn't join such types."""
        if self.schema is None or len(kinds) != 2:
            return
        head, tail = kinds[::-1] if turned else kinds
        if problem := self.schema.misfit(relation, head, tail):
            raise DataError(f"{problem} If a type is wrong, mend it first: 1 TYPE or 2 TYPE.")

    def _pair(self, item: Item, word: str, rest: str) -> str | None:
        pair = item.what
        assert isinstance(pair, Pair)
        relation, ends = None, (pair.head, pair.tail)
        if word in ("r", "t"):
            if not rest and len(pair.relations) == 1:
                rest = pair.relations[0]
            if not rest:
                return f"which relation? There are: {', '.join(self.relations)}."
            relation = self._known(rest, self.relations, "relation")
            ends = (pair.tail, pair.head) if word == "t" else ends
        elif word != "n" or rest:
            return self._unknown(item)
        head, tail = ends
        number = self.store.relate(pair.document, head, tail, relation, by=self.by)
        return self._made(item, number, "added" if relation else "unrelated")

    def _merge(self, item: Item, word: str, rest: str) -> str | None:
        both = item.what
        assert isinstance(both, Together)
        if word not in ("y", "n") or rest:
            return self._unknown(item)
        if word == "n":
            return self._made(item, self.store.split(both.one, both.other, by=self.by), "split")
        longer = max(both.one, both.other, key=lambda e: (len(e.name), e))
        shorter = both.one if longer == both.other else both.other
        return self._made(item, self.store.merge(shorter, longer, by=self.by), "merged")

    def _link(self, item: Item, word: str, rest: str) -> str | None:
        one = item.what
        assert isinstance(one, Linked)
        if word not in ("y", "n") or rest:
            return self._unknown(item)
        act = self.store.identify if word == "y" else self.store.deny
        number = act(one.entity, one.id, by=self.by)
        return self._made(item, number, "linked" if word == "y" else "not linked")

    def _mention(self, item: Item, word: str, rest: str) -> str | None:
        if word == "n" and not rest:
            return self._mended(item, 1, "-")
        if word == "y" and not rest:
            one = item.what
            assert isinstance(one, Doubtful)
            same = Span(one.found.start, one.found.end, one.found.type)
            number = self.store.mend(one.document, one.found, same, by=self.by)
            return self._made(item, number, "names confirmed")
        return self._unknown(item)

    def _proposal(self, item: Item, word: str, rest: str) -> str | None:
        triple = item.what
        assert isinstance(triple, Triple)
        if word not in ("y", "n") or rest:
            return self._unknown(item)
        act = self.store.accept if word == "y" else self.store.reject
        return self._made(item, act(triple, by=self.by), "accepted" if word == "y" else "rejected")

    def _mended(self, item: Item, which: int, change: str) -> str | None:
        """Another type, other borders, or none. The question stays open, but for the last: then it has no sense."""
        if item.kind in NO_SENTENCE:
            return self._unknown(item)
        document, ends, sentence = ends_of(self.store, item)
        if which > len(ends):
            return "there is no second name here" if ends else self._unknown(item)
        found, text = ends[which - 1], self.store.document(document).text
        if change == "-":
            to = None
        elif change.startswith("="):
            start, end = _near(text, change[1:].strip(), found, sentence)
            to = Span(start, end, found.type)
        elif change:
            to = Span(found.start, found.end, self._known(change, self.types, "type"))
        else:
            return f"what is {found.text!r}? A type ({', '.join(self.types)}), = and the right words, or - for no name."
        note = RANDOM if item.random else ""
        self._made(item, self.store.mend(document, found, to, by=self.by, note=note), "names mended")
        return (
            None
            if to is None or item.kind == "mention"
            else f"noted: {_told(to, text)}. And the question itself?"
        )

    def _named(self, item: Item, told: str) -> str | None:
        """A name of the sentence that wasn't found."""
        if item.kind in NO_SENTENCE:
            return self._unknown(item)
        whole = max((k for k in self.types if told.startswith(f"{k} ")), key=len, default="")
        kind, words = (whole, told[len(whole) :].strip()) if whole else told.partition(" ")[::2]
        if not words.strip():
            return (
                "which name? + TYPE WORDS, such as: + "
                + f"{self.types[0] if self.types else 'person'} Jo Ray"
            )
        kind = self._known(kind, self.types, "type")
        document, ends, sentence = ends_of(self.store, item)
        text, marked_ = self.store.document(document).text, self.store.mentions(document)
        places = _places(text, words, sentence)
        free = [(a, b) for a, b in places if not any(m.start < b and a < m.end for m in marked_)]
        # The nearest to what is asked about; one that crosses a name that was found is refused.
        asked = ends[0].start if ends else sentence.start
        start, end = min(free or places, key=lambda place: abs(place[0] - asked))
        span = Span(start, end, kind)
        note = RANDOM if item.random else ""
        self._made(item, self.store.name(document, span, by=self.by, note=note), "names added")
        return f"noted: {_told(span, text)}. And the question itself?"

    def _whole(self, item: Item) -> str | None:
        if item.kind in NO_SENTENCE:
            return self._unknown(item)
        document, _, sentence = ends_of(self.store, item)
        number = self.store.whole(document, sentence, by=self.by, note=RANDOM if item.random else "")
        self._made(item, number, "sentences confirmed")
        return None if item.kind == "mention" else "noted: all names are right. And the question itself?"

    def _undone(self) -> str:
        if not self.made:
            return "nothing was decided in this review yet"
        number, what, self.again = self.made.pop()
        self.store.undo(number, by=self.by)
        self.counts[what] -= 1
        return f"taken back: decision {number} ({what})"

    def _made(self, item: Item, number: int, what: str) -> None:
        self.made.append((number, what, item))
        self._count(what)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _known(self, name: str, names: Collection[str], what: str) -> str:
        near = [one for one in names if one.casefold() == name.casefold()]
        near = near or [one for one in names if one.casefold().startswith(name.casefold())]
        if len(near) != 1:
            raise DataError(
                f"{name!r} is no {what}{' alone' if near else ''}.{did_you_mean(name, names)} There are: "
                f"{', '.join(names)}."
            )
        return near[0]

    def _unknown(self, item: Item) -> str:
        return f"expected one of: {KEYS[item.kind]}"


def run(
    reviewing: Reviewing, items: Iterable[Item], lines: Iterator[str], say: Callable[[str], None]
) -> dict[str, int]:
    """Ask until there is no question or no answer left. Returns how many answers of each kind were given.

    Args:
        lines: the answers; their end is the reviewer's, too.
        say: shows questions and what is to be said of answers.
    """
    asked, number = list(items), 0
    try:
        while number < len(asked):
            item = asked[number]
            say("\n".join(["", *question(reviewing.store, item, number + 1)]))
            while (reply := reviewing.answer(item, next(lines))) is not None and reviewing.again is None:
                say(reply)
            if reviewing.again is not None:  # to the question whose answer was taken back
                say(reply or "")
                number, reviewing.again = asked.index(reviewing.again), None
            else:
                number += 1
    except (Stop, StopIteration):
        pass
    return {what: n for what, n in reviewing.counts.items() if n}


def _near(text: str, words: str, found: Found, sentence: Slice) -> tuple[int, int]:
    """Where words stand in a sentence, nearest to a mention. Raises DataError."""
    return min(_places(text, words, sentence), key=lambda place: abs(place[0] - found.start))


def _places(text: str, words: str, sentence: Slice) -> list[tuple[int, int]]:
    """Where words stand in a sentence. Raises DataError where they don't."""
    plain = r"\s+".join(re.escape(word) for word in words.split())
    places: list[tuple[int, int]] = []
    for pattern in (rf"(?<!\w){plain}(?!\w)", plain) if plain else ():  # whole words, where there are such
        found = re.compile(pattern).finditer(text, sentence.start, sentence.end)
        places = places or [match.span() for match in found]
    if not places:
        raise DataError(f"the sentence doesn't say {words!r}; give words as they stand there.")
    return places


def _told(span: Span, text: str) -> str:
    return f"{text[span.start : span.end]!r} is a {span.type}"
