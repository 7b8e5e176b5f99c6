"""Make the shipped prior for text from the bundled CLINC150 sample (CC BY 3.0).

    python tools/make_prior.py            writes src/quickstudy/domains/text/shipped
    python tools/make_prior.py --check    makes it again and compares it with what is shipped

Everything is in float32 on one thread. Two runs on one machine agree to the bit; across processors, sums in another
order move features by less than TOLERANCE (1 - cosine), which no accuracy we report can tell from zero.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from quickstudy.data import sample
from quickstudy.domains.text.encode import load_encoder
from quickstudy.domains.text.learn import Tuning, learn
from quickstudy.domains.text.prior import Prior
from quickstudy.domains.text.read import Examples

SHIPPED = Path(__file__).parents[1] / "src/quickstudy/domains/text/shipped"
TOLERANCE = 1e-3
CARD = """# The shipped prior for text

Learned by `python tools/make_prior.py` from the 6,000 sentences (150 intents) of the CLINC150 sample that quickstudy
bundles: Larson et al. 2019, "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction", CC BY 3.0.
It fits the encoder all-MiniLM-L6-v2. It holds a low-rank adapter for the encoder, the covariances of the Gaussian
learner, its calibration, and the mean of each past class; none of the sentences.

It has seen requests that people make of an assistant. On texts of another kind (news, say) it gains nothing, which
`quickstudy adapt` finds out by itself.
"""


def make() -> Prior:
    """Learn the prior, with a line of progress every ten steps."""
    torch.set_num_threads(1)
    rows = sample("clinc150")
    past = Examples([r["text"] for r in rows], [r["label"] for r in rows], {}, "clinc150")
    encoder = load_encoder("minilm", dtype="float32")

    def progress(step: int, steps: int, loss: float) -> None:
        if step % 10 == 0:
            print(f"step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    prior = learn(
        [past], encoder=encoder, tune_encoder=True, tuning=Tuning(dtype="float32"), progress=progress
    )
    source = {**prior.sources[0], "name": "CLINC150, bundled sample", "licence": "CC BY 3.0"}
    return replace(prior, sources=(source,))


def differs(one: Prior, other: Prior) -> float:
    """The largest 1 - cosine between the features that two priors give the sample's first hundred sentences."""
    encoder = load_encoder("minilm", dtype="float32", cache=False)
    texts = [row["text"] for row in sample("banking77")[:100]]
    a, b = (prior.experienced(encoder).encode(texts) for prior in (one, other))
    return float(1 - (a * b).sum(-1).min())


def main() -> int:
    """Make the prior and write it, or compare it with what is shipped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    prior = make()
    if not check:
        prior.save(SHIPPED, card=CARD)
        print(f"wrote {SHIPPED}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        prior.save(Path(folder) / "prior")
        apart = differs(Prior.load(Path(folder) / "prior"), Prior.load(SHIPPED))
    print(f"largest difference {apart:.1e}, allowed {TOLERANCE:.0e}")
    return int(apart > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
