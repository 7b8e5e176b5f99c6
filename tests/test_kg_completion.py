"""Relation inference: what is found from one and five triples, what speaks for it, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from kg_family import QUICK, citizens, taught, world
from kg_graphs import ACME, ADA, LONDON, small

from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.domains.kg.completion.completion import Completion
from quickstudy.domains.kg.completion.embedding import Embedding, joined, train, turned
from quickstudy.domains.kg.completion.evidence import Known, Pairs, weigh
from quickstudy.domains.kg.completion.graph import Graph
from quickstudy.domains.kg.completion.paths import NONE, Paths, lead, paths
from quickstudy.domains.kg.completion.propose import graph_of, key_of, propose
from quickstudy.domains.kg.completion.tasks import LIST, episode, pairs_of, plays
from quickstudy.domains.kg.schema import RelationType

PEOPLE = citizens()


def graph() -> Graph:
    return Graph.of(*world())


# -- The graph and its paths


def test_a_graph_is_walked_from_both_ends():
    found = Graph.of([("a", "r", "b"), ("a", "r", "c"), ("c", "s", "a"), ("a", "r", "b")])
    assert len(found.triples) == 3, "each triple once"
    slot, end = found.around(found.number("a"))
    assert [(found.slot_name(int(s)), found.entities[e]) for s, e in zip(slot, end, strict=True)] == [
        ("r", "b"), ("r", "c"), ("s⁻¹", "c"),
    ]  # fmt: skip
    walk, ends, chance = found.follow(np.array([0, 1]), np.array([0, 0]), 10)
    assert walk.tolist() == [0, 0] and ends.tolist() == [1, 2] and chance.tolist() == [0.5, 0.5]
    assert found.follow(np.array([0]), np.array([0]), 1)[1].size == 0, "too many edges to choose from"


def test_paths_lead_from_heads_to_tails_and_on_from_others():
    here = graph()
    head, tail = (np.array([here.number(name)]) for name in PEOPLE[0])
    some = paths(here, head, tail)
    names = [
        tuple(here.slot_name(int(slot)) for slot in pair if slot != NONE)
        for pair in zip(some.first, some.second, strict=True)
    ]
    which = names.index(("born in", "lies in"))
    one = Paths(*(part[which : which + 1] for part in some))
    others = np.array([here.number(name) for name, _ in PEOPLE[1:6]])
    found = lead(here, one, others)[0]
    assert [here.entities[i] for i in found.argmax(1)] == [land for _, land in PEOPLE[1:6]]
    assert np.allclose(found.sum(1), 1), "one city, one land: certain"
    assert np.all(lead(here, some, others).sum(-1) <= 1 + 1e-9), "chances"
    hidden = [here.relation("lies in"), here.relation("lies in") + len(here.relations)]
    assert not np.isin(paths(here, head, tail, hidden).second, hidden).any()


def test_the_score_is_linear_in_the_relation():
    draw = torch.Generator().manual_seed(0)
    head, relation, tail = torch.randn(3, 5, 8, generator=draw)
    assert torch.allclose(
        (turned(head, relation) * tail).sum(-1), (joined(head, tail) * relation).sum(-1), atol=1e-5
    )


def test_vectors_are_the_same_from_the_same_seed_and_tell_tails_apart():
    here = graph()
    told = []
    one, other = (train(here, QUICK, seed=3, progress=lambda *step: told.append(step)) for _ in range(2))
    assert torch.equal(one.entities, other.entities) and torch.equal(one.relations, other.relations)
    assert told[-1][1] < told[0][1], "the loss falls"
    gone = train(here.without([0]), QUICK, seed=3)
    assert not gone.relations[0].any(), "a relation without triples has no vector"


# -- Signs and episodes


def test_a_relation_played_as_new_is_not_seen():
    here = graph()
    known, relation = Known(here, train(here, QUICK)), here.relation("born in")
    play = next(iter(plays(pairs_of(here, relation), 2, most=6, times=1, seed=[0], hidden=(relation,))))
    without = Known(here.without([relation]), Embedding(known.embedding.entities, known.embedding.relations))
    seen, unseen = (
        weigh(k, play.support, play.query.heads, hidden)
        for k, hidden in ((known, (relation,)), (without, (relation,)))
    )
    # All but how rare a slot is, which is of the whole graph.
    for name in (
        "known triples",
        "type",
        "frequent in types",
        "frequent in slots",
        "paths",
        "telling paths",
        "neighbour",
    ):
        i = known.signs.index(name)
        assert torch.allclose(seen[..., i], unseen[..., i], atol=1e-5), name


def test_an_episode_ranks_each_example_by_the_others():
    known, relation = taught().known, taught().known.graph.relation("works in")
    pairs = pairs_of(known.graph, relation)
    (three,) = plays(pairs, 3, most=4, times=1, seed=[1], hidden=(relation,))
    made = episode(known, three)
    assert made.support.x.shape == (3, LIST, len(known.signs)) and made.query.x.shape[0] == 4
    assert not made.support.y.any() and not made.query.y.any(), "the right one is the first"
    (one,) = plays(pairs, 1, most=4, times=1, seed=[1], hidden=(relation,))
    assert not episode(known, one).support.mask.any(), "a single example has no others"
    assert np.array_equal(one.query.heads, three.query.heads), "shots are compared on the same triples"


# -- What comes of it


@pytest.mark.parametrize(("shots", "least"), [(1, 0.3), (5, 0.6)])
def test_a_new_relation_is_found_from_a_few_triples(shots, least):
    relation = taught().adapt("citizen of", PEOPLE[:shots])
    right = [relation.rank(head)[0].tail == land for head, land in PEOPLE[5:]]
    assert np.mean(right) > least, "chance is a quarter of all lands, one in sixty of all entities"
    best = relation.rank(PEOPLE[7][0])[0]
    assert "paths" in best.why and "born in → lies in" in best.why
    assert 0 < best.score <= 1


def test_a_support_pair_is_not_proposed_again_and_heads_are_like_those_of_the_examples():
    relation = taught().adapt("citizen of", PEOPLE[:5])
    found = relation.propose(most=20)
    assert len(found) == 20 and [one.score for one in found] == sorted(
        (one.score for one in found), reverse=True
    )
    assert all(one.head.startswith("person") and one.tail.startswith("land") for one in found)
    assert not {(one.head, one.tail) for one in found} & set(PEOPLE[:5])
    assert relation.propose([PEOPLE[9][0]], each=3)[0].head == PEOPLE[9][0]
    assert relation.propose(least=1.1) == []


def test_the_schema_says_what_may_be_joined():
    relation = taught().adapt("citizen of", PEOPLE[:1], RelationType(head=("person",), tail=("land",)))
    assert {one.tail.split()[0] for one in relation.rank("person 20")} == {"land"}
    with pytest.raises(DataError, match=r"the head of .* is person; the schema asks for city or firm"):
        taught().adapt("citizen of", PEOPLE[:1], RelationType(head=("city", "firm")))
    with pytest.raises(DataError, match=r'no entity of the graph is a \'persn\'. Did you mean "person"'):
        taught().adapt("citizen of", PEOPLE[:1], RelationType(head=("persn",)))
    # Of what the schema lets be a tail the graph may have no example yet.
    wide = taught().adapt("citizen of", PEOPLE[:1], RelationType(head=("person",), tail=("realm", "land")))
    assert {one.tail.split()[0] for one in wide.rank("person 20")} == {"land"}
    with pytest.raises(DataError, match=r"no entity of the graph is a 'realm' or 'isle'\.$"):
        taught().adapt("citizen of", PEOPLE[:1], RelationType(tail=("realm", "isle")))
    # One land alone may be a tail, and it is taken: nothing is left to propose.
    only = replace(relation, tails=np.arange(len(relation.tails)) == relation.support.tails[0])
    assert only.rank(PEOPLE[0][0]) == []


def test_what_cannot_be_is_refused():
    learned = taught()
    with pytest.raises(DataError, match=r'no entity \'persn 1\'. Did you mean "person 1"'):
        learned.adapt("citizen of", [("persn 1", "land 0")])
    with pytest.raises(DataError, match="'born in' already, with 40 triples"):
        learned.adapt("born in", [("person 1", "city 1")])
    with pytest.raises(DataError, match="has no example"):
        learned.adapt("citizen of", [])
    with pytest.raises(DataError, match="stands there twice"):
        learned.adapt("citizen of", [PEOPLE[0], PEOPLE[0]])
    with pytest.raises(DataError, match="no entity 'nobody'"):
        learned.adapt("citizen of", PEOPLE[:1]).rank("nobody")
    with pytest.raises(DataError, match="no triples"):
        Completion.learn([])
    with pytest.raises(DataError, match="one entity, a, has nothing"):
        Completion.learn([("a", "is", "a")])
    with pytest.raises(DataError, match=r"triple 1 is .* three names"):
        Completion.learn([("a", "r", "b"), ("a", "r", "")])
    with pytest.raises(DataError, match="can be played as a new one"):
        Completion.learn([("a", "r", "b"), ("b", "r", "c")])
    with pytest.raises(DataError, match="give a scorer"):
        Completion.learn(*world(), played=(), training=QUICK)
    few = [(f"person {i}", "owns", "firm 0") for i in range(4)]
    with pytest.raises(DataError, match=r"'owns' can't be played .* has 4 triples, .* needs 6 or more"):
        Completion.learn([*world()[0], *few], played=["owns"], training=QUICK)
    with pytest.raises(DataError, match=r'no relation \'bornin\'. Did you mean "born in"'):
        Completion.learn(*world(), played=["bornin"])


def test_a_tiny_graph_learns_nothing_of_its_own_but_takes_what_an_earlier_one_taught():
    few = [("a", "r", "b"), ("b", "r", "c"), ("c", "s", "a"), ("d", "r", "c")]
    learned = Completion.learn(few, played=(), training=QUICK, scorer=taught().scorer)
    (best, *_) = learned.adapt("t", [("a", "c")]).rank("d")
    assert best.tail in {"a", "b", "c", "d"}


# -- It lives in a folder


def test_what_was_saved_ranks_alike(tmp_path):
    learned = taught()
    learned.save(tmp_path / "learned")
    again = Completion.load(tmp_path / "learned")
    one, other = (c.adapt("citizen of", PEOPLE[:2]).rank("person 30") for c in (learned, again))
    assert one == other
    record = json.loads((tmp_path / "learned" / "record.json").read_text())
    assert record["kind"] == "completion"
    record["entities"] = record["entities"][:-1]
    (tmp_path / "learned" / "record.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="whole completion"):
        Completion.load(tmp_path / "learned")


class Alike:
    """A former of one's own, as a network over the graph would be."""

    name = "alike"

    def scores(self, known: Known, support: Pairs, heads: np.ndarray) -> torch.Tensor:
        return (known.directions[support.tails].mean(0) @ known.directions.t()).expand(len(heads), -1)


def test_a_former_of_ones_own_is_one_more_sign(tmp_path):
    known = taught().known
    more = Known(known.graph, known.embedding, (*known.formers, Alike()))
    support = Pairs(*(np.array([known.graph.number(name)]) for name in PEOPLE[0]))
    found = weigh(more, support, support.heads)
    assert more.signs[-2] == "alike" and found.shape[-1] == len(known.signs) + 1
    with pytest.raises(ModelError, match="'alike' isn't one that can be saved"):
        Completion(more, taught().scorer).save(tmp_path / "own")


# -- Into the store


def test_what_is_proposed_stays_apart_from_what_was_said(tmp_path):
    triples, types = world()
    with small(tmp_path / "graph.db") as store:
        store.add(((h, types[h][0]), r, (t, types[t][0])) for h, r, t in triples)
        examples = [((head, "person"), (land, "land")) for head, land in PEOPLE[:2]]
        found = propose(
            store, "citizen of", examples, most=15, least=0.0, training=QUICK, scorer=taught().scorer
        )
        assert len(found) == 15
        assert {t[:3] for t in store.triples("proposed")} == {
            (one.head, "citizen of", one.tail) for one in found
        }
        assert all(t.inferred and t.score is not None for t in store.triples("proposed"))
        assert "citizen of" not in {t.relation for t in store.triples()}, "nothing is asserted"
        assert (ADA, "born_in", LONDON) in {t[:3] for t in store.triples()}
        first, second = (store.triple(*one[:3]) for one in found[:2])
        assert first is not None and second is not None
        store.accept(first)
        store.reject(second)
        # From what was accepted alone; what was judged isn't proposed again.
        again = propose(store, "citizen of", most=15, least=0.0, training=QUICK, scorer=taught().scorer)
        assert not {(o.head, o.tail) for o in again} & {(o.head, o.tail) for o in (first, second)}
        with pytest.raises(DataError, match="no triple of 'owns' is asserted"):
            propose(store, "owns", training=QUICK)
        with pytest.raises(DataError, match="no entity 'nobody'"):
            propose(store, "owns", [("nobody", ACME)], training=QUICK)


def test_examples_of_which_nothing_else_is_known_are_left_out(tmp_path):
    triples, types = world()
    with small(tmp_path / "graph.db") as store:
        store.add(((h, types[h][0]), r, (t, types[t][0])) for h, r, t in triples)
        strange = [(("Ann", "person"), "citizen of", ("Atlantis", "land"))]
        store.add(strange * 2 + [(("Bo", "person"), "citizen of", ("land 0", "land"))])
        options = {"training": QUICK, "scorer": taught().scorer, "least": 0.0}
        with pytest.raises(DataError, match=r"all 2 .* Ann \(person\) → Atlantis \(land\)") as refused:
            propose(store, "citizen of", **options)
        assert "\x1f" not in str(refused.value)
        known = [((head, "person"), "citizen of", (land, "land")) for head, land in PEOPLE[:2]]
        store.add(known)
        found = propose(store, "citizen of", **options)
        named = propose(store, "citizen of", [(t[0], t[2]) for t in (*strange, *known)], **options)
        assert found and named == found, "as if the others weren't there"
        with pytest.raises(DataError, match=r"no entity 'Ann \(person\)'"):
            graph_of(store, ["citizen of"]).number(key_of(("Ann", "person")))


def test_a_symmetric_relation_that_is_said_one_way_is_not_proposed_the_other(tmp_path):
    triples, types = world()
    friends = [(f"person {i}", f"person {i + 1}") for i in range(0, 6, 2)]
    both = RelationType(head=("person",), tail=("person",), symmetric=True)
    relation = taught().adapt("friend of", friends, both)
    one_way = replace(relation, symmetric=False)
    found, without = ({one.tail for one in r.rank(friends[0][1], most=100)} for r in (relation, one_way))
    assert friends[0][0] not in found and without == found | {friends[0][0]}
    with small(tmp_path / "graph.db") as store:
        store.add(((h, types[h][0]), r, (t, types[t][0])) for h, r, t in triples)
        given = [((a, "person"), (b, "person")) for a, b in friends]
        options = {"kind": both, "training": QUICK, "scorer": taught().scorer, "least": 0.0}
        first, *rest = propose(store, "friend of", given, **options)
        pairs = [frozenset((one.head, one.tail)) for one in (first, *rest)]
        assert len(set(pairs)) == len(pairs)  # once, not both ways
        one_way = propose(store, "friend of", given, **{**options, "kind": replace(both, symmetric=False)})
        ways = [frozenset((one.head, one.tail)) for one in one_way]
        assert len(set(ways)) < len(ways)
        store.add([(first.tail, "friend of", first.head)])
        again = propose(store, "friend of", given, **options)
        assert again and first[:3] not in {one[:3] for one in again}
        assert {one[:3] for one in rest} <= {one[:3] for one in again}


def test_entities_of_one_name_are_told_apart_by_their_types(tmp_path):
    with small(tmp_path / "graph.db") as store:
        store.add([(("Acme", "film"), "shot_in", LONDON)])
        here = graph_of(store)
        assert {key_of(ACME), key_of(("Acme", "film"))} <= set(here.entities)
        assert here.types_of(here.number(key_of(ACME))) == ["firm"]
