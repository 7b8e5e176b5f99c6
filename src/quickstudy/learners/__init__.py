"""Learning algorithms, one a file. Each reads like its paper's pseudo-code; `quickstudy.core.engine` runs them."""

from quickstudy.learners.anil import ANIL
from quickstudy.learners.bayesian_ridge import BayesianRidge
from quickstudy.learners.boil import BOIL
from quickstudy.learners.cavia import CAVIA
from quickstudy.learners.centroid import Centroid
from quickstudy.learners.deep_kernel import DeepKernel
from quickstudy.learners.fine_tune import FineTune
from quickstudy.learners.gaussian import Gaussian
from quickstudy.learners.ge2e import GE2E
from quickstudy.learners.imaml import IMAML
from quickstudy.learners.learned_momentum import LearnedMomentum
from quickstudy.learners.learned_optimiser import LearnedOptimiser
from quickstudy.learners.leo import LEO
from quickstudy.learners.logistic import Logistic
from quickstudy.learners.logistic_head import LogisticHead
from quickstudy.learners.maml import MAML
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.matching import Matching
from quickstudy.learners.matching_fce import MatchingFCE
from quickstudy.learners.meta_curvature import MetaCurvature
from quickstudy.learners.meta_lstm import MetaLSTM
from quickstudy.learners.meta_opt_net import MetaOptNet
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.metar import MetaR
from quickstudy.learners.neural_process import NeuralProcess
from quickstudy.learners.pool import Pool
from quickstudy.learners.pretrained import Pretrained
from quickstudy.learners.proto_maml import ProtoMAML
from quickstudy.learners.prototypical import Prototypical
from quickstudy.learners.relation_net import RelationNet
from quickstudy.learners.reptile import Reptile
from quickstudy.learners.ridge import Ridge
from quickstudy.learners.siamese import Siamese
from quickstudy.learners.simple_shot import SimpleShot
from quickstudy.learners.transductive import SoftKMeans

__all__ = [
    "ANIL",
    "BOIL",
    "CAVIA",
    "GE2E",
    "IMAML",
    "LEO",
    "MAML",
    "BayesianRidge",
    "Centroid",
    "DeepKernel",
    "FineTune",
    "Gaussian",
    "LearnedMomentum",
    "LearnedOptimiser",
    "Logistic",
    "LogisticHead",
    "MAMLPlusPlus",
    "Matching",
    "MatchingFCE",
    "MetaCurvature",
    "MetaLSTM",
    "MetaOptNet",
    "MetaR",
    "MetaSGD",
    "NeuralProcess",
    "Pool",
    "Pretrained",
    "ProtoMAML",
    "Prototypical",
    "RelationNet",
    "Reptile",
    "Ridge",
    "Siamese",
    "SimpleShot",
    "SoftKMeans",
]
