"""Classifiers of texts in the bank."""

import pytest
import torch

from quickstudy.bank.store import TaskBank
from quickstudy.core.errors import DataError, NotFitted
from quickstudy.domains.text.kept import KEEPER, entry_of
from quickstudy.domains.text.use import FewShotTextClassifier
from quickstudy.encoders.text import load_encoder

TEXTS = {
    "lost card": [
        "my card is gone",
        "I lost my card",
        "where is my card, it was lost",
        "card stolen on the train",
    ],
    "exchange": [
        "change euros to pounds",
        "what is the rate for dollars",
        "exchange my money",
        "euros for my trip",
    ],
    "top up": ["add money to my account", "top up by transfer", "my top up failed", "how do I add money"],
}


def fitted(start: int = 0, end: int = 4) -> FewShotTextClassifier:
    texts = [text for some in TEXTS.values() for text in some[start:end]]
    labels = [label for label in TEXTS for _ in range(end - start)]
    model = FewShotTextClassifier(None, encoder="tiny", tune=False)
    return model.fit(texts, labels, {"exchange": "changing one currency into another"})


@pytest.fixture(scope="module")
def model():
    return fitted()


def test_its_examples_meanings_and_frozen_features_are_kept(model):
    entry = entry_of(model, name="bank questions", consent="the test's", licence="CC0")
    [part] = entry.parts
    encoder = load_encoder("tiny")
    assert part.labels == ("exchange", "lost card", "top up")
    torch.testing.assert_close(part.x, encoder.encode(entry.material["texts"]))
    assert torch.equal(
        part.told, encoder.encode(["changing one currency into another", "lost card", "top up"])
    )
    assert [part.labels[i] for i in part.y.tolist()] == entry.material["labels"]
    assert entry.material["descriptions"] == {"exchange": "changing one currency into another"}


def test_it_can_be_learned_from_again(model, tmp_path):
    with TaskBank(tmp_path / "bank.sqlite") as bank:
        id, _ = bank.add(entry_of(model, name="bank questions", consent="the test's"))
        material = bank.entry(id).material
    again = FewShotTextClassifier(None, encoder="tiny", tune=False)
    again.fit(material["texts"], material["labels"], material["descriptions"])
    asked = ["the card was stolen", "pounds to dollars"]
    assert again.predict(asked).tolist() == model.predict(asked).tolist()
    assert (again.predict_proba(asked) == model.predict_proba(asked)).all()


def test_a_saved_model_is_kept_like_the_fitted_one(model, tmp_path):
    model.save(tmp_path / "model")
    assert KEEPER.knows(tmp_path / "model") and not KEEPER.knows(tmp_path)
    saved = KEEPER.entry(tmp_path / "model", name="bank questions", consent="the test's")
    assert saved.id == entry_of(model, name="bank questions", consent="the test's").id


def test_one_half_of_a_task_is_near_the_other(tmp_path):
    with TaskBank(tmp_path / "bank.sqlite") as bank:
        bank.add(entry_of(fitted(0, 2), name="first half", consent="the test's"))
        other = fitted(2, 4)
        [near] = bank.nearest(
            entry_of(other, name="x", consent="-").parts[0], load_encoder("tiny").identity, domain="text"
        )
    assert near.name == "first half" and near.weight == 1 and near.nearness > 0.5


def test_what_was_not_fitted_or_not_consented_to_is_not_kept(model):
    with pytest.raises((NotFitted, AttributeError, ValueError), match="fitted"):
        entry_of(FewShotTextClassifier(None, encoder="tiny"), name="x", consent="the test's")
    with pytest.raises(DataError, match="nothing of consent"):
        entry_of(model, name="x", consent="")
