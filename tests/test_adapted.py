"""Adapted: a task, learned; it predicts, explains itself, and lives in a folder that nobody has to trust."""

import json
from dataclasses import replace

import pytest
import torch
from toy import Words, sentences

from quickstudy.core.adapted import Adapted
from quickstudy.core.errors import CheckpointError, DataError, QuickstudyError
from quickstudy.core.objective import Classify
from quickstudy.learners import Centroid, Ridge
from quickstudy.nets import MLP


def learned(learner=None):
    learner = learner or Centroid(objective=Classify(ways=3))
    return Adapted.learn(learner, learner.init(0), sentences(), Words())


def test_it_answers_with_labels_and_probabilities():
    task, model = sentences(), learned()
    answers = model.predict(task.query)
    assert [answer.label for answer in answers] == task.query_labels
    for answer in answers:
        assert set(answer.probabilities) == {"lost_card", "transfer", "rate"}
        assert sum(answer.probabilities.values()) == pytest.approx(1.0)
        assert answer.probability == max(answer.probabilities.values()) == answer.probabilities[answer.label]
    assert model.predict([]) == []


def test_none_of_these_below_the_threshold():
    model = learned()
    (answer,) = model.predict(["card lost"])
    (unsure,) = model.predict(["card lost"], threshold=answer.probability + 1e-6)
    (sure,) = model.predict(["card lost"], threshold=answer.probability)
    assert unsure.label is None and sure.label == answer.label
    assert unsure.probabilities == answer.probabilities


def test_an_answer_does_not_depend_on_its_neighbours():
    model, texts = learned(), ["card lost", "money abroad", "exchange rate"]
    together = model.predict(texts)
    for text, answer in zip(texts, together, strict=True):
        (alone,) = model.predict([text])
        assert alone.label == answer.label
        assert alone.probability == pytest.approx(answer.probability, abs=1e-6)


def test_the_examples_that_spoke_for_an_answer_come_first():
    explanation = learned().explain("lost my card")
    assert explanation.label == "lost_card"
    assert explanation.prediction.label == "lost_card"
    own = [i.effect for i in explanation.influences if i.label == "lost_card"]
    others = [i.effect for i in explanation.influences if i.label != "lost_card"]
    assert sum(own) / 2 > max(sum(others) / 4, 0)
    effects = [i.effect for i in explanation.influences]
    assert effects == sorted(effects, reverse=True) and len(effects) == 6
    other = learned().explain("lost my card", label="rate", most=2)
    assert other.label == "rate" and len(other.influences) == 2
    with pytest.raises(DataError, match="No label 'rates'"):
        learned().explain("lost my card", label="rates")


def test_the_folder_holds_json_and_safetensors_only(tmp_path):
    learned().save(tmp_path / "model")
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    record = json.loads((tmp_path / "model" / "record.json").read_text())
    assert record["learner"]["type"] == "Centroid"
    assert record["labels"] == ["lost_card", "rate", "transfer"]


def test_another_encoder_is_refused(tmp_path):
    class Others(Words):
        fingerprint = identity = "f" * 64

    learned().save(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"made with encoder .*Load it with the encoder"):
        Adapted.load(tmp_path / "model", Others())


def edited(folder, change):
    path = folder / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(learner={"type": "os.system"}),
        lambda r: r.update(learner={"type": "Classify", "ways": 3}),
        lambda r: r.update(learner=None),
        lambda r: r["learner"].update(surprise=1),
        lambda r: r.update(labels="abc"),
        lambda r: r.update(labels=["a", "b"]),
        lambda r: r.update(labels=["a", "b", "c", "d"]),
        lambda r: r.update(labels=[["a"], "b", "c"]),
        lambda r: r.update(labels=["a", "a", "b"]),
        lambda r: r.update(items=r["items"][:-1]),
        lambda r: r.update(items={}),
        lambda r: r.update(temperature=0),
        lambda r: r.update(temperature=-1.0),
        lambda r: r.update(temperature="1"),
        lambda r: r.update(notes=[1]),
        lambda r: r.pop("labels"),
        lambda r: r.pop("learner"),
        lambda r: r["learner"]["objective"].update(ways=2),
    ],
)
def test_a_record_that_was_tampered_with_is_refused_on_loading(change, tmp_path):
    learned().save(tmp_path / "model")
    edited(tmp_path / "model", change)
    with pytest.raises(QuickstudyError):
        Adapted.load(tmp_path / "model", Words())


def test_tensors_that_do_not_belong_to_the_learner_are_refused(tmp_path):
    # A folder of one learner under the name of another: shapes and names can't fit.
    learned().save(tmp_path / "model")
    ridge = Ridge(objective=Classify(ways=3), net=MLP(inputs=Words.dim, outputs=4))
    edited(tmp_path / "model", lambda r: r.update(learner=ridge.to_json()))
    with pytest.raises(QuickstudyError):
        Adapted.load(tmp_path / "model", Words())


def test_a_task_of_fewer_labels_than_the_learner_has_outputs(tmp_path):
    model = learned(Centroid(objective=Classify(ways=5)))
    full = learned()
    query = sentences().query
    for some, all_of_it in zip(model.predict(query), full.predict(query), strict=True):
        assert some.probabilities == pytest.approx(all_of_it.probabilities, abs=1e-6)
    assert [i.item for i in model.explain(query[0]).influences] == [
        i.item for i in full.explain(query[0]).influences
    ]
    model.save(tmp_path / "few")
    assert Adapted.load(tmp_path / "few", Words()).predict(query) == model.predict(query)
    edited(tmp_path / "few", lambda r: r.update(labels=[*r["labels"], "d", "e", "f"]))
    with pytest.raises(CheckpointError, match="6 labels"):
        Adapted.load(tmp_path / "few", Words())


def test_features_that_are_no_numbers():
    class Broken(Words):
        def encode(self, items):
            return super().encode(items) * float("nan")

    model = learned()
    wrong = replace(model, encoder=Broken())
    for ask in (lambda: wrong.predict(["my card"]), lambda: wrong.explain("my card")):
        with pytest.raises(DataError, match="NaN"):
            ask()


def test_a_row_that_describes_a_class_is_refused_where_none_may(tmp_path):
    model = learned()
    described = model.support._replace(y=model.support.y + torch.tensor([3] + [0] * (len(model.items) - 1)))
    replace(model, support=described).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="class number 3"):
        Adapted.load(tmp_path / "model", Words())
