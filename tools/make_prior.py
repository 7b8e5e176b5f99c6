"""Make the shipped prior for text from the bundled CLINC150 sample (CC BY 3.0).

    python tools/make_prior.py            writes src/quickstudy/domains/text/shipped
    python tools/make_prior.py --check    estimates it again with the shipped adapter, compares every tensor and fact
    python tools/make_prior.py --check --tune   tunes the adapter again too, and compares the features it gives

It needs nothing but what is bundled. Everything is in float32 on one thread. Two runs on one machine agree to the bit.
Across processors, sums in another order move an estimated tensor by less than ESTIMATED (relative to its norm), and,
through sixty steps of tuning, features by less than TUNED (1 - cosine), which no accuracy we report can tell from zero.
"""

import argparse
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from quickstudy.core.learner import Meta
from quickstudy.data import sample
from quickstudy.domains.text.learn import Tuning, estimate, learn
from quickstudy.domains.text.prior import Prior
from quickstudy.domains.text.read import Examples
from quickstudy.encoders.text import load_encoder

SHIPPED = Path(__file__).parents[1] / "src/quickstudy/domains/text/shipped"
ESTIMATED, TUNED = 5e-3, 1e-3
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
    encoder = load_encoder("minilm", dtype="float32")

    def progress(step: int, steps: int, loss: float) -> None:
        if step % 10 == 0:
            print(f"step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    prior = learn(
        [past_tasks()], encoder=encoder, tune_encoder=True, tuning=Tuning(dtype="float32"), progress=progress
    )
    return signed(prior)


def past_tasks() -> Examples:
    """What the prior learns from: the bundled sample of CLINC150."""
    rows = sample("clinc150")
    return Examples([r["text"] for r in rows], [r["label"] for r in rows], {}, "clinc150")


def signed(prior: Prior) -> Prior:
    """The prior with its source in words."""
    source = {**prior.sources[0], "name": "CLINC150, bundled sample", "licence": "CC BY 3.0"}
    return replace(prior, sources=(source,))


def estimated(shipped: Prior) -> Prior:
    """All of the shipped prior made again, but for its adapter, which is taken as it is."""
    torch.set_num_threads(1)
    encoder = load_encoder("minilm", dtype="float32")
    made = Tuning(dtype="float32")
    return signed(
        estimate([past_tasks()], encoder, shipped.adapter, shipped.blend, tuning=made,
                 settings={"seed": 0, "tuned": True, "steps": made.steps})
    )  # fmt: skip


def compare(shipped: Prior, made: Prior) -> dict[str, float]:
    """How far apart each tensor and each fact is: relative to the shipped one's norm; 0 or infinite for facts."""
    (one, facts), (other, again) = shipped.parts(), made.parts()
    apart = {
        name: 0.0 if facts[name] == again[name] else math.inf for name in facts if name != "familiar_from"
    }
    apart["familiar_from"] = abs(again["familiar_from"] / facts["familiar_from"] - 1)
    for name in one.keys() ^ other.keys():
        apart[name] = math.inf
    views, views_again = seen(shipped.meta), seen(made.meta)
    for name in one.keys() & other.keys():
        a, b = (views[name], views_again[name]) if name in views else (one[name], other[name])
        a, b = a.double(), b.double()
        # nan, which is no number to be below a limit, counts as infinitely far.
        far = float((a - b).norm() / a.norm().clamp(min=1e-12)) if a.shape == b.shape else math.inf
        apart[name] = far if math.isfinite(far) else math.inf
    return apart


def seen(meta: Meta) -> Meta:
    """What can't be compared number by number, as the features see it: axes may turn round, and into each other.

    Axes of the basis whose scatter is nearly equal are no one's in particular. What the prior says about features
    holds in whichever axes it is written.
    """
    basis = meta["basis"].double()
    views = {"basis": basis @ basis.t()}
    views |= {name: (basis * meta[name]) @ basis.t() for name in ("between", "noise")}
    views |= {name: basis @ meta[name].double() for name in ("mean", "shift")}
    return {f"meta.{name}": view for name, view in views.items()}


def differs(one: Prior, other: Prior) -> float:
    """The largest 1 - cosine between the features that two priors give the sample's first hundred sentences."""
    encoder = load_encoder("minilm", dtype="float32", cache=False)
    texts = [row["text"] for row in sample("banking77")[:100]]
    a, b = (prior.experienced(encoder).encode(texts) for prior in (one, other))
    return float(1 - (a * b).sum(-1).min())


def check(*, tune: bool) -> list[str]:
    """What of the shipped prior can't be made again, a line each; none when all can."""
    shipped = Prior.load(SHIPPED)
    wrong = [
        f"{name} is {apart:.1e} from what is estimated, allowed {ESTIMATED:.0e}"
        for name, apart in sorted(compare(shipped, estimated(shipped)).items())
        if not apart <= ESTIMATED
    ]
    if (SHIPPED / "README.md").read_text(encoding="utf-8") != CARD:
        wrong.append("README.md is not the card that the tool writes")
    if tune:
        with tempfile.TemporaryDirectory() as folder:
            make().save(Path(folder) / "prior")
            apart = differs(Prior.load(Path(folder) / "prior"), shipped)
        if not apart <= TUNED:
            wrong.append(f"features of the adapter tuned again are {apart:.1e} away, allowed {TUNED:.0e}")
    return wrong


def main() -> int:
    """Make the prior and write it, or compare it with what is shipped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--tune", action="store_true", help="with --check: tune the adapter again too")
    asked = parser.parse_args()
    if not asked.check:
        make().save(SHIPPED, card=CARD)
        print(f"wrote {SHIPPED}")
        return 0
    wrong = check(tune=asked.tune)
    told = "with its adapter" if asked.tune else "its adapter taken as it is (--tune makes that again too)"
    print("\n".join(wrong) or f"the shipped prior is what this tool makes, {told}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
