"""Networks that learners adapt, as specs that can be saved. Any `nn.Module` works in their place."""

from quickstudy.nets.candidates import Candidates
from quickstudy.nets.conv import Conv4
from quickstudy.nets.mlp import MLP
from quickstudy.nets.policy import GaussianPolicy
from quickstudy.nets.stored import stored_norms

__all__ = ["MLP", "Candidates", "Conv4", "GaussianPolicy", "stored_norms"]
