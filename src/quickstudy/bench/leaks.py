"""Leak audit: no sentence, class or duplicate of the test part may be in what was meta-trained on.

    clean, found = audit("core.1", meta_training, test, encode=encoder.encode)
    print(found.text())

A sentence counts as the same when it is equal but for case, punctuation and white space; as a near duplicate when its
character trigrams have a Jaccard index above `NEAR_LETTERS`, or its vectors a cosine above `NEAR_COSINE`. Both kinds
are dropped from meta-training. Class names in both are listed, and dropped with all their sentences on request.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from quickstudy.bench.data import take
from quickstudy.core.errors import DataError
from quickstudy.core.task import spell_out
from quickstudy.domains.text.read import Examples

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

NEAR_LETTERS = 0.8
"""Above it stand sentences with one word changed, added or moved. In the bundled samples the first pair of other
meaning ("what do i need to change my oil", "I need to change my name what do I do?") has .71."""
NEAR_COSINE = 0.95
"""Of MiniLM's vectors: 1 in 1,500,000 pairs of different intents of the BANKING77 sample lies above, 1 in 155 of the
same intent, and 9 pairs of CLINC150 with BANKING77, all of them one request in other words."""
_APART = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W\d_]{3,}")  # a number or a code that two sets of labels share says nothing


@dataclass(frozen=True)
class Near:
    """A pair of sentences that are almost the same, and how alike: by letters, by vectors (None: not measured)."""

    train: str
    test: str
    letters: float
    cosine: float | None


@dataclass(frozen=True)
class Audit:
    """What meta-training and test have in common."""

    name: str
    train: int
    """Sentences to meta-train on, before anything was dropped."""
    test: int
    exact: int
    """Meta-training sentences that stand in the test part letter by letter."""
    normalised: int
    """The same but for case, punctuation and white space, the exact ones included."""
    dropped: int
    """How many sentences were taken out of meta-training: these, near duplicates, and those of shared classes."""
    near: tuple[Near, ...]
    """Pairs of near duplicates that aren't the same, most alike first."""
    classes: tuple[tuple[str, str], ...]
    """Class names that both have, as each writes them: (meta-training, test)."""
    examples: tuple[str, ...] = ()
    """Some of the sentences that both have."""
    near_dropped: int = 0
    """Sentences dropped for being a near duplicate, and no more than that."""
    classes_dropped: int = 0
    """Sentences dropped for nothing but their class, whose name the test part has as well."""

    @property
    def clean(self) -> bool:
        """No sentence of the test part is left in meta-training, and no near duplicate of one."""
        gone = self.dropped - self.near_dropped - self.classes_dropped
        return gone == self.normalised and (not self.near or self.near_dropped > 0)

    def text(self) -> str:
        """One paragraph, as it stands in run files."""
        shared = ", ".join(a if a == b else f"{a} as {b}" for a, b in self.classes[:10]) or "none"
        # A run file refuses what could be a path of this machine.
        harmless = [n for n in self.near if not any(t.startswith(("/", "~")) for t in (n.train, n.test))]
        pairs = "; ".join(f'"{n.train}" like "{n.test}"' for n in harmless[:3])
        return (
            f"Leak audit of {self.train:,} meta-training against {self.test:,} test sentences: "
            f"{self.exact} equal, {self.normalised} equal but for case, punctuation and space, "
            f"{len({n.train for n in self.near})} near duplicates{f' ({pairs})' if pairs else ''}; "
            f"{self.dropped} dropped from meta-training{'' if self.clean else ', the others left'}; "
            f"class names in both: {shared}"
            f"{f' ({self.classes_dropped} more sentences dropped with them)' if self.classes_dropped else ''}."
        )

    def as_record(self) -> dict[str, Any]:
        """The whole audit as plain JSON values."""
        return asdict(self)


def normalised(text: str) -> str:
    """The text without case, punctuation, accents' encodings and extra white space.

    >>> normalised("  Why was my card  DECLINED?! ")
    'why was my card declined'
    """
    return _APART.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def audit(
    name: str,
    train: Sequence[Examples],
    test: Examples,
    *,
    drop: bool = True,
    drop_near: bool = True,
    drop_classes: bool = False,
    encode: "Callable[[Sequence[str]], Tensor] | None" = None,
) -> tuple[list[Examples], Audit]:
    """Compare what is meta-trained on with what is tested on.

    Args:
        name: of the audit, such as the row that it belongs to.
        train: data sets to meta-train on.
        test: all sentences of the test classes, support and query alike.
        drop: take sentences of the test part out of meta-training; otherwise one such sentence is an error.
        drop_near: take near duplicates of them out too; otherwise they are only listed.
        drop_classes: take classes out whose name a test class has as well, however each is written. By default they
            are only listed: their sentences are others, and a past task of such a class is what is to be learned from.
        encode: gives vectors of length 1, for near duplicates by meaning.

    Returns:
        (the data sets without the dropped sentences, what was found).

    Raises:
        DataError: a sentence of the test part is in meta-training and `drop` is False; a test class is in
            meta-training under the same name and from the same source.
    """
    named: dict[str, list[str]] = defaultdict(list)
    for label in test.classes:
        named[normalised(_words(test, label))].append(label)
    shared = []
    for examples in train:
        both = sorted(set(examples.classes) & set(test.classes))
        if both and examples.source.split(",")[0] == test.source.split(",")[0]:
            raise DataError(
                f"{name}: {len(both)} test classes are meta-trained on ({', '.join(both[:5])}).",
                file=examples.source,
            )
        for label in examples.classes:
            told = _words(examples, label)
            if _WORD.search(told):
                shared += [(label, twin) for twin in named.get(normalised(told), [])]
    letters = set(test.texts)
    keys = {normalised(text) for text in test.texts}
    same = [[normalised(text) in keys for text in examples.texts] for examples in train]
    found = [e.texts[i] for e, row in zip(train, same, strict=True) for i, hit in enumerate(row) if hit]
    exact = sum(text in letters for text in found)
    if found and not drop:
        raise DataError(
            f'{name}: {len(found)} meta-training sentences are in the test part, such as "{found[0]}". '
            "Drop them from meta-training (drop=True).",
            file=train[0].source,
        )
    gone = [{i for i, hit in enumerate(row) if hit} for row in same]
    left = list(dict.fromkeys(_left(train, gone)))
    near = near_duplicates(left, list(dict.fromkeys(test.texts)), encode=encode)
    alike = {pair.train for pair in near} if drop_near and drop else set()
    twins = {label for label, _ in shared} if drop_classes else set()
    by_near = _drop(train, gone, lambda text, _: text in alike)
    by_class = _drop(train, gone, lambda _, label: label in twins)
    clean = [
        take(examples, [i for i in range(len(examples)) if i not in rows]) if rows else examples
        for examples, rows in zip(train, gone, strict=True)
    ]
    return clean, Audit(
        name, sum(map(len, train)), len(test), exact, len(found), len(found) + by_near + by_class, near,
        tuple(shared), tuple(found[:20]), by_near, by_class,
    )  # fmt: skip


def _left(train: Sequence[Examples], gone: Sequence[set[int]]) -> list[str]:
    return [
        text
        for examples, rows in zip(train, gone, strict=True)
        for i, text in enumerate(examples.texts)
        if i not in rows
    ]


def _drop(train: Sequence[Examples], gone: Sequence[set[int]], which: Callable[[str, str], bool]) -> int:
    """Add rows to those gone from each data set, and count them."""
    before = sum(map(len, gone))
    for examples, rows in zip(train, gone, strict=True):
        rows |= {
            i for i, pair in enumerate(zip(examples.texts, examples.labels, strict=True)) if which(*pair)
        }
    return sum(map(len, gone)) - before


def near_duplicates(
    train: Sequence[str],
    test: Sequence[str],
    *,
    letters: float = NEAR_LETTERS,
    cosine: float = NEAR_COSINE,
    encode: "Callable[[Sequence[str]], Tensor] | None" = None,
) -> tuple[Near, ...]:
    """Pairs (one of `train`, one of `test`) above either threshold, most alike first."""
    left_grams, right_grams = [_grams(text) for text in train], [_grams(text) for text in test]
    pairs = _alike_letters(left_grams, right_grams, letters)
    cosines: dict[tuple[int, int], float] = {}
    if encode is not None and len(train) and len(test):
        left, right = encode(train), encode(test)
        cosines = _alike_vectors(left, right, cosine)
        cosines |= {(i, j): float(left[i] @ right[j]) for i, j in pairs}
    found = []
    for i, j in pairs | set(cosines):
        alike = round(_jaccard(left_grams[i], right_grams[j]), 3)
        found.append(Near(train[i], test[j], alike, round(cosines[i, j], 3) if cosines else None))
    return tuple(sorted(found, key=lambda n: (-max(n.letters, n.cosine or 0), n.train, n.test)))


def _words(examples: Examples, label: str) -> str:
    return examples.descriptions.get(label) or spell_out(label)


def _grams(text: str) -> frozenset[str]:
    padded = f" {normalised(text)} "
    return frozenset(padded[i : i + 3] for i in range(max(1, len(padded) - 2)))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


def _alike_letters(
    train: list[frozenset[str]], test: list[frozenset[str]], least: float
) -> set[tuple[int, int]]:
    """All pairs with a Jaccard index above `least`, without comparing every pair.

    Two such sets share a gram among the first n - ⌈least · n⌉ + 1 of each, in any fixed order; taking rare grams first
    keeps the lists short (prefix filtering, Chaudhuri et al. 2006, ICDE).
    """
    common = Counter(gram for grams in (*train, *test) for gram in grams)
    rank = {gram: place for place, (gram, _) in enumerate(sorted(common.items(), key=lambda c: (c[1], c[0])))}

    def prefix(grams: frozenset[str]) -> list[int]:
        rare = sorted(rank[gram] for gram in grams)
        return rare[: len(rare) - math.ceil(least * len(rare)) + 1]

    holders: dict[int, list[int]] = defaultdict(list)
    sizes = [len(grams) for grams in test]
    for j, grams in enumerate(test):
        for gram in prefix(grams):
            holders[gram].append(j)
    pairs = set()
    for i, grams in enumerate(train):
        low, high = least * len(grams), len(grams) / least
        near = {j for gram in prefix(grams) for j in holders.get(gram, ()) if low <= sizes[j] <= high}
        pairs |= {(i, j) for j in near if _jaccard(grams, test[j]) > least}
    return pairs


def _alike_vectors(left: "Tensor", right: "Tensor", least: float) -> dict[tuple[int, int], float]:
    pairs = {}
    for start in range(0, len(left), 2048):  # a block of 2,048 × 13,000 cosines is 100 MB
        cosines = left[start : start + 2048] @ right.t()
        for i, j in (cosines > least).nonzero().tolist():
            pairs[start + i, j] = float(cosines[i, j])
    return pairs


def as_table(audits: Sequence[Audit]) -> "Table":
    """The audits side by side, for the terminal."""
    from rich.table import Table

    table = Table(
        "audit", "meta-training", "test", "equal", "equal but for form", "near", "dropped", "class names in both",
        title="Leak audit", title_justify="left",
    )  # fmt: skip
    for a in audits:
        classes = ", ".join(theirs for _, theirs in a.classes[:5]) + (" …" if len(a.classes) > 5 else "")
        counts = (a.train, a.test, a.exact, a.normalised, len(a.near), a.dropped)
        table.add_row(a.name, *(f"{count:,}" for count in counts), classes or "none")
    return table
