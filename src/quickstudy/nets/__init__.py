"""Networks that learners adapt, as specs that can be saved. Any `nn.Module` works in their place."""

from quickstudy.nets.mlp import MLP

__all__ = ["MLP"]
