"""What the suite of the bank says of its answers."""

import json

import pytest

from quickstudy.bench import kg_bank
from quickstudy.bench.relation_data import NONE, Related
from quickstudy.bench.runs import write_run
from quickstudy.domains.kg.kept import field_entry
from quickstudy.domains.kg.learning.score import Count
from quickstudy.domains.kg.reading.rows import UNTYPED
from quickstudy.domains.kg.relations.examples import labelled_pairs
from quickstudy.domains.kg.relations.pairs import Pair
from quickstudy.encoders.text import load_encoder


def runs(rights: dict[int, int], seeds: int = 3) -> dict[int, list[kg_bank.Run]]:
    """Answers of which so many of ten are right in each of twenty documents."""
    return {
        fields: [
            kg_bank.Run(
                ("a",) * fields, {what: [Count(right, 10, 10)] * (20 + seed) for what in kg_bank.WHAT}
            )
            for seed in range(seeds)
        ]
        for fields, right in rights.items()
    }


@pytest.mark.parametrize(
    ("rights", "value"),
    [({0: 2, 1: 3, 3: 4, 6: 5}, 1), ({0: 2, 1: 3, 3: 3, 6: 5}, 0), ({0: 5, 1: 4, 3: 3, 6: 2}, 0)],
)
def test_it_rises_where_each_step_does(rights, value, tmp_path):
    rows = kg_bank.rows(runs(rights), "test", range(3), 1.0)
    assert rows[0]["id"] == "kg.11.1" and rows[0]["value"] == value
    points = {row["id"]: row["value"] for row in rows[1:]}
    assert points == {f"kg.11.fields{fields}": 10.0 * right for fields, right in rights.items()}
    assert rows[-1]["gain"]["value"] == 10.0 * (rights[6] - rights[0])
    path = write_run("kg_bank", rows, tmp_path)
    assert len(json.loads(path.read_text())["rows"]) == 5


def test_pairs_become_documents_with_relations():
    pair = Pair("Ada left Bonn", (0, 3), (9, 13))
    related, apart = kg_bank._pairs(Related("x", (pair, pair), ("left", NONE)))
    assert [span.type for span in related.spans] == ["left head", "left tail"] and related.relations[
        0
    ].type == "left"
    assert apart.relations == () and apart.of(1) == "Bonn"
    assert [(one.pair, one.type) for one in labelled_pairs(apart)] == [(pair, None)], "it teaches that"
    schema = kg_bank.schema_of([related, apart], "x")
    assert set(schema.entities) == {UNTYPED, "left head", "left tail"} and set(schema.relations) == {"left"}
    encoder = load_encoder("tiny-bert", cache=False)
    entry = field_entry([related, apart], schema, encoder, name="x", consent="the test's", partial=True)
    assert [(part.labels, part.y.tolist()) for part in entry.parts] == [
        (("left head", "left tail"), [0, 1]), (("left",), [0, -1]),
    ]  # fmt: skip
