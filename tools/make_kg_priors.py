"""Make what is shipped for knowledge graphs: what earlier, openly licensed data taught about relations.

    python tools/make_kg_priors.py relations --data FOLDER     writes src/quickstudy/domains/kg/shipped/relations

FOLDER holds the published data sets; without it, the variable QUICKSTUDY_DATA says where, or they are fetched. Nothing
of a data set without an open licence goes in, and nothing of those on which the whole chain is measured.
"""

import argparse
import sys
from pathlib import Path

import torch

from quickstudy.bench import data as published
from quickstudy.bench import relation_data as given
from quickstudy.bench.kg_relations import as_earlier
from quickstudy.domains.kg.relations.experience import learn_relation_prior
from quickstudy.encoders.text import load_encoder

SHIPPED = Path(__file__).parents[1] / "src/quickstudy/domains/kg/shipped"
RELATIONS_CARD = """# The shipped prior for relations

Learned by `python tools/make_kg_priors.py relations` from two parts of FewRel: val_wiki (16 relations, 11,200 sentences
of Wikipedia) and val_nyt (25 relations, 2,500 sentences of the New York Times), published by their authors under the
MIT licence: Han et al. 2018, arXiv:1810.10147; Gao et al. 2019, arXiv:1910.07124. Sentences in both count once.

It fits the encoder all-MiniLM-L6-v2. It holds a low-rank adapter for the encoder, the mean of all pairs, the directions
in which examples of one relation scatter, and how scores become probabilities; none of the sentences. Pairs that aren't
related were made of other names in the same sentences.

Figures on FewRel (kg.1 to kg.3 in docs/benchmarks.md) aren't of this prior, which knows those sentences: each is of one
that was learned without the part reported.
"""


def relations(data: Path) -> None:
    """Learn from FewRel's val_wiki and val_nyt, and write the prior."""
    wiki, news = (given.fewrel(data, part) for part in ("val_wiki", "val_nyt"))
    earlier = as_earlier([wiki, news.unlike(pair.text for pair in wiki.pairs)])
    encoder = load_encoder("minilm", cache=False)

    def progress(step: int, steps: int, loss: float) -> None:
        if step % 10 == 0:
            print(f"step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    prior = learn_relation_prior(earlier, encoder, progress=progress)
    sources = [{"name": one, "licence": "MIT"} for one in ("FewRel val_wiki", "FewRel val_nyt")]
    prior = prior.with_record({**prior.record, "sources": sources})
    prior.save(SHIPPED / "relations", card=RELATIONS_CARD)


MAKERS = {"relations": relations}


def main() -> int:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=sorted(MAKERS))
    parser.add_argument("--data", metavar="FOLDER", help="published data sets")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    MAKERS[asked.what](published.folder(asked.data))
    print(f"wrote {SHIPPED / asked.what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
