"""Learning algorithms, one a file. Each reads like its paper's pseudo-code; `quickstudy.core.engine` runs them."""

from quickstudy.learners.anil import ANIL
from quickstudy.learners.centroid import Centroid
from quickstudy.learners.fine_tune import FineTune
from quickstudy.learners.gaussian import Gaussian
from quickstudy.learners.ge2e import GE2E
from quickstudy.learners.logistic import Logistic
from quickstudy.learners.maml import MAML
from quickstudy.learners.matching import Matching
from quickstudy.learners.matching_fce import MatchingFCE
from quickstudy.learners.pool import Pool
from quickstudy.learners.prototypical import Prototypical
from quickstudy.learners.relation_net import RelationNet
from quickstudy.learners.reptile import Reptile
from quickstudy.learners.ridge import Ridge
from quickstudy.learners.siamese import Siamese
from quickstudy.learners.simple_shot import SimpleShot
from quickstudy.learners.transductive import SoftKMeans

__all__ = [
    "ANIL",
    "GE2E",
    "MAML",
    "Centroid",
    "FineTune",
    "Gaussian",
    "Logistic",
    "Matching",
    "MatchingFCE",
    "Pool",
    "Prototypical",
    "RelationNet",
    "Reptile",
    "Ridge",
    "Siamese",
    "SimpleShot",
    "SoftKMeans",
]
