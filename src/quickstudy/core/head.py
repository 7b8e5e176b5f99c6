"""The head of a network, for learners that treat it apart: its last linear layer."""

from torch import Tensor, nn

from quickstudy.core.errors import ModelError
from quickstudy.core.net import Net, skeleton


def last_linear(net: Net) -> str:
    """The name of the last linear layer, with its final dot: parameters whose names begin with it are the head.

    Raises:
        ModelError: the net has no linear layer.
    """
    linear = [name for name, layer in skeleton(net).named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ModelError(f"The head is a network's last linear layer, and {net} has none; add one.")
    return f"{linear[-1]}." if linear[-1] else ""  # the net may be one linear layer and nothing else


def split_head(net: Net, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the last linear layer has of these weights, and the rest: body and head.

    Raises:
        ModelError: there is no such layer, or it shares a weight with another.
    """
    last = last_linear(net)
    every = list(skeleton(net).named_parameters(remove_duplicate=False))
    own = {id(weight): name for name, weight in every if name.startswith(last)}
    for name, weight in every:
        if not name.startswith(last) and id(weight) in own:
            raise ModelError(
                f"The head is the last linear layer, and its {own[id(weight)]!r} is {name!r}, too: what moves the one "
                "moves the other. Give the network a head of its own, or take MAML."
            )
    head = {name: weight for name, weight in weights.items() if name.startswith(last)}
    return {name: weight for name, weight in weights.items() if name not in head}, head
