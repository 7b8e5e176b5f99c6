"""Entity recognition: words and their offsets, the detector's sums, learning, bad input, saving."""

import itertools
import math
import random
from dataclasses import replace

import pytest
import torch

from quickstudy.bench.kg_corpora import Corpus, apart, sentence
from quickstudy.bench.kg_entities import f1, support
from quickstudy.core import engine
from quickstudy.core.episode import Labelled
from quickstudy.core.errors import CheckpointError, DataError, ModelError
from quickstudy.core.objective import Classify
from quickstudy.domains.kg.document import Annotated, Document, Span, words
from quickstudy.domains.kg.entities import types
from quickstudy.domains.kg.entities.detect import (
    Detector,
    choose_strength,
    fit,
    levels,
    pair_scores,
)  # fmt: skip
from quickstudy.domains.kg.entities.paths import ALIKE, best_places, chances, marks
from quickstudy.domains.kg.entities.prior import Prior, Source, learn_prior
from quickstudy.domains.kg.entities.recogniser import Recogniser, learn
from quickstudy.domains.kg.entities.tune import B, I, O, Tuning, features, tags
from quickstudy.domains.kg.entities.types import Typing, _clearly, _folds, told
from quickstudy.domains.kg.entities.words import network, shape, split, states
from quickstudy.domains.kg.marks import unmarked
from quickstudy.domains.kg.schema import EntityType, Schema
from quickstudy.encoders.text import load_encoder
from quickstudy.nets.lora import LoRA

NAMES = ["Ada", "Bo", "Cy", "Dora", "Eli", "Fay"]
PLACES = ["paris", "oslo", "lima", "rome", "cairo", "quito"]
SCHEMA = Schema("travel", {"person": EntityType(), "cityName": EntityType("a place where many people live")})
SPEC = LoRA(rank=4, alpha=8.0, layers=(0, 1))
QUICK = Tuning(spec=SPEC, steps=30, batch=8, rate=3e-3, head_rate=1e-2, dropout=0.0)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny-bert", dtype="float32", cache=False)


def examples(n: int, seed: int = 0) -> list[Annotated]:
    drawn = random.Random(seed)
    found = []
    for i in range(n):
        name, place = drawn.choice(NAMES), drawn.choice(PLACES)
        text = drawn.choice(["{} went to {} .", "in {1} , {0} slept .", "the {1} of {0}"]).format(name, place)
        spans = [
            Span(text.index(w), text.index(w) + len(w), k) for w, k in ((name, "person"), (place, "cityName"))
        ]
        found.append(Annotated(Document(str(i), text), tuple(sorted(spans)), complete=True))
    return found


@pytest.fixture(scope="module")
def prior(encoder):
    return learn_prior([Source("travel", examples(40))], encoder, QUICK)


@pytest.fixture(scope="module")
def recogniser(encoder, prior):
    return learn(examples(24, seed=1), SCHEMA, prior, encoder, tuned=False)


def score(model: Recogniser, given: list[Annotated]) -> float:
    found = model.find_all([a.document for a in given])
    return f1([[f.span for f in row] for row in found], [list(a.spans) for a in given])


class TestWords:
    def test_offsets_are_slices_of_the_document(self, encoder):
        text = "It rained.\n\nDr. Ng's 3-year plan (2019) began in Ōsaka. 東京 too."
        pieces = split([Document("d", text)], encoder)[0]
        words = [text[a:b] for piece in pieces for a, b in piece.offsets]
        assert words[:3] == ["It", "rained", "."]
        assert {"Ng", "'", "3", "-", "year", "Ōsaka", "東", "京"} <= set(words)
        for piece in pieces:
            assert max(piece.word) == len(piece) == len(piece.shape)

    def test_each_word_has_the_mean_of_its_tokens_states(self, encoder):
        [[piece]] = split([Document("d", "ab cde f")], encoder)
        net, _ = network(encoder)
        [found] = states(net, [piece])
        whole = encoder.tokens(["ab cde f"], layers=net.layers).states[0]
        for k, (first, end) in enumerate([(1, 3), (4, 7), (8, 9)]):
            torch.testing.assert_close(found[k], whole[first:end].mean(0), rtol=1e-4, atol=1e-5)

    def test_states_do_not_depend_on_what_stands_beside_in_the_batch(self, encoder):
        pieces = [p for part in split([a.document for a in examples(9)], encoder) for p in part]
        net, _ = network(encoder)
        for one, together in zip(pieces, states(net, pieces), strict=True):
            torch.testing.assert_close(states(net, [one])[0], together, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        "text", [" ".join(["word"] * 600), "東京都" * 300, "a" * 900, "x " * 400 + "ß" * 300]
    )
    def test_words_beyond_the_last_token_stand_in_a_further_sentence(self, encoder, text):
        [pieces] = split([Document("d", text)], encoder)
        offsets = [place for piece in pieces for place in piece.offsets]
        assert len(pieces) > 1 or len(offsets) == 1
        assert offsets == words(text)
        assert all(max(piece.word) == len(piece) and len(piece.ids) <= encoder.max_length for piece in pieces)
        assert all(row.isfinite().all() for row in states(network(encoder)[0], pieces))

    @pytest.mark.parametrize("text", ["", "  \n ", "…"])
    def test_a_text_without_words_is_no_error(self, encoder, text):
        assert len(split([Document("d", text)], encoder)) == 1

    def test_shapes_tell_case_digits_and_place(self):
        seen = {
            shape(w, False, False)
            for w in ["a", "A", "AB", "Ab", "aB", "AbC", "1", "1999", "a1", "-", "(", "."]
        }
        assert len(seen) == 12
        assert shape("Ab", True, False) != shape("Ab", False, False) != shape("Ab", False, True)

    def test_a_span_that_cuts_a_word_takes_all_of_it(self, encoder):
        [[piece]] = split([Document("d", "go to Oslo now")], encoder)
        assert piece.span(7, 9) == (2, 3)
        assert piece.span(5, 6) is None


def _spans(path) -> list[tuple[int, int]]:
    """The spans of labels with types."""
    starts = [k for k, (label, _) in enumerate(path) if label == B]
    return [(k, next((j for j in range(k + 1, len(path)) if path[j][0] != I), len(path))) for k in starts]


class TestDetector:
    @pytest.mark.parametrize("ways", [1, 2, 3])
    def test_sums_over_paths_are_those_of_all_paths_written_out(self, ways):
        generator = torch.Generator().manual_seed(ways)
        size, pairs = torch.tensor([4, 2]), pair_scores([torch.tensor([B, I, O, O, B])])
        scores = (2 * torch.randn(2, 4, 3, generator=generator)).log_softmax(-1)
        kinds = (2 * torch.randn(2, 4, ways, generator=generator)).log_softmax(-1)
        often = torch.randn(ways, generator=generator).log_softmax(0)
        given = marks(scores, kinds, often, pairs, size)
        asked = [[(0, 1), (1, 3), (2, 4), (3, 4)], [(0, 1), (0, 2), (1, 2)]]
        best, found = best_places(given), chances(given, asked)
        for row, n in enumerate(size.tolist()):
            values = {}
            for path in itertools.product([(O, 0), *itertools.product((B, I), range(ways))], repeat=n):
                if path[0][0] == I or any(
                    b[0] == I and (a[0] == O or a[1] != b[1]) for a, b in itertools.pairwise(path)
                ):
                    continue
                value = sum(float(pairs[a[0], b[0]]) for a, b in itertools.pairwise(path))
                for k, (label, kind) in enumerate(path):
                    value += float(scores[row, k, label])
                    value += float(kinds[row, k, kind]) if label != O else 0.0
                    value -= ALIKE * float(often[kind]) if label == I else 0.0
                values[path] = value
            assert best[row] == _spans(max(values, key=values.__getitem__))
            total = torch.tensor(list(values.values())).logsumexp(0)
            for place, chance in zip(asked[row], found[row], strict=True):
                held = [v for path, v in values.items() if place in _spans(path)]
                assert chance == pytest.approx(
                    float((torch.tensor(held).logsumexp(0) - total).exp()), abs=1e-5
                )

    def test_words_of_two_types_are_two_entities(self):
        # The detector holds a run of four words for one name; the types of its words say that it is two.
        scores = (
            torch.tensor([[2.0, 0, 0], [0.5, 1, 0], [0.5, 1, 0], [0.5, 1, 0]]).log_softmax(-1).unsqueeze(0)
        )
        kinds = torch.tensor([[4.0, 0], [4, 0], [0, 4], [0, 4]]).log_softmax(-1).unsqueeze(0)
        size, pairs = torch.tensor([4]), pair_scores([])
        alone = marks(scores, torch.zeros(1, 4, 1), torch.zeros(1), pairs, size)
        assert best_places(alone) == [[(0, 4)]]
        typed = marks(scores, kinds, torch.zeros(2) - math.log(2), pairs, size)
        assert best_places(typed) == [[(0, 2), (2, 4)]]

    def test_what_pads_a_sentence_changes_nothing(self):
        generator = torch.Generator().manual_seed(3)
        detector = Detector(
            torch.randn(3, 5, generator=generator), pair_scores([torch.tensor([B, I, O, B, B])])
        )
        states, lengths = torch.randn(6, 9, 4, generator=generator), [9, 1, 4, 7, 0, 2]
        for row, n, together in zip(states, lengths, detector.find_all(states, lengths), strict=True):
            alone = detector.find(row[:n])
            assert [place for place, _ in alone] == [place for place, _ in together]
            assert [p for _, p in alone] == pytest.approx([p for _, p in together], abs=1e-5)

    def test_adjacent_spans_stay_two(self):
        scores = torch.full((1, 5, 3), -9.0)
        scores[0, range(5), [B, I, B, O, B]] = 0.0
        given = marks(scores, torch.zeros(1, 5, 1), torch.zeros(1), torch.zeros(3, 3), torch.tensor([5]))
        assert best_places(given) == [[(0, 2), (2, 3), (4, 5)]]

    def test_no_sentence_no_spans(self):
        assert Detector(torch.zeros(3, 5), torch.zeros(3, 3)).find(torch.zeros(0, 4)) == []

    def test_a_strong_prior_stays_and_a_weak_one_yields(self):
        x, y = [torch.randn(30, 4, generator=torch.Generator().manual_seed(1))], [torch.arange(30) % 3]
        start = torch.ones(3, 5)
        assert (fit(x, y, start, 1e6) - start).abs().max() < 1e-3
        assert (fit(x, y, start, 1.0) - start).abs().max() > 0.05

    def test_strength_is_small_where_examples_contradict_the_prior(self):
        generator = torch.Generator().manual_seed(2)
        x = [torch.randn(12, 4, generator=generator) for _ in range(10)]
        y = [torch.where(row[:, 0] > 0, B, O) for row in x]
        right, wrong = torch.zeros(3, 5), torch.zeros(3, 5)
        right[B, 0], right[O, 0], right[I, -1] = 20, -20, -20
        wrong[B, 0], wrong[O, 0] = -20, 20
        assert choose_strength(x, y, wrong) < choose_strength(x, y, right)
        assert choose_strength(x[:1], y[:1], right) == 100

    def test_the_longest_of_overlapping_spans_counts(self):
        assert tags(5, [(1, 4, 0), (1, 2, 1)]).tolist() == [O, B, I, I, O]
        outer, inner = levels([(0, 3, 0), (1, 2, 1), (4, 5, 0)])
        assert (outer, inner) == ([(0, 3, 0), (4, 5, 0)], [(1, 2, 1)])


class TestLearning:
    def test_it_learns_from_a_few_sentences(self, recogniser):
        fresh = examples(40, seed=2)
        assert score(recogniser, fresh) > 60
        for row, given in zip(recogniser.find_all([a.document for a in fresh]), fresh, strict=True):
            for span, value, kinds, place in row:
                assert given.text[span.start : span.end].strip()
                assert 0 <= value <= 1 and 0 <= place <= 1
                assert max(kinds, key=kinds.__getitem__) == span.type
                assert sum(kinds.values()) == pytest.approx(1, abs=1e-4)

    def test_experience_helps(self, encoder, prior):
        few, fresh = examples(3, seed=5), examples(40, seed=2)
        bare = score(learn(few, SCHEMA, None, encoder, tuned=False), fresh)
        assert score(learn(few, SCHEMA, prior, encoder, tuned=False), fresh) > bare

    def test_tuning_on_the_examples_works_and_repeats(self, encoder, prior):
        few = examples(12, seed=1)
        models = [
            learn(few, SCHEMA, prior, encoder, tuning=QUICK, epochs=4, tuned=True, seed=3) for _ in range(2)
        ]
        assert all(torch.equal(a, models[1].tuned.adapter[k]) for k, a in models[0].tuned.adapter.items())
        assert models[0].report["tuned"]
        assert score(models[0], examples(40, seed=2)) > 60
        changed = [
            k
            for k, a in prior.adapter.items()
            if not torch.equal(a.half().float(), models[0].tuned.adapter[k])
        ]
        assert changed

    def test_tuning_leaves_the_callers_random_numbers_alone(self, encoder, prior):
        few, models = examples(12, seed=1), []
        for seed in (5, 6):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            tuning = replace(QUICK, dropout=0.3)
            models.append(learn(few, SCHEMA, prior, encoder, tuning=tuning, epochs=1, tuned=True, seed=3))
            assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(a, models[1].tuned.adapter[k]) for k, a in models[0].tuned.adapter.items())

    def test_lower_layers_that_stay_are_those_of_both_networks(self, encoder, prior):
        few, fresh = examples(12, seed=1), [a.document for a in examples(6, seed=2)]
        model = learn(few, SCHEMA, prior, encoder, tuning=replace(QUICK, below=1), epochs=4, tuned=True)
        changed = {
            k.split(".")[2]
            for k, a in model.past.adapter.items()
            if not torch.equal(a, model.tuned.adapter[k])
        }
        assert changed == {"1"}
        pieces = [piece for part in split(fresh, encoder) for piece in part]
        for piece, found in zip(pieces, model.entities(pieces), strict=True):
            first, second = (states(net, [piece])[0] for net in model.networks)
            places = model.detectors[0].find(first, model.words)
            chances = model.typing.probabilities(features(second, [place for place, _ in places]))
            for entity, (place, score), row in zip(found, places, chances, strict=True):
                assert (entity.span.start, entity.span.end) == (
                    piece.offsets[place[0]][0],
                    piece.offsets[place[1] - 1][1],
                )
                assert entity.score == pytest.approx(
                    model.sure.probability(score, float(row.max())), abs=1e-4
                )

    def test_one_network_is_enough_where_it_must_be_quick(self, encoder, prior, tmp_path):
        few, fresh = examples(12, seed=1), examples(40, seed=2)
        model = learn(few, SCHEMA, prior, encoder, tuning=QUICK, tuned=True, quick=True)
        assert len(model.networks) == 1
        assert score(model, fresh) > 60
        model.save(tmp_path / "m")
        assert len(Recogniser.load(tmp_path / "m", encoder).networks) == 1

    def test_types_are_told_by_the_learner_that_did_best_on_what_was_left_out(self, encoder, prior):
        report = learn(examples(24), SCHEMA, prior, encoder, tuned=False).report
        assert {"logistic regression, C = 30", "Gaussian types with a learned prior", "Proto-MAML"} <= set(
            report["losses"]
        )
        assert report["losses"][report["typing"]] <= report["losses"]["Gaussian types with a learned prior"]

    def test_sentences_are_left_out_in_turn_whatever_their_numbers_are(self):
        for numbers in (torch.arange(0, 100, 5), torch.arange(1, 100, 5)):
            folds = _folds(numbers.repeat_interleave(2))
            assert [len(fold) for fold in folds] == [8] * 5
            assert torch.cat(folds).sort().values.tolist() == list(range(40))
            [one] = _folds(numbers.repeat_interleave(150))
            assert len(one) == 600

    def test_all_sentences_of_a_description_are_read(self, encoder, prior, monkeypatch):
        seen, learned, first = [], types.learn, "A thing."
        monkeypatch.setattr(types, "learn", lambda *given: seen.append(given[3]) or learned(*given))
        for second in (" It slept.", " They went to Oslo.", ""):
            schema = Schema(
                "travel", {"person": EntityType(first + second), "cityName": EntityType("a place")}
            )
            learn(examples(6), schema, prior, encoder, tuned=False)
        [slept, went, alone] = seen
        assert len(slept) == 4 and torch.allclose(slept[[0, 2, 3]], went[[0, 2, 3]], atol=1e-5)
        assert not torch.allclose(slept[1], went[1], atol=1e-2)
        net, _ = prior.rounded().network(encoder, merged=True)
        [[piece]] = split([Document("d", first)], encoder)
        [words] = states(net, [piece])
        torch.testing.assert_close(alone[1], features(words, [(0, len(words))])[0], rtol=1e-4, atol=1e-4)

    def test_a_learner_is_displaced_by_what_is_clearly_better_alone(self):
        sentence = torch.arange(40) // 2
        gain = torch.randn(40, generator=torch.Generator().manual_seed(0))
        assert not _clearly(gain - gain.mean() + 0.1, sentence)
        assert _clearly(gain - gain.mean() + 2, sentence)
        # Forty rows of four sentences are four draws.
        assert _clearly(gain - gain.mean() + 0.5, torch.arange(40))
        assert not _clearly(torch.tensor([2.0, -1, 2, -1]).repeat_interleave(10), torch.arange(40) // 10)
        assert _clearly(torch.tensor([2.0, -1, 2, -1]).repeat_interleave(10), torch.arange(40))

    @pytest.mark.parametrize("kind", ["typing", "maml"])
    def test_whatever_tells_types_is_saved_with_the_model(self, encoder, prior, tmp_path, kind):
        few = examples(12)
        model = learn(few, SCHEMA, prior, encoder, tuned=False)
        learner, meta = getattr(prior, kind)
        learner = replace(learner, objective=Classify(ways=2))
        x, y = torch.randn(6, encoder.dim, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
        fast = engine.adapt(learner, meta, Labelled.of(x, y))
        model = replace(model, typing=Typing(learner, meta, fast, kind, {}))
        model.save(tmp_path / "m")
        loaded = Recogniser.load(tmp_path / "m", encoder)
        assert loaded.typing.name == kind
        torch.testing.assert_close(loaded.typing.probabilities(x), model.typing.probabilities(x))

    def test_one_example_and_one_type_are_enough(self, encoder, prior):
        [one] = examples(1)
        only = Annotated(one.document, tuple(s for s in one.spans if s.type == "person"), complete=True)
        model = learn([only], Schema("x", {"person": EntityType()}), prior, encoder)
        assert all(f.span.type == "person" for f in model.find("Ada slept in Oslo ."))

    @pytest.mark.parametrize(
        "text", ["Ada", "?", "東京は大きい。", "Мария живёт в Осло", "على", "Ada " * 600, "👩‍🔬 Bo", "\u200b"]
    )
    def test_texts_of_any_kind_are_read(self, encoder, prior, text):
        model = learn(examples(1), SCHEMA, prior, encoder)
        [found] = model.find_all([text])
        assert found == model.find(text)
        for span, value, _, _ in found:
            assert text[span.start : span.end].strip() and 0 <= value <= 1

    def test_a_type_without_example_can_still_be_named(self, encoder, prior):
        wider = Schema("x", {**SCHEMA.entities, "unseen": EntityType("nothing of the kind")})
        model = learn(examples(10), wider, prior, encoder, tuned=False)
        assert set(model.find("Ada went to oslo .")[0].types) == set(wider.entities)

    def test_spans_inside_of_spans_are_found(self, encoder, prior):
        texts = [f"the town of {place} slept" for place in PLACES * 4]
        nested = [
            Annotated(
                Document(str(i), text),
                (Span(4, text.index(" slept"), "cityName"), Span(12, text.index(" slept"), "person")),
                complete=True,
            )
            for i, text in enumerate(texts)
        ]
        model = learn(nested, SCHEMA, prior, encoder, tuned=False)
        assert len(model.detectors) == 2
        found = [f.span[:2] for f in model.find(texts[0])]
        assert (4, 17) in found
        assert (12, 17) in found

    def test_unlabelled_sentences_say_nothing_unless_complete(self, encoder, prior):
        text = "Ada slept . Bo went to oslo ."
        half = Annotated(Document("d", text), (Span(0, 3, "person"),))
        assert learn([half], SCHEMA, prior, encoder).report["sentences"] == 1
        whole = Annotated(Document("d", text), (Span(0, 3, "person"),), complete=True)
        assert learn([whole], SCHEMA, prior, encoder).report["sentences"] == 2

    def test_names_of_types_become_words(self):
        assert told("Gene_or_geneProduct", EntityType("what it is", ("BRCA1",))) == [
            "gene or gene product", "what it is", "BRCA1",
        ]  # fmt: skip


class TestBadInput:
    def test_types_and_offsets_are_checked(self, encoder, prior):
        bad = Annotated(Document("d", "Ada slept"), (Span(0, 3, "persn"),))
        with pytest.raises(DataError, match="person"):
            learn([bad], SCHEMA, prior, encoder)
        with pytest.raises(DataError, match="99"):
            learn([Annotated(Document("d", "Ada"), (Span(0, 99, "person"),))], SCHEMA, prior, encoder)

    def test_no_span_at_all(self, encoder, prior):
        with pytest.raises(DataError, match="has a span"):
            learn([Annotated(Document("d", "Ada slept"))], SCHEMA, prior, encoder)
        with pytest.raises(DataError, match="no source has a span"):
            learn_prior([Source("empty", [Annotated(Document("d", "Ada slept"))])], encoder, QUICK)

    def test_empty_texts_have_no_entities(self, recogniser):
        assert recogniser.find_all(["", " \n", "?!"])[:2] == [[], []]

    def test_another_encoder_is_refused(self, encoder, prior):
        with pytest.raises(ModelError, match="belongs to the encoder"):
            learn(examples(3), SCHEMA, replace(prior, identity="f" * 64), encoder)


class TestSaving:
    def test_saved_and_loaded_alike(self, recogniser, encoder, tmp_path):
        recogniser.save(tmp_path / "r")
        loaded = Recogniser.load(tmp_path / "r", encoder)
        texts = [a.document for a in examples(8, seed=4)]
        for a, b in zip(recogniser.find_all(texts), loaded.find_all(texts), strict=True):
            assert [x.span for x in a] == [x.span for x in b]
            assert [x.score for x in a] == pytest.approx([x.score for x in b], abs=1e-2)
        assert loaded.report["sentences"] == 24
        assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["record.json", "tensors.safetensors"]

    def test_a_prior_too(self, prior, encoder, tmp_path):
        prior.save(tmp_path / "p")
        loaded = Prior.load(tmp_path / "p")
        assert loaded.spec == prior.spec
        assert loaded.sources[0]["name"] == "travel"
        torch.testing.assert_close(loaded.shapes, prior.shapes, rtol=1e-2, atol=1e-3)
        assert learn(examples(6), SCHEMA, loaded, encoder, tuned=False).find("Ada went to oslo .")

    def test_one_kind_of_folder_is_no_other(self, prior, recogniser, encoder, tmp_path):
        prior.save(tmp_path / "p")
        recogniser.save(tmp_path / "r")
        with pytest.raises(CheckpointError, match="past corpora"):
            Recogniser.load(tmp_path / "p", encoder)
        with pytest.raises(CheckpointError, match="recogniser"):
            Prior.load(tmp_path / "r")

    def test_a_changed_record_is_refused(self, recogniser, encoder, tmp_path):
        recogniser.save(tmp_path / "r")
        path = tmp_path / "r" / "record.json"
        for old, new in (
            ('"levels": 1', '"levels": 7'),
            ('"cityName"', '"person"'),
            ('"rank": 4', '"rank": 5'),
        ):
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))
            with pytest.raises((CheckpointError, ModelError)):
                Recogniser.load(tmp_path / "r", encoder)
            path.write_text(text)


class TestShipped:
    def test_it_names_open_corpora_none_of_which_is_measured_on(self):
        prior = Prior.shipped()
        assert prior is Prior.shipped()
        told = {source["name"]: source["licence"] for source in prior.sources}
        assert {"wikigold", "JNLPBA"} <= told.keys()
        assert all(licence.startswith(("CC BY", "CC0", "MIT")) for licence in told.values())
        assert not any(name.startswith(("CrossNER", "BC5CDR", "CoNLL")) for name in told)
        assert prior.settings["left_out"]["FewRel val_wiki"] > 0

    def test_three_sentences_of_a_field_are_enough_to_find_more(self):
        given = []
        for marked in (
            "The telescope was built by [company]{Ball Aerospace} for [scientist]{Nancy Roman}.",
            "[scientist]{Ed Hubble} never saw what [company]{Lockheed} made.",
            "[company]{Thales} thanked [scientist]{Georges Lemaître} in 2023.",
        ):
            text, spans = unmarked(marked)
            given.append(Annotated(Document(text, text), tuple(Span(*span) for span in spans)))
        schema = Schema(
            "sky", {"scientist": EntityType(), "company": EntityType("a company that builds things")}
        )
        model = learn(given, schema, Prior.shipped(), load_encoder("minilm"))
        asked = "In Toulouse, Airbus hired Vera Rubin."
        found = {asked[f.span.start : f.span.end]: f.span.type for f in model.find(asked)}
        assert found["Airbus"] == "company"
        assert found["Vera Rubin"] == "scientist"


class TestBench:
    def test_sentences_that_share_ten_words_with_what_is_measured_go(self):
        text = "one two three four five six seven eight nine ten eleven"
        rows = [
            text,
            f"Zero, {text.title()}!",
            "one two three four",
            "one two three four five",
            "a b c d e f g h i j k",
        ]
        documents = tuple(Annotated(Document(row, row)) for row in rows)
        [kept], dropped = apart(
            [Corpus("c", documents, ())], [text, "one two three four five", "one two three four"]
        )
        assert [d.text for d in kept.documents] == ["one two three four", "a b c d e f g h i j k"]
        assert dropped == {"c": 3}

    def test_tags_become_spans_of_the_text(self):
        row = sentence("s", ["New", "York", "Times", "Bob"], ["B-loc", "I-loc", "I-org", "B-org"])
        assert row.text == "New York Times Bob"
        assert row.spans == (Span(0, 8, "loc"), Span(9, 14, "org"), Span(15, 18, "org"))

    def test_every_type_is_in_the_support_as_often_as_asked(self):
        corpus = Corpus("c", tuple(examples(60)), ("cityName", "person"))
        chosen = support(corpus, 5, 0)
        assert 5 <= len(chosen) < 12
        assert chosen == support(corpus, 5, 0) != support(corpus, 5, 1)
        assert len(support(corpus, None, 0)) == 60

    def test_f1_wants_borders_and_type(self):
        truth = [[Span(0, 3, "a"), Span(4, 6, "b")]]
        assert f1(truth, truth) == 100
        assert f1([[Span(0, 3, "b"), Span(4, 6, "b")]], truth) == 50
        assert f1([[]], truth) == 0
