"""Relations from a few marked pairs: what a pair's vector reads, what is said, in which direction, and how sure."""

from dataclasses import replace

import pytest
import torch

from quickstudy.core.episode import Labelled
from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.domains.kg.document import Annotated, Document, Relation, Span
from quickstudy.domains.kg.relations.certainty import (
    Certainty,
    evidence,
    learn_certainty,
    likeness,
    own_certainty,
    prototypes,
)
from quickstudy.domains.kg.relations.classifier import learn_relations, maml_head
from quickstudy.domains.kg.relations.examples import Example, labelled_pairs
from quickstudy.domains.kg.relations.experience import learn_relation_prior
from quickstudy.domains.kg.relations.names import named
from quickstudy.domains.kg.relations.pairs import Pair, PairEncoder, candidates, marked, pack, pack_once
from quickstudy.domains.kg.relations.prior import RelationPrior
from quickstudy.domains.kg.relations.strangers import strangers
from quickstudy.domains.kg.relations.tune import Earlier, RelationTuning, tune_relations
from quickstudy.domains.kg.schema import Schema
from quickstudy.encoders.text import load_encoder
from quickstudy.nets.lora import LoRA
from quickstudy.nets.span_bert import BETWEEN, HEAD, TAIL

PEOPLE = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal"]
FIRMS = ["Acme", "Bolt", "Corp", "Dyne", "Enco", "Fizz", "Gale", "Hexa"]
SAID = {
    "works for": "{} is employed as a clerk by {}",
    "founded": "{} once set up and founded {}",
    "sued": "{} went to court and sued {} !",
    "praised": "{} wrote a warm letter in praise of {}",
}


def sentence(kind: str, number: int) -> Pair:
    person, firm = PEOPLE[number % 8], FIRMS[(number * 3 + number // 8) % 8]
    text = SAID[kind].format(person, firm)
    start = text.rindex(firm)
    return Pair(text, (0, len(person)), (start, start + len(firm)))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny-bert", cache=False, dtype="float32")


@pytest.fixture(scope="module")
def prior(encoder):
    pairs = PairEncoder(encoder)
    x = pairs.encode([sentence(kind, i) for kind in SAID for i in range(8)])
    return RelationPrior.estimate(
        pairs, [Labelled.of(x, torch.arange(4).repeat_interleave(8))], directions=16
    )


SCHEMA = Schema.of(
    {
        "entities": ["Person", "Firm"],
        "relations": {
            "works for": {"head": "Person", "tail": "Firm"},
            "founded": {"head": "Person", "tail": "Firm"},
            "sued": {},
            "knows": {"head": "Person", "tail": "Person", "symmetric": True},
        },
    }
)


def test_roles_mark_head_tail_and_what_lies_between(encoder):
    [row] = pack(encoder, [Pair("ab cd ef", (6, 8), (0, 2))])
    assert row[:, 1].tolist() == [0, TAIL, TAIL, *[BETWEEN] * 4, HEAD, HEAD, 0]
    assert (row[:, 0] > 0).all()


def test_overlapping_marks_have_both_roles_and_nothing_between(encoder):
    [row] = pack(encoder, [Pair("abc", (0, 3), (1, 2))])
    assert row[:, 1].tolist() == [0, HEAD, HEAD | TAIL, HEAD, 0]


def test_a_mark_outside_of_its_text_is_refused(encoder):
    with pytest.raises(DataError, match="from 2 to 9 in a text of 3"):
        pack(encoder, [Pair("abc", (0, 1), (2, 9))])


def test_vectors_do_not_depend_on_the_batch(encoder):
    pairs = PairEncoder(encoder)
    several = [sentence(kind, i) for kind in SAID for i in range(3)]
    together = pairs.encode(several)
    alone = torch.cat([pairs.encode([pair]) for pair in several])
    assert torch.allclose(together, alone, atol=1e-5)
    assert pairs.encode([]).shape == (0, pairs.dim)


def test_pairs_of_one_text_share_a_pass(encoder):
    text = "Ann met Bob and Cleo, who left Acme for Bolt plc."
    marks = [(text.index(w), text.index(w) + len(w)) for w in ("Ann", "Bob", "Cleo", "Acme", "Bolt plc")]
    several = [Pair(text, a, b) for a in marks for b in marks if a != b] + [sentence("sued", 0)]
    pairs = PairEncoder(encoder)
    ids, of, roles = pack_once(encoder, several)
    assert len(ids) == 2 and of.tolist() == [0] * 20 + [1] and roles.shape == (21, ids.shape[1])
    assert torch.allclose(pairs.encode(several), pairs.net(pack(encoder, several)), atol=1e-5)


@pytest.mark.parametrize(
    ("before", "between", "after"), [(90, 2, 0), (60, 9, 90), (0, 90, 0), (90, 90, 90), (15, 40, 30)]
)
def test_both_marks_are_read_of_a_pair_that_is_longer_than_an_encoder_reads(encoder, before, between, after):
    assert encoder.max_length < 600
    text = f"{'ab ' * before * 9}xy {'cd ' * between * 9}zw{' ef' * after * 9}"
    marks = [(text.index(mark), text.index(mark) + 2) for mark in ("xy", "zw")]
    long, short = Pair(text, *marks), sentence("sued", 0)
    there, fits = pack(encoder, [long, short])
    [alone] = pack(encoder, [short])
    assert torch.equal(fits[: len(alone)], alone) and not fits[len(alone) :].any()
    for mark, words in ((HEAD, "xy"), (TAIL, "zw")):
        expected = encoder.encodings([words])[0].ids[1:-1]
        assert (there[there[:, 1] == mark, 0] - 1).tolist() == expected
    vectors = PairEncoder(encoder).encode([long, long.turned()])
    size = encoder.dim
    assert vectors[:, : 2 * size].reshape(-1, size).norm(dim=-1).min() > 0.1


def test_marks_that_are_longer_than_an_encoder_reads_keep_their_beginnings(encoder):
    text = "xy" * 900
    for pair in (Pair(text, (0, 850), (860, 1800)), Pair(text, (0, 1800), (1700, 1710))):
        [row] = pack(encoder, [pair])
        assert (row[:, 1] == HEAD).any() and (row[:, 1] == TAIL).any() and len(row) <= encoder.max_length


def test_documents_are_read_together_as_one_by_one(prior, encoder):
    model = learned(prior, encoder, precision=0.5)
    documents = [
        Annotated(Document(str(i), pair.text), (Span(*pair.head, "Person"), Span(*pair.tail, "Firm")))
        for i, pair in enumerate([sentence("sued", 5), sentence("founded", 6), sentence("works for", 7)])
    ]
    for one, together in zip(documents, model.extract_all(documents, least=0.0), strict=True):
        alone = model.extract(one, least=0.0)
        assert [said[:3] for said in alone] == [said[:3] for said in together] != []
        for a, b in zip(alone, together, strict=True):
            assert abs(a.probability - b.probability) < 1e-4


def test_turning_a_pair_swaps_head_and_tail_parts(encoder):
    pairs, pair = PairEncoder(encoder), sentence("sued", 0)
    [there], [back] = pairs.encode([pair]), pairs.encode([pair.turned()])
    size = encoder.dim
    assert torch.allclose(there[:size], back[size : 2 * size], atol=1e-6)
    assert torch.allclose(there[2 * size : 3 * size], back[2 * size : 3 * size], atol=1e-6)


def test_states_from_a_lower_layer_give_the_same_vectors(encoder):
    net = PairEncoder(encoder).net
    net.start = 1
    x = pack(encoder, [sentence(kind, 1) for kind in SAID])
    assert torch.allclose(net(x), net(net.below(x)), atol=5e-3)


def test_a_long_text_is_cut_around_the_pair():
    text = "x " * 1000 + "Ann met Bob" + " y" * 1000
    pair = marked(text, (2000, 2003), (2008, 2011))
    assert pair.text[slice(*pair.head)] == "Ann" and pair.text[slice(*pair.tail)] == "Bob"
    assert len(pair.text) < 700


def test_candidates_stay_in_a_sentence_unless_asked():
    text = "Ann met Bob. Cleo left Acme."
    spans = [Span(text.index(w), text.index(w) + len(w), "Person") for w in ("Ann", "Bob", "Cleo", "Acme")]
    annotated = Annotated(Document("d", text), tuple(spans))
    inside = {tuple(place) for place, _ in candidates(annotated)}
    assert inside == {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert len(list(candidates(annotated, across=1))) == 12
    for place, pair in candidates(annotated, across=1):
        assert pair.text[slice(*pair.head)] == annotated.of(place.head)


def test_overlapping_spans_are_no_candidates():
    annotated = Annotated(Document("d", "New York Times"), (Span(0, 8, "Person"), Span(0, 14, "Firm")))
    assert not list(candidates(annotated))


def learned(prior, encoder, kinds=("works for", "founded", "sued"), shots=4, **more):
    examples = [Example(sentence(kind, i), kind, "Person", "Firm") for kind in kinds for i in range(shots)]
    return learn_relations(examples, SCHEMA, prior, encoder, **more)


@pytest.mark.parametrize("head", [None, "maml"])
def test_relations_are_learned_from_four_examples(prior, encoder, head):
    maml = maml_head(2, prior.dim) if head else None
    classifier = learned(prior, encoder, maml=maml)
    asked = [(kind, sentence(kind, i)) for kind in classifier.types for i in range(4, 8)]
    best, probability = classifier.judge([pair for _, pair in asked])
    right = [classifier.types[int(b)] == kind for b, (kind, _) in zip(best, asked, strict=True)]
    assert sum(right) >= 10
    assert ((probability > 0) & (probability < 1)).all()


def test_what_the_types_forbid_is_never_said(prior, encoder):
    classifier = learned(prior, encoder)
    pair = sentence("works for", 5)
    admitted = torch.tensor([[kind == "founded" for kind in classifier.types], [False] * 3])
    best, probability = classifier.judge([pair, pair], admitted)
    assert classifier.types[int(best[0])] == "founded"
    assert probability[1] == 0


def document(kind: str, number: int, types=("Person", "Firm")) -> Annotated:
    pair = sentence(kind, number)
    spans = (Span(*pair.head, types[0]), Span(*pair.tail, types[1]))
    return Annotated(Document(f"{kind} {number}", pair.text), spans)


def met(number: int) -> Annotated:
    """A sentence that names a person and a firm, and relates them by nothing."""
    person, firm = ("Ann", "Bob", "Cleo", "Dan", "Eve")[number % 5], ("Acme", "Bolt", "Corp")[number % 3]
    text = f"{person} once walked past the house of {firm} ."
    spans = Span(0, len(person), "Person"), Span(text.index(firm), text.index(firm) + len(firm), "Firm")
    return Annotated(Document(f"met {number}", text), spans, complete=True)


def test_what_is_merely_named_together_is_not_related(prior, encoder):
    kinds = ("works for", "founded", "sued")
    related = [Example(sentence(kind, i), kind, "Person", "Firm", i) for kind in kinds for i in range(4)]
    unrelated = [e._replace(origin=10 + i) for i in range(8) for e in labelled_pairs(met(i))]
    model = learn_relations([*related, *unrelated], SCHEMA, prior, encoder, precision=0.6)
    assert model.head is not None and {e.type for e in unrelated} == {None}
    assert not any(model.extract(met(i)) for i in range(8, 15))
    for kind in kinds:
        pair = sentence(kind, 9)
        one = Annotated(Document("new", pair.text), (Span(*pair.head, "Person"), Span(*pair.tail, "Firm")))
        [said] = model.extract(one, least=0.3)
        assert said.type == kind
    left = model.without(0)
    assert left is not None and left.head is not None
    again = learn_relations(
        [e for e in (*related, *unrelated) if e.origin != 0], SCHEMA, prior, encoder, precision=0.6
    )
    assert again.head is not None and torch.allclose(left.head.weights, again.head.weights, atol=1e-4)


def test_a_head_speaks_of_what_types_allow(prior, encoder):
    related = [Example(sentence("sued", i), "sued", "Person", "Firm", i) for i in range(6)]
    unrelated = [e._replace(origin=10 + i) for i in range(6) for e in labelled_pairs(met(i))]
    model = learn_relations([*related, *unrelated], SCHEMA, prior, encoder)
    assert model.head is not None
    x, ends = model.x[:2], [("Person", "Firm"), ("Person", "Firm")]
    log = model.head.logits(x, ends, torch.tensor([[True], [False]]))
    assert torch.allclose(log.exp().sum(-1), torch.ones(2), atol=1e-4)
    assert log[0, 0] > log[0, 1] and log[1, 0] < -1000
    odds = model.log_odds(x[:1], "sued", torch.tensor([[True]]), ends[:1])
    assert torch.allclose(odds.sigmoid(), log[0, :1].exp(), atol=1e-4)


def test_types_without_unrelated_examples_vouch_for_nothing(prior, encoder):
    related = [Example(sentence(k, i), k, "Person", "Firm", i) for k in ("sued", "founded") for i in range(6)]
    known = [e._replace(origin=10 + i) for i in range(6) for e in labelled_pairs(met(i))]
    firms = [e._replace(head_type="Firm", tail_type="Firm") for e in known]
    schema = Schema.of({"entities": ["Person", "Firm"], "relations": ["sued", "founded"]})
    model = learn_relations([*related, *firms], schema, prior, encoder)
    assert model.head is not None and model.head.kinds == (("Firm", "Firm"),)
    x, ends = model.x[:4], [("Person", "Firm")] * 4
    admitted = torch.ones(4, 2, dtype=torch.bool)
    bare = model.head.logits(x, ends, admitted)[:, 0].exp()
    odds = model.log_odds(x, "sued", admitted, ends)
    assert (odds.sigmoid() <= bare + 1e-5).all()
    assert torch.allclose(
        odds.sigmoid(), torch.minimum(bare, model.log_odds(x, "sued", admitted).sigmoid()), atol=1e-4
    )


def test_a_relation_holds_in_one_direction(prior, encoder):
    classifier = learned(prior, encoder)
    for number in range(4, 8):
        said = classifier.extract(document("sued", number), least=0.0)
        assert len([s for s in said if s.type == "sued"]) <= 1


def test_a_symmetric_relation_is_said_once(prior, encoder):
    text = "Ann has known Bob"
    pair = Pair(text, (0, 3), (14, 17))
    examples = [Example(pair, "knows"), Example(pair.turned(), "knows")]
    classifier = learn_relations(examples, SCHEMA, prior, encoder)
    assert not len(classifier.unrelated)  # nothing is unrelated for being turned round
    spans = (Span(0, 3, "Person"), Span(14, 17, "Person"))
    said = classifier.extract(Annotated(Document("d", text), spans), least=0.0)
    assert len(said) == 1 and said[0].type == "knows"


def test_turned_examples_are_negatives(prior, encoder):
    classifier = learned(prior, encoder)
    assert len(classifier.unrelated) == 12
    pairs = [sentence(kind, number) for kind in classifier.types for number in range(4, 8)]
    _, probability = classifier.judge(pairs)
    _, back = classifier.judge([pair.turned() for pair in pairs])
    assert probability.mean() > back.mean() and (probability > back).float().mean() > 0.7


def test_what_is_related_the_other_way_round_is_no_negative(prior, encoder):
    relations = {"works for": {}, "employs": {}, "knows": {"symmetric": True}}
    schema = Schema.of({"entities": ["Person", "Firm"], "relations": relations})
    works = [Example(sentence("works for", i), "works for", "Person", "Firm") for i in range(3)]
    employs = [Example(e.pair.turned(), "employs", "Firm", "Person") for e in works[:2]]
    knows = [Example(works[2].pair, "knows", "Person", "Firm")]
    model = learn_relations([*works, *employs], schema, prior, encoder)
    assert [e.pair for e in model.others] == [works[2].pair.turned()]
    model = learn_relations([*works, *employs, *knows], schema, prior, encoder)
    assert model.others == ()  # what one knows knows one


def test_a_blank_prior_is_centred_where_there_are_two_kinds(encoder):
    pairs = [sentence("sued", i) for i in range(3)] + [sentence("founded", 0)]
    read = PairEncoder(encoder).encode(pairs)
    one = RelationPrior.blank(encoder, pairs[:3], ["sued"] * 3)
    assert not one.center.any() and torch.allclose(one.encode(pairs[:1], encoder).norm(), torch.tensor(1.0))
    for kind in ("founded", None):
        both = RelationPrior.blank(encoder, pairs, [*["sued"] * 3, kind])
        assert both.untaught and torch.allclose(both.center, read.mean(0), atol=1e-5)


def test_what_would_be_learned_without_a_document_follows_its_centre_and_its_pairs(encoder):
    """Without a prior; one document alone says that they are employed, and two of others that nothing is meant."""
    schema = Schema.of({"entities": ["Person", "Firm"], "relations": {"works for": {}, "employs": {}}})
    works = [Example(sentence("works for", i), "works for", "Person", "Firm", i) for i in range(4)]
    employs = [Example(e.pair.turned(), "employs", "Firm", "Person", 9) for e in works[:2]]
    named = [e._replace(origin=10 + i) for i in range(2) for e in labelled_pairs(met(i))]

    def learned(examples):
        kinds = [e.type for e in examples]
        blank = RelationPrior.blank(encoder, [e.pair for e in examples], kinds)
        return learn_relations(examples, schema, blank, encoder)

    for examples in ([*works, *employs, *named], [*works, *employs], works):
        model = learned(examples)
        assert model.labelled == len(examples)
        for origin in sorted({e.origin for e in examples}):
            left, fresh = model.without(origin), learned([e for e in examples if e.origin != origin])
            assert left is not None and set(left.others) == set(fresh.others)
            assert torch.allclose(left.prior.center, fresh.prior.center, atol=1e-5)
            assert torch.allclose(left.x, fresh.x, atol=1e-4) and left.types == fresh.types
            assert torch.allclose(left.certainty.weights, fresh.certainty.weights, atol=1e-3)
            asked = [sentence("works for", 6), sentence("works for", 7).turned()]
            for a, b in zip(left.judge(asked), fresh.judge(asked), strict=True):
                assert torch.allclose(a.float(), b.float(), atol=1e-3)


def test_extraction_is_sure_from_the_stated_precision_on(prior, encoder):
    classifier = learned(prior, encoder, precision=0.6)
    said = [s for i in range(4, 8) for s in classifier.extract(document("founded", i), least=0.0)]
    assert said and all(s.sure == (s.probability >= 0.6) for s in said)
    assert classifier.extract(Annotated(Document("d", "Nothing here."))) == []


def test_labelled_documents_give_unrelated_pairs_of_their_sentences_alone():
    text = "Ann sued Acme near Bob. Cleo met Dan."
    spans = tuple(
        Span(text.index(w), text.index(w) + len(w), "Person") for w in ("Ann", "Acme", "Bob", "Cleo", "Dan")
    )
    annotated = Annotated(Document("d", text), spans, (Relation(0, 1, "sued"),))
    found = labelled_pairs(annotated)
    words = [(e.pair.text[slice(*e.pair.head)], e.pair.text[slice(*e.pair.tail)], e.type) for e in found]
    assert ("Ann", "Acme", "sued") in words
    assert (
        "Acme",
        "Ann",
        None,
    ) not in words  # turned round it is made a negative later, where it isn't symmetric
    assert ("Bob", "Ann", None) in words
    assert not any("Cleo" in w for w in words)
    assert len(labelled_pairs(replace(annotated, complete=True))) == len(found) + 2


@pytest.mark.parametrize(
    ("examples", "precision", "said"),
    [
        ([], 0.9, "no example of any relation"),
        ([Example(Pair("ab", (0, 1), (1, 2)), "suedd")], 0.9, "Did you mean"),
        ([Example(Pair("ab", (0, 1), (1, 2)), "sued")], 90, "between 0 and 1"),
    ],
)
def test_what_cannot_be_learned_is_said(prior, encoder, examples, precision, said):
    with pytest.raises(DataError, match=said):
        learn_relations(examples, SCHEMA, prior, encoder, precision=precision)


def test_damping_is_the_shrunk_inverse_root_of_the_scatter():
    torch.manual_seed(0)
    x = torch.randn(40, 6) * torch.tensor([4.0, 2, 1, 1, 1, 0.5])
    y = torch.arange(4).repeat(10)
    encoder = load_encoder("tiny-bert", cache=False, dtype="float32")
    pairs = PairEncoder(encoder)
    prior = RelationPrior.estimate(pairs, [Labelled.of(x, y)], shrinkage=1.0, directions=6)
    means = torch.stack([x[y == c].mean(0) for c in range(4)]).mean(0)
    z = torch.nn.functional.normalize(x.double() - x.double().mean(0), dim=-1)
    residual = z - torch.stack([z[y == c].mean(0) for c in range(4)])[y]
    scatter = residual.t() @ residual / 36
    values, vectors = torch.linalg.eigh(scatter + scatter.diagonal().mean() * torch.eye(6).double())
    expected = torch.nn.functional.normalize(z @ (vectors * values.rsqrt()) @ vectors.t(), dim=-1)
    assert torch.allclose(prior.features(x).double(), expected, atol=2e-3)
    assert torch.allclose(prior.center, means, atol=1e-5)


def test_a_prior_comes_back_as_it_was_saved(prior, encoder, tmp_path):
    prior.save(tmp_path / "prior")
    again = RelationPrior.load(tmp_path / "prior")
    pairs = [sentence(kind, 2) for kind in SAID]
    assert torch.equal(again.encode(pairs, encoder), prior.encode(pairs, encoder))
    assert torch.equal(again.certainty.weights, prior.certainty.weights)
    with pytest.raises(CheckpointError):
        RelationPrior.load(tmp_path / "none")


def test_another_encoder_is_refused(prior, encoder):
    with pytest.raises(ModelError, match="was learned on"):
        replace(prior, identity="another").pair_encoder(encoder)


def test_certainty_tells_members_from_strangers():
    generator = torch.Generator().manual_seed(1)
    centers = torch.randn(12, 20, generator=generator)
    x = centers.repeat_interleave(20, 0) + 0.8 * torch.randn(240, 20, generator=generator)
    x, y = torch.nn.functional.normalize(x, dim=-1), torch.arange(12).repeat_interleave(20)
    certainty = learn_certainty([Labelled.of(x[:160], y[:160])], episodes=100)
    held = x[160:].view(4, 20, 20)
    mean = prototypes(held[:2, :5].reshape(10, 20), torch.arange(2).repeat_interleave(5), 2)
    inside, _ = evidence(held[:2, 5:].reshape(-1, 20) @ mean.t(), 5.0)
    outside, _ = evidence(held[2:].reshape(-1, 20) @ mean.t(), 5.0)
    assert certainty.logit(inside).sigmoid().mean() > 0.7
    assert certainty.logit(outside).sigmoid().mean() < 0.3


def test_own_examples_move_certainty_little_while_they_are_few():
    phi, _ = evidence(torch.tensor([[0.9, 0.1]]), 1.0)
    learned = Certainty()
    few = learned.refined(phi.repeat(2, 1), torch.tensor([False, False]))
    many = learned.refined(phi.repeat(500, 1), torch.tensor([False] * 490 + [True] * 10))
    assert learned.logit(phi) > few.logit(phi) > many.logit(phi) - 1e-3


@pytest.mark.parametrize("given", [False, True], ids=["examples", "with names"])
def test_an_own_example_is_judged_by_the_others_alone(monkeypatch, given):
    """All parts of the evidence are those of learning without it."""
    seen = []
    monkeypatch.setattr(Certainty, "refined", lambda self, phi, right: seen.append(phi) or self)
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    x = torch.nn.functional.normalize(
        torch.randn(7, 5, generator=generator).abs() + 2 * torch.eye(5)[y], dim=-1
    )
    names = 0.7 * torch.eye(5)[:3] + 0.1 if given else None
    own_certainty(Certainty(), x, y, x[:0], 3, names)
    [phi] = seen
    assert len(phi) == 6  # the only example of a relation says nothing
    for row in range(6):
        left = torch.arange(7) != row
        mean = prototypes(x[left], y[left], 3, names)
        shots = torch.bincount(y[left], minlength=3)
        alike = likeness(x[left], y[left], mean)
        alone, best = evidence(x[row : row + 1] @ mean.t(), shots.float(), alike=alike)
        assert int(best) == y[row]
        assert torch.allclose(phi[row], alone[0], atol=1e-5)
    assert given or phi[4, -1] == pytest.approx(1) == phi[5, -1]


def test_tuning_makes_an_adapter_that_tells_earlier_relations_apart(encoder):
    kinds = list(SAID)
    earlier = Earlier([sentence(k, i) for k in kinds for i in range(8)], [k for k in kinds for _ in range(8)])
    tuning = RelationTuning(spec=LoRA(rank=2, layers=(1,)), steps=12, rate=5e-3, ways=4, dtype="float32")
    losses = []
    adapter = tune_relations(
        [earlier], encoder, tuning, progress=lambda step, steps, loss: losses.append(loss)
    )
    assert len(losses) == 12 and sum(losses[-3:]) < sum(losses[:3])
    again = tune_relations([earlier], encoder, tuning)
    assert adapter.fingerprint == again.fingerprint
    other = tune_relations([earlier], encoder, tuning, seeds=(0, 1))
    names = {kind: named(kind) for kind in kinds}
    by_name = tune_relations([earlier._replace(named=names)], encoder, tuning)
    assert len({one.fingerprint for one in (adapter, other, by_name)}) == 3


def test_experience_holds_relations_out_for_certainty(encoder, tmp_path):
    kinds = [f"{kind} {n}" for kind in SAID for n in range(4)]
    pairs = [sentence(kind.rpartition(" ")[0], i) for kind in kinds for i in range(4)]
    strange = [sentence("praised", i).turned() for i in range(8)]
    labels = [*(k for k in kinds for _ in range(4)), *[None] * 8]
    earlier = Earlier([*pairs, *strange], labels, named={kind: named(kind) for kind in kinds})
    tuning = RelationTuning(spec=LoRA(rank=2, layers=(1,)), steps=2, dtype="float32")
    calls = []
    prior = learn_relation_prior([earlier], encoder, tuning, progress=lambda *step: calls.append(step))
    assert len(calls) == 4  # tuned on all, and again without the relations held out
    assert prior.adapter is not None and prior.record["relations"] == [16]
    prior.save(tmp_path / "prior")
    again = RelationPrior.load(tmp_path / "prior")
    few = pairs[:5]
    assert torch.allclose(again.encode(few, encoder), prior.encode(few, encoder), atol=1e-5)
    said = prior.pair_encoder(encoder).encode([named(kind) for kind in kinds])
    assert prior.naming is not None and again.naming is not None
    torch.testing.assert_close(prior.naming, said.mean(0))
    torch.testing.assert_close(again.names(said), prior.names(said), atol=1e-5, rtol=0)
    frozen = learn_relation_prior([earlier], encoder, tune_encoder=False)
    assert frozen.adapter is None and len(calls) == 4 and frozen.naming is not None
    assert learn_relation_prior([earlier._replace(named=None)], encoder, tune_encoder=False).naming is None


def test_a_name_and_a_description_make_a_pair():
    text, head, tail = named("worksFor_now", "The person has a job there.")
    assert text == "subject , works for now : object . The person has a job there."
    assert (text[slice(*head)], text[slice(*tail)]) == ("subject", "object")
    text, head, tail = named("object")
    assert text == "subject , object : object ." and text[slice(*tail)] == "object" and tail[0] == 19


def test_names_are_examples_where_earlier_relations_had_names(prior, encoder):
    pairs = prior.pair_encoder(encoder)
    examples = [Example(sentence(kind, 0), kind, "Person", "Firm") for kind in ("works for", "founded")]
    plain = learn_relations(examples, SCHEMA, prior, encoder)
    assert plain.names is None
    torch.testing.assert_close(plain.cosines(plain.x), plain.x @ plain.x.t())
    prior = replace(prior, naming=pairs.encode([named("likes"), named("hates"), named("meets")]).mean(0))
    model = learn_relations(examples, SCHEMA, prior, encoder)
    said = prior.names(pairs.encode([named(kind) for kind in model.types]))
    assert said is not None and model.types == ("works for", "founded")
    torch.testing.assert_close(said.norm(dim=-1), torch.ones(2))
    middle = torch.nn.functional.normalize(model.x + said, dim=-1)
    torch.testing.assert_close(model.cosines(model.x), model.x @ middle.t())
    # What a description says moves the answer, and only that relation's.
    content = {"entities": ["Person", "Firm"], "relations": {"works for": {}, "founded": "They began it."}}
    other = learn_relations(examples, Schema.of(content), prior, encoder)
    moved = (other.cosines(model.x) - model.cosines(model.x)).abs().amax(0)
    assert moved[0] < 1e-5 < 1e-3 < moved[1]


def test_nothing_to_tune_on_is_said(encoder):
    with pytest.raises(DataError, match="3 pairs each"):
        tune_relations([Earlier([sentence("sued", 0)], ["sued"])], encoder)


def test_a_relation_without_a_name_beside_others_that_have_one_is_said(encoder):
    kinds = ["sued", "founded"]
    pairs, labels = [sentence(k, i) for k in kinds for i in range(4)], [k for k in kinds for _ in range(4)]
    for names in ({"sued": named("sued")}, {}):
        earlier = Earlier(pairs, labels, named=names)
        with pytest.raises(DataError, match=r"has no '(founded|sued)'.*or none"):
            tune_relations([earlier], encoder)
        with pytest.raises(DataError, match="or none"):
            learn_relation_prior([earlier], encoder, tune_encoder=False)


def test_the_shipped_prior_fits_its_encoder_and_learns_from_two_examples():
    prior, minilm = RelationPrior.shipped(), load_encoder("minilm", cache=False)
    assert prior is RelationPrior.shipped()
    assert prior.adapter is not None and {one["licence"] for one in prior.record["sources"]} == {"MIT"}
    classifier = learned(prior, minilm, shots=2)
    asked = [(kind, sentence(kind, i)) for kind in classifier.types for i in range(2, 6)]
    best, _ = classifier.judge([pair for _, pair in asked])
    right = [classifier.types[int(b)] == kind for b, (kind, _) in zip(best, asked, strict=True)]
    assert sum(right) >= 11


def test_other_names_of_a_sentence_make_unrelated_pairs():
    text = "Yesterday Ann Lee left Acme for Bolt , and Bob of the Corp Group did not ."
    head, tail = (10, 17), (23, 27)
    found = [(text[slice(*p.head)], text[slice(*p.tail)]) for p in strangers(Pair(text, head, tail), 4)]
    assert found == [("Ann Lee", "Bolt"), ("Corp Group", "Acme"), ("Ann Lee", "Bob"), ("Bob", "Acme")]
    assert strangers(Pair("ann left acme", (0, 3), (9, 13))) == []


def test_how_alike_a_relations_examples_are_is_part_of_the_evidence():
    x = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 1.0], [1.0, -1.0], [0.0, 1.0]]), dim=-1
    )
    y = torch.tensor([0, 0, 1, 1, 2])
    center = prototypes(x, y, 3)
    alike = likeness(x, y, center)
    assert alike[0] > 0.99 and alike[2] == 1 and torch.isclose(alike[1], torch.tensor(0.5).sqrt())
    phi, best = evidence(x @ center.t(), torch.bincount(y).float(), alike=alike)
    assert torch.equal(phi[:, -1], alike[best])
