"""What a document adds, changes and leaves behind follows from it alone, and costs the same in a large graph."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kg_graphs import ADA, dump, put

from quickstudy.core.errors import DataError
from quickstudy.domains.kg.document import Document
from quickstudy.domains.kg.graph.claims import Mention, Statement
from quickstudy.domains.kg.graph.facts import Proposal, Same
from quickstudy.domains.kg.graph.records import Entity
from quickstudy.domains.kg.graph.store import GraphStore

NAMES = [Entity(f"n{i}", "t") for i in range(4)]
Content = tuple[tuple[int, str, int], ...]
CONTENTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("rs"), st.integers(0, 3)).filter(lambda t: t[0] != t[2]),
    min_size=1, max_size=3,
).map(tuple)  # fmt: skip


def say(store: GraphStore, id: str, content: Content) -> None:
    text = " ".join(name.name for name in NAMES) + f" {content}"
    put(store, id, text, *((NAMES[a], r, NAMES[b]) for a, r, b in content), certain=len(content) > 1)


@settings(max_examples=40, deadline=None)
@given(
    history=st.lists(st.tuples(st.sampled_from("abc"), st.none() | CONTENTS), min_size=1, max_size=8),
    added=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=2),
    alike=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(lambda p: p[0] != p[1]), max_size=2
    ),
    decided=st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(lambda p: p[0] != p[1]),
    order=st.permutations("abc"),
)
def test_whatever_came_and_went_the_graph_is_that_of_what_is_there(
    tmp_path_factory, history, added, alike, decided, order
):
    folder = tmp_path_factory.mktemp("g")
    last = {}
    everyone = (
        "all",
        tuple((i, "r", (i + 1) % 4) for i in range(4)),
    )  # so that every name is there to be merged
    with GraphStore(folder / "long.db") as long, GraphStore(folder / "short.db") as short:
        for store in (long, short):
            say(store, *everyone)
        for id, content in history:
            if content is not None:
                if last.get(id) != content:
                    say(long, id, content)
                last[id] = content
            elif last.pop(id, None) is not None:
                long.withdraw(id)
        for id in order:
            if id in last:
                say(short, id, last[id])
        for store in (long, short):
            store.add((NAMES[a], "r", NAMES[b]) for a, b in added)
            store.same([Same(NAMES[a], NAMES[b], 0.9) for a, b in alike], "m")
            if decided:
                store.merge(NAMES[decided[0]], NAMES[decided[1]])
        assert dump(long) == dump(short)
        if decided:
            long.undo()
            short.rebuild()
            short.undo()
            assert dump(long) == dump(short)


def steps(store: GraphStore, work: Callable[[], object]) -> int:
    """Instructions of SQLite's machine that something takes, in hundreds."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    store.db.set_progress_handler(tick, 100)
    work()
    store.db.set_progress_handler(None, 0)
    return count


def full(path: Path, documents: int) -> GraphStore:
    """Documents that each name two people of their own and the same town."""
    store = GraphStore(path)
    store.put_all(Document(f"d{i}", f"Ann {i} met Bob {i} in London.") for i in range(documents))
    while claims := store.claim(100):
        store.release(claims)
        for claim in claims:
            i = claim.document.id[1:]
            ann, bob, london = Entity(f"Ann {i}", "p"), Entity(f"Bob {i}", "p"), Entity("London", "place")
            put(store, claim.document.id, claim.document.text, (ann, "met", bob), (ann, "in", london))
    for found in [t for t in store.triples() if t.relation == "met" and t.head.name[-1] in "01"]:
        store.accept(found)  # decisions, eight times as many of them too
        store.undo()
        store.reject(found)
    return store


def test_a_step_costs_the_same_in_a_large_graph(tmp_path):
    """A search through a whole table, as when an index isn't used, would cost eight times as much here."""
    one, two = Entity("Ann 3", "p"), Entity("Bob 3", "p")
    work: dict[str, Callable[[GraphStore], object]] = {
        "extract": lambda s: put(s, "new", "Ann 1 met Ada Lovelace.", (Entity("Ann 1", "p"), "met", ADA)),
        "change": lambda s: put(s, "new", "Ann 2 met Ada Lovelace.", (Entity("Ann 2", "p"), "met", ADA)),
        "withdraw": lambda s: s.withdraw("new"),
        "accept": lambda s: s.accept(next(t for t in s.neighbours(one) if t.tail == two)),
        "accept a sentence": lambda s: s.accept(s.said((one, "met", two))[0]),
        "merge": lambda s: s.merge(Entity("Bob 4", "p"), Entity("Bob 5", "p")),
        "names": lambda s: s.names(Entity("Bob 4", "p")),
        "undo": lambda s: s.undo(),
        "neighbours": lambda s: s.neighbours(one),
        "mend": lambda s: s.mend("d9", s.mentions("d9")[0], None),
        "relate": lambda s: s.relate("d8", *s.mentions("d8")[1:3], "knows"),
        "same": lambda s: s.same([Same(Entity("Ann 7", "p"), Entity("Ann 8", "p"), 0.9)], "m"),
        "extract among decisions": lambda s: put(
            s, "new", "Ann 7 met Bob 5.", (Entity("Ann 7", "p"), "met", Entity("Bob 5", "p"))
        ),
    }
    with full(tmp_path / "s.db", 40) as small, full(tmp_path / "l.db", 320) as large:
        for name, do in work.items():
            cost = [steps(store, lambda do=do, store=store: do(store)) for store in (small, large)]
            assert cost[1] <= 2 * cost[0] + 5, (name, cost)


def test_memory_stays_where_it_is_however_many_documents_come(tmp_path):
    def read(start: int) -> None:
        store.put_all(
            (Document(f"d{start + i}", f"Ann {i} met Bob {i} in London.") for i in range(200)), batch=50
        )
        while claims := store.claim(16):
            for claim in claims:
                a, b = claim.document.text.removesuffix(" in London.").split(" met ")
                found = [Mention(0, len(a), "p"), Mention(len(a) + 5, len(a) + 5 + len(b), "p")]
                store.finish(claim, found, [Statement(0, "met", 1, (0, len(claim.document.text)))], "m")

    with GraphStore(tmp_path / "g.db") as store:
        read(0)
        tracemalloc.start()
        try:
            read(200)
            before = tracemalloc.get_traced_memory()[0]
            read(400)
            assert tracemalloc.get_traced_memory()[0] - before < 10_000
        finally:
            tracemalloc.stop()


def test_names_that_were_read_are_read_again_when_another_process_writes(tmp_path):
    """Numbers of entities that are gone are given to new ones."""
    with GraphStore(tmp_path / "g.db") as store, GraphStore(tmp_path / "g.db") as other:
        put(store, "a", "Ann met Bob.", (Entity("Ann", "p"), "met", Entity("Bob", "p")))
        assert [t.tail.name for t in store.neighbours("Ann")] == ["Bob"]
        other.withdraw("a")
        put(other, "b", "Eve met Dan.", (Entity("Eve", "p"), "met", Entity("Dan", "p")))
        eve = Entity("Eve", "p"), "met", Entity("Dan", "p")
        assert [store.triple(*eve)] == store.neighbours("Eve") and [
            p[0][:3] for p in store.paths("Eve", "Dan")
        ] == [eve]
        assert [t.tail.name for t in store.neighbours("Eve")] == ["Dan"]
        store.withdraw("b")
        put(store, "c", "Joe met Kim.", (Entity("Joe", "p"), "met", Entity("Kim", "p")))
        assert [t.tail.name for t in store.neighbours("Joe")] == ["Kim"]


def test_what_is_read_within_a_moment_is_one_graph_and_nothing_can_be_written_there(tmp_path):
    with GraphStore(tmp_path / "g.db") as store, GraphStore(tmp_path / "g.db") as other:
        store.add([(NAMES[0], "r", NAMES[1])])
        with store.reading():
            before = list(store.triples())
            other.add([(NAMES[2], "r", NAMES[3])])
            assert list(store.triples()) == before and len(store.neighbours("n0")) == 1
            with pytest.raises(DataError, match="being read"):
                store.add([(NAMES[0], "s", NAMES[1])])
        rows = store.triples()
        next(rows)
        assert len(store.neighbours("n0")) == 1 and len(list(rows)) == 1  # a question within another


def test_a_step_that_fails_within_others_leaves_nothing(tmp_path):
    with GraphStore(tmp_path / "g.db") as store:
        with store.writing():
            store.add([(NAMES[0], "r", NAMES[1])])
            with pytest.raises(DataError, match="triple 3,"):
                store.add([(NAMES[2], "new", NAMES[3])] * 3 + [(NAMES[0], " ", NAMES[1])], batch=4)
            with pytest.raises(DataError, match="no entity"):
                store.propose(
                    [Proposal(NAMES[0], "s", NAMES[1], 0.5), Proposal(NAMES[0], "s", ADA, 0.5)], "m"
                )
            store.add([(NAMES[1], "new", NAMES[0])])
        assert [(t.head.name, t.relation) for t in store.triples()] == [("n0", "r"), ("n1", "new")]
        assert list(store.triples(status="proposed")) == []
        before = dump(store)
        store.rebuild()
        assert dump(store) == before and store.rows("PRAGMA integrity_check") == [("ok",)]


def test_an_import_into_a_graph_that_has_everything(tmp_path):
    """Triples that were extracted, proposed, judged or merged count as given, and their status is what all support."""
    with GraphStore(tmp_path / "g.db") as store:
        put(store, "a", "n0 n1 n2", (NAMES[0], "r", NAMES[1]), (NAMES[1], "r", NAMES[2]), certain=False)
        store.merge(NAMES[0], NAMES[3])
        store.reject(next(t for t in store.neighbours("n1", status="review") if t.head == NAMES[1]))
        batch = [(NAMES[i], "r", NAMES[j]) for i in range(4) for j in range(4)] * 2
        assert store.add(batch, batch=5) == 32
        found = {(t.head.name, t.tail.name): t.status for t in store.triples(status=("given", "rejected"))}
        assert found == {(f"n{i}", f"n{j}"): "rejected" if (i, j) == (1, 2) else "given"
                         for i in (1, 2, 3) for j in (1, 2, 3)}  # fmt: skip
        before = dump(store)
        store.rebuild()
        assert dump(store) == before
        store.withdraw("a")
        assert len(list(store.triples())) == 8
        for wrong, says in ((("", "t"), "lacks a name"), ((" ", "t"), "lacks a name")):
            with pytest.raises(DataError, match=f"triple 1,.*{says}"):
                store.add([(NAMES[0], "r", NAMES[1]), (wrong, "r", NAMES[1])])
        with pytest.raises(DataError, match=r"triple 2,.*lacks a relation"):
            store.add([*batch[:2], (NAMES[0], " ", NAMES[1])])
