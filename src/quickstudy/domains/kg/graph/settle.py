"""What follows in a graph from what was said: which entities are one, which triples hold, and how sure they are.

Everything here can be computed again from mentions, statements, bonds and decisions; it is kept so that queries are
fast. All functions run within the transaction of their caller, on a connection of `store_tables.open_file`.

Status of a triple, the strongest of what supports it, unless a reviewer decided on the triple itself:

    rejected 0    a reviewer said no
    proposed 1    inferred; nobody said so
    review 2      extracted, below the target precision
    extracted 3   extracted, above it
    given 4       brought along: imported, or added by hand
    accepted 5    a reviewer said yes
"""

import sqlite3
from collections.abc import Iterable, Set

STATUSES = ("rejected", "proposed", "review", "extracted", "given", "accepted")
REJECTED, PROPOSED, REVIEW, EXTRACTED, GIVEN, ACCEPTED = range(6)
ASSERTED = STATUSES[EXTRACTED:]
"""What counts as a triple of the graph."""

Edge = tuple[int, int, int]
"""Head, relation and tail as they were said, before merging."""

_SUPPORT = (
    "SELECT count(*), max(verdict), max(CASE WHEN verdict >= 0 THEN certain END), "
    "max(CASE WHEN verdict >= 0 THEN score END), max(score) FROM statements WHERE h = ? AND r = ? AND t = ?"
)
# The second condition lets SQLite use the index, which has only what is merged.
MEMBERS = "SELECT number FROM entities WHERE merged_into = {0} AND merged_into != 0 UNION ALL SELECT {0}"
HOLDS = (
    "together AND NOT EXISTS (SELECT 1 FROM bonds no WHERE no.one = bonds.one AND no.other = bonds.other "
    "AND no.decision > bonds.decision AND NOT no.together)"
)
"""That a row of `bonds` joins its two: it says so, and no later decision says that they aren't the same."""
_VERDICT = (
    f"SELECT accepted FROM verdicts WHERE head IN ({MEMBERS.format('?1')}) AND relation = ?2 "
    f"AND tail IN ({MEMBERS.format('?3')}) ORDER BY decision DESC LIMIT 1"
)
_KEY = "head = ? AND relation = ? AND tail = ? AND said_head = ? AND said_tail = ?"


def settle(
    db: sqlite3.Connection,
    edges: Iterable[Edge],
    given: Set[Edge] = frozenset(),
) -> None:
    """Write the triples of these edges anew, from what supports them; those that nothing supports go.

    Args:
        given: edges that need no statement. Those that were given before stay so.
    """
    touched: set[Edge] = set()
    for edge in edges:
        h, r, t = edge
        head, tail = canonical(db, h), canonical(db, t)
        key = (head, r, tail, h if h != head else 0, t if t != tail else 0)
        row = db.execute(f"SELECT given FROM triples WHERE {_KEY}", key).fetchone()
        was_given = edge in given or (row is not None and bool(row[0]))
        own, score = _own(db, edge, was_given)
        touched.add((head, r, tail))
        if own is None:
            db.execute(f"DELETE FROM triples WHERE {_KEY}", key)
        else:
            db.execute(
                "INSERT OR REPLACE INTO triples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, own, own, was_given, score),
            )
    for triple in touched:
        restate(db, triple)


def _own(db: sqlite3.Connection, edge: Edge, given: bool) -> tuple[int | None, float | None]:
    """Status and score of an edge by itself; None where nothing supports it. The score is that of the best statement:
    sentences repeat one another too often for their probabilities to be combined as if they were independent.
    """
    count, verdict, certain, score, best = db.execute(_SUPPORT, edge).fetchone()
    inferred = db.execute(
        "SELECT max(score) FROM proposals WHERE head = ? AND relation = ? AND tail = ?", edge
    ).fetchone()[0]
    if count and verdict == 1:
        return ACCEPTED, score
    if given:
        return GIVEN, score
    if count and verdict == 0:
        return (EXTRACTED if certain else REVIEW), score
    if inferred is not None:
        return PROPOSED, inferred
    return (REJECTED, best) if count else (None, None)


def restate(db: sqlite3.Connection, triple: Edge) -> None:
    """Write the status of a triple (of merged entities) to all its rows."""
    verdict = db.execute(_VERDICT, triple).fetchone()
    strongest = db.execute(
        "SELECT max(own) FROM triples WHERE head = ? AND relation = ? AND tail = ?", triple
    ).fetchone()[0]
    if strongest is not None:
        status = strongest if verdict is None else ACCEPTED if verdict[0] else REJECTED
        db.execute(
            "UPDATE triples SET status = ? WHERE head = ? AND relation = ? AND tail = ? AND status != ?",
            (status, *triple, status),
        )


def judged(db: sqlite3.Connection, edge: Edge) -> bool:
    """Whether a decision on the triple of an edge stands."""
    head, relation, tail = edge
    key = (canonical(db, head), relation, canonical(db, tail))
    return db.execute(_VERDICT, key).fetchone() is not None


def canonical(db: sqlite3.Connection, entity: int) -> int:
    """The entity that an entity is merged into; itself, where it isn't."""
    row = db.execute("SELECT merged_into FROM entities WHERE number = ?", (entity,)).fetchone()
    return row[0] if row and row[0] else entity


def regroup(db: sqlite3.Connection, entities: Iterable[int]) -> None:
    """Decide anew which entities are one, in everything that these are bound to, and move their triples."""
    members, bonds = _component(db, entities)
    groups = _united(members, bonds)
    preferred = {other: decision for _, other, decision, together, _ in bonds if decision and together}
    moved: dict[int, int] = {}
    for group in groups:
        real = [member for member in group if member > 0]
        if real:
            chosen = _named(db, real, preferred, [-member for member in group if member < 0])
            moved |= {member: 0 if member == chosen else chosen for member in real}
    _move(db, moved)


def _component(db: sqlite3.Connection, start: Iterable[int]) -> tuple[list[int], list[tuple]]:
    seen, queue, bonds = set(start), list(start), set()
    while queue:
        at = queue.pop()
        found = db.execute(
            "SELECT one, other, decision, together, score FROM bonds WHERE one = ? UNION "
            "SELECT one, other, decision, together, score FROM bonds WHERE other = ?",
            (at, at),
        ).fetchall()
        bonds.update(found)
        for one, other, *_ in found:
            for member in (one, other):
                if member not in seen:
                    seen.add(member)
                    queue.append(member)
    return sorted(seen), sorted(bonds)


def _united(members: list[int], bonds: list[tuple]) -> list[list[int]]:
    """Groups by union-find: first what reviewers decided, the latest first, so that it always holds; then the models'
    bonds, the best first, where no decision keeps the two apart. No entity makes one of two entries of the catalogue:
    that these are the same, only the catalogue says.
    """
    parent = {member: member for member in members}
    entry = {member: member < 0 for member in members}
    """Whether the group of a root has one."""
    enemies: dict[int, set[int]] = {member: set() for member in members}

    def root(member: int) -> int:
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    def order(bond: tuple) -> tuple:
        one, other, decision, _, score = bond
        return -decision, -score, one, other

    for one, other, _, together, _ in sorted(bonds, key=order):
        a, b = root(one), root(other)
        if a == b:
            continue
        if not together:
            enemies[a].add(b)
            enemies[b].add(a)
        elif b not in enemies[a] and not (entry[a] and entry[b] and max(one, other) > 0):
            parent[b] = a
            entry[a] = entry[a] or entry[b]
            enemies[a] |= enemies[b]
            for enemy in enemies[b]:
                enemies[enemy] = (enemies[enemy] - {b}) | {a}
    groups: dict[int, list[int]] = {}
    for member in members:
        groups.setdefault(root(member), []).append(member)
    return list(groups.values())


def entries_of(db: sqlite3.Connection, entity: int) -> list[int]:
    """Numbers of the catalogue's entries that an entity is."""
    groups = _united(*_component(db, [entity]))
    return [-member for group in groups if entity in group for member in group if member < 0]


def _named(db: sqlite3.Connection, members: list[int], preferred: dict[int, int], entries: list[int]) -> int:
    """The member whose name the group has: the one that a reviewer merged into last, one that the catalogue calls so,
    else the longest. None of it depends on the order in which documents came.
    """
    if len(members) == 1:
        return members[0]
    official = {
        row[0]
        for entry in entries
        for row in db.execute("SELECT name FROM catalogue WHERE number = ?", (entry,))
    }

    def rank(member: int) -> tuple:
        name, kind = db.execute(
            "SELECT name, word FROM entities JOIN words ON words.number = type WHERE entities.number = ?", (member,)
        ).fetchone()  # fmt: skip
        return -preferred.get(member, 0), name not in official, -len(name), name, kind

    return min(members, key=rank)


def _move(db: sqlite3.Connection, into: dict[int, int]) -> None:
    """Merge each entity into the given one (0: into none), with all triples in which it was said."""
    edges, given, old = set(), set(), set()
    changed = []
    for entity, target in into.items():
        row = db.execute("SELECT merged_into FROM entities WHERE number = ?", (entity,)).fetchone()
        if row is None or row[0] == target:
            continue
        changed.append((target, entity))
        for triple in _said_of(db, entity, row[0] or entity):
            head, relation, tail, said_head, said_tail, was_given = triple
            edge = (said_head or head, relation, said_tail or tail)
            edges.add(edge)
            old.add((head, relation, tail))
            if was_given:
                given.add(edge)
            db.execute(f"DELETE FROM triples WHERE {_KEY}", triple[:5])
    # A verdict on a triple counts for what its entities are merged into: triples that stay may gain one, or lose it.
    entities = [entity for _, entity in changed]
    old |= _judged(db, entities)
    db.executemany("UPDATE entities SET merged_into = ? WHERE number = ?", changed)
    settle(db, edges, given)
    old |= _judged(db, entities)
    for triple in old:
        restate(db, triple)


def _said_of(db: sqlite3.Connection, entity: int, counted_for: int) -> list[tuple]:
    """Rows of triples in which an entity itself was said; now they count for `counted_for`."""
    said = 0 if entity == counted_for else entity
    columns = "head, relation, tail, said_head, said_tail, given"
    return db.execute(
        f"SELECT {columns} FROM triples WHERE head = ?1 AND said_head = ?2 UNION "
        f"SELECT {columns} FROM triples WHERE tail = ?1 AND said_tail = ?2",
        (counted_for, said),
    ).fetchall()


def _judged(db: sqlite3.Connection, entities: Iterable[int]) -> set[Edge]:
    """Triples on which there is a verdict that names one of these entities or of those merged with it."""
    if db.execute("SELECT 1 FROM verdicts LIMIT 1").fetchone() is None:
        return set()
    found = set()
    for entity in {canonical(db, entity) for entity in entities}:
        for head, relation, tail in db.execute(
            f"SELECT head, relation, tail FROM verdicts WHERE head IN ({MEMBERS.format('?1')}) "
            f"OR tail IN ({MEMBERS.format('?1')})",
            (entity,),
        ).fetchall():
            found.add((canonical(db, head), relation, canonical(db, tail)))
    return found


def clear(db: sqlite3.Connection, entities: Iterable[int]) -> None:
    """Remove those of the entities of which nothing is said any more, and regroup what they held together."""
    for entity in entities:
        if db.execute(
            "SELECT EXISTS (SELECT 1 FROM mentions WHERE entity = ?1) "
            "OR EXISTS (SELECT 1 FROM mentions WHERE found = ?1 AND found != entity) "
            "OR EXISTS (SELECT 1 FROM bonds WHERE one = ?1 AND decision) "
            "OR EXISTS (SELECT 1 FROM bonds WHERE other = ?1 AND decision) "
            "OR EXISTS (SELECT 1 FROM verdicts WHERE head = ?1) OR EXISTS (SELECT 1 FROM verdicts WHERE tail = ?1)",
            (entity,),
        ).fetchone()[0] or _said_of(db, entity, canonical(db, entity)):
            continue
        near, _ = _component(db, [entity])
        db.execute("DELETE FROM bonds WHERE one = ?1 OR other = ?1", (entity,))
        db.execute("DELETE FROM suggested WHERE entity = ?", (entity,))
        _move(db, {member: 0 for member in near if member > 0 and canonical(db, member) == entity})
        db.execute("DELETE FROM entities WHERE number = ?", (entity,))
        regroup(db, [member for member in near if member != entity])


def status_name(number: int) -> str:
    """The status of a number in the file, which somebody may have damaged: then it counts as rejected."""
    return STATUSES[number] if 0 <= number < len(STATUSES) else STATUSES[REJECTED]
